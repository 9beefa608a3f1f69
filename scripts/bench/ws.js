/** A feed into nothing, against a bare client of the same WebSocket library that counts. */
'use strict'
const { spawn } = require('child_process')
const path = require('path')
const { compare, measure } = require('./measure')

const COUNT = 2_000_000

async function run({ manifold, pairs, wants, results }) {
  if (!wants('ws')) return
  const server = spawn(process.execPath, [path.join(__dirname, 'ws-server.js'), String(COUNT), '200'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const port = await new Promise((resolve) => {
      server.stdout.once('data', (text) => {
        resolve(String(text).trim())
      })
    })
    const url = `ws://127.0.0.1:${port}/`
    results.push(
      await compare(
        'ws to discard',
        pairs,
        () => measure(() => `'${process.execPath}' '${path.join(__dirname, 'ws-client.js')}' ${url} ${COUNT}`),
        () => measure((wrap) => wrap(`'${manifold}' --from ${url} --to discard: --count ${COUNT}`)),
        0.9,
      ),
    )
  } finally {
    server.kill()
  }
}

module.exports = { names: ['ws'], run }
