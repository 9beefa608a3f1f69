/**
 * Reads a queue. The broker keeps messages until they are acknowledged on the channel that delivered them. So the
 * position is the delivery tag, and the epoch counts channels.
 *
 * - Messages of an old channel are neither returned nor acknowledged, because the broker has requeued them.
 * - Messages that are unread at the end are requeued.
 */
import { within } from '../../core/batch'
import type { Delivery, Partition, Position, Source, SourceContext } from '../../core/contract'
import { Disconnected, Refused, type ManifoldError } from '../../core/errors'
import { linkedAbort, unlessAborted, Notifier } from '../../kit/signal'
import type { Target } from '../../options/define'
import { connect, type Connection } from './client'
import type { Message } from './deliveries'
import { DeliveryBuffer, MessageBatch, queueReading, type QueueReading } from './delivery-buffer'
import type { AmqpOptions } from './options'
import { Prefetch } from './prefetch'
import { streamOffset } from './properties'
import { isInsecure, settingsOf } from './settings'
import { isSingleActive, prepareQueue } from './topology'

/** With an end to wait for, the source checks this often whether other consumers have emptied the queue. */
const QUIET_CHECK_MS = 500

export class QueueSource implements Source {
  private readonly notifier = new Notifier()
  private readonly buffer = new DeliveryBuffer()
  private readonly queue: string
  private readonly reading: QueueReading
  private readonly prefetch: Prefetch
  private ctx: SourceContext | undefined
  private connection: Connection | undefined
  private lifetime: ReturnType<typeof linkedAbort> | undefined
  private fault: ManifoldError | undefined
  private partition: Partition
  private hostIndex = 0
  private consumerTag = ''
  private prefetchCount = 0
  /** The newest tag of this channel, and the newest when the consumer began. */
  private newestTag = 0
  private consumerStartTag = 0
  /** The last tags of earlier consumers of this channel, until they are acknowledged. */
  private endedConsumerTags: number[] = []
  private isAdjusting = false
  private redelivered = 0
  /** The last tags of this channel that were returned by `read` and acknowledged. */
  private deliveredTag = 0
  private acknowledgedTag = 0
  /** This many messages are left until `--until end` stops. */
  private remaining = Infinity
  private messageCount = 0
  /** Nothing has arrived since the last check, while an end is waited for. */
  private quietTimer: { stop(): void } | undefined
  private lastCheckedTag = 0
  private isQuiet = false

  constructor(private readonly target: Target<AmqpOptions>) {
    const { queue = '', prefetch, prefetchBytes, exclusive } = target.options
    this.queue = queue
    this.reading = queueReading(queue)
    this.prefetch = new Prefetch(prefetch, prefetchBytes, exclusive || isSingleActive(target.options))
    this.partition = { name: queue, epoch: 0 }
  }

  async open(ctx: SourceContext): Promise<void> {
    this.ctx = ctx
    const { signal } = (this.lifetime = linkedAbort(ctx.signal)).controller
    if (isInsecure(this.target.options) && this.target.uri.scheme === 'amqps')
      ctx.log.warn(
        "tls-insecure: the server's certificate is not checked; whoever sits between can read and change everything",
      )
    const given = await this.target.resolve()
    const settings = await settingsOf(given, 'source')
    this.buffer.clear()
    this.fault = undefined
    // Messages that were returned and not acknowledged come again.
    this.remaining += this.deliveredTag - this.acknowledgedTag
    this.deliveredTag = this.acknowledgedTag = this.newestTag = this.consumerStartTag = this.lastCheckedTag = 0
    this.isQuiet = false
    this.endedConsumerTags = []
    this.partition = { name: this.queue, epoch: this.partition.epoch + 1 }
    const { connection, host } = await connect(
      settings,
      this.hostIndex,
      {
        activity: `reading queue '${this.queue}'`,
        message: (message) => {
          this.onMessage(message)
        },
        cancelled: () => {
          this.fail(
            new Disconnected(
              `the broker ended the consumer of queue '${this.queue}': the queue was deleted, or its node went away`,
            ),
          )
        },
      },
      ctx.clock,
      ctx.log,
      signal,
    )
    this.connection = connection
    this.hostIndex = host
    void connection.ended.then((fault) => {
      if (this.connection === connection) this.fail(fault)
    })
    this.messageCount = await connection.call((channel) => prepareQueue(channel, this.queue, given.options))
    await this.consume(connection, this.prefetch.initial)
    signal.throwIfAborted()
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    const clock = this.ctx?.clock
    if (clock === undefined) throw new Disconnected('not connected')
    for (;;) {
      signal.throwIfAborted()
      if (this.fault !== undefined) throw this.fault
      if (this.remaining <= 0) return null
      if (await this.buffer.linger(clock, signal)) continue
      const messages = this.buffer.take(this.remaining, clock.monotonic())
      if (messages.length > 0) {
        await this.refuseStream(messages)
        return this.delivery(messages)
      }
      if (this.isQuiet && (await unlessAborted(this.isEmptied(), signal))) return null
      await unlessAborted(this.notifier.wait(), signal)
    }
  }

  async commit(partition: Partition, upTo: Position): Promise<void> {
    const tag = Number(upTo)
    if (partition.epoch !== this.partition.epoch || tag <= this.acknowledgedTag) return
    if (this.connection === undefined) throw new Disconnected('not connected')
    this.connection.acknowledgeUpTo(tag)
    this.acknowledgedTag = tag
    while ((this.endedConsumerTags[0] ?? Infinity) <= tag) this.endedConsumerTags.shift()
  }

  ends(): Promise<ReadonlyMap<string, Position | null>> {
    if (this.remaining === Infinity) this.remaining = this.messageCount
    this.quietTimer ??= this.ctx?.clock.every(QUIET_CHECK_MS, () => {
      this.checkQuiet()
    })
    return Promise.resolve(new Map([[this.queue, this.remaining === 0 ? null : String(this.remaining)]]))
  }

  async close(): Promise<void> {
    const { connection, lifetime } = this
    this.quietTimer?.stop()
    this.connection = this.lifetime = this.quietTimer = undefined
    lifetime?.controller.abort(new Disconnected('closed here'))
    lifetime?.dispose()
    if (connection !== undefined) {
      // If the connection ends meanwhile, the broker requeues everything by itself.
      await connection.cancelAndRequeue(this.consumerTag, this.endedConsumerTags).catch(() => undefined)
      await connection.close()
    }
    this.buffer.clear()
  }

  private async consume(connection: Connection, ahead: number): Promise<void> {
    const { consumer, exclusive, consumerPriority } = this.target.options
    this.consumerStartTag = this.newestTag
    if (this.newestTag > Math.max(this.acknowledgedTag, this.endedConsumerTags.at(-1) ?? 0))
      this.endedConsumerTags.push(this.newestTag)
    await connection.call((channel) => channel.prefetch(ahead))
    this.consumerTag = await connection.consume(this.queue, {
      exclusive,
      ...(consumer === undefined ? {} : { consumerTag: consumer }),
      ...(consumerPriority === undefined ? {} : { priority: consumerPriority }),
    })
    this.prefetchCount = ahead
    this.ctx?.gauge('prefetch', ahead)
  }

  private onMessage(message: Message): void {
    this.buffer.push(message)
    this.newestTag = message.tag
    this.prefetch.observe(message.bytes)
    if (message.redelivered) this.redelivered++
    // Sizes may jump, because the count was computed from the mean of earlier messages.
    if (this.buffer.bytes > 2 * this.target.options.prefetchBytes) this.connection?.pauseReading(true)
    this.notifier.notify()
  }

  private delivery(messages: readonly Message[]): Delivery {
    const { ctx, connection } = this
    if (this.buffer.bytes < this.target.options.prefetchBytes) connection?.pauseReading(false)
    const better = this.prefetch.adjusted(
      this.prefetchCount,
      this.newestTag - Math.max(this.consumerStartTag, this.acknowledgedTag),
      this.newestTag - this.acknowledgedTag,
    )
    if (better !== undefined && connection !== undefined && !this.isAdjusting)
      void this.adjustPrefetch(connection, better)
    if (this.redelivered > 0) ctx?.gauge('redelivered', this.redelivered)
    const first = messages[0]?.tag ?? 0
    this.deliveredTag = messages.at(-1)?.tag ?? 0
    this.remaining -= messages.length
    // Tags of a channel increase by one, and a channel has one consumer at a time.
    return {
      batch: new MessageBatch(messages, this.reading),
      partition: this.partition,
      last: String(this.deliveredTag),
      at: within(messages.length, (index) => String(first + index)),
    }
  }

  /**
   * Refuses a stream, because as a queue it would begin at the next published message each time. The header alone
   * proves nothing, because it may have been copied.
   */
  private async refuseStream([first]: readonly Message[]): Promise<void> {
    if (
      this.deliveredTag > 0 ||
      first === undefined ||
      this.connection === undefined ||
      streamOffset(first.properties) === undefined ||
      !(await this.connection.isStream(this.queue))
    )
      return
    throw new Refused(`${this.queue} is a stream, whose position is kept here: add the word stream`)
  }

  private async adjustPrefetch(connection: Connection, ahead: number): Promise<void> {
    this.isAdjusting = true
    try {
      await connection.call((channel) => channel.cancel(this.consumerTag))
      await this.consume(connection, ahead)
    } catch (error) {
      if (this.connection === connection) this.fail(error as ManifoldError)
    } finally {
      this.isAdjusting = false
    }
  }

  private checkQuiet(): void {
    this.isQuiet = this.newestTag === this.lastCheckedTag
    this.lastCheckedTag = this.newestTag
    if (this.isQuiet) this.notifier.notify()
  }

  /**
   * Tells whether other consumers have emptied the queue. The broker may count a queue as empty while messages for us
   * are on their way. They arrive before its next answer, so it is asked twice.
   */
  private async isEmptied(): Promise<boolean> {
    const { connection, newestTag } = this
    if (connection === undefined) throw new Disconnected('not connected')
    this.isQuiet = false
    for (let asked = 0; asked < 2; asked++) {
      const { messageCount } = await connection.call((channel) => channel.checkQueue(this.queue))
      if (messageCount > 0 || this.newestTag !== newestTag) return false
    }
    return this.fault === undefined
  }

  private fail(fault: ManifoldError): void {
    this.fault ??= fault
    // The broker has requeued the buffered messages.
    this.buffer.clear()
    this.notifier.notify()
  }
}
