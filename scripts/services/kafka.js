/**
 * Apache Kafka from Maven Central, one KRaft node per call. It needs Java 17 or later. A start takes several seconds of
 * processor time, so the tests of a file share one.
 */
'use strict'
const { execFile, execFileSync } = require('child_process')
const crypto = require('crypto')
const fs = require('fs')
const net = require('net')
const path = require('path')
const { cache, startProcess } = require('./process')
const { plainListeners, secureListeners, users, writeConfig } = require('./kafka-config')

const VERSION = '4.3.1'
const home = path.join(cache, `kafka-${VERSION}`)
const at = (name) => path.join(home, name)
const artifacts = [
  `org.apache.kafka:kafka_2.13:${VERSION}`,
  `org.apache.kafka:kafka-tools:${VERSION}`,
  'org.apache.logging.log4j:log4j-slf4j-impl:2.25.1',
  'org.apache.logging.log4j:log4j-core:2.25.1',
]
const layout = (target, level) =>
  `<Configuration status="WARN"><Appenders><Console name="c" target="${target}"><PatternLayout pattern="%d %p %c{1} %m%n"/></Console></Appenders><Loggers><Root level="${level}"><AppenderRef ref="c"/></Root></Loggers></Configuration>\n`

/** `file` is written last by the installation. */
const kinds = { kafka: { file: at('ready'), needs: 'maven', home, artifacts, prepare } }
function available() {
  return fs.existsSync(kinds.kafka.file) ? ['kafka'] : []
}

/** The file of kcat, a console client on librdkafka: a peer that shares no code with ours. */
function kcat() {
  return ['/usr/bin/kcat', '/usr/local/bin/kcat', '/opt/homebrew/bin/kcat'].find((file) => fs.existsSync(file))
}
const peers = {
  kcat: {
    get file() {
      return kcat()
    },
    needs: 'apt',
    package: 'kcat',
  },
}

function java(folder, kind, jvm) {
  // Java maps the classes of an earlier start from this file, and ignores it where its own version is another one.
  return [
    '-Xshare:auto',
    `-XX:SharedArchiveFile=${path.join(folder, 'classes.jsa')}`,
    '-Xlog:disable',
    '-Xlog:all=error:stderr',
    `-Dlog4j2.configurationFile=${path.join(folder, `${kind}.xml`)}`,
    ...jvm,
    '-cp',
    path.join(folder, 'libs', '*'),
  ]
}
const SMALL = ['-Xms64m', '-Xmx320m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1']

/** Prepares quick starts in a folder with a broker's jars: formatted storage to copy, and an archive of its classes. */
async function prepare(folder) {
  fs.writeFileSync(path.join(folder, 'server.xml'), layout('SYSTEM_OUT', 'INFO'))
  fs.writeFileSync(path.join(folder, 'tool.xml'), layout('SYSTEM_ERR', 'WARN'))
  const work = path.join(folder, 'work')
  fs.mkdirSync(work)
  const { file } = writeConfig(work, [1, 2], { secure: false, properties: {} })
  const scram = Object.entries(users).flatMap(([name, password]) =>
    ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap((kind) => [
      '--add-scram',
      `${kind}=[name=${name},password=${password}]`,
    ]),
  )
  execFileSync(
    'java',
    [...java(folder, 'tool', SMALL), 'kafka.tools.StorageTool', 'format', '-t', id(), '-c', file, ...scram],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
  fs.renameSync(path.join(work, 'data'), path.join(folder, 'formatted'))
  const server = await start({
    folder,
    dir: work,
    jvm: [...SMALL, `-XX:ArchiveClassesAtExit=${path.join(folder, 'classes.jsa')}`],
    graceMs: 30_000,
  })
  await server.stop()
  fs.rmSync(work, { recursive: true })
}
function id() {
  return crypto.randomBytes(16).toString('base64url').replace(/^-/, 'A')
}

/** A Metadata request (version 1, no topics): true once the node answers and counts itself among the brokers. */
function ready(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1')
    let answer = Buffer.alloc(0)
    const done = (value) => {
      socket.destroy()
      resolve(value)
    }
    socket.on('error', () => done(false))
    socket.on('close', () => done(false))
    socket.setTimeout(1000, () => done(false))
    socket.on('connect', () => {
      socket.write(Buffer.from('0000000f000300010000000100017800000000', 'hex'))
    })
    socket.on('data', (part) => {
      answer = Buffer.concat([answer, part])
      if (answer.length >= 12) done(answer.readInt32BE(8) > 0)
    })
  })
}

async function start({
  folder = home,
  dir,
  port,
  secure = false,
  properties = {},
  jvm = SMALL,
  graceMs = 10_000,
  host,
}) {
  let clients
  const server = await startProcess({
    name: 'kafka',
    ready,
    graceMs,
    waitMs: 60_000,
    portCount: (secure ? secureListeners : plainListeners).length,
    ...(dir === undefined ? {} : { dir }),
    ...(port === undefined ? {} : { port }),
    command: (_, place, ports) => {
      const config = writeConfig(place, ports, { secure, properties, ...(host === undefined ? {} : { host }) })
      clients = config.clients
      const data = path.join(place, 'data')
      if (!fs.existsSync(path.join(data, 'meta.properties'))) {
        fs.cpSync(path.join(folder, 'formatted'), data, { recursive: true })
        // Each start makes a cluster of its own.
        fs.writeFileSync(
          path.join(data, 'meta.properties'),
          `version=1\nnode.id=1\ncluster.id=${id()}\ndirectory.id=${id()}\n`,
        )
      }
      const kept = jvm.some((each) => each.startsWith('-XX:ArchiveClassesAtExit'))
      return {
        file: 'java',
        args: [
          ...java(folder, 'server', [...jvm, ...config.jvm]).filter(
            (each) => !kept || !/^-Xshare|^-XX:SharedArchiveFile/.test(each),
          ),
          'kafka.Kafka',
          config.file,
        ],
        env: { KAFKA_OPTS: '', JAVA_TOOL_OPTIONS: '' },
      }
    },
  })
  const bootstrap = `${host || '127.0.0.1'}:${server.port}`
  const all = Object.defineProperties(
    {},
    Object.assign(
      Object.getOwnPropertyDescriptors(server),
      Object.getOwnPropertyDescriptors(Object.assign({ kind: 'kafka', bootstrap }, clients, clientsOf(bootstrap))),
    ),
  )
  if (secure) {
    try {
      await all.allow('carol', rightsOfCarol)
    } catch (error) {
      await server.stop()
      throw error
    }
  }
  return all
}

const rightsOfCarol = [
  { resource: 'TOPIC', name: 'readable', prefix: true, operations: ['READ', 'DESCRIBE'] },
  { resource: 'TOPIC', name: 'writable', prefix: true, operations: ['WRITE', 'DESCRIBE'] },
  { resource: 'GROUP', name: 'carol', prefix: true, operations: ['READ', 'DESCRIBE'] },
]

/**
 * Operations on a cluster from outside, through the client library (a few ms) or Kafka's own tools (a second each).
 */
function clientsOf(bootstrap) {
  async function admin(act) {
    const { Admin } = await import('@platformatic/kafka')
    const client = new Admin({
      clientId: 'services',
      bootstrapBrokers: bootstrap.split(','),
      retries: 3,
      timeout: 10_000,
    })
    try {
      return await act(client)
    } finally {
      await client.close()
    }
  }
  return {
    /** `topics` are names, or objects with a name and numbers. Resolves once every partition has a leader. */
    createTopics: (topics, configs = {}) =>
      admin(async (client) => {
        const asked = topics.map((topic) =>
          typeof topic === 'string'
            ? { topic, partitions: 1 }
            : { topic: topic.name, partitions: topic.partitions || 1 },
        )
        await client.createTopics({
          topics: asked,
          replicas: Math.max(1, ...topics.map(({ replicas }) => replicas || 1)),
          configs: Object.entries(configs).map(([name, value]) => ({ name, value: String(value) })),
        })
        const names = asked.map(({ topic }) => topic)
        for (const until = Date.now() + 10_000; ; ) {
          const seen = await client.metadata({ topics: names, forceUpdate: true }).catch(() => undefined)
          if (
            seen &&
            asked.every(({ topic, partitions }) => {
              const found = seen.topics.get(topic)
              return (
                found && found.partitions.length === partitions && found.partitions.every(({ leader }) => leader >= 0)
              )
            })
          )
            return
          if (Date.now() > until)
            throw new Error(`topics ${names.join(', ')} of ${bootstrap} have no leaders after 10 s`)
          await new Promise((resolve) => {
            setTimeout(resolve, 10)
          })
        }
      }),
    deleteTopics: (topics) => admin((client) => client.deleteTopics({ topics })),
    /** `partitions` is the number of them afterwards. */
    addPartitions: (name, partitions) =>
      admin((client) => client.createPartitions({ topics: [{ name, count: partitions, assignments: null }] })),
    /** Sums up the end offsets: the number of records, where there are neither transactions nor compaction. */
    recordCount: (name) =>
      admin(async (client) => {
        const partitions = (await client.metadata({ topics: [name], forceUpdate: true })).topics.get(name).partitions
          .length
        const [{ partitions: ends }] = await client.listOffsets({
          topics: [
            {
              name,
              partitions: Array.from({ length: partitions }, (_, partitionIndex) => ({
                partitionIndex,
                timestamp: -1n,
              })),
            },
          ],
        })
        return ends.reduce((sum, { offset }) => sum + Number(offset), 0)
      }),
    /** Gives rights to a user of a secure node. */
    allow: (user, rights) =>
      admin(async (client) => {
        const { AclOperations, AclPermissionTypes, ResourcePatternTypes, ResourceTypes } = await import(
          '@platformatic/kafka'
        )
        await client.createAcls({
          creations: rights.flatMap(({ resource, name, prefix, operations }) =>
            operations.map((operation) => ({
              resourceType: ResourceTypes[resource],
              resourceName: name,
              resourcePatternType: prefix ? ResourcePatternTypes.PREFIXED : ResourcePatternTypes.LITERAL,
              principal: `User:${user}`,
              host: '*',
              operation: AclOperations[operation],
              permissionType: AclPermissionTypes.ALLOW,
            })),
          ),
        })
      }),
    /**
     * Runs one of Kafka's tools (`org.apache.kafka.tools.TopicCommand`), resolves with what it wrote; rejects where it
     * fails. `{bootstrap}` in arguments is the node's address.
     */
    tool: (main, args, { input } = {}) =>
      new Promise((resolve, reject) => {
        const child = execFile(
          'java',
          [
            ...java(home, 'tool', ['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1']),
            main,
            ...args.map((each) => each.replace('{bootstrap}', bootstrap)),
          ],
          { maxBuffer: 1 << 28, encoding: 'utf8' },
          (error, stdout, stderr) => {
            if (error) reject(new Error(`${main} failed (${error.code}): ${`${stderr}${stdout}`.trim().slice(-600)}`))
            else resolve(stdout)
          },
        )
        child.stdin.on('error', () => undefined)
        child.stdin.end(input)
      }),
  }
}

/**
 * Uses the cluster that MANIFOLD_TEST_KAFKA=HOST:PORT names, which is never stopped from here, where no option is
 * given; otherwise it starts a node.
 * @param {{ dir?: string, port?: number, secure?: boolean, properties?: Record<string, string | number | boolean>,
 *   jvm?: string[], host?: string, own?: boolean }} [options] properties: the broker's configuration; jvm: arguments in
 *   place of those for a small heap and quick compilation; host: what the listeners without TLS advertise; own: never
 *   the environment's cluster
 */
async function startKafka(options) {
  const named = process.env.MANIFOLD_TEST_KAFKA
  if (named && !Object.keys(options || {}).length) {
    const fixed = () => Promise.reject(new Error(`the Kafka cluster ${named} is not ours to stop`))
    return {
      kind: 'environment',
      bootstrap: named,
      kill: fixed,
      restart: fixed,
      freeze: fixed,
      thaw: fixed,
      stop: () => Promise.resolve(),
      ...clientsOf(named),
    }
  }
  if (available().length === 0) throw new Error('there is no Kafka here: node scripts/services.js install --need kafka')
  const { own: _, ...rest } = options || {}
  return start(rest)
}

module.exports = { SMALL, available, clientsOf, home, id, java, kcat, kinds, peers, ready, startKafka }
