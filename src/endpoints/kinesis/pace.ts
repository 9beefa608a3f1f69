/**
 * What one shard may be asked for, in any second and on average; it lives as long as the source, so that opening again
 * does not begin anew. Source: "Quotas and limits" of the Kinesis Data Streams Developer Guide: 5 GetRecords and 5
 * GetShardIterator a second and shard, 2 MB a second and shard, 10 MB an answer, after which a shard's share is used up
 * for five seconds.
 */
import type { Clock } from '../../core/contract'
import { GETS_PER_SECOND, MAX_GET_BYTES } from './options'

const BYTES_PER_SECOND = 2_000_000
/** Calls arrive nearer to each other than they were sent. */
const WINDOW_MS = 1100

/** At most so many calls in any second. */
export class Calls {
  private times: number[] = []

  constructor(private readonly most = GETS_PER_SECOND) {}

  /** When the next may be made, in the clock's time. */
  next(): number {
    return this.times.length < this.most ? 0 : (this.times[0] ?? 0) + WINDOW_MS
  }

  made(now: number): void {
    this.times.push(now)
    if (this.times.length > this.most) this.times.shift()
  }
}

export class Pace {
  private readonly iterators = new Calls()
  private readonly records = new Calls()
  /** Bytes that were read beyond what time has paid for; below zero: what is saved up, at most one whole answer. */
  private owed = -MAX_GET_BYTES
  private at = 0

  constructor(private readonly clock: Clock) {}

  async beforeIterator(signal: AbortSignal): Promise<void> {
    await this.until(this.iterators.next(), signal)
    this.iterators.made(this.clock.monotonic())
  }

  async beforeRecords(signal: AbortSignal): Promise<void> {
    this.pay()
    await this.until(
      Math.max(this.records.next(), this.at + (Math.max(0, this.owed) / BYTES_PER_SECOND) * 1000),
      signal,
    )
    this.records.made(this.clock.monotonic())
  }

  got(bytes: number): void {
    this.pay()
    this.owed += bytes
  }

  private pay(): void {
    const now = this.clock.monotonic()
    this.owed = Math.max(-MAX_GET_BYTES, this.owed - (Math.max(0, now - this.at) / 1000) * BYTES_PER_SECOND)
    this.at = now
  }

  private async until(time: number, signal: AbortSignal): Promise<void> {
    const wait = time - this.clock.monotonic()
    if (wait > 0) await this.clock.sleep(wait, signal)
  }
}
