/** The steps to give up a partition. */
import { linkedAbort, unlessAborted } from '../../kit/signal'
import type { Clock } from '../contract'

/** A state that cannot be awaited is looked at this often, milliseconds. */
const LOOK_MS = 20

export interface Revocation {
  /** Resolves once all that has been read is on its way: durable in the spool, where there is one, and sealed. */
  taken(): Promise<unknown>
  /** Tells whether all of the partition is settled. */
  settled(): boolean
  commit(): Promise<void>
}

/**
 * Resolves with true when all of it that was read is settled and committed, with false at the deadline or when the run
 * is cut short.
 */
export async function revokePartition(
  { taken, settled, commit }: Revocation,
  deadlineMs: number,
  clock: Clock,
  cut: AbortSignal,
): Promise<boolean> {
  const deadline = linkedAbort(cut)
  const { signal } = deadline.controller
  const timer = clock.sleep(deadlineMs, signal).then(
    () => {
      deadline.controller.abort(new Error('deadline'))
    },
    () => undefined,
  )
  try {
    await unlessAborted(taken(), signal)
    while (!settled()) await clock.sleep(LOOK_MS, signal)
    await unlessAborted(commit(), signal)
    return true
  } catch (error) {
    if (!signal.aborted) throw error
    return false
  } finally {
    deadline.controller.abort(new Error('done'))
    deadline.dispose()
    await timer
  }
}
