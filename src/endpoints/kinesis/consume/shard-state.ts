/**
 * One shard as it is being read: what arrived and waits, and the positions of what is handed on.
 *
 * Reading after a stored position begins with its own record, to see whether it is still there: a record that was
 * trimmed means that others may have been, unless the shard is known to have held nothing unread until lately.
 */
import type { Partition } from '../../../core/contract'
import { Notifier } from '../../../kit/signal'
import type { ConsumedRecord } from './record-batch'
import { encodePosition } from '../position'
import type { ReadStart, Checkpoint, Page, ShardReader, StreamRecord } from '../stream-client'

/** A delivery ends where it has so many bytes. */
export const DELIVERY_BYTES = 1024 * 1024

/** Returns the records that a producer has put into an aggregate; undefined if the bytes are none. */
export type Disaggregate = (
  data: Buffer,
) => readonly { readonly partitionKey: string; readonly data: Buffer }[] | undefined

/** A record with its place: `sub` within its aggregate. */
export interface SequencedRecord extends ConsumedRecord {
  readonly sequence: string
  readonly sub?: number
}

export interface ShardStateContext {
  readonly partition: Partition
  readonly at: Checkpoint
  readonly seenAt?: number | undefined
  readonly createdAt: number
  readonly retentionMs: number
  readonly disaggregate: Disaggregate
}
export interface TakenRecords {
  readonly records: readonly SequencedRecord[]
  readonly bytes: number
  readonly last: string /** The shard is read to its end. */
  readonly ended: boolean
}
/** The record at the position is gone: `lost` where others may be as well. */
export interface TrimmedRecords {
  readonly lost: boolean
  readonly from: string
  readonly to: string
}

export class ShardState {
  readonly drained = new Notifier()
  readonly abort = new AbortController()
  reader: ShardReader | undefined
  /** Bytes that wait to be read. */
  waitingBytes = 0
  /** Nothing more is asked for: closed, or the end of `--until` is reached. */
  isReadToEnd = false
  /** Given up: nothing of it is handed on any more. */
  isRevoked = false
  /** A position that is to be handed on without a record. */
  private pendingNote: string | undefined
  private endPending = false
  private records: StreamRecord[] = []
  private checkpoint: Checkpoint
  private seenAt: number | undefined
  /** The record of the position, while it is not known whether it is still there. */
  private expected: { readonly sequence: string; readonly sub: number } | undefined
  private skip: { readonly sequence: string; readonly sub: number } | undefined

  constructor(private readonly context: ShardStateContext) {
    const { at } = context
    this.checkpoint = at
    this.seenAt = context.seenAt
    this.isReadToEnd = at.kind === 'end'
    if (at.kind !== 'sequence') return
    this.skip = { sequence: at.sequence, sub: at.sub ?? Infinity }
    if (at.sub !== -1) this.expected = this.skip
  }

  get shard(): string {
    return this.context.partition.name
  }
  get partition(): Partition {
    return this.context.partition
  }
  get hasDelivery(): boolean {
    return this.records.length > 0 || this.pendingNote !== undefined || this.endPending
  }
  /** Nothing of it is to be handed on any more. */
  get isFinished(): boolean {
    return this.isReadToEnd && !this.hasDelivery
  }
  /** The service may refuse the position, or give nothing for it for ever, where its record is gone. */
  get awaitsPositionRecord(): boolean {
    return this.expected !== undefined
  }

  get readStart(): ReadStart {
    const { at } = this.context
    switch (at.kind) {
      case 'sequence':
        return { kind: 'at', sequence: at.sequence }
      case 'time':
        return at
      case 'latest':
        return { kind: 'latest' }
      default:
        return { kind: 'oldest' }
    }
  }

  position(at: Checkpoint, seenAt = this.seenAt): string {
    return encodePosition({ at, createdAt: this.context.createdAt, ...(seenAt === undefined ? {} : { seenAt }) })
  }

  positionOf({ sequence, sub, arrivedAt }: SequencedRecord): string {
    return this.position({ kind: 'sequence', sequence, ...(sub === undefined ? {} : { sub }) }, arrivedAt)
  }

  /** To be handed on before the first record. */
  addNote(note: string): void {
    this.pendingNote = note
  }

  /** @param at where it goes on instead */
  restartAt(at: Checkpoint): void {
    this.checkpoint = at
    this.expected = this.skip = undefined
    this.pendingNote = this.position(at)
  }

  /**
   * Returns the records that are gone behind the position; undefined if none is, or if that is not known yet.
   * @param now epoch milliseconds @param last nothing more is there at the moment
   */
  checkTrimmed({ records, behindMs = 0 }: Page, last: boolean, now: number): TrimmedRecords | undefined {
    const { expected } = this
    const [first] = records
    if (expected === undefined) return undefined
    // A reader at a place that was trimmed may be given empty pages for ever, as far behind as the stream keeps records
    // (seen with the service by users of other clients).
    if (first === undefined && !last && behindMs < this.context.retentionMs) return undefined
    if (first?.sequence === expected.sequence) {
      this.expected = undefined
      return undefined
    }
    return this.trimmed(now, first)
  }

  trimmed(now: number, first?: StreamRecord): TrimmedRecords {
    this.expected = this.skip = undefined
    const lost = this.seenAt === undefined || now - this.seenAt >= this.context.retentionMs
    return {
      lost,
      from: this.position(this.checkpoint),
      to:
        first === undefined
          ? 'the oldest record'
          : this.position({ kind: 'sequence', sequence: first.sequence, sub: -1 }, first.arrivedAt),
    }
  }

  /** @returns their bytes */
  push(records: readonly StreamRecord[]): number {
    let bytes = 0
    for (const record of records) {
      this.records.push(record)
      bytes += record.data.length + record.partitionKey.length
    }
    this.waitingBytes += bytes
    return bytes
  }

  /** At its tip: nothing was unread until then. Noted where it was not for `everyMs`. */
  noteProgress(now: number, everyMs: number): void {
    if (this.hasDelivery || now - (this.seenAt ?? 0) < everyMs) return
    this.seenAt = now
    this.pendingNote = this.position(this.checkpoint)
  }

  end(): void {
    this.endPending = true
    this.isReadToEnd = true
  }

  take(): TakenRecords | undefined {
    if (this.records.length === 0) {
      const { pendingNote: note } = this
      this.pendingNote = undefined
      if (note !== undefined) return { records: [], bytes: 0, last: note, ended: false }
      if (!this.endPending) return undefined
      this.endPending = false
      return { records: [], bytes: 0, last: this.position({ kind: 'end' }), ended: true }
    }
    this.pendingNote = undefined
    const units: SequencedRecord[] = []
    let bytes = 0
    let count = 0
    for (const record of this.records) {
      const size = record.data.length + record.partitionKey.length
      if (count > 0 && bytes + size > DELIVERY_BYTES) break
      count++
      bytes += size
      if (record.arrivedAt !== undefined) this.seenAt = Math.max(this.seenAt ?? 0, record.arrivedAt)
      this.checkpoint = this.unpackRecord(record, units)
    }
    this.records = count === this.records.length ? [] : this.records.slice(count)
    this.waitingBytes -= bytes
    this.drained.notify()
    return { records: units, bytes, last: this.position(this.checkpoint), ended: false }
  }

  /** @returns the place after it */
  private unpackRecord(record: StreamRecord, into: SequencedRecord[]): Checkpoint {
    const { sequence, arrivedAt } = record
    const done = this.skip?.sequence === sequence ? this.skip.sub : -1
    this.skip = undefined
    const parts = this.context.disaggregate(record.data)
    if (parts === undefined) {
      if (done < 0) into.push(record)
      return { kind: 'sequence', sequence }
    }
    parts.forEach(({ partitionKey, data }, sub) => {
      if (sub > done) into.push({ data, partitionKey, sequence, arrivedAt, sub })
    })
    return { kind: 'sequence', sequence, ...(parts.length === 0 ? {} : { sub: parts.length - 1 }) }
  }
}
