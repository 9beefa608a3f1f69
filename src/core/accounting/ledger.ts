/**
 * Keeps the counts of one run so that those in the flow file add up at every instant: a sink's figures move only when
 * its cursor does.
 */
import type { Gap } from '../contract'
import type { RunLedger } from '../flow/flow-state'
import { NOTHING, type SinkLedger } from './sink-ledger'
import type { Counts } from '../delivery/pending-write'

/** So many gaps are listed, and more are only counted. */
const LISTED_GAPS = 1000

export class Ledger {
  /** So many records were returned by sources. */
  read = 0
  bytesRead = 0
  /** So many of these are durable in the spool or, without one, were handed to the sink. */
  accepted = 0
  /** So many of these became dead letters before they reached spool or sink. They count for every sink. */
  refusedAtRead = 0
  droppedAtRead = 0
  filteredAtRead = 0
  /** The source may have returned so many of them twice. They are possible duplicates at every sink. */
  doubtfulAtRead = 0
  readonly gaps: Gap[] = []
  gapCount = 0
  private readonly sinks = new Map<string, { -readonly [K in keyof SinkLedger]: number }>()

  /** @param started milliseconds since the epoch, as the clock says now */
  constructor(
    readonly id: string,
    public started: number,
    readonly restarts: number,
    carriedIn: ReadonlyMap<string, number>,
  ) {
    for (const [sink, carried] of carriedIn) this.sinks.set(sink, { ...NOTHING, carriedIn: carried })
  }

  settled(sink: string, more: Counts): void {
    const counts = this.of(sink)
    counts.delivered += more.delivered
    counts.rejected += more.rejected
    counts.dropped += more.dropped
    counts.bytes += more.bytes
  }

  duplicates(sink: string, count: number): void {
    this.of(sink).possibleDuplicates = count
  }

  /** Counts records that upstream has again, or sent again: they are not ours to deliver any more. */
  returned(counts: Readonly<Record<string, number>>): void {
    for (const [sink, count] of Object.entries(counts)) this.of(sink).returned += count
  }
  /** Counts records that may have been delivered twice. */
  carriedAgain(counts: Readonly<Record<string, number>>): void {
    for (const [sink, count] of Object.entries(counts)) this.of(sink).carriedIn += count
  }

  /** Counts accepted records that a damaged disk has lost. */
  lost(counts: Readonly<Record<string, number>>): void {
    for (const [sink, count] of Object.entries(counts)) this.of(sink).abandoned += count
  }

  gap(gap: Gap): void {
    this.gapCount++
    if (this.gaps.length < LISTED_GAPS) this.gaps.push(gap)
  }

  of(sink: string): { -readonly [K in keyof SinkLedger]: number } {
    let counts = this.sinks.get(sink)
    if (counts === undefined) this.sinks.set(sink, (counts = { ...NOTHING }))
    return counts
  }

  /**
   * Counts what became of a sink's records, also of those that came no further than reading. Receipt, metrics, status
   * and live line tell these counts.
   */
  sink(id: string): SinkLedger {
    const counts = this.of(id)
    return {
      ...counts,
      rejected: counts.rejected + this.refusedAtRead,
      dropped: counts.dropped + this.droppedAtRead,
      filtered: counts.filtered + this.filteredAtRead,
      possibleDuplicates: counts.possibleDuplicates + this.doubtfulAtRead,
    }
  }

  /** Returns the counts as they may be stored: only durable records count as read. */
  durable(ended?: number): RunLedger {
    const sinks: Record<string, SinkLedger> = {}
    for (const id of this.sinks.keys()) sinks[id] = this.sink(id)
    return {
      id: this.id,
      started: this.started,
      ...(ended === undefined ? {} : { ended }),
      restarts: this.restarts,
      read: this.accepted + this.refusedAtRead + this.droppedAtRead + this.filteredAtRead,
      bytesRead: this.bytesRead,
      sinks,
      gaps: this.gaps,
      gapCount: this.gapCount,
    }
  }
}
