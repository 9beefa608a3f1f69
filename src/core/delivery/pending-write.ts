/** Items of a stream on their way to a sink, and the writes that are made of them. */
import type { Batch, Origin, Segment } from '../contract'

/** An item is a run of records on their way to one sink. */
export interface FeedItem {
  readonly payload: Batch | Segment
  readonly count: number
  origin(index: number): Origin
  /** Tells how the rest of the item was settled: all that `reached` has not told. */
  settle(counts: Counts): void
  /**
   * So many records at its beginning are settled, and how those of them that were not told before. Only where part of a
   * write was confirmed.
   */
  reached?(count: number, counts: Counts): void
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
  /** Resolves to null at the end, and rejects when the signal aborts. */
  next(signal: AbortSignal): Promise<FeedItem | null>
}

/** A slice is the part of an item that lies within a write. */
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

/** Follows an item that is under way: its records are settled in any order, and told of in theirs. */
export class TrackedItem {
  /** So many records at its beginning are settled. */
  through = 0
  /** The counts of those that were not told yet. */
  private counts = noCounts()
  /** The runs of settled records behind one that is not settled, by their first record. */
  private readonly beyond = new Map<number, { readonly count: number; readonly counts: Counts }>()

  constructor(readonly item: FeedItem) {}

  settle(from: number, count: number, fate: RecordOutcome, bytes: number): void {
    const counts = { ...noCounts(), [fate]: count, bytes }
    if (from !== this.through) {
      this.beyond.set(from, { count, counts })
      return
    }
    this.through += count
    addCounts(this.counts, counts)
    if (this.beyond.size > 0) this.join()
    if (this.through === this.item.count) this.item.settle(this.taken())
  }

  /** Settles a part of the item, and tells of it if the item begins with it. */
  tell(): void {
    if (this.through > 0 && this.through < this.item.count) this.item.reached?.(this.through, this.taken())
  }

  /** Counts the settled records that nobody was told of, because the run ended before the rest was settled. */
  untold(): { readonly within: Counts; readonly beyond: Counts } {
    const beyond = noCounts()
    for (const { counts } of this.beyond.values()) addCounts(beyond, counts)
    return { within: this.counts, beyond }
  }

  private join(): void {
    for (let next = this.beyond.get(this.through); next !== undefined; next = this.beyond.get(this.through)) {
      this.beyond.delete(this.through)
      this.through += next.count
      addCounts(this.counts, next.counts)
    }
  }

  private taken(): Counts {
    const { counts } = this
    this.counts = noCounts()
    return counts
  }
}

/** Returns the bytes of an item; those of a segment are on disk. */
export function weight(payload: Batch | Segment): number {
  return 'kind' in payload ? 1 : Math.max(1, payload.bytes)
}

/** Returns the bytes that a write keeps in memory. */
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
