/**
 * The requests that are made of brokers, each with the versions that are spoken: Kafka 2.1 knows the lowest of each,
 * 4.x the highest. Those of the data itself are ours, so that records stay the bytes they are; the others are the
 * library's.
 */
import type { Reader, Writer } from '@platformatic/kafka'
import { Refused } from '../../core/errors'
import type { Library } from './client'
import type { Call } from './link'
import { PRODUCE, type Park } from './parking'
import type { Fetched, FetchAsk, FetchOptions, ProduceAsk, Produced } from './wire'

/** A request in all its versions. */
export interface Versioned<A extends unknown[], R> {
  readonly key: number
  readonly name: string
  readonly calls: ReadonlyMap<number, Call<A, R>>
}
export interface FetchAnswer {
  readonly error: number
  readonly partitions: readonly Fetched[]
}
type Of<N extends keyof Library> = Library[N] extends { readonly api: Call<infer A, infer R> } ? Versioned<A, R> : never

export interface Apis {
  readonly metadata: Of<'metadataV12'>
  readonly offsets: Of<'listOffsetsV7'>
  readonly coordinator: Of<'findCoordinatorV4'>
  readonly join: Of<'joinGroupV9'>
  readonly sync: Of<'syncGroupV5'>
  readonly heartbeat: Of<'heartbeatV4'>
  readonly leave: Of<'leaveGroupV5'>
  readonly commit: Of<'offsetCommitV9'>
  readonly committed: Of<'offsetFetchV9'>
  readonly identity: Of<'initProducerIdV4'>
  /** From 13 on topics go by their id. */
  readonly fetch: Versioned<[readonly FetchAsk[], FetchOptions], FetchAnswer>
  readonly produce: Versioned<[readonly ProduceAsk[], number, Park], readonly Produced[]>
}

/** The newest that both sides speak. @param most leaves newer ones out */
export function newest<A extends unknown[], R>(
  { key, name, calls }: Versioned<A, R>,
  versions: ReadonlyMap<number, { readonly min: number; readonly max: number }>,
  at: string,
  most = Infinity,
): Call<A, R> {
  const theirs = versions.get(key)
  const ours = [...calls.keys()]
  const version = ours
    .filter((each) => theirs !== undefined && each >= theirs.min && each <= theirs.max && each <= most)
    .sort((a, b) => b - a)[0]
  const call = version === undefined ? undefined : calls.get(version)
  if (call === undefined)
    throw new Refused(
      `${at} speaks ${theirs === undefined ? `no ${name}` : `versions ${theirs.min} to ${theirs.max} of ${name}`}, this program ${Math.min(...ours)} to ${Math.max(...ours)}: Kafka 2.1 to 4.x are spoken to`,
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
        (library as unknown as Record<string, { readonly api: Call<A, R> }>)[`${name}V${version}`]?.api as Call<A, R>,
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
          createAPI<[readonly FetchAsk[], FetchOptions], FetchAnswer>(
            1,
            version,
            (asks: readonly FetchAsk[], options: FetchOptions) =>
              fetchRequest(library.Writer.create(), version, asks, options),
            (_id, _key, _version, reader) => fetchAnswer(reader, version),
            version >= 12,
            version >= 12,
          ),
        ]),
      ),
    },
    produce: {
      key: PRODUCE,
      name: 'produce',
      calls: new Map(
        [7, 8, 9].map((version) => [
          version,
          createAPI<[readonly ProduceAsk[], number, Park], readonly Produced[]>(
            PRODUCE,
            version,
            (asks: readonly ProduceAsk[], timeoutMs: number, park: Park) =>
              library.Writer.create().append(
                park(produceRequest(library.Writer.create(), version, asks, timeoutMs).buffers),
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
export function byTopic<T extends { readonly topic: string }>(asks: readonly T[]): [topic: string, asks: T[]][] {
  const found = new Map<string, T[]>()
  for (const ask of asks) {
    const known = found.get(ask.topic)
    if (known === undefined) found.set(ask.topic, [ask])
    else known.push(ask)
  }
  return [...found]
}

/** Fetch request, versions 10 to 13, without a session (id 0, epoch -1: KIP-227). */
function fetchRequest(
  writer: Writer,
  version: number,
  asks: readonly FetchAsk[],
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
    byTopic(asks),
    (topics, [topic, partitions]) => {
      if (version >= 13) topics.appendUUID(partitions[0]?.topicId ?? null)
      else topics.appendString(topic, compact)
      topics.appendArray(
        partitions,
        (each, { partition, leaderEpoch, offset, maxBytes: most }) => {
          each.appendInt32(partition).appendInt32(leaderEpoch).appendInt64(BigInt(offset))
          if (version >= 12) each.appendInt32(-1)
          each.appendInt64(-1n).appendInt32(most)
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
  const partitions: Fetched[] = []
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
function produceRequest(writer: Writer, version: number, asks: readonly ProduceAsk[], timeoutMs: number): Writer {
  const compact = version >= 9
  writer.appendString(null, compact).appendInt16(ALL_REPLICAS).appendInt32(timeoutMs)
  writer.appendArray(
    byTopic(asks),
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
function produceAnswer(reader: Reader, version: number): readonly Produced[] {
  const compact = version >= 9
  const results: Produced[] = []
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
