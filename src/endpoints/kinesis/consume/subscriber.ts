/**
 * One shard by SubscribeToShard: what the service pushes, taken off the wire only as it is asked for, so that a slow
 * reader is the connection's to hold back.
 *
 * - A subscription ends after five minutes, or is cut at any moment: the next one begins after what was handed on last,
 *   which is known by the events' continuation, also where no record came. Nothing is passed over, nothing comes twice.
 * - One call in five seconds, also over openings (`schedule`). What asks for patience, a subscription that somebody
 *   still has, and one that was cut are the shard's own matter: it subscribes again, later each time, while other
 *   shards go on. What does not end within bounds is the core's.
 * - The service tells of itself every few seconds: silence is a fault.
 */
import type { Clock } from '../../../core/contract'
import { Disconnected, Throttled } from '../../../core/errors'
import { linkedAbort, unlessAborted } from '../../../kit/signal'
import type { MemoryBudget } from './memory-budget'
import { SUBSCRIBE_EVERY_MS } from '../options'
import { isAtTip, sizeOf } from './poller'
import {
  InUse,
  type ReadStart,
  type Consumer,
  type StreamClient,
  type Page,
  type PushedPage,
  type ShardReader,
} from '../stream-client'

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
const MAX_PAUSE_MS = 10_000
/**
 * Asking for patience for so long is a fault to be told; and so is a subscription of somebody else for so long: ours
 * ends a few seconds after it was cut.
 */
const THROTTLED_MS = 300_000
const IN_USE_MS = 60_000
/** Subscriptions in a row that fail before any event. */
const MAX_FAILURES = 3
/** Bytes that an event is expected to hold where nothing is known yet, and at most. */
const MIN_EXPECTED_BYTES = 64 * 1024
const MAX_EXPECTED_BYTES = 4 * 1024 * 1024
/**
 * Events without a record, in a row, after which a closed shard is asked whether it has ended: emulators do not tell.
 */
const QUIET_EVENTS = 3

/** When the shard may be subscribed to again, in the clock's time. Lives as long as the source. */
export interface SubscribeSchedule {
  nextAt: number
}

export interface SubscriberContext {
  readonly client: Pick<StreamClient, 'subscribe' | 'iterator' | 'records'>
  readonly consumer: Consumer
  readonly shard: string
  readonly from: ReadStart
  readonly schedule: SubscribeSchedule
  readonly budget: MemoryBudget
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
  readonly lifetime: ReturnType<typeof linkedAbort>
  readonly asOf: number
  hasEvents: boolean
}

export class Subscriber implements ShardReader {
  private from: ReadStart
  private current: Subscription | undefined
  private expectedBytes = MIN_EXPECTED_BYTES
  private failures = 0
  private refusals = { times: 0, since: 0 }
  private takeovers = 0
  private quietEvents = 0

  constructor(private readonly context: SubscriberContext) {
    this.from = context.from
  }

  async next(signal: AbortSignal): Promise<Page & { readonly ended: boolean }> {
    for (;;) {
      try {
        const current = (this.current ??= await this.subscribe(signal))
        const page = await this.nextEvent(current, signal)
        if (page !== undefined) return await this.handlePage(page, current, signal)
        await this.close()
        this.takeovers = 0
        if (!current.hasEvents)
          this.scheduleRetry(new Disconnected(`a subscription to ${this.context.shard} ended before its first event`))
      } catch (error) {
        const stood = this.current !== undefined
        await this.close()
        signal.throwIfAborted()
        if (stood && error instanceof InUse) this.context.takenOver(++this.takeovers)
        this.scheduleRetry(error)
      }
    }
  }

  async close(): Promise<void> {
    const { current } = this
    this.current = undefined
    if (current === undefined) return
    current.lifetime.controller.abort(new Disconnected('the subscription ended'))
    // It fails with what ended it.
    await current.events.return().catch(() => undefined)
    current.lifetime.dispose()
  }

  private async subscribe(signal: AbortSignal): Promise<Subscription> {
    const { client, consumer, shard, schedule, clock } = this.context
    const wait = schedule.nextAt - clock.monotonic()
    if (wait > 0) await clock.sleep(wait, signal)
    const lifetime = linkedAbort(signal)
    const asOf = clock.now()
    const askedAt = clock.monotonic()
    const { from } = this
    // Records that arrive from now on must not be passed over by another subscription.
    if (from.kind === 'latest') this.from = { kind: 'time', time: asOf }
    try {
      const events = await this.withinSilence(
        client.subscribe(consumer, shard, from, lifetime.controller.signal),
        lifetime.controller,
      )
      schedule.nextAt = clock.monotonic() + SUBSCRIBE_EVERY_MS
      return { events, lifetime, asOf, hasEvents: false }
    } catch (error) {
      lifetime.controller.abort(error)
      lifetime.dispose()
      // Without an answer it may have succeeded.
      schedule.nextAt =
        error instanceof Throttled || error instanceof InUse
          ? askedAt + FAILED_EVERY_MS
          : clock.monotonic() + SUBSCRIBE_EVERY_MS
      throw error
    }
  }

  private async nextEvent({ events, lifetime }: Subscription, signal: AbortSignal): Promise<PushedPage | undefined> {
    const { budget } = this.context
    const { expectedBytes } = this
    await budget.acquire(expectedBytes, signal)
    try {
      const result = await this.withinSilence(events.next(), lifetime.controller)
      return result.done === true ? undefined : result.value
    } finally {
      budget.release(expectedBytes)
    }
  }

  private async handlePage(
    page: PushedPage,
    current: Subscription,
    signal: AbortSignal,
  ): Promise<Page & { readonly ended: boolean }> {
    const { records, continuation, children } = page
    if (this.refusals.times > 0) this.context.throttled(0)
    this.refusals = { times: 0, since: 0 }
    this.failures = 0
    current.hasEvents = true
    const sequence = continuation ?? records.at(-1)?.sequence
    if (sequence !== undefined) this.from = { kind: 'after', sequence }
    // At its tip it waits for what may not come for hours: nothing is set aside for that.
    const tip = isAtTip(page, Infinity)
    this.expectedBytes = tip ? 0 : Math.min(MAX_EXPECTED_BYTES, Math.max(MIN_EXPECTED_BYTES, sizeOf(records)))
    // Records that were pushed may have waited on the wire since the subscription began.
    const told = { ...page, asOf: current.asOf, ended: continuation === undefined || children.length > 0 }
    this.quietEvents = tip && records.length === 0 && !told.ended && this.context.isClosed() ? this.quietEvents + 1 : 0
    return this.quietEvents < QUIET_EVENTS ? told : { ...told, ...(await this.pollForEnd(signal)) }
  }

  /**
   * By GetRecords: a closed shard has ended where nothing is left and nothing follows. Records are left for the events
   * to bring.
   */
  private async pollForEnd(
    signal: AbortSignal,
  ): Promise<(Pick<Page, 'children'> & { readonly ended: boolean }) | undefined> {
    const { client, shard } = this.context
    this.quietEvents = 0
    try {
      const { records, next, children } = await client.records(
        await client.iterator(shard, this.from, signal),
        1,
        signal,
      )
      return records.length === 0 && next === undefined ? { children, ended: true } : undefined
    } catch (error) {
      signal.throwIfAborted()
      // It is asked again in a while; who tells the end among the events need not allow this question.
      if (error instanceof Error) return undefined
      throw error
    }
  }

  /** Resolves to the next event, unless nothing comes for too long. */
  private async withinSilence<T>(work: Promise<T>, lifetime: AbortController): Promise<T> {
    const { clock, shard } = this.context
    const timer = linkedAbort(lifetime.signal)
    clock.sleep(SILENT_MS, timer.controller.signal).then(
      () => {
        lifetime.abort(new Disconnected(`Kinesis has told nothing of ${shard} for ${SILENT_MS / 1000} s`))
      },
      () => undefined,
    )
    try {
      return await unlessAborted(work, lifetime.signal)
    } finally {
      timer.controller.abort(new Error('over'))
      timer.dispose()
    }
  }

  /** Throws what is not the shard's own matter (any more); else the next turn comes after a pause. */
  private scheduleRetry(error: unknown): void {
    const { schedule, clock } = this.context
    const now = clock.monotonic()
    if (error instanceof Throttled || error instanceof InUse) {
      if (this.refusals.times === 0) this.refusals.since = now
      else if (now - this.refusals.since > (error instanceof InUse ? IN_USE_MS : THROTTLED_MS)) throw error
      const times = ++this.refusals.times
      if (error instanceof Throttled) this.context.throttled(times)
      const pause = error instanceof Throttled ? Math.max(error.afterMs ?? 0, pauseOf(times)) : FAILED_EVERY_MS
      schedule.nextAt = Math.max(schedule.nextAt, now + pause)
      return
    }
    if (!(error instanceof Disconnected) || ++this.failures >= MAX_FAILURES) throw error
    schedule.nextAt = Math.max(schedule.nextAt, now + pauseOf(this.failures))
  }
}

function pauseOf(times: number): number {
  return Math.min(MAX_PAUSE_MS, FAILED_EVERY_MS * 2 ** Math.min(times - 1, 10)) * (1 + Math.random() / 4)
}
