/**
 * Records that the last ledger says are spooled and that the spool does not hold, where no sequence tells: a file is
 * gone before a jump of the sequence.
 */
import { spooledOf, type FlowState } from '../core/flow/flow-state'
import { owed, type LostRecords, type Spool } from '../core/flow/ports'

/** @param losses what is known to be lost already */
export function unexplainedLoss(
  stored: FlowState,
  spool: Spool,
  losses: readonly LostRecords[],
): LostRecords | undefined {
  const { run, acceptedThrough } = stored
  if (run === undefined || stored.spoolId === undefined) return undefined
  // Where upstream sends again, what fills a gap is appended behind what the ledger counted.
  const appendedAgain = stored.clean || Object.values(stored.sources).some(({ released }) => released !== undefined)
  const counts: Record<string, number> = {}
  for (const [id, ledger] of Object.entries(run.sinks)) {
    const cursor = stored.sinks[id]?.cursor
    if (cursor === undefined) continue
    const through = Math.max(cursor, acceptedThrough)
    const held = (stored.held ?? []).reduce((sum, range) => sum + (range.counts[id] ?? 0), 0)
    const there = spool.countFrom(cursor) - (appendedAgain ? 0 : spool.countFrom(through))
    const lost = losses.reduce((sum, loss) => sum + owed(loss, id, cursor) - owed(loss, id, through), 0)
    const short = spooledOf(run, ledger) - held - there - lost - (stored.again?.owed[id] ?? 0)
    if (short > 0) counts[id] = short
  }
  const records = Math.max(0, ...Object.values(counts))
  if (records === 0) return undefined
  const why = 'missing from the spool: a file is gone, or was emptied'
  return { partition: '', from: '', to: '', why, records, source: '', sequence: 0, owed: counts }
}
