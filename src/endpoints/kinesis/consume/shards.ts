/**
 * The shards of a stream as they are known, and which of them may be read: a child only once all its parents that are
 * still kept were read to their end and handed on, so that a key's records stay in order over splits and merges.
 *
 * A shard is known from a listing, or from the page that ended its parent, which is sooner: such a hint holds until the
 * shard is listed.
 */
import type { Shard } from '../stream-client'

type ShardLineage = Pick<Shard, 'id' | 'parents'>

export class Shards {
  private listedShards: readonly Shard[] = []
  private readonly knownShards = new Map<string, ShardLineage>()
  private readonly hints = new Map<string, ShardLineage>()
  private closedShards: ReadonlySet<string> = new Set()
  private readonly endedShards = new Set<string>()

  /** Those listed last. */
  get listed(): readonly Shard[] {
    return this.listedShards
  }
  get all(): readonly ShardLineage[] {
    return [...this.knownShards.values()]
  }

  list(shards: readonly Shard[]): void {
    this.listedShards = shards
    this.closedShards = new Set(shards.filter(({ endingSequence }) => endingSequence !== undefined).map(({ id }) => id))
    this.knownShards.clear()
    for (const shard of shards) {
      this.hints.delete(shard.id)
      this.knownShards.set(shard.id, shard)
    }
    for (const [id, hint] of this.hints) this.knownShards.set(id, hint)
  }

  hint(children: readonly ShardLineage[]): void {
    for (const child of children) {
      if (this.knownShards.has(child.id)) continue
      this.hints.set(child.id, child)
      this.knownShards.set(child.id, child)
    }
  }

  /** As listed last. */
  isClosed(id: string): boolean {
    return this.closedShards.has(id)
  }

  /** It was read to its end, and that was handed on; or nothing of it is to be read. */
  end(id: string): void {
    this.endedShards.add(id)
  }
  isEnded(id: string): boolean {
    return this.endedShards.has(id)
  }

  /** Nothing that has to come before it is still to be read. @param inScope whether a shard is read at all */
  mayBegin(id: string, inScope: (shard: string) => boolean): boolean {
    return (
      this.knownShards
        .get(id)
        ?.parents.every(
          (parent) => !this.knownShards.has(parent) || this.endedShards.has(parent) || !inScope(parent),
        ) ?? true
    )
  }

  hasChildren(id: string): boolean {
    return [...this.knownShards.values()].some(({ parents }) => parents.includes(id))
  }
}
