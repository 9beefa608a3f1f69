/**
 * Takes the gaps that sources tell of or the disk makes, and the records of earlier runs that fill them or that
 * upstream has sent again.
 */
import { warnLasting } from '../flow/lasting-warning'
import type { Gap, Log, Position } from '../contract'
import type { SourcePart } from '../flow/flow-parts'
import type { RunControl } from '../flow/run-control'
import type { InDoubtRecords } from './in-doubt'
import type { Ledger } from './ledger'
import { owed, type LostRecords, type Sequence, type Spool } from '../flow/ports'

export interface GapsParts {
  readonly inDoubt: InDoubtRecords | undefined
  readonly ledger: Ledger
  readonly spool: Spool | undefined
  readonly log: Log
  readonly control: RunControl
  /** The cursors say how far each sink has got, behind a spool. */
  readonly sinks: readonly {
    readonly part: { readonly id: string }
    readonly spoolFeed: { readonly cursor: Sequence } | undefined
  }[]
}

export class Gaps {
  /** By source: records in doubt that are on their way into the spool. */
  private readonly filling = new Map<string, Promise<void>>()

  constructor(private readonly parts: GapsParts) {}

  /**
   * Resolves when the records that fill this source's gaps are in the spool, or on their way, so that those that the
   * source returns now come behind them.
   */
  filled(source: string): Promise<void> | undefined {
    return this.filling.get(source)
  }

  held(source: string): readonly string[] {
    return this.parts.inDoubt?.partitions(source) ?? []
  }

  /** Tells of a commit upstream: records in doubt up to there were sent again, and are not ours to deliver any more. */
  committed({ id, source }: SourcePart, partition: string, upTo: Position): void {
    const returned =
      source.covers === undefined
        ? undefined
        : this.parts.inDoubt?.committed(id, partition, upTo, (a, b) => source.covers?.(a, b) === true)
    if (returned === undefined) return
    this.parts.ledger.returned(returned)
    this.parts.control.touch()
  }

  gap(part: SourcePart, gap: Gap): void {
    const { inDoubt } = this.parts
    if (inDoubt === undefined || !inDoubt.partitions(part.id).includes(gap.partition)) {
      this.note(part, gap)
      return
    }
    const before = this.filling.get(part.id)
    const filling = (async () => {
      await before
      await this.fill(inDoubt, part, gap)
    })().finally(() => {
      if (this.filling.get(part.id) === filling) this.filling.delete(part.id)
    })
    this.filling.set(part.id, filling)
    this.parts.control.track(filling)
  }

  private async fill(inDoubt: InDoubtRecords, part: SourcePart, gap: Gap): Promise<void> {
    const { ledger, log } = this.parts
    const filled = await inDoubt.fill(part.id, gap, (a, b) => part.source.covers?.(a, b) === true)
    ledger.carriedAgain(filled.again)
    ledger.returned(inDoubt.settled())
    if (filled.records > 0)
      log.warn(
        `${part.label}: ${gap.partition} cannot send ${filled.records} records again (${gap.why}): they are delivered out of the spool`,
      )
    if (filled.gap !== undefined) this.note(part, filled.gap)
    this.parts.control.touch()
  }

  /** Tells of accepted records that the disk has lost. @returns how many of them each sink had still to get */
  damaged(losses: readonly LostRecords[]): Readonly<Record<string, number>> {
    const { ledger, inDoubt, log } = this.parts
    const lost: Record<string, number> = {}
    for (const loss of losses) {
      const { partition, from, to, why, records = 0 } = loss
      const counts = this.parts.sinks.flatMap(({ part, spoolFeed }) =>
        spoolFeed === undefined ? [] : [[part.id, owed(loss, part.id, spoolFeed.cursor)] as const],
      )
      // Records in doubt are sent again by their source, damaged or not.
      if (inDoubt !== undefined && inDoubt.low !== Infinity && counts.every(([, count]) => count === 0)) continue
      ledger.gap({ partition, from, to, why, records })
      warnLasting(log, `${records} records are lost: ${why}`)
      for (const [sink, count] of counts) lost[sink] = (lost[sink] ?? 0) + count
    }
    ledger.lost(lost)
    if (losses.length > 0) this.parts.control.touch()
    return lost
  }

  private note({ id, label }: SourcePart, gap: Gap): void {
    this.parts.ledger.gap(gap)
    this.parts.log.warn(
      `${label}: a gap${gap.records === undefined ? '' : ` of ${gap.records} records`} from ${gap.from} to ${gap.to}${gap.seconds === undefined ? '' : ` (${gap.seconds.toFixed(3)} s)`}: ${gap.why}`,
    )
    if (this.parts.spool === undefined) this.parts.control.touch()
    else this.parts.control.track(this.parts.spool.gap(id, gap))
  }
}
