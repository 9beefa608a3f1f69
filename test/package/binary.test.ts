/** Builds the one-file program and runs it with an empty PATH, without Node and without a package beside it. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocketServer } from 'ws'
import { texts } from '../../src/cli/help'
import { pathsOf } from '../../src/state/directory'
import { isLocked } from '../../src/state/lock'
import { describeWith } from '../services/describe-with'
import { type KafkaServer, makeTopic, startKafka } from '../services/kafka'
import { Bucket, startS3 } from '../services/s3'

const ROOT = join(__dirname, '../..')
let folder: string
let program: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-binary-'))
  const built = join(folder, 'built/manifold')
  execFileSync(process.execPath, [join(ROOT, 'scripts/package.js'), '--output', built], { stdio: 'pipe' })
  // Moved away from where it was made: nothing may depend on the place.
  program = join(folder, 'else where/manifold')
  mkdirSync(join(folder, 'else where'))
  copyFileSync(built, program)
  rmSync(join(folder, 'built'), { recursive: true })
}, 180_000)
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

const env = (more: Readonly<Record<string, string>> = {}): Record<string, string> => ({
  PATH: join(folder, 'nothing'),
  HOME: folder,
  ...more,
})
function run(
  args: readonly string[],
  input = '',
  more = {},
): { readonly status: number | null; readonly stdout: string; readonly stderr: string; readonly ms: number } {
  const before = performance.now()
  const { status, stdout, stderr } = spawnSync(program, args, {
    cwd: folder,
    env: env(more),
    input,
    encoding: 'utf8',
    timeout: 25_000,
  })
  return { status, stdout, stderr, ms: performance.now() - before }
}

test('it says its version within 0.2 s, and loads no more for it than a bare Node', () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
  expect(run(['--version'])).toMatchObject({ status: 0, stdout: `manifold ${version}\n`, stderr: '' })
  // The best of several: other tests run beside this one.
  const bare = (): number => {
    const before = performance.now()
    spawnSync(process.execPath, ['-e', '0'])
    return performance.now() - before
  }
  const runs = Array.from({ length: 10 }, () => ({ ours: run(['--version']).ms, bare: bare() }))
  const best = Math.min(...runs.map(({ ours }) => ours))
  expect(best).toBeLessThan(200)
  expect(best).toBeLessThan(2.5 * Math.min(...runs.map(({ bare: of }) => of)))
})

test('all of help is in it, as it is declared', async () => {
  const declared = await texts()
  expect(Object.keys(declared)).toEqual(
    expect.arrayContaining([
      'help',
      'endpoints',
      'help s3',
      'help ws',
      'help kafka',
      'help file',
      'help stdio',
      'completions bash',
    ]),
  )
  for (const [words, stdout] of Object.entries(declared))
    expect(run(words.split(' '))).toMatchObject({ status: 0, stdout, stderr: '' })
})

test('a line that cannot run is exit 2, in one message and without a stack', () => {
  const { status, stderr } = run(['--from', 'nope:x', '--to', '-'])
  expect(status).toBe(2)
  expect(stderr).toMatch(/nope/)
  expect(stderr).not.toMatch(/\bat .*\d+:\d+/)
})

test('it moves records from stdin to stdout, byte for byte', () => {
  const input = Array.from({ length: 20_000 }, (_, n) => `{"n":${n},"ü":"\u0000"}\n`).join('')
  expect(run(['--from', '-', '--to', '-'], input)).toMatchObject({ status: 0, stdout: input })
})

test('it keeps state and holds its flow alone: the kernel lock is in it', async () => {
  const line = [
    '--from',
    'generate:',
    'rate=100',
    '--to',
    'discard:',
    '--name',
    'held',
    '--state',
    join(folder, 'state'),
  ]
  const child = spawn(program, line, { cwd: folder, env: env(), stdio: ['ignore', 'ignore', 'inherit'] })
  const gone = once(child, 'exit')
  try {
    const lock = pathsOf(join(folder, 'state'), 'held', 0).lockFile
    while (!(await isLocked(lock))) {
      expect(child.exitCode).toBeNull()
      await sleep(20)
    }
    const second = run(line)
    expect(second.status).toBe(75)
    expect(second.stderr).toContain(`process ${child.pid}`)
  } finally {
    child.kill('SIGTERM')
  }
  expect(await gone).toEqual([0, null])
})

test('a WebSocket feed is read', async () => {
  const http = createServer()
  const server = new WebSocketServer({ server: http })
  server.on('connection', (socket) => {
    for (let n = 0; n < 100; n++) socket.send(`{"n":${n}}`)
  })
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  const child = spawn(program, ['--from', `ws://127.0.0.1:${(http.address() as AddressInfo).port}/`, '--to', '-'], {
    cwd: folder,
    env: env(),
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const gone = once(child, 'close')
  let text = ''
  for await (const chunk of child.stdout) {
    text += String(chunk)
    if (text.endsWith('{"n":99}\n')) break
  }
  child.kill('SIGTERM')
  await gone
  for (const client of server.clients) client.terminate()
  server.close()
  http.close()
  expect(text).toBe(Array.from({ length: 100 }, (_, n) => `{"n":${n}}\n`).join(''))
})

test('SIGUSR1 neither ends it nor opens an inspector, from the first moment on', async () => {
  const child = spawn(program, ['--from', '-', '--to', '-'], {
    cwd: folder,
    env: env(),
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString()
  })
  const gone = once(child, 'close')
  child.stdin.write('a\n')
  await once(child.stdout, 'data')
  child.kill('SIGUSR1')
  child.stdin.end('b\n')
  child.stdout.resume()
  expect(await gone).toEqual([0, null])
  expect(errors).toBe('')
})

describeWith('s3', 'with an S3 server', () => {
  test('the SDK is in it: stdin becomes objects', async () => {
    const server = await startS3()
    const bucket = await Bucket.make(server)
    try {
      const input = Array.from({ length: 1000 }, (_, n) => `{"n":${n}}\n`).join('')
      const child = spawn(
        program,
        [
          '--from',
          '-',
          '--to',
          `s3://${bucket.name}/trades`,
          'region=us-east-1',
          `endpoint=${server.endpoint}`,
          'path-style',
          'access-key-id={env:KEY}',
          'secret-access-key={env:SECRET}',
          '--state',
          join(folder, 's3-state'),
        ],
        {
          cwd: folder,
          env: env({ KEY: server.accessKey, SECRET: server.secretKey }),
          stdio: ['pipe', 'ignore', 'inherit'],
        },
      )
      child.stdin.end(input)
      expect(await once(child, 'exit')).toEqual([0, null])
      expect(Buffer.concat((await bucket.all('trades')).map(({ bytes }) => bytes)).toString()).toBe(input)
    } finally {
      bucket.close()
      await server.stop()
    }
  })
})

describeWith('kafka', 'Kafka, whose client is ESM and brings compiled code', () => {
  let server: KafkaServer
  beforeAll(async () => {
    server = await startKafka()
  }, 90_000)
  afterAll(async () => {
    await server?.stop()
  })

  test.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'])(
    'records go in and come back (compression=%s)',
    async (compression) => {
      const topic = await makeTopic(server)
      const records = Array.from({ length: 1000 }, (_, i) => `record ${i}\n`).join('')
      const written = run(
        ['--from', '-', '--to', `kafka://${server.bootstrap}/${topic}`, `compression=${compression}`],
        records,
      )
      expect([written.status, written.stderr.includes('error')]).toEqual([0, false])
      expect(run(['--until', 'end', '--from', `kafka://${server.bootstrap}/${topic}`, '--to', '-'])).toMatchObject({
        status: 0,
        stdout: records,
      })
    },
    60_000,
  )
})
