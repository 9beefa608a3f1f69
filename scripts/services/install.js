/**
 * Installs the servers that this machine can have: those built by Go or brought by pip, npm and Maven go into the cache
 * folder, those of apt into the system, where we are root. Nothing goes into the tree. It is quick where all is there.
 */
'use strict'
const { execFile } = require('child_process')
const fs = require('fs')
const path = require('path')
const { cache } = require('./process')
const kafka = require('./kafka')
const kcl = require('./kcl')
const { dynamodb, kinesis } = require('./kinesis')
const rabbitmq = require('./rabbitmq')
const { kinds: s3 } = require('./s3')
const { kinds: tools } = require('./tools')

/** The kinds of server for each service, best first. The last resort is installed only where no other can be had. */
const services = {
  s3: { wanted: ['versitygw', 'minio'], lastResort: ['moto'], kinds: s3 },
  kafka: { wanted: ['kafka'], kinds: kafka.kinds },
  kcat: { wanted: ['kcat'], kinds: kafka.peers },
  rabbitmq: { wanted: ['rabbitmq'], kinds: rabbitmq.kinds },
  // Both are wanted: only kinesis-local has consumers, and only kinesalite has the rest.
  kinesis: { wanted: ['kinesalite'], kinds: { kinesalite: kinesis.kinesalite } },
  'kinesis-fanout': { wanted: ['kinesis-local'], kinds: { 'kinesis-local': kinesis['kinesis-local'] } },
  dynamodb: { wanted: ['dynalite'], kinds: dynamodb },
  // Version 3 distributes leases in another way; only the long sweeps ask for it.
  kcl: { wanted: ['kcl-2'], kinds: kcl.kinds },
  zsh: { wanted: ['zsh'], kinds: { zsh: tools.zsh } },
  fish: { wanted: ['fish'], kinds: { fish: tools.fish } },
  faketime: { wanted: ['faketime'], kinds: { faketime: tools.faketime } },
}

/** An installation that hangs on a network is given up after this; the slowest one takes some four minutes. */
const PATIENCE_MIN = 15

function run(file, args, env) {
  return new Promise((resolve) => {
    execFile(
      file,
      args,
      {
        env: Object.assign({}, process.env, env),
        maxBuffer: 1 << 26,
        timeout: PATIENCE_MIN * 60_000,
        killSignal: 'SIGKILL',
      },
      (error, stdout, stderr) => {
        resolve(error ? { ok: false, why: reason(stderr, stdout, error) } : { ok: true, out: stdout, err: stderr })
      },
    )
  })
}
/** Maven tells the cause first, on stdout; all others tell it last, on stderr. */
function reason(stderr, stdout, error) {
  if (error.killed) return `not done after ${PATIENCE_MIN} minutes`
  const first = /^\[ERROR\] (.*)/m.exec(stdout)
  return (first ? first[1] : `${stderr || error.message}`.trim().split('\n').slice(-1)[0]).slice(0, 300)
}
async function has(file, args) {
  return (await run(file, args)).ok
}

async function withGo(kind, say) {
  if (!(await has('go', ['version']))) return { state: 'skipped', why: 'no go in PATH' }
  say(`building ${kind.module}, a few minutes …`)
  // It is built beside its final place and then renamed, so that an interrupted build does not count as a server.
  const building = path.join(cache, `building-${process.pid}`)
  fs.mkdirSync(building, { recursive: true })
  try {
    const built = await run('go', ['install', kind.module], { GOBIN: building, GOFLAGS: '', CGO_ENABLED: '0' })
    if (!built.ok) return { state: 'failed', why: built.why }
    fs.mkdirSync(path.dirname(kind.file), { recursive: true })
    fs.renameSync(path.join(building, path.basename(kind.file)), kind.file)
    return { state: 'installed' }
  } finally {
    fs.rmSync(building, { recursive: true, force: true })
  }
}

async function withPython(kind) {
  if (!(await has('python3', ['-m', 'venv', '-h']))) return { state: 'skipped', why: 'no python3 with venv in PATH' }
  const place = path.dirname(path.dirname(kind.file))
  fs.mkdirSync(cache, { recursive: true })
  for (const [file, args] of [
    ['python3', ['-m', 'venv', place]],
    [path.join(place, 'bin', 'pip'), ['install', '--quiet', '--disable-pip-version-check', kind.requirement]],
  ]) {
    const done = await run(file, args)
    if (!done.ok) {
      fs.rmSync(place, { recursive: true, force: true })
      return { state: 'failed', why: done.why }
    }
  }
  return { state: 'installed' }
}

async function withNpm(kind) {
  if (!(await has('npm', ['--version']))) return { state: 'skipped', why: 'no npm in PATH' }
  const building = path.join(cache, `building-${process.pid}`)
  fs.mkdirSync(building, { recursive: true })
  try {
    fs.writeFileSync(path.join(building, 'package.json'), '{"private":true}\n')
    // Native code of these packages comes built, so no package's script has to run.
    const got = await run('npm', [
      'install',
      '--prefix',
      building,
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
      '--loglevel=error',
      '--save-exact',
      kind.package,
    ])
    if (!got.ok) return { state: 'failed', why: got.why }
    fs.rmSync(kind.place, { recursive: true, force: true })
    fs.renameSync(building, kind.place)
    return { state: 'installed' }
  } finally {
    fs.rmSync(building, { recursive: true, force: true })
  }
}

async function withMaven(kind) {
  const java = await run('java', ['-version'])
  if (!java.ok) return { state: 'skipped', why: 'no java in PATH' }
  const version = /version "(\d+)/.exec(java.err)
  if (version !== null && Number(version[1]) < 17)
    return { state: 'skipped', why: `Java ${version[1]} is in PATH, 17 or later is needed` }
  if (kind.compiles && !(await has('javac', ['-version']))) return { state: 'skipped', why: 'no javac in PATH' }
  if (!(await has('mvn', ['-v']))) return { state: 'skipped', why: 'no mvn in PATH' }
  const building = path.join(cache, `building-${process.pid}`)
  fs.mkdirSync(building, { recursive: true })
  try {
    const dependencies = kind.artifacts.map((each) => {
      const [group, name, wanted] = each.split(':')
      return `<dependency><groupId>${group}</groupId><artifactId>${name}</artifactId><version>${wanted}</version></dependency>`
    })
    fs.writeFileSync(
      path.join(building, 'pom.xml'),
      `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>x</artifactId><version>1</version><dependencies>${dependencies.join('')}</dependencies></project>`,
    )
    const got = await run('mvn', [
      '-q',
      '-B',
      '-f',
      path.join(building, 'pom.xml'),
      'dependency:copy-dependencies',
      '-DincludeScope=runtime',
      `-DoutputDirectory=${path.join(building, 'libs')}`,
    ])
    if (!got.ok) return { state: 'failed', why: got.why }
    // The other files of a start name the final place of the jars, so they are made there. The installation counts
    // once its last file is written.
    fs.rmSync(kind.home, { recursive: true, force: true })
    fs.renameSync(building, kind.home)
    await kind.prepare(kind.home)
    fs.writeFileSync(kind.file, '')
    return { state: 'installed' }
  } catch (error) {
    return { state: 'failed', why: error.message.split('\n')[0].slice(0, 600) }
  } finally {
    fs.rmSync(building, { recursive: true, force: true })
  }
}

async function withApt(kind) {
  if (!(await has('apt-get', ['--version']))) return { state: 'skipped', why: 'no apt-get in PATH' }
  if (process.getuid() !== 0) return { state: 'skipped', why: `apt-get needs root: apt-get install ${kind.package}` }
  // The package's service must not start when it is installed.
  const policy = '/usr/sbin/policy-rc.d'
  const own = !fs.existsSync(policy)
  if (own) fs.writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  try {
    const get = () =>
      run('apt-get', ['install', '-y', '-q', '--no-install-recommends', kind.package], {
        DEBIAN_FRONTEND: 'noninteractive',
      })
    let got = await get()
    if (!got.ok) {
      const updated = await run('apt-get', ['update', '-q'])
      if (updated.ok) got = await get()
    }
    return got.ok ? { state: 'installed' } : { state: 'failed', why: got.why }
  } finally {
    if (own) fs.rmSync(policy)
  }
}

const ways = { apt: withApt, npm: withNpm, go: withGo, python: withPython, maven: withMaven }

async function installKind(name, kind, say) {
  if (kind.file !== undefined && fs.existsSync(kind.file)) {
    say(`${name}: there (${kind.file})`)
    return true
  }
  const started = Date.now()
  const { state, why } = await ways[kind.needs](kind, (line) => say(`${name}: ${line}`))
  say(
    `${name}: ${state}${why ? `: ${why}` : ''}${state === 'installed' ? ` in ${Math.round((Date.now() - started) / 1000)} s` : ''}`,
  )
  return state === 'installed'
}

/**
 * @param {{ need?: string[], only?: string[], one?: boolean, say?: (line: string) => void }} [options] need: services,
 *   all by default; only: kinds of servers; one: of each service the first kind that can be had is enough
 * @returns {Promise<string[]>} services that cannot be had
 */
async function install(options) {
  const { only, one = false, say = console.log } = options || {}
  const need =
    (options && options.need) ||
    Object.keys(services).filter(
      (name) => !only || Object.keys(services[name].kinds).some((kind) => only.includes(kind)),
    )
  const missing = []
  for (const name of need) {
    const service = services[name]
    if (service === undefined)
      throw new Error(`there is no service ${name}: ${Object.keys(services).join(', ')} can be had`)
    const wanted = only ? Object.keys(service.kinds).filter((kind) => only.includes(kind)) : service.wanted
    let found = 0
    for (const kind of wanted) if (!(one && found > 0) && (await installKind(kind, service.kinds[kind], say))) found++
    if (found === 0 && !only)
      for (const kind of service.lastResort || []) if (await installKind(kind, service.kinds[kind], say)) found++
    if (found === 0) missing.push(name)
  }
  return missing
}

module.exports = { install, services }
