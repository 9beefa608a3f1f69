/**
 * Each call on the local disk that holds state and spool fails, or is the last one: whole processes, up to exit code,
 * stderr and receipts.
 */
import { mkdtempSync, readFileSync, rmSync, mkdirSync, existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { start, type Finished } from '../support/manifold'

const SHIM = join(__dirname, '../support/faulty-fs.cjs')
const RECORDS = 200
/** Every so many-th call is tried; MANIFOLD_LONG tries each. */
const STRIDE = process.env['MANIFOLD_LONG'] === '1' ? 1 : 24
let root: string
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'manifold-local-disk-'))
})
afterAll(() => {
  rmSync(root, { recursive: true, force: true })
})

/** A flow in a folder of its own, whose state and spool lie on a disk apart. */
class Case {
  readonly folder: string
  constructor(name: string) {
    this.folder = join(root, name.replace(/\W+/g, '-'))
    mkdirSync(join(this.folder, 'disk'), { recursive: true })
  }
  run(fault?: object): Promise<Finished> {
    const env =
      fault === undefined
        ? {}
        : {
            NODE_OPTIONS: `--require ${SHIM}`,
            MANIFOLD_TEST_FAULT: JSON.stringify({ below: join(this.folder, 'disk'), ...fault }),
          }
    return start(
      [
        '--from',
        'generate:',
        `count=${RECORDS}`,
        '--spool',
        join(this.folder, 'disk/spool'),
        '--to',
        `file:${join(this.folder, 'out')}`,
        '--name',
        'disk',
        '--state',
        join(this.folder, 'disk/state'),
        '--receipt',
        join(this.folder, 'receipts'),
        '--grace',
        '5s',
      ],
      { env },
    ).done
  }
  lines(): readonly string[] {
    return this.read('out')
  }
  receipts(): readonly Receipt[] {
    return this.read('receipts').map((line) => JSON.parse(line) as Receipt)
  }
  /** Nothing is missing, what is there twice is counted, each run has one receipt and its sums hold. */
  faults(): readonly string[] {
    const lines = this.lines()
    const receipts = this.receipts()
    const twice = lines.length - new Set(lines).size
    const counted = receipts
      .flatMap(({ sinks }) => sinks)
      .reduce((sum, { possibleDuplicates }) => sum + possibleDuplicates, 0)
    return [
      ...(new Set(lines).size === RECORDS ? [] : [`${new Set(lines).size} records of ${RECORDS}`]),
      ...(twice <= counted ? [] : [`${twice} twice, ${counted} counted`]),
      ...(receipts.length === new Set(receipts.map(({ run }) => run)).size ? [] : ['a run with two receipts']),
      ...receipts.flatMap(({ run, sinks }) =>
        sinks.filter((sink) => imbalance(sink) !== 0).map((sink) => `receipt of ${run} is off by ${imbalance(sink)}`),
      ),
    ]
  }
  private read(name: string): readonly string[] {
    const path = join(this.folder, name)
    return existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(0, -1) : []
  }
}

async function calls(): Promise<number> {
  const counted = new Case('count')
  await counted.run({ count: join(counted.folder, 'calls') })
  return Math.max(...readFileSync(join(counted.folder, 'calls'), 'utf8').trim().split('\n').map(Number))
}

test.each([
  ['EIO', false],
  ['EROFS', true],
  ['kill', false],
] as const)(
  '%s at a call (onwards: %s): 74 and a line where it counts, never a bug; then the same line delivers the rest',
  async (code, onwards) => {
    const all = await calls()
    const wrong: string[] = []
    const tried = Array.from(
      { length: Math.ceil(all / STRIDE) },
      (_, index) => 1 + index * STRIDE + ({ EIO: 0, EROFS: 4, kill: 8 }[code] % STRIDE),
    )
    const one = async (at: number): Promise<void> => {
      const each = new Case(`${code}-${at}`)
      const { code: exit, signal, stderr } = await each.run({ at, code, onwards })
      const how = `${code} at call ${at}: `
      if (code === 'kill' ? signal !== 'SIGKILL' && exit !== 0 : ![0, 74].includes(exit ?? -1))
        wrong.push(`${how}exit ${exit ?? signal ?? ''}: ${stderr}`)
      if (/bug|\n {4}at /.test(stderr) || (exit === 74 && !/injected|read-only|disk|receipt/.test(stderr)))
        wrong.push(`${how}${stderr}`)
      const again = await each.run()
      if (again.code !== 0) wrong.push(`${how}then ${again.code ?? ''}: ${again.stderr}`)
      wrong.push(...each.faults().map((fault) => how + fault))
    }
    // A few at a time: what takes time is the start of a process.
    const queue = [...tried]
    await Promise.all(
      Array.from({ length: 3 }, async () => {
        for (let at = queue.shift(); at !== undefined; at = queue.shift()) await one(at)
      }),
    )
    expect(wrong).toEqual([])
  },
  600_000,
)
