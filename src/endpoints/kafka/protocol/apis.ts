/**
 * The requests that are made of brokers, each with the versions that are spoken: Kafka 2.1 knows the lowest of each,
 * 4.x the highest. Those of the data itself are ours, so that records stay the bytes they are; the others are the
 * library's.
 */
import type { Reader, Writer } from '@platformatic/kafka'
import { Refused } from '../../../core/errors'
import type { ApiCall, Library } from './library'
import { PRODUCE_KEY, type DeferBody } from './deferred-body'
import type { FetchResult, FetchRequest, FetchOptions, ProduceRequest, ProduceResult } from './cluster'

/** A request in all its versions. */
export interface Versioned<A extends unknown[], R> {
  readonly key: number
  readonly name: string
  readonly calls: ReadonlyMap<number, ApiCall<A, R>>
}
export interface FetchAnswer {
  readonly error: number
  readonly partitions: readonly FetchResult[]
}
type VersionsOf<N extends keyof Library> = Library[N] extends { readonly api: ApiCall<infer A, infer R> }
  ? Versioned<A, R>
  : never

export interface Apis {
  readonly metadata: VersionsOf<'metadataV12'>
  readonly offsets: VersionsOf<'listOffsetsV7'>
  readonly coordinator: VersionsOf<'findCoordinatorV4'>
  readonly join: VersionsOf<'joinGroupV9'>
  readonly sync: VersionsOf<'syncGroupV5'>
  readonly heartbeat: VersionsOf<'heartbeatV4'>
  readonly leave: VersionsOf<'leaveGroupV5'>
  readonly commit: VersionsOf<'offsetCommitV9'>
  readonly committed: VersionsOf<'offsetFetchV9'>
  readonly identity: VersionsOf<'initProducerIdV4'>
  /** From 13 on topics go by their id. */
  readonly fetch: Versioned<[readonly FetchRequest[], FetchOptions], FetchAnswer>
  readonly produce: Versioned<[readonly ProduceRequest[], number, DeferBody], readonly ProduceResult[]>
}

/** The newest that both sides speak. @param maxVersion leaves newer ones out */
export function newestCall<A extends unknown[], R>(
  { key, name, calls }: Versioned<A, R>,
  versions: ReadonlyMap<number, { readonly min: number; readonly max: number }>,
  address: string,
  maxVersion = Infinity,
): ApiCall<A, R> {
  const theirs = versions.get(key)
  const ours = [...calls.keys()]
  const version = ours
    .filter((each) => theirs !== undefined && each >= theirs.min && each <= theirs.max && each <= maxVersion)
    .sort((a, b) => b - a)[0]
  const call = version === undefined ? undefined : calls.get(version)
  if (call === undefined)
    throw new Refused(
      `${address} speaks ${theirs === undefined ? `no ${name}` : `versions ${theirs.min} to ${theirs.max} of ${name}`}, this program ${Math.min(...ours)} to ${Math.max(...ours)}: Kafka 2.1 to 4.x are spoken to`,
    )
  return call
}

export function apisOf(library: Library): Apis {
  // The library names each version of a request apart, all with the same arguments and answer.
  const of = <A extends unknown[], R>(key: number, name: string, from: number, to: number): Versioned<A, R> => ({
    key,
    name,
    calls: new Map(
      Array.from({ length: to - from + 1 }, (_, index) => from + index).map((version) => [
        version,
        (library as unknown as Record<string, { readonly api: ApiCall<A, R> }>)[`${name}V${version}`]?.api as ApiCall<
          A,
          R
        >,
      ]),
    ),
  })
  const { createAPI } = library
  return {
    metadata: of(3, 'metadata', 5, 12),
    offsets: of(2, 'listOffsets', 2, 7),
    coordinator: of(10, 'findCoordinator', 1, 4),
    join: of(11, 'joinGroup', 3, 9),
    sync: of(14, 'syncGroup', 2, 5),
    heartbeat: of(12, 'heartbeat', 2, 4),
    leave: of(13, 'leaveGroup', 2, 5),
    commit: of(8, 'offsetCommit', 5, 9),
    committed: of(9, 'offsetFetch', 5, 9),
    identity: of(22, 'initProducerId', 1, 4),
    fetch: {
      key: 1,
      name: 'fetch',
      calls: new Map(
        [10, 11, 12, 13].map((version) => [
          version,
          createAPI<[readonly FetchRequest[], FetchOptions], FetchAnswer>(
            1,
            version,
            (requests: readonly FetchRequest[], options: FetchOptions) =>
              fetchRequest(library.Writer.create(), version, requests, options),
            (_id, _key, _version, reader) => fetchAnswer(reader, version),
            version >= 12,
            version >= 12,
          ),
        ]),
      ),
    },
    produce: {
      key: PRODUCE_KEY,
      name: 'produce',
      calls: new Map(
        [7, 8, 9].map((version) => [
          version,
          createAPI<[readonly ProduceRequest[], number, DeferBody], readonly ProduceResult[]>(
            PRODUCE_KEY,
            version,
            (requests: readonly ProduceRequest[], timeoutMs: number, deferBody: DeferBody) =>
              library.Writer.create().append(
                deferBody(produceRequest(library.Writer.create(), version, requests, timeoutMs).buffers),
              ),
            (_id, _key, _version, reader) => produceAnswer(reader, version),
            version >= 9,
            version >= 9,
          ),
        ]),
      ),
    },
  }
}

/** In the order in which topics appear first. */
export function byTopic<T extends { readonly topic: string }>(items: readonly T[]): [topic: string, asks: T[]][] {
  const found = new Map<string, T[]>()
  for (const request of items) {
    const known = found.get(request.topic)
    if (known === undefined) found.set(request.topic, [request])
    else known.push(request)
  }
  return [...found]
}

/** Fetch request, versions 10 to 13, without a session (id 0, epoch -1: KIP-227). */
function fetchRequest(
  writer: Writer,
  version: number,
  requests: readonly FetchRequest[],
  { maxWaitMs, minBytes, maxBytes, committedOnly, rack }: FetchOptions,
): Writer {
  const compact = version >= 12
  writer
    .appendInt32(-1)
    .appendInt32(maxWaitMs)
    .appendInt32(minBytes)
    .appendInt32(maxBytes)
    .appendInt8(committedOnly ? 1 : 0)
    .appendInt32(0)
    .appendInt32(-1)
  writer.appendArray(
    byTopic(requests),
    (topics, [topic, partitions]) => {
      if (version >= 13) topics.appendUUID(partitions[0]?.topicId ?? null)
      else topics.appendString(topic, compact)
      topics.appendArray(
        partitions,
        (each, { partition, leaderEpoch, offset, maxBytes: partitionMaxBytes }) => {
          each.appendInt32(partition).appendInt32(leaderEpoch).appendInt64(BigInt(offset))
          if (version >= 12) each.appendInt32(-1)
          each.appendInt64(-1n).appendInt32(partitionMaxBytes)
        },
        compact,
        compact,
      )
    },
    compact,
    compact,
  )
  writer.appendArray([], () => undefined, compact, compact)
  if (version >= 11) writer.appendString(rack, compact)
  return compact ? writer.appendTaggedFields() : writer
}

/**
 * Fetch response, versions 10 to 13; from 13 on `topic` is the topic's id. Records are views into what was received
 * where they lie in one piece, else copied once.
 */
function fetchAnswer(reader: Reader, version: number): FetchAnswer {
  const compact = version >= 12
  reader.readInt32()
  const error = reader.readInt16()
  reader.readInt32()
  const partitions: FetchResult[] = []
  reader.readArray(
    () => {
      const topic = version >= 13 ? reader.readUUID().replaceAll('-', '') : reader.readString(compact)
      reader.readArray(
        () => {
          const partition = reader.readInt32()
          const code = reader.readInt16()
          const highWatermark = Number(reader.readInt64())
          const lastStableOffset = Number(reader.readInt64())
          const logStartOffset = Number(reader.readInt64())
          const aborted = reader.readArray(
            () => ({ producerId: reader.readInt64(), firstOffset: Number(reader.readInt64()) }),
            compact,
            compact,
          )
          const preferredReplica = version >= 11 ? reader.readInt32() : -1
          const records = reader.readBytes(compact)
          partitions.push({
            topic,
            partition,
            error: code,
            highWatermark,
            lastStableOffset,
            logStartOffset,
            aborted,
            preferredReplica,
            records,
          })
        },
        compact,
        compact,
      )
    },
    compact,
    compact,
  )
  return { error, partitions }
}

const ALL_REPLICAS = -1

/** Produce request, versions 7 to 9, acks=all: 7 is the first that takes zstd (KIP-110). */
function produceRequest(
  writer: Writer,
  version: number,
  requests: readonly ProduceRequest[],
  timeoutMs: number,
): Writer {
  const compact = version >= 9
  writer.appendString(null, compact).appendInt16(ALL_REPLICAS).appendInt32(timeoutMs)
  writer.appendArray(
    byTopic(requests),
    (topics, [topic, partitions]) => {
      topics.appendString(topic, compact).appendArray(
        partitions,
        (each, { partition, batch }) => {
          const length = batch.reduce((sum, part) => sum + part.length, 0)
          each.appendInt32(partition)
          if (compact) each.appendUnsignedVarInt(length + 1)
          else each.appendInt32(length)
          for (const part of batch) each.append(part)
        },
        compact,
        compact,
      )
    },
    compact,
    compact,
  )
  return compact ? writer.appendTaggedFields() : writer
}

/** Produce response, versions 7 to 9: which records are to blame is said from 8 on (KIP-467). */
function produceAnswer(reader: Reader, version: number): readonly ProduceResult[] {
  const compact = version >= 9
  const results: ProduceResult[] = []
  reader.readArray(
    () => {
      const topic = reader.readString(compact)
      reader.readArray(
        () => {
          const partition = reader.readInt32()
          const error = reader.readInt16()
          const baseOffset = Number(reader.readInt64())
          reader.readInt64()
          const logStartOffset = Number(reader.readInt64())
          const recordErrors =
            version < 8
              ? []
              : reader.readArray(
                  () => ({ index: reader.readInt32(), message: reader.readString(compact) }),
                  compact,
                  compact,
                )
          const message = version < 8 ? null : reader.readNullableString(compact)
          results.push({
            topic,
            partition,
            error,
            baseOffset,
            logStartOffset,
            recordErrors,
            ...(message === null ? {} : { message }),
          })
        },
        compact,
        compact,
      )
    },
    compact,
    compact,
  )
  return results
}
