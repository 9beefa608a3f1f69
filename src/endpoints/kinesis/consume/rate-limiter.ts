/**
 * Bounds what one shard is asked for, in any second and on average. It lives as long as the source, so that opening
 * again does not begin anew. The limits are those of "Quotas and limits" in the Kinesis Data Streams Developer Guide: 5
 * GetRecords and 5 GetShardIterator a second and shard, 2 MB a second and shard, 10 MB an answer, after which a shard's
 * share is used up for five seconds.
 */
import type { Clock } from '../../../core/contract'
import { GETS_PER_SECOND, MAX_GET_BYTES } from '../options'

const BYTES_PER_SECOND = 2_000_000
/** Calls arrive nearer to each other than they were sent. */
const WINDOW_MS = 1100

/** At most so many calls in any second. */
export class CallLimit {
  private times: number[] = []

  constructor(private readonly maxCalls = GETS_PER_SECOND) {}

  /** When the next may be made, in the clock's time. */
  nextAt(): number {
    return this.times.length < this.maxCalls ? 0 : (this.times[0] ?? 0) + WINDOW_MS
  }

  called(now: number): void {
    this.times.push(now)
    if (this.times.length > this.maxCalls) this.times.shift()
  }
}

export class RateLimiter {
  private readonly iteratorCalls = new CallLimit()
  private readonly recordCalls = new CallLimit()
  /** Bytes that were read beyond what time has paid for; below zero: what is saved up, at most one whole answer. */
  private debtBytes = -MAX_GET_BYTES
  private settledAt = 0

  constructor(private readonly clock: Clock) {}

  async beforeIterator(signal: AbortSignal): Promise<void> {
    await this.sleepUntil(this.iteratorCalls.nextAt(), signal)
    this.iteratorCalls.called(this.clock.monotonic())
  }

  async beforeRecords(signal: AbortSignal): Promise<void> {
    this.settle()
    await this.sleepUntil(
      Math.max(this.recordCalls.nextAt(), this.settledAt + (Math.max(0, this.debtBytes) / BYTES_PER_SECOND) * 1000),
      signal,
    )
    this.recordCalls.called(this.clock.monotonic())
  }

  received(bytes: number): void {
    this.settle()
    this.debtBytes += bytes
  }

  private settle(): void {
    const now = this.clock.monotonic()
    this.debtBytes = Math.max(
      -MAX_GET_BYTES,
      this.debtBytes - (Math.max(0, now - this.settledAt) / 1000) * BYTES_PER_SECOND,
    )
    this.settledAt = now
  }

  private async sleepUntil(time: number, signal: AbortSignal): Promise<void> {
    const wait = time - this.clock.monotonic()
    if (wait > 0) await this.clock.sleep(wait, signal)
  }
}
