/**
 * What an idempotent producer has to remember so that a record is in its partition once (KIP-98): who it is, and for
 * each partition which batches are not confirmed yet, in their order, each with the sequence number of its first
 * record. It outlives connections.
 *
 * - A batch that may have arrived is sent again with the same bytes and the same sequence: the broker knows its last
 *   five batches of a producer by them.
 * - Sequences have no holes: a batch that the broker refuses for good gives its numbers to those after it. The broker
 *   cannot have any of these, for it takes nothing out of order.
 * - A broker that knows nothing of the producer in a partition takes any number there: until the first batch is
 *   confirmed, none follows it.
 * - A broker that has forgotten the producer, or has lost records that it had confirmed, gets a new identity; what is
 *   unconfirmed then begins at 0 anew.
 */
import { stampBatch, type EncodedBatch } from './record-writer'
import type { ProducerIdentity } from './wire'

/** Sequences go around after this one. */
const HIGHEST = 0x7fffffff

export interface Batched {
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
  first: boolean
  confirmed: boolean
  /**
   * Sent without an answer, or with one that does not say that it is not there, once or more: the broker may have it.
   */
  lost: boolean
  stamped: string
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
export function batched(topic: string, partition: number, indexes: Indexes): Batched {
  return {
    topic,
    partition,
    indexes,
    bytes: undefined,
    sequence: -1,
    first: false,
    confirmed: false,
    lost: false,
    stamped: '',
    answered: undefined,
  }
}

interface Ledger {
  next: number
  waiting: Batched[] /** The broker has a batch of this producer; when that was, epoch milliseconds. */
  knownAt: number
}
/**
 * Brokers forget a producer that is silent for a day (`producer.id.expiration.ms`), or for less where they are told so.
 */
const KNOWN_MS = 60_000

export class Producer {
  private identity: ProducerIdentity | undefined
  private readonly ledgers = new Map<string, Ledger>()

  get isKnown(): boolean {
    return this.identity !== undefined
  }
  get id(): bigint | undefined {
    return this.identity?.id
  }

  /**
   * Of a producer that is new to the brokers. To be called while nothing is under way: all that is unconfirmed is
   * numbered anew, in order.
   */
  become(identity: ProducerIdentity): void {
    this.identity = identity
    for (const ledger of this.ledgers.values()) {
      ledger.next = 0
      ledger.knownAt = -Infinity
      for (const batch of ledger.waiting) this.number(ledger, batch)
    }
  }

  /** The broker does not know it any more, or not as it was. */
  forget(): void {
    this.identity = undefined
  }

  /** The next of its partition. */
  add(batch: Batched): void {
    const ledger = this.ledgerOf(batch)
    this.number(ledger, batch)
    ledger.waiting.push(batch)
  }

  /** Just before it is sent. */
  stamp(batch: Batched): void {
    const { identity } = this
    if (identity === undefined || batch.bytes === undefined)
      throw new Error('a batch without bytes or producer cannot be sent')
    batch.first = this.ledgerOf(batch).waiting[0] === batch
    const stamp = `${identity.id} ${identity.epoch} ${batch.sequence}`
    if (batch.stamped === stamp) return
    stampBatch(batch.bytes, identity, batch.sequence)
    batch.stamped = stamp
  }

  /** The oldest of its partition that is not confirmed. */
  head(batch: Batched): Batched | undefined {
    return this.ledgerOf(batch).waiting[0]
  }

  /** Whether it may be sent now. @param now epoch milliseconds */
  mayGo(batch: Batched, now: number): boolean {
    const { waiting, knownAt } = this.ledgerOf(batch)
    return waiting[0] === batch || now - knownAt < KNOWN_MS
  }

  /** @param now epoch milliseconds */
  confirm(batch: Batched, now: number): void {
    batch.confirmed = true
    const ledger = this.ledgerOf(batch)
    ledger.knownAt = now
    ledger.waiting = ledger.waiting.filter((other) => other !== batch)
  }

  /** The broker refused it for good: others, or none, take its place, with no more records than it had. */
  replace(batch: Batched, others: readonly Batched[]): void {
    batch.confirmed = true
    const ledger = this.ledgerOf(batch)
    const at = ledger.waiting.indexOf(batch)
    const after = ledger.waiting.splice(at).slice(1)
    ledger.next = batch.sequence
    for (const each of [...others, ...after]) {
      this.number(ledger, each)
      ledger.waiting.push(each)
    }
  }

  private number(ledger: Ledger, batch: Batched): void {
    batch.sequence = ledger.next
    const sum = ledger.next + countOf(batch.indexes)
    // As DefaultRecordBatch.incrementSequence of the Java client.
    ledger.next = sum > HIGHEST ? sum - HIGHEST - 1 : sum
  }

  private ledgerOf({ topic, partition }: Batched): Ledger {
    const key = `${topic} ${partition}`
    let ledger = this.ledgers.get(key)
    if (ledger === undefined) this.ledgers.set(key, (ledger = { next: 0, waiting: [], knownAt: -Infinity }))
    return ledger
  }
}
