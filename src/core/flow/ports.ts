/**
 * The flow needs the spool, the state and the dead-letter sink from layers that it may not import, so they are
 * interfaces here. Those layers implement them; the plan (`src/plan`) puts them together.
 */
import type { Batch, Gap, Partition, Position, Refusal, Segment, InvalidRecord } from '../contract'

/** Number of a record within a spool. Never reused; jumps between starts are no loss. Safe integers. */
export type Sequence = number

/** One append makes one delivery of one source durable. */
export interface SpoolRecords {
  /** Identity of the source; positions are stored under it. */
  readonly source: string
  readonly partition: Partition
  /** LineBatch is stored as lines, EntryBatch with keys, headers, timestamps and positions. */
  readonly batch: Batch
  readonly last: Position
  at(index: number): Position
  /** Epoch milliseconds, fractions kept. */
  readonly receivedAt: number
}

/** Records as they come out of the spool: one frame. */
export interface Spooled {
  readonly batch: Batch
  readonly first: Sequence
  /** Sequence after the last record: where a cursor stands once all of it is settled. */
  readonly next: Sequence
  readonly source: string
  readonly partition: string
  /** Position of record i; without stored ones (lines) that of the frame's last record for all. */
  at(index: number): Position
  readonly receivedAt: number
}
export interface SealedSegment extends Segment {
  readonly first: Sequence
  readonly next: Sequence
  /** Newest of each partition in it. Absent where they did not all fit. */
  readonly positions?: readonly PartitionPosition[]
}

export interface PartitionPosition {
  readonly source: string
  readonly partition: string
  readonly last: Position
}

/** One sink's way through the spool. Calls come one at a time. */
export interface SpoolReader<T> {
  /**
   * Next after what was returned last; waits for it; null once `end` was called on the spool and all is read. Rejects
   * when the signal aborts.
   */
  next(signal: AbortSignal): Promise<T | null>
}

/** A release says that every sink has confirmed all of the partition up to this position. */
export interface Release {
  readonly source: string
  readonly partition: Partition
  readonly position: Position
}

/** Records that were accepted and are gone from the disk: `records` of them from `sequence` on. */
export interface LostRecords extends Gap {
  readonly source: string
  readonly sequence: Sequence
  /** Where no sequence tells which they were: how many of them each sink had still to get. */
  readonly owed?: Readonly<Record<string, number>>
}

/** Of these, the records that a sink with this cursor had still to get. */
export function owed({ sequence, records = 0, owed: counts }: LostRecords, sink: string, cursor: Sequence): number {
  return counts === undefined ? Math.max(0, sequence + records - Math.max(sequence, cursor)) : (counts[sink] ?? 0)
}

export interface SpoolStatus {
  /** Bytes on disk. */
  readonly bytes: number
  /** Appends are waiting for space. */
  readonly full: boolean
  readonly why?: string
}

export interface Spool {
  /**
   * Resolves once the records are fsynced: then and only then are they visible to readers. Waits while the disk is
   * full. Appends become durable in call order.
   */
  append(records: SpoolRecords): Promise<{ readonly first: Sequence; readonly next: Sequence }>
  /** A frame of count 0: survives a kill; object metadata knows it. Durable when resolved. */
  gap(source: string, gap: Gap): Promise<void>
  /** Newest durable position of a partition. */
  position(source: string, partition: string): Position | undefined
  /** Partitions of a source with a durable position. */
  partitions(source: string): readonly string[]
  /** Epoch milliseconds of the newest durable record of a source. */
  lastReceivedAt(source: string): number | undefined
  /** For sinks that write batches: frames from the sequence on. */
  batches(sink: string, from: Sequence): SpoolReader<Spooled>
  /**
   * Frames from the sequence on that are there now; what has not been read since the start is looked through for it.
   */
  kept(from: Sequence): AsyncIterable<Spooled>
  /** For segment sinks: sealed segments from the sequence on, in order, those of earlier runs first. */
  segments(sink: string, from: Sequence): SpoolReader<SealedSegment>
  /** Seals the open segment, if it has records. Resolves when the seal block is durable. */
  seal(why: 'input ended' | 'stopping' | 'revoke'): Promise<void>
  /** No append will come any more: readers end after what is there. Seals. */
  end(): Promise<void>
  /** Everything below is confirmed by all sinks and durably known to be: whole segments below it are unlinked. */
  drop(below: Sequence): Promise<void>
  /** Records from the sequence on, that are durable: what a sink has still to deliver. */
  countFrom(sequence: Sequence): number
  /** Sequence after the newest durable record. */
  readonly head: Sequence
  /** Oldest record kept. */
  readonly tail: Sequence
  /** Where a segment sink begins that was not there before: segments that were made for others are never its. */
  firstFor(sink: string): Sequence
  status(): SpoolStatus
  /** Called at each change of `status().full`. */
  onStatus(changed: (status: SpoolStatus) => void): void
  /** Called when damage is found after opening. */
  onLost(heard: (losses: readonly LostRecords[]) => void): void
  /** Rejects when the disk has failed for good (`DiskFailed`); never resolves. */
  readonly failed: Promise<never>
  close(): Promise<void>
}

/** The flow file: small, durable, written in turn. */
export interface FlowFile<T> {
  /** The value that was read at opening; undefined where the flow is new. */
  readonly stored: T | undefined
  /** There was a value, and no copy of it can be read. */
  readonly lost?: boolean
  /** Durable when resolved. Calls while one is under way join into one more write of the newest value. */
  save(value: T): Promise<void>
  close(): Promise<void>
}

/** A record that goes nowhere else any more. */
export interface DeadLetter {
  readonly source: string
  readonly partition: string
  readonly position: Position
  readonly sink?: string
  readonly why: string
  readonly attempts: number
  readonly receivedAt: number
  /** Either the record as it is, or what is left of one that was never taken in. */
  readonly record: { readonly entry: import('../contract').Entry } | { readonly unfit: InvalidRecord }
}
export interface DeadLetters {
  /**
   * A record that cannot be delivered is kept (confirmed elsewhere first) or dropped (and counted), or the run ends
   * with 5.
   */
  readonly policy: 'keep' | 'drop' | 'stop'
  /** Resolves once confirmed there. */
  put(letters: readonly DeadLetter[], signal: AbortSignal): Promise<void>
}
export type { Refusal }
