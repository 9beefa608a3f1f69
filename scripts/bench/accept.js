/** Measures how long it takes until records are accepted, by asking the running program over its metrics socket. */
'use strict'
const { spawn } = require('child_process')
const fs = require('fs')
const http = require('http')
const path = require('path')
const { timed, usage } = require('./measure')

/**
 * Runs until `count` records are durable in the spool, with a store that cannot be reached, and then stops the run.
 * @param {{ feed?: string, from?: string, count: number, manifold: string, state: string }} what feed: a command
 *   whose output is the input; from: words after --from, stdin by default
 */
async function accept({ feed, from: source = '-', count, manifold, state }) {
  const usageFile = path.join(state, 'usage')
  const socket = path.join(state, 'metrics.sock')
  const from = process.hrtime.bigint()
  const env = Object.assign({}, process.env, { AWS_ACCESS_KEY_ID: 'none', AWS_SECRET_ACCESS_KEY: 'none' })
  const line = `'${manifold}' --from ${source} --to s3://none/none region=us-east-1 endpoint=http://127.0.0.1:9 --state '${state}' --metrics 'unix:${socket}'`
  const child = spawn('bash', ['-c', `${feed === undefined ? '' : `${feed} | `}${timed(line, usageFile)}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env,
    detached: true,
  })
  const over = new Promise((resolve) => {
    child.once('close', resolve)
  })
  let seconds
  for (;;) {
    const status = await ask(socket)
    if (status?.sinks[0].pending === count) {
      seconds = Number(process.hrtime.bigint() - from) / 1e9
      break
    }
    if (child.exitCode !== null) throw new Error(`manifold ended with ${child.exitCode}`)
    await new Promise((resolve) => {
      setTimeout(resolve, 10)
    })
  }
  // SIGTERM would end time(1) as well, and its figures would be lost.
  process.kill(-child.pid, 'SIGINT')
  await over
  const used = usage(usageFile)
  fs.rmSync(state, { recursive: true, force: true })
  return Object.assign({ seconds }, used)
}

function ask(socketPath) {
  return new Promise((resolve) => {
    const request = http.get({ socketPath, path: '/status' }, (response) => {
      let text = ''
      response.on('data', (part) => {
        text += part
      })
      response.on('end', () => {
        try {
          resolve(JSON.parse(text))
        } catch {
          resolve(undefined)
        }
      })
    })
    request.on('error', () => {
      resolve(undefined)
    })
  })
}

module.exports = { accept }
