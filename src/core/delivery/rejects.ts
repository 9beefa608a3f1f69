/**
 * Makes dead letters of records that a sink refuses, and settles them only then, so that a record is always in one of
 * the two places.
 */
import type { Batch, Refusal } from '../contract'
import {
  originOf,
  sliceAt,
  type RecordOutcome,
  type PendingWrite,
  type Counts,
  type TrackedItem,
} from './pending-write'
import type { DeadLetter, DeadLetters } from '../flow/ports'

export interface RejectsParts {
  readonly deadLetters: DeadLetters
  /** The name of the sink in the letters. */
  readonly label: string
  readonly signal: AbortSignal
  readonly counts: Counts & { pending: number }
  /** Settles a record of an item. */
  readonly settled: (tracked: TrackedItem, index: number, fate: RecordOutcome) => void
  /** Tells that there is nowhere to put a record (`policy: stop`). */
  readonly onUnplaced: (why: string) => void
  /** Ends the run, because the dead letters could not be put away. */
  readonly fail: (error: unknown) => void
  /** Tells that one of them is done. */
  readonly wake: () => void
}

export class Rejects {
  private underWay = 0

  constructor(private readonly parts: RejectsParts) {}

  get isIdle(): boolean {
    return this.underWay === 0
  }

  async put(pending: PendingWrite, refused: readonly Refusal[]): Promise<void> {
    const { deadLetters, label, signal, counts, settled, onUnplaced, fail, wake } = this.parts
    if (deadLetters.policy === 'stop') {
      counts.rejected += refused.length
      counts.pending -= refused.length
      onUnplaced(refused[0]?.why ?? 'rejected')
      return
    }
    const entries = (pending.payload as Batch).entries()
    const letters: DeadLetter[] = []
    for (const { index, why } of refused) {
      const entry = entries[index]
      if (entry === undefined) continue
      const { source, partition, position, receivedAt } = originOf(pending, index)
      letters.push({
        source,
        partition,
        position,
        sink: label,
        why,
        attempts: Math.max(1, pending.attempt),
        receivedAt,
        record: { entry },
      })
    }
    this.underWay++
    try {
      await deadLetters.put(letters, signal)
    } catch (error) {
      fail(error)
      return
    } finally {
      this.underWay--
      wake()
    }
    const fate = deadLetters.policy === 'drop' ? 'dropped' : 'rejected'
    counts[fate] += letters.length
    for (const { index } of refused) {
      const at = sliceAt(pending, index)
      settled(at.item, at.index, fate)
    }
  }
}
