/**
 * The shards of a stream as they are known, and which of them may be read: a child only once all its parents that are
 * still kept were read to their end and handed on, so that a key's records stay in order over splits and merges.
 *
 * A shard is known from a listing, or from the page that ended its parent, which is sooner: such a hint holds until the
 * shard is listed.
 */
import type { Shard } from './wire'

type Known = Pick<Shard, 'id' | 'parents'>

export class Shards {
  private listedOnes: readonly Shard[] = []
  private readonly known = new Map<string, Known>()
  private readonly hints = new Map<string, Known>()
  private closed: ReadonlySet<string> = new Set()
  private readonly done = new Set<string>()

  /** Those listed last. */
  get listed(): readonly Shard[] {
    return this.listedOnes
  }
  get all(): readonly Known[] {
    return [...this.known.values()]
  }

  list(shards: readonly Shard[]): void {
    this.listedOnes = shards
    this.closed = new Set(shards.filter(({ endingSequence }) => endingSequence !== undefined).map(({ id }) => id))
    this.known.clear()
    for (const shard of shards) {
      this.hints.delete(shard.id)
      this.known.set(shard.id, shard)
    }
    for (const [id, hint] of this.hints) this.known.set(id, hint)
  }

  hint(children: readonly Known[]): void {
    for (const child of children) {
      if (this.known.has(child.id)) continue
      this.hints.set(child.id, child)
      this.known.set(child.id, child)
    }
  }

  /** As listed last. */
  isClosed(id: string): boolean {
    return this.closed.has(id)
  }

  /** It was read to its end, and that was handed on; or nothing of it is to be read. */
  end(id: string): void {
    this.done.add(id)
  }
  isEnded(id: string): boolean {
    return this.done.has(id)
  }

  /** Nothing that has to come before it is still to be read. @param inScope whether a shard is read at all */
  mayBegin(id: string, inScope: (shard: string) => boolean): boolean {
    return (
      this.known
        .get(id)
        ?.parents.every((parent) => !this.known.has(parent) || this.done.has(parent) || !inScope(parent)) ?? true
    )
  }

  hasChildren(id: string): boolean {
    return [...this.known.values()].some(({ parents }) => parents.includes(id))
  }
}
