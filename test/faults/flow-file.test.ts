/** A flow file that is damaged, and runs that were killed: the line goes on, and what may be there twice is counted. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FlowState } from '../../src/core/flow/flow-state'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { realFileSystem } from '../../src/kit/file-system'
import { readFlowFile } from '../../src/state/flow-file'
import { start, type Running } from '../support/manifold'
import { linesOf, startObjectStore, type ObjectStore } from '../support/object-store'

let folder: string
let store: ObjectStore
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-flow-file-'))
  store = await startObjectStore()
})
afterEach(async () => {
  await store.stop()
  rmSync(folder, { recursive: true, force: true })
})

const flow = (): string => join(folder, 'state/damaged/0/flow')
const common = (): readonly string[] => [
  '--name',
  'damaged',
  '--state',
  join(folder, 'state'),
  '--receipt',
  join(folder, 'receipts'),
]
const toStore = (input: 'open' | string): Running =>
  start(
    [
      '--from',
      '-',
      '--to',
      's3://lake/a',
      'region=us-east-1',
      `endpoint=${store.endpoint}`,
      'path-style',
      'access-key-id={env:KEY}',
      'secret-access-key={env:SECRET}',
      ...common(),
    ],
    { env: { KEY: 'a', SECRET: 'b' }, input },
  )
const receipts = (): readonly Receipt[] =>
  readFileSync(join(folder, 'receipts'), 'utf8')
    .trim()
    .split('\n')
    .map((text) => JSON.parse(text) as Receipt)
const read = async (): Promise<number> =>
  (await readFlowFile<FlowState>(realFileSystem, flow()).catch(() => undefined))?.run?.read ?? 0
async function until(what: () => Promise<boolean>): Promise<void> {
  while (!(await what()))
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
}

/** 100 records are accepted while the store is away. */
async function killed(): Promise<readonly string[]> {
  const lines = Array.from({ length: 100 }, (_, index) => `record ${index}`)
  store.away = true
  const running = toStore('open')
  running.child.stdin?.write(`${lines.join('\n')}\n`)
  await until(async () => (await read()) === 100)
  running.kill('SIGKILL')
  await running.done
  store.away = false
  return lines
}

test.each([
  [
    'cut in the middle',
    () => {
      truncateSync(flow(), 40_000)
    },
  ],
  [
    'longer than it was',
    () => {
      truncateSync(flow(), 200_000)
    },
  ],
])(
  'a flow file %s: the copy that is whole is used',
  async (_, damage) => {
    const lines = await killed()
    damage()
    const { code, stderr } = await toStore('').done
    expect({ code, lines: linesOf(store) }).toEqual({ code: 0, lines })
    expect(stderr).not.toMatch(/bug/)
    expect((await toStore('').done).code).toBe(0)
  },
  20_000,
)

test('a flow file without a whole copy: all that the spool holds is delivered, with a warning, and the next run is as any other', async () => {
  const lines = await killed()
  writeFileSync(flow(), Buffer.alloc(65_536, 0x58))
  const { code, stderr } = await toStore('').done
  expect({ code, lines: linesOf(store) }).toEqual({ code: 0, lines })
  expect(stderr).toMatch(/flow file .* is damaged: .*delivered again/)
  expect(await toStore('').done).toMatchObject({ code: 0, stderr: '' })
  expect(linesOf(store)).toEqual(lines)
}, 20_000)

test('a run behind a spool that was killed: what comes twice is counted', async () => {
  const out = join(folder, 'out')
  const args = [
    '--from',
    'generate:',
    'count=60000',
    'rate=30000',
    '--spool',
    join(folder, 'spool'),
    '--to',
    `file:${out}`,
    ...common(),
  ]
  const first = start(args)
  await until(() => Promise.resolve(first.child.exitCode !== null || written(out) > 6000))
  first.kill('SIGKILL')
  await first.done
  expect((await start(args).done).code).toBe(0)
  const all = readFileSync(out, 'utf8').trim().split('\n')
  const twice = all.length - new Set(all).size
  const counted = receipts()
    .flatMap(({ sinks }) => sinks)
    .reduce((sum, { possibleDuplicates }) => sum + possibleDuplicates, 0)
  expect(new Set(all).size).toBe(60_000)
  expect(twice).toBeGreaterThan(0)
  expect({ twice, counted, off: receipts().flatMap(({ sinks }) => sinks.map(imbalance)) }).toMatchObject({
    off: [0, 0],
  })
  expect(counted).toBeGreaterThanOrEqual(twice)
}, 30_000)

function written(path: string): number {
  try {
    return readFileSync(path, 'latin1').split('\n').length
  } catch {
    return 0
  }
}
