/**
 * Writes each record as a message, in order. A record is delivered when the broker has confirmed its message and has
 * not returned it.
 *
 * - The message-id is that of the incoming message, or else the record's id, which is the same on a retry.
 * - A record that a message cannot hold, or that the broker never accepts, is rejected. A message that is refused for
 *   now (nack) is retried. So is one that is returned because a queue of declare= was deleted.
 * - While the broker blocks publishers, nothing is confirmed. That is backpressure and no stall.
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
import { Disconnected } from '../../core/errors'
import { linkedAbort, unlessAborted } from '../../kit/signal'
import { formatSize } from '../../kit/sizes'
import type { CreateSink, Target } from '../../options/define'
import { connect, type Connection } from './client'
import { Confirms, type PublishedMessage } from './confirms'
import { MessageTooLarge } from './errors'
import { carriedKey, keyOf, type KeyOf } from './routing-key'
import { messageId } from './message-id'
import { MAX_MESSAGE, type AmqpOptions } from './options'
import { propertiesOf, type FixedProperties } from './properties'
import { headerBytes, type Publication } from './publishing'
import { isInsecure, settingsOf } from './settings'
import { prepareExchange, prepareQueue } from './topology'

const MIB = 1024 * 1024
const EMPTY_BYTES = Buffer.alloc(0)
/** A nack means that a queue could not take the message, mostly because it is full. */
const NACK_PAUSE_MS = 500
/** If nothing is confirmed for this long while messages wait for it, the sink checks that the queue exists. */
const QUEUE_CHECK_MS = 5000
/** The broker has this long to answer that check. */
const QUEUE_CHECK_TIMEOUT_MS = 10_000
/** Progress is reported to the core this often. */
const REPORT_MS = 250

export const create: CreateSink<AmqpOptions> = (target) => new AmqpSink(target)

class AmqpSink implements Sink {
  readonly limits: Limits
  readonly wants = 'entries'
  private readonly keyOf: KeyOf
  private readonly exchange: Buffer
  private confirms = new Confirms()
  private connection: Connection | undefined
  private lifetime: ReturnType<typeof linkedAbort> | undefined
  private ctx: EndpointContext | undefined
  /** The options as they were at the last open. */
  private options: Target<AmqpOptions>['options']
  private fixed: FixedProperties = { persistent: 'true' }
  private hostIndex = 0
  /** The broker accepts no larger body. */
  private maxBodyBytes = MAX_MESSAGE
  private nacks = 0
  private reportedAt = 0
  private confirmations = 0
  private queueCheck: { stop(): void } | undefined
  private blocked: { readonly since: number; readonly why: string; readonly ticker: { stop(): void } } | undefined

  constructor(private readonly target: Target<AmqpOptions>) {
    this.options = target.options
    const { queue, exchange = '', key, inFlight } = target.options
    this.limits = {
      maxEntries: 2048,
      maxBytes: MIB,
      maxEntryBytes: MAX_MESSAGE + MIB,
      inFlight,
      ordered: true,
      unit: 'batch',
      confirms: 'each',
    }
    this.exchange = Buffer.from(exchange)
    // The name of a queue may contain braces.
    const named = queue === undefined ? undefined : Buffer.from(queue)
    this.keyOf = named === undefined ? keyOf(key ?? '{key}') : () => named
  }

  async open(ctx: EndpointContext): Promise<void> {
    this.ctx = ctx
    const { signal } = (this.lifetime = linkedAbort(ctx.signal)).controller
    if (isInsecure(this.target.options) && this.target.uri.scheme === 'amqps')
      ctx.log.warn(
        "tls-insecure: the server's certificate is not checked; whoever sits between can read and change everything",
      )
    const given = await this.target.resolve()
    const { options } = given
    this.options = options
    const settings = await settingsOf(given, 'sink')
    const { persistent, contentType, expiration, priority } = options
    this.fixed = {
      persistent,
      ...(contentType === undefined ? {} : { contentType }),
      ...(expiration === undefined ? {} : { expiration: Math.round(expiration) }),
      ...(priority === undefined ? {} : { priority }),
      ...(settings.login === undefined ? {} : { user: settings.login.user }),
    }
    const confirms = (this.confirms = new Confirms())
    const { connection, host } = await connect(
      settings,
      this.hostIndex,
      {
        activity:
          options.queue === undefined
            ? `publishing to exchange '${options.exchange ?? ''}'`
            : `publishing to queue '${options.queue}'`,
        confirmed: (tag, multiple, acked) => {
          confirms.confirmed(tag, multiple, acked)
          this.confirmations++
          this.reportProgress(ctx)
        },
        returned: ({ content, properties, fields }) => {
          const { replyText = 'returned' } = fields as { readonly replyText?: string }
          if (
            !confirms.returned(
              content,
              properties.messageId as string | undefined,
              `the broker returned it: ${replyText} (exchange '${fields.exchange}', key '${fields.routingKey}')`,
            )
          )
            ctx.log.warn('the broker returned a message that is not known here')
        },
        blocked: (reason) => {
          this.block(reason, ctx)
        },
      },
      ctx.clock,
      ctx.log,
      signal,
    )
    this.connection = connection
    this.hostIndex = host
    void connection.ended.then((fault) => {
      confirms.end(fault)
    })
    await connection.call(async (channel) => {
      await prepareExchange(channel, options.exchange ?? '', options.exchangeType)
      if (options.queue !== undefined) await prepareQueue(channel, options.queue, options)
    })
    signal.throwIfAborted()
    if (options.queue !== undefined) this.startQueueCheck(options.queue, connection, ctx)
  }

  /**
   * Checks that the queue exists while nothing is confirmed. RabbitMQ 3.10 never confirms messages to a quorum queue
   * that was deleted meanwhile, and its flow control may block for ever. A missing queue ends the connection, and so
   * does a missing answer.
   */
  private startQueueCheck(queue: string, connection: Connection, ctx: EndpointContext): void {
    const { confirms } = this
    let confirmationsBefore = this.confirmations
    let askedAt: number | undefined
    this.queueCheck = ctx.clock.every(QUEUE_CHECK_MS, () => {
      const silent =
        confirmationsBefore === this.confirmations && confirms.unconfirmed > 0 && this.blocked === undefined
      confirmationsBefore = this.confirmations
      if (!silent) askedAt = undefined
      else if (askedAt === undefined) {
        askedAt = ctx.clock.monotonic()
        // A refusal has ended the connection, which reports it.
        connection
          .call((channel) => channel.checkQueue(queue))
          .then(
            () => {
              askedAt = undefined
            },
            () => undefined,
          )
      } else if (ctx.clock.monotonic() - askedAt >= QUEUE_CHECK_TIMEOUT_MS)
        confirms.end(
          new Disconnected(
            `the broker has confirmed nothing for ${Math.round((ctx.clock.monotonic() - askedAt + QUEUE_CHECK_MS) / 1000)} s, and does not say whether there is a queue '${queue}'`,
          ),
        )
    })
  }

  async write(write: Write, signal: AbortSignal): Promise<Outcome> {
    const { connection, confirms } = this
    if (connection === undefined) throw new Disconnected('not connected')
    const rejected: Refusal[] = []
    const publications: Publication[] = []
    const sent: PublishedMessage[] = []
    const indexes: number[] = []
    this.prepare(
      write,
      connection.frameMax,
      (index, publication, id) => {
        publications.push(publication)
        sent.push({ body: publication.body, id })
        indexes.push(index)
      },
      rejected,
    )
    if (publications.length === 0) return { retry: [], rejected }
    try {
      // Nothing is awaited before this, so concurrent writes are sent in the order of their calls.
      connection.publish(publications)
      const { nacked, returned } = await unlessAborted(confirms.waitFor(sent), signal)
      if (nacked.length > 0) this.ctx?.gauge('nacks', (this.nacks += nacked.length))
      const retry = nacked.map((index) => ({
        index: indexes[index] ?? 0,
        why: 'the broker refused it for now (nack): its queue is full, or not available',
        afterMs: NACK_PAUSE_MS,
      }))
      const { queue, declare } = this.options
      // All unconfirmed messages are sent again over another connection, because some may never be confirmed (see
      // `startQueueCheck`).
      if (returned.length > 0 && queue !== undefined && declare !== 'false')
        throw new Disconnected(`queue '${queue}' was deleted; it is declared again`)
      for (const { index, why } of returned) rejected.push({ index: indexes[index] ?? 0, why })
      // If an exchange has several queues, one may have refused a message that others have taken. The default exchange
      // has one queue for a key.
      return retry.length === 0 && rejected.length === 0
        ? CONFIRMED
        : { retry, rejected, ...(retry.length === 0 || this.exchange.length === 0 ? {} : { doubtful: retry.length }) }
    } catch (error) {
      if (error instanceof MessageTooLarge) this.maxBodyBytes = Math.min(this.maxBodyBytes, error.limit)
      throw error
    }
  }

  async close(): Promise<void> {
    const { connection, lifetime } = this
    this.connection = this.lifetime = undefined
    this.queueCheck?.stop()
    this.unblock()
    lifetime?.controller.abort(new Disconnected('closed here'))
    lifetime?.dispose()
    await connection?.close()
  }

  private prepare(
    write: Write,
    frameMax: number,
    onPublication: (index: number, publication: Publication, id: string | undefined) => void,
    rejected: Refusal[],
  ): void {
    if ('kind' in write.payload) throw new Error('a queue takes batches')
    const { exchange, fixed, maxBodyBytes } = this
    const { mandatory } = this.target.options
    write.payload.entries().forEach((entry, index) => {
      try {
        const body = entry.value ?? EMPTY_BYTES
        if (body.length > maxBodyBytes)
          throw new RangeError(
            `${formatSize(body.length)} are more than the ${formatSize(maxBodyBytes)} that the broker takes`,
          )
        const id = messageId(entry, () => write.origin(index))
        const routingKey = this.keyOf(entry)
        const properties = propertiesOf(entry, fixed, id, carriedKey(entry, exchange, routingKey))
        if (headerBytes(properties) > frameMax)
          throw new RangeError(`its headers are larger than the ${formatSize(frameMax)} of a frame`)
        onPublication(index, { exchange, routingKey, mandatory, properties, body }, id)
      } catch (error) {
        if (!(error instanceof RangeError)) throw error
        rejected.push({ index, why: error.message })
      }
    })
  }

  /** Reports progress, so that the core does not mistake a slow broker for a stall. */
  private reportProgress(ctx: EndpointContext): void {
    const now = ctx.clock.monotonic()
    if (now - this.reportedAt < REPORT_MS) return
    this.reportedAt = now
    ctx.gauge('unconfirmed', this.confirms.unconfirmed)
  }

  private block(reason: string | undefined, ctx: EndpointContext): void {
    const { blocked } = this
    this.unblock()
    if (reason === undefined) {
      if (blocked !== undefined)
        ctx.log.info(
          `${this.target.label}: the broker takes messages again after ${Math.round((ctx.clock.monotonic() - blocked.since) / 1000)} s`,
        )
      return
    }
    ctx.log.warn(`${this.target.label}: the broker blocks publishers for now: ${reason}`)
    const since = ctx.clock.monotonic()
    const why = `blocked: ${reason}`
    // The gauges show seconds, and tell the core that this is no stall.
    const report = (): void => {
      for (const name of ['blocked', why])
        ctx.gauge(name, Math.max(1, Math.round((ctx.clock.monotonic() - since) / 1000)))
    }
    report()
    this.blocked = { since, why, ticker: ctx.clock.every(1000, report) }
  }

  private unblock(): void {
    if (this.blocked === undefined) return
    this.blocked.ticker.stop()
    for (const name of ['blocked', this.blocked.why]) this.ctx?.gauge(name, 0)
    this.blocked = undefined
  }
}
