/**
 * Accepted records that the disk has lost are read again from a source that still has them; what it has no more is a
 * gap.
 */
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { FlowState } from '../../src/core/flow/flow-state'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { realFileSystem } from '../../src/kit/file-system'
import { readFlowFile } from '../../src/state/flow-file'
import { start, type Finished, type StartOptions } from '../support/manifold'
import { linesOf, startObjectStore, type ObjectStore } from '../support/object-store'
import { build, callsOf, evenly, shimEnv, whyNoShim } from './shim/shim'

let folder: string
let store: ObjectStore
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-again-'))
  mkdirSync(join(folder, 'in'))
  store = await startObjectStore()
})
afterEach(async () => {
  await store.stop()
  rmSync(folder, { recursive: true, force: true })
})

const lines = (count: number, from = 0): readonly string[] =>
  Array.from({ length: count }, (_, index) => `record ${from + index} ${'x'.repeat(90)}`)
const text = (all: readonly string[]): string => all.map((line) => `${line}\n`).join('')
const input = (name: string): string => join(folder, 'in', name)
const spool = (): string => join(folder, 'state/damaged/0/spool')
const segments = (): readonly string[] =>
  readdirSync(spool())
    .filter((name) => name.endsWith('.seg'))
    .sort()
    .map((name) => join(spool(), name))
const receipts = (): readonly Receipt[] =>
  readFileSync(join(folder, 'receipts'), 'utf8')
    .trim()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Receipt)
const state = async (): Promise<FlowState | undefined> =>
  readFlowFile<FlowState>(realFileSystem, join(folder, 'state/damaged/0/flow')).catch(() => undefined)

function run(source: readonly string[], options: StartOptions = {}): ReturnType<typeof start> {
  return start(
    [
      '--from',
      ...source,
      '--to',
      's3://lake/a',
      'region=us-east-1',
      `endpoint=${store.endpoint}`,
      'path-style',
      'access-key-id={env:KEY}',
      'secret-access-key={env:SECRET}',
      'commit-file-size=64KiB',
      '--name',
      'damaged',
      '--state',
      join(folder, 'state'),
      '--receipt',
      join(folder, 'receipts'),
    ],
    { ...options, env: { KEY: 'a', SECRET: 'b', ...options.env } },
  )
}

/** Everything is accepted while the store is away, and the process killed once the ledger on disk knows so many. */
async function accept(source: readonly string[], count: number): Promise<void> {
  store.away = true
  const running = run(source)
  while (running.child.exitCode === null && (await state())?.run?.read !== count)
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
  running.kill('SIGKILL')
  await running.done
  store.away = false
}

function flip(path: string): void {
  const bytes = readFileSync(path)
  bytes[20_000] = (bytes[20_000] ?? 0) ^ 0x20
  writeFileSync(path, bytes)
}

type Damage = (all: readonly string[]) => void
const DAMAGE: Readonly<Record<string, Damage>> = {
  'a byte changed in the middle': (all) => {
    flip(all[2] ?? '')
  },
  'a byte changed in the newest file': (all) => {
    flip(all.at(-1) ?? '')
  },
  'the oldest file removed': (all) => {
    unlinkSync(all[0] ?? '')
  },
  'two files removed in the middle': (all) => {
    for (const path of all.slice(1, 3)) unlinkSync(path)
  },
  'the newest file removed': (all) => {
    unlinkSync(all.at(-1) ?? '')
  },
  'all files removed': (all) => {
    for (const path of all) unlinkSync(path)
  },
  'changed here, removed there': (all) => {
    flip(all[0] ?? '')
    unlinkSync(all[2] ?? '')
    unlinkSync(all.at(-1) ?? '')
  },
}
function damage(how: string): void {
  const all = segments()
  expect(all.length).toBeGreaterThan(3)
  DAMAGE[how]?.(all)
}

function whole(expected: readonly string[], { code, stderr }: Finished): void {
  const all = receipts()
  const sinks = all.flatMap((receipt) => receipt.sinks)
  expect({
    code,
    missing: expected.length - new Set(linesOf(store)).size,
    lines: linesOf(store).length,
    abandoned: sinks.reduce((sum, sink) => sum + sink.abandoned, 0),
    gaps: all.at(-1)?.gapCount,
    off: sinks.map(imbalance).filter((off) => off !== 0),
    read: all.reduce((sum, { read }) => sum + read, 0),
  }).toEqual({ code: 0, missing: 0, lines: expected.length, abandoned: 0, gaps: 0, off: [], read: expected.length })
  expect([...linesOf(store)].sort()).toEqual([...expected].sort())
  expect(stderr).toMatch(/\b\d+ records that the disk had lost were read again from /)
  expect(stderr).not.toMatch(/bug|are lost/)
}

/** All that is missing is told, and nothing comes twice. */
function told(expected: readonly string[], { code, stderr }: Finished): void {
  const sinks = receipts().flatMap((receipt) => receipt.sinks)
  const there = linesOf(store)
  expect(new Set(there).size).toBe(there.length)
  const missing = expected.filter((line) => !there.includes(line)).length
  expect(missing).toBeGreaterThan(0)
  expect({
    code,
    abandoned: sinks.reduce((sum, sink) => sum + sink.abandoned, 0),
    off: sinks.map(imbalance).filter((off) => off !== 0),
  }).toEqual({ code: 5, abandoned: missing, off: [] })
  expect(stderr).toMatch(new RegExp(`\\b${missing} records are lost: .*could not be read again`))
}

const ALL = lines(4000)

test.each(Object.keys(DAMAGE))(
  '%s',
  async (how) => {
    writeFileSync(input('a'), text(ALL))
    await accept([input('a')], ALL.length)
    damage(how)
    whole(ALL, await run([input('a')]).done)
  },
  30_000,
)

test.each(['two files removed in the middle', 'changed here, removed there', 'all files removed'])(
  'of two files, one of them compressed: %s',
  async (how) => {
    const source = [`file:${join(folder, 'in')}/*`]
    writeFileSync(input('a.gz'), gzipSync(text(ALL.slice(0, 1500))))
    writeFileSync(input('b'), text(ALL.slice(1500)))
    await accept(source, ALL.length)
    damage(how)
    whole(ALL, await run(source).done)
  },
  30_000,
)

test('of generated records', async () => {
  const source = ['generate:', 'count=3000', 'size=100']
  await accept(source, 3000)
  damage('changed here, removed there')
  const finished = await run(source).done
  const numbers = linesOf(store)
    .map((line) => (JSON.parse(line) as { seq: number }).seq)
    .sort((a, b) => a - b)
  expect(numbers).toEqual(Array.from({ length: 3000 }, (_, index) => index + 1))
  expect({
    code: finished.code,
    off: receipts()
      .flatMap(({ sinks }) => sinks.map(imbalance))
      .filter((off) => off !== 0),
  }).toEqual({ code: 0, off: [] })
}, 30_000)

test('of two sinks one has got them already: what it gets twice is counted', async () => {
  writeFileSync(input('a'), text(ALL))
  const source = [input('a'), '--to', `file:${join(folder, 'out')}`]
  const out = (): readonly string[] => readFileSync(join(folder, 'out'), 'utf8').split('\n').slice(0, -1)
  store.away = true
  const running = run(source)
  const all = async (): Promise<boolean> =>
    Object.values((await state())?.run?.sinks ?? {}).some(({ delivered }) => delivered === ALL.length)
  while (running.child.exitCode === null && !(await all()))
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
  running.kill('SIGKILL')
  await running.done
  store.away = false
  damage('changed here, removed there')
  const { code } = await run(source).done
  const sinks = receipts().flatMap((receipt) => receipt.sinks)
  expect([...linesOf(store)].sort()).toEqual([...ALL].sort())
  expect([...new Set(out())].sort()).toEqual([...ALL].sort())
  expect(out().length).toBeGreaterThan(ALL.length)
  expect({
    code,
    doubles: sinks.reduce((sum, { possibleDuplicates }) => sum + possibleDuplicates, 0),
    off: sinks.map(imbalance).filter((off) => off !== 0),
  }).toEqual({ code: 0, doubles: out().length - ALL.length, off: [] })
}, 30_000)

test('the file has grown meanwhile, and grows once more after it: each record once', async () => {
  writeFileSync(input('a'), text(ALL.slice(0, 3000)))
  await accept([input('a')], 3000)
  damage('the newest file removed')
  writeFileSync(input('a'), text(ALL.slice(3000, 3300)), { flag: 'a' })
  await run([input('a')]).done
  writeFileSync(input('a'), text(ALL.slice(3300)), { flag: 'a' })
  store.away = true
  const running = run([input('a')])
  while (running.child.exitCode === null && (await state())?.run?.read !== 700)
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
  running.kill('SIGKILL')
  await running.done
  store.away = false
  for (const path of segments()) unlinkSync(path)
  whole(ALL, await run([input('a')]).done)
}, 30_000)

test.each([
  [
    'shortened',
    () => {
      truncateSync(input('a'))
    },
  ],
  [
    'replaced',
    () => {
      writeFileSync(input('b'), text(lines(4000, 10_000)))
      renameSync(input('b'), input('a'))
    },
  ],
  [
    'removed',
    () => {
      unlinkSync(input('a'))
      writeFileSync(input('b'), '')
    },
  ],
] as const)(
  'the file was %s meanwhile: a gap',
  async (_how, change) => {
    writeFileSync(input('a'), text(ALL))
    const source = [`file:${join(folder, 'in')}/*`]
    await accept(source, ALL.length)
    damage('changed here, removed there')
    change()
    told(ALL, await run(source).done)
  },
  30_000,
)

const shimmed = whyNoShim() === undefined ? describe : describe.skip
shimmed('killed while it is read again', () => {
  test(
    'at any call: every record once',
    async () => {
      const library = build()
      writeFileSync(input('a'), text(ALL))
      await accept([input('a')], ALL.length)
      damage('changed here, removed there')
      const [kept, receiptsKept] = [join(folder, 'kept'), readFileSync(join(folder, 'receipts'), { flag: 'a+' })]
      cpSync(join(folder, 'state'), kept, { recursive: true })
      const again = async (at: number, log: string): Promise<Finished> => {
        rmSync(join(folder, 'state'), { recursive: true })
        cpSync(kept, join(folder, 'state'), { recursive: true })
        writeFileSync(join(folder, 'receipts'), receiptsKept)
        await run([input('a')], { env: shimEnv(library, join(folder, 'state'), log, { mode: 'kill', at }) }).done
        return run([input('a')]).done
      }
      await again(1_000_000, join(folder, 'log'))
      const calls = callsOf(join(folder, 'log'))
      expect(calls.length).toBeGreaterThan(50)
      for (const { number } of evenly(calls, process.env['MANIFOLD_LONG'] === '1' ? calls.length : 6)) {
        ;(store.objects as Map<string, Buffer>).clear()
        const { code, stderr } = await again(number, join(folder, `log${number}`))
        const all = receipts()
        expect({
          number,
          code,
          stderr: code === 0 ? '' : stderr,
          lines: linesOf(store).length,
          different: new Set(linesOf(store)).size,
          off: all.flatMap(({ sinks }) => sinks.map(imbalance)).filter((off) => off !== 0),
          gaps: all.at(-1)?.gapCount,
          lost: all.flatMap(({ sinks }) => sinks).reduce((sum, sink) => sum + sink.abandoned, 0),
        }).toEqual({ number, code: 0, stderr: '', lines: ALL.length, different: ALL.length, off: [], gaps: 0, lost: 0 })
      }
    },
    process.env['MANIFOLD_LONG'] === '1' ? 1_800_000 : 120_000,
  )
})
