/**
 * What the source does in a group: begins and gives up partitions as membership says, and commits through it.
 *
 * A partition begins where the group has committed, but for one that this process has read before and nobody has since:
 * what it has read is still on its way to the sinks, so reading goes on after that. Without a commit it begins where
 * `start` says, but at its oldest where it, or its topic (a pattern's), has appeared since: nothing of it may be passed
 * over. A commit lies behind all that was read before it, under whichever epoch.
 */
import type { Partition, SourceContext } from '../../core/contract'
import type { OptionsOf } from '../../options/define'
import { GroupMember, keyOf, type TopicPartition } from './group'
import { GroupEnd, type Extent } from './group-end'
import type { KafkaOptions } from './options'
import {
  decodePosition,
  encodePosition,
  isSameTopic,
  parsePartitionName,
  partitionName,
  type KafkaPosition,
} from './position'
import type { Beginning } from './start'
import type { Cluster, TopicFacts } from './wire'

/** Commits of others matter while recovered records wait for them: looked for this often, milliseconds. */
const HELD_LOOK_MS = 5000
/** A member that holds nothing looks this often whether the group has come to the end, milliseconds. */
const END_LOOK_MS = 1000

export interface ReadingParts {
  readonly ctx: SourceContext
  readonly cluster: Cluster
  readonly signal: AbortSignal
  topics(): ReadonlyMap<string, TopicFacts>
  /** Work beside reading: where it fails, reading does. */
  run(work: Promise<void>): void
  fail(error: unknown): void
  begin(beginnings: readonly Beginning[]): Promise<void>
  /** Nothing more is fetched of it, and what was fetched and not read is dropped. */
  giveUp(name: string): void
  /** Nothing is being read or about to be. */
  isIdle(): boolean
  /** How far this process has handed it on, under whichever epoch. */
  handed(name: string): KafkaPosition | undefined
  leaderEpoch(name: string): number
}

export class GroupReading {
  private readonly member: GroupMember
  private parts: ReadingParts | undefined
  /** Epochs of partitions as they were assigned last, over connections. */
  private readonly epochs = new Map<string, number>()
  /** What the group had committed as far as we know: less than that is somebody's wish to read again. */
  private readonly known = new Map<string, number>()
  /** What is ours since the last start. */
  private readonly held = new Map<string, number>()
  /** Topics that were there when this process first looked. */
  private first: ReadonlySet<string> | undefined
  private assigned = false
  private beginning = 0
  private readonly end = new GroupEnd()
  private tickers: readonly { stop(): void }[] = []

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
  get isSettled(): boolean {
    return this.assigned && this.beginning === 0
  }
  /** For a member that holds nothing: the group has committed what there was at the start. */
  get isOver(): boolean {
    return this.end.isReached
  }

  /** Whether `endAt` is to be told where partitions ended. */
  get wantsEnds(): boolean {
    return !this.end.isKnown
  }
  /** Of all partitions that are meant, as they stand: `--until end`. */
  endAt(extents: readonly Extent[]): void {
    this.end.startedWith(extents)
  }

  /** Rejects with what `open` is to throw. */
  async start(parts: ReadingParts): Promise<void> {
    this.parts = parts
    this.first ??= new Set(parts.topics().keys())
    this.assigned = false
    this.held.clear()
    const { ctx, cluster, signal, run, fail } = parts
    this.tickers = [
      ctx.clock.every(HELD_LOOK_MS, () => {
        if (ctx.held().length > 0) run(this.lookForCommits(parts))
      }),
      ctx.clock.every(END_LOOK_MS, () => {
        if (this.end.isKnown && this.member.isAssigned && parts.isIdle())
          run(
            this.end.look(
              (topic) => parts.topics().has(topic),
              (partitions) => this.member.committed(partitions, signal),
            ),
          )
      }),
    ]
    await this.member.start(
      {
        wire: cluster,
        clock: ctx.clock,
        log: ctx.log,
        hooks: {
          assigned: (partitions, epoch) => {
            run(this.take(parts, partitions, epoch))
          },
          revoked: (partitions, withinMs) => this.give(parts, partitions, withinMs),
          lost: (partitions) => {
            this.lose(parts, partitions)
          },
          failed: fail,
        },
        topics: () => [...parts.topics().keys()],
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
    for (const ticker of this.tickers) ticker.stop()
    if (again) await this.member.suspend()
    else await this.member.leave()
    this.parts = undefined
  }

  async commit(partition: Partition, offset: number): Promise<void> {
    const at = parsePartitionName(partition.name)
    if (at === undefined) return
    await this.member.commit(
      [{ ...at, offset, leaderEpoch: this.parts?.leaderEpoch(partition.name) ?? -1 }],
      partition.epoch,
    )
    this.known.set(partition.name, offset)
  }

  topicsChanged(): void {
    this.member.subscriptionChanged()
  }

  private async take(parts: ReadingParts, partitions: readonly TopicPartition[], epoch: number): Promise<void> {
    this.beginning++
    this.end.assigned()
    try {
      for (const at of partitions) this.held.set(nameOf(at), epoch)
      const topics = parts.topics()
      const isOf = (at: TopicPartition, position: KafkaPosition | undefined): boolean =>
        isSameTopic(position?.topicId, topics.get(at.topic)?.id)
      const known = partitions.filter(
        (at) =>
          this.epochs.get(nameOf(at)) === epoch &&
          parts.handed(nameOf(at)) !== undefined &&
          isOf(at, parts.handed(nameOf(at))),
      )
      const fresh = partitions.filter((at) => !known.includes(at))
      // Of all partitions of their topics: one without a commit among others that have some has been added since.
      const siblings = [...new Set(fresh.map(({ topic }) => topic))].flatMap((topic) =>
        (topics.get(topic)?.partitions ?? []).map(({ partition }) => ({ topic, partition })),
      )
      const committed = await this.member.committed(siblings, parts.signal)
      const begun = new Set([...committed.values()].map(({ topic }) => topic))
      for (const answer of committed.values()) this.tell(parts, answer, answer.offset)
      const beginnings = [
        ...known.map((at): Beginning => ({ ...at, epoch, at: parts.handed(nameOf(at))?.offset ?? 0 })),
        ...fresh.map((at): Beginning => {
          const name = nameOf(at)
          const offset = committed.get(keyOf(at))?.offset
          const stored = parts.ctx.resume(name)
          if (stored !== undefined && !isOf(at, decodePosition(stored)))
            return { ...at, epoch, deleted: stored, ...(offset === undefined ? {} : { at: offset }) }
          const handed = parts.handed(name)?.offset
          if (
            handed !== undefined &&
            (offset === undefined || (offset <= handed && offset >= (this.known.get(name) ?? 0)))
          )
            return { ...at, epoch, at: handed, again: true }
          if (offset !== undefined) this.known.set(name, offset)
          return {
            ...at,
            epoch,
            ...(offset !== undefined
              ? { at: offset }
              : begun.has(at.topic) || this.first?.has(at.topic) === false
                ? { at: 'oldest' as const }
                : {}),
          }
        }),
      ].filter((one) => this.held.get(nameOf(one)) === epoch && topics.has(one.topic))
      await parts.begin(beginnings)
      for (const { topic, partition } of beginnings) {
        const name = partitionName(topic, partition)
        // Given up again meanwhile.
        if (this.held.get(name) === epoch) this.epochs.set(name, epoch)
        else parts.giveUp(name)
      }
      this.assigned = true
    } finally {
      this.beginning--
    }
  }

  private async give(parts: ReadingParts, partitions: readonly TopicPartition[], withinMs: number): Promise<void> {
    const given = partitions.map(
      (at): Partition => ({
        name: nameOf(at),
        epoch: this.member.owned.get(keyOf(at))?.epoch ?? this.held.get(nameOf(at)) ?? 0,
      }),
    )
    for (const { name } of given) {
      this.held.delete(name)
      parts.giveUp(name)
    }
    await Promise.all(given.map((place) => parts.ctx.revoke(place, withinMs)))
  }

  private lose(parts: ReadingParts, partitions: readonly TopicPartition[]): void {
    for (const at of partitions) {
      const name = nameOf(at)
      const epoch = this.held.get(name) ?? this.epochs.get(name) ?? 0
      this.held.delete(name)
      this.epochs.delete(name)
      parts.giveUp(name)
      parts.ctx.lost({ name, epoch })
    }
  }

  private async lookForCommits(parts: ReadingParts): Promise<void> {
    const topics = parts.topics()
    const partitions = parts.ctx
      .held()
      .map(parsePartitionName)
      .filter((at) => at !== undefined)
      .filter(({ topic }) => topics.has(topic))
    for (const answer of (await this.member.committed(partitions, parts.signal)).values())
      this.tell(parts, answer, answer.offset)
  }

  private tell(parts: ReadingParts, at: TopicPartition, offset: number): void {
    const topicId = parts.topics().get(at.topic)?.id
    parts.ctx.committed(nameOf(at), encodePosition({ offset, ...(topicId === undefined ? {} : { topicId }) }))
  }
}

function nameOf({ topic, partition }: TopicPartition): string {
  return partitionName(topic, partition)
}
