/**
 * The content of the flow file: one value, written as a whole, so that positions, cursors and the ledger are durable
 * together.
 */
import type { Gap, Position } from '../contract'
import type { Receipt } from '../accounting/receipt'
import type { SinkLedger } from '../accounting/sink-ledger'

export interface FlowState {
  readonly format: 1
  /** Of the spool that the cursors are sequences of. Absent: the flow has none. */
  readonly spoolId?: string
  /** Where the spool's files lie, if not in the instance's own folder (`--spool`, `buffer-path`). Absolute. */
  readonly spoolDirectory?: string
  /**
   * The command line that runs it, unless a secret stands in it: with it the spool can be drained without its sources.
   */
  readonly command?: FlowCommand
  /** The largest sequence known to be used: the next start begins beyond it. */
  readonly sequence: number
  /**
   * The run that wrote this ended in order. false: it is running, or was killed, and the spool may hold more than is
   * known here.
   */
  readonly clean: boolean
  /** Sequence after the newest record known to be accepted. */
  readonly acceptedThrough: number
  /** By identity. */
  readonly sources: Readonly<Record<string, SourceState>>
  /** By identity. */
  readonly sinks: Readonly<Record<string, SinkState>>
  /** Recovered records that upstream is to send again (in-doubt.ts); every cursor stands beyond them. */
  readonly held?: readonly InDoubtRange[]
  /** Records that the disk has lost and that their sources are to be read again for (restorer.ts). */
  readonly again?: RereadState
  /** Of the run that wrote this: the next start issues its receipt if it could not do so itself. */
  readonly run?: RunLedger
  /** Of runs that ended and whose receipts nobody has got, as far as is known. */
  readonly unissued?: readonly Receipt[]
}
export interface FlowCommand {
  readonly argv: readonly string[]
  readonly args?: string
  readonly cwd: string
}
/**
 * `what`: hash of all that an endpoint's line means but for the servers of its cluster, `members`, of which a line
 * shares one at least.
 */
export interface EndpointMeaning {
  readonly what: string
  readonly members: readonly string[]
}
/**
 * `completeUntil`: of a feed, epoch milliseconds: all that was sent until then is delivered or in the spool.
 * `released`: where the position lives upstream, the newest that may be committed there.
 */
export interface SourceState {
  readonly label: string
  readonly meaning?: EndpointMeaning
  readonly positions: Readonly<Record<string, Position>>
  readonly released?: Readonly<Record<string, Position>>
  readonly completeUntil?: number
}
/**
 * `cursor`: sequence of the first record not yet settled. `target`: where segments made for it go. `proven`: it has
 * confirmed something once, so that a refusal is no typo. `tried`: its run may have written something. `behind`:
 * positions that it has come to where they are not the newest; null: nothing of the partition yet; absent: not known.
 * `doubtful`: records that were written and not answered when the run ended.
 */
export interface SinkState {
  readonly label: string
  readonly meaning?: EndpointMeaning
  readonly cursor: number
  readonly target?: string
  readonly proven?: boolean
  readonly tried?: boolean
  readonly doubtful?: number
  readonly behind?: Behind
  readonly ahead?: Ahead
}

export type Behind = Readonly<Record<string, Readonly<Record<string, Position | null>>>>

/** A cursor within a frame: so many records beyond the position of the partition. */
export interface Ahead {
  readonly source: string
  readonly partition: string
  readonly count: number
}

/**
 * `records`, and of them those that each sink is `owed`, are lost and not back yet; `seen`: begins of holes that were
 * seen to.
 */
export interface RereadState {
  readonly parts: readonly RereadPart[]
  readonly records: number
  readonly owed: Readonly<Record<string, number>>
  readonly whys: readonly string[]
  readonly seen: readonly number[]
}
/**
 * To be read again: from after `from` and `skip` records up to `to`, but for the last `keep` records, which are in the
 * spool. What is back is stored under `key`.
 */
export interface RereadPart {
  readonly key: string
  readonly source: string
  readonly partition: string
  readonly from?: Position
  readonly skip?: number
  readonly to: Position
  readonly keep: number
}

/**
 * Sequences from `from` to before `to`; `counts`: records of them that each sink is owed; `until`: by source and
 * partition, the position whose commit upstream means that all of it was returned.
 */
export interface InDoubtRange {
  readonly from: number
  readonly to: number
  readonly counts: Readonly<Record<string, number>>
  readonly until: Readonly<Record<string, Readonly<Record<string, Position>>>>
}

/** Records and bytes since `started`, over all restarts of the run. */
export interface RunLedger {
  readonly id: string
  /** Epoch milliseconds. */
  readonly started: number
  /** Missing while it runs, and for ever where it was killed. */
  readonly ended?: number
  readonly restarts: number
  readonly read: number
  readonly bytesRead: number
  /** By identity. */
  readonly sinks: Readonly<Record<string, SinkLedger>>
  /** The first thousand; `gapCount` has them all. */
  readonly gaps: readonly Gap[]
  readonly gapCount: number
}
/** Records that the ledger still expects a sink to settle. */
export function spooledOf(run: RunLedger, sink: SinkLedger): number {
  return (
    sink.carriedIn +
    run.read -
    sink.delivered -
    sink.rejected -
    sink.dropped -
    sink.filtered -
    sink.returned -
    sink.abandoned
  )
}
