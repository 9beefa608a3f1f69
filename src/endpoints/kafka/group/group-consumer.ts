/**
 * The source's part in a group: it starts and stops partitions as membership says, and commits through the member.
 *
 * - A partition starts at the group's committed offset. One that this process has read before, and no other member
 *   since, goes on after its last delivery, because those records are still on their way to the sinks.
 * - Without a commit a partition starts where `start` says. It starts at its oldest record where it, or its topic, has
 *   appeared since the first start, so that nothing of it is passed over.
 * - A commit covers all records that were read before it, under whichever epoch.
 */
import type { Partition, SourceContext } from '../../../core/contract'
import type { OptionsOf } from '../../../options/define'
import { keyOf, type TopicPartition } from './consumer-protocol'
import { GroupMember } from './member'
import { GroupEndDetector, type OffsetRange } from './end-detector'
import type { KafkaOptions } from '../options'
import {
  decodePosition,
  encodePosition,
  isSameTopic,
  parsePartitionName,
  partitionName,
  type KafkaPosition,
} from '../consume/position'
import type { PartitionStart } from '../consume/start'
import type { Cluster, TopicMetadata } from '../protocol/cluster'

/** Commits of others matter while recovered records wait for them: looked for this often, milliseconds. */
const COMMIT_POLL_MS = 5000
/** A member that holds nothing looks this often whether the group has come to the end, milliseconds. */
const END_POLL_MS = 1000

export interface GroupConsumerContext {
  readonly ctx: SourceContext
  readonly cluster: Cluster
  readonly signal: AbortSignal
  topics(): ReadonlyMap<string, TopicMetadata>
  /** Work beside reading: where it fails, reading does. */
  runTask(work: Promise<void>): void
  fail(error: unknown): void
  startPartitions(beginnings: readonly PartitionStart[]): Promise<void>
  /** Nothing more is fetched of it, and what was fetched and not read is dropped. */
  stopPartition(name: string): void
  /** Nothing is being read or about to be. */
  isIdle(): boolean
  /** How far this process has handed it on, under whichever epoch. */
  delivered(name: string): KafkaPosition | undefined
  leaderEpoch(name: string): number
}

export class GroupConsumer {
  private readonly member: GroupMember
  private context: GroupConsumerContext | undefined
  /** Epochs of partitions as they were assigned last, over connections. */
  private readonly knownEpochs = new Map<string, number>()
  /** Committed offsets as far as this process knows. A lower one means that somebody wants records to be read again. */
  private readonly committedOffsets = new Map<string, number>()
  /** Epochs of the partitions that were assigned since the last start. */
  private readonly assignedEpochs = new Map<string, number>()
  /** Topics that were there when this process first looked. */
  private initialTopics: ReadonlySet<string> | undefined
  private hasAssignment = false
  private startsUnderWay = 0
  private readonly endDetector = new GroupEndDetector()
  private timers: readonly { stop(): void }[] = []

  constructor(group: string, options: OptionsOf<KafkaOptions>) {
    const { instanceId, assignor, rack, sessionTimeout, rebalanceTimeout, heartbeatEvery, metadataEvery } = options
    this.member = new GroupMember({
      group,
      sessionTimeoutMs: sessionTimeout,
      rebalanceTimeoutMs: rebalanceTimeout,
      heartbeatMs: Math.min(heartbeatEvery, sessionTimeout / 3),
      assignor,
      metadataMs: metadataEvery,
      ...(instanceId === undefined ? {} : { instanceId }),
      ...(rack === undefined ? {} : { rack }),
    })
  }

  /** Something was assigned, and all of it has begun. */
  get isStarted(): boolean {
    return this.hasAssignment && this.startsUnderWay === 0
  }
  /** For a member that holds nothing: the group has committed what there was at the start. */
  get isAtEnd(): boolean {
    return this.endDetector.isReached
  }

  /** True until `setEnds` was told where partitions ended. */
  get needsEnds(): boolean {
    return !this.endDetector.isKnown
  }
  /** Of all partitions that are meant, as they stand: `--until end`. */
  setEnds(extents: readonly OffsetRange[]): void {
    this.endDetector.setRanges(extents)
  }

  /** Rejects with what `open` is to throw. */
  async start(context: GroupConsumerContext): Promise<void> {
    this.context = context
    this.initialTopics ??= new Set(context.topics().keys())
    this.hasAssignment = false
    this.assignedEpochs.clear()
    const { ctx, cluster, signal, runTask: run, fail } = context
    this.timers = [
      ctx.clock.every(COMMIT_POLL_MS, () => {
        if (ctx.held().length > 0) run(this.pollCommits(context))
      }),
      ctx.clock.every(END_POLL_MS, () => {
        if (this.endDetector.isKnown && this.member.isAssigned && context.isIdle())
          run(
            this.endDetector.check(
              (topic) => context.topics().has(topic),
              (partitions) => this.member.committed(partitions, signal),
            ),
          )
      }),
    ]
    await this.member.start(
      {
        coordinator: cluster,
        clock: ctx.clock,
        log: ctx.log,
        listener: {
          assigned: (partitions, epoch) => {
            run(this.onAssigned(context, partitions, epoch))
          },
          revoked: (partitions, withinMs) => this.onRevoked(context, partitions, withinMs),
          lost: (partitions) => {
            this.onLost(context, partitions)
          },
          failed: fail,
        },
        topics: () => [...context.topics().keys()],
        partitionsOf: async (topics, during) =>
          new Map(
            (await cluster.metadata(topics, during)).topics
              .filter(({ error }) => error === 0)
              .map(({ name, partitions }) => [name, partitions.length]),
          ),
      },
      signal,
    )
  }

  /** @param again it follows a fault, and will be started again */
  async stop(again: boolean): Promise<void> {
    for (const ticker of this.timers) ticker.stop()
    if (again) await this.member.suspend()
    else await this.member.leave()
    this.context = undefined
  }

  async commit(partition: Partition, offset: number): Promise<void> {
    const at = parsePartitionName(partition.name)
    if (at === undefined) return
    await this.member.commit(
      [{ ...at, offset, leaderEpoch: this.context?.leaderEpoch(partition.name) ?? -1 }],
      partition.epoch,
    )
    this.committedOffsets.set(partition.name, offset)
  }

  topicsChanged(): void {
    this.member.subscriptionChanged()
  }

  private async onAssigned(
    context: GroupConsumerContext,
    partitions: readonly TopicPartition[],
    epoch: number,
  ): Promise<void> {
    this.startsUnderWay++
    this.endDetector.onAssigned()
    try {
      for (const at of partitions) this.assignedEpochs.set(nameOf(at), epoch)
      const topics = context.topics()
      const isOf = (at: TopicPartition, position: KafkaPosition | undefined): boolean =>
        isSameTopic(position?.topicId, topics.get(at.topic)?.id)
      const known = partitions.filter(
        (at) =>
          this.knownEpochs.get(nameOf(at)) === epoch &&
          context.delivered(nameOf(at)) !== undefined &&
          isOf(at, context.delivered(nameOf(at))),
      )
      const fresh = partitions.filter((at) => !known.includes(at))
      // Of all partitions of their topics: one without a commit among others that have some has been added since.
      const siblings = [...new Set(fresh.map(({ topic }) => topic))].flatMap((topic) =>
        (topics.get(topic)?.partitions ?? []).map(({ partition }) => ({ topic, partition })),
      )
      const committed = await this.member.committed(siblings, context.signal)
      const begun = new Set([...committed.values()].map(({ topic }) => topic))
      for (const answer of committed.values()) this.reportCommitted(context, answer, answer.offset)
      const beginnings = [
        ...known.map((at): PartitionStart => ({ ...at, epoch, at: context.delivered(nameOf(at))?.offset ?? 0 })),
        ...fresh.map((at): PartitionStart => {
          const name = nameOf(at)
          const offset = committed.get(keyOf(at))?.offset
          const stored = context.ctx.resume(name)
          if (stored !== undefined && !isOf(at, decodePosition(stored)))
            return { ...at, epoch, deleted: stored, ...(offset === undefined ? {} : { at: offset }) }
          const delivered = context.delivered(name)?.offset
          if (
            delivered !== undefined &&
            (offset === undefined || (offset <= delivered && offset >= (this.committedOffsets.get(name) ?? 0)))
          )
            return { ...at, epoch, at: delivered, reassigned: true }
          if (offset !== undefined) this.committedOffsets.set(name, offset)
          return {
            ...at,
            epoch,
            ...(offset !== undefined
              ? { at: offset }
              : begun.has(at.topic) || this.initialTopics?.has(at.topic) === false
                ? { at: 'oldest' as const }
                : {}),
          }
        }),
      ].filter((one) => this.assignedEpochs.get(nameOf(one)) === epoch && topics.has(one.topic))
      await context.startPartitions(beginnings)
      for (const { topic, partition } of beginnings) {
        const name = partitionName(topic, partition)
        // Given up again meanwhile.
        if (this.assignedEpochs.get(name) === epoch) this.knownEpochs.set(name, epoch)
        else context.stopPartition(name)
      }
      this.hasAssignment = true
    } finally {
      this.startsUnderWay--
    }
  }

  private async onRevoked(
    context: GroupConsumerContext,
    partitions: readonly TopicPartition[],
    withinMs: number,
  ): Promise<void> {
    const revoked = partitions.map(
      (at): Partition => ({
        name: nameOf(at),
        epoch: this.member.owned.get(keyOf(at))?.epoch ?? this.assignedEpochs.get(nameOf(at)) ?? 0,
      }),
    )
    for (const { name } of revoked) {
      this.assignedEpochs.delete(name)
      context.stopPartition(name)
    }
    await Promise.all(revoked.map((place) => context.ctx.revoke(place, withinMs)))
  }

  private onLost(context: GroupConsumerContext, partitions: readonly TopicPartition[]): void {
    for (const at of partitions) {
      const name = nameOf(at)
      const epoch = this.assignedEpochs.get(name) ?? this.knownEpochs.get(name) ?? 0
      this.assignedEpochs.delete(name)
      this.knownEpochs.delete(name)
      context.stopPartition(name)
      context.ctx.lost({ name, epoch })
    }
  }

  private async pollCommits(context: GroupConsumerContext): Promise<void> {
    const topics = context.topics()
    const partitions = context.ctx
      .held()
      .map(parsePartitionName)
      .filter((at) => at !== undefined)
      .filter(({ topic }) => topics.has(topic))
    for (const answer of (await this.member.committed(partitions, context.signal)).values())
      this.reportCommitted(context, answer, answer.offset)
  }

  private reportCommitted(context: GroupConsumerContext, at: TopicPartition, offset: number): void {
    const topicId = context.topics().get(at.topic)?.id
    context.ctx.committed(nameOf(at), encodePosition({ offset, ...(topicId === undefined ? {} : { topicId }) }))
  }
}

function nameOf({ topic, partition }: TopicPartition): string {
  return partitionName(topic, partition)
}
