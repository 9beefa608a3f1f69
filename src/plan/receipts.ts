/**
 * Issues receipts: as a line of the log, and to where `--receipt` says. A receipt that cannot be written stays with the
 * flow, and the next start issues it.
 */
import { imbalance, receiptLine, type Receipt } from '../core/accounting/receipt'
import { lineOf } from '../core/errors'
import type { RunLog } from './run-log'

/** If receipts can never be written, this many of the newest are kept. */
const MAX_UNISSUED = 100

/** Where receipts go besides the log. */
export interface ReceiptStore {
  /** Errors name it so. */
  readonly name: string
  append(receipt: Receipt): Promise<void>
  /** A receipt that was written just before a kill is there already. */
  contains(run: string): Promise<boolean>
}

export interface Issuing {
  readonly log: RunLog
  readonly store: ReceiptStore | undefined
  /** The receipts are of earlier runs, and may have been issued already. */
  readonly earlier: boolean
  /** The log does not show them. */
  readonly silent?: boolean
}

/** @returns the receipts that could not be issued, for the next start */
export async function issueAll(receipts: readonly Receipt[], how: Issuing): Promise<readonly Receipt[]> {
  const left: Receipt[] = []
  for (const receipt of receipts) if (!(await issue(receipt, how))) left.push(receipt)
  return left.slice(-MAX_UNISSUED)
}

async function issue(receipt: Receipt, { log, store, earlier, silent = false }: Issuing): Promise<boolean> {
  const wrong = receipt.sinks.find((sink) => imbalance(sink) !== 0)
  if (wrong !== undefined)
    log.error(`the receipt of ${wrong.label} does not add up: off by ${imbalance(wrong)}; please report this`)
  log[silent ? 'debug' : 'info'](receiptLine(receipt))
  if (store === undefined) return true
  try {
    if (!earlier || !(await store.contains(receipt.run))) await store.append(receipt)
    return true
  } catch (error) {
    log.error(`the receipt could not be written to ${store.name}: ${lineOf(error)}`)
    // A FIFO without reader is no fault of the disk, and may never get a reader.
    return (error as NodeJS.ErrnoException).code === undefined
  }
}
