#!/usr/bin/env node
/**
 * Real servers for tests and the demo, in the user's cache folder (MANIFOLD_SERVICES moves it).
 *
 *   node scripts/services.js install [--need s3,kafka] [--only versitygw,minio,moto]
 *       installs what this machine can have; exit 1 where a service cannot be had
 *   node scripts/services.js start s3 [--kind minio] [--port 9000] [--dir DIR]
 *       runs it in the foreground, until Ctrl-C, with a bucket `lake`
 *   node scripts/services.js start kafka | rabbitmq | kinesis | dynamodb [--port PORT] [--dir DIR]
 *       the same way: Kafka has a topic, Kinesis a stream `trades`
 *   node scripts/services.js start feed [--port 8080] [--rate 1000]
 *       the same way: a WebSocket feed of trades
 */
'use strict'
const { install } = require('./services/install')
const { startS3 } = require('./services/s3')

function flags(args, names) {
  const given = {}
  for (let i = 0; i < args.length; i += 2) {
    const name = args[i].replace(/^--/, '')
    if (!args[i].startsWith('--') || !names.includes(name) || args[i + 1] === undefined)
      throw new Error(`what is '${args[i]}'? ${names.map((known) => `--${known} VALUE`).join(', ')} are known`)
    given[name] = args[i + 1]
  }
  return given
}

/** Uses the program's own client, because the servers have no common command for it. */
async function makeBucket(server, name) {
  const { S3Client, CreateBucketCommand } = require('@aws-sdk/client-s3')
  const client = new S3Client({
    endpoint: server.endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: server.accessKey, secretAccessKey: server.secretKey },
  })
  try {
    await client.send(new CreateBucketCommand({ Bucket: name }))
  } catch (error) {
    if (!/BucketAlready/.test(error.name)) throw error
  } finally {
    client.destroy()
  }
}

async function makeStream({ endpoint, region, accessKey, secretKey }, name) {
  const { KinesisClient, CreateStreamCommand } = require('@aws-sdk/client-kinesis')
  const { NodeHttpHandler } = require('@smithy/node-http-handler')
  const client = new KinesisClient({
    endpoint,
    region,
    credentials: { accessKeyId: accessKey, secretAccessKey: secretKey },
    requestHandler: new NodeHttpHandler(),
  })
  try {
    await client.send(new CreateStreamCommand({ StreamName: name, ShardCount: 2 }))
  } catch (error) {
    if (error.name !== 'ResourceInUseException') throw error
  } finally {
    client.destroy()
  }
}

/** An earlier start with the same folder has made the topic. The client nests the broker's error in its own. */
function saysExists(error) {
  return (
    error?.apiId === 'TOPIC_ALREADY_EXISTS' || [error?.cause, ...(error?.errors ?? [])].filter(Boolean).some(saysExists)
  )
}
async function makeTopic(server, name) {
  try {
    await server.createTopics([{ name, partitions: 3 }])
  } catch (error) {
    if (!saysExists(error)) throw error
  }
}

/** Stops the server again where nothing can be made in it: it is of no use, and nobody else would stop it. */
async function made(server, make) {
  try {
    await make()
  } catch (error) {
    await server.stop()
    throw error
  }
  return server
}

/** The other services: how each is started, what is made in it, and what its user has to know. */
const others = {
  kafka: [
    async (options) => {
      const server = await require('./services/kafka').startKafka({ own: true, ...options })
      return made(server, () => makeTopic(server, 'trades'))
    },
    ({ bootstrap }) => `Kafka at ${bootstrap}`,
  ],
  rabbitmq: [
    (options) => require('./services/rabbitmq').startRabbitmq({ own: true, ...options }),
    ({ uri }) => `RabbitMQ at ${uri}`,
  ],
  kinesis: [
    async (options) => {
      const server = await require('./services/kinesis').startKinesis({ kind: 'kinesalite', ...options })
      return made(server, () => makeStream(server, 'trades'))
    },
    ({ kind, endpoint }) => `${kind} at ${endpoint}, with any keys`,
  ],
  dynamodb: [
    (options) => require('./services/kinesis').startDynamodb({ kind: 'dynalite', ...options }),
    ({ kind, endpoint }) => `${kind} at ${endpoint}, with any keys`,
  ],
}

function untilStopped(stop) {
  for (const signal of ['SIGINT', 'SIGTERM'])
    process.once(signal, () => {
      Promise.resolve(stop()).then(
        () => process.exit(0),
        (error) => {
          console.error(error.message)
          process.exit(1)
        },
      )
    })
  setInterval(() => {}, 2 ** 30)
}

async function main([command, ...args]) {
  if (command === 'install') {
    const { need, only } = flags(args, ['need', 'only'])
    const missing = await install({ ...(need && { need: need.split(',') }), ...(only && { only: only.split(',') }) })
    if (missing.length > 0) throw new Error(`cannot be had here: ${missing.join(', ')}`)
    return
  }
  if (command === 'start' && args[0] === 's3') {
    const { kind, port, dir } = flags(args.slice(1), ['kind', 'port', 'dir'])
    const server = await startS3(
      Object.assign({}, kind && { kind }, port && { port: Number(port) }, dir && { dir: require('path').resolve(dir) }),
    )
    await made(server, () => makeBucket(server, 'lake'))
    console.log(`${server.kind} at ${server.endpoint}\naccess key ${server.accessKey}, secret key ${server.secretKey}`)
    untilStopped(() => server.stop())
    return
  }
  if (command === 'start' && others[args[0]] !== undefined) {
    const { port, dir } = flags(args.slice(1), ['port', 'dir'])
    const [start, told] = others[args[0]]
    const server = await start(
      Object.assign({}, port && { port: Number(port) }, dir && { dir: require('path').resolve(dir) }),
    )
    console.log(told(server))
    untilStopped(() => server.stop())
    return
  }
  if (command === 'start' && args[0] === 'feed') {
    const { port, rate } = flags(args.slice(1), ['port', 'rate'])
    const feed = await require('./services/feed').startFeed({
      port: Number(port || 0),
      perSecond: Number(rate || 1000),
    })
    console.log(`trades at ${feed.url}`)
    untilStopped(() => feed.stop())
    return
  }
  throw new Error(
    `node scripts/services.js install [--need SERVICE,…] [--only KIND,…] | start s3 [--kind KIND] [--port PORT] [--dir DIR] | start ${Object.keys(others).join('|')} [--port PORT] [--dir DIR] | start feed [--port PORT] [--rate N]`,
  )
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message)
  process.exitCode = 1
})
