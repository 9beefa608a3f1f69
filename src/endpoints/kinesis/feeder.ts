/**
 * Keeps the shards' readers going and what they bring at hand, shard after shard in turn.
 *
 * - A shard of which a delivery waits is not asked for more; all of them together hold no more than the budget.
 * - A shard's records are handed on in its order; then its end, by an empty delivery.
 * - Where the position's record is gone, that is told once, and `onGap` says where the shard goes on.
 */
import type { Clock } from '../../core/contract'
import { unlessAborted } from '../../kit/signal'
import type { Budget } from './budget'
import { DELIVERY_BYTES, type Taken, type Track, type Trimmed } from './track'
import { SequenceRefused, type Beginning, type Page, type ShardReader } from './wire'

/**
 * Where nothing comes, that is noted so often at the most and, with few hours of retention, more often: milliseconds,
 * share of the retention.
 */
const SEEN_MS = 3_600_000
const SEEN_SHARE = 8

export interface FeederParts {
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly budget: Budget
  readonly retentionMs: number
  reader(track: Track, from: Beginning): ShardReader
  /** Nothing more is there at the moment. */
  isAtTip(page: Page): boolean
  /**
   * Where `--until` ends it: how much of a page is read, and whether it is the last. @param asOf clock's time at which
   * it was as far behind as it says, at the earliest
   */
  limit(track: Track, page: Page, asOf: number): { readonly count: number; readonly last: boolean }
  /** The records after the position are gone. @returns where to go on */
  trimmed(track: Track, trimmed: Trimmed): 'oldest' | 'latest'
  /** A page has come. */
  seen(track: Track, page: Page): void
  /** Something can be read, or all is finished. */
  changed(): void
  failed(error: unknown): void
}

export class Feeder {
  private readonly loops = new Map<Track, Promise<void>>()
  private tracks: Track[] = []

  constructor(private readonly parts: FeederParts) {}

  get all(): readonly Track[] {
    return this.tracks
  }
  of(shard: string): Track | undefined {
    return this.tracks.find((track) => track.shard === shard)
  }

  add(track: Track): void {
    this.tracks.push(track)
    const { signal } = this.parts
    const passOn = (): void => {
      track.stop.abort(signal.reason)
    }
    if (signal.aborted) passOn()
    else signal.addEventListener('abort', passOn, { once: true })
    const loop = this.loop(track)
      .catch((error: unknown) => {
        if (!track.stop.signal.aborted) this.parts.failed(error)
      })
      .finally(async () => {
        signal.removeEventListener('abort', passOn)
        await track.reader?.close()
        this.loops.delete(track)
        this.parts.changed()
      })
    this.loops.set(track, loop)
    if (track.hasReady) this.parts.changed()
  }

  /** Given up: nothing of it is returned any more. Resolves once its reader is closed. */
  async drop(track: Track): Promise<void> {
    track.gone = true
    this.tracks = this.tracks.filter((other) => other !== track)
    this.parts.budget.give(track.waiting)
    track.waiting = 0
    track.stop.abort(new Error('given up'))
    await this.loops.get(track)
  }

  /** What is next, of the shard that was served longest ago. */
  take(): (Taken & { readonly track: Track }) | undefined {
    const index = this.tracks.findIndex(({ hasReady }) => hasReady)
    const track = this.tracks[index]
    const taken = track?.take()
    if (track === undefined || taken === undefined) return undefined
    this.tracks.splice(index, 1)
    // One that has ended is forgotten.
    if (!taken.ended) this.tracks.push(track)
    this.parts.budget.give(taken.bytes)
    return { ...taken, track }
  }

  /** After the signal has aborted: all is at rest. */
  async settled(): Promise<void> {
    await Promise.all(this.loops.values())
  }

  private async loop(track: Track): Promise<void> {
    const { clock, budget } = this.parts
    const { signal } = track.stop
    while (!track.reached) {
      if (track.waiting >= DELIVERY_BYTES) {
        await unlessAborted(track.wake.wait(), signal)
        continue
      }
      const reader = (track.reader ??= this.parts.reader(track, track.beginning))
      const askedAt = clock.now()
      let page: Page & { readonly ended: boolean }
      try {
        page = await reader.next(signal)
      } catch (error) {
        if (!(error instanceof SequenceRefused) || !track.isUnsure) throw error
        await this.lost(track, track.trimmed(clock.now()))
        continue
      }
      if (track.gone) return
      const asOf = page.asOf ?? askedAt
      const tip = this.parts.isAtTip(page)
      const trimmed = track.check(page, tip || page.ended, clock.now())
      if (trimmed !== undefined && (await this.lost(track, trimmed, page))) continue
      const { count, last } = this.parts.limit(track, page, asOf)
      budget.add(track.push(count === page.records.length ? page.records : page.records.slice(0, count)))
      this.parts.seen(track, page)
      if (page.ended && count === page.records.length) track.end()
      else if (last) track.reached = true
      else if (tip) track.seen(asOf, Math.min(SEEN_MS, this.parts.retentionMs / SEEN_SHARE))
      if (track.hasReady || track.reached) this.parts.changed()
    }
  }

  /** @returns whether another reader goes on elsewhere; else what the page brought is what there is */
  private async lost(track: Track, trimmed: Trimmed, page?: Page): Promise<boolean> {
    const onGap = trimmed.lost ? this.parts.trimmed(track, trimmed) : 'oldest'
    if (onGap === 'oldest' && page !== undefined && page.records.length > 0) return false
    await track.reader?.close()
    track.restarted(onGap === 'oldest' ? { kind: 'oldest' } : { kind: 'time', time: this.parts.clock.now() })
    track.reader = this.parts.reader(track, { kind: onGap })
    this.parts.changed()
    return true
  }
}
