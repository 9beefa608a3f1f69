/**
 * The cluster as the other files of this endpoint see it, without the client library: `client.ts` implements it.
 * Offsets and counts are safe integers, times are milliseconds since the epoch.
 *
 * Every call rejects with an error of `core/errors` where the connection, the credentials or the whole broker fail.
 * Faults of single topics and partitions come back as protocol error codes (`error`, 0: none), because their meaning
 * differs from call to call.
 */

export interface Broker {
  readonly id: number
  readonly host: string
  readonly port: number
  readonly rack?: string
}
export interface PartitionMetadata {
  readonly partition: number
  readonly error: number /** -1: none at the moment. */
  readonly leader: number
  readonly leaderEpoch: number
}
export interface TopicMetadata {
  readonly name: string
  /** Changes when a topic is deleted and made again: 32 hex digits, all 0 where the broker knows none. */
  readonly id: string
  readonly error: number
  readonly internal: boolean
  readonly partitions: readonly PartitionMetadata[]
}
export interface ClusterMetadata {
  readonly clusterId: string
  readonly brokers: readonly Broker[]
  readonly topics: readonly TopicMetadata[]
}

export interface FetchRequest {
  readonly topic: string
  readonly topicId: string
  readonly partition: number
  readonly leaderEpoch: number
  readonly offset: number
  readonly maxBytes: number
}
export interface FetchOptions {
  readonly maxWaitMs: number
  readonly minBytes: number
  readonly maxBytes: number
  readonly committedOnly: boolean
  readonly rack: string
}
export interface FetchResult {
  readonly topic: string
  readonly partition: number
  readonly error: number
  readonly highWatermark: number
  readonly lastStableOffset: number
  readonly logStartOffset: number
  /** With `committedOnly`: what is to be left out. */
  readonly aborted: readonly { readonly producerId: bigint; readonly firstOffset: number }[]
  /** Broker nearer to us that has it too; -1: none. */
  readonly preferredReplica: number
  /**
   * Record batches one after the other, as the broker stores them; the last may be cut off. Ours alone: nobody else
   * writes to it.
   */
  readonly records: Buffer
}

export interface ProduceRequest {
  readonly topic: string
  readonly partition: number /** One record batch (v2), encoded. */
  readonly batch: readonly Buffer[]
}
export interface ProduceResult {
  readonly topic: string
  readonly partition: number
  readonly error: number
  readonly message?: string
  readonly baseOffset: number
  readonly logStartOffset: number
  /** Records the broker names as the cause of the error, by index in the batch. */
  readonly recordErrors: readonly { readonly index: number; readonly message: string }[]
}

/** `at`: a time, or 'earliest' | 'latest'. */
export interface OffsetRequest {
  readonly topic: string
  readonly partition: number
  readonly leaderEpoch: number
  readonly at: number | 'earliest' | 'latest'
}
export interface OffsetResult {
  readonly topic: string
  readonly partition: number
  readonly error: number /** -1: no record is that young. */
  readonly offset: number
}

/** Identity of a producer. A resend under the same identity and sequence is recognised by the broker. */
export interface ProducerSession {
  readonly id: bigint
  readonly epoch: number
}

export interface JoinRequest {
  readonly group: string
  /** Empty at first: the coordinator gives one (with MEMBER_ID_REQUIRED, to be used in the next call). */
  readonly memberId: string
  readonly instanceId?: string
  readonly sessionTimeoutMs: number
  readonly rebalanceTimeoutMs: number
  /** In order of preference, with the subscription as bytes of the consumer protocol. */
  readonly protocols: readonly { readonly name: string; readonly metadata: Buffer }[]
}
export interface JoinResult {
  readonly error: number
  readonly generation: number
  readonly protocol: string
  readonly leader: string
  readonly memberId: string
  /** Only for the leader. */
  readonly members: readonly { readonly memberId: string; readonly instanceId?: string; readonly metadata: Buffer }[]
  /** The coordinator keeps the assignment as it is (a static member that came back): nothing is to be assigned. */
  readonly skipAssignment: boolean
}
export interface Membership {
  readonly group: string
  readonly generation: number
  readonly memberId: string
  readonly instanceId?: string
}
export interface CommitRequest {
  readonly topic: string
  readonly partition: number /** Next to read. */
  readonly offset: number
  readonly leaderEpoch: number
}
export interface CommittedOffset {
  readonly topic: string
  readonly partition: number
  readonly error: number /** -1: none. */
  readonly offset: number
  readonly leaderEpoch: number
}

/**
 * The calls of a group, at its coordinator. Each finds the coordinator anew where it is not known (any more); an error
 * code that finding it brings is the call's own (`error`; for commit and committed that of every partition).
 *
 * `join` is answered once every member has joined: after as long as the rebalance timeout. A broker answers a
 * connection's requests in order, so that it needs a connection of its own: heartbeats and commits go on beside it.
 * After a call was aborted or has rejected, the next one may use a new connection.
 */
export interface CoordinatorClient {
  join(request: JoinRequest, signal: AbortSignal): Promise<JoinResult>
  sync(
    membership: Membership,
    protocol: string,
    assignments: readonly { readonly memberId: string; readonly assignment: Buffer }[],
    signal: AbortSignal,
  ): Promise<{ readonly error: number; readonly assignment: Buffer }>
  heartbeat(membership: Membership, signal: AbortSignal): Promise<{ readonly error: number }>
  leave(membership: Membership, signal: AbortSignal): Promise<{ readonly error: number }>
  commit(
    membership: Membership,
    offsets: readonly CommitRequest[],
    signal: AbortSignal,
  ): Promise<readonly { readonly topic: string; readonly partition: number; readonly error: number }[]>
  committed(
    group: string,
    partitions: readonly { readonly topic: string; readonly partition: number }[],
    signal: AbortSignal,
  ): Promise<readonly CommittedOffset[]>
  /** NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE: the next call asks who it is. */
  forgetCoordinator(): void
}

export interface Cluster extends CoordinatorClient {
  /** All topics where none are named. Fresh from a broker each time. */
  metadata(topics: readonly string[] | undefined, signal: AbortSignal): Promise<ClusterMetadata>
  fetch(
    broker: number,
    requests: readonly FetchRequest[],
    options: FetchOptions,
    signal: AbortSignal,
  ): Promise<readonly FetchResult[]>
  /** acks=all. Resolves in the order of calls per broker. */
  produce(
    broker: number,
    requests: readonly ProduceRequest[],
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<readonly ProduceResult[]>
  offsets(
    broker: number,
    requests: readonly OffsetRequest[],
    committedOnly: boolean,
    signal: AbortSignal,
  ): Promise<readonly OffsetResult[]>
  producerIdentity(signal: AbortSignal): Promise<ProducerSession>
  /** Never throws. */
  close(): Promise<void>
}
