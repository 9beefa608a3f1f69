/**
 * The source reads topics. Each Kafka partition is a partition of the flow: `orders-3`.
 *
 * - Without a group the flow keeps the position. In a group the brokers keep it, and partitions start and stop as
 *   membership says (group/group-consumer.ts).
 * - `start` applies to partitions that exist and have no position when reading begins. It is resolved at once, and an
 *   empty delivery stores the result. A partition that appears later is read from its oldest record.
 * - Offsets that are out of range, and a topic that was created again under its name, are gaps; `on-gap` decides where
 *   reading goes on.
 * - The leader of a partition that moved, or whose broker is lost, is looked for while the others go on
 *   (consume/cluster-monitor.ts). Where no partition can go on, reading fails and the core opens again.
 */
import { EMPTY, within } from '../../core/batch'
import type { Delivery, Partition, Position, Source, SourceContext } from '../../core/contract'
import { Disconnected, Fatal } from '../../core/errors'
import { linkedAbort, unlessAborted, Notifier } from '../../kit/signal'
import type { CreateSource, Target } from '../../options/define'
import { BlockBatch } from './consume/block'
import { openCluster } from './client'
import { gapFault } from '../../options/shared'
import { Fetcher } from './consume/fetcher'
import type { OffsetRange } from './group/end-detector'
import { GroupConsumer } from './group/group-consumer'
import { BufferPool } from './protocol/buffer-pool'
import { parsePartitions, type KafkaOptions } from './options'
import { covers, decodePosition, isSameTopic, partitionName, type KafkaPosition } from './consume/position'
import {
  offsetsAt,
  parseStart,
  resolveStart,
  type PartitionStart,
  type ResolvedStart,
  type Start,
} from './consume/start'
import { findTopics, missingFault, parseTopics, partitionMetadata, type WantedTopics } from './consume/topics'
import { PartitionState } from './consume/partition-state'
import {
  committedOnly,
  withLeaders,
  offsetFault,
  ClusterMonitor,
  type ConsumerContext,
} from './consume/cluster-monitor'
import type { Cluster, FetchResult } from './protocol/cluster'

export const create: CreateSource<KafkaOptions> = (target) => new KafkaSource(target)

/** Without a group a partition stays with this process, under one epoch. */
const ONLY_EPOCH = 1

class KafkaSource implements Source {
  private readonly groupConsumer: GroupConsumer | undefined
  private readonly wanted: WantedTopics
  private readonly notifier = new Notifier()
  private readonly pool = new BufferPool()
  private readonly tasks = new Set<Promise<void>>()
  private lifetime: ReturnType<typeof linkedAbort> | undefined
  private cluster: Cluster | undefined
  private consumer: ConsumerContext | undefined
  private monitor: ClusterMonitor | undefined
  private metadataTimer: { stop(): void } | undefined
  private failure: { readonly error: unknown } | undefined
  private opening = false
  private start: Start | undefined
  private until: 'end' | number | undefined
  /** Offset after the last delivery of each partition, kept over openings and assignments. */
  private readonly delivered = new Map<string, KafkaPosition>()
  /**
   * Partitions, with the new topic's id, whose gap of a deleted topic was reported: opening again finds the same gap.
   */
  private readonly reportedGaps = new Set<string>()

  constructor(private readonly target: Target<KafkaOptions>) {
    const { options, uri } = target
    this.wanted = parseTopics(uri.path.replace(/^\//, ''))
    if (options.group !== undefined) this.groupConsumer = new GroupConsumer(options.group, options)
  }

  async open(ctx: SourceContext): Promise<void> {
    const { options, label } = this.target
    this.failure = undefined
    this.opening = true
    this.start ??= parseStart(options.start, ctx.clock.now())
    const lifetime = (this.lifetime = linkedAbort(ctx.signal))
    const { signal } = lifetime.controller
    const cluster = (this.cluster = await openCluster(this.target, signal))
    const { found, missing } = await findTopics(cluster, this.wanted, signal)
    if (missing.length > 0) throw missingFault(missing)
    if (found.size === 0) ctx.log.warn(`no topic of ${label} exists yet; waiting for one`)
    const fetcher = new Fetcher({
      cluster,
      clock: ctx.clock,
      signal,
      bufferBytes: options.fetchMaxBytes,
      replicaMs: options.metadataEvery,
      fetch: {
        maxWaitMs: options.fetchWait,
        minBytes: options.fetchMinBytes,
        maxBytes: options.fetchMaxBytes,
        committedOnly: options.isolation === 'committed',
        rack: options.rack ?? '',
      },
      onChanged: () => {
        this.notifier.notify()
      },
      onProgress: (state) => {
        ctx.gauge(`lag ${state.name}`, state.lag)
      },
      onRefused: (state: PartitionState, fetched: FetchResult) => {
        monitor.onRefused(state, fetched)
      },
      onReached: (broker) => {
        monitor.onReached(broker)
      },
      onUnreachable: (broker, error) => {
        monitor.onUnreachable(broker, error)
      },
      onFailed: (error) => {
        this.fail(error)
      },
    })
    const consumer: ConsumerContext = (this.consumer = {
      ctx,
      cluster,
      fetcher,
      signal,
      options,
      label,
      wanted: this.wanted,
      topics: found,
    })
    const run = (work: Promise<void>): void => {
      this.runTask(work)
    }
    const fail = (error: unknown): void => {
      this.fail(error)
    }
    const begin = (beginnings: readonly PartitionStart[]): Promise<void> => this.startPartitions(beginnings, consumer)
    const monitor = (this.monitor = new ClusterMonitor(consumer, {
      runTask: run,
      fail,
      startPartitions: begin,
      onRefreshed: () => this.onTopicsRefreshed(consumer),
    }))
    if (this.groupConsumer === undefined)
      await begin(this.partitionsToRead(consumer).map((one) => this.startWithoutGroup(one, consumer)))
    else
      await this.groupConsumer.start({
        ctx,
        cluster,
        signal,
        topics: () => consumer.topics,
        runTask: run,
        fail,
        startPartitions: begin,
        stopPartition: (name) => {
          this.stopPartition(name)
        },
        delivered: (name) => this.delivered.get(name),
        isIdle: () => fetcher.all.length === 0 && this.tasks.size === 0,
        leaderEpoch: (name) => this.stateOf(name)?.leaderEpoch ?? -1,
      })
    this.metadataTimer = ctx.clock.every(options.metadataEvery, () => {
      monitor.refresh()
    })
    this.opening = false
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    const { consumer } = this
    if (consumer === undefined) throw new Disconnected('not connected')
    for (;;) {
      signal.throwIfAborted()
      if (this.failure !== undefined) throw this.failure.error
      const ready = consumer.fetcher.takeNext()
      if (ready !== undefined) {
        const { state, blocks, next } = ready
        consumer.ctx.gauge(`lag ${state.name}`, state.lag)
        this.delivered.set(state.name, { offset: next, topicId: state.topicId })
        const batch = blocks.length === 0 ? undefined : new BlockBatch(blocks, this.pool)
        return {
          batch: batch ?? EMPTY,
          partition: state.assignment,
          last: state.position(next),
          at: within(batch?.count ?? 0, (index) =>
            state.position(batch === undefined ? next : batch.offset(index) + 1),
          ),
          ...(batch === undefined
            ? {}
            : {
                release: () => {
                  batch.release()
                },
              }),
        }
      }
      if (this.isFinished(consumer.fetcher)) return null
      await unlessAborted(this.notifier.wait(), signal)
    }
  }

  async commit(partition: Partition, upTo: Position): Promise<void> {
    const position = decodePosition(upTo)
    const state = this.stateOf(partition.name)
    // The offset of a deleted topic says nothing about the new topic of that name.
    if (
      this.groupConsumer === undefined ||
      position === undefined ||
      (state !== undefined && !isSameTopic(state.topicId, position.topicId))
    )
      return
    await this.groupConsumer.commit(partition, position.offset)
  }

  covers(upTo: Position, position: Position): boolean {
    return covers(upTo, position)
  }

  ends(): Promise<ReadonlyMap<string, Position | null>> {
    return this.endAt('end')
  }
  endsAt(time: number): Promise<ReadonlyMap<string, Position | null>> {
    return this.endAt(time)
  }

  async close(): Promise<void> {
    const { lifetime, consumer, cluster, monitor } = this
    this.metadataTimer?.stop()
    lifetime?.controller.abort(new Disconnected('closed here'))
    await Promise.all([consumer?.fetcher.settled(), monitor?.settled(), ...this.tasks])
    // After a fault the core opens again, and a process that is still a member goes on where it was.
    await this.groupConsumer?.stop(this.failure !== undefined || this.opening)
    await cluster?.close()
    lifetime?.dispose()
    this.lifetime = this.consumer = this.cluster = this.monitor = this.metadataTimer = undefined
  }

  /** Runs a task beside reading; where it fails, reading fails. */
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

  private fail(error: unknown): void {
    if (this.lifetime?.controller.signal.aborted !== false) return
    this.failure ??= { error }
    this.notifier.notify()
  }

  private stateOf(name: string): PartitionState | undefined {
    return this.consumer?.fetcher.all.find((state) => state.name === name)
  }

  private stopPartition(name: string): void {
    const state = this.stateOf(name)
    if (state !== undefined) this.consumer?.fetcher.drop(state)
    this.consumer?.ctx.gauge(`lag ${name}`, 0)
    this.notifier.notify()
  }

  /** Lists the partitions to read without a group: all of them, or those that `partition` names. */
  private partitionsToRead({
    topics,
    options,
  }: ConsumerContext): readonly { readonly topic: string; readonly partition: number; readonly offset?: number }[] {
    const requested = options.partition === undefined ? undefined : parsePartitions(options.partition)
    return [...topics.values()].flatMap(({ name, partitions }) => {
      const unknown = [...(requested?.keys() ?? [])].find(
        (number) => !partitions.some(({ partition }) => partition === number),
      )
      if (unknown !== undefined)
        throw new Fatal(
          `topic ${name} has no partition ${unknown}: it has ${partitions.length}, the first of which is 0`,
        )
      return partitions
        .filter(({ partition }) => requested?.has(partition) ?? true)
        .map(({ partition }) => {
          const offset = requested?.get(partition)
          return { topic: name, partition, ...(offset === undefined ? {} : { offset }) }
        })
    })
  }

  /**
   * Finds where a partition starts without a group: at its stored position. A partition without one, among others that
   * have one, has appeared since and starts at its oldest record.
   */
  private startWithoutGroup(
    { topic, partition, offset }: { readonly topic: string; readonly partition: number; readonly offset?: number },
    { ctx, topics }: ConsumerContext,
  ): PartitionStart {
    const stored = ctx.resume(partitionName(topic, partition))
    const position = stored === undefined ? undefined : decodePosition(stored)
    const place = { topic, partition, epoch: ONLY_EPOCH }
    if (stored !== undefined && position !== undefined)
      return isSameTopic(position.topicId, topics.get(topic)?.id)
        ? { ...place, at: position.offset }
        : { ...place, deleted: stored }
    if (offset !== undefined) return { ...place, at: offset, explicit: true }
    return ctx.resumable().length > 0 ? { ...place, at: 'oldest' } : place
  }

  /** Starts to read partitions, each at its position or where `start` and `on-gap` say. */
  private async startPartitions(beginnings: readonly PartitionStart[], consumer: ConsumerContext): Promise<void> {
    const { ctx, fetcher, cluster, signal, options } = consumer
    const { start } = this
    if (start === undefined || beginnings.length === 0) return
    const begun = new Map<PartitionStart, ResolvedStart>()
    const unresolved = beginnings.filter((one) => typeof one.at !== 'number')
    for (const [kind, some] of Map.groupBy(unresolved, (one) =>
      one.at === 'oldest' ? 'oldest' : one.deleted !== undefined ? options.onGap : 'start',
    )) {
      const from: Start = kind === 'start' ? start : { kind: kind === 'latest' ? 'latest' : 'oldest' }
      const found = await resolveStart(
        from,
        cluster,
        await withLeaders(consumer, some),
        committedOnly(consumer),
        offsetFault,
        signal,
      )
      some.forEach((one, index) => {
        const at = found[index]
        if (at === undefined) return
        begun.set(one, at)
        if (from.kind === 'offset' && from.offset > at.latest)
          ctx.log.warn(beyondEndText(`start=${from.offset}`, one, at.latest))
      })
    }
    await refuseBeyondEnd(
      beginnings.filter(({ explicit: named }) => named === true),
      consumer,
    )
    const { topics } = consumer
    const states: PartitionState[] = []
    const positioned: PartitionState[] = []
    for (const one of beginnings) {
      const { topic, partition, epoch, at, deleted } = one
      const metadata = partitionMetadata(topics, topic, partition) ?? { leader: -1, leaderEpoch: -1 }
      const state = new PartitionState(
        topic,
        topics.get(topic)?.id ?? '',
        partition,
        epoch,
        begun.get(one)?.offset ?? (typeof at === 'number' ? at : 0),
        metadata,
        options.partitionMaxBytes,
      )
      if (this.stateOf(state.name) !== undefined) continue
      if (deleted !== undefined) this.reportRecreated(state, deleted, consumer)
      if (metadata.leader < 0) state.paused = state.leaderUnknown = true
      states.push(state)
      // An offset that was given is stored as well, so that the position is known before the first record.
      if (
        begun.has(one) ||
        one.reassigned === true ||
        (this.groupConsumer === undefined && ctx.resume(state.name) === undefined)
      )
        positioned.push(state)
    }
    await this.setEnds(states, consumer)
    signal.throwIfAborted()
    fetcher.add(states)
    for (const state of positioned) fetcher.queuePosition(state)
    if (states.some(({ leaderUnknown: lost }) => lost)) this.monitor?.refresh()
    this.notifier.notify()
  }

  /** @param from the position in the deleted topic */
  private reportRecreated(state: PartitionState, from: string, { ctx, options }: ConsumerContext): void {
    const key = `${state.name} ${state.topicId}`
    if (this.reportedGaps.has(key)) return
    this.reportedGaps.add(key)
    const why = `topic ${state.topic} was deleted and made anew`
    ctx.gap({ partition: state.name, from, to: 'the end of the deleted topic', why })
    if (options.onGap === 'fail') throw gapFault(why)
  }

  /** A partition that appears while others are read starts at its oldest record. */
  private async onTopicsRefreshed(consumer: ConsumerContext): Promise<void> {
    if (this.groupConsumer !== undefined) {
      this.groupConsumer.topicsChanged()
      return
    }
    const added = this.partitionsToRead(consumer).filter(
      ({ topic, partition }) => this.stateOf(partitionName(topic, partition)) === undefined,
    )
    await this.startPartitions(
      added.map((one): PartitionStart => {
        const found = this.startWithoutGroup(one, consumer)
        return found.at === undefined && found.deleted === undefined ? { ...found, at: 'oldest' } : found
      }),
      consumer,
    )
  }

  private async endAt(until: 'end' | number): Promise<ReadonlyMap<string, Position | null>> {
    const { consumer } = this
    if (consumer === undefined) throw new Disconnected('not connected')
    const { fetcher } = consumer
    this.until = until
    await this.setEnds(fetcher.all, consumer)
    if (this.groupConsumer?.needsEnds === true) this.groupConsumer.setEnds(await this.offsetRanges(until, consumer))
    fetcher.update()
    return new Map(
      fetcher.all.map((state) => [
        state.name,
        state.end === undefined || state.end <= state.delivered ? null : state.position(state.end),
      ]),
    )
  }

  private async setEnds(states: readonly PartitionState[], consumer: ConsumerContext): Promise<void> {
    const { until } = this
    const open = states.filter((state) => state.end === undefined)
    if (until === undefined || open.length === 0) return
    const ends = await this.endsOf(open, until, consumer)
    open.forEach((state, index) => {
      state.end = ends[index] ?? 0
    })
  }

  private async endsOf(
    partitions: readonly { readonly topic: string; readonly partition: number }[],
    until: 'end' | number,
    consumer: ConsumerContext,
  ): Promise<readonly number[]> {
    const requested = await withLeaders(consumer, partitions)
    const at = (when: 'latest' | number): Promise<readonly number[]> =>
      offsetsAt(consumer.cluster, requested, when, committedOnly(consumer), offsetFault, consumer.signal)
    const [latest, timed] = await Promise.all([at('latest'), until === 'end' ? undefined : at(until)])
    return latest.map((end, index) => {
      const then = timed?.[index] ?? -1
      return then < 0 ? end : Math.min(then, end)
    })
  }

  /** Finds the offset ranges of all partitions of the topics, including those that other members read. */
  private async offsetRanges(until: 'end' | number, consumer: ConsumerContext): Promise<readonly OffsetRange[]> {
    const all = [...consumer.topics.values()].flatMap(({ name, partitions }) =>
      partitions.map(({ partition }) => ({ topic: name, partition })),
    )
    const requested = await withLeaders(consumer, all)
    const [ends, oldest] = await Promise.all([
      this.endsOf(all, until, consumer),
      offsetsAt(consumer.cluster, requested, 'earliest', false, offsetFault, consumer.signal),
    ])
    return all.map((at, index) => ({ ...at, oldest: oldest[index] ?? 0, end: ends[index] ?? 0 }))
  }

  private isFinished({ all }: Fetcher): boolean {
    const { until, groupConsumer, tasks } = this
    if (until === undefined || tasks.size > 0) return false
    // A member without partitions may still be assigned some, and may have lost some before their end.
    if (groupConsumer !== undefined && (all.length === 0 || !groupConsumer.isStarted))
      return all.length === 0 && groupConsumer.isAtEnd
    return all.every((state) => state.finished)
  }
}

function beyondEndText(what: string, { topic, partition }: PartitionStart, end: number): string {
  return `${what} lies beyond the end of ${partitionName(topic, partition)}, which is ${end}: it begins there`
}

/**
 * Refuses an offset of `partition=` that does not exist yet: it is most likely a mistake, and reading from elsewhere
 * would surprise.
 */
async function refuseBeyondEnd(named: readonly PartitionStart[], consumer: ConsumerContext): Promise<void> {
  if (named.length === 0) return
  const requested = await withLeaders(consumer, named)
  const ends = await offsetsAt(
    consumer.cluster,
    requested,
    'latest',
    committedOnly(consumer),
    offsetFault,
    consumer.signal,
  )
  named.forEach(({ topic, partition, at }, index) => {
    const end = ends[index] ?? 0
    if (typeof at !== 'number' || at <= end) return
    throw new Fatal(
      `partition=${partition}:${at} lies beyond the end of ${partitionName(topic, partition)}, which is ${end}: correct the offset`,
    )
  })
}
