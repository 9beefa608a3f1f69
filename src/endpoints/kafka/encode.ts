/** From a write to record batches: which partition each record goes to, and their bytes. */
import type { Batch, Entry, Refusal } from '../../core/contract'
import { entrySize } from '../../core/batch'
import { countNewlines } from '../../kit/lines'
import { Memory } from './memory'
import { partitionOf, Sticky } from './partitioner'
import { batched, type Batched, listOf } from './producer'
import type { Codec } from './record-batch'
import { RecordWriter } from './record-writer'
import { routeAll, type Routing } from './routing'
import type { TopicFacts } from './wire'

/** Fields of a record beside its bytes, at the most, without those of its headers. */
const RECORD_OVERHEAD = 40
const HEADER_OVERHEAD = 10
const SMALL = 64 * 1024
/** Batches in memory that is used again: about as many as are under way. */
const KEPT = 24

/** A write as batches. It is made once: whenever the write comes again, it is the same. */
export interface Encoded {
  readonly payload: Batch
  readonly batches: Batched[]
  readonly rejected: Refusal[]
  /** Of records without a time of their own. */
  readonly now: number
  /** Records that may be there twice: the broker forgot who had sent them. */
  doubtful: number
}
interface Open {
  readonly writer: RecordWriter
  readonly indexes: number[]
}

export class Encoder {
  private readonly sticky = new Map<string, Sticky>()
  /** Bytes of a batch in topics whose brokers found one of the usual size too large. */
  private readonly smaller = new Map<string, number>()
  private readonly writers = new WeakMap<Batched, RecordWriter>()
  private readonly memory = new Memory(KEPT)
  private readonly taken = new WeakMap<Batched, Buffer>()

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
    facts: (topic: string) => TopicFacts | string,
    now: number,
    add: (batch: Batched) => void,
  ): Encoded {
    const encoded: Encoded = { payload, batches: [], rejected: [], now, doubtful: 0 }
    const done = (topic: string, partition: number, indexes: Batched['indexes'], writer: RecordWriter): void => {
      const batch = batched(topic, partition, indexes)
      this.writers.set(batch, writer)
      encoded.batches.push(batch)
      add(batch)
    }
    const { topic } = this.routing
    if (topic !== undefined && this.routing.passes && payload.form === 'lines') {
      const found = facts(topic)
      if (typeof found === 'string') throw new Error(found)
      this.encodeLines(payload, found, now, done)
    } else this.encodeEach(encoded, facts, done)
    return encoded
  }

  /** The bytes of a batch, compressed. */
  async seal(batch: Batched): Promise<void> {
    const writer = this.writers.get(batch)
    if (writer === undefined) return
    this.writers.delete(batch)
    batch.bytes = await writer.seal(this.codec)
    if (writer.taken !== undefined) this.taken.set(batch, writer.taken)
  }

  /** It was confirmed, so that the broker has all of it: nothing of it waits in a socket any more. */
  free(batch: Batched): void {
    const taken = this.taken.get(batch)
    batch.bytes = undefined
    if (taken === undefined || !this.taken.delete(batch)) return
    this.memory.give(taken)
  }

  /** The broker took it for too large, or for faulty: two halves of it, or it without the records that are to blame. */
  again(encoded: Encoded, batch: Batched, without: ReadonlySet<number>): readonly Batched[] {
    const left = listOf(batch.indexes).filter((_, index) => !without.has(index))
    if (left.length === 0) return []
    const half = without.size > 0 ? left.length : Math.ceil(left.length / 2)
    return [left.slice(0, half), left.slice(half)]
      .filter((part) => part.length > 0)
      .map((indexes) => {
        const writer = new RecordWriter(SMALL)
        for (const index of indexes) writer.add(this.entryAt(encoded.payload, index), encoded.now)
        const made = batched(batch.topic, batch.partition, indexes)
        this.writers.set(made, writer)
        return made
      })
  }

  /** From now on. @param bytes what was too large, uncompressed or not */
  shrink(topic: string, bytes: number): void {
    this.smaller.set(topic, Math.max(1024, Math.min(this.mostFor(topic), Math.floor(bytes / 2))))
  }

  private mostFor(topic: string): number {
    return this.smaller.get(topic) ?? this.batchBytes
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
    facts: TopicFacts,
    now: number,
    done: (topic: string, partition: number, indexes: Batched['indexes'], writer: RecordWriter) => void,
  ): void {
    const { name: topic } = facts
    const most = this.mostFor(topic)
    const available = availableOf(facts)
    let from = 0
    let writer: RecordWriter | undefined
    const flush = (): void => {
      if (writer === undefined || writer.count === 0) return
      done(topic, this.stickyOf(topic).choose(available, writer.size), { from, count: writer.count }, writer)
      from += writer.count
      writer = undefined
    }
    let left = payload.lines().bytes
    for (const chunk of payload.lines().chunks) {
      for (let at = 0; at < chunk.length; ) {
        writer ??= this.writerFor(
          Math.min(most, left + RECORD_OVERHEAD + (left < SMALL ? 20 * countNewlines(chunk) : Math.floor(left / 8))) +
            64,
        )
        const end = writer.addLines(chunk, at, now, most)
        left -= end - at
        at = end
        if (at < chunk.length) flush()
      }
    }
    flush()
  }

  private encodeEach(
    encoded: Encoded,
    facts: (topic: string) => TopicFacts | string,
    done: (topic: string, partition: number, indexes: Batched['indexes'], writer: RecordWriter) => void,
  ): void {
    const { routed, refused } = routeAll(encoded.payload, this.routing)
    encoded.rejected.push(...refused)
    const open = new Map<string, Map<number, Open>>()
    const looked = new Map<string, { readonly facts: TopicFacts; readonly available: readonly number[] } | string>()
    for (const { index, topic, entry } of routed) {
      let place = looked.get(topic)
      if (place === undefined) {
        const found = facts(topic)
        place = typeof found === 'string' ? found : { facts: found, available: availableOf(found) }
        looked.set(topic, place)
        open.set(topic, new Map())
      }
      const why = typeof place === 'string' ? place : timestampFault(entry)
      if (why !== undefined || typeof place === 'string') {
        encoded.rejected.push({ index, why: why ?? '' })
        continue
      }
      const size = entrySize(entry) + RECORD_OVERHEAD + HEADER_OVERHEAD * (entry.headers?.length ?? 0)
      const partition =
        entry.key === undefined
          ? this.stickyOf(topic).choose(place.available, size)
          : partitionOf(entry.key, place.facts.partitions.length)
      const partitions = open.get(topic) as Map<number, Open>
      let batch = partitions.get(partition)
      if (batch !== undefined && batch.writer.size + size > this.mostFor(topic)) {
        done(topic, partition, batch.indexes, batch.writer)
        batch = undefined
      }
      if (batch === undefined)
        partitions.set(partition, (batch = { writer: new RecordWriter(Math.max(1024, size)), indexes: [] }))
      batch.writer.add(entry, encoded.now)
      batch.indexes.push(index)
    }
    for (const [topic, partitions] of open)
      for (const [partition, { writer, indexes }] of partitions) done(topic, partition, indexes, writer)
  }

  private writerFor(bytes: number): RecordWriter {
    return new RecordWriter(bytes, bytes < SMALL ? undefined : this.memory)
  }

  private stickyOf(topic: string): Sticky {
    let found = this.sticky.get(topic)
    if (found === undefined) this.sticky.set(topic, (found = new Sticky(this.mostFor(topic))))
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
function availableOf({ partitions }: TopicFacts): readonly number[] {
  const led = partitions.filter(({ leader }) => leader >= 0)
  return (led.length === 0 ? partitions : led).map(({ partition }) => partition)
}
