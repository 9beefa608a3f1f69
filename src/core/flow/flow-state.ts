/**
 * The content of the flow file: one value, written as a whole, so that positions, cursors and the ledger are durable
 * together.
 */
import type { Gap, Position } from '../contract'
import type { Receipt } from '../accounting/receipt'
import type { SinkLedger } from '../accounting/sink-ledger'

export interface FlowState {
  readonly format: 1
  /** The id of the spool to which the cursors belong. It is absent if the flow has no spool. */
  readonly spoolId?: string
  /** The absolute path of the spool, if it is not in the instance's own folder (`--spool`, `buffer-path`). */
  readonly spoolDirectory?: string
  /** The command line of the flow, unless it has a secret. With it the spool can be drained without its sources. */
  readonly command?: FlowCommand
  /** The largest sequence that may be in use. The next start begins beyond it. */
  readonly sequence: number
  /**
   * The run that wrote this has ended in order. Otherwise it runs or was killed, and the spool may hold more than is
   * known here.
   */
  readonly clean: boolean
  /** The sequence after the newest record that is known to be accepted. */
  readonly acceptedThrough: number
  /** By identity. */
  readonly sources: Readonly<Record<string, SourceState>>
  /** By identity. */
  readonly sinks: Readonly<Record<string, SinkState>>
  /** The records in doubt, which upstream is to send again (in-doubt.ts). Every cursor stands beyond them. */
  readonly held?: readonly InDoubtRange[]
  /** Records that the disk has lost and that are to be read again from their sources (restorer.ts). */
  readonly again?: RereadState
  /** The counts of the run that wrote this. The next start issues its receipt if the run could not. */
  readonly run?: RunLedger
  /** Receipts of earlier runs that nobody has got, as far as is known. */
  readonly unissued?: readonly Receipt[]
}
export interface FlowCommand {
  readonly argv: readonly string[]
  readonly args?: string
  readonly cwd: string
}
/**
 * `what` is the hash of all that an endpoint's line means, except the servers of its cluster. Those are `members`, and
 * another line for the same cluster has at least one of them.
 */
export interface EndpointMeaning {
  readonly what: string
  readonly members: readonly string[]
}
/**
 * All that a feed sent until `completeUntil`, in milliseconds since the epoch, is delivered or in the spool. `released`
 * has the newest positions that may be committed upstream, if positions live there.
 */
export interface SourceState {
  readonly label: string
  readonly meaning?: EndpointMeaning
  readonly positions: Readonly<Record<string, Position>>
  readonly released?: Readonly<Record<string, Position>>
  readonly completeUntil?: number
}
/**
 * `cursor` is the sequence of the first record that is not settled. Segments that were made for the sink go to
 * `target`. `proven` says that it has confirmed something once, so a refusal is no typo. `tried` says that its run may
 * have written something. `behind` has the positions that it has come to, if they are not the newest; null stands for
 * nothing of the partition, and an absent one is not known. `doubtful` counts records that were written and not
 * answered when the run ended.
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

/** A cursor within a frame stands so many records beyond the position of the partition. */
export interface Ahead {
  readonly source: string
  readonly partition: string
  readonly count: number
}

/**
 * So many `records` are lost and not back yet, and each sink is owed so many of them. `seen` has the beginnings of
 * holes that were dealt with.
 */
export interface RereadState {
  readonly parts: readonly RereadPart[]
  readonly records: number
  readonly owed: Readonly<Record<string, number>>
  readonly whys: readonly string[]
  readonly seen: readonly number[]
}
/**
 * A part that is to be read again: from after `from` and `skip` records up to `to`, without the last `keep` records,
 * which are in the spool. Records that are back are stored under `key`.
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
 * Records in doubt with sequences from `from` to before `to`. `counts` says how many of them each sink is owed. `until`
 * has, by source and partition, the position whose commit upstream means that all of them were returned.
 */
export interface InDoubtRange {
  readonly from: number
  readonly to: number
  readonly counts: Readonly<Record<string, number>>
  readonly until: Readonly<Record<string, Readonly<Record<string, Position>>>>
}

/** Counts records and bytes since `started`, over all restarts of the run. */
export interface RunLedger {
  readonly id: string
  /** Epoch milliseconds. */
  readonly started: number
  /** It is missing while the run goes on, and for ever if it was killed. */
  readonly ended?: number
  readonly restarts: number
  readonly read: number
  readonly bytesRead: number
  /** By identity. */
  readonly sinks: Readonly<Record<string, SinkLedger>>
  /** The first thousand gaps. `gapCount` counts all of them. */
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
