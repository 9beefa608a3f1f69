/** The receipt of a run: what went in and what became of it, per sink. A sum that does not hold is a bug of ours. */
import type { Gap } from '../contract'
import type { SinkLedger } from './sink-ledger'

export interface ReceiptSink extends SinkLedger {
  readonly id: string
  readonly label: string
  readonly read: number
  /** Safe in the spool, still to be delivered. */
  readonly spooled: number
}
export interface Receipt {
  readonly flow: string
  readonly run: string
  /** ISO times. `ended` is when the run was seen to have ended where it was killed. */
  readonly started: string
  readonly ended: string
  readonly seconds: number
  /** killed: nobody issued it at the time; the next start did. */
  readonly outcome: 'complete' | 'stopped' | 'failed' | 'killed'
  readonly read: number
  readonly bytesRead: number
  readonly restarts: number
  readonly sinks: readonly ReceiptSink[]
  /** The first thousand; `gapCount` has them all. */
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

/** One line for people. */
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
