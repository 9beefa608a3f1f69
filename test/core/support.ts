/** Scripted endpoints: a source of numbered records and a sink that fails as told. */
import { LineBatch } from '../../src/core/batch'
import type {
  Batch,
  Delivery,
  Limits,
  Outcome,
  Partition,
  Position,
  Sink,
  Source,
  SourceContext,
  Write,
} from '../../src/core/contract'
import { CONFIRMED } from '../../src/core/contract'
import { Flow } from '../../src/core/flow/flow'
import type { FlowParts, FlowResult } from '../../src/core/flow/flow-parts'
import type { DeadLetter } from '../../src/core/flow/ports'
import { systemClock } from '../../src/kit/clock'

export const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined }

/** Emits `count` records `1\n`, `2\n`, … in deliveries of `size`; position is the last number. */
export class NumberSource implements Source {
  commits: [Partition, Position][] = []
  opens = 0
  closed = 0
  private at = 0
  private ctx: SourceContext | undefined
  constructor(
    readonly count: number,
    readonly size: number,
    private readonly faults: (n: number) => Error | undefined = () => undefined,
    private readonly partition = 'p',
  ) {}
  async open(ctx: SourceContext): Promise<void> {
    this.opens++
    this.ctx = ctx
    this.at = Number(ctx.resume(this.partition) ?? 0)
  }
  async read(signal: AbortSignal): Promise<Delivery | null> {
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
    signal.throwIfAborted()
    const fault = this.faults(this.at)
    if (fault !== undefined) throw fault
    if (this.at >= this.count) return null
    const first = this.at + 1
    const last = Math.min(this.count, this.at + this.size)
    this.at = last
    const lines = Array.from({ length: last - first + 1 }, (_, i) => `${first + i}\n`).join('')
    return {
      batch: new LineBatch([Buffer.from(lines)], last - first + 1),
      partition: { name: this.partition, epoch: this.opens },
      last: String(last),
      at: (i) => String(first + i),
    }
  }
  async commit(partition: Partition, upTo: Position): Promise<void> {
    this.commits.push([partition, upTo])
  }
  async close(): Promise<void> {
    this.closed++
  }
  get context(): SourceContext | undefined {
    return this.ctx
  }
}

export class ScriptedSink implements Sink {
  readonly wants = 'lines'
  readonly limits: Limits
  readonly writes: { id: string; attempt: number; values: string[] }[] = []
  readonly confirmed: string[] = []
  opens = 0
  private serial = 0
  constructor(
    private readonly script: (
      n: number,
      values: string[],
      write: Write,
      signal: AbortSignal,
    ) => Outcome | Promise<Outcome> = () => CONFIRMED,
    limits: Partial<Limits> = {},
  ) {
    this.limits = {
      maxEntries: 1000,
      maxBytes: 1 << 20,
      maxEntryBytes: 1 << 20,
      inFlight: 1,
      ordered: true,
      unit: 'batch',
      confirms: 'each',
      ...limits,
    }
  }
  async open(): Promise<void> {
    this.opens++
  }
  async write(write: Write, signal: AbortSignal): Promise<Outcome> {
    const values = (write.payload as Batch).entries().map((entry) => entry.value?.toString() ?? '')
    this.writes.push({ id: write.id, attempt: write.attempt, values })
    const outcome = await this.script(++this.serial, values, write, signal)
    const open = new Set([...outcome.retry, ...outcome.rejected].map(({ index }) => index))
    values.forEach((value, index) => {
      if (!open.has(index)) this.confirmed.push(value)
    })
    return outcome
  }
  async close(): Promise<void> {
    /* nothing to release */
  }
}

export const numbers = (n: number): string[] => Array.from({ length: n }, (_, i) => String(i + 1))

export interface RunOptions extends Partial<Omit<FlowParts, 'sources'>> {
  readonly letters?: DeadLetter[]
  readonly position?: 'upstream' | 'here' | 'none'
}

export function flowOf(source: Source, sink: Sink, options: RunOptions = {}): Flow {
  const { letters, position, ...rest } = options
  const supervision = { giveUpAfter: 10_000, knownGood: false, longestWait: 250 } as const
  return new Flow({
    name: 'test',
    runId: 'run',
    sources: [
      {
        id: 'source',
        label: 'source',
        source,
        position: position ?? 'upstream',
        commitOnceSpooled: false,
        live: false,
        supervision,
      },
    ],
    sinks: [{ id: 'sink', label: 'sink', sink, supervision }],
    deadLetters:
      letters === undefined
        ? { policy: 'stop', put: () => Promise.resolve() }
        : {
            policy: 'keep',
            put: (more) => {
              letters.push(...more)
              return Promise.resolve()
            },
          },
    until: {},
    bounded: true,
    memory: 1 << 20,
    lingerMs: 0,
    stallMs: 0,
    graceMs: 2000,
    clock: systemClock,
    log: quiet,
    ...rest,
  })
}

export function run(source: Source, sink: Sink, options: RunOptions = {}): Promise<FlowResult> {
  return flowOf(source, sink, options).run()
}
