/** Encodes a write into record batches: it chooses the partition of each record and writes its bytes. */
import type { Batch, Entry, Refusal } from '../../../core/contract'
import { entrySize } from '../../../core/batch'
import { countNewlines } from '../../../kit/lines'
import { BufferPool } from '../protocol/buffer-pool'
import { partitionOf, StickyPartitioner } from './partitioner'
import { newProducerBatch, type ProducerBatch, listOf } from './producer-state'
import type { Codec } from '../protocol/record-batch'
import { RecordWriter } from './record-writer'
import { routeAll, type Routing } from './routing'
import type { TopicMetadata } from '../protocol/cluster'

/** Fields of a record beside its bytes, at the most, without those of its headers. */
const RECORD_OVERHEAD = 40
const HEADER_OVERHEAD = 10
const SMALL_BATCH_BYTES = 64 * 1024
/** Batches in memory that is used again: about as many as are under way. */
const POOLED_BATCHES = 24

/** A write as batches. It is made once: whenever the write comes again, it is the same. */
export interface EncodedWrite {
  readonly payload: Batch
  readonly batches: ProducerBatch[]
  readonly rejected: Refusal[]
  /** Of records without a time of their own. */
  readonly now: number
  /** Records that may be there twice: the broker forgot who had sent them. */
  doubtful: number
}
interface OpenBatch {
  readonly writer: RecordWriter
  readonly indexes: number[]
}

export class Encoder {
  private readonly stickyByTopic = new Map<string, StickyPartitioner>()
  /** Bytes of a batch in topics whose brokers found one of the usual size too large. */
  private readonly reducedSizes = new Map<string, number>()
  private readonly writers = new WeakMap<ProducerBatch, RecordWriter>()
  private readonly pool = new BufferPool(POOLED_BATCHES)
  private readonly pooledBuffers = new WeakMap<ProducerBatch, Buffer>()

  constructor(
    private readonly routing: Routing,
    private readonly batchBytes: number,
    private readonly codec: Codec,
  ) {}

  /** Topics that the write is for. */
  topicsOf(payload: Batch): readonly string[] {
    if (this.routing.topic !== undefined) return [this.routing.topic]
    return [...new Set(routeAll(payload, this.routing).routed.map(({ topic }) => topic))]
  }

  /**
   * @param facts of a topic, or why records cannot go there @param now epoch milliseconds @param add told of each batch
   *   in the order in which their partition is to have them
   */
  encode(
    payload: Batch,
    metadata: (topic: string) => TopicMetadata | string,
    now: number,
    onBatch: (batch: ProducerBatch) => void,
  ): EncodedWrite {
    const encoded: EncodedWrite = { payload, batches: [], rejected: [], now, doubtful: 0 }
    const addBatch = (
      topic: string,
      partition: number,
      indexes: ProducerBatch['indexes'],
      writer: RecordWriter,
    ): void => {
      const batch = newProducerBatch(topic, partition, indexes)
      this.writers.set(batch, writer)
      encoded.batches.push(batch)
      onBatch(batch)
    }
    const { topic } = this.routing
    if (topic !== undefined && this.routing.isUnchanged && payload.form === 'lines') {
      const found = metadata(topic)
      if (typeof found === 'string') throw new Error(found)
      this.encodeLines(payload, found, now, addBatch)
    } else this.encodeEach(encoded, metadata, addBatch)
    return encoded
  }

  /** The bytes of a batch, compressed. */
  async seal(batch: ProducerBatch): Promise<void> {
    const writer = this.writers.get(batch)
    if (writer === undefined) return
    this.writers.delete(batch)
    batch.bytes = await writer.seal(this.codec)
    if (writer.pooledBuffer !== undefined) this.pooledBuffers.set(batch, writer.pooledBuffer)
  }

  /** It was confirmed, so that the broker has all of it: nothing of it waits in a socket any more. */
  releaseBuffer(batch: ProducerBatch): void {
    const pooled = this.pooledBuffers.get(batch)
    batch.bytes = undefined
    if (pooled === undefined || !this.pooledBuffers.delete(batch)) return
    this.pool.release(pooled)
  }

  /** The broker took it for too large, or for faulty: two halves of it, or it without the records that are to blame. */
  reencode(encoded: EncodedWrite, batch: ProducerBatch, without: ReadonlySet<number>): readonly ProducerBatch[] {
    const left = listOf(batch.indexes).filter((_, index) => !without.has(index))
    if (left.length === 0) return []
    const half = without.size > 0 ? left.length : Math.ceil(left.length / 2)
    return [left.slice(0, half), left.slice(half)]
      .filter((part) => part.length > 0)
      .map((indexes) => {
        const writer = new RecordWriter(SMALL_BATCH_BYTES)
        for (const index of indexes) writer.add(this.entryAt(encoded.payload, index), encoded.now)
        const made = newProducerBatch(batch.topic, batch.partition, indexes)
        this.writers.set(made, writer)
        return made
      })
  }

  /** From now on. @param bytes what was too large, uncompressed or not */
  reduceBatchSize(topic: string, bytes: number): void {
    this.reducedSizes.set(topic, Math.max(1024, Math.min(this.maxBatchBytes(topic), Math.floor(bytes / 2))))
  }

  private maxBatchBytes(topic: string): number {
    return this.reducedSizes.get(topic) ?? this.batchBytes
  }

  private entryAt(payload: Batch, index: number): Entry {
    const entry = payload.entries()[index]
    const routed = entry === undefined ? undefined : this.routing.route(entry)
    if (routed === undefined || 'why' in routed)
      throw new Error(`record ${index} was routed before and is not any more`)
    return routed.entry
  }

  private encodeLines(
    payload: Batch,
    metadata: TopicMetadata,
    now: number,
    addBatch: (topic: string, partition: number, indexes: ProducerBatch['indexes'], writer: RecordWriter) => void,
  ): void {
    const { name: topic } = metadata
    const maxBytes = this.maxBatchBytes(topic)
    const available = availableOf(metadata)
    let from = 0
    let writer: RecordWriter | undefined
    const flush = (): void => {
      if (writer === undefined || writer.count === 0) return
      addBatch(topic, this.stickyOf(topic).choose(available, writer.size), { from, count: writer.count }, writer)
      from += writer.count
      writer = undefined
    }
    let left = payload.lines().bytes
    for (const chunk of payload.lines().chunks) {
      for (let at = 0; at < chunk.length; ) {
        writer ??= this.writerFor(
          Math.min(
            maxBytes,
            left + RECORD_OVERHEAD + (left < SMALL_BATCH_BYTES ? 20 * countNewlines(chunk) : Math.floor(left / 8)),
          ) + 64,
        )
        const end = writer.addLines(chunk, at, now, maxBytes)
        left -= end - at
        at = end
        if (at < chunk.length) flush()
      }
    }
    flush()
  }

  private encodeEach(
    encoded: EncodedWrite,
    metadata: (topic: string) => TopicMetadata | string,
    addBatch: (topic: string, partition: number, indexes: ProducerBatch['indexes'], writer: RecordWriter) => void,
  ): void {
    const { routed, refused } = routeAll(encoded.payload, this.routing)
    encoded.rejected.push(...refused)
    const open = new Map<string, Map<number, OpenBatch>>()
    const destinations = new Map<
      string,
      { readonly facts: TopicMetadata; readonly available: readonly number[] } | string
    >()
    for (const { index, topic, entry } of routed) {
      let destination = destinations.get(topic)
      if (destination === undefined) {
        const found = metadata(topic)
        destination = typeof found === 'string' ? found : { facts: found, available: availableOf(found) }
        destinations.set(topic, destination)
        open.set(topic, new Map())
      }
      const why = typeof destination === 'string' ? destination : timestampFault(entry)
      if (why !== undefined || typeof destination === 'string') {
        encoded.rejected.push({ index, why: why ?? '' })
        continue
      }
      const size = entrySize(entry) + RECORD_OVERHEAD + HEADER_OVERHEAD * (entry.headers?.length ?? 0)
      const partition =
        entry.key === undefined
          ? this.stickyOf(topic).choose(destination.available, size)
          : partitionOf(entry.key, destination.facts.partitions.length)
      const partitions = open.get(topic) as Map<number, OpenBatch>
      let batch = partitions.get(partition)
      if (batch !== undefined && batch.writer.size + size > this.maxBatchBytes(topic)) {
        addBatch(topic, partition, batch.indexes, batch.writer)
        batch = undefined
      }
      if (batch === undefined)
        partitions.set(partition, (batch = { writer: new RecordWriter(Math.max(1024, size)), indexes: [] }))
      batch.writer.add(entry, encoded.now)
      batch.indexes.push(index)
    }
    for (const [topic, partitions] of open)
      for (const [partition, { writer, indexes }] of partitions) addBatch(topic, partition, indexes, writer)
  }

  private writerFor(bytes: number): RecordWriter {
    return new RecordWriter(bytes, bytes < SMALL_BATCH_BYTES ? undefined : this.pool)
  }

  private stickyOf(topic: string): StickyPartitioner {
    let found = this.stickyByTopic.get(topic)
    if (found === undefined) this.stickyByTopic.set(topic, (found = new StickyPartitioner(this.maxBatchBytes(topic))))
    return found
  }
}

/**
 * Deltas between timestamps are numbers here: whole milliseconds that a double holds, some 285,000 years to either side
 * of 1970.
 */
function timestampFault({ timestamp }: Entry): string | undefined {
  if (timestamp === undefined || Math.abs(Math.floor(timestamp)) <= Number.MAX_SAFE_INTEGER / 2) return undefined
  return `its timestamp, ${timestamp}, is no time in milliseconds`
}

/** Partitions that have a leader; all of them where none has. */
function availableOf({ partitions }: TopicMetadata): readonly number[] {
  const led = partitions.filter(({ leader }) => leader >= 0)
  return (led.length === 0 ? partitions : led).map(({ partition }) => partition)
}
