/** Identity and assignment of a member. They outlive connections and runs of the state machine. */
import type { TopicPartition } from './consumer-protocol'
import type { Leadership } from './leader'
import type { Membership } from '../protocol/cluster'

export interface MemberState {
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
  assignment: readonly TopicPartition[]
  /** Topics that the last join named. */
  topics: string
  /** Where the coordinator has made us the leader. */
  leadership: Leadership | undefined
  /** It has joined with what it holds. */
  assignedOnce: boolean
  /** The newest: grows with every assignment of this process. */
  newestEpoch: number
}

export function newMemberState(): MemberState {
  return {
    memberId: '',
    membership: undefined,
    synced: undefined,
    generation: -1,
    owned: new Map(),
    assignment: [],
    topics: '',
    leadership: undefined,
    assignedOnce: false,
    newestEpoch: 0,
  }
}

/** Epochs go on: what was read under an old one stays old. */
export function resetMemberState(memberState: MemberState, memberId: string): void {
  const { owned, newestEpoch } = memberState
  owned.clear()
  Object.assign(memberState, newMemberState(), { memberId, owned, newestEpoch })
}
