/**
 * One shard by GetRecords, within what a shard allows (pace.ts): at its tip every `everyMs`, behind it as soon as may
 * be.
 *
 * - A throttle is the shard's own matter (its other readers take from the same share): the next call waits, longer each
 *   time, while other shards go on.
 * - An iterator that is too old is replaced at once by one after the last record; a second time before any answer it is
 *   the core's to wait.
 */
import type { Clock } from '../../core/contract'
import { Throttled } from '../../core/errors'
import type { Budget } from './budget'
import { MAX_GET_BYTES } from './options'
import type { Pace } from './pace'
import {
  IteratorExpired,
  type Beginning,
  type KinesisWire,
  type Page,
  type PolledPage,
  type ShardReader,
  type StreamRecord,
} from './wire'

/** Pauses after throttles, milliseconds, where the service names none. */
const FIRST_PAUSE = 250
const LONGEST_PAUSE = 10_000
/** A shard that gives nothing but throttles for so long is a fault to be told. */
const THROTTLED_MS = 300_000
/** What an answer is expected to need at the least. */
const LEAST_EXPECTED = 64 * 1024

export interface PollerParts {
  readonly wire: Pick<KinesisWire, 'iterator' | 'records'>
  readonly shard: string
  readonly from: Beginning
  /** Records of an answer, at most. */
  readonly limit: number
  readonly everyMs: number
  readonly pace: Pace
  readonly budget: Budget
  readonly clock: Clock
  /** Throttles so far, one after the other; 0: it is over. */
  throttled(times: number): void
}

export class Poller implements ShardReader {
  private from: Beginning
  private iterator: string | undefined
  private expired = false
  private nextAt = 0
  private expected = MAX_GET_BYTES
  private throttles = { times: 0, since: 0 }

  constructor(private readonly parts: PollerParts) {
    this.from = parts.from
  }

  async next(signal: AbortSignal): Promise<Page & { readonly ended: boolean }> {
    const { clock } = this.parts
    for (;;) {
      const wait = this.nextAt - clock.monotonic()
      if (wait > 0) await clock.sleep(wait, signal)
      try {
        const page = await this.ask(signal)
        if (this.throttles.times > 0) this.parts.throttled(0)
        this.throttles = { times: 0, since: 0 }
        this.expired = false
        return { ...page, ended: page.next === undefined }
      } catch (error) {
        if (error instanceof IteratorExpired && !this.expired) {
          this.iterator = undefined
          this.expired = true
        } else if (error instanceof Throttled) this.pause(error)
        else throw error
      }
    }
  }

  close(): Promise<void> {
    return Promise.resolve()
  }

  private async ask(signal: AbortSignal): Promise<PolledPage> {
    const { wire, shard, pace, budget, clock, everyMs, limit } = this.parts
    const { expected } = this
    if (this.iterator === undefined) {
      await pace.beforeIterator(signal)
      const madeAt = clock.now()
      this.iterator = await wire.iterator(shard, this.from, signal)
      // What arrives from now on must not be passed over by another iterator.
      if (this.from.kind === 'latest') this.from = { kind: 'time', time: madeAt }
    }
    await budget.take(expected, signal)
    try {
      await pace.beforeRecords(signal)
      const page = await wire.records(this.iterator, limit, signal)
      const bytes = sizeOf(page.records)
      pace.got(bytes)
      this.expected = Math.min(MAX_GET_BYTES, Math.max(LEAST_EXPECTED, bytes * 2))
      const last = page.records.at(-1)
      if (last !== undefined) this.from = { kind: 'after', sequence: last.sequence }
      this.iterator = page.next
      this.nextAt = isAtTip(page, limit) ? clock.monotonic() + everyMs : 0
      return page
    } finally {
      budget.give(expected)
    }
  }

  private pause(error: Throttled): void {
    const now = this.parts.clock.monotonic()
    if (this.throttles.times === 0) this.throttles.since = now
    else if (now - this.throttles.since > THROTTLED_MS) throw error
    const times = ++this.throttles.times
    this.parts.throttled(times)
    this.nextAt =
      now +
      Math.max(
        error.afterMs ?? 0,
        Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** Math.min(times - 1, 10)) * (0.75 + Math.random() / 2),
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
