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
  /** The folder of the spool, if it is not beside the flow file. */
  readonly spoolDirectory?: string
  readonly command?: FlowCommand
  /** If it is absent, nothing outlives the process. */
  readonly file?: FlowFile<FlowState>
  readonly stored?: FlowState
  /** Records that earlier runs had accepted and that are gone from the disk. */
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
  /** A rejected or lost record makes a bounded run incomplete. */
  readonly bounded: boolean
  /** So many bytes of records may be in memory. */
  readonly memory: number
  readonly lingerMs: number
  readonly stallMs: number
  /** A full spool out of which nothing is delivered is waited for so long; for ever if it is absent. */
  readonly waitForSpace?: GiveUpAfter
  readonly graceMs: number
  readonly clock: Clock
  readonly log: Log
}

/** Says how a run ended (`exit-code.ts` makes an exit code of it). */
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
   * The state of the run could not be stored. The next start goes by what the disk holds, and issues the receipt that
   * agrees with it. This receipt is what is known now.
   */
  readonly provisional: boolean
}
