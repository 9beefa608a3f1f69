/**
 * One shard as it is being read: what arrived and waits, and the positions of what is handed on.
 *
 * Reading after a stored position begins with its own record, to see whether it is still there: a record that was
 * trimmed means that others may have been, unless the shard is known to have held nothing unread until lately.
 */
import type { Partition } from '../../core/contract'
import { Notifier } from '../../kit/signal'
import type { Unit } from './batch'
import { encodePosition } from './position'
import type { Beginning, Checkpoint, Page, ShardReader, StreamRecord } from './wire'

/** A delivery ends where it has so many bytes. */
export const DELIVERY_BYTES = 1024 * 1024

/** What a producer meant by one record: several where it is an aggregate; undefined: it is none. */
export type TakeApart = (
  data: Buffer,
) => readonly { readonly partitionKey: string; readonly data: Buffer }[] | undefined

/** A record with its place: `sub` within its aggregate. */
export interface Placed extends Unit {
  readonly sequence: string
  readonly sub?: number
}

export interface TrackParts {
  readonly partition: Partition
  readonly at: Checkpoint
  readonly seenAt?: number | undefined
  readonly createdAt: number
  readonly retentionMs: number
  readonly takeApart: TakeApart
}
export interface Taken {
  readonly units: readonly Placed[]
  readonly bytes: number
  readonly last: string /** The shard is read to its end. */
  readonly ended: boolean
}
/** The record at the position is gone: `lost` where others may be as well. */
export interface Trimmed {
  readonly lost: boolean
  readonly from: string
  readonly to: string
}

export class Track {
  readonly wake = new Notifier()
  readonly stop = new AbortController()
  reader: ShardReader | undefined
  /** Bytes that wait to be read. */
  waiting = 0
  /** Nothing more is asked for: closed, or the end of `--until` is reached. */
  reached = false
  /** Given up: nothing of it is handed on any more. */
  gone = false
  /** What is to be handed on without a record. */
  private note: string | undefined
  private endOwed = false
  private records: StreamRecord[] = []
  private place: Checkpoint
  private seenAt: number | undefined
  /** The record of the position, while it is not known whether it is still there. */
  private expected: { readonly sequence: string; readonly sub: number } | undefined
  private skip: { readonly sequence: string; readonly sub: number } | undefined

  constructor(private readonly parts: TrackParts) {
    const { at } = parts
    this.place = at
    this.seenAt = parts.seenAt
    this.reached = at.kind === 'end'
    if (at.kind !== 'sequence') return
    this.skip = { sequence: at.sequence, sub: at.sub ?? Infinity }
    if (at.sub !== -1) this.expected = this.skip
  }

  get shard(): string {
    return this.parts.partition.name
  }
  get partition(): Partition {
    return this.parts.partition
  }
  get hasReady(): boolean {
    return this.records.length > 0 || this.note !== undefined || this.endOwed
  }
  /** Nothing of it is to be handed on any more. */
  get finished(): boolean {
    return this.reached && !this.hasReady
  }
  /** The service may refuse the position, or give nothing for it for ever, where its record is gone. */
  get isUnsure(): boolean {
    return this.expected !== undefined
  }

  get beginning(): Beginning {
    const { at } = this.parts
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
    return encodePosition({ at, createdAt: this.parts.createdAt, ...(seenAt === undefined ? {} : { seenAt }) })
  }

  positionOf({ sequence, sub, arrivedAt }: Placed): string {
    return this.position({ kind: 'sequence', sequence, ...(sub === undefined ? {} : { sub }) }, arrivedAt)
  }

  /** To be handed on before the first record. */
  begun(note: string): void {
    this.note = note
  }

  /** @param at where it goes on instead */
  restarted(at: Checkpoint): void {
    this.place = at
    this.expected = this.skip = undefined
    this.note = this.position(at)
  }

  /**
   * Whether the record of the position is still there; undefined: it is, or it is not known yet.
   * @param now epoch milliseconds @param last nothing more is there at the moment
   */
  check({ records, behindMs = 0 }: Page, last: boolean, now: number): Trimmed | undefined {
    const { expected } = this
    const [first] = records
    if (expected === undefined) return undefined
    // A reader at a place that was trimmed may be given empty pages for ever, as far behind as the stream keeps records
    // (seen with the service by users of other clients).
    if (first === undefined && !last && behindMs < this.parts.retentionMs) return undefined
    if (first?.sequence === expected.sequence) {
      this.expected = undefined
      return undefined
    }
    return this.trimmed(now, first)
  }

  trimmed(now: number, first?: StreamRecord): Trimmed {
    this.expected = this.skip = undefined
    const lost = this.seenAt === undefined || now - this.seenAt >= this.parts.retentionMs
    return {
      lost,
      from: this.position(this.place),
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
    this.waiting += bytes
    return bytes
  }

  /** At its tip: nothing was unread until then. Noted where it was not for `everyMs`. */
  seen(now: number, everyMs: number): void {
    if (this.hasReady || now - (this.seenAt ?? 0) < everyMs) return
    this.seenAt = now
    this.note = this.position(this.place)
  }

  end(): void {
    this.endOwed = true
    this.reached = true
  }

  take(): Taken | undefined {
    if (this.records.length === 0) {
      const { note } = this
      this.note = undefined
      if (note !== undefined) return { units: [], bytes: 0, last: note, ended: false }
      if (!this.endOwed) return undefined
      this.endOwed = false
      return { units: [], bytes: 0, last: this.position({ kind: 'end' }), ended: true }
    }
    this.note = undefined
    const units: Placed[] = []
    let bytes = 0
    let count = 0
    for (const record of this.records) {
      const size = record.data.length + record.partitionKey.length
      if (count > 0 && bytes + size > DELIVERY_BYTES) break
      count++
      bytes += size
      if (record.arrivedAt !== undefined) this.seenAt = Math.max(this.seenAt ?? 0, record.arrivedAt)
      this.place = this.unpack(record, units)
    }
    this.records = count === this.records.length ? [] : this.records.slice(count)
    this.waiting -= bytes
    this.wake.notify()
    return { units, bytes, last: this.position(this.place), ended: false }
  }

  /** @returns the place after it */
  private unpack(record: StreamRecord, into: Placed[]): Checkpoint {
    const { sequence, arrivedAt } = record
    const done = this.skip?.sequence === sequence ? this.skip.sub : -1
    this.skip = undefined
    const parts = this.parts.takeApart(record.data)
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
