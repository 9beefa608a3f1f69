/**
 * RabbitMQ from the system's package: one node per call, with its own folder, name, ports, cookie and port mapper
 * (epmd). A start takes some seconds.
 */
'use strict'
const { execFile, spawn } = require('child_process')
const crypto = require('crypto')
const fs = require('fs')
const net = require('net')
const path = require('path')
const { certificates } = require('./certificates')
const { bound, startProcess } = require('./process')

// The commands in /usr/sbin change to a user who cannot write to our folder, so they are not used.
const bin = '/usr/lib/rabbitmq/bin'
const kinds = { rabbitmq: { file: path.join(bin, 'rabbitmq-server'), needs: 'apt', package: 'rabbitmq-server' } }
function available() {
  return fs.existsSync(kinds.rabbitmq.file) ? ['rabbitmq'] : []
}

/**
 * alice may do everything. carol may read from names `readable…`, write to names `writable…` and the default exchange,
 * and declare nothing.
 */
const users = { guest: 'guest', alice: 'alice-secret', carol: 'carol-secret' }
const rights = {
  guest: ['.*', '.*', '.*'],
  alice: ['.*', '.*', '.*'],
  carol: ['^$', '^(writable.*|amq\\.default)$', '^readable.*'],
}

function definitions() {
  const hash = (password) => {
    const salt = crypto.randomBytes(4)
    return Buffer.concat([salt, crypto.createHash('sha256').update(salt).update(password).digest()]).toString('base64')
  }
  return {
    users: Object.entries(users).map(([name, password]) => ({
      name,
      password_hash: hash(password),
      hashing_algorithm: 'rabbit_password_hashing_sha256',
      tags: name === 'guest' ? ['administrator'] : [],
    })),
    vhosts: [{ name: '/' }],
    permissions: Object.entries(rights).map(([user, [configure, write, read]]) => ({
      user,
      vhost: '/',
      configure,
      write,
      read,
    })),
  }
}

function writeConfig(dir, [port, tlsPort], { secure, consumerTimeoutMs, conf }) {
  for (const folder of ['mnesia', 'log', 'config']) fs.mkdirSync(path.join(dir, folder), { recursive: true })
  const write = (name, text) => {
    fs.writeFileSync(path.join(dir, name), text, { mode: 0o600 })
  }
  const pem = secure ? certificates(path.join(dir, 'tls'), ['alice', 'carol']) : undefined
  write('definitions.json', JSON.stringify(definitions()))
  write(
    'rabbitmq.conf',
    [
      `listeners.tcp.1 = 127.0.0.1:${port}`,
      `load_definitions = ${path.join(dir, 'definitions.json')}`,
      'disk_free_limit.absolute = 50MB',
      'vm_memory_high_watermark.absolute = 1GB',
      'log.console = true',
      'log.file = false',
      ...(pem === undefined
        ? []
        : [
            `listeners.ssl.1 = 127.0.0.1:${tlsPort}`,
            `ssl_options.cacertfile = ${pem.ca}`,
            `ssl_options.certfile = ${pem.cert}`,
            `ssl_options.keyfile = ${pem.key}`,
            'ssl_options.verify = verify_peer',
            'ssl_options.fail_if_no_peer_cert = false',
            'auth_mechanisms.1 = PLAIN',
            'auth_mechanisms.2 = AMQPLAIN',
            'auth_mechanisms.3 = EXTERNAL',
            'ssl_cert_login_from = common_name',
          ]),
      ...conf,
      '',
    ].join('\n'),
  )
  // As keys of rabbitmq.conf these prevent the start.
  const timeout =
    consumerTimeoutMs === undefined
      ? ''
      : `{consumer_timeout,${consumerTimeoutMs}},{channel_tick_interval,${Math.max(250, Math.min(1000, consumerTimeoutMs))}}`
  write('advanced.config', `[{rabbit,[${timeout}]}].\n`)
  write('enabled_plugins', `[${secure ? 'rabbitmq_auth_mechanism_ssl' : ''}].\n`)
  write('rabbitmq-env.conf', '')
  return pem
}

function environment(dir, [port, , distPort, epmdPort]) {
  const at = (name) => path.join(dir, name)
  return {
    HOME: dir,
    RABBITMQ_NODENAME: `m${port}@localhost`,
    RABBITMQ_BASE: dir,
    RABBITMQ_MNESIA_BASE: at('mnesia'),
    RABBITMQ_LOG_BASE: at('log'),
    RABBITMQ_CONFIG_FILE: at('rabbitmq.conf'),
    RABBITMQ_ADVANCED_CONFIG_FILE: at('advanced.config'),
    RABBITMQ_CONF_ENV_FILE: at('rabbitmq-env.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: at('enabled_plugins'),
    RABBITMQ_GENERATED_CONFIG_DIR: at('config'),
    RABBITMQ_PID_FILE: at('pid'),
    RABBITMQ_DIST_PORT: String(distPort),
    RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
    RABBITMQ_NODE_PORT: String(port),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    ERL_EPMD_PORT: String(epmdPort),
    LANG: 'C.UTF-8',
    LC_ALL: 'C.UTF-8',
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}',
    // With this the start script becomes the node, so signals and the process id are the node's own.
    RUNNING_UNDER_SYSTEMD: 'true',
  }
}

// Debian's erlang-base has it: a few milliseconds, where rabbitmqctl starts a virtual machine of its own for each call.
const CALL = '/usr/bin/erl_call'

/** @returns what the expression is, as Erlang writes it; rejects where it fails */
function evaluate({ port, env, dir, caller }, expression) {
  return new Promise((resolve, reject) => {
    const cookie = fs.readFileSync(path.join(dir, '.erlang.cookie'), 'utf8')
    const child = execFile(
      CALL,
      ['-n', `m${port}@localhost`, '-c', cookie, '-h', caller, '-e'],
      { env: Object.assign({}, process.env, env), encoding: 'utf8', maxBuffer: 1 << 26 },
      (error, stdout, stderr) => {
        const [, value] = /^\{ok, ([^]*)\}$/.exec(stdout.trim()) || []
        if (error || value === undefined || value.startsWith('{badrpc'))
          reject(new Error(`${expression} failed: ${`${stderr}${stdout}`.trim().slice(-600)}`))
        else resolve(value)
      },
    )
    child.stdin.on('error', () => undefined)
    child.stdin.end(`${expression}\n`)
  })
}

/** A binary of Erlang, by its bytes: erl_call reads Latin-1. */
function text(value) {
  return `<<${[...Buffer.from(value)].join(',')}>>`
}
const USER = text('rmq-cli')
/** The commands of rabbitmqctl that tests use, as the Erlang that rabbitmqctl itself evaluates in the node. */
const EXPRESSIONS = {
  stop_app: () => 'rabbit:stop().',
  start_app: () => 'rabbit:start().',
  // A connection that ends by itself meanwhile is no failure.
  close_all_connections: (why) =>
    `[catch rabbit_networking:close_connection(C, ${text(why)}) || C <- rabbit_networking:connections()], ok.`,
  set_vm_memory_high_watermark: (kind, value) =>
    `vm_memory_monitor:set_vm_memory_high_watermark(${kind === 'absolute' ? `{absolute, "${value}"}` : Number(kind).toFixed(2)}).`,
  add_vhost: (name) => `rabbit_vhost:add(${text(name)}, ${USER}).`,
  delete_vhost: (name) => `rabbit_vhost:delete(${text(name)}, ${USER}).`,
  set_vhost_limits: (_, name, limits) => `rabbit_vhost_limit:parse_set(${text(name)}, ${text(limits)}, ${USER}).`,
  clear_vhost_limits: (_, name) => `rabbit_vhost_limit:clear(${text(name)}, ${USER}).`,
  set_permissions: (_, vhost, ...rest) =>
    `rabbit_auth_backend_internal:set_permissions(${[rest[0], vhost, ...rest.slice(1)].map(text).join(', ')}, ${USER}).`,
}

function rabbitmqctl(env, args) {
  return new Promise((resolve, reject) => {
    execFile(
      path.join(bin, 'rabbitmqctl'),
      ['-q', ...args],
      { env: Object.assign({}, process.env, env), encoding: 'utf8', maxBuffer: 1 << 26 },
      (error, stdout, stderr) => {
        if (error) reject(new Error(`rabbitmqctl ${args.join(' ')} failed: ${`${stderr}${stdout}`.trim().slice(-600)}`))
        else resolve(stdout)
      },
    )
  })
}

/** Resolves to true once the port answers in AMQP. */
function ready(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1')
    const done = (value) => {
      socket.destroy()
      resolve(value)
    }
    socket.on('error', () => done(false))
    socket.on('close', () => done(false))
    socket.setTimeout(1000, () => done(false))
    socket.on('connect', () => {
      socket.write('AMQP\0\0\x09\x01')
    })
    socket.on('data', () => done(true))
  })
}

/**
 * Uses the server that MANIFOLD_TEST_RABBITMQ=amqp://USER:PASSWORD@HOST:PORT names, which is never stopped from here,
 * where no option is given; otherwise it starts a node.
 * @param {{ dir?: string, port?: number, secure?: boolean, consumerTimeoutMs?: number, conf?: string[], own?: boolean
 *   }} [options] secure: adds a listener with TLS; conf: more lines of rabbitmq.conf; own: never the environment's
 */
async function startRabbitmq(options) {
  const named = process.env.MANIFOLD_TEST_RABBITMQ
  if (named && !Object.keys(options || {}).length) {
    const fixed = () => Promise.reject(new Error(`the RabbitMQ server ${new URL(named).host} is not ours to stop`))
    return {
      kind: 'environment',
      uri: named.replace(/\/$/, ''),
      kill: fixed,
      restart: fixed,
      freeze: fixed,
      thaw: fixed,
      ctl: fixed,
      evaluate: fixed,
      stop: () => Promise.resolve(),
    }
  }
  if (available().length === 0)
    throw new Error('there is no RabbitMQ here: node scripts/services.js install --need rabbitmq')
  const { dir, port, secure = false, consumerTimeoutMs, conf = [] } = options || {}
  let mapper
  // The node refuses two callers of one name at a time.
  let calls = 0
  let env
  let pem
  const endMapper = () => {
    if (mapper !== undefined) mapper.child.kill('SIGKILL')
    mapper = undefined
  }
  const server = await startProcess({
    name: 'rabbitmq',
    ready,
    waitMs: 90_000,
    graceMs: 20_000,
    portCount: 4,
    gone: endMapper,
    ...(dir === undefined ? {} : { dir }),
    ...(port === undefined ? {} : { port }),
    command: (_, place, ports) => {
      pem = writeConfig(place, ports, { secure, consumerTimeoutMs, conf })
      env = environment(place, ports)
      const [file, args] = bound('epmd', ['-port', String(ports[3]), '-address', '127.0.0.1'])
      if (mapper !== undefined && (mapper.port !== ports[3] || mapper.child.exitCode !== null)) endMapper()
      if (mapper === undefined) {
        mapper = { port: ports[3], child: spawn(file, args, { stdio: 'ignore' }) }
        mapper.child.on('error', () => undefined)
        process.once('exit', endMapper)
      }
      return { file: kinds.rabbitmq.file, args: [], env }
    },
  })
  const mine = {
    kind: 'rabbitmq',
    uri: `amqp://127.0.0.1:${server.port}`,
    users,
    ...(secure ? { tlsUri: `amqps://localhost:${server.ports[1]}`, certificates: pem } : {}),
    ctl: async (command, ...args) => {
      const expression = fs.existsSync(CALL) ? EXPRESSIONS[command] : undefined
      if (expression === undefined) return rabbitmqctl(env, [command, ...args])
      const value = await mine.evaluate(expression(...args))
      if (/^\{?(error|badrpc|'EXIT')/.test(value)) throw new Error(`${command} ${args.join(' ')} failed: ${value}`)
      return value
    },
    evaluate: (expression) =>
      fs.existsSync(CALL)
        ? evaluate({ port: server.port, env, dir: server.dir, caller: `caller${calls++}` }, expression)
        : rabbitmqctl(env, ['eval', expression]),
    stop: async () => {
      await server.stop()
      process.removeListener('exit', endMapper)
    },
  }
  return Object.defineProperties(
    {},
    Object.assign(Object.getOwnPropertyDescriptors(server), Object.getOwnPropertyDescriptors(mine)),
  )
}

module.exports = { available, kinds, startRabbitmq }
