/**
 * Tests how a run ends for the shell that started it: closed descriptors, a broken stderr, ignored signals, and ends
 * that were not reached.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Clock } from '../../src/core/contract'
import { registry } from '../../src/endpoints/registry'
import { systemClock } from '../../src/kit/clock'
import { parseCommandLine } from '../../src/options/command-line'
import { assemble } from '../../src/plan/assemble'
import { httpGet } from '../support/http'
import { cleanEnv, LAUNCHER, manifold, start, type Finished } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-ends-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

interface Receipt {
  readonly outcome: string
  readonly read: number
  readonly sinks: {
    readonly read: number
    readonly delivered: number
    readonly spooled: number
    readonly returned: number
    readonly abandoned: number
  }[]
}
function receipt(): Receipt {
  return JSON.parse(readFileSync(join(folder, 'receipt'), 'utf8')) as Receipt
}
/** $M stands for the program. */
async function shell(
  script: string,
): Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }> {
  const child = spawn('bash', ['-c', script], {
    cwd: folder,
    env: cleanEnv({ M: LAUNCHER, XDG_STATE_HOME: join(folder, 'xdg') }),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, stdout, stderr }
}
function written(): number {
  try {
    return readFileSync(join(folder, 'out')).length
  } catch {
    return 0
  }
}
async function until(what: () => boolean): Promise<void> {
  while (!what())
    await new Promise((resolve) => {
      setTimeout(resolve, 10)
    })
}
const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '')
const wait = async (running: {
  readonly done: Promise<Finished>
}): Promise<{ code: number | null; signal: string | null }> => {
  const { code, signal } = await running.done
  return { code, signal }
}
/** A run without end is stopped and continued. */
const endless = (): string[] => [
  '--from',
  'generate:',
  'rate=1000',
  '--to',
  `file:${join(folder, 'out')}`,
  '--state',
  join(folder, 'state'),
  '--receipt',
  join(folder, 'receipt'),
]

describe('an end that was not reached', () => {
  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    '%s of a run that has an end of its own drains it, and it dies of the signal',
    async (signal) => {
      const running = start(endless().flatMap((word) => (word === 'rate=1000' ? [word, 'count=1000000'] : [word])))
      await until(() => written() > 0)
      running.kill(signal)
      expect(await wait(running)).toEqual({ code: null, signal })
      expect(receipt().outcome).toBe('stopped')
      expect(receipt().sinks[0]?.delivered).toBe(receipt().read)
      expect(lines(running.stderr())).toEqual([
        expect.stringMatching(/stopped before its end: \d+ records of \d+ were delivered/),
      ])
    },
  )

  test.each([
    ['SIGINT', { code: null, signal: 'SIGINT' }],
    ['SIGTERM', { code: 0, signal: null }],
  ] as const)('%s of a run that is fed by a pipe: %p', async (signal, end) => {
    const running = start(['--from', '-', '--to', `file:${join(folder, 'out')}`, '--state', join(folder, 'state')], {
      input: 'open',
    })
    running.child.stdin?.write('one\n')
    await until(() => written() > 0)
    running.kill(signal)
    expect(await wait(running)).toEqual(end)
    running.child.stdin?.destroy()
  })

  test('what stands behind && is not run', async () => {
    writeFileSync(join(folder, 'source'), 'one\ntwo\n')
    const { stdout, code } = await shell(`(until [ -s held ]; do sleep 0.05; done; kill -INT $(cat pid)) &
      bash -c 'echo $$ >pid; exec "$M" --from file:source --to file:held --from generate: rate=10 count=100000 --name n' && rm source; echo $?`)
    expect({ code, stdout, kept: existsSync(join(folder, 'source')) }).toEqual({ code: 0, stdout: '130\n', kept: true })
  })

  test('one that was asked to stop after its last record has reached its end', async () => {
    const running = start([
      '--from',
      'generate:',
      'count=10',
      '--to',
      'discard:',
      'delay=1500ms',
      '--receipt',
      join(folder, 'receipt'),
      '--log-level',
      'info',
    ])
    await until(() => running.stderr() !== '')
    await new Promise((resolve) => {
      setTimeout(resolve, 300)
    })
    running.kill('SIGINT')
    expect(await wait(running)).toEqual({ code: 0, signal: null })
    expect(receipt()).toMatchObject({ outcome: 'complete', read: 10 })
  })
})

describe('signals that are ignored at the start stay ignored', () => {
  test.each([
    ['HUP', 'nohup '],
    ['HUP', ''],
    ['INT', ''],
    ['TERM', ''],
  ] as const)('%s by %s', async (name, nohup) => {
    const child = spawn(
      'bash',
      ['-c', `${nohup === '' ? `trap '' ${name}; ` : ''}exec ${nohup}"$@"`, 'bash', LAUNCHER, ...endless()],
      { env: cleanEnv(), stdio: ['ignore', 'ignore', 'ignore'] },
    )
    const ended = once(child, 'close') as Promise<[number | null, string | null]>
    await until(() => written() > 0)
    child.kill(`SIG${name}`)
    const before = written()
    // More than a second's worth: a drain would have ended long before.
    await until(() => written() > before + 150_000 || child.exitCode !== null || child.signalCode !== null)
    expect({ code: child.exitCode, signal: child.signalCode }).toEqual({ code: null, signal: null })
    child.kill(name === 'TERM' ? 'SIGINT' : 'SIGTERM')
    expect(await ended).toEqual([0, null])
    expect(receipt().outcome).toBe('stopped')
  })
})

describe('whatever becomes of stderr, the flow goes on', () => {
  const noisy = (): string[] => [...endless(), '--log-level', 'debug', '--progress', 'on']

  test.each([
    ['a full disk', '2>/dev/full'],
    ['closed', '2>&-'],
    ['a reader that is gone', '2> >(exit)'],
  ])('%s', async (_, redirection) => {
    const child = spawn('bash', ['-c', `exec "$@" ${redirection}`, 'bash', LAUNCHER, ...noisy()], {
      env: cleanEnv(),
      stdio: ['ignore', 'ignore', 'ignore'],
    })
    const ended = once(child, 'close') as Promise<[number | null, string | null]>
    await until(() => written() > 0 || child.exitCode !== null)
    // The live line is drawn twice a second.
    const before = written()
    await until(() => written() > before + 8000 || child.exitCode !== null)
    child.kill('SIGTERM')
    expect(await ended).toEqual([0, null])
    expect(receipt()).toMatchObject({ outcome: 'stopped' })
    expect(receipt().sinks[0]?.delivered).toBe(receipt().read)
  })

  test('a failing run keeps its exit code', async () => {
    expect((await shell('"$M" --from file:absent-folder/x --to discard: 2>/dev/full')).code).toBe(3)
    expect((await shell('"$M" --from 2>/dev/full')).code).toBe(2)
    expect((await shell('"$M" nonsense 2>/dev/full')).code).toBe(2)
  })

  test('a terminal that is hung up drains it', async () => {
    const words = noisy()
      .map((word) => `'${word}'`)
      .join(' ')
    const script = spawn('script', ['-qec', `exec '${LAUNCHER}' ${words}`, '/dev/null'], {
      env: cleanEnv(),
      stdio: ['pipe', 'ignore', 'ignore'],
    })
    const ended = once(script, 'close')
    await until(() => written() > 2000)
    script.kill('SIGKILL')
    await ended
    await until(() => existsSync(join(folder, 'receipt')) && readFileSync(join(folder, 'receipt'), 'utf8') !== '')
    expect(receipt()).toMatchObject({ outcome: 'stopped' })
    expect(receipt().sinks[0]?.delivered).toBe(receipt().read)
  })
})

describe('a descriptor that is closed at the start', () => {
  test.each([
    ['stdout', '--to -'],
    ['stdout by its name', '--to file:/dev/stdout'],
    ['stdout for dead letters', '--to file:out --dead-letter -'],
  ])('%s is an error before anything is read', async (_, to) => {
    const { code, stdout, stderr } = await shell(
      `printf 'one\\ntwo\\n' | { "$M" --from - ${to} 3>&1 >&- ; echo $? >&3; cat >&3; } 3>&1`,
    )
    expect(lines(stderr).at(-1)).toMatch(/^manifold: .*(closed, or a directory|is a directory)/)
    expect(lines(stderr).length).toBeLessThanOrEqual(2)
    expect({ code, stdout }).toEqual({ code: 0, stdout: '4\none\ntwo\n' })
  })

  test('stdin is one, too', async () => {
    const { code, stdout, stderr } = await shell('"$M" --from - --to file:out <&-')
    expect(stderr).toBe(
      "manifold: stdin: stdin is closed, or a directory: redirect a file, or name the files of a directory with --from 'DIRECTORY/*'\n",
    )
    expect({ code, stdout, made: existsSync(join(folder, 'out')) }).toEqual({ code: 3, stdout: '', made: false })
  })

  test('one that is not used may be closed', async () => {
    expect(await shell('"$M" --from generate: count=3 --to file:out <&- >&- 2>&-')).toEqual({
      code: 0,
      stdout: '',
      stderr: '',
    })
    expect(lines(readFileSync(join(folder, 'out'), 'utf8'))).toHaveLength(3)
  })
})

describe('a receipt that is asked for at a FIFO', () => {
  test('does not hold up the end where nobody reads it', async () => {
    await promisify(execFile)('mkfifo', [join(folder, 'receipt')])
    const { code, stderr, ms } = await manifold([
      '--from',
      'generate:',
      'count=3',
      '--to',
      'discard:',
      '--receipt',
      join(folder, 'receipt'),
    ])
    expect(code).toBe(0)
    expect(stderr).toMatch(/the receipt could not be written to .*: it is a FIFO that nobody reads\n$/)
    expect(ms).toBeLessThan(8000)
  })

  test('reaches its reader', async () => {
    const { stdout } = await shell(
      'mkfifo receipt; cat receipt & "$M" --from generate: count=3 --to discard: --receipt receipt; wait',
    )
    expect(JSON.parse(stdout) as object).toMatchObject({ outcome: 'complete', read: 3 })
  })
})

test('a reader of stdout that has enough ends the run without a word', async () => {
  const { code, stdout, stderr } = await shell(
    'set -o pipefail; "$M" --from generate: --to - --receipt receipt | head -n 1',
  )
  expect({ code, lines: lines(stdout).length }).toEqual({ code: 141, lines: 1 })
  expect(stderr).not.toMatch(/receipt|failed|error/)
  expect(receipt().outcome).toBe('stopped')
})

test('a reader of an answer that has enough, or a full disk, is no bug', async () => {
  expect(await shell('set -o pipefail; "$M" help s3 | true')).toMatchObject({ stderr: '' })
  const { code, stderr } = await shell('"$M" endpoints >/dev/full')
  expect(code).toBe(74)
  expect(stderr).toMatch(/^manifold: the answer could not be written to stdout: [^\n]*ENOSPC[^\n]*\n$/)
})

/** A sleep ends at once, and its time has passed. */
class Hurried implements Clock {
  readonly began = Date.now()
  private time = this.began
  now(): number {
    return this.time
  }
  monotonic(): number {
    return this.time
  }
  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    await systemClock.sleep(1, signal)
    this.time += ms
  }
  every(ms: number, run: () => void): { stop(): void } {
    return systemClock.every(ms, run)
  }
}
/** A port that nobody listens at. */
async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
/** The store is away, but an earlier run has reached it. */
const away = async (...more: string[]): Promise<string[]> => [
  '--to',
  `ws://127.0.0.1:${await closedPort()}/`,
  '--spool',
  join(folder, 'spool'),
  '--state',
  join(folder, 'state'),
  '--receipt',
  join(folder, 'receipt'),
  ...more,
]

describe('a store that stays away', () => {
  test('of a bounded run is told of while it lasts, and then given up: what, since when, counts, where the records lie, what to do', async () => {
    const store = [
      '--to',
      's3://lake/t',
      `endpoint=http://127.0.0.1:${await closedPort()}`,
      'region=us-east-1',
      'access-key-id=a',
      'secret-access-key={env:KEY}',
      'upload-every=300ms',
    ]
    const running = start(
      ['--from', 'generate:', 'count=10', ...store, '--state', join(folder, 'state'), '--give-up-after', '3s'],
      { env: { KEY: 'k' } },
    )
    await until(() => running.stderr() !== '' || running.child.exitCode !== null)
    expect(running.child.exitCode).toBeNull()
    const { code, stderr } = await running.done
    expect(code).toBe(4)
    expect(lines(stderr).length).toBeLessThanOrEqual(10)
    expect(lines(stderr)[0]).toMatch(
      /^manifold: warn: s3:.*: failing since 20\S+Z: .*ECONNREFUSED.*; trying again until 20\S+Z \(--give-up-after\)$/,
    )
    expect(stderr).toMatch(/warn: .*ECONNREFUSED.*; trying again\n/)
    expect(stderr).toMatch(/10 read = 0 delivered, 10 spooled/)
    expect(stderr).toMatch(/\(failing for \d s, \d+ tries; --give-up-after says how long\)/)
    expect(stderr).toMatch(/10 records are safe in the spool; run the same line again, or: manifold spool drain \S+\n$/)
  })

  test.each([
    ['that ends by itself', ['--from', 'generate:', 'count=10'], true],
    ['with an end that was asked for', ['--from', 'generate:', 'rate=1000', '--until', 'count=10'], true],
    ['without an end', ['--from', 'generate:', 'rate=10'], false],
  ] as const)('behind a spool is given up after ten minutes by a run %s: %p', async (_, from, gives) => {
    const clock = new Hurried()
    const argv = [...from, ...(await away())]
    const line = parseCommandLine(argv, {}, registry)
    const { flow, release } = await assemble(
      line,
      { env: {}, redactor: line.redactor, exists: () => false },
      { debug: () => undefined, info: () => undefined, warn: () => undefined },
      {},
      clock,
    )
    const running = flow.run()
    await until(() => clock.now() - clock.began > 1_200_000 || flow.status().sinks[0]?.state === 'failed')
    if (!gives) flow.stop()
    const { ending } = await running
    await release()
    expect(ending.kind).toBe(gives ? 'sink failed' : 'stopped')
  })
})

describe('a flow whose spool is full', () => {
  test('is stopped by SIGTERM, and the next start has every record once', async () => {
    const socket = join(folder, 'metrics')
    const port = await closedPort()
    const line = [
      '--from',
      'generate:',
      'size=1000',
      '--to',
      `ws://127.0.0.1:${port}/`,
      '--spool',
      join(folder, 'spool'),
      '--spool-max',
      '1MiB',
      '--state',
      join(folder, 'state'),
      '--receipt',
      join(folder, 'receipt'),
      '--metrics',
      `unix:${socket}`,
    ]
    const running = start(line)
    for (let full = false; !full; ) {
      await new Promise((resolve) => {
        setTimeout(resolve, 20)
      })
      const status = await httpGet(socket, '/status')
      full = status !== undefined && (JSON.parse(status.body) as { spool?: { full: boolean } }).spool?.full === true
    }
    running.kill('SIGTERM')
    const { code, signal, ms } = await running.done
    expect({ code, signal }).toEqual({ code: 0, signal: null })
    expect(ms).toBeLessThan(15_000)
    const {
      read,
      sinks: [sink],
    } = receipt()
    expect({ ...sink, sum: (sink?.spooled ?? 0) + (sink?.returned ?? 0) }).toMatchObject({
      delivered: 0,
      abandoned: 0,
      sum: read,
    })
  })

  test('of standard input ends with the grace, and the receipt says what is lost', async () => {
    const running = start(
      ['--from', '-', ...(await away('--spool-max', '1MiB', '--grace', '1s', '--log-level', 'info'))],
      { input: 'open' },
    )
    const feed = setInterval(() => {
      running.child.stdin?.write(Buffer.alloc(64 * 1024, `${'x'.repeat(63)}\n`))
    }, 5)
    running.child.stdin?.on('error', () => undefined)
    await until(() => running.stderr().includes('is full, appends wait') || running.child.exitCode !== null)
    const from = Date.now()
    running.kill('SIGTERM')
    expect(await wait(running)).toEqual({ code: null, signal: 'SIGTERM' })
    clearInterval(feed)
    expect(Date.now() - from).toBeLessThan(5000)
    const {
      read,
      sinks: [sink],
    } = receipt()
    expect(sink?.abandoned).toBeGreaterThan(0)
    expect((sink?.spooled ?? 0) + (sink?.abandoned ?? 0)).toBe(read)
  })
})
