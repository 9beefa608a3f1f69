/**
 * Counts records that upstream sends a second time after a restart: they lie in the spool already, or were delivered
 * out of it before their commit arrived. Each is a possible duplicate, except those in doubt (in-doubt.ts), which are
 * returned instead of being delivered.
 */
import type { Delivery, Position } from '../contract'
import type { SourcePart } from '../flow/flow-parts'
import type { Spool } from '../flow/ports'

export class ResentCounter {
  /** The position of each source and partition up to which records were accepted before this run. */
  private readonly before = new Map<string, Map<string, Position>>()

  /**
   * @param owed records in doubt, which upstream sends again for the first time as far as sinks are concerned
   */
  constructor(
    spool: Spool | undefined,
    sources: readonly SourcePart[],
    private owed: number,
  ) {
    if (spool === undefined) return
    for (const { id, source, position, commitOnceSpooled } of sources) {
      if (position !== 'upstream' || commitOnceSpooled || source.covers === undefined) continue
      const known = spool.partitions(id).flatMap((partition) => {
        const at = spool.position(id, partition)
        return at === undefined ? [] : [[partition, at] as const]
      })
      this.before.set(id, new Map(known))
    }
  }

  /** @returns how many of the delivery's records sinks may have had before */
  count({ id, source }: SourcePart, { batch, partition, last, at }: Delivery): number {
    const known = this.before.get(id)
    const upTo = known?.get(partition.name)
    if (known === undefined || upTo === undefined || batch.count === 0 || source.covers === undefined) return 0
    const covered = (position: Position): boolean => source.covers?.(upTo, position) === true
    const count = covered(last) ? batch.count : firstNot(batch.count, (index) => covered(at(index)))
    // Positions grow: the rest of the partition is new.
    if (count < batch.count) known.delete(partition.name)
    const returned = Math.min(this.owed, count)
    this.owed -= returned
    return count - returned
  }
}

/** Returns the first index for which it does not hold, or `count`. It has to hold for all indexes before that one. */
function firstNot(count: number, holds: (index: number) => boolean): number {
  let [low, high] = [0, count]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (holds(middle)) low = middle + 1
    else high = middle
  }
  return low
}
