/**
 * A server of tests and demos as a child process: its own port and folder on loopback, started until it answers, ended
 * by its own id. Plain JavaScript for any Node: it runs before the project's own Node is there.
 */
'use strict'
const { spawn } = require('child_process')
const fs = require('fs')
const http = require('http')
const net = require('net')
const os = require('os')
const path = require('path')

const cache =
  process.env.MANIFOLD_SERVICES ||
  path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'manifold-services')
const bin = (name) => path.join(cache, 'bin', name)
const sleep = (ms) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

/**
 * A port is reserved from the moment it is chosen, because the server that is to listen on it needs seconds to start.
 * Without the reservation another process that starts servers in the same way could choose the same port: its server
 * would answer in place of ours, and disappear with its own test. Each reservation is a file that names its process.
 */
const reservations = path.join(os.tmpdir(), `manifold-ports-${os.userInfo().uid}`)
const reservationOf = (port) => path.join(reservations, String(port))
function reserve(port) {
  fs.mkdirSync(reservations, { recursive: true })
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      fs.writeFileSync(reservationOf(port), String(process.pid), { flag: 'wx' })
      return true
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
      if (isTaken(reservationOf(port))) return false
      fs.rmSync(reservationOf(port), { force: true })
    }
  }
  return false
}
function isTaken(reservation) {
  try {
    const pid = Number(fs.readFileSync(reservation, 'utf8'))
    // It is being written.
    if (pid === 0) return true
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code !== 'ESRCH' && error.code !== 'ENOENT'
  }
}
function release(ports) {
  for (const port of ports) fs.rmSync(reservationOf(port), { force: true })
}

/** Listens on the port while `then` runs, and resolves to its value; to undefined where somebody else listens there. */
function holding(port, then) {
  return new Promise((resolve, reject) => {
    const server = net.createServer()
    server.once('error', (error) => {
      if (error.code === 'EADDRINUSE') resolve(undefined)
      else reject(error)
    })
    server.listen(port, '127.0.0.1', () => {
      then().then(
        (value) => {
          server.close(() => resolve(value))
        },
        (error) => {
          server.close(() => reject(error))
        },
      )
    })
  })
}

/**
 * Chooses different ports on which nobody listens. They lie below the range from which the system gives connections
 * their own ports. Otherwise another connection could take the port of a killed server before its restart, and a client
 * that tries the port could connect to itself. They stay reserved until they are released or this process ends.
 */
async function freePorts(count) {
  for (;;) {
    const port = 12000 + Math.floor(Math.random() * 20000)
    if (!reserve(port)) continue
    const found = await holding(port, async () => [port, ...(count > 1 ? await freePorts(count - 1) : [])])
    if (found !== undefined) return found
    release([port])
  }
}
async function freePort() {
  return (await freePorts(1))[0]
}

/** Resolves to true where a server answers over HTTP; with `ok` the answer must be 200. */
function answers(url, ok) {
  return new Promise((resolve) => {
    const request = http.get(url, { timeout: 1000, agent: false }, (response) => {
      response.resume()
      resolve(!ok || response.statusCode === 200)
    })
    request.on('error', () => resolve(false))
    request.on('timeout', () => {
      request.destroy()
      resolve(false)
    })
  })
}

// The server ends with the process that started it, even after a kill -9, when nobody is left to end it.
const SETPRIV = '/usr/bin/setpriv'
function bound(file, args) {
  return fs.existsSync(SETPRIV) ? [SETPRIV, ['--pdeathsig', 'KILL', '--', file, ...args]] : [file, args]
}

/** Makes a folder for a server, and removes those of servers whose starter was killed before it could do so. */
function temporaryFolder(name) {
  const prefix = `manifold-${name}-`
  for (const entry of fs.readdirSync(os.tmpdir()).filter((each) => each.startsWith(prefix))) {
    const folder = path.join(os.tmpdir(), entry)
    try {
      process.kill(Number(fs.readFileSync(path.join(folder, 'starter'), 'utf8')), 0)
    } catch (error) {
      // A folder without `starter` is being made at this moment, or belongs to another program.
      if (error.code === 'ESRCH') fs.rmSync(folder, { recursive: true, force: true })
    }
  }
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), prefix))
  fs.writeFileSync(path.join(dir, 'starter'), String(process.pid))
  return dir
}

/**
 * @param {{ name: string, command: (port: number, dir: string, ports: number[]) => { file: string, args: string[],
 *   env?: object }, ready: (port: number) => Promise<boolean>, waitMs?: number, graceMs?: number, dir?: string, port?:
 *   number, portCount?: number, gone?: () => void }} what dir: a given folder is kept at the end, a temporary one is
 *   removed. graceMs: how long the server may take after SIGTERM. portCount: the length of `ports`, whose first is
 *   `port`. gone: removes all else that the server has left behind, after it has ended for good
 */
async function startProcess(what) {
  const own = what.dir === undefined
  const dir = own ? temporaryFolder(what.name) : what.dir
  fs.mkdirSync(dir, { recursive: true })
  const log = path.join(dir, 'server.log')
  const graceMs = what.graceMs || 5000
  let child
  let ended
  let ports = []
  let ready = false
  /** The processes that were told to end. */
  const expected = new WeakSet()

  function launch(ports) {
    const { file, args, env } = what.command(ports[0], dir, ports)
    const out = fs.openSync(log, 'a')
    child = spawn(...bound(file, args), {
      stdio: ['ignore', out, out],
      env: Object.assign({}, process.env, env),
      cwd: dir,
    })
    fs.closeSync(out)
    ended = new Promise((resolve) => {
      child.once('exit', resolve)
      child.once('error', resolve)
    })
    sayIfUnexpected(child, ports)
  }
  /** Without this line a test shows only a refused connection, and the server's log is removed with its folder. */
  function sayIfUnexpected(started, [port]) {
    started.once('exit', (code, signal) => {
      if (ready && !expected.has(started))
        process.stderr.write(
          `${what.name} on port ${port} (pid ${started.pid}) ended by itself, ${signal || `code ${code}`}: ${tail(log)}\n`,
        )
    })
  }
  async function awaitReady(port) {
    const started = child
    let gone = false
    const left = ended.then(() => {
      gone = true
    })
    const until = Date.now() + (what.waitMs || 30000)
    while (!gone) {
      // Another server may answer on this port, and ours may have ended because of it.
      if ((await what.ready(port)) && !gone) {
        ready = true
        return
      }
      if (Date.now() > until) break
      await Promise.race([sleep(30), left])
    }
    if (!gone) {
      expected.add(started)
      started.kill('SIGKILL')
      await ended
    }
    throw new Error(`${what.name} did not start on port ${port}: ${tail(log)}`)
  }
  async function end(signal, graceMs) {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
    // A frozen process takes no SIGTERM.
    child.kill('SIGCONT')
    expected.add(child)
    child.kill(signal)
    const patience = setTimeout(() => {
      child.kill('SIGKILL')
    }, graceMs)
    await ended
    clearTimeout(patience)
  }
  const atExit = () => {
    expected.add(child)
    if (child.pid !== undefined) child.kill('SIGKILL')
    release(ports)
  }
  process.on('exit', atExit)

  for (let attempt = 1; ; attempt++) {
    ports = await freePorts(what.portCount || 1)
    if (what.port !== undefined) {
      release([ports[0]])
      ports[0] = what.port
    }
    launch(ports)
    try {
      await awaitReady(ports[0])
      break
    } catch (error) {
      // Between asking for a free port and taking it somebody else may have been quicker.
      release(ports)
      if (attempt < 3 && what.port === undefined) continue
      process.removeListener('exit', atExit)
      if (what.gone) what.gone()
      if (own) fs.rmSync(dir, { recursive: true, force: true })
      throw error
    }
  }
  const [port] = ports
  return {
    port,
    ports,
    dir,
    log,
    get pid() {
      return child.pid
    },
    /** Ends it at once, as a power cut would. The data stay. */
    kill: () => end('SIGKILL', 0),
    /** Holds the process still: connections stay, nothing is answered. */
    freeze: () => {
      child.kill('SIGSTOP')
    },
    thaw: () => {
      child.kill('SIGCONT')
    },
    /** Starts it again on the same port, with the same data. */
    restart: async () => {
      await end('SIGTERM', graceMs)
      launch(ports)
      await awaitReady(port)
    },
    stop: async () => {
      // The data are about to be removed, so they need no orderly end.
      await end(own ? 'SIGKILL' : 'SIGTERM', graceMs)
      if (what.gone) what.gone()
      process.removeListener('exit', atExit)
      release(ports)
      if (own) fs.rmSync(dir, { recursive: true, force: true, maxRetries: 3 })
    },
  }
}

function tail(file) {
  // The lines of a stack trace tell the reader of a test nothing.
  try {
    return fs
      .readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .filter((line) => !/^\s+at /.test(line))
      .slice(-3)
      .join(' | ')
      .slice(-600)
  } catch {
    return 'it wrote nothing'
  }
}

module.exports = { answers, bin, bound, cache, freePort, freePorts, release, startProcess, tail }
