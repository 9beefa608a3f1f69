/**
 * One look at the table: what is missing is made, what is finished and done with is removed, what is due is taken, what
 * others have too much of is asked for.
 */
import { choose, type Bounds, type Seen } from './lease-balance'
import type { Holding } from './lease-holding'
import { Lineage } from './lease-shards'
import type { LeaseRow, LeaseTable } from './lease-table'
import type { LeaseWatch } from './lease-watch'
import type { LeaseHost } from './wire'

/** Requests under way at once. */
const AT_ONCE = 16

export interface LookParts {
  readonly host: LeaseHost
  readonly table: LeaseTable
  readonly bounds: Bounds
  readonly watch: LeaseWatch
  readonly held: ReadonlyMap<string, Holding>
  readonly signal: AbortSignal
  /** Nothing more is taken. */
  isStopping(): boolean
  /** It is ours as of the time given. `isGone`: nothing of it can be read any more. */
  took(row: LeaseRow, at: number, isGone: boolean): void
}

export interface Looked {
  /** All that can be read is read, by us or by others that were seen to live. */
  readonly settled: boolean
  /** Somebody was quicker: how things stand is to be looked at anew. */
  readonly outrun: boolean
}

export async function look(parts: LookParts): Promise<Looked> {
  const { host, table, bounds, watch, held, signal } = parts
  const { clock, log } = host.ctx
  const { rows, lineage, begun } = await listed(parts)
  const standings = watch.look(rows, begun, clock.monotonic())
  tellHeld(host, rows, lineage)
  for (const row of rows.filter((one) => !held.has(one.key) && lineage.isRemovable(one)))
    await table.remove(row, signal)
  const seen = rows
    .filter((row) => row.checkpoint.kind !== 'end' && lineage.mayBegin(row))
    .map((row): Seen => {
      const { free = false, old = false, overdue = false } = standings.get(row.key) ?? {}
      const holding = held.get(row.key)
      // Of our own we know more than the listing does.
      return holding === undefined
        ? { row, held: false, free, old, overdue }
        : {
            row: holding.handing ? row : { ...row, owner: bounds.me },
            held: true,
            free: false,
            old: false,
            overdue: false,
          }
    })
  const { take, ask } = choose(seen, bounds)
  let taken = 0
  await inParts(take, parts, async (row) => {
    const at = clock.monotonic()
    const now = await table.take(row, bounds.me, clock.now(), signal)
    if (now === undefined) return
    taken++
    parts.took(now, at, lineage.isGone(row.key))
  })
  await inParts(ask, parts, async (row) => {
    if (await table.ask(row, bounds.me, signal))
      log.info(`lease ${row.key}: asked of ${row.owner ?? 'nobody'}, who has more of them`)
  })
  return {
    settled:
      taken === 0 &&
      take.length === 0 &&
      ask.length === 0 &&
      seen.every(({ row, held: ours }) => ours || (row.owner !== bounds.me && standings.get(row.key)?.alive === true)),
    outrun: taken < take.length,
  }
}

async function listed({
  host,
  table,
  signal,
}: LookParts): Promise<{ readonly rows: readonly LeaseRow[]; readonly lineage: Lineage; readonly begun: number }> {
  for (let again = false; ; again = true) {
    const begun = host.ctx.clock.monotonic()
    const rows = await table.list(signal)
    const lineage = new Lineage(host.shards(), rows, (shard) => host.beginning(shard))
    const missing = lineage.missing()
    if (missing.length === 0 || again) return { rows, lineage, begun }
    for (const { shard, checkpoint } of missing) await table.create(shard, checkpoint, signal)
  }
}

/** Recovered records wait for commits of whoever reads their shards now. */
function tellHeld({ ctx, position }: LeaseHost, rows: readonly LeaseRow[], lineage: Lineage): void {
  const byKey = new Map(rows.map((row) => [row.key, row]))
  for (const name of ctx.held()) {
    const checkpoint = byKey.get(name)?.checkpoint ?? (lineage.isProcessed(name) ? { kind: 'end' as const } : undefined)
    if (checkpoint?.kind === 'sequence' || checkpoint?.kind === 'end') ctx.committed(name, position(checkpoint))
  }
}

async function inParts<T>(all: readonly T[], { isStopping }: LookParts, run: (one: T) => Promise<void>): Promise<void> {
  for (let from = 0; from < all.length && !isStopping(); from += AT_ONCE) {
    const settled = await Promise.allSettled(all.slice(from, from + AT_ONCE).map(run))
    const failed = settled.find((one) => one.status === 'rejected')
    if (failed !== undefined) throw failed.reason
  }
}
