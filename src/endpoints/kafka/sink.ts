/**
 * The sink writes records into topics with acks=all, as an idempotent producer.
 *
 * - A write is encoded into batches once, and kept with its sequence numbers until all of it is confirmed or refused.
 *   Over reconnects and changes of leaders a resend has the same bytes, by which the broker recognises it.
 * - Writes are prepared side by side and sent in the order in which they came, with at most five requests in flight: a
 *   broker recognises the last five batches of a producer only.
 * - Records keep their order within a partition. After a failure a broker refuses later batches, and the core sends all
 *   of them again in order.
 */
import {
  CONFIRMED,
  type EndpointContext,
  type Limits,
  type Outcome,
  type Refusal,
  type Sink,
  type Write,
} from '../../core/contract'
import { Disconnected, Throttled, type ManifoldError } from '../../core/errors'
import type { CreateSink, Target } from '../../options/define'
import { openCluster } from './client'
import {
  DUPLICATE_SEQUENCE_NUMBER,
  INVALID_PRODUCER_EPOCH,
  INVALID_RECORD,
  INVALID_TIMESTAMP,
  INVALID_TOPIC_EXCEPTION,
  LEADER_NOT_AVAILABLE,
  MESSAGE_TOO_LARGE,
  nameOfCode,
  NONE,
  OUT_OF_ORDER_SEQUENCE_NUMBER,
  PRODUCER_FENCED,
  RECORD_LIST_TOO_LARGE,
  TOPIC_AUTHORIZATION_FAILED,
  UNKNOWN_PRODUCER_ID,
  UNKNOWN_TOPIC_ID,
  UNKNOWN_TOPIC_OR_PARTITION,
} from './protocol/error-codes'
import { Encoder, type EncodedWrite } from './produce/encoder'
import { protocolFault } from './errors'
import type { KafkaOptions } from './options'
import { countOf, listOf, ProducerState, type ProducerBatch } from './produce/producer-state'
import { routingOf, type Routing } from './produce/routing'
import { Semaphore, WriteOrder } from './produce/write-order'
import type { Cluster, ProduceResult, TopicMetadata } from './protocol/cluster'

const MIB = 1024 * 1024
const MAX_IN_FLIGHT = 5
/** How long a topic that records name and that is not there is not asked for again. */
const MISSING_TOPIC_MS = 10_000

const TOO_LARGE_CODES = new Set([MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE])
const INVALID_RECORD_CODES = new Set([INVALID_RECORD, INVALID_TIMESTAMP])
const PRODUCER_LOST_CODES = new Set([INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID, PRODUCER_FENCED])
/** Of a topic that a record names: the record's fault, not the endpoint's. */
const TOPIC_UNUSABLE_CODES = new Set([
  UNKNOWN_TOPIC_OR_PARTITION,
  UNKNOWN_TOPIC_ID,
  INVALID_TOPIC_EXCEPTION,
  TOPIC_AUTHORIZATION_FAILED,
])

export const create: CreateSink<KafkaOptions> = (target) => new KafkaSink(target)

class KafkaSink implements Sink {
  readonly limits: Limits
  readonly wants = 'entries'
  private readonly routing: Routing
  private readonly encoder: Encoder
  private readonly producer = new ProducerState()
  private readonly writes = new Map<string, EncodedWrite>()
  private readonly topics = new Map<string, { readonly facts: TopicMetadata | string; readonly at: number }>()
  private readonly writeOrder = new WriteOrder()
  private readonly requestSlots = new Semaphore(MAX_IN_FLIGHT)
  private cluster: Cluster | undefined
  private ctx: EndpointContext | undefined
  private writesUnderWay = 0
  /** Why no other write is begun, until all that are under way have come back. */
  private failure: unknown

  constructor(private readonly target: Target<KafkaOptions>) {
    const { maxRecord, batchSize, compression } = target.options
    this.limits = {
      maxEntries: 1_000_000,
      maxBytes: 4 * MIB,
      maxEntryBytes: maxRecord,
      inFlight: 4,
      ordered: true,
      unit: 'batch',
      confirms: 'each',
      recognises: true,
    }
    this.routing = routingOf(target.options, topicIn(target.uri.path))
    this.encoder = new Encoder(this.routing, batchSize, compression)
  }

  async open(ctx: EndpointContext): Promise<void> {
    this.ctx = ctx
    if (this.target.options.tlsInsecure)
      ctx.log.warn(
        "tls-insecure: the brokers' certificates are not checked; whoever sits between can read and change everything",
      )
    const cluster = await openCluster(this.target, ctx.signal)
    this.cluster = cluster
    this.topics.clear()
    if (this.routing.topic !== undefined) await this.refreshTopics([this.routing.topic], ctx.signal)
    if (!this.producer.hasIdentity) await this.acquireIdentity(cluster, ctx)
  }

  async write(write: Write, signal: AbortSignal): Promise<Outcome> {
    if ('kind' in write.payload) throw new Error('topics take batches')
    const { payload } = write
    const orderedWrite = this.writeOrder.enter()
    this.writesUnderWay++
    try {
      await orderedWrite.mayPrepare
      if (this.failure !== undefined)
        throw new Throttled('an earlier write failed', { afterMs: 1, cause: this.failure })
      const known = this.writes.get(write.id)
      await this.ensureTopics(
        known === undefined ? this.encoder.topicsOf(payload) : [...new Set(known.batches.map(({ topic }) => topic))],
        signal,
      )
      const encoded = known ?? this.encode(write.id, payload)
      orderedWrite.prepared()
      await this.seal(encoded)
      await orderedWrite.maySend
      await this.send(encoded, orderedWrite.sent, signal)
      this.writes.delete(write.id)
      const { rejected, doubtful } = encoded
      return rejected.length === 0 && doubtful === 0
        ? CONFIRMED
        : {
            retry: [],
            rejected: [...rejected].sort((a, b) => a.index - b.index),
            ...(doubtful === 0 ? {} : { doubtful }),
          }
    } catch (error) {
      this.failure ??= error
      throw error
    } finally {
      orderedWrite.end()
      if (--this.writesUnderWay === 0) this.failure = undefined
    }
  }

  async close(): Promise<void> {
    const { cluster } = this
    this.cluster = undefined
    await cluster?.close()
  }

  /** The producer is somebody, and the topics are known. */
  private async ensureTopics(names: readonly string[], signal: AbortSignal): Promise<void> {
    const { cluster, ctx } = this.opened()
    if (!this.producer.hasIdentity) await this.acquireIdentity(cluster, ctx)
    const now = ctx.clock.monotonic()
    const stale = names.filter((name) => {
      const known = this.topics.get(name)
      return (
        known === undefined ||
        now - known.at > (typeof known.facts === 'string' ? MISSING_TOPIC_MS : this.target.options.metadataEvery)
      )
    })
    if (stale.length > 0) await this.refreshTopics(stale, signal)
  }

  private encode(id: string, payload: EncodedWrite['payload']): EncodedWrite {
    const now = Math.floor(this.opened().ctx.clock.now())
    const encoded = this.encoder.encode(
      payload,
      (topic) => this.topics.get(topic)?.facts ?? `nothing is known of topic ${topic}`,
      now,
      (batch) => {
        this.producer.add(batch)
      },
    )
    this.writes.set(id, encoded)
    return encoded
  }

  private async seal({ batches }: EncodedWrite): Promise<void> {
    await Promise.all(batches.map((batch) => this.encoder.seal(batch)))
  }

  /** One batch of each partition a round. @param sent called when the last round of those known at first has left */
  private async send(encoded: EncodedWrite, sent: () => void, signal: AbortSignal): Promise<void> {
    for (;;) {
      const rounds = roundsOf(encoded.batches.filter(({ confirmed }) => !confirmed))
      if (rounds.length === 0) return
      await this.seal(encoded)
      const answers: Promise<void>[] = []
      let blocked = false
      for (const round of rounds) {
        blocked = !(await this.maySend(round))
        if (blocked) break
        const releaseSlot = await this.requestSlots.acquire()
        // Requests in flight are awaited first. This fault is thrown rather than theirs: it came first.
        try {
          answers.push(this.produce(encoded, round, signal).finally(releaseSlot))
        } catch (error) {
          releaseSlot()
          await Promise.allSettled(answers)
          throw error
        }
      }
      if (!blocked) sent()
      const faults = (await Promise.allSettled(answers)).flatMap((each) =>
        each.status === 'rejected' ? [each.reason as Error] : [],
      )
      // Which of several matters: what waiting does not mend, else what lost the connection, before mere consequences.
      const worst =
        faults.find((each) => !(each instanceof Throttled || each instanceof Disconnected)) ??
        faults.find((each) => each instanceof Disconnected) ??
        faults[0]
      if (worst !== undefined) throw worst
      if (blocked && answers.length === 0) throw new Throttled('an earlier write has to go first', { afterMs: 1 })
    }
  }

  /** Waits for the first batch of a partition to be confirmed before others follow it. */
  private async maySend(round: readonly ProducerBatch[]): Promise<boolean> {
    const { clock } = this.opened().ctx
    for (const batch of round) {
      if (!this.producer.maySend(batch, clock.monotonic())) await this.producer.oldestUnconfirmed(batch)?.answered
      if (!this.producer.maySend(batch, clock.monotonic())) return false
    }
    return true
  }

  /** Its requests are under way when it returns; resolves once all answers have been dealt with. */
  private produce(encoded: EncodedWrite, round: readonly ProducerBatch[], signal: AbortSignal): Promise<void> {
    const { cluster } = this.opened()
    const { requestTimeout } = this.target.options
    if (!this.producer.hasIdentity) throw new Throttled('the producer is being replaced', { afterMs: 1 })
    const requests: Promise<void>[] = []
    for (const [leader, batches] of Map.groupBy(round, (batch) => this.leaderOf(batch))) {
      for (const batch of batches) this.producer.stamp(batch)
      const answered = cluster.produce(
        leader,
        batches.map(({ topic, partition, bytes }) => ({ topic, partition, batch: bytes ?? [] })),
        requestTimeout,
        signal,
      )
      const settled = answered.then(
        (answers) => {
          this.handleResults(encoded, batches, answers)
        },
        (error: unknown) => {
          for (const batch of batches) batch.inDoubt = true
          throw error
        },
      )
      // Told to whoever awaits `asked`; who waits for its turn only waits for its end.
      for (const batch of batches) batch.answered = settled.catch(() => undefined)
      requests.push(settled)
    }
    return Promise.allSettled(requests).then((all) => {
      for (const each of all) if (each.status === 'rejected') throw each.reason
    })
  }

  /** Throws the first fault, after every batch's answer was looked at. */
  private handleResults(
    encoded: EncodedWrite,
    batches: readonly ProducerBatch[],
    answers: readonly ProduceResult[],
  ): void {
    const faults: unknown[] = []
    for (const batch of batches) {
      const answer = answers.find(({ topic, partition }) => topic === batch.topic && partition === batch.partition)
      if (answer === undefined) {
        batch.inDoubt = true
        faults.push(
          new Disconnected(`the broker did not say what became of a batch for ${batch.topic}-${batch.partition}`),
        )
        continue
      }
      if (answer.error === NONE || answer.error === DUPLICATE_SEQUENCE_NUMBER) {
        this.producer.confirm(batch, this.opened().ctx.clock.monotonic())
        this.encoder.releaseBuffer(batch)
      } else {
        const fault = this.handleRefusal(encoded, batch, answer)
        if (fault !== undefined) faults.push(fault)
      }
    }
    if (faults.length > 0) throw faults[0]
  }

  /**
   * undefined: the records that are to blame are rejected, and what is left of the batch goes in its place; or it has
   * to wait for such a one.
   */
  private handleRefusal(
    encoded: EncodedWrite,
    batch: ProducerBatch,
    { error, message, recordErrors }: ProduceResult,
  ): ManifoldError | undefined {
    const { log } = this.opened().ctx
    const where = `${batch.topic}-${batch.partition}`
    const serverMessage = `${nameOfCode(error)}${message === undefined ? '' : `: ${message}`}`
    if (TOO_LARGE_CODES.has(error) || INVALID_RECORD_CODES.has(error)) {
      const count = countOf(batch.indexes)
      const named = new Map(
        recordErrors.filter(({ index }) => index >= 0 && index < count).map((each) => [each.index, each.message]),
      )
      const blamed =
        INVALID_RECORD_CODES.has(error) && named.size > 0 ? new Set(named.keys()) : new Set(count === 1 ? [0] : [])
      if (TOO_LARGE_CODES.has(error) && count > 1)
        this.encoder.reduceBatchSize(
          batch.topic,
          (batch.bytes ?? []).reduce((sum, { length }) => sum + length, 0),
        )
      const indexes = listOf(batch.indexes)
      this.reject(
        encoded,
        [...blamed].map((at) => ({
          index: indexes[at] ?? 0,
          why: `${batch.topic}: ${named.get(at) ?? serverMessage}`,
        })),
      )
      const others = this.encoder.reencode(encoded, batch, blamed)
      this.producer.replace(batch, others)
      encoded.batches.splice(encoded.batches.indexOf(batch), 1, ...others)
      return undefined
    }
    if (this.routing.topic === undefined && TOPIC_UNUSABLE_CODES.has(error)) {
      this.reject(
        encoded,
        listOf(batch.indexes).map((index) => ({ index, why: `topic ${batch.topic}: ${serverMessage}` })),
      )
      this.producer.replace(batch, [])
      this.topics.delete(batch.topic)
      return undefined
    }
    if (error === OUT_OF_ORDER_SEQUENCE_NUMBER && !batch.wasOldest) {
      // Behind a batch of the same write that was refused: it goes again after what takes that one's place.
      const oldest = this.producer.oldestUnconfirmed(batch)
      return oldest !== undefined && encoded.batches.includes(oldest)
        ? undefined
        : new Throttled(`${where}: an earlier batch has to go first`, { afterMs: 1 })
    }
    if (PRODUCER_LOST_CODES.has(error) || error === OUT_OF_ORDER_SEQUENCE_NUMBER) {
      this.producer.clearIdentity()
      log.warn(
        `${where}: the broker does not know this producer any more (${serverMessage}): it goes on as a new one; what was under way may be there twice`,
      )
      return new Throttled(`${where}: ${serverMessage}`, { afterMs: 1 })
    }
    // Some faults come after it was appended: the followers are behind, or the leader is one no more.
    batch.inDoubt = true
    return protocolFault(error, `writing to ${where}`, batch.topic, 'WRITE', message)
  }

  private reject(encoded: EncodedWrite, refusals: readonly Refusal[]): void {
    encoded.rejected.push(...refusals)
  }

  private async acquireIdentity(cluster: Cluster, { signal, log }: EndpointContext): Promise<void> {
    this.producer.setIdentity(await cluster.producerIdentity(signal))
    // As a new one it is not recognised by what it has sent as another.
    for (const encoded of this.writes.values())
      encoded.doubtful += countAll(encoded.batches.filter(({ confirmed, inDoubt: lost }) => !confirmed && lost))
    log.debug(`producer id ${this.producer.id}`)
  }

  /** Throws where the topic of the options is not there, or not to be written to. */
  private async refreshTopics(names: readonly string[], signal: AbortSignal): Promise<void> {
    const { cluster, ctx } = this.opened()
    const at = ctx.clock.monotonic()
    for (const metadata of (await cluster.metadata(names, signal)).topics) {
      if (metadata.error === LEADER_NOT_AVAILABLE) throw new Disconnected(`topic ${metadata.name} is being made`)
      if (metadata.error === NONE && metadata.partitions.length > 0)
        this.topics.set(metadata.name, { facts: metadata, at })
      else if (this.routing.topic !== undefined || !TOPIC_UNUSABLE_CODES.has(metadata.error))
        throw protocolFault(metadata.error, `writing to topic ${metadata.name}`, metadata.name, 'WRITE')
      else
        this.topics.set(metadata.name, {
          facts: `topic ${metadata.name}: ${metadata.error === TOPIC_AUTHORIZATION_FAILED ? 'no permission' : 'there is no such topic'}`,
          at,
        })
    }
  }

  private leaderOf({ topic, partition }: ProducerBatch): number {
    const metadata = this.topics.get(topic)?.facts
    const leader =
      typeof metadata === 'object'
        ? (metadata.partitions.find((each) => each.partition === partition)?.leader ?? -1)
        : -1
    if (leader < 0) throw new Disconnected(`${topic}-${partition} has no leader at the moment`)
    return leader
  }

  private opened(): { readonly cluster: Cluster; readonly ctx: EndpointContext } {
    const { cluster, ctx } = this
    if (cluster === undefined || ctx === undefined) throw new Disconnected('not connected')
    return { cluster, ctx }
  }
}

function countAll(batches: readonly ProducerBatch[]): number {
  return batches.reduce((sum, { indexes }) => sum + countOf(indexes), 0)
}

/** The first batches of all partitions, then the second ones. */
function roundsOf(batches: readonly ProducerBatch[]): readonly (readonly ProducerBatch[])[] {
  const rounds: ProducerBatch[][] = []
  const seen = new Map<string, number>()
  for (const batch of batches) {
    const key = `${batch.topic} ${batch.partition}`
    const depth = seen.get(key) ?? 0
    seen.set(key, depth + 1)
    const round = rounds[depth]
    if (round === undefined) rounds.push([batch])
    else round.push(batch)
  }
  return rounds
}

/** The URI's path without its slash. */
export function topicIn(path: string): string {
  return path.replace(/^\//, '')
}
