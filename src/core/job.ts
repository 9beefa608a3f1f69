/** Pieces of a stream on their way to a sink, and the writes that they are gathered into. */
import type { Batch, Origin, Segment } from './contract'

/** A run of records on their way to one sink. */
export interface Piece {
  readonly payload: Batch | Segment
  readonly count: number
  origin(index: number): Origin
  /** All of it is settled, and how. */
  settle(tally: Tally): void
}
export interface Tally { delivered: number; rejected: number; dropped: number; bytes: number }
export interface Feed {
  /** Rejects when the signal aborts. null: the end. */
  next(signal: AbortSignal): Promise<Piece | null>
}

/** Part of a piece within a write. */
export interface Slice { readonly piece: Tracked; readonly from: number; readonly count: number }
export interface Tracked { readonly piece: Piece; left: number; stuck: boolean; readonly tally: Tally }
export interface Job { readonly id: string; attempt: number; readonly order: number; readonly payload: Batch | Segment; readonly slices: readonly Slice[]; readonly count: number; notBefore: number; /** An attempt ended without an answer: what of it was stored is not known. */ unanswered?: boolean }

/** Bytes at hand; a segment lies on disk. */
export function weight(payload: Batch | Segment): number { return 'kind' in payload ? 1 : Math.max(1, payload.bytes) }

export function bytesOf(payload: Batch | Segment): number { return 'kind' in payload ? payload.length : payload.bytes }

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
