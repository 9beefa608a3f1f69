/** Who a member is and what it holds: outlives connections and runs of the state machine. */
import type { TopicPartition } from './consumer-protocol'
import type { Leading } from './group-leader'
import type { Membership } from './wire'

export interface Kept {
  /** Empty: the coordinator has given none. */
  memberId: string
  /** As of the last join that was answered. */
  membership: Membership | undefined
  /** The membership that `target` belongs to. Another than `membership`: a join or an assignment is outstanding. */
  synced: Membership | undefined
  /** Of the last assignment; -1: none. */
  generation: number
  /** By `keyOf`. */
  readonly owned: Map<string, { readonly at: TopicPartition; readonly epoch: number }>
  target: readonly TopicPartition[]
  /** Topics that the last join named. */
  topics: string
  /** Where the coordinator has made us the leader. */
  leading: Leading | undefined
  /** It has joined with what it holds. */
  seated: boolean
  /** The newest: grows with every assignment of this process. */
  epochs: number
}

export function nobody(): Kept {
  return {
    memberId: '',
    membership: undefined,
    synced: undefined,
    generation: -1,
    owned: new Map(),
    target: [],
    topics: '',
    leading: undefined,
    seated: false,
    epochs: 0,
  }
}

/** Epochs go on: what was read under an old one stays old. */
export function forget(kept: Kept, memberId: string): void {
  const { owned, epochs } = kept
  owned.clear()
  Object.assign(kept, nobody(), { memberId, owned, epochs })
}
