/**
 * Records as they are to be put: entries of PutRecords, each one record or an aggregate of several, packed into
 * requests.
 */
import { Aggregate, type UserRecord } from './aggregate'
import type { PutEntry } from './wire'

/** A record of a write, by its index there. */
export interface Item {
  readonly index: number
  readonly record: UserRecord
  readonly hash: bigint | undefined /** As far as the shards are known. */
  readonly shard: string | undefined
}
/** One entry, and the records that it holds. */
export interface Parcel {
  readonly entry: PutEntry
  readonly items: readonly Item[]
}

/** Each record an entry of its own. */
export function single({ record, ...item }: Item): Parcel {
  return { entry: record, items: [{ record, ...item }] }
}

/**
 * An aggregate per shard until it is as large as `target`, then the next; those whose shard is not known go alone.
 * Order within a shard is kept.
 */
export function aggregated(items: readonly Item[], target: number): readonly Parcel[] {
  const parcels: Parcel[] = []
  for (const [shard, some] of Map.groupBy(items, (item) => item.shard)) {
    if (shard === undefined) {
      parcels.push(...some.map(single))
      continue
    }
    let aggregate = new Aggregate()
    let held: Item[] = []
    const close = (): void => {
      const [first] = held
      if (first === undefined) return
      // The hash of its first record takes it to the shard where all of them belong; a partition key has to be there
      // and means nothing, as the Kinesis Producer Library does it.
      parcels.push(
        held.length === 1
          ? single(first)
          : {
              entry: { data: aggregate.encode(), partitionKey: 'a', explicitHashKey: String(first.hash) },
              items: held,
            },
      )
      aggregate = new Aggregate()
      held = []
    }
    for (const item of some) {
      if (held.length > 0 && aggregate.size + aggregate.cost(item.record) > target) close()
      aggregate.add(item.record)
      held.push(item)
    }
    close()
  }
  return parcels
}

/** Bytes that PutRecords counts. */
export function bytesOf({ data, partitionKey }: PutEntry): number {
  return data.length + Buffer.byteLength(partitionKey)
}

/** Requests of at most so many entries and bytes; one larger entry goes alone. */
export function requests(
  parcels: readonly Parcel[],
  maxEntries: number,
  maxBytes: number,
): readonly (readonly Parcel[])[] {
  const all: Parcel[][] = []
  let bytes = Infinity
  for (const parcel of parcels) {
    const size = bytesOf(parcel.entry)
    const last = all.at(-1)
    if (last === undefined || last.length >= maxEntries || bytes + size > maxBytes) {
      all.push([parcel])
      bytes = size
    } else {
      last.push(parcel)
      bytes += size
    }
  }
  return all
}
