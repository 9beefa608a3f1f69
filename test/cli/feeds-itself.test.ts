/** Tests flows that write what they read. They are refused if that is certain. */
import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { start, type Finished, type Running, type StartOptions } from '../support/manifold'

const running: Running[] = []
/** One that is not refused may write for ever: it ends with its test at the latest. */
function manifold(args: readonly string[], options: StartOptions): Promise<Finished> {
  const run = start(args, options)
  running.push(run)
  return run.done
}

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-loop-'))
  mkdirSync(join(folder, 'logs'))
  symlinkSync('logs', join(folder, 'linked'))
  writeFileSync(join(folder, 'logs/a.log'), 'one\ntwo\n')
  symlinkSync('a.log', join(folder, 'logs/link'))
  linkSync(join(folder, 'logs/a.log'), join(folder, 'hard'))
})
afterEach(() => {
  for (const run of running.splice(0)) run.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})
const content = (): string => readFileSync(join(folder, 'logs/a.log'), 'utf8')

test.each([
  ['a file to itself', ['--from', 'file:logs/a.log', '--to', 'file:logs/a.log']],
  ['a file to itself, in another spelling', ['--from', 'file:logs/a.log', '--to', 'file:./linked/../logs/a.log']],
  ['a file to a link to it', ['--from', 'file:logs/a.log', '--to', 'file:logs/link']],
  ['a file to another name of it', ['--from', 'file:hard', '--to', 'file:logs/a.log']],
  ['one of two files', ['--from', 'file:hard', '--from', '-', '--to', 'discard:', '--to', 'file:linked/a.log']],
  ['a pattern to a file that will be in it', ['--from', 'file:logs/*.log', 'follow', '--to', 'file:logs/all.log']],
  ['a pattern through a link', ['--from', 'file:linked/*.log', 'follow', '--to', 'file:logs/all.log']],
  [
    'a pattern to a file with times in its name',
    ['--from', 'file:logs/*.log', 'follow', '--to', 'file:logs/{yyyy}-{mm}.log'],
  ],
  [
    'a pattern to the name that rotation will give',
    ['--from', 'file:logs/out.log-*', 'follow', '--to', 'file:logs/out.log', 'rotate-size=1M'],
  ],
  ['a pattern that need not be followed', ['--from', 'file:logs/*', '--to', 'file:logs/all.log']],
  [
    'dead letters to themselves',
    ['--from', 'file:logs/a.log', 'framing=envelope', '--to', 'discard:', '--dead-letter', 'file:logs/a.log'],
  ],
  [
    'dead letters into a folder that is followed',
    ['--from', 'file:logs/*', 'follow', '--to', 'discard:', '--dead-letter', 'file:logs/dead'],
  ],
])('%s is refused with 2', async (_, args) => {
  const { code, stderr } = await manifold([...args, '--state', 'state'], { cwd: folder })
  expect(stderr).toMatch(
    /^manifold: file:\S+ is written.* read.*: the flow would feed itself; write to a file that it does not read\n$/,
  )
  expect(code).toBe(2)
  expect(content()).toBe('one\ntwo\n')
})

test('it is seen without connecting', async () => {
  const { code, stderr } = await manifold(['check', '--from', 'file:logs/*', '--to', 'file:logs/all'], { cwd: folder })
  expect([code, stderr]).toEqual([2, expect.stringContaining('would feed itself')])
})

test.each([
  ['kafka://h1,h2:9093/t', ['start=latest'], 'kafka://H2:9093/t', []],
  ['kafka://h1/a,t', [], 'kafka://h1:9092', ['topic=t']],
  ['kafka://h1/~logs-.*', ['group=g'], 'kafka://h1/logs-a', []],
  ['amqp://mq/prod', ['queue=q'], 'amqp://user@MQ:5672/prod', ['queue=q']],
  ['amqp://mq', ['queue=q'], 'amqp://mq/%2F', ['key=q']],
  ['amqp://mq', ['queue=q', 'bind=events:#'], 'amqp://mq', ['exchange=events']],
  ['kinesis:s', ['region=eu-west-1'], 'kinesis:', ['stream-name=s', 'region=eu-west-1']],
])('%s %j and %s %j are one place: refused with 2', async (from, fromOptions, to, toOptions) => {
  for (const end of [
    ['--to', to, ...toOptions],
    ['--to', 'discard:', '--dead-letter', to, ...toOptions],
  ]) {
    const { code, stderr } = await manifold(['check', '--from', from, ...fromOptions, ...end], { cwd: folder })
    expect(stderr).toMatch(
      /^manifold: \S+ is written.* read.*: the flow would feed itself; write to what it does not read\n$/,
    )
    expect(code).toBe(2)
  }
})

test.each([
  ['kafka://h1/t', [], 'kafka://h2/t', []],
  ['kafka://h1/t', [], 'kafka://h1/u', []],
  ['kafka://h1/~logs-.*', [], 'kafka://h1/x-logs-a', []],
  ['amqp://mq/a', ['queue=q'], 'amqp://mq/b', ['queue=q']],
  ['amqp://mq', ['queue=q', 'bind=events:a'], 'amqp://mq', ['exchange=events', 'key=b']],
  ['kinesis:s', ['region=eu-west-1'], 'kinesis:s', ['region=eu-west-2']],
  ['kinesis:s', ['profile=one'], 'kinesis:s', ['profile=other']],
  ['ws://h/feed', [], 'ws://h/feed', []],
])('%s %j and %s %j may be two', async (from, fromOptions, to, toOptions) => {
  const { code, stderr } = await manifold(['check', '--from', from, ...fromOptions, '--to', to, ...toOptions], {
    cwd: folder,
  })
  expect([code, stderr]).toEqual([0, ''])
})

test('what the shell redirects counts as well', async () => {
  const appended = openSync(join(folder, 'logs/a.log'), 'a')
  const out = await start(['--from', 'file:logs/*', '--to', '-'], { cwd: folder, stdout: appended }).done
  expect([out.code, out.stderr]).toEqual([
    2,
    expect.stringContaining('stdout is written, and read as file:logs/*: the flow would feed itself'),
  ])
  closeSync(appended)
  expect(content()).toBe('one\ntwo\n')
})

test('the dead letters of a flow are not read by that flow', async () => {
  const flow = ['--state', 'state', '--name', 'mine']
  expect(
    (
      await manifold(['--from', '-', ...flow, '--append', 'x=y', '--to', 'discard:'], {
        cwd: folder,
        input: 'no json\n',
      })
    ).code,
  ).toBe(5)
  const again = [
    '--from',
    'file:state/mine/0/rejected.ndjson',
    'framing=envelope',
    '--append',
    'x=y',
    '--to',
    'file:out',
  ]
  const { code, stderr } = await manifold([...again, ...flow], { cwd: folder })
  expect([code, stderr]).toEqual([2, expect.stringContaining('would feed itself')])
  // As another flow it is an ordinary run.
  expect((await manifold([...again, '--state', 'state'], { cwd: folder })).code).toBe(5)
})

test('ends that only look alike are none', async () => {
  for (const to of ['file:logs/b.log', 'file:logs2', 'file:all.log']) {
    const { code, stderr } = await manifold(
      ['--from', 'file:logs/a*', '--to', to, '--state', 'state', '--name', to.replace(/\W/g, '-')],
      { cwd: folder },
    )
    expect([to, code, stderr]).toEqual([to, 0, ''])
  }
  expect(content()).toBe('one\ntwo\n')
})
