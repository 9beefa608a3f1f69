/** Finds the shard that takes a hash, among the open shards that were listed last. */
import type { Shard } from '../stream-client'

interface HashRange {
  readonly id: string
  readonly from: bigint
  readonly to: bigint
}

export class HashRanges {
  private openRanges: readonly HashRange[] = []
  private readonly byId = new Map<string, HashRange>()

  get isEmpty(): boolean {
    return this.openRanges.length === 0
  }

  /** Tells that shards were split or merged since. */
  forget(): void {
    this.list([])
  }

  list(shards: readonly Shard[]): void {
    this.byId.clear()
    for (const { id, hashes } of shards) this.byId.set(id, { id, ...hashes })
    this.openRanges = shards
      .filter(({ endingSequence }) => endingSequence === undefined)
      .map(({ id, hashes }) => ({ id, ...hashes }))
      .sort((a, b) => (a.from < b.from ? -1 : 1))
  }

  knows(shard: string): boolean {
    return this.byId.has(shard)
  }
  /** Tells whether a shard that is known, also a closed one, takes it. */
  takes(shard: string, hash: bigint): boolean {
    const range = this.byId.get(shard)
    return range !== undefined && range.from <= hash && hash <= range.to
  }

  /** Returns undefined if no shard is known, while they are split or merged. */
  shardOf(hash: bigint): string | undefined {
    let low = 0
    let high = this.openRanges.length - 1
    while (low <= high) {
      const middle = (low + high) >> 1
      const range = this.openRanges[middle]
      if (range === undefined) return undefined
      if (hash < range.from) high = middle - 1
      else if (hash > range.to) low = middle + 1
      else return range.id
    }
    return undefined
  }
}
