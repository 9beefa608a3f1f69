/**
 * A server of tests and demos as a child process: its own port and folder on loopback, started until it answers, ended by its own id.
 * Plain JavaScript for any Node: it runs before the project's own Node is there.
 */
'use strict'
const { spawn } = require('child_process')
const fs = require('fs')
const http = require('http')
const net = require('net')
const os = require('os')
const path = require('path')

const cache = process.env.MANIFOLD_SERVICES || path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'manifold-services')
const bin = (name) => path.join(cache, 'bin', name)
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms) })

function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => { const { port } = server.address(); server.close(() => resolve(port)) })
  })
}

/** Whether anything speaks HTTP there; `ok`: and answers 200. */
function answers(url, ok) {
  return new Promise((resolve) => {
    const request = http.get(url, { timeout: 1000, agent: false }, (response) => { response.resume(); resolve(!ok || response.statusCode === 200) })
    request.on('error', () => resolve(false))
    request.on('timeout', () => { request.destroy(); resolve(false) })
  })
}

/**
 * @param {{ name: string, command: (port: number, dir: string) => { file: string, args: string[], env?: object }, ready: (port: number) => Promise<boolean>, waitMs?: number, dir?: string, port?: number }} what
 *   dir: kept at the end where it is given; else a temporary one, removed
 */
async function startProcess(what) {
  const own = what.dir === undefined
  const dir = own ? fs.mkdtempSync(path.join(os.tmpdir(), `manifold-${what.name}-`)) : what.dir
  fs.mkdirSync(dir, { recursive: true })
  const log = path.join(dir, 'server.log')
  let child
  let ended

  function launch(port) {
    const { file, args, env } = what.command(port, dir)
    const out = fs.openSync(log, 'a')
    child = spawn(file, args, { stdio: ['ignore', out, out], env: Object.assign({}, process.env, env), cwd: dir })
    fs.closeSync(out)
    ended = new Promise((resolve) => { child.once('exit', resolve); child.once('error', resolve) })
  }
  async function awaitReady(port) {
    const started = child
    let gone = false
    const left = ended.then(() => { gone = true })
    const until = Date.now() + (what.waitMs || 30000)
    while (!gone) {
      if (await what.ready(port)) return
      if (Date.now() > until) break
      await Promise.race([sleep(30), left])
    }
    if (!gone) { started.kill('SIGKILL'); await ended }
    throw new Error(`${what.name} did not start on port ${port}: ${tail(log)}`)
  }
  async function end(signal, graceMs) {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
    // A frozen process takes no SIGTERM.
    child.kill('SIGCONT')
    child.kill(signal)
    const patience = setTimeout(() => { child.kill('SIGKILL') }, graceMs)
    await ended
    clearTimeout(patience)
  }
  const atExit = () => { if (child.pid !== undefined) child.kill('SIGKILL') }
  process.on('exit', atExit)

  let port = what.port
  for (let attempt = 1; ; attempt++) {
    if (what.port === undefined) port = await freePort()
    launch(port)
    try { await awaitReady(port); break } catch (error) {
      // Between asking for a free port and taking it somebody else may have been quicker.
      if (attempt < 3 && what.port === undefined) continue
      process.removeListener('exit', atExit)
      if (own) fs.rmSync(dir, { recursive: true, force: true })
      throw error
    }
  }
  return {
    port, dir, log,
    get pid() { return child.pid },
    /** As a power cut: at once. The data stay. */
    kill: () => end('SIGKILL', 0),
    /** Holds the process still: connections stay, nothing is answered. */
    freeze: () => { child.kill('SIGSTOP') },
    thaw: () => { child.kill('SIGCONT') },
    /** On the same port, with the same data. */
    restart: async () => { await end('SIGTERM', 5000); launch(port); await awaitReady(port) },
    stop: async () => {
      await end('SIGTERM', 5000)
      process.removeListener('exit', atExit)
      if (own) fs.rmSync(dir, { recursive: true, force: true, maxRetries: 3 })
    },
  }
}

function tail(file) {
  try { return fs.readFileSync(file, 'utf8').trim().split('\n').slice(-3).join(' | ').slice(-600) } catch { return 'it wrote nothing' }
}

module.exports = { answers, bin, cache, freePort, startProcess, tail }
