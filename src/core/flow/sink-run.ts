/** One sink of a run: its feed, the pump that empties the feed, and whatever is known of the sink. */
import { possibleDuplicatesOf } from '../accounting/accounts'
import { DeliveredPositions } from '../accounting/delivered-positions'
import type { InDoubtAtStart } from '../accounting/in-doubt'
import type { Ledger } from '../accounting/ledger'
import type { DirectFeed } from '../delivery/direct-feed'
import type { Counts } from '../delivery/pending-write'
import { SinkPump } from '../delivery/sink-pump'
import { SpoolFeed } from '../delivery/spool-feed'
import { sourceOf } from '../recovery/reread-plan'
import { Supervisor } from '../supervision/supervisor'
import type { FlowParts, SinkPart } from './flow-parts'
import type { FullSpool } from './full-spool'
import type { Spool } from './ports'
import type { RunControl } from './run-control'

export interface SinkRunParts {
  readonly flow: FlowParts
  readonly control: RunControl
  readonly ledger: Ledger
  readonly fullSpool: FullSpool | undefined
  /** Behind a spool: where the sink stood, and what was in doubt. */
  readonly atStart: InDoubtAtStart | undefined
  /** Without a spool. */
  readonly direct: DirectFeed | undefined
}

export class SinkRun {
  readonly supervisor: Supervisor
  readonly pump: SinkPump
  /** Absent without a spool. */
  readonly spoolFeed: SpoolFeed | undefined
  /** The sink has confirmed a record, in this run or an earlier one. */
  proven: boolean
  /** A write may have reached the sink, so a kill leaves records in doubt. */
  tried = false

  constructor(
    readonly part: SinkPart,
    private readonly parts: SinkRunParts,
  ) {
    const { flow, control, direct } = parts
    const { spool, clock, log, deadLetters, lingerMs, stallMs } = flow
    this.proven = part.supervision.knownGood
    this.supervisor = new Supervisor(part.id, 'sink', part.label, part.supervision, clock, log)
    this.spoolFeed = spool === undefined ? undefined : this.feedOf(spool)
    const feed = this.spoolFeed ?? direct
    if (feed === undefined) throw new Error(`${part.label} has no feed`)
    this.pump = new SinkPump({
      sink: part.sink,
      id: part.id,
      feed,
      supervisor: this.supervisor,
      deadLetters,
      clock,
      log,
      lingerMs,
      stallMs,
      signal: control.cut,
      onUnplaced: (why) => {
        control.unplaced(why)
      },
      beforeFirst: () => this.beforeFirst(),
      doubtful: this.doubtfulAtStart(),
    })
  }

  private feedOf(spool: Spool): SpoolFeed {
    const { flow, atStart } = this.parts
    const { id, sink } = this.part
    const { stored, spoolId, sources } = flow
    const cursor = atStart?.cursors.get(id) ?? spool.tail
    const labelOf = (key: string, source = sourceOf(key)): string =>
      sources.find((part) => part.id === source)?.label ?? stored?.sources[source]?.label ?? source
    return new SpoolFeed(
      spool,
      spoolId ?? '',
      labelOf,
      id,
      sink.limits.unit,
      cursor,
      new DeliveredPositions(stored, spool, id, cursor),
      (counts) => {
        this.settled(counts)
      },
    )
  }

  /** Records that an earlier run may have written, and that come again. */
  private doubtfulAtStart(): number {
    const { flow, atStart } = this.parts
    const { id, sink } = this.part
    if (this.spoolFeed === undefined || sink.limits.unit === 'segment') return 0
    return possibleDuplicatesOf(flow, id, (atStart?.carriedIn.get(id) ?? 0) - (atStart?.inDoubt.of(id) ?? 0))
  }

  /** A kill leaves all that was spooled in doubt, unless it is known that nothing was written. */
  private async beforeFirst(): Promise<void> {
    if (this.spoolFeed === undefined || this.part.sink.limits.unit === 'segment') return
    this.tried = true
    await this.parts.control.flush()
  }

  /** Records have got their outcome for good. */
  settled(counts: Counts): void {
    const { ledger, fullSpool, control } = this.parts
    ledger.settled(this.part.id, counts)
    fullSpool?.moved()
    if (counts.delivered > 0) this.proven = true
    control.commitDelivered()
    control.touch()
  }
}
