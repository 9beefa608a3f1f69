/** Pieces of a stream on their way to a sink, and the writes that they are gathered into. */
import type { Batch, Origin, Segment } from './contract'

/** A run of records on their way to one sink. */
export interface Piece {
  readonly payload: Batch | Segment
  readonly count: number
  origin(index: number): Origin
  /** The rest of it is settled, and how: all but what `reached` has told. */
  settle(tally: Tally): void
  /**
   * So many records at its beginning are settled, and how those of them that were not told before. Only where part of a
   * write was confirmed.
   */
  reached?(count: number, tally: Tally): void
}
export interface Tally {
  delivered: number
  rejected: number
  dropped: number
  bytes: number
}
export type Fate = 'delivered' | 'rejected' | 'dropped'
export function nothing(): Tally {
  return { delivered: 0, rejected: 0, dropped: 0, bytes: 0 }
}
export function add(to: Tally, { delivered, rejected, dropped, bytes }: Tally): void {
  to.delivered += delivered
  to.rejected += rejected
  to.dropped += dropped
  to.bytes += bytes
}
export interface Feed {
  /** Rejects when the signal aborts. null: the end. */
  next(signal: AbortSignal): Promise<Piece | null>
}

/** Part of a piece within a write. */
export interface Slice {
  readonly piece: Tracked
  readonly from: number
  readonly count: number
}
export interface Job {
  readonly id: string
  attempt: number
  readonly order: number
  readonly payload: Batch | Segment
  readonly slices: readonly Slice[]
  readonly count: number
  notBefore: number /** An attempt ended without an answer: what of it was stored is not known. */
  unanswered?: boolean
}

/** A piece under way: its records are settled in any order, and told of in theirs. */
export class Tracked {
  /** Records at its beginning that are settled. */
  through = 0
  /** Of these, not told yet. */
  private tally = nothing()
  /** Runs of settled records behind one that is not, by the first of them. */
  private readonly beyond = new Map<number, { readonly count: number; readonly tally: Tally }>()

  constructor(readonly piece: Piece) {}

  settle(from: number, count: number, fate: Fate, bytes: number): void {
    const tally = { ...nothing(), [fate]: count, bytes }
    if (from !== this.through) {
      this.beyond.set(from, { count, tally })
      return
    }
    this.through += count
    add(this.tally, tally)
    if (this.beyond.size > 0) this.join()
    if (this.through === this.piece.count) this.piece.settle(this.taken())
  }

  /** Part of it is settled: told where it begins with that. */
  tell(): void {
    if (this.through > 0 && this.through < this.piece.count) this.piece.reached?.(this.through, this.taken())
  }

  /** What is settled and nobody was told of: the run ended before the rest was. */
  untold(): { readonly within: Tally; readonly beyond: Tally } {
    const beyond = nothing()
    for (const { tally } of this.beyond.values()) add(beyond, tally)
    return { within: this.tally, beyond }
  }

  private join(): void {
    for (let next = this.beyond.get(this.through); next !== undefined; next = this.beyond.get(this.through)) {
      this.beyond.delete(this.through)
      this.through += next.count
      add(this.tally, next.tally)
    }
  }

  private taken(): Tally {
    const { tally } = this
    this.tally = nothing()
    return tally
  }
}

/** Bytes at hand; a segment lies on disk. */
export function weight(payload: Batch | Segment): number {
  return 'kind' in payload ? 1 : Math.max(1, payload.bytes)
}

/** Bytes that a write keeps in memory. */
export function held(payload: Batch | Segment): number {
  return 'kind' in payload ? 1 : payload.retained
}

export function bytesOf(payload: Batch | Segment): number {
  return 'kind' in payload ? payload.length : payload.bytes
}

export function sliceAt(job: Job, index: number): { readonly piece: Tracked; readonly index: number } {
  let rest = index
  for (const slice of job.slices) {
    if (rest < slice.count) return { piece: slice.piece, index: slice.from + rest }
    rest -= slice.count
  }
  throw new RangeError(`no record ${index} in a write of ${job.count}`)
}

export function originOf(job: Job, index: number): Origin {
  const { piece, index: within } = sliceAt(job, index)
  return piece.piece.origin(within)
}
