/**
 * Makes the receipt of a run that could not issue its own: the flow file's ledger, completed by what was found in the
 * spool. Records that the disk has lost still count as spooled in it. The run that finds them gone accounts for them.
 */
import type { Gap } from '../core/contract'
import type { FlowState } from '../core/flow/flow-state'
import { owed, type LostRecords, type Spool } from '../core/flow/ports'
import type { Receipt } from '../core/accounting/receipt'
import type { RereadProgress } from './reread-progress'

/**
 * @param recovered records that were accepted after the ledger was last saved; gaps noted since, and records that the
 *   disk has lost (`lost`)
 * @returns undefined where the last run ended in order, or there was none
 */
export function priorReceipt(
  flow: string,
  stored: FlowState,
  spool: Spool | undefined,
  recovered: {
    readonly accepted: number
    readonly gaps: readonly (LostRecords & { readonly lost: boolean })[]
    readonly awaited?: RereadProgress
  },
  now: number,
): Receipt | undefined {
  const run = stored.run
  if (run === undefined || run.ended !== undefined) return undefined
  const losses = recovered.gaps.filter(({ lost }) => lost)
  const lostFrom = (sink: string, cursor: number): number =>
    losses.reduce((sum, loss) => sum + owed(loss, sink, cursor), 0)
  const { awaited } = recovered
  const read = run.read + recovered.accepted - (awaited?.back ?? 0) + lostFrom('', stored.acceptedThrough)
  const known = new Set(run.gaps.map(keyOf))
  const gaps = recovered.gaps
    .filter((gap) => !gap.lost && !known.has(keyOf(gap)))
    .map(({ source: _source, sequence: _sequence, lost: _lost, ...gap }): Gap => gap)
  const sinks = Object.entries(run.sinks).map(([id, ledger]) => {
    const settled = ledger.delivered + ledger.rejected + ledger.dropped + ledger.filtered
    const cursor = stored.sinks[id]?.cursor ?? 0
    const held = (stored.held ?? []).reduce((sum, { counts }) => sum + (counts[id] ?? 0), 0)
    const spooled =
      spool === undefined ? 0 : spool.countFrom(cursor) + held + lostFrom(id, cursor) + (awaited?.again?.owed[id] ?? 0)
    // Without a spool what was under way is back with its source, or gone with a process that kept nothing.
    const returned = spool === undefined ? ledger.carriedIn + read - settled : ledger.returned
    return {
      ...ledger,
      carriedIn: ledger.carriedIn + (awaited?.beyond(id) ?? 0),
      id,
      label: stored.sinks[id]?.label ?? id,
      read,
      spooled,
      returned,
    }
  })
  return {
    flow,
    run: run.id,
    started: new Date(run.started).toISOString(),
    ended: new Date(now).toISOString(),
    seconds: Math.max(0, Math.round(now - run.started)) / 1000,
    outcome: 'killed',
    read,
    bytesRead: run.bytesRead,
    restarts: run.restarts,
    sinks,
    gaps: [...run.gaps, ...gaps],
    gapCount: run.gapCount + gaps.length,
  }
}

function keyOf({ partition, from, to, why }: Gap): string {
  return JSON.stringify([partition, from, to, why])
}
