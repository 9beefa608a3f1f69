/**
 * A cluster, over connections of @platformatic/kafka, which loads on first use. Only client*.ts import that package.
 * Nothing is retried here: every fault rejects, classified, for the core to retry.
 */
import { Disconnected, Refused } from '../../core/errors'
import type { Target } from '../../options/define'
import { apisOf, byTopic, newestCall, type Apis, type Versioned } from './protocol/apis'
import { protocolFault, isHangUp } from './errors'
import { BrokerConnections } from './client-connections'
import type { BrokerConnection } from './protocol/connection'
import type { Library } from './protocol/library'
import type { KafkaOptions } from './options'
import { settingsOf, type BrokerAddress, type Settings } from './settings'
import type {
  Broker,
  Cluster,
  CommitRequest,
  CommittedOffset,
  FetchResult,
  FetchRequest,
  FetchOptions,
  JoinResult,
  JoinRequest,
  Membership,
  ClusterMetadata,
  OffsetRequest,
  OffsetResult,
  ProduceRequest,
  ProduceResult,
  ProducerSession,
} from './protocol/cluster'

/** Time for the leader of a group to assign partitions: a sync is answered only after that. */
const SYNC_WAIT_MS = 60_000
/** Time that the network and a busy broker may add to the time that a request gives the broker. */
const ANSWER_SLACK_MS = 5000
const NO_TOPIC_ID = '0'.repeat(32)
const CONSUMER_PROTOCOL = 'consumer'

/**
 * Connects to the first broker that answers, and checks that the login is accepted. Rejects with an error of
 * `core/errors`, or with the reason of the signal.
 */
export async function openCluster(target: Target<KafkaOptions>, signal: AbortSignal): Promise<Cluster> {
  const settings = await settingsOf(target)
  const library = await import('./client-library.js')
  const cluster = new KafkaCluster(library, settings)
  try {
    await cluster.checkAccess(signal)
    return cluster
  } catch (error) {
    await cluster.close()
    throw error
  }
}

export interface NativeCodecs {
  lz4Compress(data: Buffer): Buffer
  lz4Decompress(data: Buffer): Buffer
  snappyCompress(data: Buffer): Buffer
  snappyDecompress(data: Buffer): Buffer
}
/** The compressions that Node lacks: lz4 in frames, and raw snappy. */
export async function nativeCodecs(): Promise<NativeCodecs> {
  const {
    compressionsAlgorithms: { lz4, snappy },
  } = await import('./client-codecs.js')
  return {
    lz4Compress: lz4.compressSync,
    lz4Decompress: lz4.decompressSync,
    snappyCompress: snappy.compressSync,
    snappyDecompress: snappy.decompressSync,
  }
}

class KafkaCluster implements Cluster {
  private readonly apis: Apis
  private readonly connections: BrokerConnections
  private readonly sendOrder = new Map<number, Promise<unknown>>()
  private readonly coordinators = new Map<string, BrokerAddress>()
  private brokers = new Map<number, Broker>()

  constructor(
    library: Library,
    private readonly settings: Settings,
  ) {
    this.apis = apisOf(library)
    this.connections = new BrokerConnections(library, settings)
  }

  /**
   * Makes a first request. A broker that wants a login answers the request for versions without one, and closes the
   * connection at the next.
   */
  async checkAccess(signal: AbortSignal): Promise<void> {
    const connection = await this.connections.any(this.brokers.values(), signal)
    try {
      await this.fetchMetadata(connection, [], signal)
    } catch (error) {
      if (signal.aborted || !(error instanceof Disconnected) || !isHangUp(error) || this.settings.login !== undefined)
        throw error
      throw new Refused(
        `${connection.peer.address} hangs up at the first request: it may want a login (user=, password=, sasl=)`,
        { cause: error },
      )
    }
  }

  async metadata(topics: readonly string[] | undefined, signal: AbortSignal): Promise<ClusterMetadata> {
    return this.fetchMetadata(await this.connections.any(this.brokers.values(), signal), topics, signal)
  }

  async fetch(
    broker: number,
    requests: readonly FetchRequest[],
    options: FetchOptions,
    signal: AbortSignal,
  ): Promise<readonly FetchResult[]> {
    const connection = await this.connections.to(
      'fetch',
      await this.addressOf(broker, signal),
      this.settings.requestMs + options.maxWaitMs,
      signal,
    )
    const named = requests.every(({ topicId }) => topicId !== '' && topicId !== NO_TOPIC_ID)
    const api = this.negotiate(this.apis.fetch, connection, named ? 13 : 12)
    const { error, partitions } = await connection.call(api, [requests, options], 'send records', signal)
    if (error !== 0)
      return requests.map(({ topic, partition }) => ({
        topic,
        partition,
        error,
        highWatermark: -1,
        lastStableOffset: -1,
        logStartOffset: -1,
        aborted: [],
        preferredReplica: -1,
        records: Buffer.alloc(0),
      }))
    if (api.version < 13) return partitions
    const names = new Map(requests.map(({ topic, topicId }) => [topicId, topic]))
    return partitions.map((each) => ({ ...each, topic: names.get(each.topic) ?? each.topic }))
  }

  async produce(
    broker: number,
    requests: readonly ProduceRequest[],
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<readonly ProduceResult[]> {
    const connected = async (): Promise<BrokerConnection> =>
      this.connections.to('produce', await this.addressOf(broker, signal), timeoutMs + ANSWER_SLACK_MS, signal)
    // Requests are sent in the order of the calls, even where a later one finds its connection sooner.
    const turn = (this.sendOrder.get(broker) ?? Promise.resolve()).then(connected, connected)
    this.sendOrder.set(broker, turn)
    const connection = await turn
    return connection.call(
      this.negotiate(this.apis.produce, connection),
      [requests, timeoutMs, connection.deferBody],
      'confirm records',
      signal,
    )
  }

  async offsets(
    broker: number,
    requests: readonly OffsetRequest[],
    committedOnly: boolean,
    signal: AbortSignal,
  ): Promise<readonly OffsetResult[]> {
    const connection = await this.connections.to(
      'control',
      await this.addressOf(broker, signal),
      this.settings.requestMs,
      signal,
    )
    const topics = byTopic(requests).map(([name, partitions]) => ({
      name,
      partitions: partitions.map(({ partition, leaderEpoch, at }) => ({
        partitionIndex: partition,
        currentLeaderEpoch: leaderEpoch,
        timestamp: at === 'latest' ? -1n : at === 'earliest' ? -2n : BigInt(Math.floor(at)),
      })),
    }))
    const answer = await connection.call(
      this.negotiate(this.apis.offsets, connection),
      [-1, committedOnly ? 1 : 0, topics],
      'tell offsets',
      signal,
    )
    return answer.topics.flatMap(({ name, partitions }) =>
      partitions.map(({ partitionIndex, errorCode, offset }) => ({
        topic: name,
        partition: partitionIndex,
        error: errorCode,
        offset: Number(offset),
      })),
    )
  }

  async producerIdentity(signal: AbortSignal): Promise<ProducerSession> {
    const connection = await this.connections.any(this.brokers.values(), signal)
    const { errorCode, producerId, producerEpoch } = await connection.call(
      this.negotiate(this.apis.identity, connection),
      [null, 60_000, -1n, -1],
      'give a producer id',
      signal,
    )
    if (errorCode !== 0) throw protocolFault(errorCode, 'asking for a producer id', '', 'WRITE')
    return { id: producerId, epoch: producerEpoch }
  }

  async join(
    { group, memberId, instanceId, sessionTimeoutMs, rebalanceTimeoutMs, protocols }: JoinRequest,
    signal: AbortSignal,
  ): Promise<JoinResult> {
    const found = await this.coordinator(group, signal)
    if (typeof found === 'number')
      return { error: found, generation: -1, protocol: '', leader: '', memberId, members: [], skipAssignment: false }
    const connection = await this.connections.to('join', found, rebalanceTimeoutMs + this.settings.requestMs, signal)
    const answer = await connection.call(
      this.negotiate(this.apis.join, connection),
      [
        group,
        sessionTimeoutMs,
        rebalanceTimeoutMs,
        memberId,
        instanceId ?? null,
        CONSUMER_PROTOCOL,
        protocols.map(({ name, metadata }) => ({ name, metadata })),
        null,
      ],
      'let it join the group',
      signal,
    )
    return {
      error: answer.errorCode,
      generation: answer.generationId,
      protocol: answer.protocolName ?? '',
      leader: answer.leader,
      memberId: answer.memberId,
      skipAssignment: answer.skipAssignment ?? false,
      members: answer.members.map((member) => ({
        memberId: member.memberId,
        metadata: member.metadata ?? Buffer.alloc(0),
        ...(typeof member.groupInstanceId !== 'string' ? {} : { instanceId: member.groupInstanceId }),
      })),
    }
  }

  async sync(
    { group, generation, memberId, instanceId }: Membership,
    protocol: string,
    assignments: readonly { readonly memberId: string; readonly assignment: Buffer }[],
    signal: AbortSignal,
  ): Promise<{ readonly error: number; readonly assignment: Buffer }> {
    const found = await this.coordinator(group, signal)
    if (typeof found === 'number') return { error: found, assignment: Buffer.alloc(0) }
    const connection = await this.connections.to('join', found, this.settings.requestMs + SYNC_WAIT_MS, signal)
    const answer = await connection.call(
      this.negotiate(this.apis.sync, connection),
      [
        group,
        generation,
        memberId,
        instanceId ?? null,
        CONSUMER_PROTOCOL,
        protocol,
        assignments.map((each) => ({ ...each })),
      ],
      'assign partitions',
      signal,
    )
    return { error: answer.errorCode, assignment: answer.assignment }
  }

  async heartbeat(
    { group, generation, memberId, instanceId }: Membership,
    signal: AbortSignal,
  ): Promise<{ readonly error: number }> {
    const found = await this.coordinator(group, signal)
    if (typeof found === 'number') return { error: found }
    const connection = await this.connections.to('group', found, this.settings.requestMs, signal)
    return {
      error: (
        await connection.call(
          this.negotiate(this.apis.heartbeat, connection),
          [group, generation, memberId, instanceId ?? null],
          'take a heartbeat',
          signal,
        )
      ).errorCode,
    }
  }

  async leave({ group, memberId, instanceId }: Membership, signal: AbortSignal): Promise<{ readonly error: number }> {
    const found = await this.coordinator(group, signal)
    if (typeof found === 'number') return { error: found }
    const connection = await this.connections.to('group', found, this.settings.requestMs, signal)
    const { errorCode, members } = await connection.call(
      this.negotiate(this.apis.leave, connection),
      [group, [{ memberId, groupInstanceId: instanceId ?? null, reason: null }]],
      'let it leave the group',
      signal,
    )
    return { error: errorCode !== 0 ? errorCode : (members?.[0]?.errorCode ?? 0) }
  }

  async commit(
    { group, generation, memberId, instanceId }: Membership,
    offsets: readonly CommitRequest[],
    signal: AbortSignal,
  ): Promise<readonly { readonly topic: string; readonly partition: number; readonly error: number }[]> {
    const found = await this.coordinator(group, signal)
    if (typeof found === 'number') return offsets.map(({ topic, partition }) => ({ topic, partition, error: found }))
    const connection = await this.connections.to('group', found, this.settings.requestMs, signal)
    const topics = byTopic(offsets).map(([name, partitions]) => ({
      name,
      partitions: partitions.map(({ partition, offset, leaderEpoch }) => ({
        partitionIndex: partition,
        committedOffset: BigInt(offset),
        committedLeaderEpoch: leaderEpoch,
        committedMetadata: '',
      })),
    }))
    const answer = await connection.call(
      this.negotiate(this.apis.commit, connection),
      [group, generation, memberId, instanceId ?? null, topics],
      'commit offsets',
      signal,
    )
    return answer.topics.flatMap(({ name, partitions }) =>
      partitions.map(({ partitionIndex, errorCode }) => ({ topic: name, partition: partitionIndex, error: errorCode })),
    )
  }

  async committed(
    group: string,
    partitions: readonly { readonly topic: string; readonly partition: number }[],
    signal: AbortSignal,
  ): Promise<readonly CommittedOffset[]> {
    const failed = (error: number): CommittedOffset[] =>
      partitions.map(({ topic, partition }) => ({ topic, partition, error, offset: -1, leaderEpoch: -1 }))
    const found = await this.coordinator(group, signal)
    if (typeof found === 'number') return failed(found)
    const connection = await this.connections.to('group', found, this.settings.requestMs, signal)
    const topics = byTopic(partitions).map(([name, each]) => ({
      name,
      partitionIndexes: each.map(({ partition }) => partition),
    }))
    const answer = await connection.call(
      this.negotiate(this.apis.committed, connection),
      [[{ groupId: group, memberId: null, memberEpoch: -1, topics }], true],
      'tell committed offsets',
      signal,
    )
    // Before version 8 the answer is about one group, and says so at the top.
    const [of] = answer.groups.length > 0 ? answer.groups : [answer as object as (typeof answer.groups)[number]]
    if (of === undefined || of.errorCode !== 0) return failed(of?.errorCode ?? -1)
    return of.topics.flatMap(({ name, partitions: each }) =>
      each.map(({ partitionIndex, errorCode, committedOffset, committedLeaderEpoch }) => ({
        topic: name,
        partition: partitionIndex,
        error: errorCode,
        offset: Number(committedOffset),
        leaderEpoch: committedLeaderEpoch,
      })),
    )
  }

  forgetCoordinator(): void {
    this.coordinators.clear()
  }

  async close(): Promise<void> {
    this.connections.close()
  }

  private async fetchMetadata(
    connection: BrokerConnection,
    topics: readonly string[] | undefined,
    signal: AbortSignal,
  ): Promise<ClusterMetadata> {
    // Topics are not created automatically, so that a misspelled name does not become a topic.
    const answer = await connection.call(
      this.negotiate(this.apis.metadata, connection),
      [topics === undefined ? null : [...topics], false, false],
      'tell about topics',
      signal,
    )
    const brokers: readonly Broker[] = answer.brokers.map(({ nodeId, host, port, rack }) => ({
      id: nodeId,
      host,
      port,
      ...(typeof rack === 'string' ? { rack } : {}),
    }))
    this.brokers = new Map(brokers.map((broker) => [broker.id, broker]))
    return {
      clusterId: answer.clusterId ?? '',
      brokers,
      topics: answer.topics.map(({ name, topicId, errorCode, isInternal, partitions }) => ({
        name: name ?? '',
        id: topicId.replaceAll('-', ''),
        error: errorCode,
        internal: isInternal,
        partitions: partitions
          .map((each) => ({
            partition: each.partitionIndex,
            error: each.errorCode,
            leader: each.leaderId,
            leaderEpoch: each.leaderEpoch,
          }))
          .sort((a, b) => a.partition - b.partition),
      })),
    }
  }

  /** Returns the address of the group's coordinator, or the error code that says why it is not known. */
  private async coordinator(group: string, signal: AbortSignal): Promise<BrokerAddress | number> {
    const known = this.coordinators.get(group)
    if (known !== undefined) return known
    const connection = await this.connections.any(this.brokers.values(), signal)
    const {
      coordinators: [found],
    } = await connection.call(
      this.negotiate(this.apis.coordinator, connection),
      [0, [group]],
      "find the group's coordinator",
      signal,
    )
    if (found === undefined || found.errorCode !== 0) return found?.errorCode ?? -1
    this.coordinators.set(group, found)
    return found
  }

  private async addressOf(broker: number, signal: AbortSignal): Promise<BrokerAddress> {
    if (!this.brokers.has(broker)) await this.metadata([], signal)
    const found = this.brokers.get(broker)
    if (found === undefined) throw new Disconnected(`broker ${broker} is not there at the moment`)
    return found
  }

  private negotiate<A extends unknown[], R>(
    api: Versioned<A, R>,
    connection: BrokerConnection,
    maxVersion?: number,
  ): ReturnType<typeof newestCall<A, R>> {
    return newestCall(api, connection.versions, connection.peer.address, maxVersion)
  }
}
