/**
 * The memory of an idempotent producer, by which a record is in its partition once (KIP-98): its identity, and for each
 * partition the unconfirmed batches in order, each with the sequence number of its first record. It outlives
 * connections.
 *
 * - A batch that may have arrived is sent again with the same bytes and sequence number: the broker recognises the last
 *   five batches of a producer by them.
 * - Sequence numbers have no holes. A batch that the broker refuses for good leaves its numbers to the batches after
 *   it. The broker cannot have any of those, because it accepts nothing out of order.
 * - A broker that knows nothing of the producer in a partition accepts any number there. No batch follows the first one
 *   until that is confirmed.
 * - Where a broker has forgotten the producer, or has lost records that it had confirmed, the producer takes a new
 *   identity, and unconfirmed batches are numbered from 0.
 */
import { stampBatch, type EncodedBatch } from './record-writer'
import type { ProducerSession } from '../protocol/cluster'

/** Sequences go around after this one. */
const MAX_SEQUENCE = 0x7fffffff

export interface ProducerBatch {
  readonly topic: string
  readonly partition: number
  /** Records by their index in the write, in order. */
  readonly indexes: Indexes
  /** Known once it is sealed. */
  bytes: EncodedBatch | undefined
  sequence: number
  /**
   * Nothing before it in its partition was unconfirmed when it was sent last: only then does "out of order" mean that
   * the broker has lost something.
   */
  wasOldest: boolean
  confirmed: boolean
  /**
   * Sent without an answer, or with one that does not say that it is not there, once or more: the broker may have it.
   */
  inDoubt: boolean
  stampedAs: string
  /** Resolves, whatever the answer, once it was dealt with; undefined where it was never sent. */
  answered: Promise<unknown> | undefined
}
/** A run of records, or each by its number. */
export type Indexes = { readonly from: number; readonly count: number } | readonly number[]

export function countOf(indexes: Indexes): number {
  return 'from' in indexes ? indexes.count : indexes.length
}
export function listOf(indexes: Indexes): readonly number[] {
  return 'from' in indexes ? Array.from({ length: indexes.count }, (_, index) => indexes.from + index) : indexes
}
export function newProducerBatch(topic: string, partition: number, indexes: Indexes): ProducerBatch {
  return {
    topic,
    partition,
    indexes,
    bytes: undefined,
    sequence: -1,
    wasOldest: false,
    confirmed: false,
    inDoubt: false,
    stampedAs: '',
    answered: undefined,
  }
}

interface PartitionSequence {
  next: number
  unconfirmed: ProducerBatch[] /** The broker has a batch of this producer; when that was, epoch milliseconds. */
  confirmedAt: number
}
/**
 * Brokers forget a producer that is silent for a day (`producer.id.expiration.ms`), or for less where they are told so.
 */
const PRODUCER_KNOWN_MS = 60_000

export class ProducerState {
  private identity: ProducerSession | undefined
  private readonly sequences = new Map<string, PartitionSequence>()

  get hasIdentity(): boolean {
    return this.identity !== undefined
  }
  get id(): bigint | undefined {
    return this.identity?.id
  }

  /**
   * Of a producer that is new to the brokers. To be called while nothing is under way: all that is unconfirmed is
   * numbered anew, in order.
   */
  setIdentity(identity: ProducerSession): void {
    this.identity = identity
    for (const sequence of this.sequences.values()) {
      sequence.next = 0
      sequence.confirmedAt = -Infinity
      for (const batch of sequence.unconfirmed) this.number(sequence, batch)
    }
  }

  /** The broker does not know it any more, or not as it was. */
  clearIdentity(): void {
    this.identity = undefined
  }

  /** The next of its partition. */
  add(batch: ProducerBatch): void {
    const sequence = this.sequenceOf(batch)
    this.number(sequence, batch)
    sequence.unconfirmed.push(batch)
  }

  /** Just before it is sent. */
  stamp(batch: ProducerBatch): void {
    const { identity } = this
    if (identity === undefined || batch.bytes === undefined)
      throw new Error('a batch without bytes or producer cannot be sent')
    batch.wasOldest = this.sequenceOf(batch).unconfirmed[0] === batch
    const stamp = `${identity.id} ${identity.epoch} ${batch.sequence}`
    if (batch.stampedAs === stamp) return
    stampBatch(batch.bytes, identity, batch.sequence)
    batch.stampedAs = stamp
  }

  /** The oldest of its partition that is not confirmed. */
  oldestUnconfirmed(batch: ProducerBatch): ProducerBatch | undefined {
    return this.sequenceOf(batch).unconfirmed[0]
  }

  /** Tells if a batch may be sent now. @param now epoch milliseconds */
  maySend(batch: ProducerBatch, now: number): boolean {
    const { unconfirmed, confirmedAt } = this.sequenceOf(batch)
    return unconfirmed[0] === batch || now - confirmedAt < PRODUCER_KNOWN_MS
  }

  /** @param now epoch milliseconds */
  confirm(batch: ProducerBatch, now: number): void {
    batch.confirmed = true
    const sequence = this.sequenceOf(batch)
    sequence.confirmedAt = now
    sequence.unconfirmed = sequence.unconfirmed.filter((other) => other !== batch)
  }

  /** The broker refused it for good: others, or none, take its place, with no more records than it had. */
  replace(batch: ProducerBatch, others: readonly ProducerBatch[]): void {
    batch.confirmed = true
    const sequence = this.sequenceOf(batch)
    const at = sequence.unconfirmed.indexOf(batch)
    const after = sequence.unconfirmed.splice(at).slice(1)
    sequence.next = batch.sequence
    for (const each of [...others, ...after]) {
      this.number(sequence, each)
      sequence.unconfirmed.push(each)
    }
  }

  private number(sequence: PartitionSequence, batch: ProducerBatch): void {
    batch.sequence = sequence.next
    const sum = sequence.next + countOf(batch.indexes)
    // As DefaultRecordBatch.incrementSequence of the Java client.
    sequence.next = sum > MAX_SEQUENCE ? sum - MAX_SEQUENCE - 1 : sum
  }

  private sequenceOf({ topic, partition }: ProducerBatch): PartitionSequence {
    const key = `${topic} ${partition}`
    let sequence = this.sequences.get(key)
    if (sequence === undefined)
      this.sequences.set(key, (sequence = { next: 0, unconfirmed: [], confirmedAt: -Infinity }))
    return sequence
  }
}
