/**
 * Opens a connection with one channel to one of several hosts. Only this file uses amqplib, and it expects version
 * 2.3.1. The library does handshake, heartbeat, RPCs and closing. Messages bypass it in both directions
 * (`deliveries.ts`, `publishing.ts`), through `recvFrame` and `sendBytes` of its connection.
 *
 * - A connection ends once, and `ended` resolves with the reason. Every later call rejects with it.
 * - `close` waits for the broker's answer for a while, so that the broker has seen all acknowledgements before it.
 */
import type { Socket } from 'node:net'
import type { ChannelModel, ConfirmChannel, Message as Returned } from 'amqplib'
import type { Clock, Log } from '../../core/contract'
import { Disconnected, Refused, type ManifoldError } from '../../core/errors'
import { formatDuration } from '../../kit/durations'
import { linkedAbort, unlessAborted } from '../../kit/signal'
import { DeliveryReader, type Message } from './deliveries'
import { isVhostClosed, openingFault, runningFault, vhostFault, type FaultContext } from './errors'
import { encodePublications, type Publication } from './publishing'
import type { BrokerAddress, Settings } from './settings'
import { vhostCloseReason } from './vhost'

const CLOSE_TIMEOUT_MS = 5000
/** A chunk of a stream holds at most 4096 messages (osiris_writer). */
const CHUNK_MESSAGES = 8192
/**
 * A stream counts as empty if nothing arrives for the first time span. Its last chunk counts as read if nothing more
 * arrives for the second.
 */
const EMPTY_AFTER_MS = 2000
const QUIET_AFTER_MS = 250

/** These members of amqplib's connection are not public. */
interface AmqplibConnection {
  rest: Buffer
  recvSinceLastCheck: boolean
  readonly frameMax: number
  readonly stream: Socket
  recvFrame(): unknown
  sendBytes(bytes: Buffer): void
}

export interface Handlers {
  /** Error messages name what the connection does with this text: "reading queue 'jobs'". */
  readonly activity: string
  message?(message: Message): void
  /** It is called when the broker has ended the consumer: its queue was deleted, or its node went away. */
  cancelled?(): void
  confirmed?(tag: number, multiple: boolean, acked: boolean): void
  returned?(message: Returned): void
  blocked?(reason: string | undefined): void
}

/**
 * Tries the hosts one after the other, beginning with `first`. It rejects with a classified error, or with the signal's
 * reason.
 */
export async function connect(
  settings: Settings,
  first: number,
  handlers: Handlers,
  clock: Clock,
  log: Log,
  signal: AbortSignal,
): Promise<{ readonly connection: Connection; readonly host: number }> {
  const amqp = await import('amqplib')
  const context: FaultContext = {
    secure: settings.secure,
    vhost: settings.vhost,
    user: settings.login?.user ?? '',
    redact: settings.redact,
  }
  const faults: ManifoldError[] = []
  for (let offset = 0; offset < settings.hosts.length; offset++) {
    const index = (first + offset) % settings.hosts.length
    const host = settings.hosts[index]
    if (host === undefined) continue
    try {
      const model = await dial(amqp, host, settings, context, clock, signal)
      if (offset > 0)
        log.info(`connected to ${host.host}:${host.port} instead: ${faults.map(({ message }) => message).join('; ')}`)
      return { connection: await Connection.open(model, context, handlers, clock, signal), host: index }
    } catch (error) {
      signal.throwIfAborted()
      faults.push(openingFault(error, `${host.host}:${host.port}`, context))
    }
  }
  const [only] = faults
  if (faults.length === 1 && only !== undefined) throw only
  const all = `none of the hosts: ${faults.map(({ message }) => message).join('; ')}`
  throw faults.some((fault) => fault instanceof Refused)
    ? new Refused(all, { cause: faults })
    : new Disconnected(all, { cause: faults })
}

async function dial(
  amqp: typeof import('amqplib'),
  host: BrokerAddress,
  settings: Settings,
  context: FaultContext,
  clock: Clock,
  signal: AbortSignal,
): Promise<ChannelModel> {
  const { login, heartbeat, tls } = settings
  const at = `${host.host}:${host.port}`
  // The library cannot stop an opening, but its socket can be aborted.
  const abandon = new AbortController()
  const socket = { ...(settings.secure ? tls : {}), signal: abandon.signal }
  const opening = amqp.connect(
    {
      protocol: settings.secure ? 'amqps' : 'amqp',
      hostname: host.host,
      port: host.port,
      vhost: encodeURIComponent(settings.vhost),
      frameMax: settings.frameMax,
      channelMax: settings.channelMax,
      // No larger frame can be negotiated. Without this bound the library would wait for up to 64 MiB.
      maxFrameSize: settings.frameMax,
      ...(heartbeat === undefined ? {} : { heartbeat }),
    },
    {
      noDelay: true,
      keepAlive: true,
      ...socket,
      credentials:
        login === undefined ? amqp.credentials.external() : amqp.credentials.plain(login.user, login.password),
      clientProperties: { product: 'manifold', connection_name: settings.name },
    },
  )
  const deadline = linkedAbort(signal)
  const deadlineSignal = deadline.controller.signal
  const timeout = clock.sleep(settings.connectMs, deadlineSignal).then(() => {
    throw new Disconnected(`${at} did not let us in within ${formatDuration(settings.connectMs)} (connection-timeout=)`)
  })
  // After the race below nothing handles this rejection.
  timeout.catch(() => undefined)
  const explained = opening.catch(async (error: unknown) => {
    const why = isVhostClosed(error) ? await vhostCloseReason(host, settings, deadlineSignal) : undefined
    throw why === undefined ? error : vhostFault(why, at, context)
  })
  try {
    return await unlessAborted(Promise.race([explained, timeout]), signal)
  } catch (error) {
    // If the connection opens at this very moment, it is closed. If it does not, the error was reported already.
    opening.then(
      (model) => {
        destroy(model)
      },
      () => undefined,
    )
    explained.catch(() => undefined)
    abandon.abort(new Error('given up'))
    throw error
  } finally {
    deadline.controller.abort(new Error('open'))
    deadline.dispose()
  }
}

function amqplibConnection(model: ChannelModel): AmqplibConnection {
  return model.connection as unknown as AmqplibConnection
}
function destroy(model: ChannelModel): void {
  // An error without listener would end the process.
  model.on('error', () => undefined)
  // The library stops its heartbeat timers only on an error or at the end of the stream.
  amqplibConnection(model).stream.destroy(new Error('closed here'))
}

export class Connection {
  /** Resolves with the reason when the connection has ended. */
  readonly ended: Promise<ManifoldError>
  private fault: ManifoldError | undefined
  private finish: (fault: ManifoldError) => void = () => undefined
  private readonly internals: AmqplibConnection
  private readonly pendingCalls = new Set<(fault: ManifoldError) => void>()
  private isReadingPaused = false
  private isClosing = false
  private isBlocked = false
  private silenceTimer: { stop(): void } | undefined

  private constructor(
    private readonly model: ChannelModel,
    readonly channel: ConfirmChannel,
    private readonly context: FaultContext,
    private readonly handlers: Handlers,
    private readonly clock: Clock,
  ) {
    this.internals = amqplibConnection(model)
    this.ended = new Promise((resolve) => {
      this.finish = resolve
    })
  }

  static async open(
    model: ChannelModel,
    context: FaultContext,
    handlers: Handlers,
    clock: Clock,
    signal: AbortSignal,
  ): Promise<Connection> {
    let earlyError: unknown
    // An error without listener would end the process.
    model.on('error', (error) => {
      earlyError ??= error
    })
    try {
      const channel = await unlessAborted(model.createConfirmChannel(), signal)
      const connection = new Connection(model, channel, context, handlers, clock)
      connection.listen()
      return connection
    } catch (error) {
      destroy(model)
      throw earlyError ?? error
    }
  }

  /** Returns the largest size of a frame, with its overhead. */
  get frameMax(): number {
    return this.internals.frameMax
  }
  get isOpen(): boolean {
    return this.fault === undefined
  }

  private listen(): void {
    const { model, channel, handlers } = this
    const number = (channel as unknown as { readonly ch: number }).ch
    const reader = new DeliveryReader(number, (message) => {
      handlers.message?.(message)
    })
    const receive = this.internals.recvFrame.bind(this.internals)
    this.internals.recvFrame = () => {
      if (this.isReadingPaused) return false
      const taken = reader.take(this.internals.rest)
      if (taken > 0) this.internals.rest = this.internals.rest.subarray(taken)
      return receive()
    }
    model.on('error', (error) => {
      this.end(error)
    })
    model.on('close', (error?: Error) => {
      this.end(error ?? new Disconnected('closed here'))
    })
    model.on('blocked', (reason) => {
      this.isBlocked = true
      handlers.blocked?.(this.context.redact(reason))
    })
    model.on('unblocked', () => {
      this.isBlocked = false
      handlers.blocked?.(undefined)
    })
    channel.on('error', (error) => {
      this.end(error)
    })
    // A connection that ends closes its channels first, and tells the reason right after that.
    channel.on('close', () => {
      queueMicrotask(() => {
        if (!this.isClosing) this.end(new Disconnected('the channel was closed'))
      })
    })
    // The library expects callbacks of messages that it published itself, and it published none.
    for (const event of ['ack', 'nack'] as const) {
      channel.removeAllListeners(event)
      channel.on(event, ({ deliveryTag, multiple }: { readonly deliveryTag: number; readonly multiple: boolean }) => {
        handlers.confirmed?.(deliveryTag, multiple, event === 'ack')
      })
    }
    channel.on('return', (message) => {
      handlers.returned?.(message)
    })
  }

  private end(error: unknown): void {
    if (this.fault !== undefined) return
    this.fault = runningFault(error, this.handlers.activity, this.context)
    this.silenceTimer?.stop()
    for (const reject of this.pendingCalls) reject(this.fault)
    this.finish(this.fault)
  }

  /** Resolves with the broker's answer, or rejects as soon as the connection ends. */
  call<T>(answer: (channel: ConfirmChannel) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.fault !== undefined) {
        reject(this.fault)
        return
      }
      // A race with `ended` would keep each of these promises for the life of the connection.
      this.pendingCalls.add(reject)
      const asked = async (): Promise<T> => answer(this.channel)
      asked()
        .finally(() => {
          this.pendingCalls.delete(reject)
        })
        .then(resolve, (error: unknown) => {
          reject(this.fault ?? runningFault(error, this.handlers.activity, this.context))
        })
    })
  }

  /** Starts a consumer and returns its tag. Its messages go to the handler. */
  async consume(
    queue: string,
    options: {
      readonly consumerTag?: string
      readonly exclusive?: boolean
      readonly priority?: number
      readonly arguments?: object
    },
  ): Promise<string> {
    const { consumerTag } = await this.call((channel) =>
      channel.consume(
        queue,
        (message) => {
          if (message === null) this.handlers.cancelled?.()
        },
        options,
      ),
    )
    return consumerTag
  }

  /**
   * Cancels the consumer and requeues its unacknowledged messages.
   *
   * For RabbitMQ 4.3 and later a nack is the only way that does not count as a failed delivery (`x-delivery-count` of
   * quorum queues, https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling). For 3.10, where every way was
   * tried, each counts once, and twice if the messages are requeued for a consumer that still exists.
   * @param upTo the ascending, unacknowledged tags at which earlier consumers of the channel ended. A quorum queue does
   * not keep the order of consumers within one nack, so the messages of each consumer are requeued by themselves.
   */
  async cancelAndRequeue(consumerTag: string, upTo: readonly number[]): Promise<void> {
    if (this.fault !== undefined || consumerTag === '') return
    await this.call((channel) => channel.cancel(consumerTag))
    for (const tag of upTo) this.channel.nack({ fields: { deliveryTag: tag } } as Returned, true, true)
    this.channel.nackAll(true)
  }

  /**
   * Returns the offset of the last message of a stream, or undefined if the stream is empty. It reads the last chunk on
   * another channel until nothing more arrives, or until the offset is at least `enough`. A passive declaration does
   * not count the messages of a stream.
   */
  async lastOffset(stream: string, enough: number): Promise<number | undefined> {
    let last: number | undefined
    await this.scanStream(stream, 'last', (offset) => (last = Math.max(last ?? 0, offset)) >= enough)
    return last
  }

  /**
   * Returns the offset of the first message in the first chunk that was written at this time or later, or undefined if
   * there is none. The broker does not know the times of single messages.
   * @param time seconds since the epoch
   */
  async firstOffsetSince(stream: string, time: number): Promise<number | undefined> {
    let first: number | undefined
    await this.scanStream(stream, { '!': 'timestamp', value: time }, (offset) => {
      first = Math.min(first ?? offset, offset)
      return true
    })
    return first
  }

  /** Reads a stream until the callback has seen enough, or until nothing more arrives. */
  private async scanStream(
    stream: string,
    from: 'last' | { readonly '!': 'timestamp'; readonly value: number },
    onOffset: (offset: number) => boolean,
  ): Promise<void> {
    const channel = await this.call(() => this.model.createChannel())
    const quiet = new AbortController()
    let hasSeen = false
    let lastSeenAt = this.clock.monotonic()
    // The calls on this channel report its errors. Without a listener they would end the process.
    channel.on('error', () => undefined)
    try {
      await this.call(() => channel.prefetch(CHUNK_MESSAGES))
      await this.call(() =>
        channel.consume(
          stream,
          (message) => {
            const offset = Number(message?.properties.headers?.['x-stream-offset'])
            if (!Number.isInteger(offset)) return
            hasSeen = true
            lastSeenAt = this.clock.monotonic()
            if (onOffset(offset)) quiet.abort(new Error('found'))
          },
          { arguments: { 'x-stream-offset': from } },
        ),
      )
      // An aborted sleep means that the callback has seen enough. The loop checks the signal itself.
      while (
        this.fault === undefined &&
        !quiet.signal.aborted &&
        this.clock.monotonic() - lastSeenAt < (hasSeen ? QUIET_AFTER_MS : EMPTY_AFTER_MS)
      )
        await this.clock.sleep(QUIET_AFTER_MS / 5, quiet.signal).catch(() => undefined)
    } finally {
      // If this channel cannot be closed, the connection ends and tells the reason.
      await channel.close().catch(() => undefined)
    }
    if (this.fault !== undefined) throw this.fault
  }

  /** Tells whether a queue is a stream: any other queue refuses to be read from an offset. */
  async isStream(queue: string): Promise<boolean> {
    const channel = await this.call(() => this.model.createChannel())
    // A refusal closes the channel, and that is the answer.
    channel.on('error', () => undefined)
    try {
      await channel.prefetch(1)
      await channel.consume(queue, () => undefined, { arguments: { 'x-stream-offset': 'next' } })
      return true
    } catch {
      if (this.fault !== undefined) throw this.fault
      return false
    } finally {
      // A refused channel is already closed.
      await channel.close().catch(() => undefined)
    }
  }

  acknowledgeUpTo(tag: number): void {
    if (this.fault !== undefined) throw this.fault
    this.channel.ack({ fields: { deliveryTag: tag } } as Returned, true)
  }

  /** Publishes messages in one write. The broker continues its count of messages with them. */
  publish(publications: readonly Publication[]): void {
    if (this.fault !== undefined) throw this.fault
    this.internals.sendBytes(
      encodePublications(
        publications,
        (this.channel as unknown as { readonly ch: number }).ch,
        this.internals.frameMax,
      ),
    )
  }

  /** Stops or resumes reading from the socket. A paused connection does not count as dead. */
  pauseReading(paused: boolean): void {
    if (this.isReadingPaused === paused || this.fault !== undefined) return
    this.isReadingPaused = paused
    if (paused)
      this.silenceTimer = this.clock.every(1000, () => {
        this.internals.recvSinceLastCheck = true
      })
    else {
      this.silenceTimer?.stop()
      this.internals.stream.emit('readable')
    }
  }

  async close(): Promise<void> {
    this.pauseReading(false)
    this.isClosing = true
    // A broker that blocks a connection reads nothing from it, not even its end.
    if (this.fault === undefined && !this.isBlocked) {
      const timer = new AbortController()
      // The connection ends in any case. The broker requeues messages whose acknowledgement it has not seen.
      const closing = this.channel
        .close()
        .then(() => this.model.close())
        .catch(() => undefined)
      // The sleep ends early if an answer comes.
      await Promise.race([closing, this.ended, this.clock.sleep(CLOSE_TIMEOUT_MS, timer.signal).catch(() => undefined)])
      timer.abort(new Error('closed'))
    }
    this.end(new Disconnected('closed here'))
    destroy(this.model)
  }
}
