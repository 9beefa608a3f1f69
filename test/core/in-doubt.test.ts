/**
 * Records that were recovered while upstream sends them again: a source whose position lives with a peer, killed and
 * started again.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LineBatch } from '../../src/core/batch'
import {
  CONFIRMED,
  type Delivery,
  type Partition,
  type Position,
  type Source,
  type SourceContext,
} from '../../src/core/contract'
import { Disconnected } from '../../src/core/errors'
import { Flow } from '../../src/core/flow/flow'
import type { FlowResult } from '../../src/core/flow/flow-parts'
import type { FlowState } from '../../src/core/flow/flow-state'
import { imbalance } from '../../src/core/accounting/receipt'
import { systemClock } from '../../src/kit/clock'
import { realFileSystem } from '../../src/kit/file-system'
import { priorReceipt } from '../../src/plan/prior-run'
import { openSpool } from '../../src/spool'
import { openFlowFile } from '../../src/state/flow-file'
import { numbers, quiet, ScriptedSink } from './support'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-held-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

/** A broker's side: numbered records from `oldest` to `newest`, and the offset that was committed (next to read). */
class Broker {
  committed = 1
  oldest = 1
  constructor(public newest: number) {}
}

class Group implements Source {
  private at = 0
  private epoch = 0
  context: SourceContext | undefined
  constructor(
    private readonly broker: Broker,
    private readonly size = 10,
    private readonly endless = false,
    private readonly assigned = true,
  ) {}
  open(ctx: SourceContext): Promise<void> {
    this.context = ctx
    this.epoch++
    this.at = this.broker.committed
    if (this.at < this.broker.oldest) {
      ctx.gap({ partition: 'p', from: String(this.at), to: String(this.broker.oldest), why: 'retention' })
      this.at = this.broker.oldest
    }
    return Promise.resolve()
  }
  async read(signal: AbortSignal): Promise<Delivery | null> {
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
    signal.throwIfAborted()
    if (!this.assigned || this.at > this.broker.newest) {
      if (!this.endless) return null
      await new Promise((_, reject) => {
        signal.addEventListener(
          'abort',
          () => {
            reject(signal.reason as Error)
          },
          { once: true },
        )
      })
    }
    const first = this.at
    const last = Math.min(this.broker.newest, first + this.size - 1)
    this.at = last + 1
    const count = last - first + 1
    return {
      batch: new LineBatch([Buffer.from(Array.from({ length: count }, (_, i) => `${first + i}\n`).join(''))], count),
      partition: { name: 'p', epoch: this.epoch },
      last: String(last + 1),
      at: (i) => String(first + i + 1),
    }
  }
  commit(_: Partition, upTo: Position): Promise<void> {
    this.broker.committed = Math.max(this.broker.committed, Number(upTo))
    return Promise.resolve()
  }
  covers(upTo: Position, position: Position): boolean {
    return Number(upTo) >= Number(position)
  }
  close(): Promise<void> {
    return Promise.resolve()
  }
}

interface Made {
  readonly flow: Flow
  readonly prior: ReturnType<typeof priorReceipt>
  readonly stored: FlowState | undefined
  readonly file: { close(): Promise<void> }
  readonly spool: { close(): Promise<void> }
}

async function make(
  source: Source,
  sinks: Record<string, ScriptedSink>,
  position: 'upstream' | 'here' = 'upstream',
  beside: readonly Source[] = [],
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
      tail: Math.min(...cursors, ...(stored?.held ?? []).map(({ from }) => from)),
    },
    policies: [],
    segmentBytes: 4096,
    reserve: 0,
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
  const supervision = { giveUpAfter: 'never', knownGood: false, longestWait: 50 } as const
  const flow = new Flow({
    name: 'test',
    runId: 'run',
    sources: [
      { id: 'source', label: 'source', source, position, commitOnceSpooled: false, live: false, supervision },
      ...beside.map((each) => ({
        id: 'beside',
        label: 'beside',
        source: each,
        position: 'none' as const,
        commitOnceSpooled: false,
        live: false,
        supervision,
      })),
    ],
    sinks: Object.entries(sinks).map(([id, sink]) => ({ id, label: id, sink, supervision })),
    spool: opened.spool,
    spoolId: opened.id,
    nextSequence: opened.nextSequence,
    file,
    ...(stored === undefined ? {} : { stored }),
    deadLetters: { policy: 'stop', put: () => Promise.resolve() },
    until: {},
    bounded: true,
    memory: 1 << 20,
    lingerMs: 0,
    stallMs: 0,
    graceMs: 2000,
    clock: systemClock,
    log: quiet,
  })
  return { flow, prior, stored, file, spool: opened.spool }
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

/** A run that accepts everything, delivers nothing and ends: what lies in the spool is on its own. */
async function acceptOnly(broker: Broker): Promise<FlowResult> {
  const made = await make(new Group(broker, 10, true), {
    a: new ScriptedSink(() => {
      throw new Disconnected('away')
    }),
  })
  const running = made.flow.run()
  await until(() => made.flow.status().sinks[0]?.pending === broker.newest - broker.committed + 1)
  made.flow.stop()
  return running
}

test('what upstream sends again is not delivered out of the spool as well', async () => {
  const broker = new Broker(100)
  const first = await acceptOnly(broker)
  expect(first.receipt.sinks[0]).toMatchObject({ read: 100, spooled: 100 })
  broker.newest = 150
  const a = new ScriptedSink()
  const second = await (await make(new Group(broker), { a })).flow.run()
  expect(a.confirmed).toEqual(numbers(150))
  expect(second.receipt.sinks[0]).toMatchObject({
    carriedIn: 100,
    read: 150,
    delivered: 150,
    returned: 100,
    spooled: 0,
  })
  balanced(second)
  const third = await make(new Group(broker), { a })
  expect(third.stored?.held).toBeUndefined()
  balanced(await third.flow.run())
  expect(a.confirmed).toHaveLength(150)
})

test('records that upstream has dropped meanwhile come out of the spool, before what follows, and only what was never here is a gap', async () => {
  const broker = new Broker(100)
  await acceptOnly(broker)
  broker.newest = 150
  broker.oldest = 41
  const a = new ScriptedSink()
  const result = await (await make(new Group(broker), { a })).flow.run()
  expect(a.confirmed).toEqual(numbers(150))
  expect(result.receipt).toMatchObject({
    gapCount: 0,
    sinks: [{ carriedIn: 100, read: 110, delivered: 150, returned: 60, spooled: 0 }],
  })
  balanced(result)
})

test('a gap that ends within what was stored together: none of it is missing, though some of what follows comes twice', async () => {
  const broker = new Broker(100)
  await acceptOnly(broker)
  broker.newest = 120
  broker.oldest = 36
  const a = new ScriptedSink()
  const result = await (await make(new Group(broker), { a })).flow.run()
  expect([...new Set(a.confirmed)]).toEqual(numbers(120))
  expect(a.confirmed.length).toBeLessThanOrEqual(130)
  expect(result.receipt.gapCount).toBe(0)
  balanced(result)
})

test('a gap that reaches beyond what is held is reported for its rest', async () => {
  const broker = new Broker(100)
  await acceptOnly(broker)
  broker.newest = 150
  broker.oldest = 121
  const a = new ScriptedSink()
  const result = await (await make(new Group(broker), { a })).flow.run()
  expect(a.confirmed).toEqual(numbers(150).filter((n) => Number(n) <= 100 || Number(n) > 120))
  expect(result.receipt).toMatchObject({
    gapCount: 1,
    gaps: [{ partition: 'p', from: '101', to: '121' }],
    sinks: [{ carriedIn: 100, read: 30, delivered: 130, returned: 0 }],
  })
  balanced(result)
})

test('while another process has the partition they wait, over restarts, until its commits are heard of', async () => {
  const broker = new Broker(100)
  await acceptOnly(broker)
  const a = new ScriptedSink()
  for (const _ of [1, 2]) {
    const source = new Group(broker, 10, true, false)
    const made = await make(source, { a })
    const running = made.flow.run()
    await until(() => source.context !== undefined)
    expect(source.context?.held()).toEqual(['p'])
    source.context?.committed('p', '51')
    made.flow.stop()
    const result = await running
    expect(result.receipt.sinks[0]).toMatchObject({ carriedIn: 100, read: 0, delivered: 0, returned: 0, spooled: 100 })
    balanced(result)
  }
  const source = new Group(broker, 10, true, false)
  const made = await make(source, { a })
  const running = made.flow.run()
  await until(() => source.context !== undefined)
  source.context?.committed('p', '101')
  expect(source.context?.held()).toEqual([])
  made.flow.stop()
  const result = await running
  expect(result.receipt.sinks[0]).toMatchObject({ carriedIn: 100, returned: 100, spooled: 0 })
  balanced(result)
  expect(a.confirmed).toEqual([])
})

test('two sinks that stood at different places: neither misses a record that upstream has dropped', async () => {
  const broker = new Broker(100)
  const a = new ScriptedSink()
  const away = (): never => {
    throw new Disconnected('away')
  }
  const first = await make(new Group(broker, 10, true), { a, b: new ScriptedSink(away) })
  const running = first.flow.run()
  await until(() => a.confirmed.length === 100)
  first.flow.stop()
  balanced(await running)
  broker.oldest = 101
  broker.newest = 120
  const b = new ScriptedSink()
  const result = await (await make(new Group(broker), { a, b })).flow.run()
  expect(b.confirmed).toEqual(numbers(120))
  expect(new Set(a.confirmed)).toEqual(new Set(numbers(120)))
  balanced(result)
})

test('a source that is not there any more cannot send again: its records are delivered', async () => {
  const broker = new Broker(100)
  await acceptOnly(broker)
  const a = new ScriptedSink(() => CONFIRMED)
  const result = await (await make(new Group(new Broker(0)), { a }, 'here')).flow.run()
  expect(a.confirmed).toEqual(numbers(100))
  balanced(result)
})

/** Commits that never arrive, as where the process is killed before they are sent. */
class Uncommitting extends Group {
  override commit(): Promise<void> {
    return Promise.resolve()
  }
}

test('records that were delivered before their commit arrived are possible duplicates when upstream sends them again', async () => {
  const broker = new Broker(100)
  const some: string[] = []
  // The first write is confirmed; then the sink is away.
  const a = new ScriptedSink(
    (n, values) => {
      if (n > 1) throw new Disconnected('away')
      some.push(...values)
      return CONFIRMED
    },
    { maxEntries: 30 },
  )
  const made = await make(new Uncommitting(broker, 10, true), { a })
  const running = made.flow.run()
  await until(() => made.flow.status().sinks[0]?.pending === 100 - some.length && some.length > 0)
  made.flow.stop()
  const first = await running
  expect(first.receipt.sinks[0]).toMatchObject({ delivered: some.length, spooled: 100 - some.length })
  broker.newest = 155
  const again = new ScriptedSink()
  const second = await (await make(new Group(broker, 7), { a: again })).flow.run()
  expect(again.confirmed).toEqual(numbers(155))
  expect(second.receipt.sinks[0]).toMatchObject({
    read: 155,
    delivered: 155,
    returned: 100 - some.length,
    possibleDuplicates: some.length,
  })
  balanced(second)
})

test('beside a source that cannot send again, all that was recovered is delivered, and what is sent again counts as possible duplicates', async () => {
  const broker = new Broker(100)
  const away = new ScriptedSink(() => {
    throw new Disconnected('away')
  })
  const made = await make(new Group(broker, 10, true), { a: away }, 'upstream', [new Group(new Broker(30), 10, true)])
  const running = made.flow.run()
  await until(() => made.flow.status().sinks[0]?.pending === 130)
  made.flow.stop()
  await running
  const a = new ScriptedSink()
  const second = await (await make(new Group(broker, 7), { a })).flow.run()
  expect(a.confirmed).toHaveLength(230)
  const [sink] = second.receipt.sinks
  expect(sink).toMatchObject({ carriedIn: 130, read: 100, delivered: 230 })
  // Those of the write that was not answered count as well.
  const unanswered = away.writes[0]?.values.length ?? 0
  expect(sink?.possibleDuplicates).toBe(100 + unanswered)
  balanced(second)
})
