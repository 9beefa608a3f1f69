/** Declares what a flow is made of, and how a run of it can end. */
import type { Batch, Clock, Lines, Log, Refusal, Sink, Source } from '../contract'
import type { RereadState, EndpointMeaning, FlowCommand, FlowState } from './flow-state'
import type { DeadLetters, FlowFile, LostRecords, Spool } from './ports'
import type { Receipt } from '../accounting/receipt'
import type { Until } from '../delivery/source-pump'
import type { GiveUpAfter, Supervision } from '../supervision/supervisor'

export interface SourcePart {
  readonly id: string
  readonly label: string
  /** As it was called at first, where that is another: the label that is stored. */
  readonly spelled?: string
  readonly meaning?: EndpointMeaning
  readonly source: Source
  readonly position: 'upstream' | 'here' | 'none'
  readonly commitOnceSpooled: boolean
  readonly live: boolean
  readonly supervision: Supervision
}
export interface SinkPart {
  readonly id: string
  readonly label: string
  /** As it was called at first, where that is another: the label that is stored. */
  readonly spelled?: string
  readonly meaning?: EndpointMeaning
  readonly sink: Sink
  readonly supervision: Supervision
}
export interface FlowParts {
  readonly name: string
  readonly runId: string
  readonly sources: readonly SourcePart[]
  readonly sinks: readonly SinkPart[]
  readonly spool?: Spool
  readonly spoolId?: string
  /** The sequence of the first record of this run. */
  readonly nextSequence?: number
  /** Where the spool lies, if not beside the flow file. */
  readonly spoolDirectory?: string
  readonly command?: FlowCommand
  /** Absent: nothing outlives the process. */
  readonly file?: FlowFile<FlowState>
  readonly stored?: FlowState
  /** Records that earlier runs had accepted and that were found to be gone from the disk. */
  readonly damage?: readonly LostRecords[]
  /** The last run was to read these records again. Those that are back since the state was stored are left out. */
  readonly again?: RereadState
  readonly deadLetters: DeadLetters
  readonly transform?: (
    batch: Batch,
    facts: { readonly source: string },
  ) => { readonly batch: Batch; readonly refused: readonly Refusal[] }
  readonly toLines?: (batch: Batch) => Lines
  readonly refuseInner?: (batch: Batch) => Lines
  readonly until: Until
  /** The run is bounded: what is rejected or lost makes it incomplete. */
  readonly bounded: boolean
  /** Bytes of records held in memory. */
  readonly memory: number
  readonly lingerMs: number
  readonly stallMs: number
  /** How long a spool that is full, and out of which nothing is delivered, is waited for; absent: for ever. */
  readonly waitForSpace?: GiveUpAfter
  readonly graceMs: number
  readonly clock: Clock
  readonly log: Log
}

/** How a run ended; the command line makes an exit code of it. */
export type Ending =
  | { readonly kind: 'complete' }
  | {
      readonly kind: 'stopped' /** All of it is delivered, safe in the spool, or the source has it. */
      readonly safe: boolean
    }
  | { readonly kind: 'incomplete'; readonly why: string }
  | { readonly kind: 'source failed' | 'sink failed' | 'disk failed' | 'usage'; readonly why: string }
  | { readonly kind: 'reader gone' }
  | { readonly kind: 'bug'; readonly error: unknown }
export interface FlowResult {
  readonly ending: Ending
  readonly receipt: Receipt
  /**
   * How the run stands could not be stored. The next start goes by what the disk holds, and issues the receipt that
   * agrees with it: this one is what is known.
   */
  readonly provisional: boolean
}
