/**
 * Accepted records that the disk has lost are told by whoever finds them missing: exit code, stderr, receipt and every
 * page, whatever ended the run before.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FlowState } from '../../src/core/flow/flow-state'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { realFileSystem } from '../../src/kit/file-system'
import { readFlowFile } from '../../src/state/flow-file'
import { start, type Finished, type StartOptions } from '../support/manifold'
import { linesOf, startObjectStore, type ObjectStore } from '../support/object-store'

const LINES = Array.from({ length: 100 }, (_, index) => `record ${index}`)
let folder: string
let store: ObjectStore
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-damage-'))
  store = await startObjectStore()
})
afterEach(async () => {
  await store.stop()
  rmSync(folder, { recursive: true, force: true })
})

const words = (endpoint: string): readonly string[] => [
  '--from',
  '-',
  '--to',
  's3://lake/a',
  'region=us-east-1',
  `endpoint=${endpoint}`,
  'path-style',
  'access-key-id={env:KEY}',
  'secret-access-key={env:SECRET}',
  '--name',
  'damaged',
  '--state',
  join(folder, 'state'),
  '--receipt',
  join(folder, 'receipts'),
]
const run = (endpoint: string, more: readonly string[] = [], options: StartOptions = {}): ReturnType<typeof start> =>
  start([...words(endpoint), ...more], { env: { KEY: 'a', SECRET: 'b' }, input: '', ...options })
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
    .map((text) => JSON.parse(text) as Receipt)

const saved = async (): Promise<number> =>
  (await readFlowFile<FlowState>(realFileSystem, join(folder, 'state/damaged/0/flow')).catch(() => undefined))?.run
    ?.read ?? 0

/** Accepts these lines while the store is away, and ends by the signal once the ledger on disk knows them. */
async function accept(lines: readonly string[], signal: NodeJS.Signals): Promise<void> {
  store.away = true
  const running = run(store.endpoint, [], { input: 'open' })
  running.child.stdin?.write(`${lines.join('\n')}\n`)
  await until(async () => running.child.exitCode !== null || (await saved()) === lines.length)
  running.kill(signal)
  await running.done
  store.away = false
}
async function until(what: () => Promise<boolean>): Promise<void> {
  while (!(await what()))
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
}

function flip(path: string): void {
  const bytes = readFileSync(path)
  const at = bytes.indexOf('record')
  bytes[at] = 0x58
  writeFileSync(path, bytes)
}

/** Nothing is missing that is not told of. */
function told({ code, stderr }: Finished, lost: number): void {
  const all = receipts()
  const last = all.at(-1)
  expect({
    code,
    lost: all.flatMap(({ sinks }) => sinks).reduce((sum, sink) => sum + sink.abandoned, 0),
    gaps: (last?.gapCount ?? 0) > 0,
    off: all.flatMap(({ sinks }) => sinks.map(imbalance)).filter((off) => off !== 0),
  }).toEqual({ code: 5, lost, gaps: true, off: [] })
  expect(stderr).toMatch(new RegExp(`\\b${lost} records? .*(damaged|missing)`))
  expect(stderr).not.toMatch(/bug/)
}

test.each(['SIGKILL', 'SIGTERM'] as const)(
  'a byte of a segment changed after %s: exit 5, a warning, a gap',
  async (signal) => {
    await accept(LINES, signal)
    flip(segments()[0] ?? '')
    const finished = await run(store.endpoint, ['--metrics', `file:${join(folder, 'metrics.prom')}`]).done
    expect(linesOf(store)).toEqual([])
    told(finished, 100)
    expect(readFileSync(join(folder, 'metrics.prom'), 'utf8')).toMatch(/^manifold_gaps_total\{[^}]*\} 1$/m)
  },
  30_000,
)

test.each(['SIGKILL', 'SIGTERM'] as const)(
  'the only segment removed after %s: exit 5, a warning, a gap',
  async (signal) => {
    await accept(LINES, signal)
    for (const path of segments()) unlinkSync(path)
    told(await run(store.endpoint).done, 100)
  },
  30_000,
)

test('the oldest of two segments removed, between which the sequence jumps: exit 5, a warning, a gap', async () => {
  await accept(LINES.slice(0, 40), 'SIGKILL')
  await accept(LINES.slice(40), 'SIGKILL')
  const [oldest = ''] = segments()
  unlinkSync(oldest)
  const finished = await run(store.endpoint).done
  expect(linesOf(store)).toEqual(LINES.slice(40))
  told(finished, 40)
}, 30_000)
