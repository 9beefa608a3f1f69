/**
 * `--until end` for a member that holds nothing: others have all partitions, or it has lost its own. It may end once
 * the group has committed what there was when it started, for then nothing is left that could come to it.
 */
import type { TopicPartition } from './group'
import { keyOf } from './group'
import type { Committed } from './wire'

/** Where a partition began and ended when the run started. */
export interface Extent extends TopicPartition {
  readonly oldest: number
  readonly end: number
}

export class GroupEnd {
  private extents: readonly Extent[] | undefined
  private found = false

  /** Over connections it stays what it was at first. */
  get isKnown(): boolean {
    return this.extents !== undefined
  }
  /** As of the last look. */
  get isReached(): boolean {
    return this.found
  }

  /** What is empty needs no commit, and may never have one. */
  startedWith(extents: readonly Extent[]): void {
    this.extents ??= extents.filter(({ oldest, end }) => end > oldest)
  }

  /** Something was assigned: its own ends count. */
  assigned(): void {
    this.found = false
  }

  /** @param exists whether the topic is still there */
  async look(
    exists: (topic: string) => boolean,
    committed: (partitions: readonly TopicPartition[]) => Promise<ReadonlyMap<string, Committed>>,
  ): Promise<void> {
    const open = (this.extents ?? []).filter(({ topic }) => exists(topic))
    const offsets = await committed(open)
    this.extents = open.filter((each) => (offsets.get(keyOf(each))?.offset ?? -1) < each.end)
    this.found = this.extents.length === 0
  }
}
