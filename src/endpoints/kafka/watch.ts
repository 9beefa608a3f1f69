/**
 * Keeps an eye on the cluster while partitions are read: who leads them, what appears, what is deleted, and what
 * becomes of a partition that its broker refuses. It asks at most every half second, however many partitions have a
 * fault.
 */
import { Disconnected, Fatal, lineOf, type ManifoldError } from '../../core/errors'
import type { SourceContext } from '../../core/contract'
import type { OptionsOf } from '../../options/define'
import { OFFSET_OUT_OF_RANGE } from './codes'
import { codeFault } from './errors'
import type { Fetcher } from './fetcher'
import type { KafkaOptions } from './options'
import { isSameTopic, partitionName } from './position'
import { offsetsAt, resolveStart, type Beginning, type Led } from './start'
import { findTopics, isLeaderFault, missingFault, partitionFacts, type WantedTopics } from './topics'
import type { Track } from './track'
import type { Cluster, Fetched, PartitionFacts, TopicFacts } from './wire'

/** Between two questions to the cluster, milliseconds. */
const PACE_MS = 500
/**
 * A topic that is gone for so long was deleted; a shorter while may be its being made anew, or a broker that does not
 * know better yet.
 */
const MISSING_MS = 5000
/**
 * With no leader for any partition for so long, or without one of the brokers that lead some, something is wrong with
 * the cluster.
 */
const LEADERLESS_MS = 30_000

/** What lives from `open` to `close`. */
export interface Reading {
  readonly ctx: SourceContext
  readonly cluster: Cluster
  readonly fetcher: Fetcher
  readonly signal: AbortSignal
  readonly options: OptionsOf<KafkaOptions>
  readonly label: string
  readonly wanted: WantedTopics
  topics: ReadonlyMap<string, TopicFacts>
}
export interface WatchHooks {
  /** Work beside reading: where it fails, reading does. */
  run(work: Promise<void>): void
  fail(error: unknown): void
  begin(beginnings: readonly Beginning[]): Promise<void>
  /** Topics and partitions may have appeared or gone. */
  looked(): Promise<void>
}

export function committedOnly(reading: Reading): boolean {
  return reading.options.isolation === 'committed'
}
export function offsetFault(code: number, { topic, partition }: Led): ManifoldError {
  return codeFault(code, `asking for offsets of ${partitionName(topic, partition)}`, topic, 'READ')
}
export function gapFault(why: string): Fatal {
  return new Fatal(`${why}, and on-gap=fail: with on-gap=oldest or latest reading goes on there`)
}

/**
 * With who leads them: a topic that is new, or whose broker was lost, has no leader for a moment. Throws `Disconnected`
 * where that lasts.
 */
export async function led(
  reading: Reading,
  partitions: readonly { readonly topic: string; readonly partition: number }[],
): Promise<readonly Led[]> {
  const {
    ctx: { clock },
    cluster,
    signal,
    wanted,
  } = reading
  const isLed = ({ topic, partition }: { readonly topic: string; readonly partition: number }): boolean =>
    (partitionFacts(reading.topics, topic, partition)?.leader ?? -1) >= 0
  for (const giveUpAt = clock.monotonic() + MISSING_MS; !partitions.every(isLed) && clock.monotonic() < giveUpAt; ) {
    await clock.sleep(PACE_MS / 2, signal)
    const { found } = await findTopics(cluster, wanted, signal)
    // What has gone meanwhile is for the watch to see.
    reading.topics = new Map([...reading.topics, ...found])
  }
  return partitions.map(({ topic, partition }) => ledPartition(reading, topic, partition))
}

/** Throws `Disconnected` where nobody leads it. */
function ledPartition({ topics }: Reading, topic: string, partition: number): Led {
  const facts = partitionFacts(topics, topic, partition)
  if (facts === undefined || facts.leader < 0)
    throw new Disconnected(`${partitionName(topic, partition)} has no leader at the moment`)
  return { topic, partition, leader: facts.leader, leaderEpoch: facts.leaderEpoch }
}

export class Watch {
  private refreshing: Promise<void> | undefined
  private lookedAt: number
  private readonly missingSince = new Map<string, number>()
  private leaderlessSince: number | undefined
  private readonly unreachableSince = new Map<number, number>()

  constructor(
    private readonly reading: Reading,
    private readonly hooks: WatchHooks,
  ) {
    this.lookedAt = reading.ctx.clock.monotonic()
  }

  /** Everything is at rest after the signal has aborted. */
  async settled(): Promise<void> {
    await this.refreshing
  }

  /** A broker refuses a partition, which is stalled until it is resumed. */
  refused(track: Track, { error }: Fetched): void {
    if (track.replica !== undefined) {
      // Another replica may not be as far; the leader knows.
      track.replica = undefined
      this.reading.fetcher.resume(track)
    } else if (error === OFFSET_OUT_OF_RANGE) this.hooks.run(this.outOfRange(track))
    else if (isLeaderFault(error)) {
      track.lost = true
      this.refresh()
    } else this.hooks.fail(codeFault(error, `reading ${track.name}`, track.topic, 'READ'))
  }

  reached(broker: number): void {
    this.unreachableSince.delete(broker)
  }

  /** One of several: the others go on, and its partitions wait for it or for another leader. */
  unreachable(broker: number, error: Disconnected): void {
    const { fetcher, ctx } = this.reading
    const now = ctx.clock.monotonic()
    const known = this.unreachableSince.get(broker)
    this.unreachableSince.set(broker, known ?? now)
    const there = fetcher.all.filter((track) => track.broker(now) === broker)
    // A follower is no loss: the leader has it all.
    const led = there.filter((track) => track.replica === undefined)
    if (
      fetcher.all.length === 0 ||
      led.length === fetcher.all.length ||
      (led.length > 0 && now - (known ?? now) >= LEADERLESS_MS)
    ) {
      this.hooks.fail(error)
      return
    }
    if (known === undefined)
      ctx.log.warn(
        `broker ${broker}: ${lineOf(error)}; ${there.length} of ${fetcher.all.length} partitions wait for it or for another leader`,
      )
    for (const track of there) {
      track.stalled = track.lost = true
      track.replica = undefined
    }
    fetcher.moved()
    this.refresh()
  }

  /** Asks the cluster anew; goes on while some partition has no leader. */
  refresh(): void {
    if (this.refreshing !== undefined) return
    // Looking around does not hold up the end of `--until end`, as `run` would.
    this.refreshing = this.lookAgain()
      .catch((error: unknown) => {
        this.hooks.fail(error)
      })
      .finally(() => {
        this.refreshing = undefined
      })
  }

  private async lookAgain(): Promise<void> {
    const { ctx, signal, fetcher } = this.reading
    do {
      await ctx.clock.sleep(this.lookedAt + PACE_MS - ctx.clock.monotonic(), signal)
      await this.look()
    } while (fetcher.all.some((track) => track.lost))
  }

  private async look(): Promise<void> {
    const { reading } = this
    const { ctx, fetcher, cluster, signal, wanted } = reading
    const { found, missing } = await findTopics(cluster, wanted, signal)
    const now = (this.lookedAt = ctx.clock.monotonic())
    this.checkMissing(missing, now)
    reading.topics = found
    const anew: Track[] = []
    for (const track of fetcher.all) {
      const topic = found.get(track.topic)
      const facts = topic?.partitions.find(({ partition }) => partition === track.partition)
      if (topic !== undefined && !isSameTopic(topic.id, track.topicId)) anew.push(track)
      else if (facts !== undefined) this.ledBy(track, facts)
      else if (!wanted.names.includes(track.topic)) {
        ctx.log.warn(`topic ${track.topic} was deleted; what was not read of ${track.name} is gone`)
        fetcher.retire(track)
      }
    }
    this.checkLeaders(now)
    // What was fetched of a topic that is made anew is still handed on.
    for (const track of anew) fetcher.retire(track)
    await this.hooks.begin(
      anew
        .filter(({ topic, partition }) => partitionFacts(found, topic, partition) !== undefined)
        .map((track) => ({
          topic: track.topic,
          partition: track.partition,
          epoch: track.place.epoch,
          deleted: track.position(track.next),
        })),
    )
    await this.hooks.looked()
    fetcher.moved()
  }

  private checkMissing(missing: readonly string[], now: number): void {
    for (const name of this.missingSince.keys()) if (!missing.includes(name)) this.missingSince.delete(name)
    for (const name of missing) {
      const since = this.missingSince.get(name) ?? now
      this.missingSince.set(name, since)
      if (now - since >= MISSING_MS) throw missingFault([name])
    }
  }

  private ledBy(track: Track, { leader, leaderEpoch }: PartitionFacts): void {
    track.leader = leader
    track.leaderEpoch = leaderEpoch
    if (leader >= 0) {
      if (track.lost) track.lost = track.stalled = false
      return
    }
    track.stalled = track.lost = true
    if (track.tell(true))
      this.reading.ctx.log.warn(`${track.name} has no leader at the moment; it is read on when it has one`)
  }

  private checkLeaders(now: number): void {
    const { fetcher, label } = this.reading
    const leaderless = fetcher.all.length > 0 && fetcher.all.every(({ leader }) => leader < 0)
    this.leaderlessSince = leaderless ? (this.leaderlessSince ?? now) : undefined
    if (this.leaderlessSince !== undefined && now - this.leaderlessSince >= LEADERLESS_MS)
      throw new Disconnected(`no partition of ${label} has a leader`)
  }

  /** The records at its position are gone: a gap, then `on-gap` says where to go on. */
  private async outOfRange(track: Track): Promise<void> {
    const { reading } = this
    const {
      ctx,
      fetcher,
      cluster,
      signal,
      options: { onGap },
    } = reading
    // A topic that was made anew has other offsets, too.
    await this.look()
    if (!fetcher.all.includes(track)) return
    const asked = await led(reading, [track])
    const [found] = await resolveStart(
      { kind: onGap === 'latest' ? 'latest' : 'oldest' },
      cluster,
      asked,
      committedOnly(reading),
      offsetFault,
      signal,
    )
    const [end = 0] = await offsetsAt(cluster, asked, 'latest', false, offsetFault, signal)
    if (found === undefined || !fetcher.all.includes(track)) return
    const at = track.next
    if (at < found.oldest || at > end) {
      const from = track.position(at)
      ctx.gap(
        at < found.oldest
          ? {
              partition: track.name,
              from,
              to: track.position(found.offset),
              why: 'they were deleted before they were read (retention)',
              records: found.offset - at,
            }
          : {
              partition: track.name,
              from,
              to: 'the end of what was cut off',
              why: `the partition ends at ${end}: its log was cut back`,
            },
      )
      if (onGap === 'fail') throw gapFault(`${track.name}: the records from offset ${at} on are gone`)
      track.next = found.offset
      fetcher.note(track)
    }
    fetcher.resume(track)
  }
}
