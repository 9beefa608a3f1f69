/** Pieces of a stream on their way to a sink, and the writes that they are gathered into. */
import type { Batch, Origin, Segment } from '../contract'

/** A run of records on their way to one sink. */
export interface FeedItem {
  readonly payload: Batch | Segment
  readonly count: number
  origin(index: number): Origin
  /** The rest of it is settled, and how: all but what `reached` has told. */
  settle(tally: Counts): void
  /**
   * So many records at its beginning are settled, and how those of them that were not told before. Only where part of a
   * write was confirmed.
   */
  reached?(count: number, tally: Counts): void
}
export interface Counts {
  delivered: number
  rejected: number
  dropped: number
  bytes: number
}
export type RecordOutcome = 'delivered' | 'rejected' | 'dropped'
export function noCounts(): Counts {
  return { delivered: 0, rejected: 0, dropped: 0, bytes: 0 }
}
export function addCounts(to: Counts, { delivered, rejected, dropped, bytes }: Counts): void {
  to.delivered += delivered
  to.rejected += rejected
  to.dropped += dropped
  to.bytes += bytes
}
export interface Feed {
  /** Rejects when the signal aborts. null: the end. */
  next(signal: AbortSignal): Promise<FeedItem | null>
}

/** Part of a item within a write. */
export interface Slice {
  readonly item: TrackedItem
  readonly from: number
  readonly count: number
}
export interface PendingWrite {
  readonly id: string
  attempt: number
  readonly order: number
  readonly payload: Batch | Segment
  readonly slices: readonly Slice[]
  readonly count: number
  notBefore: number /** An attempt ended without an answer: what of it was stored is not known. */
  unanswered?: boolean
}

/** A item under way: its records are settled in any order, and told of in theirs. */
export class TrackedItem {
  /** Records at its beginning that are settled. */
  through = 0
  /** Of these, not told yet. */
  private tally = noCounts()
  /** Runs of settled records behind one that is not, by the first of them. */
  private readonly beyond = new Map<number, { readonly count: number; readonly tally: Counts }>()

  constructor(readonly item: FeedItem) {}

  settle(from: number, count: number, fate: RecordOutcome, bytes: number): void {
    const tally = { ...noCounts(), [fate]: count, bytes }
    if (from !== this.through) {
      this.beyond.set(from, { count, tally })
      return
    }
    this.through += count
    addCounts(this.tally, tally)
    if (this.beyond.size > 0) this.join()
    if (this.through === this.item.count) this.item.settle(this.taken())
  }

  /** Part of it is settled: told where it begins with that. */
  tell(): void {
    if (this.through > 0 && this.through < this.item.count) this.item.reached?.(this.through, this.taken())
  }

  /** Counts the settled records that nobody was told of, because the run ended before the rest was settled. */
  untold(): { readonly within: Counts; readonly beyond: Counts } {
    const beyond = noCounts()
    for (const { tally } of this.beyond.values()) addCounts(beyond, tally)
    return { within: this.tally, beyond }
  }

  private join(): void {
    for (let next = this.beyond.get(this.through); next !== undefined; next = this.beyond.get(this.through)) {
      this.beyond.delete(this.through)
      this.through += next.count
      addCounts(this.tally, next.tally)
    }
  }

  private taken(): Counts {
    const { tally } = this
    this.tally = noCounts()
    return tally
  }
}

/** Bytes at hand; a segment lies on disk. */
export function weight(payload: Batch | Segment): number {
  return 'kind' in payload ? 1 : Math.max(1, payload.bytes)
}

/** Bytes that a write keeps in memory. */
export function retainedBytes(payload: Batch | Segment): number {
  return 'kind' in payload ? 1 : payload.retained
}

export function bytesOf(payload: Batch | Segment): number {
  return 'kind' in payload ? payload.length : payload.bytes
}

export function sliceAt(pending: PendingWrite, index: number): { readonly item: TrackedItem; readonly index: number } {
  let rest = index
  for (const slice of pending.slices) {
    if (rest < slice.count) return { item: slice.item, index: slice.from + rest }
    rest -= slice.count
  }
  throw new RangeError(`no record ${index} in a write of ${pending.count}`)
}

export function originOf(pending: PendingWrite, index: number): Origin {
  const { item, index: within } = sliceAt(pending, index)
  return item.item.origin(within)
}
