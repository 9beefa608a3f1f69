/**
 * Reads records that were accepted and that the disk has lost again, from sources that still have them, and puts them
 * into the spool as if they had just been read. Records that cannot be read again are a gap.
 *
 * Invariants:
 * - A loss is in the flow file from before the first record of it is read again until all of that is durable: a kill in
 *   between loses and repeats nothing.
 * - The spool itself says how far it has come, under the part's own key, together with the records.
 * - Until it is over, records of the loss that a sink is owed count as spooled.
 */
import { unlessAborted } from '../../kit/signal'
import { warnLasting } from '../flow/lasting-warning'
import { EMPTY, only } from '../batch'
import type { Clock, Delivery, Log, Position } from '../contract'
import { lineOf } from '../errors'
import type { RereadState, RereadPart } from '../flow/flow-state'
import type { SourcePart } from '../flow/flow-parts'
import type { RunControl } from '../flow/run-control'
import type { Gaps } from '../accounting/gaps'
import { rereadPlan } from './reread-plan'
import { transformDelivery, type TransformParts, type TransformedDelivery } from '../delivery/transform-delivery'
import type { Ledger } from '../accounting/ledger'
import { splitDelivery } from '../delivery/split-delivery'
import type { DeliveredPositions } from '../accounting/delivered-positions'
import { owed, type DeadLetters, type LostRecords, type Sequence, type Spool } from '../flow/ports'
import type { SpoolBackpressure } from '../delivery/spool-backpressure'

type Framing = Partial<Pick<TransformParts, 'transform' | 'toLines' | 'refuseInner'>>
const ATTEMPTS = 5
const PAUSE_MS = 500
/** A record that was a dead letter when it was read first is one already. */
const SETTLED: DeadLetters = { policy: 'drop', put: () => Promise.resolve() }

export interface RestorerParts extends Framing {
  readonly spool: Spool
  readonly sources: readonly SourcePart[]
  readonly stored: RereadState | undefined
  readonly ledger: Ledger
  readonly gaps: Gaps
  readonly backpressure: SpoolBackpressure
  /** So many bytes are taken in at once. */
  readonly pieceBytes: number
  readonly clock: Clock
  readonly log: Log
  /** How far each sink has got, and which positions it has delivered. */
  sinkCursors(): readonly {
    readonly sink: string
    readonly cursor: Sequence
    readonly delivered: Pick<DeliveredPositions, 'places' | 'ahead'>
  }[]
  /** Returns the newest positions of a source as they were stored when the run began. */
  newest(source: string): ReadonlyMap<string, Position>
  /** Returns the sequence below which all records are known to be accepted. */
  through(): Sequence
  /** Returns a sequence that no record has. */
  next(): Sequence
  accepted(next: Sequence): void
  /** Returns how many records that a sink is given again it may have had. */
  doubtful(sink: string, count: number): number
  doubled(sink: string, count: number): void
  readonly control: RunControl
}

export class Restorer {
  private parts: RereadPart[]
  private records: number
  private readonly counts: Record<string, number>
  private whys: string[]
  private seen: Sequence[]
  private found: LostRecords[] = []
  private planning: Promise<void> | undefined
  private reading: Promise<void> | undefined
  private restored = 0
  private readonly failures = new Set<string>()
  private numbers = 0
  private begun = false
  private readonly halt = new AbortController()

  constructor(private readonly context: RestorerParts) {
    const { stored } = context
    this.parts = [...(stored?.parts ?? [])]
    this.records = stored?.records ?? 0
    this.counts = { ...stored?.owed }
    this.whys = [...(stored?.whys ?? [])]
    this.seen = [...(stored?.seen ?? [])]
    context.ledger.carriedAgain(this.counts)
  }

  of(sink: string): number {
    return this.counts[sink] ?? 0
  }
  /** True while the spool is looked through, so that nothing may be removed from it. */
  get looking(): boolean {
    return this.planning !== undefined
  }

  state(): RereadState | undefined {
    const low = Math.min(...this.context.sinkCursors().map(({ cursor }) => cursor))
    this.seen = this.seen.filter((sequence) => sequence >= low)
    if (this.records === 0 && this.parts.length === 0 && this.seen.length === 0) return undefined
    return { parts: this.parts, records: this.records, owed: { ...this.counts }, whys: this.whys, seen: this.seen }
  }

  /**
   * @param carried an earlier run accepted the records and this one never counted them, so they count as carried in
   */
  lost(losses: readonly LostRecords[], carried: boolean): void {
    const { gaps, ledger, sources } = this.context
    if (losses.length === 0) return
    if (!sources.some(isReadable)) {
      const lost = gaps.damaged(losses)
      if (carried) ledger.carriedAgain(lost)
      return
    }
    for (const loss of losses) {
      const { why, records = 0, sequence } = loss
      const owing = Object.fromEntries(
        this.context.sinkCursors().map(({ sink, cursor }) => [sink, owed(loss, sink, cursor)]),
      )
      if (carried) ledger.carriedAgain(owing)
      for (const [sink, count] of Object.entries(owing)) this.counts[sink] = this.of(sink) + count
      this.records += records
      if (!this.whys.includes(why)) this.whys.push(why)
      if (sequence > 0) this.seen.push(sequence)
    }
    this.found.push(...losses)
  }

  /** Finds and stores what is to be read again. Call it before anything moves. */
  async begin(): Promise<void> {
    this.begun = true
    await this.plan()
    await this.context.control.flush()
  }

  /** Reads again. Call it before the sources of this run are opened, because they go on behind these records. */
  async resume(): Promise<void> {
    if (this.halt.signal.aborted) return
    await this.advance()
    this.read()
  }

  /** Records that are not back yet are left to the next run. */
  stop(): void {
    this.halt.abort(new Error('stopping'))
  }

  /** Takes damage that was found under way. */
  met(losses: readonly LostRecords[]): void {
    this.lost(losses, false)
    if (!this.begun || this.found.length === 0 || this.planning !== undefined) return
    this.context.control.track(
      (async () => {
        await this.plan()
        await this.context.control.flush()
        this.read()
      })(),
    )
  }

  private async plan(): Promise<void> {
    if (this.found.length === 0) return
    const { spool, sinkCursors, sources, newest, through, next } = this.context
    const before = new Set(this.seen)
    for (const { sequence } of this.found) before.delete(sequence)
    const planning = (async () => {
      const lowest = sinkCursors().toSorted((a, b) => a.cursor - b.cursor)[0]
      const readable = sources.filter(isReadable)
      const { parts, seen } = await rereadPlan({
        spool,
        low: lowest?.cursor ?? spool.tail,
        sinkPositions: lowest?.delivered.places,
        ahead: lowest?.delivered.ahead,
        through: through(),
        seen: before,
        number: next() + this.numbers,
        newest: new Map(readable.map(({ id }) => [id, newest(id)])),
      })
      this.numbers += parts.length
      this.parts.push(...parts)
      this.seen = [...new Set([...this.seen, ...seen])]
    })()
    this.planning = planning
    try {
      await planning
    } finally {
      this.planning = undefined
      this.found = []
    }
  }

  /** If the spool has lost the end of a partition, its source goes on behind the lost records. */
  private async advance(): Promise<void> {
    const { spool } = this.context
    for (const { source, partition, from, to, keep } of this.parts) {
      const position = spool.position(source, partition)
      if (keep === 0 && (position === undefined || position === from))
        await unlessAborted(
          spool.append({
            source,
            partition: { name: partition, epoch: 0 },
            batch: EMPTY,
            last: to,
            at: () => to,
            receivedAt: this.context.clock.now(),
          }),
          this.halt.signal,
        )
    }
  }

  private read(): void {
    const { sources, clock, log, control } = this.context
    const { signal } = this.halt
    if (sources.length === 0 && this.records > 0)
      log.warn(
        `${this.records} records that the disk had lost are read again from their source when this flow's line is run`,
      )
    if (sources.length === 0 || (this.parts.length === 0 && this.records === 0)) return
    const before = this.reading
    this.reading = (async () => {
      await before
      for (const part of this.parts.toSorted((a, b) => (a.keep === 0 ? 1 : 0) - (b.keep === 0 ? 1 : 0))) {
        for (let attempt = 1; (await this.readPart(part, attempt === ATTEMPTS)) === 'again'; attempt++)
          await clock.sleep(PAUSE_MS * attempt, signal).catch(() => undefined)
        if (signal.aborted) return
        this.parts = this.parts.filter((other) => other !== part)
        control.touch()
      }
      this.tell()
    })()
    control.track(this.reading)
  }

  private async readPart(
    { key, source: id, partition, from: begin, skip = 0, to, keep }: RereadPart,
    last: boolean,
  ): Promise<'again' | undefined> {
    const { sources, spool, log } = this.context
    const { signal } = this.halt
    const part = sources.find((one) => one.id === id)
    const again = part?.source.again?.bind(part.source)
    if (part === undefined || again === undefined) return undefined
    const come = spool.position(key, partition)
    const from = come ?? begin
    let passed = come === undefined ? skip : 0
    const waiting: TransformedDelivery[] = []
    const appends: Promise<void>[] = []
    let records = 0
    const pass = (taken: TransformedDelivery, count: number): void => {
      records -= taken.batch.count
      if (count > 0) appends.push(this.append(key, partition, taken, count, part.label))
    }
    let passing = false
    try {
      for await (const delivery of again(partition, from, to, signal)) {
        await this.context.backpressure.wait(signal)
        for (const piece of splitDelivery(delivery, this.context.pieceBytes)) {
          const all = await this.takeIn(piece, part.label)
          const taken = without(all, passed)
          passed -= all.batch.count - taken.batch.count
          waiting.push(taken)
          records += taken.batch.count
        }
        while (waiting[0] !== undefined && records - waiting[0].batch.count >= keep) {
          pass(waiting[0], waiting[0].batch.count)
          waiting.shift()
        }
        if (signal.aborted) break
      }
    } catch (error) {
      // A fault such as a missing descriptor passes. Records that are missing do not come back.
      const { code } = error as NodeJS.ErrnoException
      passing = !last && !signal.aborted && code !== undefined && code !== 'ENOENT'
      if (!signal.aborted && !passing) {
        log.debug(`${part.label}: ${partition}: reading again: ${lineOf(error)}`)
        this.failures.add(lineOf(error))
      }
    }
    for (const taken of waiting)
      pass(taken, signal.aborted ? 0 : Math.min(taken.batch.count, Math.max(0, records - keep)))
    await Promise.all(appends)
    return passing ? 'again' : undefined
  }

  private takeIn(piece: Delivery, label: string): Promise<TransformedDelivery> {
    const { transform, toLines, refuseInner, clock } = this.context
    return transformDelivery(
      piece,
      clock.now(),
      { label, transform, toLines, refuseInner, deadLetters: SETTLED },
      this.halt.signal,
    )
  }

  private async append(
    key: string,
    partition: string,
    taken: TransformedDelivery,
    count: number,
    label: string,
  ): Promise<void> {
    const { spool, backpressure, clock } = this.context
    const batch =
      count === taken.batch.count
        ? taken.batch
        : only(
            taken.batch,
            Array.from({ length: count }, (_, index) => index),
          )
    backpressure.enter(batch.retained)
    try {
      const { next } = await spool.append({
        source: key,
        partition: { name: partition, epoch: 0 },
        batch,
        last: taken.at(count - 1),
        at: (index) => taken.at(index),
        receivedAt: clock.now(),
      })
      this.count(count)
      this.labels.add(label)
      this.context.accepted(next)
      this.context.control.touch()
    } finally {
      backpressure.leave(batch.retained)
    }
  }
  private readonly labels = new Set<string>()

  /** Counts records that are back. Those that nobody knew to be lost were never counted as read. */
  private count(count: number): void {
    const { ledger, doubtful, doubled } = this.context
    const known = Math.min(count, this.records)
    this.records -= known
    this.restored += count
    for (const { sink } of this.context.sinkCursors()) {
      const owing = Math.min(known, this.of(sink))
      this.counts[sink] = this.of(sink) - owing
      ledger.carriedAgain({ [sink]: known - owing })
      doubled(sink, known - owing + doubtful(sink, owing))
    }
    ledger.read += count - known
    ledger.accepted += count - known
  }

  /** Tells the outcome, once all that could be read again is in the spool. */
  private tell(): void {
    const { log, gaps, control } = this.context
    if (this.restored > 0)
      warnLasting(
        log,
        `${this.restored} records that the disk had lost were read again from ${[...this.labels].join(', ')}`,
      )
    this.restored = 0
    if (this.records > 0) {
      const why = [...this.whys, ...this.failures].join('; ')
      gaps.damaged([
        {
          source: '',
          partition: '',
          from: '',
          to: '',
          sequence: 0,
          records: this.records,
          owed: { ...this.counts },
          why: `${why}; they could not be read again`,
        },
      ])
      for (const sink of Object.keys(this.counts)) this.counts[sink] = 0
      this.records = 0
    }
    this.whys = []
    this.failures.clear()
    control.touch()
  }
}

/** Returns the delivery without its first records. */
function without(taken: TransformedDelivery, count: number): TransformedDelivery {
  const { batch } = taken
  const from = Math.min(count, batch.count)
  if (from === 0) return taken
  return {
    ...taken,
    batch: only(
      batch,
      Array.from({ length: batch.count - from }, (_, index) => index + from),
    ),
    at: (index) => taken.at(index + from),
  }
}

function isReadable({ position, source }: SourcePart): boolean {
  return position === 'here' && source.again !== undefined
}
