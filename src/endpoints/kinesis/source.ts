/**
 * A stream as a source. Each shard is a partition of the flow: `shardId-000000000003`.
 *
 * - Without leases every shard is read here and the position lives with us (alone.ts); with them, shards begin and end
 *   as the leases say.
 * - A child begins when its parents' ends were handed on, from its oldest. That a shard has ended is its last position,
 *   so that it is not read again.
 * - `start` is resolved once, for the shards that exist then, and noted by empty deliveries before their records.
 * - What asks a shard's reader for patience, or ends a subscription, is that reader's own matter (poller.ts,
 *   subscriber.ts). Anything else that fails ends it all, for the core to open again.
 * - Leases, and the consumer that this process registered, outlive a close that another opening may follow; with the
 *   last close they are given back.
 * - Of `--until end` the end is the time of the first opening: a shard is done once nothing in it is older, by the
 *   distance from its tip that the service tells.
 */
import { EMPTY, within } from '../../core/batch'
import type { Delivery, Partition, Position, Source, SourceContext } from '../../core/contract'
import { Disconnected, Fatal } from '../../core/errors'
import { linkedAbort, unlessAborted, Notifier } from '../../kit/signal'
import type { CreateSource, OptionsOf, Target } from '../../options/define'
import { disaggregate } from './aggregate'
import { Alone, gapFault } from './alone'
import { UnitBatch } from './batch'
import { Budget } from './budget'
import { openStream } from './client'
import { Feeder } from './feeder'
import { Lookout } from './lookout'
import type { KinesisOptions } from './options'
import { isAtTip } from './poller'
import { covers } from './position'
import { Readers } from './readers'
import { Shards } from './shards'
import type { Sharing, SharingParts } from './sharing'
import { parseStart, type Planned, type Start } from './start'
import { Track, type Trimmed } from './track'
import type { KinesisWire, Leases, Page } from './wire'

export const create: CreateSource<KinesisOptions> = (target) => new KinesisSource(target)

/** Without leases a shard is ours for good. */
const ONLY_EPOCH = 1
/** Bytes that are read ahead and asked for, all shards together. */
const AHEAD_BYTES = 64 * 1024 * 1024

/** What lives from `open` to `close`. */
interface Reading {
  readonly ctx: SourceContext
  readonly wire: KinesisWire
  readonly signal: AbortSignal
  readonly options: OptionsOf<KinesisOptions>
  readonly shards: Shards
  readonly feeder: Feeder
  readonly lookout: Lookout
  /** Who says what is to be read: one of the two. */
  readonly alone?: Alone
  readonly sharing?: Sharing
}

class KinesisSource implements Source {
  private readonly wake = new Notifier()
  private life: ReturnType<typeof linkedAbort> | undefined
  private reading: Reading | undefined
  private wire: KinesisWire | undefined
  private failure: { readonly error: unknown } | undefined
  private start: Start | undefined
  private openedAt: number | undefined
  /**
   * `cut`: records that arrived later are left out, where it is the user's time; the two machines' clocks need not
   * agree on ours.
   */
  private until: { readonly time: number; readonly cut: boolean } | undefined
  private readonly readers = new Readers()
  private readonly told = new Set<string>()
  /** Where each shard was handed on to by this process, over openings. */
  private readonly handed = new Map<string, { readonly epoch: number; readonly position: Position }>()
  private readonly tasks = new Set<Promise<void>>()
  private leases: Leases | undefined
  private current: OptionsOf<KinesisOptions> | undefined

  constructor(private readonly target: Target<KinesisOptions>) {}

  async open(ctx: SourceContext): Promise<void> {
    this.failure = undefined
    this.openedAt ??= ctx.clock.now()
    const { signal } = (this.life = linkedAbort(ctx.signal)).controller
    const { options } = await this.target.resolve()
    const start = (this.start ??= startOf(options.start, this.openedAt))
    const wire = (this.wire = await openStream(this.target, signal))
    await this.readers.open(options, wire, ctx, signal)
    const full = this.readers.full ?? options.maxRecords
    const shards = new Shards()
    shards.list(await wire.shards(signal))
    const budget = new Budget(AHEAD_BYTES)
    const fail = (error: unknown): void => {
      this.fail(error)
    }
    const feeder = new Feeder({
      clock: ctx.clock,
      signal,
      budget,
      retentionMs: wire.stream.retentionMs,
      failed: fail,
      changed: () => {
        this.wake.notify()
      },
      reader: (track, from) =>
        this.readers.make(
          { ctx, wire, options, budget, isClosed: (shard) => shards.isClosed(shard) },
          track.shard,
          from,
        ),
      isAtTip: (page) => isAtTip(page, full),
      limit: (track, page, askedAt) => this.limit(page, askedAt, full, shards.isClosed(track.shard)),
      trimmed: (track, trimmed) => this.trimmed(reading, track, trimmed),
      seen: (track, page) => {
        shards.hint(page.children)
        ctx.gauge(`behind-ms ${track.shard}`, page.behindMs ?? 0)
      },
    })
    const begin = (planned: Planned, epoch = ONLY_EPOCH): void => {
      this.beginShard(reading, planned, epoch)
    }
    const alone =
      options.leases === undefined ? new Alone({ ctx, wire, options, shards, told: this.told, begin }) : undefined
    const sharing =
      alone === undefined
        ? await this.share({
            ctx,
            wire,
            shards,
            signal,
            start,
            begin,
            options,
            giveUp: (shard) => this.giveUp(reading, shard),
          })
        : undefined
    const looked = (): void => {
      alone?.beginReady()
      sharing?.looked()
      this.wake.notify()
    }
    const lookout = new Lookout({
      wire,
      shards,
      clock: ctx.clock,
      log: ctx.log,
      signal,
      everyMs: options.shardsEvery,
      looked,
      failed: fail,
    })
    const reading: Reading = (this.reading = {
      ctx,
      wire,
      signal,
      options,
      shards,
      feeder,
      lookout,
      ...(alone === undefined ? {} : { alone }),
      ...(sharing === undefined ? {} : { sharing }),
    })
    alone?.start(start)
    await sharing?.start()
    lookout.start()
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    const { reading } = this
    if (reading === undefined) throw new Disconnected('not connected')
    for (;;) {
      signal.throwIfAborted()
      if (this.failure !== undefined) throw this.failure.error
      const taken = reading.feeder.take()
      if (taken !== undefined) {
        const { track, units, bytes, last, ended } = taken
        this.handed.set(track.shard, { epoch: track.partition.epoch, position: last })
        if (ended) this.ended(reading, track)
        return {
          batch: units.length === 0 ? EMPTY : new UnitBatch(units, bytes),
          partition: track.partition,
          last,
          at: within(units.length, (index) => {
            const unit = units[index]
            return unit === undefined ? last : track.positionOf(unit)
          }),
        }
      }
      if (this.isFinished(reading)) return null
      await unlessAborted(this.wake.wait(), signal)
    }
  }

  async commit(partition: Partition, upTo: Position): Promise<void> {
    await this.reading?.sharing?.commit(partition, upTo)
  }

  covers(upTo: Position, position: Position): boolean {
    return covers(upTo, position)
  }

  ends(): Promise<ReadonlyMap<string, Position | null>> {
    return this.endAt({ time: this.openedAt ?? 0, cut: false })
  }
  endsAt(time: number): Promise<ReadonlyMap<string, Position | null>> {
    return this.endAt({ time, cut: true })
  }

  async close(last = true): Promise<void> {
    const { life, reading, wire } = this
    life?.controller.abort(new Disconnected('closed here'))
    await Promise.all([reading?.feeder.settled(), reading?.lookout.stop()])
    await this.leases?.stop(!last)
    await Promise.all(this.tasks)
    if (last) await this.readers.leave(wire, (signal) => openStream(this.target, signal))
    wire?.close()
    life?.dispose()
    this.life = this.reading = this.wire = undefined
  }

  private fail(error: unknown): void {
    if (this.life?.controller.signal.aborted !== false) return
    this.failure ??= { error }
    this.wake.notify()
  }

  private async share({
    options,
    ...parts
  }: Omit<SharingParts, 'run' | 'handed'> & { readonly options: OptionsOf<KinesisOptions> }): Promise<Sharing> {
    const { leasesOf, Sharing: Shared } = await import('./sharing.js')
    this.current = options
    this.leases ??= leasesOf(
      () => this.current ?? options,
      options,
      () => (this.start?.kind === 'time' ? this.start.time : undefined),
      () => this.wire?.stream.arn.split(':')[3],
    )
    return new Shared(this.leases, {
      ...parts,
      handed: (shard) => this.handed.get(shard),
      run: (work) => {
        this.run(work)
      },
    })
  }

  /** Work beside reading: where it fails, reading does. */
  private run(work: Promise<void>): void {
    const task = work
      .catch((error: unknown) => {
        this.fail(error)
      })
      .finally(() => {
        this.tasks.delete(task)
        this.wake.notify()
      })
    this.tasks.add(task)
  }

  private async giveUp({ feeder, ctx }: Reading, shard: string): Promise<void> {
    const track = feeder.of(shard)
    if (track === undefined) return
    ctx.gauge(`behind-ms ${shard}`, 0)
    await feeder.drop(track)
  }

  private beginShard({ feeder, wire, ctx }: Reading, { shard, at, seenAt, note }: Planned, epoch: number): void {
    const { createdAt, retentionMs } = wire.stream
    const before = feeder.of(shard)
    if (before !== undefined) this.run(feeder.drop(before))
    const track = new Track({
      partition: { name: shard, epoch },
      at,
      seenAt,
      createdAt,
      retentionMs,
      takeApart: disaggregate,
    })
    if (note !== undefined) track.begun(note)
    if (at.kind !== 'end') ctx.log.debug(`${shard} begins`, { at: at.kind })
    feeder.add(track)
  }

  private trimmed({ ctx, options, wire }: Reading, track: Track, { from, to }: Trimmed): 'oldest' | 'latest' {
    const why = 'records were deleted before they were read (retention)'
    const key = `${track.shard} ${from} ${wire.stream.createdAt}`
    if (!this.told.has(key)) ctx.gap({ partition: track.shard, from, to, why })
    this.told.add(key)
    if (options.onGap === 'fail') throw gapFault(`${track.shard}: ${why}`)
    return options.onGap
  }

  /** All of it was handed on: its children may begin. */
  private ended({ ctx, shards, lookout, alone, sharing }: Reading, { shard, partition }: Track): void {
    ctx.log.debug(`${shard} is read to its end`)
    ctx.gauge(`behind-ms ${shard}`, 0)
    shards.end(shard)
    if (alone?.isBounded !== true) lookout.ended(shard)
    alone?.beginReady()
    sharing?.ended(partition)
    this.readers.forget(shard)
  }

  private endAt(until: {
    readonly time: number
    readonly cut: boolean
  }): Promise<ReadonlyMap<string, Position | null>> {
    const { reading } = this
    if (reading === undefined) return Promise.reject(new Disconnected('not connected'))
    this.until = until
    // No sequence number stands for a time: the source ends by itself.
    return Promise.resolve(new Map(reading.feeder.all.map(({ shard }) => [shard, null])))
  }

  private limit(
    { records, behindMs = records.length === 0 ? 0 : Infinity }: Page,
    askedAt: number,
    full: number,
    closed: boolean,
  ): { readonly count: number; readonly last: boolean } {
    const { until } = this
    if (until === undefined) return { count: records.length, last: false }
    const later = until.cut ? records.findIndex(({ arrivedAt = 0 }) => arrivedAt > until.time) : -1
    if (later !== -1) return { count: later, last: true }
    // One that was closed by then goes on in its children.
    return { count: records.length, last: !closed && records.length < full && askedAt - behindMs >= until.time }
  }

  private isFinished({ feeder, lookout, alone, sharing }: Reading): boolean {
    if (!feeder.all.every(({ finished }) => finished)) return false
    // A child waits for ever for a parent that is not read to its end.
    return this.until !== undefined
      ? !lookout.isExpecting && sharing?.isSettled !== false
      : alone !== undefined && alone.isBounded && alone.isEmpty
  }
}

function startOf(text: string, now: number): Start {
  let start: Start
  try {
    start = parseStart(text, now)
  } catch (error) {
    throw new Fatal(`start=${text}: ${(error as Error).message}`, { cause: error })
  }
  if (start.kind === 'time' && start.time > now) throw new Fatal(`start=${text} lies in the future`)
  return start
}
