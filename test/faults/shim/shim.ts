/**
 * The shim (shim.c says what it does), made by the machine's C compiler on first use, and the environment that tells it
 * what to spoil.
 */
import { createHash } from 'node:crypto'
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'

/** How a call is spoiled. `once` and `from`: that call alone, or it and all after it. */
export type Mode =
  | 'kill'
  | 'short'
  | 'full'
  | 'EIO-once'
  | 'EIO-from'
  | 'ENOSPC-once'
  | 'EMFILE-once'
  | 'EMFILE-from'
  | 'ECONNRESET-once'
  | 'ECONNRESET-from'
export const MODES: readonly Mode[] = [
  'kill',
  'short',
  'full',
  'EIO-once',
  'EIO-from',
  'ENOSPC-once',
  'EMFILE-once',
  'EMFILE-from',
  'ECONNRESET-once',
  'ECONNRESET-from',
]

/** A counted call, as the shim's log has it. */
export interface Call {
  readonly number: number
  readonly kind: string
  readonly name: string
  readonly path: string
  readonly spoiled: boolean
}

/** By mode: the kinds of call that can fail so, as in shim.c. */
const SUITS: Readonly<Record<string, string>> = {
  kill: 'ocrwsnulNC',
  short: 'w',
  full: 'cwsn',
  EIO: 'ocrwsnul',
  ENOSPC: 'cwsn',
  EMFILE: 'oclC',
  ECONNRESET: 'NC',
}
export function suits(mode: Mode, { kind }: Call): boolean {
  return SUITS[mode.split('-')[0] ?? '']?.includes(kind) === true
}

/** The library's path. Made once per version of its source, in a folder that only this user can write. */
export function build(): string {
  const source = join(__dirname, 'shim.c')
  const folder = join(tmpdir(), `manifold-shim-${userInfo().uid}`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const library = join(folder, `${createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16)}.so`)
  if (existsSync(library)) return library
  const made = `${library}.${process.pid}`
  execFileSync('cc', ['-shared', '-fPIC', '-O1', '-o', made, source, '-ldl'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  renameSync(made, library)
  return library
}

/** Why it cannot be had here; undefined where it can. */
export function whyNoShim(): string | undefined {
  if (process.platform !== 'linux') return `no LD_PRELOAD on ${process.platform}`
  return spawnSync('cc', ['--version']).status === 0
    ? undefined
    : 'no C compiler (cc) here: apt-get install gcc libc6-dev'
}

/**
 * Tests that need it: skipped loudly, and counted by `titles`, where there is no compiler; failing there if all is
 * demanded.
 */
export function describeWithShim(title: string, titles: readonly string[], body: () => void): void {
  const why = whyNoShim()
  if (why === undefined) {
    describe(title, body)
    return
  }
  if (process.env['MANIFOLD_REQUIRE_SERVICES'] === '1') {
    describe(title, () => {
      it('has a C compiler', () => {
        throw new Error(why)
      })
    })
    return
  }
  process.stderr.write(`SKIPPED: ${title}: ${why}\n`)
  describe.skip(`${title} (skipped: ${why})`, () => {
    for (const name of titles) it(name, () => undefined)
  })
}

export interface Fault {
  readonly mode: Mode
  readonly at: number /** Counts calls alone whose path holds this. */
  readonly only?: string
}
export function shimEnv(library: string, root: string, log: string, fault?: Fault): NodeJS.ProcessEnv {
  const [mode, extent] = (fault?.mode ?? 'kill').split('-')
  return {
    LD_PRELOAD: library,
    UV_USE_IO_URING: '0',
    UV_THREADPOOL_SIZE: '1',
    MANIFOLD_SHIM_ROOT: root,
    MANIFOLD_SHIM_LOG: log,
    MANIFOLD_SHIM_AT: String(fault?.at ?? 0),
    MANIFOLD_SHIM_MODE: mode,
    ...(extent === 'from' ? { MANIFOLD_SHIM_FROM: '1' } : {}),
    ...(fault?.only === undefined ? {} : { MANIFOLD_SHIM_ONLY: fault.only }),
  }
}

export function callsOf(log: string): readonly Call[] {
  if (!existsSync(log)) return []
  return readFileSync(log, 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [, mark, number, kind = '', name = '', path = ''] = /^(!?)(\d+) (\S) (\S+) (.*)$/.exec(line) ?? []
      return number === undefined ? [] : [{ number: Number(number), kind, name, path, spoiled: mark === '!' }]
    })
}

/** Every way in which each call of a run can be spoiled. */
export function casesOf(calls: readonly Call[]): readonly Fault[] {
  return MODES.flatMap((mode) =>
    calls.filter((call) => suits(mode, call)).map(({ number }): Fault => ({ mode, at: number })),
  )
}

/** So many of them, the same in each run, no two neighbours. */
export function evenly<T>(all: readonly T[], count: number): readonly T[] {
  return Array.from(
    { length: Math.min(count, all.length) },
    (_, i) => all[Math.floor(((i + 0.5) * all.length) / Math.min(count, all.length))] as T,
  )
}
