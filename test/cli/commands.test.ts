/** Tests the commands on flows, and the metrics and status of a run. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { describeWith } from '../services/describe-with'
import { startFeed } from '../support/feed'
import { httpGet as get } from '../support/http'
import { manifold, start } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-commands-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

test('--version and --help beside a run are answered and nothing is run', async () => {
  const run = ['--from', 'generate:', 'count=1', '--to', `file:${join(folder, 'out')}`]
  const version = await manifold([...run, '--version'])
  expect(version).toMatchObject({ code: 0, stderr: '' })
  expect(version.stdout.toString()).toMatch(/^manifold \d/)
  const help = await manifold([...run, '--help'])
  expect(help).toMatchObject({ code: 0, stderr: '' })
  expect(help.stdout.toString()).toBe((await manifold(['--help'])).stdout.toString())
  expect(existsSync(join(folder, 'out'))).toBe(false)
})

const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

test('metrics, health and status tell what a run does, and nothing secret', async () => {
  const feed = await startFeed({ perSecond: 500 })
  const socket = join(folder, 'metrics')
  const running = start(
    [
      '--from',
      `${feed.url}?token=canary-in-the-query`,
      'header.APIKEY={env:CANARY}',
      '--to',
      'discard:',
      '--metrics',
      `unix:${socket}`,
      '--log-level',
      'debug',
    ],
    { env: { CANARY: 'canary-in-a-header' } },
  )
  try {
    let status: { readonly read: number } | undefined
    for (let i = 0; i < 200 && (status?.read ?? 0) < 100; i++) {
      await sleep(25)
      const answer = await get(socket, '/status')
      status = answer === undefined ? undefined : (JSON.parse(answer.body) as { read: number })
    }
    expect(status?.read).toBeGreaterThanOrEqual(100)
    const metrics = await get(socket, '/metrics')
    expect(metrics?.body).toMatch(/^manifold_records_read_total\{flow="[^"]+"\} \d+$/m)
    expect(metrics?.body).toMatch(/^manifold_endpoint_state\{.*state="running"\} 1$/m)
    expect((await get(socket, '/healthz'))?.code).toBe(200)
    expect((await get(socket, '/readyz'))?.code).toBe(200)
    expect((await get(socket, '/nothing'))?.code).toBe(404)
    expect(`${metrics?.body}${JSON.stringify(status)}`).not.toContain('canary')
  } finally {
    running.kill('SIGTERM')
    await running.done
    await feed.stop()
  }
  expect(running.stderr()).not.toContain('canary')
})

test('metrics are served again after a kill, which leaves the socket behind; one that is in use is refused', async () => {
  const socket = join(folder, 'metrics')
  const line = ['--from', 'generate:', 'rate=100', '--to', 'discard:', '--metrics', `unix:${socket}`]
  const served = async (): Promise<void> => {
    while ((await get(socket, '/healthz'))?.code !== 200) await sleep(10)
  }
  const killed = start(line)
  await served()
  killed.kill('SIGKILL')
  await killed.done
  expect(existsSync(socket)).toBe(true)
  const again = start(line)
  try {
    await served()
    const { code, stderr } = await manifold(line)
    expect({ code, stderr }).toEqual({
      code: 2,
      stderr: expect.stringMatching(/\nmanifold: --metrics: .*EADDRINUSE.*\n$/) as string,
    })
    await served()
  } finally {
    again.kill('SIGTERM')
    await again.done
  }
}, 30_000)

test.each([
  ['--metrics', 'nonsense', /--metrics .nonsense. is not valid: HOST:PORT, unix:PATH or file:PATH\.prom is expected/],
  ['--metrics', '127.0.0.1:99999', /HOST:PORT/],
  [
    '--metrics',
    'file:/no-such-folder/metrics.prom',
    /--metrics file:\/no-such-folder\/metrics\.prom cannot be written/,
  ],
  ['--receipt', '/no-such-folder/receipts', /--receipt \/no-such-folder\/receipts cannot be written/],
  ['--receipt', '/', /--receipt \/ cannot be written: it is a directory/],
])('%s %s is refused with one line before anything is read', async (flag, value, message) => {
  const { code, stdout, stderr } = await manifold(['--from', '-', '--to', '-', flag, value], { input: 'one\n' })
  expect({ code, text: stdout.toString() }).toEqual({ code: 2, text: '' })
  expect(stderr).toMatch(message)
  expect(stderr.trim().split('\n')).toHaveLength(1)
})

test('a source that cannot be reached ends with 3 where giving up at once was asked for', async () => {
  const { code, stderr } = await manifold(['--from', 'ws://127.0.0.1:1/', '--to', '-', '--give-up-after', 'first'])
  expect(code).toBe(3)
  expect(stderr).toMatch(/ws:\/\/127\.0\.0\.1:1/)
  expect(stderr.trim().split('\n').length).toBeLessThanOrEqual(10)
})

test('check says that nothing is wrong, or what is', async () => {
  const good = await manifold(['check', '--from', '-', '--to', 'file:out.ndjson'])
  expect({ code: good.code, text: good.stdout.toString() }).toEqual({
    code: 0,
    text: 'stdin to file:out.ndjson: nothing wrong that can be seen without connecting\n',
  })
  const bad = await manifold(['check', '--from', '-', '--to', 'file:out.ndjson', 'framming=lines'])
  expect(bad.code).toBe(2)
  expect(bad.stderr).toMatch(/framing/)
})

test('MANIFOLD_ARGS can hold the whole line, and flags beside it add to it', async () => {
  const whole = await manifold([], { input: 'one\n', env: { MANIFOLD_ARGS: '--from - --to -' } })
  expect({ code: whole.code, text: whole.stdout.toString() }).toEqual({ code: 0, text: 'one\n' })
  const more = await manifold(['--append', 'a=b'], { input: '{}\n', env: { MANIFOLD_ARGS: '--from - --to -' } })
  expect({ code: more.code, text: more.stdout.toString() }).toEqual({ code: 0, text: '{"a":"b"}\n' })
})

test('unit prints a systemd unit with the line quoted as systemd reads it, and the credentials it names', async () => {
  const { code, stdout } = await manifold([
    'unit',
    'trades',
    '--',
    '--from',
    'wss://h/x',
    'header.KEY={file:%d/key}',
    '--to',
    's3://lake/t',
  ])
  expect(code).toBe(0)
  const text = stdout.toString()
  expect(text).toMatch(/^ExecStart=.*--name trades --from wss:\/\/h\/x "header.KEY=\{file:%%d\/key\}"/m)
  expect(text).toMatch(/^StateDirectory=manifold\nLoadCredential=key:\/etc\/manifold\/key$/m)
  const file = join(folder, 'trades.service')
  writeFileSync(file, text)
  const verified = spawnSync('systemd-analyze', ['verify', file], { encoding: 'utf8' })
  // If systemd is installed, it accepts the unit.
  if (verified.error === undefined)
    expect({ status: verified.status, text: verified.stderr }).toEqual({ status: 0, text: '' })
})

test('unit repeats no secret of the line: each is a credential of systemd, to be written by hand', async () => {
  const { code, stdout, stderr } = await manifold([
    'unit',
    'trades',
    '--',
    '--from',
    'wss://u:CANARY-a@h/x?t=CANARY-b&streams=b',
    'header.KEY=CANARY-c',
    'header.A=Bearer {env:B}',
    '--to',
    's3://lake/x',
    'access-key-id=a',
    'secret-access-key=CANARY-d',
  ])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const text = stdout.toString()
  expect(text).not.toContain('CANARY')
  const [, start = ''] = /^ExecStart=.*manifold (.*)$/m.exec(text) ?? []
  const named = [...start.matchAll(/\{file:%%d\/(trades-secret-\d)\}/g)].map(([, credential]) => credential)
  expect(named).toHaveLength(4)
  for (const credential of named) {
    expect(text).toContain(`LoadCredential=${credential}:/etc/manifold/${credential}\n`)
    expect(text).toMatch(
      new RegExp(`^# Write the secret of .*\\*\\*\\*.* into /etc/manifold/${credential}, mode 0600`, 'm'),
    )
  }
  expect(start).toContain('"header.A=Bearer {env:B}"')
})

test.each([
  [['unit', 'trades', '--', '--from', 'wss://h/x', '--too', 's3://lake/t'], /unknown flag '?--too'?.*--to/],
  [['unit', 'trades', '--', '--from', '-', '--to', '-', '--name', 'other'], /--name is given twice/],
  [['unit', 'a/b', '--', '--from', '-', '--to', '-'], /cannot be a flow's name/],
  [['unit', 'trades'], /stands after --/],
])('%j is refused: the unit could not run', async (args, message) => {
  const { code, stdout, stderr } = await manifold(args)
  expect({ code, text: stdout.toString() }).toEqual({ code: 2, text: '' })
  expect(stderr).toMatch(message)
})

test('an unknown command is refused with the nearest one', async () => {
  const { code, stderr } = await manifold(['endpionts'])
  expect(code).toBe(2)
  expect(stderr).toMatch(/manifold: .*endpionts/)
})

describeWith('s3', 'a flow that stopped with records in its spool', () => {
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

  test('is shown by ls, delivered by spool drain without its source, and removed by forget', async () => {
    const state = join(folder, 'state')
    const env = { KEY: server.accessKey, SECRET: server.secretKey }
    const line = [
      '--from',
      'generate:',
      'rate=1000',
      '--to',
      `s3://${bucket.name}/t`,
      'region=us-east-1',
      `endpoint=${server.endpoint}`,
      'path-style',
      'access-key-id={env:KEY}',
      'secret-access-key={env:SECRET}',
      '--name',
      'numbers',
      '--state',
      state,
      '--receipt',
      join(folder, 'receipts'),
    ]
    await server.kill()
    const socket = join(folder, 'metrics')
    const running = start([...line, '--metrics', `unix:${socket}`], { env })
    for (let read = 0; read < 500; ) {
      await sleep(20)
      const status = await get(socket, '/status')
      read = status === undefined ? 0 : (JSON.parse(status.body) as { read: number }).read
    }
    running.kill('SIGTERM')
    expect((await running.done).code).toBe(0)
    await server.restart()

    const listed = (await manifold(['ls', '--state', state])).stdout.toString()
    const waiting = Number(/(\d+) records wait for/.exec(listed)?.[1])
    expect(listed).toMatch(/^numbers: not running; generate to s3:/)
    expect(waiting).toBeGreaterThan(100)

    const drained = await manifold(['spool', 'drain', 'numbers', '--state', state], { env })
    expect({ code: drained.code, stderr: drained.stderr }).toEqual({ code: 0, stderr: '' })
    const records = (await bucket.all()).flatMap(({ bytes }) =>
      bytes
        .toString()
        .trim()
        .split('\n')
        .map((text) => (JSON.parse(text) as { seq: number }).seq),
    )
    expect(records).toEqual(Array.from({ length: waiting }, (_, i) => i + 1))
    expect((await manifold(['ls', '--state', state])).stdout.toString()).not.toMatch(/wait for/)
    const receipts = readFileSync(join(folder, 'receipts'), 'utf8')
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text) as { sinks: { spooled: number }[] })
    expect(receipts[0]?.sinks[0]?.spooled).toBe(waiting)

    expect((await manifold(['forget', 'numbers', '--state', state])).code).toBe(0)
    expect((await manifold(['ls', '--state', state])).stdout.toString()).toBe('')
  }, 60_000)
})
