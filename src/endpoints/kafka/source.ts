/**
 * Topics as a source. Each partition is one of the flow's: `orders-3`.
 *
 * - Without a group the position lives with us; with one, in the group: partitions begin and end as membership says
 *   (group-reading.ts).
 * - `start` counts for partitions that exist and have no position when reading begins; it is resolved at once and noted
 *   by an empty delivery. What appears later begins at its oldest.
 * - Offsets that are out of range, and a topic made anew under its name, are gaps; then `on-gap` decides.
 * - A partition that moved, or whose broker is lost, is looked for at a pace while the others go on (watch.ts). Where
 *   nothing can go on all of it ends, for the core to open again.
 */
import { EMPTY, within } from '../../core/batch'
import type { Delivery, Partition, Position, Source, SourceContext } from '../../core/contract'
import { Disconnected, Fatal } from '../../core/errors'
import { linkedAbort, unlessAborted, Notifier } from '../../kit/signal'
import type { CreateSource, Target } from '../../options/define'
import { BlockBatch } from './block'
import { openCluster } from './client'
import { Fetcher } from './fetcher'
import type { Extent } from './group-end'
import { GroupReading } from './group-reading'
import { Memory } from './memory'
import { parsePartitions, type KafkaOptions } from './options'
import { covers, decodePosition, isSameTopic, partitionName, type KafkaPosition } from './position'
import { offsetsAt, parseStart, resolveStart, type Beginning, type Begun, type Start } from './start'
import { findTopics, missingFault, parseTopics, partitionFacts, type WantedTopics } from './topics'
import { Track } from './track'
import { committedOnly, gapFault, led, offsetFault, Watch, type Reading } from './watch'
import type { Cluster, Fetched } from './wire'

export const create: CreateSource<KafkaOptions> = (target) => new KafkaSource(target)

/** Without a group a partition is ours for good. */
const ONLY_EPOCH = 1

class KafkaSource implements Source {
  private readonly group: GroupReading | undefined
  private readonly wanted: WantedTopics
  private readonly wake = new Notifier()
  private readonly memory = new Memory()
  private readonly tasks = new Set<Promise<void>>()
  private life: ReturnType<typeof linkedAbort> | undefined
  private cluster: Cluster | undefined
  private reading: Reading | undefined
  private watch: Watch | undefined
  private timer: { stop(): void } | undefined
  private failure: { readonly error: unknown } | undefined
  private opening = false
  private start: Start | undefined
  private until: 'end' | number | undefined
  /** Where each partition was handed on to by this process, over openings and assignments. */
  private readonly handed = new Map<string, KafkaPosition>()
  /**
   * Gaps of deleted topics that were told already, for opening again finds them again: partitions with the new topic's
   * id.
   */
  private readonly told = new Set<string>()

  constructor(private readonly target: Target<KafkaOptions>) {
    const { options, uri } = target
    this.wanted = parseTopics(uri.path.replace(/^\//, ''))
    if (options.group !== undefined) this.group = new GroupReading(options.group, options)
  }

  async open(ctx: SourceContext): Promise<void> {
    const { options, label } = this.target
    this.failure = undefined
    this.opening = true
    this.start ??= parseStart(options.start, ctx.clock.now())
    const life = (this.life = linkedAbort(ctx.signal))
    const { signal } = life.controller
    const cluster = (this.cluster = await openCluster(this.target, signal))
    const { found, missing } = await findTopics(cluster, this.wanted, signal)
    if (missing.length > 0) throw missingFault(missing)
    if (found.size === 0) ctx.log.warn(`no topic of ${label} exists yet; waiting for one`)
    const fetcher = new Fetcher({
      cluster,
      clock: ctx.clock,
      signal,
      buffer: options.fetchMaxBytes,
      replicaMs: options.metadataEvery,
      fetch: {
        maxWaitMs: options.fetchWait,
        minBytes: options.fetchMinBytes,
        maxBytes: options.fetchMaxBytes,
        committedOnly: options.isolation === 'committed',
        rack: options.rack ?? '',
      },
      changed: () => {
        this.wake.notify()
      },
      seen: (track) => {
        ctx.gauge(`lag ${track.name}`, track.lag)
      },
      refused: (track: Track, fetched: Fetched) => {
        watch.refused(track, fetched)
      },
      reached: (broker) => {
        watch.reached(broker)
      },
      unreachable: (broker, error) => {
        watch.unreachable(broker, error)
      },
      failed: (error) => {
        this.fail(error)
      },
    })
    const reading: Reading = (this.reading = {
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
      this.run(work)
    }
    const fail = (error: unknown): void => {
      this.fail(error)
    }
    const begin = (beginnings: readonly Beginning[]): Promise<void> => this.begin(beginnings, reading)
    const watch = (this.watch = new Watch(reading, { run, fail, begin, looked: () => this.looked(reading) }))
    if (this.group === undefined) await begin(this.partitions(reading).map((one) => this.resumed(one, reading)))
    else
      await this.group.start({
        ctx,
        cluster,
        signal,
        topics: () => reading.topics,
        run,
        fail,
        begin,
        giveUp: (name) => {
          this.giveUp(name)
        },
        handed: (name) => this.handed.get(name),
        isIdle: () => fetcher.all.length === 0 && this.tasks.size === 0,
        leaderEpoch: (name) => this.track(name)?.leaderEpoch ?? -1,
      })
    this.timer = ctx.clock.every(options.metadataEvery, () => {
      watch.refresh()
    })
    this.opening = false
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    const { reading } = this
    if (reading === undefined) throw new Disconnected('not connected')
    for (;;) {
      signal.throwIfAborted()
      if (this.failure !== undefined) throw this.failure.error
      const ready = reading.fetcher.take()
      if (ready !== undefined) {
        const { track, blocks, next } = ready
        reading.ctx.gauge(`lag ${track.name}`, track.lag)
        this.handed.set(track.name, { offset: next, topicId: track.topicId })
        const batch = blocks.length === 0 ? undefined : new BlockBatch(blocks, this.memory)
        return {
          batch: batch ?? EMPTY,
          partition: track.place,
          last: track.position(next),
          at: within(batch?.count ?? 0, (index) =>
            track.position(batch === undefined ? next : batch.offset(index) + 1),
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
      if (this.isFinished(reading.fetcher)) return null
      await unlessAborted(this.wake.wait(), signal)
    }
  }

  async commit(partition: Partition, upTo: Position): Promise<void> {
    const position = decodePosition(upTo)
    const track = this.track(partition.name)
    // The offset of a topic that is gone says nothing about the one that has its name now.
    if (
      this.group === undefined ||
      position === undefined ||
      (track !== undefined && !isSameTopic(track.topicId, position.topicId))
    )
      return
    await this.group.commit(partition, position.offset)
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
    const { life, reading, cluster, watch } = this
    this.timer?.stop()
    life?.controller.abort(new Disconnected('closed here'))
    await Promise.all([reading?.fetcher.settled(), watch?.settled(), ...this.tasks])
    // After a fault the core opens again: still a member, it goes on where it was.
    await this.group?.stop(this.failure !== undefined || this.opening)
    await cluster?.close()
    life?.dispose()
    this.life = this.reading = this.cluster = this.watch = this.timer = undefined
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

  private fail(error: unknown): void {
    if (this.life?.controller.signal.aborted !== false) return
    this.failure ??= { error }
    this.wake.notify()
  }

  private track(name: string): Track | undefined {
    return this.reading?.fetcher.all.find((track) => track.name === name)
  }

  private giveUp(name: string): void {
    const track = this.track(name)
    if (track !== undefined) this.reading?.fetcher.drop(track)
    this.reading?.ctx.gauge(`lag ${name}`, 0)
    this.wake.notify()
  }

  /** Those that are to be read without a group, all of them or as `partition` names them. */
  private partitions({
    topics,
    options,
  }: Reading): readonly { readonly topic: string; readonly partition: number; readonly offset?: number }[] {
    const asked = options.partition === undefined ? undefined : parsePartitions(options.partition)
    return [...topics.values()].flatMap(({ name, partitions }) => {
      const unknown = [...(asked?.keys() ?? [])].find(
        (number) => !partitions.some(({ partition }) => partition === number),
      )
      if (unknown !== undefined)
        throw new Fatal(
          `topic ${name} has no partition ${unknown}: it has ${partitions.length}, the first of which is 0`,
        )
      return partitions
        .filter(({ partition }) => asked?.has(partition) ?? true)
        .map(({ partition }) => {
          const offset = asked?.get(partition)
          return { topic: name, partition, ...(offset === undefined ? {} : { offset }) }
        })
    })
  }

  /** Without a group: at the position that we keep; where others of this source have one, it is new since then. */
  private resumed(
    { topic, partition, offset }: { readonly topic: string; readonly partition: number; readonly offset?: number },
    { ctx, topics }: Reading,
  ): Beginning {
    const stored = ctx.resume(partitionName(topic, partition))
    const position = stored === undefined ? undefined : decodePosition(stored)
    const place = { topic, partition, epoch: ONLY_EPOCH }
    if (stored !== undefined && position !== undefined)
      return isSameTopic(position.topicId, topics.get(topic)?.id)
        ? { ...place, at: position.offset }
        : { ...place, deleted: stored }
    if (offset !== undefined) return { ...place, at: offset, named: true }
    return ctx.resumable().length > 0 ? { ...place, at: 'oldest' } : place
  }

  /** Begins to read partitions: where they were, or where they are to begin. */
  private async begin(beginnings: readonly Beginning[], reading: Reading): Promise<void> {
    const { ctx, fetcher, cluster, signal, options } = reading
    const { start } = this
    if (start === undefined || beginnings.length === 0) return
    const begun = new Map<Beginning, Begun>()
    const unresolved = beginnings.filter((one) => typeof one.at !== 'number')
    for (const [kind, some] of Map.groupBy(unresolved, (one) =>
      one.at === 'oldest' ? 'oldest' : one.deleted !== undefined ? options.onGap : 'start',
    )) {
      const from: Start = kind === 'start' ? start : { kind: kind === 'latest' ? 'latest' : 'oldest' }
      const found = await resolveStart(
        from,
        cluster,
        await led(reading, some),
        committedOnly(reading),
        offsetFault,
        signal,
      )
      some.forEach((one, index) => {
        const at = found[index]
        if (at === undefined) return
        begun.set(one, at)
        if (from.kind === 'offset' && from.offset > at.latest)
          ctx.log.warn(beyondEnd(`start=${from.offset}`, one, at.latest))
      })
    }
    await refuseBeyondEnd(
      beginnings.filter(({ named }) => named === true),
      reading,
    )
    const { topics } = reading
    const tracks: Track[] = []
    const noted: Track[] = []
    for (const one of beginnings) {
      const { topic, partition, epoch, at, deleted } = one
      const facts = partitionFacts(topics, topic, partition) ?? { leader: -1, leaderEpoch: -1 }
      const track = new Track(
        topic,
        topics.get(topic)?.id ?? '',
        partition,
        epoch,
        begun.get(one)?.offset ?? (typeof at === 'number' ? at : 0),
        facts,
        options.partitionMaxBytes,
      )
      if (this.track(track.name) !== undefined) continue
      if (deleted !== undefined) this.madeAnew(track, deleted, reading)
      if (facts.leader < 0) track.stalled = track.lost = true
      tracks.push(track)
      // Also where it was given: the position is known before the first record.
      if (begun.has(one) || one.again === true || (this.group === undefined && ctx.resume(track.name) === undefined))
        noted.push(track)
    }
    await this.setEnds(tracks, reading)
    signal.throwIfAborted()
    fetcher.add(tracks)
    for (const track of noted) fetcher.note(track)
    if (tracks.some(({ lost }) => lost)) this.watch?.refresh()
    this.wake.notify()
  }

  /** @param from the position in the deleted topic */
  private madeAnew(track: Track, from: string, { ctx, options }: Reading): void {
    const key = `${track.name} ${track.topicId}`
    if (this.told.has(key)) return
    this.told.add(key)
    const why = `topic ${track.topic} was deleted and made anew`
    ctx.gap({ partition: track.name, from, to: 'the end of the deleted topic', why })
    if (options.onGap === 'fail') throw gapFault(why)
  }

  /** What appears while we read begins at its oldest. */
  private async looked(reading: Reading): Promise<void> {
    if (this.group !== undefined) {
      this.group.topicsChanged()
      return
    }
    const added = this.partitions(reading).filter(
      ({ topic, partition }) => this.track(partitionName(topic, partition)) === undefined,
    )
    await this.begin(
      added.map((one): Beginning => {
        const found = this.resumed(one, reading)
        return found.at === undefined && found.deleted === undefined ? { ...found, at: 'oldest' } : found
      }),
      reading,
    )
  }

  private async endAt(until: 'end' | number): Promise<ReadonlyMap<string, Position | null>> {
    const { reading } = this
    if (reading === undefined) throw new Disconnected('not connected')
    const { fetcher } = reading
    this.until = until
    await this.setEnds(fetcher.all, reading)
    if (this.group?.wantsEnds === true) this.group.endAt(await this.extents(until, reading))
    fetcher.moved()
    return new Map(
      fetcher.all.map((track) => [
        track.name,
        track.end === undefined || track.end <= track.handed ? null : track.position(track.end),
      ]),
    )
  }

  private async setEnds(tracks: readonly Track[], reading: Reading): Promise<void> {
    const { until } = this
    const open = tracks.filter((track) => track.end === undefined)
    if (until === undefined || open.length === 0) return
    const ends = await this.endsOf(open, until, reading)
    open.forEach((track, index) => {
      track.end = ends[index] ?? 0
    })
  }

  private async endsOf(
    partitions: readonly { readonly topic: string; readonly partition: number }[],
    until: 'end' | number,
    reading: Reading,
  ): Promise<readonly number[]> {
    const asked = await led(reading, partitions)
    const at = (when: 'latest' | number): Promise<readonly number[]> =>
      offsetsAt(reading.cluster, asked, when, committedOnly(reading), offsetFault, reading.signal)
    const [latest, timed] = await Promise.all([at('latest'), until === 'end' ? undefined : at(until)])
    return latest.map((end, index) => {
      const then = timed?.[index] ?? -1
      return then < 0 ? end : Math.min(then, end)
    })
  }

  /** Of all partitions that are meant, whoever of the group reads them. */
  private async extents(until: 'end' | number, reading: Reading): Promise<readonly Extent[]> {
    const all = [...reading.topics.values()].flatMap(({ name, partitions }) =>
      partitions.map(({ partition }) => ({ topic: name, partition })),
    )
    const asked = await led(reading, all)
    const [ends, oldest] = await Promise.all([
      this.endsOf(all, until, reading),
      offsetsAt(reading.cluster, asked, 'earliest', false, offsetFault, reading.signal),
    ])
    return all.map((at, index) => ({ ...at, oldest: oldest[index] ?? 0, end: ends[index] ?? 0 }))
  }

  private isFinished({ all }: Fetcher): boolean {
    const { until, group, tasks } = this
    if (until === undefined || tasks.size > 0) return false
    // With empty hands: partitions may be about to come, or were taken away before their end.
    if (group !== undefined && (all.length === 0 || !group.isSettled)) return all.length === 0 && group.isOver
    return all.every((track) => track.finished)
  }
}

function beyondEnd(what: string, { topic, partition }: Beginning, end: number): string {
  return `${what} lies beyond the end of ${partitionName(topic, partition)}, which is ${end}: it begins there`
}

/**
 * Whoever names an offset that is not there yet means another one: reading anything else, or nothing, would be a
 * surprise.
 */
async function refuseBeyondEnd(named: readonly Beginning[], reading: Reading): Promise<void> {
  if (named.length === 0) return
  const asked = await led(reading, named)
  const ends = await offsetsAt(reading.cluster, asked, 'latest', committedOnly(reading), offsetFault, reading.signal)
  named.forEach(({ topic, partition, at }, index) => {
    const end = ends[index] ?? 0
    if (typeof at !== 'number' || at <= end) return
    throw new Fatal(
      `partition=${partition}:${at} lies beyond the end of ${partitionName(topic, partition)}, which is ${end}: correct the offset`,
    )
  })
}
