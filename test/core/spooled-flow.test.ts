import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CONFIRMED, type Delivery } from '../../src/core/contract'
import { Disconnected } from '../../src/core/errors'
import { Flow } from '../../src/core/flow/flow'
import type { FlowParts, FlowResult } from '../../src/core/flow/flow-parts'
import type { FlowState } from '../../src/core/flow/flow-state'
import { imbalance } from '../../src/core/accounting/receipt'
import { systemClock } from '../../src/kit/clock'
import { realFileSystem } from '../../src/kit/file-system'
import { priorReceipt } from '../../src/plan/prior-run'
import { openSpool, type SpoolConfig } from '../../src/spool'
import { openFlowFile, readFlowFile } from '../../src/state/flow-file'
import { numbers, NumberSource, quiet, ScriptedSink } from './support'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-flow-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

interface Made {
  readonly flow: Flow
  readonly stored: FlowState | undefined
  readonly prior: ReturnType<typeof priorReceipt>
  readonly close: () => Promise<void>
}

/** A flow as the plan makes one, in `folder`; made again it goes on. */
async function make(
  source: NumberSource,
  sinks: Record<string, ScriptedSink>,
  position: 'upstream' | 'here' | 'none' = 'here',
  more: Partial<FlowParts> = {},
  spool: Partial<SpoolConfig> = {},
): Promise<Made> {
  const file = await openFlowFile<FlowState>(realFileSystem, join(folder, 'flow'), quiet)
  const stored = file.stored
  const cursors = Object.keys(sinks).map((id) => stored?.sinks[id]?.cursor ?? 0)
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
      tail: Math.min(...cursors),
    },
    policies: [],
    segmentBytes: 4096,
    reserve: 0,
    ...spool,
  })
  const supervision = { giveUpAfter: 'never', knownGood: false, longestWait: 50 } as const
  const flow = new Flow({
    name: 'test',
    runId: 'run',
    sources: [{ id: 'source', label: 'source', source, position, commitOnceSpooled: false, live: false, supervision }],
    sinks: Object.entries(sinks).map(([id, sink]) => ({ id, label: id, sink, supervision })),
    spool: opened.spool,
    spoolId: opened.id,
    nextSequence: opened.nextSequence,
    file,
    ...(stored === undefined ? {} : { stored }),
    damage: opened.recovered.gaps.filter(({ lost }) => lost),
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
  })
  const prior =
    stored === undefined
      ? undefined
      : priorReceipt(
          'test',
          stored,
          opened.spool,
          { accepted: opened.recovered.recordsSince, gaps: opened.recovered.gaps },
          Date.now(),
        )
  return {
    flow,
    stored,
    prior,
    close: async () => {
      await opened.spool.close()
      await file.close()
    },
  }
}
/** What a kill at this moment would leave. */
function noted(): Promise<FlowState | undefined> {
  return readFlowFile<FlowState>(realFileSystem, join(folder, 'flow'))
}
function balanced({ receipt }: FlowResult): void {
  for (const sink of receipt.sinks) expect({ sink: sink.id, off: imbalance(sink) }).toEqual({ sink: sink.id, off: 0 })
}
async function until(what: () => boolean): Promise<void> {
  while (!what())
    await new Promise((resolve) => {
      setTimeout(resolve, 2)
    })
}

test('every sink gets every record through the spool, once and in order', async () => {
  const [a, b] = [new ScriptedSink(), new ScriptedSink(undefined, { maxEntries: 7 })]
  const { flow } = await make(new NumberSource(2000, 33), { a, b })
  const result = await flow.run()
  expect(result.ending.kind).toBe('complete')
  expect(a.confirmed).toEqual(numbers(2000))
  expect(b.confirmed).toEqual(numbers(2000))
  balanced(result)
})

test('a sink that is away delays only itself', async () => {
  const a = new ScriptedSink()
  let away = true
  const b = new ScriptedSink(() => {
    if (away) throw new Disconnected('away')
    return CONFIRMED
  })
  const { flow } = await make(new NumberSource(2000, 33), { a, b })
  const running = flow.run()
  await until(() => a.confirmed.length === 2000)
  expect(b.confirmed).toHaveLength(0)
  away = false
  const result = await running
  expect(b.confirmed).toEqual(numbers(2000))
  balanced(result)
})

test('upstream is released only when every sink has confirmed', async () => {
  let away = true
  const source = new NumberSource(500, 10)
  const b = new ScriptedSink(() => {
    if (away) throw new Disconnected('away')
    return CONFIRMED
  })
  const a = new ScriptedSink()
  const { flow } = await make(source, { a, b }, 'upstream')
  const running = flow.run()
  await until(() => a.confirmed.length === 500)
  await new Promise((resolve) => {
    setTimeout(resolve, 300)
  })
  expect(source.commits).toEqual([])
  away = false
  await running
  expect(source.commits.at(-1)?.[1]).toBe('500')
})

test('a stop with a sink that is away is quick, safe, and the next run delivers what is held without reading it again', async () => {
  const away = new ScriptedSink(() => {
    throw new Disconnected('away')
  })
  const first = await make(new NumberSource(300, 10), { sink: away }, 'here', { graceMs: 60_000 })
  const running = first.flow.run()
  await until(() => first.flow.status().read === 300 && away.writes.length > 1)
  const from = Date.now()
  first.flow.stop()
  const stopped = await running
  expect(stopped.ending).toEqual({ kind: 'stopped', safe: true })
  expect(Date.now() - from).toBeLessThan(20_000)
  expect(stopped.receipt.sinks[0]).toMatchObject({ read: 300, delivered: 0, spooled: 300 })
  balanced(stopped)

  const back = new ScriptedSink()
  const source = new NumberSource(400, 10)
  const second = await make(source, { sink: back })
  expect(second.prior).toBeUndefined()
  const result = await second.flow.run()
  expect(back.confirmed).toEqual(numbers(400))
  expect(result.receipt.sinks[0]).toMatchObject({ carriedIn: 300, read: 100, delivered: 400, spooled: 0 })
  balanced(result)
})

test('a run that never ended is accounted for by the next: nothing missing, what was confirmed and not yet noted comes again', async () => {
  const sink = new ScriptedSink(
    async (n) => {
      if (n > 20) await new Promise(() => undefined)
      return CONFIRMED
    },
    { maxEntries: 10 },
  )
  const first = await make(new NumberSource(1000, 10), { sink })
  // As a kill: the objects are left where they are, the files as they were.
  void first.flow.run()
  await until(() => sink.confirmed.length === 200 && first.flow.status().read === 1000)
  while ((await noted())?.run?.read !== 1000)
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
  // What that state lets go is removed right after it.
  for (let before = ''; before !== (before = readdirSync(join(folder, 'spool')).join()); )
    await new Promise((resolve) => {
      setTimeout(resolve, 100)
    })

  const again = new ScriptedSink()
  const second = await make(new NumberSource(1200, 10), { sink: again })
  expect(second.prior?.outcome).toBe('killed')
  expect(second.prior?.sinks[0]).toMatchObject({ read: 1000, delivered: 200, spooled: 800 })
  expect(imbalance(second.prior!.sinks[0]!)).toBe(0)
  const result = await second.flow.run()
  expect(again.confirmed).toEqual(numbers(1200).slice(200))
  balanced(result)
  first.flow.abort()
})

test('files of the spool below the lowest cursor are gone at the end', async () => {
  const { flow } = await make(new NumberSource(20_000, 100), { sink: new ScriptedSink() })
  await flow.run()
  const again = await make(new NumberSource(20_000, 100), { sink: new ScriptedSink() })
  expect(again.flow.status().spool!.bytes).toBeLessThan(3 * 16_384)
  await again.flow.run()
})

test.each([
  ['while running', 0],
  ['at the start', 1 << 20],
])(
  'damage found %s is in the receipt: what a sink had still to get of it is abandoned, the rest is delivered',
  async (_, verifyAtStart) => {
    const away = await make(new NumberSource(2000, 20), {
      a: new ScriptedSink(() => {
        throw new Disconnected('away')
      }),
    })
    const running = away.flow.run()
    await until(() => away.flow.status().sinks[0]?.pending === 2000)
    away.flow.stop()
    await running
    const [oldest] = readdirSync(join(folder, 'spool'))
      .filter((name) => name.endsWith('.seg'))
      .sort()
    const path = join(folder, 'spool', String(oldest))
    const bytes = readFileSync(path)
    bytes[bytes.indexOf('10\n11\n12\n')] = 0x58
    writeFileSync(path, bytes)
    const a = new ScriptedSink()
    const { flow } = await make(new NumberSource(2000, 20), { a }, 'here', {}, { verifyAtStart })
    const result = await flow.run()
    balanced(result)
    const [sink] = result.receipt.sinks
    const missing = numbers(2000).filter((each) => !a.confirmed.includes(each))
    expect(missing).toContain('10')
    expect(missing.length).toBeLessThan(200)
    expect(sink).toMatchObject({ carriedIn: 2000, delivered: 2000 - missing.length, abandoned: missing.length })
    expect(result.receipt.gaps).toMatchObject([{ records: missing.length }])
    expect(result.ending.kind).toBe('incomplete')
  },
)

test('what a source leaves out, as it was told to, is in the receipt as filtered', async () => {
  class Leaving extends NumberSource {
    override async read(signal: AbortSignal): Promise<Delivery | null> {
      const delivery = await super.read(signal)
      return delivery === null ? null : { ...delivery, at: (i) => delivery.at(i), filtered: 2 }
    }
  }
  const a = new ScriptedSink()
  const { flow } = await make(new Leaving(100, 10), { a })
  const result = await flow.run()
  expect(result.receipt).toMatchObject({ read: 120, sinks: [{ read: 120, delivered: 100, filtered: 20 }] })
  balanced(result)
})

test('what is left out does not count towards --count', async () => {
  class Leaving extends NumberSource {
    override async read(signal: AbortSignal): Promise<Delivery | null> {
      const delivery = await super.read(signal)
      return delivery === null ? null : { ...delivery, at: (i) => delivery.at(i), filtered: 2 }
    }
  }
  const a = new ScriptedSink()
  const { flow } = await make(new Leaving(100, 10), { a }, 'here', { until: { count: 50 } })
  balanced(await flow.run())
  expect(a.confirmed).toEqual(numbers(50))
})

test('damage found after a kill is abandoned, in the receipt of the run that finds it, for the sink that had not had it, and for no other', async () => {
  const [had, away] = [
    new ScriptedSink(),
    new ScriptedSink(() => {
      throw new Disconnected('away')
    }),
  ]
  const killed = await make(new NumberSource(1000, 10), { had, away })
  void killed.flow.run()
  while ((await noted())?.run?.sinks['had']?.delivered !== 1000)
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
  const path = join(folder, 'spool', readdirSync(join(folder, 'spool')).sort()[1] ?? '')
  const bytes = readFileSync(path)
  bytes.writeUInt8(bytes.readUInt8(bytes.length - 2) ^ 1, bytes.length - 2)
  writeFileSync(path, bytes)
  const again = new ScriptedSink()
  const { flow, prior } = await make(new NumberSource(1000, 10), { had: new ScriptedSink(), away: again })
  const result = await flow.run()
  balanced(result)
  killed.flow.abort()
  const lost = 1000 - again.confirmed.length
  expect(lost).toBeGreaterThan(0)
  expect(prior?.sinks.map(imbalance)).toEqual([0, 0])
  expect(prior?.sinks.map(({ abandoned, spooled }) => [abandoned, spooled])).toEqual([
    [0, 0],
    [0, 1000],
  ])
  expect(result.receipt.sinks.map(({ carriedIn, abandoned }) => [carriedIn, abandoned])).toEqual([
    [0, 0],
    [1000, lost],
  ])
  expect(result.receipt.gaps).toMatchObject([{ records: lost }])
  expect(result.ending.kind).toBe('incomplete')
})

test('a gap that was noted after the ledger was saved last is in the receipt of a killed run, once', async () => {
  class Quiet extends NumberSource {
    private reads = 0
    override read(signal: AbortSignal): ReturnType<NumberSource['read']> {
      return ++this.reads === 1
        ? super.read(signal)
        : new Promise((_, reject) => {
            signal.addEventListener('abort', () => {
              reject(signal.reason as Error)
            })
          })
    }
  }
  const source = new Quiet(10, 10)
  const killed = await make(source, {
    sink: new ScriptedSink(() => {
      throw new Disconnected('away')
    }),
  })
  void killed.flow.run()
  while ((await noted())?.run?.read !== 10)
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
  const bytes = killed.flow.status().spool?.bytes ?? 0
  const gap = { partition: 'p', from: '10', to: '20', why: 'retention' }
  source.context?.gap(gap)
  await until(() => (killed.flow.status().spool?.bytes ?? 0) > bytes)
  const { flow, prior } = await make(new NumberSource(10, 10), { sink: new ScriptedSink() })
  expect(prior).toMatchObject({ gapCount: 1, gaps: [gap] })
  await flow.run()
  killed.flow.abort()
})
