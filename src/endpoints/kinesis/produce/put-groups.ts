/**
 * Records as they are to be put: entries of PutRecords, each one record or an aggregate of several, packed into
 * requests.
 */
import { Aggregate, type UserRecord } from '../aggregate'
import type { PutEntry } from '../stream-client'

/** A record of a write, by its index there. */
export interface PendingRecord {
  readonly index: number
  readonly record: UserRecord
  readonly hash: bigint | undefined /** As far as the shards are known. */
  readonly shard: string | undefined
}
/** One entry of a request, with its records. */
export interface PutGroup {
  readonly entry: PutEntry
  readonly records: readonly PendingRecord[]
}

/** Each record an entry of its own. */
export function singleGroup({ record, ...item }: PendingRecord): PutGroup {
  return { entry: record, records: [{ record, ...item }] }
}

/**
 * An aggregate per shard until it is as large as `target`, then the next; those whose shard is not known go alone.
 * Order within a shard is kept.
 */
export function aggregateByShard(records: readonly PendingRecord[], target: number): readonly PutGroup[] {
  const groups: PutGroup[] = []
  for (const [shard, some] of Map.groupBy(records, (item) => item.shard)) {
    if (shard === undefined) {
      groups.push(...some.map(singleGroup))
      continue
    }
    let aggregate = new Aggregate()
    let gathered: PendingRecord[] = []
    const close = (): void => {
      const [first] = gathered
      if (first === undefined) return
      // The hash of its first record takes it to the shard where all of them belong; a partition key has to be there
      // and means nothing, as the Kinesis Producer Library does it.
      groups.push(
        gathered.length === 1
          ? singleGroup(first)
          : {
              entry: { data: aggregate.encode(), partitionKey: 'a', explicitHashKey: String(first.hash) },
              records: gathered,
            },
      )
      aggregate = new Aggregate()
      gathered = []
    }
    for (const item of some) {
      if (gathered.length > 0 && aggregate.size + aggregate.cost(item.record) > target) close()
      aggregate.add(item.record)
      gathered.push(item)
    }
    close()
  }
  return groups
}

/** Bytes that PutRecords counts. */
export function bytesOf({ data, partitionKey }: PutEntry): number {
  return data.length + Buffer.byteLength(partitionKey)
}

/** Requests of at most so many entries and bytes; one larger entry goes alone. */
export function splitRequests(
  groups: readonly PutGroup[],
  maxEntries: number,
  maxBytes: number,
): readonly (readonly PutGroup[])[] {
  const all: PutGroup[][] = []
  let bytes = Infinity
  for (const group of groups) {
    const size = bytesOf(group.entry)
    const last = all.at(-1)
    if (last === undefined || last.length >= maxEntries || bytes + size > maxBytes) {
      all.push([group])
      bytes = size
    } else {
      last.push(group)
      bytes += size
    }
  }
  return all
}
