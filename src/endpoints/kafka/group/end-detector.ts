/**
 * `--until end` for a member that owns nothing, because others have all partitions or it has lost its own. It may end
 * once the group has committed up to the end as it was at the start, because nothing is left then that could be
 * assigned to it.
 */
import { keyOf, type TopicPartition } from './consumer-protocol'
import type { CommittedOffset } from '../protocol/cluster'

/** Where a partition began and ended when the run started. */
export interface OffsetRange extends TopicPartition {
  readonly oldest: number
  readonly end: number
}

export class GroupEndDetector {
  private ranges: readonly OffsetRange[] | undefined
  private reached = false

  /** Over connections it stays what it was at first. */
  get isKnown(): boolean {
    return this.ranges !== undefined
  }
  /** As of the last look. */
  get isReached(): boolean {
    return this.reached
  }

  /** Sets the ranges once. An empty partition needs no commit, and may never have one. */
  setRanges(ranges: readonly OffsetRange[]): void {
    this.ranges ??= ranges.filter(({ oldest, end }) => end > oldest)
  }

  /** Something was assigned: its own ends count. */
  onAssigned(): void {
    this.reached = false
  }

  /** @param exists whether the topic is still there */
  async check(
    exists: (topic: string) => boolean,
    committed: (partitions: readonly TopicPartition[]) => Promise<ReadonlyMap<string, CommittedOffset>>,
  ): Promise<void> {
    const open = (this.ranges ?? []).filter(({ topic }) => exists(topic))
    const offsets = await committed(open)
    this.ranges = open.filter((each) => (offsets.get(keyOf(each))?.offset ?? -1) < each.end)
    this.reached = this.ranges.length === 0
  }
}
