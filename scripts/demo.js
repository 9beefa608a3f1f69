/**
 * The demo: the real program collects a live WebSocket feed of trades into an S3 server, both on this machine, and is
 * killed (kill -9) in the middle. Then the trades that were sent are compared with those that are stored. It needs no
 * account, asks nothing and makes its own set-up.
 */
'use strict'
const { spawn } = require('child_process')
const fs = require('fs')
const os = require('os')
const path = require('path')
const { install } = require('./services/install')
const { ready } = require('./setup')

const PER_SECOND = 5000
const SECONDS = { before: 8, dead: 1, after: 8 }
const say = (text) => {
  process.stdout.write(`${text}\n`)
}
const sleep = (ms) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

ready(__filename, async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-demo-'))
  const store = await objectStore()
  const feed = await require('./services/feed').startFeed({ perSecond: PER_SECOND })
  try {
    await show(store, feed, folder)
  } finally {
    feed.stop()
    await store.stop()
    fs.rmSync(folder, { recursive: true, force: true })
  }
})

async function objectStore() {
  const { available, startS3 } = require('./services/s3')
  if (available().length === 0)
    await install({
      need: ['s3'],
      one: true,
      say: (line) => {
        process.stderr.write(`${line}\n`)
      },
    })
  if (available().length > 0) {
    try {
      const store = await startS3()
      say(`S3 server: ${store.kind} at ${store.endpoint}`)
      return store
    } catch (error) {
      say(`the S3 server that is here did not start (${error.message.split('\n')[0]})`)
    }
  }
  const store = await require('./services/s3-stub').startStub()
  say(
    `S3 server: a small stub in this process at ${store.endpoint}, for there is neither Go (versitygw, MinIO) nor Python (moto) here`,
  )
  return store
}

/** Reads the sequence numbers of the stored trades, and counts those that are there twice. */
async function tradesIn(client) {
  const { ListObjectsV2Command, GetObjectCommand } = require('@aws-sdk/client-s3')
  const objects = []
  for (let token; ; ) {
    const page = await client.send(
      new ListObjectsV2Command({ Bucket: 'demo', Prefix: 'trades/', ContinuationToken: token }),
    )
    for (const { Key } of page.Contents || []) if (!Key.endsWith('/')) objects.push(Key)
    token = page.NextContinuationToken
    if (token === undefined) break
  }
  const seen = new Map()
  let doubles = 0
  say('\nobjects:')
  for (const key of objects.sort()) {
    const { Body } = await client.send(new GetObjectCommand({ Bucket: 'demo', Key: key }))
    const lines = (await Body.transformToString()).trimEnd().split('\n')
    say(`  ${key}  ${lines.length} trades`)
    for (const line of lines) {
      const { seq } = JSON.parse(line)
      if (seen.has(seq)) doubles++
      seen.set(seq, true)
    }
  }
  return { seen, doubles }
}

async function show(store, feed, folder) {
  const { S3Client, CreateBucketCommand } = require('@aws-sdk/client-s3')
  const client = new S3Client({
    endpoint: store.endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: store.accessKey, secretAccessKey: store.secretKey },
    requestChecksumCalculation: 'WHEN_REQUIRED',
  })
  await client.send(new CreateBucketCommand({ Bucket: 'demo' }))
  const args = [
    '--from',
    feed.url,
    '--to',
    's3://demo/trades',
    'region=us-east-1',
    `endpoint=${store.endpoint}`,
    'path-style',
    'access-key-id={env:DEMO_KEY}',
    'secret-access-key={env:DEMO_SECRET}',
    'commit-file-size=512KiB',
    'commit-duration=3s',
    'upload-every=1s',
    '--state',
    path.join(folder, 'state'),
    '--log-level',
    'info',
  ]
  const run = () =>
    spawn(path.join(__dirname, '../bin/manifold.js'), args, {
      stdio: ['ignore', 'inherit', 'inherit'],
      env: Object.assign({}, process.env, {
        DEMO_KEY: store.accessKey,
        DEMO_SECRET: store.secretKey,
        MANIFOLD_ARGS: '',
      }),
    })
  const over = (child) =>
    new Promise((resolve) => {
      child.once('exit', (code, signal) => resolve({ code, signal }))
    })

  say(`\n$ manifold --from ${feed.url} --to s3://demo/trades commit-file-size=512KiB commit-duration=3s ...\n`)
  let child = run()
  await sleep(SECONDS.before * 1000)
  say(`\n--- kill -9 ${child.pid}: no warning, no chance to flush ---\n`)
  let ended = over(child)
  child.kill('SIGKILL')
  await ended
  await sleep(SECONDS.dead * 1000)
  say('--- the same line again ---\n')
  child = run()
  await sleep(SECONDS.after * 1000)
  const until = feed.sent
  await sleep(300)
  ended = over(child)
  child.kill('SIGTERM')
  const { code } = await ended

  const { seen, doubles } = await tradesIn(client)
  client.destroy()

  const first = Math.min(...seen.keys())
  const ranges = []
  for (let n = first; n <= until; n++) {
    if (seen.has(n)) continue
    const last = ranges.at(-1)
    if (last !== undefined && last[1] === n - 1) last[1] = n
    else ranges.push([n, n])
  }
  // No collector could have these trades: they were sent before the second connection began.
  const gap = ranges.filter(([, to]) => feed.firstOfConnection.includes(to + 1))
  const outside = ranges.filter((range) => !gap.includes(range)).reduce((sum, [from, to]) => sum + to - from + 1, 0)
  say('')
  say(
    `sent         ${until - first + 1} (numbers ${first} to ${until}, from the first connection to the last orderly stop)`,
  )
  say(`stored       ${[...seen.keys()].filter((n) => n <= until).length}`)
  say(
    `lost         ${gap.map(([from, to]) => `${from} to ${to} (${to - from + 1}: killed before they were on disk, or sent while nothing was connected)`).join(', ') || 'none'}`,
  )
  say(`missing      ${outside} outside that range`)
  say(`duplicates   ${doubles}`)
  say(`exit         ${code}`)
  if (outside !== 0 || doubles !== 0 || code !== 0 || gap.length > 1)
    throw new Error('this is not what the demo is to show: please report it')
}
