/** Puts what this machine can have into the cache: what Go builds, what pip installs. Never into the tree. Quick where it is there already. */
'use strict'
const { execFile } = require('child_process')
const fs = require('fs')
const path = require('path')
const { cache } = require('./process')
const { kinds: s3 } = require('./s3')

/** What each service may be, best first; the last resort only where none of the others can be had. */
const services = { s3: { wanted: ['versitygw', 'minio'], lastResort: ['moto'], kinds: s3 } }

function run(file, args, env) {
  return new Promise((resolve) => {
    execFile(file, args, { env: Object.assign({}, process.env, env), maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      resolve(error ? { ok: false, why: `${stderr || error.message}`.trim().split('\n').slice(-1)[0].slice(0, 300) } : { ok: true, out: stdout })
    })
  })
}
async function has(file, args) { return (await run(file, args)).ok }

async function withGo(kind, say) {
  if (!await has('go', ['version'])) return { state: 'skipped', why: 'no go in PATH' }
  say(`building ${kind.module}, a few minutes …`)
  // Built beside its place, then renamed into it: an interrupted build is no server.
  const building = path.join(cache, `building-${process.pid}`)
  fs.mkdirSync(building, { recursive: true })
  try {
    const built = await run('go', ['install', kind.module], { GOBIN: building, GOFLAGS: '', CGO_ENABLED: '0' })
    if (!built.ok) return { state: 'failed', why: built.why }
    fs.mkdirSync(path.dirname(kind.file), { recursive: true })
    fs.renameSync(path.join(building, path.basename(kind.file)), kind.file)
    return { state: 'installed' }
  } finally { fs.rmSync(building, { recursive: true, force: true }) }
}

async function withPython(kind) {
  if (!await has('python3', ['-m', 'venv', '-h'])) return { state: 'skipped', why: 'no python3 with venv in PATH' }
  const place = path.dirname(path.dirname(kind.file))
  fs.mkdirSync(cache, { recursive: true })
  for (const [file, args] of [['python3', ['-m', 'venv', place]], [path.join(place, 'bin', 'pip'), ['install', '--quiet', '--disable-pip-version-check', kind.requirement]]]) {
    const done = await run(file, args)
    if (!done.ok) { fs.rmSync(place, { recursive: true, force: true }); return { state: 'failed', why: done.why } }
  }
  return { state: 'installed' }
}

async function installKind(name, kind, say) {
  if (fs.existsSync(kind.file)) { say(`${name}: there (${kind.file})`); return true }
  const started = Date.now()
  const { state, why } = await (kind.needs === 'go' ? withGo(kind, (line) => say(`${name}: ${line}`)) : withPython(kind))
  say(`${name}: ${state}${why ? `: ${why}` : ''}${state === 'installed' ? ` in ${Math.round((Date.now() - started) / 1000)} s` : ''}`)
  return state === 'installed'
}

/**
 * @param {{ need?: string[], only?: string[], say?: (line: string) => void }} [options] need: services, all by default; only: kinds of servers
 * @returns {Promise<string[]>} services that cannot be had
 */
async function install(options) {
  const { need = Object.keys(services), only, say = console.log } = options || {}
  const missing = []
  for (const name of need) {
    const service = services[name]
    if (service === undefined) throw new Error(`there is no service ${name}: ${Object.keys(services).join(', ')} can be had`)
    const wanted = only ? Object.keys(service.kinds).filter((kind) => only.includes(kind)) : service.wanted
    let found = 0
    for (const kind of wanted) if (await installKind(kind, service.kinds[kind], say)) found++
    if (found === 0 && !only) for (const kind of service.lastResort) if (await installKind(kind, service.kinds[kind], say)) found++
    if (found === 0) missing.push(name)
  }
  return missing
}

module.exports = { install, services }
