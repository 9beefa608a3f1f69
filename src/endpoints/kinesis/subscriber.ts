/**
 * One shard by SubscribeToShard: what the service pushes, taken off the wire only as it is asked for, so that a slow
 * reader is the connection's to hold back.
 *
 * - A subscription ends after five minutes, or is cut at any moment: the next one begins after what was handed on last,
 *   which is known by the events' continuation, also where no record came. Nothing is passed over, nothing comes twice.
 * - One call in five seconds, also over openings (`turn`). What asks for patience, a subscription that somebody still
 *   has, and one that was cut are the shard's own matter: it subscribes again, later each time, while other shards go
 *   on. What does not end within bounds is the core's.
 * - The service tells of itself every few seconds: silence is a fault.
 */
import type { Clock } from '../../core/contract'
import { Disconnected, Throttled } from '../../core/errors'
import { linkedAbort, unlessAborted } from '../../kit/signal'
import type { Budget } from './budget'
import { SUBSCRIBE_EVERY_MS } from './options'
import { isAtTip, sizeOf } from './poller'
import {
  InUse,
  type Beginning,
  type Consumer,
  type KinesisWire,
  type Page,
  type PushedPage,
  type ShardReader,
} from './wire'

/**
 * Without any event; the Kinesis Client Library gives up after so long (ShardConsumer,
 * MAX_TIME_BETWEEN_REQUEST_RESPONSE).
 */
const SILENT_MS = 35_000
/**
 * A call that failed is followed by another one after a second ("SubscribeToShard": one a second, consumer and shard),
 * then later each time.
 */
const FAILED_EVERY_MS = 1000
const LONGEST_PAUSE_MS = 10_000
/**
 * Asking for patience for so long is a fault to be told; and so is a subscription of somebody else for so long: ours
 * ends a few seconds after it was cut.
 */
const THROTTLED_MS = 300_000
const IN_USE_MS = 60_000
/** Subscriptions in a row that fail before any event. */
const MOST_FAILURES = 3
/** What an event is expected to hold where nothing is known yet, and at most. */
const LEAST_EXPECTED = 64 * 1024
const MOST_EXPECTED = 4 * 1024 * 1024
/**
 * Events without a record, in a row, after which a closed shard is asked whether it has ended: emulators do not tell.
 */
const QUIET_EVENTS = 3

/** When the shard may be subscribed to again, in the clock's time. Lives as long as the source. */
export interface Turn {
  at: number
}

export interface SubscriberParts {
  readonly wire: Pick<KinesisWire, 'subscribe' | 'iterator' | 'records'>
  readonly consumer: Consumer
  readonly shard: string
  readonly from: Beginning
  readonly turn: Turn
  readonly budget: Budget
  readonly clock: Clock
  /** As listed last. */
  isClosed(): boolean
  /** Calls in a row for which patience was asked; 0: it is over. */
  throttled(times: number): void
  /** Subscriptions in a row that somebody else has taken over. */
  takenOver(times: number): void
}
/** `asOf`: when it began. */
interface Subscription {
  readonly events: AsyncGenerator<PushedPage, void, undefined>
  readonly life: ReturnType<typeof linkedAbort>
  readonly asOf: number
  told: boolean
}

export class Subscriber implements ShardReader {
  private from: Beginning
  private current: Subscription | undefined
  private expected = LEAST_EXPECTED
  private failures = 0
  private refusals = { times: 0, since: 0 }
  private takeovers = 0
  private quiet = 0

  constructor(private readonly parts: SubscriberParts) {
    this.from = parts.from
  }

  async next(signal: AbortSignal): Promise<Page & { readonly ended: boolean }> {
    for (;;) {
      try {
        const current = (this.current ??= await this.subscribe(signal))
        const page = await this.pull(current, signal)
        if (page !== undefined) return await this.took(page, current, signal)
        await this.close()
        this.takeovers = 0
        if (!current.told)
          this.survive(new Disconnected(`a subscription to ${this.parts.shard} ended before its first event`))
      } catch (error) {
        const stood = this.current !== undefined
        await this.close()
        signal.throwIfAborted()
        if (stood && error instanceof InUse) this.parts.takenOver(++this.takeovers)
        this.survive(error)
      }
    }
  }

  async close(): Promise<void> {
    const { current } = this
    this.current = undefined
    if (current === undefined) return
    current.life.controller.abort(new Disconnected('the subscription ended'))
    // It fails with what ended it.
    await current.events.return().catch(() => undefined)
    current.life.dispose()
  }

  private async subscribe(signal: AbortSignal): Promise<Subscription> {
    const { wire, consumer, shard, turn, clock } = this.parts
    const wait = turn.at - clock.monotonic()
    if (wait > 0) await clock.sleep(wait, signal)
    const life = linkedAbort(signal)
    const asOf = clock.now()
    const askedAt = clock.monotonic()
    const { from } = this
    // What arrives from now on must not be passed over by another subscription.
    if (from.kind === 'latest') this.from = { kind: 'time', time: asOf }
    try {
      const events = await this.within(wire.subscribe(consumer, shard, from, life.controller.signal), life.controller)
      turn.at = clock.monotonic() + SUBSCRIBE_EVERY_MS
      return { events, life, asOf, told: false }
    } catch (error) {
      life.controller.abort(error)
      life.dispose()
      // Without an answer it may have succeeded.
      turn.at =
        error instanceof Throttled || error instanceof InUse
          ? askedAt + FAILED_EVERY_MS
          : clock.monotonic() + SUBSCRIBE_EVERY_MS
      throw error
    }
  }

  private async pull({ events, life }: Subscription, signal: AbortSignal): Promise<PushedPage | undefined> {
    const { budget } = this.parts
    const { expected } = this
    await budget.take(expected, signal)
    try {
      const result = await this.within(events.next(), life.controller)
      return result.done === true ? undefined : result.value
    } finally {
      budget.give(expected)
    }
  }

  private async took(
    page: PushedPage,
    current: Subscription,
    signal: AbortSignal,
  ): Promise<Page & { readonly ended: boolean }> {
    const { records, continuation, children } = page
    if (this.refusals.times > 0) this.parts.throttled(0)
    this.refusals = { times: 0, since: 0 }
    this.failures = 0
    current.told = true
    const sequence = continuation ?? records.at(-1)?.sequence
    if (sequence !== undefined) this.from = { kind: 'after', sequence }
    // At its tip it waits for what may not come for hours: nothing is set aside for that.
    const tip = isAtTip(page, Infinity)
    this.expected = tip ? 0 : Math.min(MOST_EXPECTED, Math.max(LEAST_EXPECTED, sizeOf(records)))
    // What was pushed may have waited on the wire since the subscription began.
    const told = { ...page, asOf: current.asOf, ended: continuation === undefined || children.length > 0 }
    this.quiet = tip && records.length === 0 && !told.ended && this.parts.isClosed() ? this.quiet + 1 : 0
    return this.quiet < QUIET_EVENTS ? told : { ...told, ...(await this.askEnd(signal)) }
  }

  /**
   * By GetRecords: a closed shard has ended where nothing is left and nothing follows. Records are left for the events
   * to bring.
   */
  private async askEnd(
    signal: AbortSignal,
  ): Promise<(Pick<Page, 'children'> & { readonly ended: boolean }) | undefined> {
    const { wire, shard } = this.parts
    this.quiet = 0
    try {
      const { records, next, children } = await wire.records(await wire.iterator(shard, this.from, signal), 1, signal)
      return records.length === 0 && next === undefined ? { children, ended: true } : undefined
    } catch (error) {
      signal.throwIfAborted()
      // It is asked again in a while; who tells the end among the events need not allow this question.
      if (error instanceof Error) return undefined
      throw error
    }
  }

  /** What comes of it, unless nothing comes for too long. */
  private async within<T>(work: Promise<T>, life: AbortController): Promise<T> {
    const { clock, shard } = this.parts
    const timer = linkedAbort(life.signal)
    clock.sleep(SILENT_MS, timer.controller.signal).then(
      () => {
        life.abort(new Disconnected(`Kinesis has told nothing of ${shard} for ${SILENT_MS / 1000} s`))
      },
      () => undefined,
    )
    try {
      return await unlessAborted(work, life.signal)
    } finally {
      timer.controller.abort(new Error('over'))
      timer.dispose()
    }
  }

  /** Throws what is not the shard's own matter (any more); else the next turn comes after a pause. */
  private survive(error: unknown): void {
    const { turn, clock } = this.parts
    const now = clock.monotonic()
    if (error instanceof Throttled || error instanceof InUse) {
      if (this.refusals.times === 0) this.refusals.since = now
      else if (now - this.refusals.since > (error instanceof InUse ? IN_USE_MS : THROTTLED_MS)) throw error
      const times = ++this.refusals.times
      if (error instanceof Throttled) this.parts.throttled(times)
      const pause = error instanceof Throttled ? Math.max(error.afterMs ?? 0, pauseOf(times)) : FAILED_EVERY_MS
      turn.at = Math.max(turn.at, now + pause)
      return
    }
    if (!(error instanceof Disconnected) || ++this.failures >= MOST_FAILURES) throw error
    turn.at = Math.max(turn.at, now + pauseOf(this.failures))
  }
}

function pauseOf(times: number): number {
  return Math.min(LONGEST_PAUSE_MS, FAILED_EVERY_MS * 2 ** Math.min(times - 1, 10)) * (1 + Math.random() / 4)
}
