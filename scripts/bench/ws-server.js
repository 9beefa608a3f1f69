/** Sends COUNT messages of SIZE bytes to each client, as fast as the socket takes them, and prints its port. */
'use strict'
const { WebSocketServer } = require('ws')
const [count, size] = process.argv.slice(2).map(Number)
const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false })
server.on('listening', () => {
  process.stdout.write(`${server.address().port}\n`)
})
server.on('connection', (socket) => {
  socket.on('error', () => undefined)
  // Frames are made once and written as blocks, so that the server is not the bottleneck.
  const payload = Buffer.from(`{"n":1,"pad":"${'x'.repeat(size - 16)}"}`)
  const frame = Buffer.concat([
    payload.length < 126
      ? Buffer.from([0x81, payload.length])
      : Buffer.from([0x81, 126, payload.length >> 8, payload.length & 255]),
    payload,
  ])
  const block = Buffer.concat(Array.from({ length: 300 }, () => frame))
  let left = count
  const raw = socket._socket
  const more = () => {
    while (left > 0) {
      const n = Math.min(left, 300)
      left -= n
      if (!raw.write(n === 300 ? block : block.subarray(0, n * frame.length))) {
        raw.once('drain', more)
        return
      }
    }
  }
  more()
})
