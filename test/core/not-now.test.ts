/** A sink that answers "not now" for records, and stops of a flow whose spool is full. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CONFIRMED, type Log, type Outcome } from '../../src/core/contract'
import { Disconnected } from '../../src/core/errors'
import { Flow } from '../../src/core/flow/flow'
import type { FlowParts, FlowResult } from '../../src/core/flow/flow-parts'
import type { FlowState } from '../../src/core/flow/flow-state'
import { imbalance } from '../../src/core/accounting/receipt'
import { systemClock } from '../../src/kit/clock'
import { realFileSystem } from '../../src/kit/file-system'
import { openSpool, type SpoolConfig } from '../../src/spool'
import { openFlowFile } from '../../src/state/flow-file'
import { flowOf, numbers, NumberSource, quiet, ScriptedSink } from './support'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-not-now-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

/** Takes the records that `takes` names, and of the others says that they are to come again. */
function reluctant(
  takes: (value: string) => boolean,
  limits: ConstructorParameters<typeof ScriptedSink>[1] = {},
): ScriptedSink {
  return new ScriptedSink(
    (_, values): Outcome => ({
      retry: values.flatMap((value, index) => (takes(value) ? [] : [{ index, why: 'the queue is full', afterMs: 20 }])),
      rejected: [],
    }),
    limits,
  )
}
const below =
  (most: number) =>
  (value: string): boolean =>
    Number(value) <= most
async function until(what: () => boolean): Promise<void> {
  while (!what())
    await new Promise((resolve) => {
      setTimeout(resolve, 5)
    })
}
function balanced({ receipt }: FlowResult): FlowResult['receipt']['sinks'][number] {
  for (const sink of receipt.sinks) expect({ sink: sink.id, off: imbalance(sink) }).toEqual({ sink: sink.id, off: 0 })
  return receipt.sinks[0] as FlowResult['receipt']['sinks'][number]
}
const supervision = { giveUpAfter: 'never', knownGood: false, longestWait: 50 } as const

/** Made again in the same folder, it goes on. */
async function spooled(
  source: NumberSource,
  sink: ScriptedSink,
  more: Partial<FlowParts> = {},
  spool: Partial<SpoolConfig> = {},
  position: 'here' | 'none' = 'here',
): Promise<Flow> {
  const file = await openFlowFile<FlowState>(realFileSystem, join(folder, 'flow'), quiet)
  const { stored } = file
  const opened = await openSpool({
    fs: realFileSystem,
    directory: join(folder, 'spool'),
    clock: systemClock,
    log: quiet,
    ...(stored?.spoolId === undefined ? {} : { id: stored.spoolId }),
    known: {
      sequence: stored?.sequence ?? 0,
      clean: stored?.clean ?? false,
      acceptedThrough: stored?.acceptedThrough ?? 0,
      tail: stored?.sinks['sink']?.cursor ?? 0,
    },
    policies: [],
    segmentBytes: 65_536,
    reserve: 0,
    ...spool,
  })
  return new Flow({
    name: 'test',
    runId: 'run',
    sources: [{ id: 'source', label: 'source', source, position, commitOnceSpooled: false, live: false, supervision }],
    sinks: [{ id: 'sink', label: 'sink', sink, supervision }],
    spool: opened.spool,
    spoolId: opened.id,
    nextSequence: opened.nextSequence,
    file,
    ...(stored === undefined ? {} : { stored }),
    deadLetters: { policy: 'stop', put: () => Promise.resolve() },
    until: {},
    bounded: false,
    memory: 1 << 20,
    lingerMs: 0,
    stallMs: 0,
    graceMs: 20_000,
    clock: systemClock,
    log: quiet,
    ...more,
  })
}

describe('not now', () => {
  test.each([true, false])(
    'again and again is a failure: told at 1, 2, 4, … times, and given up (ordered: %p)',
    async (ordered) => {
      const said: string[] = []
      const log: Log = {
        ...quiet,
        warn: (text) => {
          said.push(text)
        },
      }
      const sink = reluctant(below(10), { ordered, maxEntries: 100 })
      const { ending } = await flowOf(new NumberSource(100, 100), sink, {
        log,
        sinks: [{ id: 'sink', label: 'sink', sink, supervision: { ...supervision, giveUpAfter: 700 } }],
      }).run()
      expect(ending).toMatchObject({
        kind: 'sink failed',
        why: expect.stringMatching(
          /^sink: the queue is full \(failing for 1 s, \d+ tries; --give-up-after says how long\)$/,
        ) as string,
      })
      expect(said.slice(0, 4)).toEqual([
        'sink: the queue is full; trying again',
        ...[2, 4, 8].map((n) => `sink: the queue is full (${n} times); trying again`),
      ])
    },
  )

  test('is no failure while others of its records are taken, and the end of it is told', async () => {
    const said: string[] = []
    let most = 0
    const sink = reluctant((value) => Number(value) <= most, { ordered: false, inFlight: 4, maxEntries: 10 })
    const grow = setInterval(() => {
      most += 5
    }, 100)
    const { ending, receipt } = await flowOf(new NumberSource(100, 10), sink, {
      log: {
        ...quiet,
        info: (text) => {
          said.push(text)
        },
      },
      sinks: [{ id: 'sink', label: 'sink', sink, supervision: { ...supervision, giveUpAfter: 1000 } }],
    }).run()
    clearInterval(grow)
    expect(ending.kind).toBe('complete')
    expect(receipt.sinks[0]).toMatchObject({ delivered: 100, possibleDuplicates: 0 })
    expect(said).toContainEqual(expect.stringMatching(/^sink: well again after \d+ faults?$/))
  })

  test('fetches no more into memory than the sink could take at once', async () => {
    const sink = reluctant(() => false, { ordered: false, maxEntries: 10, maxBytes: 100, inFlight: 2 })
    const flow = await spooled(new NumberSource(3000, 10), sink)
    const running = flow.run()
    await until(() => sink.writes.length > 40)
    flow.stop()
    balanced(await running)
    expect(new Set(sink.writes.flatMap(({ values }) => values)).size).toBeLessThan(400)
  })

  test('without a spool, what was confirmed of a write is delivered, the rest returned, and the former may come twice', async () => {
    const sink = reluctant((value) => Number(value) <= 10 || value === '50', { maxEntries: 100 })
    const flow = flowOf(new NumberSource(100, 100), sink, { graceMs: 300, bounded: false })
    const running = flow.run()
    await until(() => sink.writes.length > 3)
    flow.stop()
    expect(balanced(await running)).toMatchObject({ delivered: 11, returned: 89, abandoned: 0, possibleDuplicates: 11 })
  })

  test('behind a spool a stop does not wait for it, and what was confirmed at the beginning of a write does not come again', async () => {
    const first = reluctant((value) => Number(value) <= 10 || value === '50', { maxEntries: 100 })
    const flow = await spooled(new NumberSource(100, 100), first)
    const running = flow.run()
    await until(() => first.writes.length > 3)
    const from = Date.now()
    flow.stop()
    const result = await running
    expect(Date.now() - from).toBeLessThan(5000)
    expect(result.ending).toEqual({ kind: 'stopped', safe: true })
    expect(balanced(result)).toMatchObject({ delivered: 10, spooled: 90, possibleDuplicates: 0 })

    const second = new ScriptedSink()
    const again = await (await spooled(new NumberSource(100, 100), second)).run()
    expect(second.confirmed).toEqual(numbers(100).slice(10))
    expect(balanced(again)).toMatchObject({ carriedIn: 90, read: 0, delivered: 90, possibleDuplicates: 1 })
  })
})

describe('a flow whose spool is full is stopped', () => {
  const away = (): ScriptedSink =>
    new ScriptedSink(() => {
      throw new Disconnected('away')
    })
  const slow = (): ScriptedSink =>
    new ScriptedSink(
      (_, __, ___, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            reject(new Error('cut'))
          })
        }),
    )
  async function stopped(
    sink: ScriptedSink,
    graceMs: number,
    position: 'here' | 'none',
    spool: Partial<SpoolConfig> = { maxBytes: 64 * 1024 },
  ): Promise<{ result: FlowResult; ms: number }> {
    const flow = await spooled(new NumberSource(1_000_000, 100), sink, { graceMs }, spool, position)
    const running = flow.run()
    await until(() => flow.status().spool?.full === true)
    const from = Date.now()
    flow.stop()
    const result = await running
    return { result, ms: Date.now() - from }
  }

  test('at once where its source sends again what was not accepted, and the next start has every record once', async () => {
    const { result, ms } = await stopped(away(), 20_000, 'here')
    expect(ms).toBeLessThan(5000)
    expect(result.ending).toEqual({ kind: 'stopped', safe: true })
    const { read, spooled: kept, returned } = balanced(result)
    expect({ sum: kept + returned, returns: returned > 0 }).toEqual({ sum: read, returns: true })
    const second = new ScriptedSink()
    balanced(await (await spooled(new NumberSource(read, 100), second)).run())
    expect(second.confirmed).toEqual(numbers(read))
  })

  test.each([
    ['a sink that does not answer', slow, 'here'],
    ['a source that cannot repeat', away, 'none'],
  ] as const)('within the grace with %s', async (_, sink, position) => {
    const { result, ms } = await stopped(sink(), 500, position)
    expect(ms).toBeLessThan(3000)
    const { abandoned } = balanced(result)
    expect({ ending: result.ending, loses: abandoned > 0 }).toEqual({
      ending: { kind: 'stopped', safe: position === 'here' },
      loses: position === 'none',
    })
  })

  test('also where the disk has no room from the beginning', async () => {
    const { result } = await stopped(new ScriptedSink(() => CONFIRMED), 500, 'here', {
      reserve: Number.MAX_SAFE_INTEGER,
    })
    expect(balanced(result)).toMatchObject({ delivered: 0, spooled: 0 })
  })
})
