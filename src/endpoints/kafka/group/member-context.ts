/** The settings and collaborators of a group member, and the listener that it tells of rebalances. */
import type { Clock, Log } from '../../../core/contract'
import type { CoordinatorClient } from '../protocol/cluster'
import type { AssignorName } from './assignor'
import type { TopicPartition } from './consumer-protocol'

export interface GroupSettings {
  readonly group: string
  /**
   * Static membership: no LeaveGroup at the end; back within the session timeout, it has the same partitions without a
   * rebalance.
   */
  readonly instanceId?: string
  readonly rack?: string
  readonly sessionTimeoutMs: number
  readonly rebalanceTimeoutMs: number
  /** A third of the session timeout or less. */
  readonly heartbeatMs: number
  /** `range` gives everything up before each rebalance, as Java's does. */
  readonly assignor: AssignorName
  /** The leader looks for new partitions of the group's topics as often. */
  readonly metadataMs: number
}

export interface RebalanceListener {
  assigned(partitions: readonly TopicPartition[], epoch: number): void
  /**
   * Resolves once all that was read of them is delivered and committed, or after `withinMs`. Until then their epoch
   * holds; heartbeats and other partitions go on.
   */
  revoked(partitions: readonly TopicPartition[], withinMs: number): Promise<void>
  /** The partitions belong to other members already. */
  lost(partitions: readonly TopicPartition[]): void
  /**
   * Membership cannot go on. The error is one of core/errors, for the next `read` of the source to throw. Nothing more
   * is reported until `start`.
   */
  failed(error: unknown): void
}

/** The collaborators of a member from `start` to `suspend` or `leave`. */
export interface MemberContext {
  readonly coordinator: CoordinatorClient
  readonly clock: Clock
  readonly log: Log
  readonly listener: RebalanceListener
  /** Topics that exist and are read. Asked for at every join. */
  topics(): readonly string[]
  /**
   * Number of partitions, from fresh metadata; topics that do not exist are left out. For the leader: others' topics,
   * too.
   */
  partitionsOf(topics: readonly string[], signal: AbortSignal): Promise<ReadonlyMap<string, number>>
}
