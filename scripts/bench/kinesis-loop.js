/**
 * The peer, a bare loop over the SDK. `put ENDPOINT STREAM` sends the lines of stdin, 500 a call, four calls at a time.
 * `get ENDPOINT STREAM COUNT` writes the records of all shards to stdout.
 */
'use strict'
const {
  KinesisClient,
  GetRecordsCommand,
  GetShardIteratorCommand,
  ListShardsCommand,
  PutRecordsCommand,
} = require('@aws-sdk/client-kinesis')
const { NodeHttpHandler } = require('@smithy/node-http-handler')

const [what, endpoint, StreamName, count] = process.argv.slice(2)
const client = new KinesisClient({ endpoint, region: process.env.AWS_REGION, requestHandler: new NodeHttpHandler() })

async function send(Records) {
  for (let left = Records; left.length > 0; ) {
    const answer = await client.send(new PutRecordsCommand({ StreamName, Records: left }))
    left = answer.FailedRecordCount > 0 ? left.filter((_, i) => answer.Records[i].ErrorCode !== undefined) : []
  }
}

async function put() {
  const inFlight = new Set()
  let rest = Buffer.alloc(0)
  let batch = []
  let n = 0
  const flush = async () => {
    if (inFlight.size >= 4) await Promise.race(inFlight)
    const one = send(batch).then(() => {
      inFlight.delete(one)
    })
    inFlight.add(one)
    batch = []
  }
  for await (const chunk of process.stdin) {
    const block = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let from = 0
    for (let end; (end = block.indexOf(10, from)) !== -1; from = end + 1) {
      batch.push({ Data: block.subarray(from, end), PartitionKey: String(n++) })
      if (batch.length === 500) await flush()
    }
    rest = block.subarray(from)
  }
  if (batch.length > 0) await flush()
  await Promise.all(inFlight)
}

async function get(wanted) {
  const { Shards } = await client.send(new ListShardsCommand({ StreamName }))
  let seen = 0
  await Promise.all(
    Shards.map(async ({ ShardId }) => {
      let { ShardIterator } = await client.send(
        new GetShardIteratorCommand({ StreamName, ShardId, ShardIteratorType: 'TRIM_HORIZON' }),
      )
      while (ShardIterator !== undefined && seen < wanted) {
        const { Records, NextShardIterator } = await client.send(
          new GetRecordsCommand({ ShardIterator, Limit: 10_000 }),
        )
        seen += Records.length
        if (Records.length > 0)
          process.stdout.write(Buffer.concat(Records.flatMap(({ Data }) => [Data, Buffer.from('\n')])))
        ShardIterator = NextShardIterator
      }
    }),
  )
}

;(what === 'put' ? put() : get(Number(count))).then(
  () => {
    client.destroy()
  },
  (error) => {
    console.error(error.message)
    process.exitCode = 1
  },
)
