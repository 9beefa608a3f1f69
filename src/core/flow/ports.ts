/**
 * The flow needs the spool, the state and the dead-letter sink from layers that it may not import, so they are
 * interfaces here. Those layers implement them; the plan (`src/plan`) puts them together.
 */
import type { Batch, Gap, Partition, Position, Refusal, Segment, InvalidRecord } from '../contract'

/** The number of a record within a spool: a safe integer that is never used again. Jumps between starts are no loss. */
export type Sequence = number

/** One append makes one delivery of one source durable. */
export interface SpoolRecords {
  /** The identity of the source, under which positions are stored. */
  readonly source: string
  readonly partition: Partition
  /** Lines are stored as lines, entries with keys, headers, timestamps and positions. */
  readonly batch: Batch
  readonly last: Position
  at(index: number): Position
  /** Milliseconds since the epoch, with fractions. */
  readonly receivedAt: number
}

/** One frame, as it comes out of the spool. */
export interface Spooled {
  readonly batch: Batch
  readonly first: Sequence
  /** The sequence after the last record. A cursor stands here once all of the frame is settled. */
  readonly next: Sequence
  readonly source: string
  readonly partition: string
  /** Returns the position after record `index`. A frame of lines has only the position after its last record. */
  at(index: number): Position
  readonly receivedAt: number
}
export interface SealedSegment extends Segment {
  readonly first: Sequence
  readonly next: Sequence
  /** The newest position of each partition in it. It is absent if they did not all fit. */
  readonly positions?: readonly PartitionPosition[]
}

export interface PartitionPosition {
  readonly source: string
  readonly partition: string
  readonly last: Position
}

/** Reads the spool for one sink. Calls come one at a time. */
export interface SpoolReader<T> {
  /**
   * Waits for the item after the one that was returned last. It resolves to null once `end` was called on the spool and
   * everything is read, and rejects when the signal aborts.
   */
  next(signal: AbortSignal): Promise<T | null>
}

/** A release says that every sink has confirmed all of the partition up to this position. */
export interface Release {
  readonly source: string
  readonly partition: Partition
  readonly position: Position
}

/** So many `records` from `sequence` on were accepted and are gone from the disk. */
export interface LostRecords extends Gap {
  readonly source: string
  readonly sequence: Sequence
  /** If no sequence tells which they were, this says how many of them each sink had still to get. */
  readonly owed?: Readonly<Record<string, number>>
}

/** Returns how many of the lost records a sink with this cursor had still to get. */
export function owed({ sequence, records = 0, owed: counts }: LostRecords, sink: string, cursor: Sequence): number {
  return counts === undefined ? Math.max(0, sequence + records - Math.max(sequence, cursor)) : (counts[sink] ?? 0)
}

export interface SpoolStatus {
  /** Bytes on disk. */
  readonly bytes: number
  /** Appends wait for space. */
  readonly full: boolean
  readonly why?: string
}

export interface Spool {
  /**
   * Resolves once the records are fsynced. Only then do readers see them. It waits while the disk is full. Appends
   * become durable in the order of their calls.
   */
  append(records: SpoolRecords): Promise<{ readonly first: Sequence; readonly next: Sequence }>
  /** Writes a frame without records, so that a gap survives a kill and is in the metadata of objects. */
  gap(source: string, gap: Gap): Promise<void>
  /** Returns the newest durable position of a partition. */
  position(source: string, partition: string): Position | undefined
  /** Returns the partitions of a source that have a durable position. */
  partitions(source: string): readonly string[]
  /** Returns when the newest durable record of a source was received, in milliseconds since the epoch. */
  lastReceivedAt(source: string): number | undefined
  /** Reads frames from the sequence on, for sinks that write batches. */
  batches(sink: string, from: Sequence): SpoolReader<Spooled>
  /** Reads the frames from the sequence on that are there now. Segments that were not read yet are looked through. */
  kept(from: Sequence): AsyncIterable<Spooled>
  /** Reads sealed segments from the sequence on, in order, those of earlier runs first. */
  segments(sink: string, from: Sequence): SpoolReader<SealedSegment>
  /** Seals the open segment if it has records, and resolves when the seal is durable. */
  seal(why: 'input ended' | 'stopping' | 'revoke'): Promise<void>
  /** Seals, because no append comes any more. Readers end after what is there. */
  end(): Promise<void>
  /** Removes whole segments below. All sinks have confirmed them, and that is durable. */
  drop(below: Sequence): Promise<void>
  /** Counts the durable records from the sequence on, which a sink has still to deliver. */
  countFrom(sequence: Sequence): number
  /** The sequence after the newest durable record. */
  readonly head: Sequence
  /** The sequence of the oldest record that is kept. */
  readonly tail: Sequence
  /** Returns where a new segment sink begins: segments that were made for others are never its own. */
  firstFor(sink: string): Sequence
  status(): SpoolStatus
  /** `changed` is called at each change of `status().full`. */
  onStatus(changed: (status: SpoolStatus) => void): void
  /** `heard` is called when damage is found after the opening. */
  onLost(heard: (losses: readonly LostRecords[]) => void): void
  /** It rejects with DiskFailed when the disk has failed for good, and never resolves. */
  readonly failed: Promise<never>
  close(): Promise<void>
}

/** The flow file is small and durable, and written one value at a time. */
export interface FlowFile<T> {
  /** The value that was read at opening; undefined where the flow is new. */
  readonly stored: T | undefined
  /** There was a value, but no copy of it can be read. */
  readonly lost?: boolean
  /** Resolves when the value is durable. Calls while one is under way are one more write, of the newest value. */
  save(value: T): Promise<void>
  close(): Promise<void>
}

/** A dead letter is a record that no sink takes. */
export interface DeadLetter {
  readonly source: string
  readonly partition: string
  readonly position: Position
  readonly sink?: string
  readonly why: string
  readonly attempts: number
  readonly receivedAt: number
  /** It is the record as it is, or what is left of one that was never taken in. */
  readonly record: { readonly entry: import('../contract').Entry } | { readonly invalid: InvalidRecord }
}
export interface DeadLetters {
  /**
   * A record that cannot be delivered is kept (confirmed elsewhere first) or dropped (and counted), or the run ends
   * with 5.
   */
  readonly policy: 'keep' | 'drop' | 'stop'
  /** Resolves once the letters are confirmed at their destination. */
  put(letters: readonly DeadLetter[], signal: AbortSignal): Promise<void>
}
export type { Refusal }
