/**
 * A flow tells this of itself: one typed snapshot for progress, metrics and `/status`. Its counts are the ledger's, as
 * the receipt's are.
 */
import type { SinkLedger } from '../accounting/sink-ledger'

export type EndpointState = 'opening' | 'running' | 'backing off' | 'draining' | 'stopped' | 'failed'

export interface EndpointStatus {
  readonly id: string
  readonly role: 'source' | 'sink' | 'dead letter'
  readonly label: string
  readonly state: EndpointState
  /** Epoch milliseconds. */
  readonly since: number
  /** The faults since the last success, and the text of the last one. */
  readonly faults: number
  readonly error?: string
  readonly gauges: Readonly<Record<string, number>>
}

export interface FlowStatus {
  readonly name: string
  readonly started: number
  readonly read: number
  readonly bytesRead: number
  readonly restarts: number
  readonly sources: readonly EndpointStatus[]
  readonly sinks: readonly (EndpointStatus &
    SinkLedger & { /** Records not yet settled. */ readonly pending: number })[]
  readonly spool?: { readonly bytes: number; readonly full: boolean; readonly why?: string }
  readonly gaps: number
}
