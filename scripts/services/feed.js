/**
 * A WebSocket feed of trades with sequence numbers, for the demo and for trying things out. Trades that are sent while
 * nobody is connected are lost, as they are at a market.
 */
'use strict'

/** @param {{ port?: number, perSecond: number }} options */
async function startFeed({ port, perSecond }) {
  const { WebSocketServer } = require('ws')
  const server = new WebSocketServer({ port: port || 0, host: '127.0.0.1', perMessageDeflate: false })
  await new Promise((resolve, reject) => {
    server.once('listening', resolve)
    server.once('error', reject)
  })
  const symbols = ['BTC-USD', 'ETH-USD', 'SOL-USD']
  const feed = {
    url: `ws://127.0.0.1:${server.address().port}/`,
    sent: 0,
    firstOfConnection: [],
    stop: () => {
      clearInterval(timer)
      for (const client of server.clients) client.terminate()
      server.close()
    },
  }
  server.on('connection', (socket) => {
    feed.firstOfConnection.push(feed.sent + 1)
    socket.on('error', () => undefined)
  })
  const from = Date.now()
  const timer = setInterval(() => {
    const due = Math.floor(((Date.now() - from) / 1000) * perSecond)
    while (feed.sent < due) {
      const seq = ++feed.sent
      const trade = JSON.stringify({
        seq,
        symbol: symbols[seq % 3],
        price: 20000 + ((seq * 7919) % 1000) / 10,
        size: ((seq % 50) + 1) / 100,
        at: new Date().toISOString(),
      })
      for (const client of server.clients) client.send(trade)
    }
  }, 10)
  return feed
}

module.exports = { startFeed }
