/**
 * Tests that a line with another spelling continues its flow: nothing is delivered again, and the records in the spool
 * are delivered.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeWith } from '../services/describe-with'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { collector } from '../support/collector'
import { manifold, start, type Finished } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-spelling-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
async function complete(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Finished> {
  const finished = await manifold(args, { env, cwd: folder })
  expect({ code: finished.code, stderr: finished.code === 0 ? '' : finished.stderr }).toEqual({ code: 0, stderr: '' })
  return finished
}

/**
 * `fixtures/former-identity.tgz` was made before identities consisted of canonical forms. Its fifty records are
 * delivered to the file, and wait in the spool for a WebSocket server that was away.
 */
test.each<[string, readonly string[]]>([
  [
    'the very same line',
    [
      '--from',
      'generate:',
      'count=50',
      'size=60',
      '--to',
      'ws://127.0.0.1:{env:PORT}/in',
      '--to',
      'file:{env:DIR}/out',
    ],
  ],
  [
    'its sinks in another order, and capitals',
    [
      '--from',
      'generate:',
      'count=50',
      'size=60',
      '--to',
      'file:{env:DIR}/out',
      '--to',
      'WS://127.0.0.1:{env:PORT}/in/',
    ],
  ],
])(
  'state that was stored under the former identity is found: %s',
  async (_, line) => {
    execFileSync('tar', ['xzf', join(__dirname, 'fixtures/former-identity.tgz'), '-C', folder])
    const server = await collector()
    try {
      await complete([...line, '--state', join(folder, 'state'), '--receipt', join(folder, 'receipt')], {
        PORT: String(server.port),
        DIR: folder,
      })
      expect(server.messages.map((text) => (JSON.parse(text) as { seq: number }).seq)).toEqual(
        Array.from({ length: 50 }, (_each, i) => i + 1),
      )
      expect(existsSync(join(folder, 'out')) ? readFileSync(join(folder, 'out'), 'utf8') : '').toBe('')
      expect(readdirSync(join(folder, 'state'))).toHaveLength(1)
      const listed = (await manifold(['ls', '--state', join(folder, 'state')])).stdout.toString()
      expect(listed).not.toMatch(/wait for/)
      // And again, now that it is stored anew.
      await complete([...line, '--state', join(folder, 'state')], { PORT: String(server.port), DIR: folder })
      expect(server.messages).toHaveLength(50)
    } finally {
      server.close()
    }
  },
  20_000,
)

test('the order of --from and of --to makes no other flow', async () => {
  for (const name of ['a', 'b']) writeFileSync(join(folder, name), `${name}1\n${name}2\n`)
  const state = ['--state', join(folder, 'state')]
  await complete(['--from', 'file:a', '--from', 'file:b', '--to', 'file:x', '--to', 'file:y', ...state])
  await complete(['--from', 'file:./b', '--from', `file://${folder}/a`, '--to', 'y', '--to', 'file:x', ...state])
  await complete(['--to', 'y', '--to', 'file:x', '--from', 'file:b', '--from', 'file:a', ...state])
  for (const sink of ['x', 'y'])
    expect(readFileSync(join(folder, sink), 'utf8').trim().split('\n').sort()).toEqual(['a1', 'a2', 'b1', 'b2'])
  expect(readdirSync(join(folder, 'state'))).toHaveLength(1)
}, 20_000)

describeWith('s3', 'records that wait for a bucket', () => {
  let server: S3Server
  let bucket: Bucket
  beforeEach(async () => {
    server = await startS3()
    bucket = await Bucket.make(server)
  })
  afterEach(async () => {
    bucket.close()
    await server.stop()
  })

  test.each([[[]], [['--name', 'numbers']]])(
    'reach it by another spelling of bucket, folder and endpoint %j',
    async (name) => {
      const rest = [
        'region=us-east-1',
        'path-style',
        'access-key-id={env:KEY}',
        'secret-access-key={env:SECRET}',
        '--state',
        join(folder, 'state'),
        '--receipt',
        join(folder, 'receipts'),
        ...name,
      ]
      const env = { KEY: server.accessKey, SECRET: server.secretKey }
      await server.kill()
      const away = start(
        ['--from', 'generate:', 'count=100', '--to', `s3://${bucket.name}/A`, `endpoint=${server.endpoint}`, ...rest],
        { env },
      )
      for (let i = 0; i < 200 && !/retry|again|refused/i.test(away.stderr()); i++) await sleep(25)
      away.kill('SIGTERM')
      await away.done
      const [first] = readFileSync(join(folder, 'receipts'), 'utf8')
        .trim()
        .split('\n')
        .map((text) => JSON.parse(text) as { read: number; sinks: { spooled: number }[] })
      expect(first?.sinks[0]?.spooled).toBe(100)
      await server.restart()
      await complete(
        [
          '--from',
          'generate:',
          'count=100',
          '--to',
          `s3://${bucket.name}`,
          'prefix=A/',
          `endpoint=${server.endpoint.replace('http:', 'HTTP:')}/`,
          ...rest,
        ],
        env,
      )
      const records = (await bucket.all()).flatMap(({ key, bytes }) => {
        expect(key).toMatch(/^A\//)
        return bytes.toString().trim().split('\n')
      })
      expect(records).toHaveLength(100)
      expect(readdirSync(join(folder, 'state'))).toHaveLength(1)
    },
    30_000,
  )
})
