/** Runs the lines of README as pasted. Only ports and the folder of their files are different. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CreateStreamCommand } from '@aws-sdk/client-kinesis'
import { describeWith, type Need, whyNot } from '../services/describe-with'
import { kinesisClient, startKinesis, untilActive } from '../services/kinesis'
import { startKafka } from '../services/kafka'
import { startRabbitmq } from '../services/rabbitmq'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { startFeed, type Feed } from '../support/feed'
import { cleanEnv, LAUNCHER } from '../support/manifold'

const README = readFileSync(join(__dirname, '../../README.md'), 'utf8')

function linesOf(name: string): readonly string[] {
  const block =
    new RegExp(`<!-- ${name}:begin -->\\s*\`\`\`sh\\n([\\s\\S]*?)\`\`\`\\s*<!-- ${name}:end -->`).exec(README)?.[1] ??
    ''
  return block.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
}
const LINES = linesOf('one-liners')
const BROKER_LINES = linesOf('broker-lines')

interface Expected {
  readonly code: number
  readonly prints: RegExp
}
/** The expected exit code and output of each line, in order. */
const EXPECTED: readonly Expected[] = [
  { code: 0, prints: /^one\ntwo\n$/ },
  { code: 0, prints: /^(\{"n":\d+.*\n){3}$/ },
  { code: 0, prints: /^$/ },
  { code: 0, prints: /^$/ },
  { code: 0, prints: /^$/ },
  { code: 0, prints: /^\{"level":"info"\}\n$/ },
  { code: 0, prints: /^$/ },
  { code: 0, prints: /^\{"price":1,"host":".+","at":\d+(\.\d+)?\}\n$/ },
  { code: 5, prints: /^\{"price":1,"source":"feed"\}\n$/ },
  { code: 0, prints: /^no json\n$/ },
]

const BROKERS_EXPECTED: readonly Expected[] = [
  { code: 0, prints: /^$/ },
  // Of three partitions, in any order.
  { code: 0, prints: /^(\{"price":1\}\n\{"price":2\}\n|\{"price":2\}\n\{"price":1\}\n)$/ },
  ...Array.from({ length: 5 }, () => ({ code: 0, prints: /^$/ })),
]

/** As pasted, with the folder's `manifold` in PATH. */
async function paste(
  line: string,
  folder: string,
  addresses: Readonly<Record<string, string>>,
  expected: Expected | undefined,
  env: Readonly<Record<string, string>>,
): Promise<void> {
  const script = Object.entries({ ...addresses, '/tmp/manifold-': `${folder}/` }).reduce(
    (text, [from, to]) => text.replaceAll(from, to),
    line,
  )
  const child = spawn('bash', ['-c', script], {
    env: cleanEnv({
      PATH: `${join(folder, 'bin')}:${process.env['PATH'] ?? ''}`,
      AWS_REGION: 'us-east-1',
      XDG_STATE_HOME: join(folder, 'state'),
      ...env,
    }),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stdout.on('data', (text: Buffer) => {
    out += text.toString()
  })
  child.stderr.on('data', (text: Buffer) => {
    err += text.toString()
  })
  const code = await new Promise((resolve) => {
    child.once('close', resolve)
  })
  expect({ code, err: code === expected?.code ? '' : err }).toEqual({ code: expected?.code, err: '' })
  expect(out).toMatch(expected?.prints ?? /^never$/)
}
function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'manifold-readme-'))
  mkdirSync(join(folder, 'bin'))
  spawnSync('ln', ['-s', LAUNCHER, join(folder, 'bin', 'manifold')])
  return folder
}

describeWith('s3', 'the lines of the README', () => {
  let server: S3Server
  let bucket: Bucket
  let feed: Feed
  let folder: string
  beforeAll(async () => {
    folder = makeFolder()
    server = await startS3()
    bucket = await Bucket.make(server, 'lake')
    feed = await startFeed({ perSecond: 5000 })
  })
  afterAll(async () => {
    await feed.stop()
    bucket.close()
    await server.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  test('there are ten', () => {
    expect(LINES).toHaveLength(10)
  })

  test.each(LINES.map((line, index) => [line, index] as const))(
    '%s',
    async (line, index) => {
      await paste(
        line,
        folder,
        { 'http://127.0.0.1:9000': server.endpoint, 'ws://127.0.0.1:8080/': feed.url },
        EXPECTED[index],
        { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey },
      )
    },
    60_000,
  )
})

const NEEDED: readonly Need[] = ['s3', 'kafka', 'rabbitmq', 'kinesis']
describeWith(
  NEEDED.find((need) => whyNot(need) !== undefined) ?? 'kafka',
  'the lines of the README about brokers',
  () => {
    const stops: (() => unknown)[] = []
    let folder: string
    let addresses: Readonly<Record<string, string>>
    let keys: Readonly<Record<string, string>>
    beforeAll(async () => {
      folder = makeFolder()
      const [s3, kafka, rabbitmq, kinesis] = await Promise.all([
        startS3(),
        startKafka({ own: true }),
        startRabbitmq({ own: true }),
        startKinesis({ kind: 'kinesalite' }),
      ])
      stops.push(...[s3, kafka, rabbitmq, kinesis].map((each) => () => each.stop()))
      const bucket = await Bucket.make(s3, 'lake')
      stops.push(() => {
        bucket.close()
      })
      await kafka.createTopics([{ name: 'trades', partitions: 3 }])
      const client = kinesisClient(kinesis)
      stops.push(() => {
        client.destroy()
      })
      await client.send(new CreateStreamCommand({ StreamName: 'trades', ShardCount: 2 }))
      await untilActive(client, 'trades')
      addresses = {
        'http://127.0.0.1:9000': s3.endpoint,
        '127.0.0.1:9092': kafka.bootstrap,
        'amqp://127.0.0.1:5672': rabbitmq.uri,
        'http://127.0.0.1:4567': kinesis.endpoint,
      }
      keys = { AWS_ACCESS_KEY_ID: s3.accessKey, AWS_SECRET_ACCESS_KEY: s3.secretKey }
    }, 120_000)
    afterAll(async () => {
      await Promise.all(stops.map((stop) => stop()))
      rmSync(folder, { recursive: true, force: true })
    })

    test('there are seven', () => {
      expect(BROKER_LINES).toHaveLength(7)
    })

    test.each(BROKER_LINES.map((line, index) => [line, index] as const))(
      '%s',
      async (line, index) => {
        await paste(line, folder, addresses, BROKERS_EXPECTED[index], keys)
      },
      60_000,
    )

    test('at their end the file holds every record', () => {
      const records = readFileSync(join(folder, 'shards.ndjson'), 'utf8').trimEnd().split('\n').sort()
      expect(records).toEqual(
        [...Array.from({ length: 1000 }, (_, index) => String(index + 1)), '{"price":1}', '{"price":2}'].sort(),
      )
    })
  },
)
