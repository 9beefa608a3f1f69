/**
 * One look at the table: what is missing is made, what is finished and done with is removed, what is due is taken, what
 * others have too much of is asked for.
 */
import { chooseLeases, type BalanceLimits, type LeaseView } from './balance'
import type { OwnedLease } from './owned-lease'
import { Lineage } from './lineage'
import type { LeaseRow, LeaseTable } from './table'
import type { LeaseMonitor } from './monitor'
import type { LeaseListener } from '../stream-client'

/** Requests under way at once. */
const PARALLEL_REQUESTS = 16

export interface SyncContext {
  readonly listener: LeaseListener
  readonly table: LeaseTable
  readonly bounds: BalanceLimits
  readonly monitor: LeaseMonitor
  readonly owned: ReadonlyMap<string, OwnedLease>
  readonly signal: AbortSignal
  /** Nothing more is taken. */
  isStopping(): boolean
  /** It is ours as of the time given. `isGone`: nothing of it can be read any more. */
  taken(row: LeaseRow, at: number, isGone: boolean): void
}

export interface SyncResult {
  /** All that can be read is read, by us or by others that were seen to live. */
  readonly settled: boolean
  /** Somebody was quicker: how things stand is to be looked at anew. */
  readonly isOutdated: boolean
}

export async function syncLeases(context: SyncContext): Promise<SyncResult> {
  const { listener, table, bounds, monitor, owned, signal } = context
  const { clock, log } = listener.ctx
  const { rows, lineage, begun } = await listLeases(context)
  const statuses = monitor.observe(rows, begun, clock.monotonic())
  reportRecovered(listener, rows, lineage)
  for (const row of rows.filter((one) => !owned.has(one.key) && lineage.isRemovable(one)))
    await table.remove(row, signal)
  const seen = rows
    .filter((row) => row.checkpoint.kind !== 'end' && lineage.mayBegin(row))
    .map((row): LeaseView => {
      const { free = false, longFree: old = false, overdue = false } = statuses.get(row.key) ?? {}
      const lease = owned.get(row.key)
      // Of our own we know more than the listing does.
      return lease === undefined
        ? { row, owned: false, free, longFree: old, overdue }
        : {
            row: lease.isRequested ? row : { ...row, owner: bounds.workerId },
            owned: true,
            free: false,
            longFree: false,
            overdue: false,
          }
    })
  const { take, request: ask } = chooseLeases(seen, bounds)
  let taken = 0
  await inChunks(take, context, async (row) => {
    const at = clock.monotonic()
    const now = await table.take(row, bounds.workerId, clock.now(), signal)
    if (now === undefined) return
    taken++
    context.taken(now, at, lineage.isGone(row.key))
  })
  await inChunks(ask, context, async (row) => {
    if (await table.request(row, bounds.workerId, signal))
      log.info(`lease ${row.key}: asked of ${row.owner ?? 'nobody'}, who has more of them`)
  })
  return {
    settled:
      taken === 0 &&
      take.length === 0 &&
      ask.length === 0 &&
      seen.every(
        ({ row, owned: ours }) => ours || (row.owner !== bounds.workerId && statuses.get(row.key)?.alive === true),
      ),
    isOutdated: taken < take.length,
  }
}

async function listLeases({
  listener,
  table,
  signal,
}: SyncContext): Promise<{ readonly rows: readonly LeaseRow[]; readonly lineage: Lineage; readonly begun: number }> {
  for (let again = false; ; again = true) {
    const begun = listener.ctx.clock.monotonic()
    const rows = await table.list(signal)
    const lineage = new Lineage(listener.shards(), rows, (shard) => listener.beginning(shard))
    const missing = lineage.missing()
    if (missing.length === 0 || again) return { rows, lineage, begun }
    for (const { shard, checkpoint } of missing) await table.create(shard, checkpoint, signal)
  }
}

/** Recovered records wait for commits of whoever reads their shards now. */
function reportRecovered({ ctx, position }: LeaseListener, rows: readonly LeaseRow[], lineage: Lineage): void {
  const byKey = new Map(rows.map((row) => [row.key, row]))
  for (const name of ctx.held()) {
    const checkpoint = byKey.get(name)?.checkpoint ?? (lineage.isProcessed(name) ? { kind: 'end' as const } : undefined)
    if (checkpoint?.kind === 'sequence' || checkpoint?.kind === 'end') ctx.committed(name, position(checkpoint))
  }
}

async function inChunks<T>(
  all: readonly T[],
  { isStopping }: SyncContext,
  run: (one: T) => Promise<void>,
): Promise<void> {
  for (let from = 0; from < all.length && !isStopping(); from += PARALLEL_REQUESTS) {
    const settled = await Promise.allSettled(all.slice(from, from + PARALLEL_REQUESTS).map(run))
    const failed = settled.find((one) => one.status === 'rejected')
    if (failed !== undefined) throw failed.reason
  }
}
