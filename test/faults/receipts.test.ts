/** Each run has exactly one receipt, whenever it dies and whatever becomes of the disk that receipts go to. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Receipt } from '../../src/core/accounting/receipt'
import { imbalance } from '../../src/core/accounting/receipt'
import { start, type Finished } from '../support/manifold'

const SHIM = join(__dirname, '../support/faulty-fs.cjs')
let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-receipts-'))
  mkdirSync(join(folder, 'told'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

const file = (): string => join(folder, 'told/receipts')
function run(fault?: object): Promise<Finished> {
  const env =
    fault === undefined
      ? {}
      : {
          NODE_OPTIONS: `--require ${SHIM}`,
          MANIFOLD_TEST_FAULT: JSON.stringify({ below: join(folder, 'told'), ...fault }),
        }
  return start(
    [
      '--from',
      'generate:',
      'count=300',
      '--to',
      `file:${join(folder, 'out')}`,
      '--name',
      'told',
      '--state',
      join(folder, 'state'),
      '--receipt',
      file(),
    ],
    { env },
  ).done
}
function receipts(): readonly Receipt[] {
  try {
    return readFileSync(file(), 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Receipt)
  } catch {
    return []
  }
}
/** One of each run, and together they tell of all that was delivered. */
function once(): void {
  const all = receipts()
  expect({
    twice: all.length - new Set(all.map(({ run: id }) => id)).size,
    off: all.flatMap(({ sinks }) => sinks.map(imbalance)).filter((off) => off !== 0),
    delivered: all.flatMap(({ sinks }) => sinks).reduce((sum, { delivered }) => sum + delivered, 0),
  }).toEqual({ twice: 0, off: [], delivered: 300 })
}

test.each([
  ['before', ['open', 'appendFile']],
  ['after', ['datasync']],
])(
  'killed %s its receipt is written: the next start issues it, once',
  async (_, calls) => {
    expect((await run({ calls, at: 1, code: 'kill' })).signal).toBe('SIGKILL')
    expect((await run()).code).toBe(0)
    expect(receipts()).toHaveLength(2)
    once()
  },
  20_000,
)

test('a full disk under --receipt: 74, one line, and the next start issues it', async () => {
  const { code, stderr } = await run({ calls: ['open', 'write', 'appendFile'], at: 1, code: 'ENOSPC', onwards: true })
  expect({
    code,
    lines: stderr.split('\n').filter((line) => line.includes('receipt') && line.includes(file())).length,
    bug: stderr.includes('bug'),
  }).toEqual({ code: 74, lines: 1, bug: false })
  expect(receipts()).toEqual([])
  // It is still full: two wait now, for want of a place.
  expect((await run({ calls: ['open', 'write', 'appendFile'], at: 1, code: 'ENOSPC', onwards: true })).code).toBe(74)
  expect((await run()).code).toBe(0)
  expect(receipts().map(({ outcome }) => outcome)).toEqual(['complete', 'complete', 'complete'])
  once()
}, 20_000)
