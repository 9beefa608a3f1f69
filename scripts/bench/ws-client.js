/** The peer: a bare ws client that counts. */
'use strict'
const { WebSocket } = require('ws')
const [url, count] = process.argv.slice(2)
let seen = 0
const socket = new WebSocket(url, { perMessageDeflate: false })
socket.on('message', () => {
  if (++seen === Number(count)) process.exit(0)
})
