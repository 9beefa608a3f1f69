/**
 * Runs an assembled flow to the end of its process: it issues the receipts, tells of a failure, and chooses the exit
 * code. It touches neither process nor terminal, so a test, or a simulation, runs all of it.
 */
import type { Flow } from '../core/flow/flow'
import type { FlowResult } from '../core/flow/flow-parts'
import { receiptLine, type Receipt } from '../core/accounting/receipt'
import type { Assembled } from './assemble'
import { EXIT, exitCode, type ProcessEnd } from '../core/flow/exit-code'
import { reportFailure } from './failure-report'
import { issueAll, type ReceiptStore } from './receipts'
import type { RunLog } from './run-log'

export interface RunHost {
  readonly log: RunLog
  /** Where `--receipt` says; absent without it. */
  readonly receipts?: ReceiptStore
  redact(text: string): string
  /** The run is over, and nothing shows its progress any more. */
  ended(): Promise<void> | void
  /** The first signal that stopped the run. */
  stoppedBy(): NodeJS.Signals | undefined
}

/**
 * Issues receipts that earlier runs could not. Call it before `runFlow`.
 * @returns those that could not be issued now either
 */
export async function issueEarlier(
  { flow, owing }: Pick<Assembled, 'flow' | 'owing'>,
  { log, receipts }: Pick<RunHost, 'log' | 'receipts'>,
): Promise<readonly Receipt[]> {
  const earlier = await issueAll(owing, { log, store: receipts, earlier: true })
  flow.owes(earlier)
  return earlier
}

export type RunnableFlow = Pick<Assembled, 'name' | 'bounded' | 'fed' | 'drainable' | 'deadLetters' | 'release'> & {
  readonly flow: Pick<Flow, 'run' | 'issued'>
}

/** @param earlier what `issueEarlier` has returned */
export async function runFlow(
  assembled: RunnableFlow,
  earlier: readonly Receipt[],
  host: RunHost,
): Promise<ProcessEnd> {
  const { flow, bounded, fed } = assembled
  const { log, receipts: store } = host
  let result: FlowResult
  try {
    result = await flow.run()
  } finally {
    await host.ended()
  }
  const silent = result.ending.kind === 'reader gone'
  if (result.provisional)
    log.info(`as far as it is known, for the next start issues what the disk holds: ${receiptLine(result.receipt)}`)
  const left = [
    ...(await issueAll(earlier, { log, store, earlier: true, silent })),
    ...(result.provisional ? [] : await issueAll([result.receipt], { log, store, earlier: false, silent })),
  ]
  // The flow is still locked here, so no other start issues the same receipt.
  await flow.issued(left)
  await assembled.release()
  const signalled = host.stoppedBy()
  const code = exitCodeWithReceipts(exitCode(result.ending, bounded && !(fed && signalled !== 'SIGINT')), left.length)
  if (code !== EXIT.complete && code !== EXIT.readerGone)
    reportFailure(result, assembled, log, (text) => host.redact(text))
  return code ?? signalled ?? EXIT.complete
}

/** A receipt that cannot be written is a failure of the local disk, unless something worse has happened. */
function exitCodeWithReceipts(code: number | undefined, missing: number): number | undefined {
  const worse: readonly (number | undefined)[] = [EXIT.usage, EXIT.flowInUse, EXIT.bug]
  return missing === 0 || worse.includes(code) ? code : EXIT.disk
}
