/**
 * One shard by GetRecords, within what a shard allows (rate-limiter.ts): at its tip every `everyMs`, behind it as soon
 * as may be.
 *
 * - A throttle is the shard's own matter (its other readers take from the same share): the next call waits, longer each
 *   time, while other shards go on.
 * - An iterator that is too old is replaced at once by one after the last record; a second time before any answer it is
 *   the core's to wait.
 */
import type { Clock } from '../../../core/contract'
import { Throttled } from '../../../core/errors'
import type { MemoryBudget } from './memory-budget'
import { MAX_GET_BYTES } from '../options'
import type { RateLimiter } from './rate-limiter'
import {
  IteratorExpired,
  type ReadStart,
  type StreamClient,
  type Page,
  type PolledPage,
  type ShardReader,
  type StreamRecord,
} from '../stream-client'

/** Pauses after throttles, milliseconds, where the service names none. */
const FIRST_PAUSE_MS = 250
const MAX_PAUSE_MS = 10_000
/** A shard that gives nothing but throttles for so long is a fault to be told. */
const THROTTLED_MS = 300_000
/** Bytes that an answer is expected to need at the least. */
const MIN_EXPECTED_BYTES = 64 * 1024

export interface PollerContext {
  readonly client: Pick<StreamClient, 'iterator' | 'records'>
  readonly shard: string
  readonly from: ReadStart
  /** Records of an answer, at most. */
  readonly limit: number
  readonly everyMs: number
  readonly rateLimiter: RateLimiter
  readonly budget: MemoryBudget
  readonly clock: Clock
  /** Throttles so far, one after the other; 0: it is over. */
  throttled(times: number): void
}

export class Poller implements ShardReader {
  private from: ReadStart
  private iterator: string | undefined
  private expired = false
  private nextAt = 0
  private expectedBytes = MAX_GET_BYTES
  private throttles = { times: 0, since: 0 }

  constructor(private readonly context: PollerContext) {
    this.from = context.from
  }

  async next(signal: AbortSignal): Promise<Page & { readonly ended: boolean }> {
    const { clock } = this.context
    for (;;) {
      const wait = this.nextAt - clock.monotonic()
      if (wait > 0) await clock.sleep(wait, signal)
      try {
        const page = await this.poll(signal)
        if (this.throttles.times > 0) this.context.throttled(0)
        this.throttles = { times: 0, since: 0 }
        this.expired = false
        return { ...page, ended: page.next === undefined }
      } catch (error) {
        if (error instanceof IteratorExpired && !this.expired) {
          this.iterator = undefined
          this.expired = true
        } else if (error instanceof Throttled) this.backOff(error)
        else throw error
      }
    }
  }

  close(): Promise<void> {
    return Promise.resolve()
  }

  private async poll(signal: AbortSignal): Promise<PolledPage> {
    const { client, shard, rateLimiter, budget, clock, everyMs, limit } = this.context
    const { expectedBytes } = this
    if (this.iterator === undefined) {
      await rateLimiter.beforeIterator(signal)
      const madeAt = clock.now()
      this.iterator = await client.iterator(shard, this.from, signal)
      // Records that arrive from now on must not be passed over by another iterator.
      if (this.from.kind === 'latest') this.from = { kind: 'time', time: madeAt }
    }
    await budget.acquire(expectedBytes, signal)
    try {
      await rateLimiter.beforeRecords(signal)
      const page = await client.records(this.iterator, limit, signal)
      const bytes = sizeOf(page.records)
      rateLimiter.received(bytes)
      this.expectedBytes = Math.min(MAX_GET_BYTES, Math.max(MIN_EXPECTED_BYTES, bytes * 2))
      const last = page.records.at(-1)
      if (last !== undefined) this.from = { kind: 'after', sequence: last.sequence }
      this.iterator = page.next
      this.nextAt = isAtTip(page, limit) ? clock.monotonic() + everyMs : 0
      return page
    } finally {
      budget.release(expectedBytes)
    }
  }

  private backOff(error: Throttled): void {
    const now = this.context.clock.monotonic()
    if (this.throttles.times === 0) this.throttles.since = now
    else if (now - this.throttles.since > THROTTLED_MS) throw error
    const times = ++this.throttles.times
    this.context.throttled(times)
    this.nextAt =
      now +
      Math.max(
        error.afterMs ?? 0,
        Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(times - 1, 10)) * (0.75 + Math.random() / 2),
      )
  }
}

/** Nothing more is there at the moment. A full answer never says so: emulators tell of no distance at all. */
export function isAtTip({ records, behindMs }: Page, limit: number): boolean {
  return records.length < limit && (behindMs === undefined ? records.length === 0 : behindMs <= 0)
}

export function sizeOf(records: readonly StreamRecord[]): number {
  return records.reduce((sum, { data, partitionKey }) => sum + data.length + partitionKey.length, 0)
}
