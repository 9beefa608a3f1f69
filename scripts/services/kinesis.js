/**
 * Kinesis and DynamoDB emulators from npm, each a process of its own. kinesalite: quick, reshards, keeps its data over
 * a kill; it knows no consumers. kinesis-local: slow, in memory, but with registered consumers and SubscribeToShard.
 * dynalite: DynamoDB, with conditional writes that let one racer win.
 */
'use strict'
const fs = require('fs')
const path = require('path')
const { answers, cache, startProcess } = require('./process')

const KEYS = { accessKey: 'manifold-test', secretKey: 'manifold-test-secret' }
const place = (name, version) => path.join(cache, `${name}-${version}`)
const from = (name, version, file) => path.join(place(name, version), 'node_modules', name, file)

/** A server as a function of options that gives an http server. */
function library(name, version, options) {
  return {
    file: from(name, version, 'package.json'),
    needs: 'npm',
    package: `${name}@${version}`,
    place: place(name, version),
    portCount: 1,
    command: (port, dir) => ({
      file: process.execPath,
      args: [
        '-e',
        `require(process.argv[1])(JSON.parse(process.argv[2])).listen(${port}, '127.0.0.1')`,
        path.dirname(from(name, version, 'package.json')),
        JSON.stringify({ path: path.join(dir, 'db'), ...options }),
      ],
    }),
  }
}
const quick = (what) => Object.fromEntries(['create', 'delete', 'update'].map((verb) => [`${verb}${what}Ms`, 5]))

const kinesis = {
  kinesalite: library('kinesalite', '3.3.3', { ...quick('Stream'), shardLimit: 1000 }),
  'kinesis-local': {
    file: from('kinesis-local', '0.6.2', 'main.js'),
    needs: 'npm',
    package: 'kinesis-local@0.6.2',
    place: place('kinesis-local', '0.6.2'),
    portCount: 2,
    command: (port, _, [, tlsPort]) => ({
      file: process.execPath,
      args: ['--require', path.join(__dirname, 'loopback.js'), from('kinesis-local', '0.6.2', 'main.js')],
      env: {
        KINESIS_MOCK_CERT_PATH: from('kinesis-local', '0.6.2', 'server.json'),
        KINESIS_MOCK_PLAIN_PORT: String(port),
        KINESIS_MOCK_TLS_PORT: String(tlsPort),
        LOG_LEVEL: 'ERROR',
        SHARD_LIMIT: '1000',
        AWS_REGION: 'us-east-1',
        ...Object.fromEntries(
          [
            'CREATE_STREAM',
            'DELETE_STREAM',
            'REGISTER_STREAM_CONSUMER',
            'DEREGISTER_STREAM_CONSUMER',
            'SPLIT_SHARD',
            'MERGE_SHARDS',
            'UPDATE_SHARD_COUNT',
          ].map((name) => [`${name}_DURATION`, '5ms']),
        ),
      },
    }),
  },
}
const dynamodb = { dynalite: library('dynalite', '4.0.0', quick('Table')) }
const kinds = { ...kinesis, ...dynamodb }
function available() {
  return Object.keys(kinds).filter((kind) => fs.existsSync(kinds[kind].file))
}

async function startKind(kind, { dir, port }) {
  const what = kinds[kind]
  if (!fs.existsSync(what.file))
    throw new Error(`there is no ${kind} here: node scripts/services.js install --only ${kind}`)
  const server = await startProcess({
    name: kind,
    command: what.command,
    ready: (at) => answers(`http://127.0.0.1:${at}/`),
    waitMs: 60_000,
    portCount: what.portCount,
    ...(dir === undefined ? {} : { dir }),
    ...(port === undefined ? {} : { port }),
  })
  const mine = {
    kind,
    endpoint: `http://127.0.0.1:${server.port}`,
    region: 'us-east-1',
    ...KEYS,
    ...(what.portCount > 1 ? { tlsEndpoint: `https://127.0.0.1:${server.ports[1]}` } : {}),
  }
  return Object.defineProperties(
    {},
    Object.assign(Object.getOwnPropertyDescriptors(server), Object.getOwnPropertyDescriptors(mine)),
  )
}

function environmentServer(name, variable) {
  const url = new URL(process.env[variable])
  const fixed = () => Promise.reject(new Error(`the ${name} server ${url.host} is not ours to stop`))
  return {
    kind: 'environment',
    endpoint: url.origin,
    region: 'us-east-1',
    accessKey: decodeURIComponent(url.username) || KEYS.accessKey,
    secretKey: decodeURIComponent(url.password) || KEYS.secretKey,
    kill: fixed,
    restart: fixed,
    freeze: fixed,
    thaw: fixed,
    stop: () => Promise.resolve(),
  }
}

/**
 * Starts the kind that is given. Without one it uses the server that
 * MANIFOLD_TEST_KINESIS=http://ACCESSKEY:SECRET@HOST:PORT names, which is never stopped from here, or starts kinesalite.
 * @param {{ kind?: 'kinesalite' | 'kinesis-local', dir?: string, port?: number }} [options]
 */
async function startKinesis(options = {}) {
  if (process.env.MANIFOLD_TEST_KINESIS && options.kind === undefined)
    return environmentServer('Kinesis', 'MANIFOLD_TEST_KINESIS')
  return startKind(options.kind || 'kinesalite', options)
}

/**
 * Uses the server that MANIFOLD_TEST_DYNAMODB names, in the same form, where no option is given; otherwise it starts
 * dynalite.
 * @param {{ kind?: 'dynalite', dir?: string, port?: number }} [options]
 */
async function startDynamodb(options = {}) {
  if (process.env.MANIFOLD_TEST_DYNAMODB && options.kind === undefined)
    return environmentServer('DynamoDB', 'MANIFOLD_TEST_DYNAMODB')
  return startKind(options.kind || 'dynalite', options)
}

module.exports = { available, dynamodb, kinesis, startDynamodb, startKinesis }
