/** Keeps the positions that wait in the spool for the slowest sink before they may be committed upstream. */
import type { Partition, Position } from '../contract'
import type { Sequence } from '../flow/ports'

interface Committing {
  offer(partition: Partition, position: Position): void
}
interface Due {
  readonly next: Sequence
  readonly committer: Committing
  readonly partition: Partition
  readonly position: Position
}

export class PendingCommits {
  private readonly due: Due[] = []

  /**
   * Call it in the order of sequences. @param next the sequence after the last record that has to be delivered first
   */
  add(next: Sequence, committer: Committing, partition: Partition, position: Position): void {
    this.due.push({ next, committer, partition, position })
  }

  /** Commits what waits for the records below, which are delivered. */
  upTo(low: Sequence): void {
    while (this.due[0] !== undefined && this.due[0].next <= low) {
      const { committer, partition, position } = this.due.shift() as Due
      committer.offer(partition, position)
    }
  }

  awaits(committer: Committing, partition: string): boolean {
    return this.due.some((due) => due.committer === committer && due.partition.name === partition)
  }
}
