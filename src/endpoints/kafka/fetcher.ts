/**
 * Keeps fetches under way, one per broker, and what they bring at hand, decoded, in the order of each partition.
 *
 * - While one answer is decoded the next is already asked for: where a partition goes on is seen from the heads of its
 *   batches.
 * - Nothing is asked while `buffer` bytes wait to be read: at most that, and per broker one answer being decoded and
 *   one on its way, are in memory.
 * - A partition's fault (another leader, an offset out of range) stops only that partition until `resume`; a broker
 *   that cannot be reached is told of, and asked again once `moved` finds partitions that are to be read from it.
 */
import type { Clock } from '../../core/contract'
import { Disconnected, Fatal } from '../../core/errors'
import { Notifier, unlessAborted } from '../../kit/signal'
import { Damaged, nextOffset, Unreadable } from './record-batch'
import { decodeRecordSet } from './record-set'
import type { Ready, Track } from './track'
import type { Cluster, FetchAsk, Fetched, FetchOptions } from './wire'

/** A delivery ends where it has so many bytes. */
const DELIVERY_BYTES = 1024 * 1024
/** So many answers without records, over so long, say that a leader has none. */
const EMPTY_ANSWERS = 3
const EMPTY_MS = 2000
/**
 * The broker notes the high-water mark before it reads, and the log grows meanwhile: only offsets that lie absurdly far
 * beyond it are damage.
 */
const GROWTH = 2 ** 32
/** A partition that could not even send one batch is asked for as much as that needs, up to this. */
const MOST_ASKED = 1024 * 1024 * 1024

export interface FetcherParts {
  readonly cluster: Cluster
  readonly clock: Clock
  readonly fetch: FetchOptions
  /** Bytes that may wait to be read. */
  readonly buffer: number
  /** A nearer replica is left for the leader after so long, milliseconds, to be chosen anew. */
  readonly replicaMs: number
  readonly signal: AbortSignal
  /** Something can be read, or all is finished. */
  changed(): void
  /** The broker has told how far the partition goes. */
  seen(track: Track): void
  /** The broker refuses a partition; the track is stalled. */
  refused(track: Track, fetched: Fetched): void
  /** A broker has answered. */
  reached(broker: number): void
  unreachable(broker: number, error: Disconnected): void
  failed(error: unknown): void
}

export class Fetcher {
  private readonly loops = new Map<number, { readonly wake: Notifier; readonly done: Promise<void> }>()
  private tracks: Track[] = []
  private ready: Ready[] = []
  private buffered = 0

  constructor(private readonly parts: FetcherParts) {}

  get all(): readonly Track[] {
    return this.tracks
  }

  add(tracks: readonly Track[]): void {
    this.tracks.push(...tracks)
    this.moved()
  }

  /** Given up: nothing of it is returned any more. */
  drop(track: Track): void {
    track.gone = true
    this.tracks = this.tracks.filter((other) => other !== track)
    this.discard(track)
  }

  /** Nothing more is asked for; what was fetched of it is still read. */
  retire(track: Track): void {
    this.tracks = this.tracks.filter((other) => other !== track)
  }

  /** A fault has been dealt with; where `next` was changed, what was fetched of it is dropped. */
  resume(track: Track): void {
    track.stalled = false
    this.moved()
  }

  /** What was fetched and not read is dropped, for reading goes on elsewhere. */
  discard(track: Track): void {
    for (const { track: other, bytes } of this.ready) if (other === track) this.buffered -= bytes
    this.ready = this.ready.filter((one) => one.track !== track)
    this.wakeAll()
  }

  /** Puts an empty run among what is read, so that the position is kept. */
  note(track: Track): void {
    this.ready.push({ track, blocks: [], bytes: 0, next: track.next })
    this.parts.changed()
  }

  /** Leaders, or what is to be read, may have changed. */
  moved(): void {
    const now = this.parts.clock.monotonic()
    for (const track of this.tracks) {
      const broker = track.broker(now)
      if (broker < 0 || this.loops.has(broker)) continue
      const wake = new Notifier()
      // Once it is stopped here, whatever ends the loop is its end.
      const done = this.loop(broker, wake).catch((error: unknown) => {
        if (!this.parts.signal.aborted) this.parts.failed(error)
      })
      this.loops.set(broker, { wake, done })
    }
    this.wakeAll()
  }

  /** The next records, joined with what else has arrived of that partition. */
  take(): Ready | undefined {
    const first = this.ready.shift()
    if (first === undefined) return undefined
    const { track } = first
    let { bytes, next } = first
    const blocks = [...first.blocks]
    if (bytes < DELIVERY_BYTES && this.ready.some((one) => one.track === track)) {
      let full = false
      this.ready = this.ready.filter((one) => {
        if (one.track !== track || full) return true
        full = bytes + one.bytes > DELIVERY_BYTES
        if (full) return true
        blocks.push(...one.blocks)
        bytes += one.bytes
        next = one.next
        return false
      })
    }
    this.buffered -= bytes
    this.wakeAll()
    // Where reading is to end may lie within what was fetched, and may have been asked for only after that.
    const end = track.end ?? Infinity
    if (next <= end) {
      track.handed = next
      return { track, blocks, bytes, next }
    }
    track.handed = Math.max(end, track.handed)
    return {
      track,
      blocks: blocks.map((block) => block.below(end)).filter((block) => block !== undefined),
      bytes,
      next: track.handed,
    }
  }

  /** After the signal has aborted: all is at rest. */
  async settled(): Promise<void> {
    await Promise.all([...this.loops.values()].map(({ done }) => done))
  }

  private wakeAll(): void {
    for (const { wake } of this.loops.values()) wake.notify()
  }

  private async loop(broker: number, wake: Notifier): Promise<void> {
    const { signal } = this.parts
    let flying: Promise<Answers | Failed> | undefined
    for (;;) {
      flying ??= this.ask(broker)
      if (flying === undefined) {
        await unlessAborted(wake.wait(), signal)
        continue
      }
      const answers = await flying
      signal.throwIfAborted()
      if ('error' in answers) {
        if (!(answers.error instanceof Disconnected)) throw answers.error
        this.loops.delete(broker)
        this.parts.unreachable(broker, answers.error)
        return
      }
      this.parts.reached(broker)
      const work = this.accept(answers)
      flying = this.ask(broker)
      await this.decode(work)
      if (work.some(({ track }) => track.broker(this.parts.clock.monotonic()) !== broker)) this.wakeAll()
    }
  }

  /** Never rejects: nobody may be waiting yet when it fails. */
  private ask(broker: number): Promise<Answers | Failed> | undefined {
    const { cluster, clock, fetch, signal, buffer } = this.parts
    if (signal.aborted) throw signal.reason
    if (this.buffered >= buffer) return undefined
    const now = clock.monotonic()
    const tracks = this.tracks.filter(
      (track) =>
        track.broker(now) === broker &&
        !track.stalled &&
        !track.finished &&
        (track.end === undefined || track.next < track.end) &&
        (track.busy.count === 0 || track.busy.broker === broker),
    )
    if (tracks.length === 0) return undefined
    for (const track of tracks) track.busy = { broker, count: track.busy.count + 1 }
    const asks = tracks.map(
      ({ topic, topicId, partition, leaderEpoch, next, maxBytes }): FetchAsk => ({
        topic,
        topicId,
        partition,
        leaderEpoch,
        offset: next,
        maxBytes,
      }),
    )
    const largest = Math.max(fetch.maxBytes, ...tracks.map(({ maxBytes }) => maxBytes))
    const from = tracks.map(({ next }) => next)
    return cluster.fetch(broker, asks, { ...fetch, maxBytes: largest }, signal).then(
      (fetched) => ({ broker, tracks, from, fetched }),
      (error: unknown) => {
        for (const track of tracks) track.busy.count--
        return { error }
      },
    )
  }

  /** Notes how far each partition is and says what is to be decoded. */
  private accept({ broker, tracks, from, fetched }: Answers): readonly Work[] {
    const { clock, replicaMs } = this.parts
    const byName = new Map(fetched.map((one) => [`${one.topic} ${one.partition}`, one]))
    const nothing = fetched.every(({ records }) => records.length === 0)
    const work: Work[] = []
    const served = new Set<Track>()
    tracks.forEach((track, index) => {
      const answer = byName.get(`${track.topic} ${track.partition}`)
      const offset = from[index] ?? track.next
      // What was asked before a fault was dealt with is of no use any more.
      if (answer === undefined || !this.tracks.includes(track) || track.stalled || offset !== track.next) {
        track.busy.count--
        return
      }
      if (answer.error !== 0) {
        track.busy.count--
        track.stalled = true
        this.parts.refused(track, answer)
        return
      }
      track.tell(false)
      track.highWatermark = answer.highWatermark
      this.parts.seen(track)
      if (answer.preferredReplica >= 0 && answer.preferredReplica !== broker) {
        track.replica = { broker: answer.preferredReplica, until: clock.monotonic() + replicaMs }
        this.moved()
      }
      if (answer.records.length === 0) {
        track.busy.count--
        // A leader that has room for records and sends none has none: what was there before the end is gone. But one
        // that throttles us sends none either.
        if (track.end === undefined || track.next >= track.end || !nothing || track.replica !== undefined) return
        track.empty = { times: (track.empty?.times ?? 0) + 1, since: track.empty?.since ?? clock.monotonic() }
        if (track.empty.times < EMPTY_ANSWERS || clock.monotonic() - track.empty.since < EMPTY_MS) return
        track.exhausted = true
        this.parts.changed()
        return
      }
      track.empty = undefined
      const next = nextOffset(answer.records, track.next)
      work.push({ track, from: track.next, next, answer })
      if (next > track.next) served.add(track)
      track.next = next
    })
    // Those that were served stand behind the others next time: a broker fills its answer in the order of the request.
    if (served.size > 0 && served.size < this.tracks.length) {
      this.tracks = [
        ...this.tracks.filter((track) => !served.has(track)),
        ...this.tracks.filter((track) => served.has(track)),
      ]
    }
    return work
  }

  private async decode(work: readonly Work[]): Promise<void> {
    const { committedOnly } = this.parts.fetch
    for (const { track, from, next, answer } of work) {
      try {
        const set = await decodeRecordSet(answer.records, {
          from,
          before: answer.highWatermark + GROWTH,
          committedOnly,
          aborted: answer.aborted,
          blockBytes: DELIVERY_BYTES,
        })
        // Where reading goes on elsewhere meanwhile it is of no use; a partition that has lost its leader has it all
        // the same.
        if (track.gone || track.next !== next) continue
        if (set.cutOff > track.maxBytes) track.maxBytes = Math.min(MOST_ASKED, set.cutOff)
        this.push(track, set.blocks, from, set.next)
      } catch (error) {
        throw faultOf(track, error)
      } finally {
        track.busy.count--
      }
    }
  }

  private push(track: Track, blocks: Ready['blocks'], from: number, next: number): void {
    if (next === from) return
    let run: Ready['blocks'][number][] = []
    let bytes = 0
    const flush = (to: number): void => {
      this.ready.push({ track, blocks: run, bytes, next: to })
      this.buffered += bytes
      run = []
      bytes = 0
    }
    for (const block of blocks) {
      if (run.length > 0 && bytes + block.bytes > DELIVERY_BYTES) flush(block.offset(0))
      run.push(block)
      bytes += block.bytes
    }
    flush(next)
    this.parts.changed()
  }
}

interface Answers {
  readonly broker: number
  readonly tracks: readonly Track[]
  readonly from: readonly number[]
  readonly fetched: readonly Fetched[]
}
interface Failed {
  readonly error: unknown
}
interface Work {
  readonly track: Track
  readonly from: number
  readonly next: number
  readonly answer: Fetched
}

function faultOf(track: Track, error: unknown): unknown {
  if (error instanceof Unreadable) return new Fatal(`${track.name}: ${error.message}`, { cause: error })
  if (error instanceof Damaged)
    return new Disconnected(`${track.name}: what the broker sent is damaged: ${error.message}`, { cause: error })
  return error
}
