/**
 * Refreshes metadata while partitions are read: their leaders, new and deleted topics, and the fate of a partition that
 * its broker refuses. It asks at most every half second, however many partitions have a fault.
 */
import { gapFault } from '../../../options/shared'
import { Disconnected, lineOf, type ManifoldError } from '../../../core/errors'
import type { SourceContext } from '../../../core/contract'
import type { OptionsOf } from '../../../options/define'
import { OFFSET_OUT_OF_RANGE } from '../protocol/error-codes'
import { protocolFault } from '../errors'
import type { Fetcher } from './fetcher'
import type { KafkaOptions } from '../options'
import { isSameTopic, partitionName } from './position'
import { offsetsAt, resolveStart, type PartitionStart, type LedPartition } from './start'
import { findTopics, isLeaderFault, missingFault, partitionMetadata, type WantedTopics } from './topics'
import type { PartitionState } from './partition-state'
import type { Cluster, FetchResult, PartitionMetadata, TopicMetadata } from '../protocol/cluster'

/** Between two questions to the cluster, milliseconds. */
const REFRESH_INTERVAL_MS = 500
/**
 * A topic that is gone for so long was deleted; a shorter while may be its being made anew, or a broker that does not
 * know better yet.
 */
const MISSING_TOPIC_MS = 5000
/**
 * With no leader for any partition for so long, or without one of the brokers that lead some, something is wrong with
 * the cluster.
 */
const MAX_LEADERLESS_MS = 30_000

/** The objects and settings that a source uses from `open` to `close`. */
export interface ConsumerContext {
  readonly ctx: SourceContext
  readonly cluster: Cluster
  readonly fetcher: Fetcher
  readonly signal: AbortSignal
  readonly options: OptionsOf<KafkaOptions>
  readonly label: string
  readonly wanted: WantedTopics
  topics: ReadonlyMap<string, TopicMetadata>
}
export interface MonitorListener {
  /** Work beside reading: where it fails, reading does. */
  runTask(work: Promise<void>): void
  fail(error: unknown): void
  startPartitions(beginnings: readonly PartitionStart[]): Promise<void>
  /** Topics and partitions may have appeared or gone. */
  onRefreshed(): Promise<void>
}

export function committedOnly(consumer: ConsumerContext): boolean {
  return consumer.options.isolation === 'committed'
}
export function offsetFault(code: number, { topic, partition }: LedPartition): ManifoldError {
  return protocolFault(code, `asking for offsets of ${partitionName(topic, partition)}`, topic, 'READ')
}

/**
 * With who leads them: a topic that is new, or whose broker was lost, has no leader for a moment. Throws `Disconnected`
 * where that lasts.
 */
export async function withLeaders(
  consumer: ConsumerContext,
  partitions: readonly { readonly topic: string; readonly partition: number }[],
): Promise<readonly LedPartition[]> {
  const {
    ctx: { clock },
    cluster,
    signal,
    wanted,
  } = consumer
  const isLed = ({ topic, partition }: { readonly topic: string; readonly partition: number }): boolean =>
    (partitionMetadata(consumer.topics, topic, partition)?.leader ?? -1) >= 0
  for (
    const deadline = clock.monotonic() + MISSING_TOPIC_MS;
    !partitions.every(isLed) && clock.monotonic() < deadline;
  ) {
    await clock.sleep(REFRESH_INTERVAL_MS / 2, signal)
    const { found } = await findTopics(cluster, wanted, signal)
    // A topic that has gone meanwhile is found at the monitor's next refresh.
    consumer.topics = new Map([...consumer.topics, ...found])
  }
  return partitions.map(({ topic, partition }) => ledPartition(consumer, topic, partition))
}

/** Throws `Disconnected` where nobody leads it. */
function ledPartition({ topics }: ConsumerContext, topic: string, partition: number): LedPartition {
  const metadata = partitionMetadata(topics, topic, partition)
  if (metadata === undefined || metadata.leader < 0)
    throw new Disconnected(`${partitionName(topic, partition)} has no leader at the moment`)
  return { topic, partition, leader: metadata.leader, leaderEpoch: metadata.leaderEpoch }
}

export class ClusterMonitor {
  private refreshing: Promise<void> | undefined
  private refreshedAt: number
  private readonly missingSince = new Map<string, number>()
  private leaderlessSince: number | undefined
  private readonly unreachableSince = new Map<number, number>()

  constructor(
    private readonly consumer: ConsumerContext,
    private readonly listener: MonitorListener,
  ) {
    this.refreshedAt = consumer.ctx.clock.monotonic()
  }

  /** Everything is at rest after the signal has aborted. */
  async settled(): Promise<void> {
    await this.refreshing
  }

  /** A broker refuses a partition, which is stalled until it is resumed. */
  onRefused(state: PartitionState, { error }: FetchResult): void {
    if (state.replica !== undefined) {
      // Another replica may not be as far; the leader knows.
      state.replica = undefined
      this.consumer.fetcher.resume(state)
    } else if (error === OFFSET_OUT_OF_RANGE) this.listener.runTask(this.onOutOfRange(state))
    else if (isLeaderFault(error)) {
      state.leaderUnknown = true
      this.refresh()
    } else this.listener.fail(protocolFault(error, `reading ${state.name}`, state.topic, 'READ'))
  }

  onReached(broker: number): void {
    this.unreachableSince.delete(broker)
  }

  /** One of several: the others go on, and its partitions wait for it or for another leader. */
  onUnreachable(broker: number, error: Disconnected): void {
    const { fetcher, ctx } = this.consumer
    const now = ctx.clock.monotonic()
    const since = this.unreachableSince.get(broker)
    this.unreachableSince.set(broker, since ?? now)
    const there = fetcher.all.filter((state) => state.brokerAt(now) === broker)
    // A follower is no loss: the leader has it all.
    const led = there.filter((state) => state.replica === undefined)
    if (
      fetcher.all.length === 0 ||
      led.length === fetcher.all.length ||
      (led.length > 0 && now - (since ?? now) >= MAX_LEADERLESS_MS)
    ) {
      this.listener.fail(error)
      return
    }
    if (since === undefined)
      ctx.log.warn(
        `broker ${broker}: ${lineOf(error)}; ${there.length} of ${fetcher.all.length} partitions wait for it or for another leader`,
      )
    for (const state of there) {
      state.paused = state.leaderUnknown = true
      state.replica = undefined
    }
    fetcher.update()
    this.refresh()
  }

  /** Asks the cluster anew; goes on while some partition has no leader. */
  refresh(): void {
    if (this.refreshing !== undefined) return
    // Looking around does not hold up the end of `--until end`, as `run` would.
    this.refreshing = this.refreshUntilLed()
      .catch((error: unknown) => {
        this.listener.fail(error)
      })
      .finally(() => {
        this.refreshing = undefined
      })
  }

  private async refreshUntilLed(): Promise<void> {
    const { ctx, signal, fetcher } = this.consumer
    do {
      await ctx.clock.sleep(this.refreshedAt + REFRESH_INTERVAL_MS - ctx.clock.monotonic(), signal)
      await this.refreshTopics()
    } while (fetcher.all.some((state) => state.leaderUnknown))
  }

  private async refreshTopics(): Promise<void> {
    const { consumer } = this
    const { ctx, fetcher, cluster, signal, wanted } = consumer
    const { found, missing } = await findTopics(cluster, wanted, signal)
    const now = (this.refreshedAt = ctx.clock.monotonic())
    this.checkMissing(missing, now)
    consumer.topics = found
    const recreated: PartitionState[] = []
    for (const state of fetcher.all) {
      const topic = found.get(state.topic)
      const metadata = topic?.partitions.find(({ partition }) => partition === state.partition)
      if (topic !== undefined && !isSameTopic(topic.id, state.topicId)) recreated.push(state)
      else if (metadata !== undefined) this.updateLeader(state, metadata)
      else if (!wanted.names.includes(state.topic)) {
        ctx.log.warn(`topic ${state.topic} was deleted; what was not read of ${state.name} is gone`)
        fetcher.retire(state)
      }
    }
    this.checkLeaders(now)
    // Records that were fetched of a topic that was created again are still delivered.
    for (const state of recreated) fetcher.retire(state)
    await this.listener.startPartitions(
      recreated
        .filter(({ topic, partition }) => partitionMetadata(found, topic, partition) !== undefined)
        .map((state) => ({
          topic: state.topic,
          partition: state.partition,
          epoch: state.assignment.epoch,
          deleted: state.position(state.next),
        })),
    )
    await this.listener.onRefreshed()
    fetcher.update()
  }

  private checkMissing(missing: readonly string[], now: number): void {
    for (const name of this.missingSince.keys()) if (!missing.includes(name)) this.missingSince.delete(name)
    for (const name of missing) {
      const since = this.missingSince.get(name) ?? now
      this.missingSince.set(name, since)
      if (now - since >= MISSING_TOPIC_MS) throw missingFault([name])
    }
  }

  private updateLeader(state: PartitionState, { leader, leaderEpoch }: PartitionMetadata): void {
    state.leader = leader
    state.leaderEpoch = leaderEpoch
    if (leader >= 0) {
      if (state.leaderUnknown) state.leaderUnknown = state.paused = false
      return
    }
    state.paused = state.leaderUnknown = true
    if (state.isNewFault(true))
      this.consumer.ctx.log.warn(`${state.name} has no leader at the moment; it is read on when it has one`)
  }

  private checkLeaders(now: number): void {
    const { fetcher, label } = this.consumer
    const leaderless = fetcher.all.length > 0 && fetcher.all.every(({ leader }) => leader < 0)
    this.leaderlessSince = leaderless ? (this.leaderlessSince ?? now) : undefined
    if (this.leaderlessSince !== undefined && now - this.leaderlessSince >= MAX_LEADERLESS_MS)
      throw new Disconnected(`no partition of ${label} has a leader`)
  }

  /** The records at its position are gone: a gap, then `on-gap` says where to go on. */
  private async onOutOfRange(state: PartitionState): Promise<void> {
    const { consumer } = this
    const {
      ctx,
      fetcher,
      cluster,
      signal,
      options: { onGap },
    } = consumer
    // A topic that was made anew has other offsets, too.
    await this.refreshTopics()
    if (!fetcher.all.includes(state)) return
    const withLeader = await withLeaders(consumer, [state])
    const [found] = await resolveStart(
      { kind: onGap === 'latest' ? 'latest' : 'oldest' },
      cluster,
      withLeader,
      committedOnly(consumer),
      offsetFault,
      signal,
    )
    const [end = 0] = await offsetsAt(cluster, withLeader, 'latest', false, offsetFault, signal)
    if (found === undefined || !fetcher.all.includes(state)) return
    const at = state.next
    if (at < found.oldest || at > end) {
      const from = state.position(at)
      ctx.gap(
        at < found.oldest
          ? {
              partition: state.name,
              from,
              to: state.position(found.offset),
              why: 'they were deleted before they were read (retention)',
              records: found.offset - at,
            }
          : {
              partition: state.name,
              from,
              to: 'the end of what was cut off',
              why: `the partition ends at ${end}: its log was cut back`,
            },
      )
      if (onGap === 'fail') throw gapFault(`${state.name}: the records from offset ${at} on are gone`)
      state.next = found.offset
      fetcher.queuePosition(state)
    }
    fetcher.resume(state)
  }
}
