/**
 * Which leases to take: as the Kinesis Client Library does it (DynamoDBLeaseTaker), so that a mixed fleet comes to
 * rest. Pure.
 *
 * - Each holder aims at its even share, rounded up. Whoever has less takes what nobody holds; where there is nothing
 *   such, it asks the one that has most for one, as long as that one has more than its share, or has it while two or
 *   more are missing here.
 * - Only holders of a lease are known to exist, besides ourselves.
 * - What nobody has taken for three lease durations is taken beyond the share: its other readers may be at their
 *   bounds.
 */
import type { LeaseRow } from './table'

export interface LeaseView {
  readonly row: LeaseRow
  /** We read it. */
  readonly owned: boolean
  /** Its counter stood still for a lease duration as seen from here, or it has no owner. */
  readonly free: boolean
  /** Free for three lease durations. */
  readonly longFree: boolean
  /** We have asked for it, and its holder has had its time. */
  readonly overdue: boolean
}
export interface BalanceLimits {
  readonly workerId: string
  readonly maxLeases: number
  readonly maxSteals: number
}
export interface LeaseChoice {
  readonly take: readonly LeaseRow[] /** To be handed over by their holders. */
  readonly request: readonly LeaseRow[]
}

/**
 * @param seen those that can be read now; finished ones, and those whose parents are not, are nobody's load. @param
 *   shuffle so that not all go for the same
 */
export function chooseLeases(
  seen: readonly LeaseView[],
  { workerId: me, maxLeases, maxSteals }: BalanceLimits,
  shuffle: <T>(all: readonly T[]) => readonly T[] = shuffled,
): LeaseChoice {
  const own = seen.filter(({ row }) => row.owner === me)
  // Ours without being held: handed over to us, or left from before a restart under the same name.
  const reclaimable = own
    .filter(
      ({ row, owned: held, free, overdue }) =>
        !held && (row.checkpointOwner === undefined || row.checkpointOwner === me || free || overdue),
    )
    .map(({ row }) => row)
  const counts = new Map<string, number>([[me, own.length]])
  for (const {
    row: { owner },
    free,
  } of seen)
    if (!free && owner !== undefined && owner !== me) counts.set(owner, (counts.get(owner) ?? 0) + 1)
  const free = shuffle(seen.filter(({ row, owned: held, free: is }) => !held && is && row.owner !== me))
  const share = Math.min(maxLeases, Math.max(1, Math.ceil(seen.length / counts.size)))
  const wanted = Math.max(0, share - own.length)
  const capacity = Math.max(0, maxLeases - own.length)
  const old = free.filter((one) => one.longFree)
  const take = [...old, ...free.filter((one) => !one.longFree)]
    .slice(0, Math.max(wanted, Math.min(capacity, old.length)))
    .map(({ row }) => row)
  if (take.length > 0 || free.length > 0 || wanted === 0) return { take: [...reclaimable, ...take], request: [] }
  return { take: reclaimable, request: leasesToRequest(seen, counts, { me, share, wanted, maxSteals }, shuffle) }
}

function leasesToRequest(
  seen: readonly LeaseView[],
  counts: ReadonlyMap<string, number>,
  {
    me,
    share,
    wanted,
    maxSteals,
  }: { readonly me: string; readonly share: number; readonly wanted: number; readonly maxSteals: number },
  shuffle: <T>(all: readonly T[]) => readonly T[],
): readonly LeaseRow[] {
  const [owner, most] = [...counts].reduce((a, b) => (b[1] > a[1] ? b : a))
  if (owner === me || most < share) return []
  const over = Math.min(wanted, most - share)
  const count = Math.min(maxSteals, over === 0 && wanted > 1 ? 1 : over)
  return shuffle(seen.filter(({ row }) => row.owner === owner && row.checkpointOwner === undefined))
    .slice(0, count)
    .map(({ row }) => row)
}

function shuffled<T>(all: readonly T[]): readonly T[] {
  return all
    .map((one) => ({ one, at: Math.random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ one }) => one)
}
