/** Kinesis against a bare loop over the same SDK, on kinesalite; the emulator's speed bounds both. */
'use strict'
const fs = require('fs')
const path = require('path')
const { data } = require('./data')
const { compare, counted, measure } = require('./measure')
const { available, startKinesis } = require('../services/kinesis')

const SHARDS = 4

async function run({ manifold, state, pairs, wants, records, results, left }) {
  if (!wants('kinesis')) return
  if (!fs.existsSync(path.join(__dirname, '../../dist/endpoints/kinesis'))) {
    left.push('Kinesis: this build has no such endpoint')
    return
  }
  if (!available().includes('kinesalite')) {
    left.push('Kinesis: needs kinesalite (node scripts/services.js install --need kinesis)')
    return
  }
  const { file, lines } = data(Math.ceil(records / 9) * 220)
  const server = await startKinesis({ kind: 'kinesalite' })
  const {
    KinesisClient,
    CreateStreamCommand,
    DeleteStreamCommand,
    DescribeStreamSummaryCommand,
  } = require('@aws-sdk/client-kinesis')
  const { NodeHttpHandler } = require('@smithy/node-http-handler')
  const client = new KinesisClient({
    endpoint: server.endpoint,
    region: server.region,
    credentials: { accessKeyId: server.accessKey, secretAccessKey: server.secretKey },
    requestHandler: new NodeHttpHandler(),
  })
  try {
    const env = Object.assign({}, process.env, {
      AWS_ACCESS_KEY_ID: server.accessKey,
      AWS_SECRET_ACCESS_KEY: server.secretKey,
      AWS_REGION: server.region,
      AWS_EC2_METADATA_DISABLED: 'true',
    })
    const options = { env, stdio: ['ignore', 'ignore', 'pipe'] }
    const make = async (StreamName) => {
      await client.send(new CreateStreamCommand({ StreamName, ShardCount: SHARDS }))
      while (
        (await client.send(new DescribeStreamSummaryCommand({ StreamName }))).StreamDescriptionSummary.StreamStatus !==
        'ACTIVE'
      )
        await new Promise((resolve) => {
          setTimeout(resolve, 10)
        })
    }
    const loop = (what, stream) =>
      `'${process.execPath}' '${path.join(__dirname, 'kinesis-loop.js')}' ${what} ${server.endpoint} ${stream} ${lines}`
    const get = (stream) => counted(loop('get', stream), lines)
    const ours = (rest) => `'${manifold}' ${rest} --state '${state()}'`
    const at = (stream) => `kinesis:${stream} region=${server.region} endpoint=${server.endpoint}`
    let made = 0
    const put = async (script) => {
      const stream = `out-${++made}`
      await make(stream)
      const done = await measure((wrap) => script(stream, wrap), options)
      await measure(() => get(stream), options)
      await client.send(new DeleteStreamCommand({ StreamName: stream }))
      return done
    }
    await make('in')
    await measure(() => `cat '${file}' | ${loop('put', 'in')}`, options)
    results.push(
      await compare(
        'stdin to Kinesis (kinesalite)',
        pairs,
        () => put((stream) => `cat '${file}' | ${loop('put', stream)}`),
        () => put((stream, wrap) => `cat '${file}' | ${wrap(ours(`--from - --to ${at(stream)}`))}`),
        0.9,
      ),
    )
    results.push(
      await compare(
        'Kinesis to stdout (kinesalite)',
        pairs,
        () => measure(() => get('in'), options),
        () => measure((wrap) => counted(wrap(ours(`--from ${at('in')} --to - --until end`)), lines), options),
        0.9,
      ),
    )
  } finally {
    client.destroy()
    await server.stop()
  }
}

module.exports = { names: ['kinesis'], run }
