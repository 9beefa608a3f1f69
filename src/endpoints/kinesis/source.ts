/**
 * A stream as a source. Each shard is a partition of the flow: `shardId-000000000003`.
 *
 * - Without leases every shard is read here and the position lives with us (consume/standalone.ts); with them, shards
 *   begin and end as the leases say.
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
import { gapFault } from '../../options/shared'
import { StandaloneShards } from './consume/standalone'
import { RecordBatch } from './consume/record-batch'
import { MemoryBudget } from './consume/memory-budget'
import { openStream } from './client'
import { ShardFetcher } from './consume/shard-fetcher'
import { ShardDiscovery } from './consume/shard-discovery'
import type { KinesisOptions } from './options'
import { isAtTip } from './consume/poller'
import { covers } from './position'
import { ShardReaders } from './consume/readers'
import { Shards } from './consume/shards'
import type { LeasedShards, LeasedContext } from './leases/leased'
import { parseStart, type ShardStart, type Start } from './consume/start'
import { ShardState, type TrimmedRecords } from './consume/shard-state'
import type { StreamClient, Leases, Page } from './stream-client'

export const create: CreateSource<KinesisOptions> = (target) => new KinesisSource(target)

/** Without leases a shard is ours for good. */
const ONLY_EPOCH = 1
/** Bytes that are read ahead and asked for, all shards together. */
const READ_AHEAD_BYTES = 64 * 1024 * 1024

/** These live from `open` to `close`. */
interface ConsumeSession {
  readonly ctx: SourceContext
  readonly client: StreamClient
  readonly signal: AbortSignal
  readonly options: OptionsOf<KinesisOptions>
  readonly shards: Shards
  readonly fetcher: ShardFetcher
  readonly discovery: ShardDiscovery
  /** Who says what is to be read: one of the two. */
  readonly standalone?: StandaloneShards
  readonly leased?: LeasedShards
}

class KinesisSource implements Source {
  private readonly notifier = new Notifier()
  private lifetime: ReturnType<typeof linkedAbort> | undefined
  private session: ConsumeSession | undefined
  private client: StreamClient | undefined
  private failure: { readonly error: unknown } | undefined
  private start: Start | undefined
  private openedAt: number | undefined
  /**
   * `cut`: records that arrived later are left out, where it is the user's time; the two machines' clocks need not
   * agree on ours.
   */
  private until: { readonly time: number; readonly cut: boolean } | undefined
  private readonly readers = new ShardReaders()
  private readonly reportedGaps = new Set<string>()
  /** Where each shard was handed on to by this process, over openings. */
  private readonly delivered = new Map<string, { readonly epoch: number; readonly position: Position }>()
  private readonly tasks = new Set<Promise<void>>()
  private leases: Leases | undefined
  private currentOptions: OptionsOf<KinesisOptions> | undefined

  constructor(private readonly target: Target<KinesisOptions>) {}

  async open(ctx: SourceContext): Promise<void> {
    this.failure = undefined
    this.openedAt ??= ctx.clock.now()
    const { signal } = (this.lifetime = linkedAbort(ctx.signal)).controller
    const { options } = await this.target.resolve()
    const start = (this.start ??= startOf(options.start, this.openedAt))
    const client = (this.client = await openStream(this.target, signal))
    await this.readers.open(options, client, ctx, signal)
    const fullPage = this.readers.fullPage ?? options.maxRecords
    const shards = new Shards()
    shards.list(await client.shards(signal))
    const budget = new MemoryBudget(READ_AHEAD_BYTES)
    const fail = (error: unknown): void => {
      this.fail(error)
    }
    const fetcher = new ShardFetcher({
      clock: ctx.clock,
      signal,
      budget,
      retentionMs: client.stream.retentionMs,
      failed: fail,
      changed: () => {
        this.notifier.notify()
      },
      reader: (state, from) =>
        this.readers.make(
          { ctx, client, options, budget, isClosed: (shard) => shards.isClosed(shard) },
          state.shard,
          from,
        ),
      isAtTip: (page) => isAtTip(page, fullPage),
      untilLimit: (state, page, askedAt) => this.untilLimit(page, askedAt, fullPage, shards.isClosed(state.shard)),
      recordsTrimmed: (state, trimmed) => this.recordsTrimmed(session, state, trimmed),
      pageRead: (state, page) => {
        shards.hint(page.children)
        ctx.gauge(`behind-ms ${state.shard}`, page.behindMs ?? 0)
      },
    })
    const startReading = (shardStart: ShardStart, epoch = ONLY_EPOCH): void => {
      this.beginShard(session, shardStart, epoch)
    }
    const standalone =
      options.leases === undefined
        ? new StandaloneShards({ ctx, client, options, shards, reportedGaps: this.reportedGaps, startReading })
        : undefined
    const leased =
      standalone === undefined
        ? await this.openLeased({
            ctx,
            client,
            shards,
            signal,
            start,
            startReading,
            options,
            stopReading: (shard) => this.stopReading(session, shard),
          })
        : undefined
    const shardsListed = (): void => {
      standalone?.startReady()
      leased?.shardsListed()
      this.notifier.notify()
    }
    const discovery = new ShardDiscovery({
      client,
      shards,
      clock: ctx.clock,
      log: ctx.log,
      signal,
      everyMs: options.shardsEvery,
      listed: shardsListed,
      failed: fail,
    })
    const session: ConsumeSession = (this.session = {
      ctx,
      client,
      signal,
      options,
      shards,
      fetcher,
      discovery,
      ...(standalone === undefined ? {} : { standalone }),
      ...(leased === undefined ? {} : { leased }),
    })
    standalone?.start(start)
    await leased?.start()
    discovery.start()
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    const { session } = this
    if (session === undefined) throw new Disconnected('not connected')
    for (;;) {
      signal.throwIfAborted()
      if (this.failure !== undefined) throw this.failure.error
      const delivery = session.fetcher.take()
      if (delivery !== undefined) {
        const { state, records, bytes, last, ended } = delivery
        this.delivered.set(state.shard, { epoch: state.partition.epoch, position: last })
        if (ended) this.ended(session, state)
        return {
          batch: records.length === 0 ? EMPTY : new RecordBatch(records, bytes),
          partition: state.partition,
          last,
          at: within(records.length, (index) => {
            const record = records[index]
            return record === undefined ? last : state.positionOf(record)
          }),
        }
      }
      if (this.isFinished(session)) return null
      await unlessAborted(this.notifier.wait(), signal)
    }
  }

  async commit(partition: Partition, upTo: Position): Promise<void> {
    await this.session?.leased?.commit(partition, upTo)
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
    const { lifetime, session, client } = this
    lifetime?.controller.abort(new Disconnected('closed here'))
    await Promise.all([session?.fetcher.settled(), session?.discovery.stop()])
    await this.leases?.stop(!last)
    await Promise.all(this.tasks)
    if (last) await this.readers.release(client, (signal) => openStream(this.target, signal))
    client?.close()
    lifetime?.dispose()
    this.lifetime = this.session = this.client = undefined
  }

  private fail(error: unknown): void {
    if (this.lifetime?.controller.signal.aborted !== false) return
    this.failure ??= { error }
    this.notifier.notify()
  }

  private async openLeased({
    options,
    ...parts
  }: Omit<LeasedContext, 'run' | 'delivered'> & {
    readonly options: OptionsOf<KinesisOptions>
  }): Promise<LeasedShards> {
    const { leasesOf, LeasedShards: Shared } = await import('./leases/leased.js')
    this.currentOptions = options
    this.leases ??= leasesOf(
      () => this.currentOptions ?? options,
      options,
      () => (this.start?.kind === 'time' ? this.start.time : undefined),
      () => this.client?.stream.arn.split(':')[3],
    )
    return new Shared(this.leases, {
      ...parts,
      delivered: (shard) => this.delivered.get(shard),
      run: (work) => {
        this.runTask(work)
      },
    })
  }

  /** Work beside reading: where it fails, reading does. */
  private runTask(work: Promise<void>): void {
    const task = work
      .catch((error: unknown) => {
        this.fail(error)
      })
      .finally(() => {
        this.tasks.delete(task)
        this.notifier.notify()
      })
    this.tasks.add(task)
  }

  private async stopReading({ fetcher, ctx }: ConsumeSession, shard: string): Promise<void> {
    const state = fetcher.stateOf(shard)
    if (state === undefined) return
    ctx.gauge(`behind-ms ${shard}`, 0)
    await fetcher.drop(state)
  }

  private beginShard(
    { fetcher, client, ctx }: ConsumeSession,
    { shard, at, seenAt, note }: ShardStart,
    epoch: number,
  ): void {
    const { createdAt, retentionMs } = client.stream
    const previous = fetcher.stateOf(shard)
    if (previous !== undefined) this.runTask(fetcher.drop(previous))
    const state = new ShardState({
      partition: { name: shard, epoch },
      at,
      seenAt,
      createdAt,
      retentionMs,
      disaggregate,
    })
    if (note !== undefined) state.addNote(note)
    if (at.kind !== 'end') ctx.log.debug(`${shard} begins`, { at: at.kind })
    fetcher.add(state)
  }

  private recordsTrimmed(
    { ctx, options, client }: ConsumeSession,
    state: ShardState,
    { from, to }: TrimmedRecords,
  ): 'oldest' | 'latest' {
    const why = 'records were deleted before they were read (retention)'
    const key = `${state.shard} ${from} ${client.stream.createdAt}`
    if (!this.reportedGaps.has(key)) ctx.gap({ partition: state.shard, from, to, why })
    this.reportedGaps.add(key)
    if (options.onGap === 'fail') throw gapFault(`${state.shard}: ${why}`)
    return options.onGap
  }

  /** All of it was handed on: its children may begin. */
  private ended(
    { ctx, shards, discovery, standalone, leased }: ConsumeSession,
    { shard, partition }: ShardState,
  ): void {
    ctx.log.debug(`${shard} is read to its end`)
    ctx.gauge(`behind-ms ${shard}`, 0)
    shards.end(shard)
    if (standalone?.isBounded !== true) discovery.ended(shard)
    standalone?.startReady()
    leased?.ended(partition)
    this.readers.forget(shard)
  }

  private endAt(until: {
    readonly time: number
    readonly cut: boolean
  }): Promise<ReadonlyMap<string, Position | null>> {
    const { session } = this
    if (session === undefined) return Promise.reject(new Disconnected('not connected'))
    this.until = until
    // No sequence number stands for a time: the source ends by itself.
    return Promise.resolve(new Map(session.fetcher.all.map(({ shard }) => [shard, null])))
  }

  private untilLimit(
    { records, behindMs = records.length === 0 ? 0 : Infinity }: Page,
    askedAt: number,
    fullPage: number,
    closed: boolean,
  ): { readonly count: number; readonly last: boolean } {
    const { until } = this
    if (until === undefined) return { count: records.length, last: false }
    const later = until.cut ? records.findIndex(({ arrivedAt = 0 }) => arrivedAt > until.time) : -1
    if (later !== -1) return { count: later, last: true }
    // One that was closed by then goes on in its children.
    return { count: records.length, last: !closed && records.length < fullPage && askedAt - behindMs >= until.time }
  }

  private isFinished({ fetcher, discovery, standalone, leased }: ConsumeSession): boolean {
    if (!fetcher.all.every(({ isFinished }) => isFinished)) return false
    // A child waits for ever for a parent that is not read to its end.
    return this.until !== undefined
      ? !discovery.isAwaitingChildren && leased?.isSettled !== false
      : standalone !== undefined && standalone.isBounded && standalone.isEmpty
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
