/**
 * A queue. What was read lies with the broker until it is acknowledged, on the channel that brought it: the position is
 * the delivery tag, the epoch counts channels.
 *
 * - Nothing of an old channel is handed on or acknowledged: the broker has taken it back and sends it again.
 * - What waits here unread at the end goes back to the queue.
 */
import { within } from '../../core/batch'
import type { Delivery, Partition, Position, Source, SourceContext } from '../../core/contract'
import { Disconnected, Refused, type ManifoldError } from '../../core/errors'
import { linkedAbort, unlessAborted, Wake } from '../../kit/signal'
import type { Target } from '../../options/define'
import { connect, type Link } from './client'
import type { Message } from './deliveries'
import { Inbox, MessageBatch } from './inbox'
import type { AmqpOptions } from './options'
import { Prefetch } from './prefetch'
import { streamOffset } from './properties'
import { isInsecure, settingsOf } from './settings'
import { isSingleActive, prepareQueue } from './topology'

/** How often a queue whose end is waited for is asked whether others have emptied it. */
const LOOK_MS = 500

export class QueueSource implements Source {
  private readonly wake = new Wake()
  private readonly inbox = new Inbox()
  private readonly queue: string
  private readonly prefetch: Prefetch
  private ctx: SourceContext | undefined
  private link: Link | undefined
  private life: ReturnType<typeof linkedAbort> | undefined
  private fault: ManifoldError | undefined
  private partition: Partition
  private host = 0
  private consumer = ''
  private ahead = 0
  /** Tags of this channel: the newest that came, and the newest when the consumer began. */
  private newest = 0
  private began = 0
  /** The newest tags of earlier consumers of this channel, as long as they are not acknowledged. */
  private ended: number[] = []
  private steering = false
  private redelivered = 0
  /** Tags of this channel: handed on, and acknowledged. */
  private handed = 0
  private acknowledged = 0
  /** Messages up to where `--until end` stops. */
  private left = Infinity
  private waiting = 0
  /** With an end to wait for: nothing has come from one look to the next. */
  private looks: { stop(): void } | undefined
  private seen = 0
  private quiet = false

  constructor(private readonly target: Target<AmqpOptions>) {
    const { queue = '', prefetch, prefetchBytes, exclusive } = target.options
    this.queue = queue
    this.prefetch = new Prefetch(prefetch, prefetchBytes, exclusive || isSingleActive(target.options))
    this.partition = { name: queue, epoch: 0 }
  }

  async open(ctx: SourceContext): Promise<void> {
    this.ctx = ctx
    const { signal } = (this.life = linkedAbort(ctx.signal)).controller
    if (isInsecure(this.target.options) && this.target.uri.scheme === 'amqps')
      ctx.log.warn(
        "tls-insecure: the server's certificate is not checked; whoever sits between can read and change everything",
      )
    const given = await this.target.resolve()
    const settings = await settingsOf(given, 'source')
    this.inbox.clear()
    this.fault = undefined
    // What was handed on and not acknowledged comes again.
    this.left += this.handed - this.acknowledged
    this.handed = this.acknowledged = this.newest = this.began = this.seen = 0
    this.quiet = false
    this.ended = []
    this.partition = { name: this.queue, epoch: this.partition.epoch + 1 }
    const { link, host } = await connect(
      settings,
      this.host,
      {
        doing: `reading queue '${this.queue}'`,
        message: (message) => {
          this.arrived(message)
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
    this.link = link
    this.host = host
    void link.ended.then((fault) => {
      if (this.link === link) this.fail(fault)
    })
    this.waiting = await link.ask((channel) => prepareQueue(channel, this.queue, given.options))
    await this.consume(link, this.prefetch.first)
    signal.throwIfAborted()
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    const clock = this.ctx?.clock
    if (clock === undefined) throw new Disconnected('not connected')
    for (;;) {
      signal.throwIfAborted()
      if (this.fault !== undefined) throw this.fault
      if (this.left <= 0) return null
      if (await this.inbox.gather(clock, signal)) continue
      const messages = this.inbox.take(this.left, clock.monotonic())
      if (messages.length > 0) {
        await this.notAStream(messages)
        return this.delivery(messages)
      }
      if (this.quiet && (await unlessAborted(this.emptied(), signal))) return null
      await unlessAborted(this.wake.wait(), signal)
    }
  }

  async commit(partition: Partition, upTo: Position): Promise<void> {
    const tag = Number(upTo)
    if (partition.epoch !== this.partition.epoch || tag <= this.acknowledged) return
    if (this.link === undefined) throw new Disconnected('not connected')
    this.link.acknowledge(tag)
    this.acknowledged = tag
    while ((this.ended[0] ?? Infinity) <= tag) this.ended.shift()
  }

  ends(): Promise<ReadonlyMap<string, Position | null>> {
    if (this.left === Infinity) this.left = this.waiting
    this.looks ??= this.ctx?.clock.every(LOOK_MS, () => {
      this.look()
    })
    return Promise.resolve(new Map([[this.queue, this.left === 0 ? null : String(this.left)]]))
  }

  async close(): Promise<void> {
    const { link, life } = this
    this.looks?.stop()
    this.link = this.life = this.looks = undefined
    life?.controller.abort(new Disconnected('closed here'))
    life?.dispose()
    if (link !== undefined) {
      // A link that ends meanwhile gives everything back by itself.
      await link.giveBack(this.consumer, this.ended).catch(() => undefined)
      await link.close()
    }
    this.inbox.clear()
  }

  private async consume(link: Link, ahead: number): Promise<void> {
    const { consumer, exclusive, consumerPriority } = this.target.options
    this.began = this.newest
    if (this.newest > Math.max(this.acknowledged, this.ended.at(-1) ?? 0)) this.ended.push(this.newest)
    await link.ask((channel) => channel.prefetch(ahead))
    this.consumer = await link.consume(this.queue, {
      exclusive,
      ...(consumer === undefined ? {} : { consumerTag: consumer }),
      ...(consumerPriority === undefined ? {} : { priority: consumerPriority }),
    })
    this.ahead = ahead
    this.ctx?.gauge('prefetch', ahead)
  }

  private arrived(message: Message): void {
    this.inbox.push(message)
    this.newest = message.tag
    this.prefetch.saw(message.bytes)
    if (message.redelivered) this.redelivered++
    // Sizes that jump: what is under way was counted by the mean of earlier ones.
    if (this.inbox.bytes > 2 * this.target.options.prefetchBytes) this.link?.hold(true)
    this.wake.wake()
  }

  private delivery(messages: readonly Message[]): Delivery {
    const { ctx, link } = this
    if (this.inbox.bytes < this.target.options.prefetchBytes) link?.hold(false)
    const better = this.prefetch.better(
      this.ahead,
      this.newest - Math.max(this.began, this.acknowledged),
      this.newest - this.acknowledged,
    )
    if (better !== undefined && link !== undefined && !this.steering) void this.steer(link, better)
    if (this.redelivered > 0) ctx?.gauge('redelivered', this.redelivered)
    const first = messages[0]?.tag ?? 0
    this.handed = messages.at(-1)?.tag ?? 0
    this.left -= messages.length
    // Tags of a channel count up by one, and it has one consumer at a time.
    return {
      batch: new MessageBatch(messages),
      partition: this.partition,
      last: String(this.handed),
      at: within(messages.length, (index) => String(first + index)),
    }
  }

  /**
   * Read as a queue, a stream would begin anew each time, at what is published next. The header alone may come from
   * elsewhere.
   */
  private async notAStream([first]: readonly Message[]): Promise<void> {
    if (
      this.handed > 0 ||
      first === undefined ||
      this.link === undefined ||
      streamOffset(first.properties) === undefined ||
      !(await this.link.isStream(this.queue))
    )
      return
    throw new Refused(`${this.queue} is a stream, whose position is kept here: add the word stream`)
  }

  private async steer(link: Link, ahead: number): Promise<void> {
    this.steering = true
    try {
      await link.ask((channel) => channel.cancel(this.consumer))
      await this.consume(link, ahead)
    } catch (error) {
      if (this.link === link) this.fail(error as ManifoldError)
    } finally {
      this.steering = false
    }
  }

  private look(): void {
    this.quiet = this.newest === this.seen
    this.seen = this.newest
    if (this.quiet) this.wake.wake()
  }

  /**
   * Others have taken what was there. The broker may count a queue as empty while what it has taken out for us is under
   * way: that comes before the next answer.
   */
  private async emptied(): Promise<boolean> {
    const { link, newest } = this
    if (link === undefined) throw new Disconnected('not connected')
    this.quiet = false
    for (let asked = 0; asked < 2; asked++) {
      const { messageCount } = await link.ask((channel) => channel.checkQueue(this.queue))
      if (messageCount > 0 || this.newest !== newest) return false
    }
    return this.fault === undefined
  }

  private fail(fault: ManifoldError): void {
    this.fault ??= fault
    // The broker has taken back what waits here.
    this.inbox.clear()
    this.wake.wake()
  }
}
