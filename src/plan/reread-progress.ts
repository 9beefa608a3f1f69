/**
 * Says how far the last run has come with records that it was to read again because the disk had lost them. Those that
 * are back since its state was stored lie in the spool.
 */
import type { RereadState, FlowState } from '../core/flow/flow-state'
import { isReread } from '../core/recovery/reread-plan'
import type { LostRecords, Spool } from '../core/flow/ports'

export interface RereadProgress {
  readonly again?: RereadState
  /** Records that are back and that the stored ledger does not count. */
  readonly back: number
  /** Of them, those that a sink was not owed. */
  beyond(sink: string): number
}

export async function rereadProgressOf(stored: FlowState | undefined, spool: Spool): Promise<RereadProgress> {
  const again = stored?.again
  if (stored === undefined || again === undefined) return { back: 0, beyond: () => 0 }
  let found = 0
  if (again.parts.length > 0)
    for await (const frame of spool.kept(stored.acceptedThrough)) if (isReread(frame.source)) found += frame.batch.count
  const back = Math.min(found, again.records)
  const owed = Object.fromEntries(Object.entries(again.owed).map(([sink, count]) => [sink, Math.max(0, count - back)]))
  return {
    again: { ...again, records: again.records - back, owed },
    back,
    beyond: (sink) => Math.max(0, back - (again.owed[sink] ?? 0)),
  }
}

/** Without those that were seen to before: a file that is gone leaves no mark. */
export function unseen<T extends LostRecords & { readonly lost: boolean }>(
  stored: FlowState | undefined,
  gaps: readonly T[],
): readonly T[] {
  const seen = new Set(stored?.again?.seen)
  return gaps.filter(({ lost, sequence }) => !lost || !seen.has(sequence))
}
