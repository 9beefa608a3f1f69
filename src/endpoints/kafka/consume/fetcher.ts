/**
 * Keeps one fetch under way per broker, and holds decoded records ready in the order of each partition.
 *
 * - The next answer is requested while one is decoded: the headers of its batches tell where each partition goes on.
 * - No fetch is sent while `bufferBytes` bytes wait to be read. At most that, one answer being decoded and one on its
 *   way per broker are in memory.
 * - A fault of a partition (another leader, an offset out of range) pauses that partition alone until `resume`. A
 *   broker that cannot be reached is reported, and is asked again once `update` finds partitions to read from it.
 */
import type { Clock } from '../../../core/contract'
import { Disconnected, Fatal } from '../../../core/errors'
import { Notifier, unlessAborted } from '../../../kit/signal'
import { Damaged, nextOffset, Unreadable } from '../protocol/record-batch'
import { decodeRecordSet } from './record-set'
import type { FetchedRun, PartitionState } from './partition-state'
import type { Cluster, FetchRequest, FetchResult, FetchOptions } from '../protocol/cluster'

/** A delivery ends where it has so many bytes. */
const DELIVERY_BYTES = 1024 * 1024
/** So many answers without records, over so long, say that a leader has none. */
const EMPTY_ANSWERS = 3
const EMPTY_MS = 2000
/**
 * The broker notes the high-water mark before it reads, and the log grows meanwhile: only offsets that lie absurdly far
 * beyond it are damage.
 */
const MAX_LOG_GROWTH = 2 ** 32
/** A partition that could not even send one batch is asked for as much as that needs, up to this. */
const MAX_FETCH_BYTES = 1024 * 1024 * 1024

export interface FetcherContext {
  readonly cluster: Cluster
  readonly clock: Clock
  readonly fetch: FetchOptions
  /** Bytes that may wait to be read. */
  readonly bufferBytes: number
  /** A nearer replica is left for the leader after so long, milliseconds, to be chosen anew. */
  readonly replicaMs: number
  readonly signal: AbortSignal
  /** Something can be read, or all is finished. */
  onChanged(): void
  /** The broker has told how far the partition goes. */
  onProgress(state: PartitionState): void
  /** The broker refuses a partition, which is paused. */
  onRefused(state: PartitionState, fetched: FetchResult): void
  /** A broker has answered. */
  onReached(broker: number): void
  onUnreachable(broker: number, error: Disconnected): void
  onFailed(error: unknown): void
}

export class Fetcher {
  private readonly loops = new Map<number, { readonly wake: Notifier; readonly done: Promise<void> }>()
  private states: PartitionState[] = []
  private ready: FetchedRun[] = []
  private buffered = 0

  constructor(private readonly context: FetcherContext) {}

  get all(): readonly PartitionState[] {
    return this.states
  }

  add(states: readonly PartitionState[]): void {
    this.states.push(...states)
    this.update()
  }

  /** Given up: nothing of it is returned any more. */
  drop(state: PartitionState): void {
    state.revoked = true
    this.states = this.states.filter((other) => other !== state)
    this.discard(state)
  }

  /** Nothing more is asked for; what was fetched of it is still read. */
  retire(state: PartitionState): void {
    this.states = this.states.filter((other) => other !== state)
  }

  /** A fault has been dealt with; where `next` was changed, what was fetched of it is dropped. */
  resume(state: PartitionState): void {
    state.paused = false
    this.update()
  }

  /** Drops what was fetched and not read, because reading goes on elsewhere. */
  discard(state: PartitionState): void {
    for (const { state: other, bytes } of this.ready) if (other === state) this.buffered -= bytes
    this.ready = this.ready.filter((one) => one.state !== state)
    this.notifyAll()
  }

  /** Puts an empty run among what is read, so that the position is kept. */
  queuePosition(state: PartitionState): void {
    this.ready.push({ state, blocks: [], bytes: 0, next: state.next })
    this.context.onChanged()
  }

  /** Leaders, or what is to be read, may have changed. */
  update(): void {
    const now = this.context.clock.monotonic()
    for (const state of this.states) {
      const broker = state.brokerAt(now)
      if (broker < 0 || this.loops.has(broker)) continue
      const notifier = new Notifier()
      // Once it is stopped here, whatever ends the loop is its end.
      const done = this.loop(broker, notifier).catch((error: unknown) => {
        if (!this.context.signal.aborted) this.context.onFailed(error)
      })
      this.loops.set(broker, { wake: notifier, done })
    }
    this.notifyAll()
  }

  /** The next records, joined with what else has arrived of that partition. */
  takeNext(): FetchedRun | undefined {
    const first = this.ready.shift()
    if (first === undefined) return undefined
    const { state } = first
    let { bytes, next } = first
    const blocks = [...first.blocks]
    if (bytes < DELIVERY_BYTES && this.ready.some((one) => one.state === state)) {
      let full = false
      this.ready = this.ready.filter((one) => {
        if (one.state !== state || full) return true
        full = bytes + one.bytes > DELIVERY_BYTES
        if (full) return true
        blocks.push(...one.blocks)
        bytes += one.bytes
        next = one.next
        return false
      })
    }
    this.buffered -= bytes
    this.notifyAll()
    // Where reading is to end may lie within what was fetched, and may have been asked for only after that.
    const end = state.end ?? Infinity
    if (next <= end) {
      state.delivered = next
      return { state, blocks, bytes, next }
    }
    state.delivered = Math.max(end, state.delivered)
    return {
      state,
      blocks: blocks.map((block) => block.below(end)).filter((block) => block !== undefined),
      bytes,
      next: state.delivered,
    }
  }

  /** After the signal has aborted: all is at rest. */
  async settled(): Promise<void> {
    await Promise.all([...this.loops.values()].map(({ done }) => done))
  }

  private notifyAll(): void {
    for (const { wake: notifier } of this.loops.values()) notifier.notify()
  }

  private async loop(broker: number, notifier: Notifier): Promise<void> {
    const { signal } = this.context
    let inFlight: Promise<FetchAnswers | FetchFailure> | undefined
    for (;;) {
      inFlight ??= this.sendFetch(broker)
      if (inFlight === undefined) {
        await unlessAborted(notifier.wait(), signal)
        continue
      }
      const answers = await inFlight
      signal.throwIfAborted()
      if ('error' in answers) {
        if (!(answers.error instanceof Disconnected)) throw answers.error
        this.loops.delete(broker)
        this.context.onUnreachable(broker, answers.error)
        return
      }
      this.context.onReached(broker)
      const tasks = this.acceptAnswers(answers)
      inFlight = this.sendFetch(broker)
      await this.decode(tasks)
      if (tasks.some(({ state }) => state.brokerAt(this.context.clock.monotonic()) !== broker)) this.notifyAll()
    }
  }

  /** Never rejects: nobody may be waiting yet when it fails. */
  private sendFetch(broker: number): Promise<FetchAnswers | FetchFailure> | undefined {
    const { cluster, clock, fetch, signal, bufferBytes: buffer } = this.context
    if (signal.aborted) throw signal.reason
    if (this.buffered >= buffer) return undefined
    const now = clock.monotonic()
    const states = this.states.filter(
      (state) =>
        state.brokerAt(now) === broker &&
        !state.paused &&
        !state.finished &&
        (state.end === undefined || state.next < state.end) &&
        (state.inFlight.count === 0 || state.inFlight.broker === broker),
    )
    if (states.length === 0) return undefined
    for (const state of states) state.inFlight = { broker, count: state.inFlight.count + 1 }
    const requests = states.map(
      ({ topic, topicId, partition, leaderEpoch, next, maxBytes }): FetchRequest => ({
        topic,
        topicId,
        partition,
        leaderEpoch,
        offset: next,
        maxBytes,
      }),
    )
    const largest = Math.max(fetch.maxBytes, ...states.map(({ maxBytes }) => maxBytes))
    const from = states.map(({ next }) => next)
    return cluster.fetch(broker, requests, { ...fetch, maxBytes: largest }, signal).then(
      (fetched) => ({ broker, states, from, fetched }),
      (error: unknown) => {
        for (const state of states) state.inFlight.count--
        return { error }
      },
    )
  }

  /** Notes how far each partition is and says what is to be decoded. */
  private acceptAnswers({ broker, states, from, fetched }: FetchAnswers): readonly DecodeTask[] {
    const { clock, replicaMs } = this.context
    const byName = new Map(fetched.map((one) => [`${one.topic} ${one.partition}`, one]))
    const nothing = fetched.every(({ records }) => records.length === 0)
    const tasks: DecodeTask[] = []
    const served = new Set<PartitionState>()
    states.forEach((state, index) => {
      const answer = byName.get(`${state.topic} ${state.partition}`)
      const offset = from[index] ?? state.next
      // An answer to a request from before a fault is of no use once the fault has been dealt with.
      if (answer === undefined || !this.states.includes(state) || state.paused || offset !== state.next) {
        state.inFlight.count--
        return
      }
      if (answer.error !== 0) {
        state.inFlight.count--
        state.paused = true
        this.context.onRefused(state, answer)
        return
      }
      state.isNewFault(false)
      state.highWatermark = answer.highWatermark
      this.context.onProgress(state)
      if (answer.preferredReplica >= 0 && answer.preferredReplica !== broker) {
        state.replica = { broker: answer.preferredReplica, until: clock.monotonic() + replicaMs }
        this.update()
      }
      if (answer.records.length === 0) {
        state.inFlight.count--
        // A leader that has room for records and sends none has none: what was there before the end is gone. But one
        // that throttles us sends none either.
        if (state.end === undefined || state.next >= state.end || !nothing || state.replica !== undefined) return
        state.emptyAnswers = {
          times: (state.emptyAnswers?.times ?? 0) + 1,
          since: state.emptyAnswers?.since ?? clock.monotonic(),
        }
        if (state.emptyAnswers.times < EMPTY_ANSWERS || clock.monotonic() - state.emptyAnswers.since < EMPTY_MS) return
        state.exhausted = true
        this.context.onChanged()
        return
      }
      state.emptyAnswers = undefined
      const next = nextOffset(answer.records, state.next)
      tasks.push({ state, from: state.next, next, answer })
      if (next > state.next) served.add(state)
      state.next = next
    })
    // Those that were served stand behind the others next time: a broker fills its answer in the order of the request.
    if (served.size > 0 && served.size < this.states.length) {
      this.states = [
        ...this.states.filter((state) => !served.has(state)),
        ...this.states.filter((state) => served.has(state)),
      ]
    }
    return tasks
  }

  private async decode(tasks: readonly DecodeTask[]): Promise<void> {
    const { committedOnly } = this.context.fetch
    for (const { state, from, next, answer } of tasks) {
      try {
        const set = await decodeRecordSet(answer.records, {
          from,
          before: answer.highWatermark + MAX_LOG_GROWTH,
          committedOnly,
          aborted: answer.aborted,
          blockBytes: DELIVERY_BYTES,
        })
        // Where reading goes on elsewhere meanwhile it is of no use; a partition that has lost its leader has it all
        // the same.
        if (state.revoked || state.next !== next) continue
        if (set.truncatedBytes > state.maxBytes) state.maxBytes = Math.min(MAX_FETCH_BYTES, set.truncatedBytes)
        this.queueBlocks(state, set.blocks, from, set.next)
      } catch (error) {
        throw faultOf(state, error)
      } finally {
        state.inFlight.count--
      }
    }
  }

  private queueBlocks(state: PartitionState, blocks: FetchedRun['blocks'], from: number, next: number): void {
    if (next === from) return
    let run: FetchedRun['blocks'][number][] = []
    let bytes = 0
    const flush = (to: number): void => {
      this.ready.push({ state, blocks: run, bytes, next: to })
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
    this.context.onChanged()
  }
}

interface FetchAnswers {
  readonly broker: number
  readonly states: readonly PartitionState[]
  readonly from: readonly number[]
  readonly fetched: readonly FetchResult[]
}
interface FetchFailure {
  readonly error: unknown
}
interface DecodeTask {
  readonly state: PartitionState
  readonly from: number
  readonly next: number
  readonly answer: FetchResult
}

function faultOf(state: PartitionState, error: unknown): unknown {
  if (error instanceof Unreadable) return new Fatal(`${state.name}: ${error.message}`, { cause: error })
  if (error instanceof Damaged)
    return new Disconnected(`${state.name}: what the broker sent is damaged: ${error.message}`, { cause: error })
  return error
}
