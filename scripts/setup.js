/**
 * Makes what a fresh clone lacks before anything else runs: packages, the right Node, the built program. Scripts that
 * are somebody's first command begin with it:
 *
 *   require('./setup').ready(__filename, async () => { … under the pinned Node, with dist/ current … })
 *
 * It must run in any Node from 18 on, and without node_modules.
 */
'use strict'
const { spawn, spawnSync } = require('child_process')
const fs = require('fs')
const path = require('path')

const root = path.join(__dirname, '..')
const at = (...parts) => path.join(root, ...parts)
const bin = at('node_modules', '.bin')
const say = (text) => {
  process.stderr.write(`${text}\n`)
}

/**
 * Runs a script under the pinned Node once everything is there. `main` may return a promise; a throw ends the process
 * with 1.
 */
function ready(script, main, { build = true } = {}) {
  install()
  const node = pinned()
  if (fs.realpathSync(node) !== fs.realpathSync(process.execPath)) {
    again(node, script)
    return
  }
  process.env.PATH = [bin, process.env.PATH].filter(Boolean).join(path.delimiter)
  if (build) buildIfOlder()
  Promise.resolve()
    .then(main)
    .catch((error) => {
      say(error instanceof Error ? error.stack : String(error))
      process.exitCode = 1
    })
}

function packagesOf(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')).packages
  } catch {
    return undefined
  }
}

/** Versions are compared, because a checkout gives all files new times. Optional packages may be of other platforms. */
function installed() {
  const wanted = packagesOf(at('package-lock.json'))
  const there = packagesOf(at('node_modules', '.package-lock.json'))
  if (there === undefined || wanted === undefined) return false
  return Object.entries(wanted).every(([name, { version, optional, os, cpu, link }]) => {
    if (name === '' || link || there[name]?.version === version) return true
    return (
      optional &&
      !(
        [].concat(os ?? process.platform).includes(process.platform) &&
        [].concat(cpu ?? process.arch).includes(process.arch) &&
        name === `node_modules/node-${process.platform}-${process.arch}`
      )
    )
  })
}

function install() {
  if (installed()) return
  say('installing packages (npm ci) …')
  // Within `npm run` it is the npm that runs it, otherwise the one in PATH.
  const own = process.env.npm_execpath
  const args = ['ci', '--include=dev', '--include=optional', '--no-audit', '--no-fund', '--loglevel=error']
  const done =
    own !== undefined && /\.c?js$/.test(own)
      ? spawnSync(process.execPath, [own, ...args], { cwd: root, stdio: ['ignore', 2, 2] })
      : spawnSync('npm', args, { cwd: root, stdio: ['ignore', 2, 2] })
  if (done.status !== 0) fail(`npm ci failed${done.error === undefined ? '' : ` (${done.error.message})`}: see above`)
}

function pinned() {
  const node = path.join(bin, 'node')
  if (fs.existsSync(node)) return node
  if (parseInt(process.versions.node, 10) >= 24) return process.execPath
  return fail(
    `Node 24 or later is needed, this is ${process.version}, and npm has none pinned for ${process.platform}-${process.arch}: install it from https://nodejs.org`,
  )
}

function newest(folder) {
  return fs.readdirSync(folder, { withFileTypes: true }).reduce((time, entry) => {
    const file = path.join(folder, entry.name)
    // The time of a folder shows that a file in it was removed.
    return Math.max(time, fs.statSync(file).mtimeMs, entry.isDirectory() ? newest(file) : 0)
  }, 0)
}

function buildIfOlder() {
  const built = at('dist', 'command', 'main.js')
  const sources = Math.max(newest(at('src')), fs.statSync(at('src')).mtimeMs, fs.statSync(at('tsconfig.json')).mtimeMs)
  if (fs.existsSync(built) && fs.statSync(built).mtimeMs >= sources) return
  say('building …')
  const done = spawnSync(process.execPath, [at('scripts', 'build.js')], { cwd: root, stdio: ['ignore', 2, 2] })
  if (done.status !== 0) fail('the build failed: see above')
}

/** Runs the script again under the pinned Node; this process only passes on signals and the exit status. */
function again(node, script) {
  // A process group of its own would lose the terminal. Signals from the keyboard reach both processes, so only those
  // that are sent to this one alone are passed on.
  const child = spawn(node, [script, ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, PATH: [bin, process.env.PATH].filter(Boolean).join(path.delimiter) },
  })
  process.on('SIGTERM', () => {
    child.kill('SIGTERM')
  })
  process.on('SIGINT', () => {
    if (!process.stdin.isTTY) child.kill('SIGINT')
  })
  child.on('exit', (code, signal) => {
    process.exit(signal === null ? code : 128 + (require('os').constants.signals[signal] ?? 0))
  })
}

function fail(why) {
  say(why)
  process.exit(1)
}

module.exports = { ready, root }

// A package that is packed or published must hold what was built from these sources.
if (require.main === module) ready(__filename, () => {})
