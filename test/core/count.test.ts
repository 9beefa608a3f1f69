/**
 * `--count` over several sources: what lies beyond the last record that was wanted is left where it is, and comes with
 * the next run.
 */
import { EMPTY, EntryBatch, LineBatch, within } from '../../src/core/batch'
import type { Delivery, Partition, Position, Source, SourceContext } from '../../src/core/contract'
import { systemClock } from '../../src/kit/clock'
import { Flow } from '../../src/core/flow/flow'
import type { FlowParts, FlowResult } from '../../src/core/flow/flow-parts'
import type { DeadLetter } from '../../src/core/flow/ports'
import { imbalance } from '../../src/core/accounting/receipt'
import { quiet, ScriptedSink } from './support'

/**
 * As a topic without a group is: deliveries are ready before they are asked for, and several sources are read at once.
 */
class Shelf implements Source {
  readonly commits: Position[] = []
  private at = 0
  constructor(
    readonly name: string,
    private readonly records: readonly string[],
    private readonly size: number,
    readonly positions: Map<string, Position>,
  ) {}
  open({ resume }: SourceContext): Promise<void> {
    this.at = Number(resume(this.name) ?? this.positions.get(this.name) ?? 0)
    return Promise.resolve()
  }
  read(): Promise<Delivery | null> {
    if (this.at >= this.records.length) return Promise.resolve(null)
    const first = this.at
    const taken = this.records.slice(first, first + this.size)
    this.at += taken.length
    return Promise.resolve({
      batch: new LineBatch([Buffer.from(taken.map((each) => `${each}\n`).join(''))], taken.length),
      partition: { name: this.name, epoch: 1 },
      last: String(this.at),
      at: within(taken.length, (index) => String(first + index + 1)),
    })
  }
  commit({ name }: Partition, upTo: Position): Promise<void> {
    this.commits.push(upTo)
    this.positions.set(name, upTo)
    return Promise.resolve()
  }
  close(): Promise<void> {
    return Promise.resolve()
  }
}

function run(sources: readonly Source[], sink: ScriptedSink, more: Partial<FlowParts> = {}): Promise<FlowResult> {
  const supervision = { giveUpAfter: 10_000, knownGood: false, longestWait: 250 } as const
  return new Flow({
    name: 'test',
    runId: 'run',
    sources: sources.map((source, index) => ({
      id: `s${index}`,
      label: `s${index}`,
      source,
      position: 'upstream',
      commitOnceSpooled: false,
      live: false,
      supervision,
    })),
    sinks: [{ id: 'sink', label: 'sink', sink, supervision }],
    deadLetters: { policy: 'stop', put: () => Promise.resolve() },
    until: {},
    bounded: true,
    memory: 1 << 20,
    lingerMs: 0,
    stallMs: 0,
    graceMs: 2000,
    clock: systemClock,
    log: quiet,
    ...more,
  }).run()
}

test.each([
  [2, 7, 200],
  [2, 7, 3],
  [8, 7, 200],
  [8, 0, 25],
  [8, 800, 37],
  [3, 1, 10],
])(
  '%i sources, --count %i, deliveries of %i: with the run that follows each record comes once',
  async (several, count, size) => {
    const positions = new Map<string, Position>()
    const all = Array.from({ length: several }, (_, source) =>
      Array.from({ length: 200 }, (_, index) => `${source}:${index}`),
    )
    const shelves = (): Shelf[] => all.map((records, source) => new Shelf(`p${source}`, records, size, positions))
    const sink = new ScriptedSink()
    const first = await run(shelves(), sink, { until: { count } })
    expect(sink.confirmed).toHaveLength(count)
    expect(first.receipt.sinks[0]).toMatchObject({ read: count, delivered: count })
    for (const each of first.receipt.sinks) expect(imbalance(each)).toBe(0)
    await run(shelves(), sink)
    expect(sink.confirmed.toSorted()).toEqual(all.flat().toSorted())
  },
)

/** One delivery, then nothing more comes, as of a queue. */
function once(delivery: Delivery, commits: Position[]): Source {
  let given = false
  return {
    open: () => Promise.resolve(),
    close: () => Promise.resolve(),
    commit: (_, upTo) => {
      commits.push(upTo)
      return Promise.resolve()
    },
    read: (signal) => {
      if (!given) {
        given = true
        return Promise.resolve(delivery)
      }
      return new Promise((_, reject) => {
        signal.addEventListener(
          'abort',
          () => {
            reject(signal.reason as Error)
          },
          { once: true },
        )
      })
    },
  }
}
const misfit = (position: string): NonNullable<Delivery['invalid']>[number] => ({
  why: 'too large',
  position,
  head: Buffer.from('x'),
  length: 9,
  sha256: '',
})
const mixed = (): Delivery => ({
  batch: new EntryBatch(
    ['1', '2', '3'].map((value) => ({ value: Buffer.from(value) })),
    3,
  ),
  partition: { name: 'p', epoch: 1 },
  last: '5',
  at: within(3, (index) => String(index + 1)),
  invalid: [misfit('4'), misfit('5')],
})

test.each([
  [2, ['1', '2'], [], '2'],
  [3, ['1', '2', '3'], [], '3'],
  [4, ['1', '2', '3'], ['4'], '4'],
  [5, ['1', '2', '3'], ['4', '5'], '5'],
] as const)(
  'records that cannot be passed on count as well: the first %i of five',
  async (count, values, letters, last) => {
    const sink = new ScriptedSink()
    const commits: Position[] = []
    const kept: DeadLetter[] = []
    const { receipt } = await run([once(mixed(), commits)], sink, {
      until: { count },
      deadLetters: {
        policy: 'keep',
        put: (more) => {
          kept.push(...more)
          return Promise.resolve()
        },
      },
    })
    expect(sink.confirmed).toEqual(values)
    expect(kept.map(({ position }) => position)).toEqual(letters)
    expect(commits.at(-1)).toBe(last)
    expect(receipt.sinks[0]).toMatchObject({ read: count, delivered: values.length, rejected: letters.length })
  },
)

test('where a source begins is stored although the last record that was wanted came from another', async () => {
  const [a, b]: Position[][] = [[], []]
  const { batch } = mixed()
  const delivery: Delivery = {
    batch,
    partition: { name: 'p', epoch: 1 },
    last: '3',
    at: within(3, (index) => String(index + 1)),
  }
  await run([once(delivery, a!), once({ ...delivery, batch: EMPTY, last: 'begin' }, b!)], new ScriptedSink(), {
    until: { count: 2 },
  })
  expect(a).toEqual(['2'])
  expect(b).toEqual(['begin'])
})

test('a position is asked for records that are there, and of no other', () => {
  const at = within(2, String)
  expect([at(0), at(1)]).toEqual(['0', '1'])
  for (const index of [-1, 2, 0.5, NaN]) expect(() => at(index)).toThrow(RangeError)
})
