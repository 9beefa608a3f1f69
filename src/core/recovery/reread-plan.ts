/**
 * Finds where records may be missing from a spool, and which records of its sources have to be read again for them.
 *
 * - A partition's frames are in the order of its positions, and each says the position after its last record: what lies
 *   between two of them in the source, less the records of the second, is what was lost. So nothing has to be known of
 *   what was in a hole, not even how many records.
 * - The first frame behind a hole is read again with it, and left out by its count: where it begins is written nowhere.
 * - What was lost behind a partition's last frame reaches to the position that the flow file has for it.
 * - A jump of the sequence looks like a hole. Reading it again gives nothing, so it does no harm.
 */
import type { Position } from '../contract'
import type { RereadPart, Ahead } from '../flow/flow-state'
import type { Sequence, Spool } from '../flow/ports'

/**
 * Records that are read again are stored under a name of their own, which tells how far they have come. So the position
 * of their source stays where it is.
 */
const MARK = '#'
const END = 'e'
export function keyOf(source: string, number: number, atEnd: boolean): string {
  return `${source}${MARK}${number}${atEnd ? END : ''}`
}
export function sourceOf(key: string): string {
  return key.split(MARK, 1)[0] ?? key
}
export function isReread(key: string): boolean {
  return key.includes(MARK)
}
/** Tells whether the part lies behind all that its partition has in the spool. */
export function isAtEnd(key: string): boolean {
  return key.includes(MARK) && key.endsWith(END)
}

/** How far all sinks have come, by source and partition. A partition that is not there is not delivered at all. */
export type PartitionPositions = ReadonlyMap<string, ReadonlyMap<string, Position>>

export interface RereadRequest {
  readonly spool: Spool
  /** All records below are delivered to every sink. */
  readonly low: Sequence
  /** The positions at `low`; undefined if they are not known. */
  readonly sinkPositions: PartitionPositions | undefined
  readonly ahead: Ahead | undefined
  /** Records below had been accepted when `newest` was stored. */
  readonly through: Sequence
  /** The newest position of each partition, of each source that can be read again. */
  readonly newest: ReadonlyMap<string, ReadonlyMap<string, Position>>
  /** The beginnings of holes that were dealt with before. */
  readonly seen: ReadonlySet<Sequence>
  /** A number that no part has yet. */
  readonly number: number
}
export interface RereadPlan {
  readonly parts: readonly RereadPart[]
  readonly seen: readonly Sequence[]
}

interface Run {
  readonly hole: number
  readonly first: { readonly last: Position; readonly count: number }
  last: Position
  next: Sequence
}

export async function rereadPlan(request: RereadRequest): Promise<RereadPlan> {
  const { spool, low, through, newest, seen } = request
  const runs = new Map<string, Map<string, Run[]>>([...newest.keys()].map((source) => [source, new Map()]))
  const found: Sequence[] = []
  let expected = low
  const meets = (next: Sequence): void => {
    if (next > expected && !seen.has(expected)) found.push(expected)
  }
  for await (const frame of spool.kept(low)) {
    meets(frame.first)
    expected = frame.next
    const partitions = runs.get(frame.source)
    if (partitions === undefined) continue
    const last = frame.at(frame.batch.count - 1)
    const known = partitions.get(frame.partition) ?? []
    const run = known.at(-1)
    if (run?.hole === found.length) {
      run.last = last
      run.next = frame.next
      continue
    }
    partitions.set(frame.partition, [
      ...known,
      { hole: found.length, first: { last, count: frame.batch.count }, last, next: frame.next },
    ])
  }
  meets(through)
  let number = request.number
  const parts: RereadPart[] = []
  for (const [source, partitions] of runs) {
    for (const partition of new Set([...partitions.keys(), ...(newest.get(source)?.keys() ?? [])])) {
      for (const { atEnd, ...part } of partsOf(
        request,
        source,
        partition,
        partitions.get(partition) ?? [],
        found.length,
      ))
        parts.push({ key: keyOf(source, number++, atEnd), source, partition, ...part })
    }
  }
  return { parts, seen: found }
}

function partsOf(
  { sinkPositions: places, ahead, through, newest }: RereadRequest,
  source: string,
  partition: string,
  runs: readonly Run[],
  holes: number,
): (Pick<RereadPart, 'from' | 'skip' | 'to' | 'keep'> & { readonly atEnd: boolean })[] {
  const parts: ReturnType<typeof partsOf> = []
  let from = places?.get(source)?.get(partition)
  let known = places !== undefined
  let skip = ahead?.source === source && ahead.partition === partition ? ahead.count : 0
  const begin = (): Pick<RereadPart, 'from' | 'skip'> => ({
    ...(from === undefined ? {} : { from }),
    ...(skip === 0 ? {} : { skip }),
  })
  let before = 0
  for (const { hole, first, last } of runs) {
    if (known && hole > before) parts.push({ ...begin(), to: first.last, keep: first.count, atEnd: false })
    from = last
    skip = 0
    known = true
    before = hole
  }
  const to = newest.get(source)?.get(partition)
  // Records in the spool beyond those that the flow file knew are newer than its position.
  if (known && holes > before && to !== undefined && to !== from && (runs.at(-1)?.next ?? 0) <= through)
    parts.push({ ...begin(), to, keep: 0, atEnd: true })
  return parts
}
