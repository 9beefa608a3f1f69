/** This file is preloaded into servers that would listen on all addresses, so that they listen on loopback alone. */
'use strict'
const net = require('net')

const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (...args) {
  if (args[0] !== null && typeof args[0] === 'object' && args[0].port !== undefined)
    args[0] = Object.assign({}, args[0], { host: '127.0.0.1' })
  else if (/^\d+$/.test(String(args[0]))) args.splice(1, typeof args[1] === 'string' ? 1 : 0, '127.0.0.1')
  return listen.apply(this, args)
}
