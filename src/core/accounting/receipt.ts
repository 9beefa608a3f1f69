/** The receipt of a run: what went in and what became of it, per sink. A sum that does not hold is a bug of ours. */
import type { Gap } from '../contract'
import type { SinkLedger } from './sink-ledger'

export interface ReceiptSink extends SinkLedger {
  readonly id: string
  readonly label: string
  readonly read: number
  /** So many records are safe in the spool and still to be delivered. */
  readonly spooled: number
}
export interface Receipt {
  readonly flow: string
  readonly run: string
  /** ISO times. Of a killed run, `ended` is the time at which the next start saw that it had ended. */
  readonly started: string
  readonly ended: string
  readonly seconds: number
  /** The receipt of a killed run is issued by the next start. */
  readonly outcome: 'complete' | 'stopped' | 'failed' | 'killed'
  readonly read: number
  readonly bytesRead: number
  readonly restarts: number
  readonly sinks: readonly ReceiptSink[]
  /** The first thousand gaps. `gapCount` counts all of them. */
  readonly gaps: readonly Gap[]
  readonly gapCount: number
  readonly why?: string
}

/** Returns by how many records the sum of a sink is wrong; 0 if it is right. */
export function imbalance(sink: ReceiptSink): number {
  return (
    sink.carriedIn +
    sink.read -
    (sink.delivered + sink.rejected + sink.dropped + sink.filtered + sink.spooled + sink.returned + sink.abandoned)
  )
}

/** Makes one line for people. */
export function receiptLine(receipt: Receipt): string {
  const parts = receipt.sinks.map((sink) => {
    const rest = (['rejected', 'dropped', 'filtered', 'spooled', 'returned', 'abandoned'] as const)
      .filter((name) => sink[name] > 0)
      .map((name) => `, ${sink[name]} ${name}`)
      .join('')
    return `${sink.label}: ${sink.carriedIn > 0 ? `${sink.carriedIn} carried in + ` : ''}${sink.read} read = ${sink.delivered} delivered${rest}${sink.possibleDuplicates > 0 ? ` (${sink.possibleDuplicates} possible duplicates)` : ''}`
  })
  const gaps = receipt.gapCount > 0 ? `; ${receipt.gapCount} gap${receipt.gapCount === 1 ? '' : 's'}` : ''
  return `receipt of ${receipt.outcome} run, ${receipt.seconds} s: ${parts.join('; ')}${gaps}`
}
