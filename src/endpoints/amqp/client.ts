/**
 * One connection to one of several hosts, with one channel. The only file that touches amqplib, of which version 2.3.1
 * is expected: it does handshake, heartbeat, RPCs and closing; messages pass it by, in both directions
 * (`deliveries.ts`, `publishing.ts`), through its connection's `recvFrame` and `sendBytes`.
 *
 * - A link ends once, and `ended` resolves with why; every call rejects with that from then on.
 * - `close` waits for the broker's answer, within CLOSE_MS: what was acknowledged before has then been seen.
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
/** A chunk of a stream holds 4096 messages at most (osiris_writer). */
const CHUNK_MESSAGES = 8192
/**
 * A stream of which nothing comes for so long is empty; one of whose last chunk nothing more comes for so long was
 * read.
 */
const EMPTY_AFTER_MS = 2000
const QUIET_AFTER_MS = 250

/** What is used of amqplib's connection beyond its public face. */
interface AmqplibConnection {
  rest: Buffer
  recvSinceLastCheck: boolean
  readonly frameMax: number
  readonly stream: Socket
  recvFrame(): unknown
  sendBytes(bytes: Buffer): void
}

export interface Handlers {
  /** What is under way, for messages: "read queue 'jobs'". */
  readonly activity: string
  message?(message: Message): void
  /** The broker ended the consumer: its queue was deleted, or its node went away. */
  cancelled?(): void
  confirmed?(tag: number, multiple: boolean, acked: boolean): void
  returned?(message: Returned): void
  blocked?(reason: string | undefined): void
}

/**
 * Tries the hosts one after the other, from `first` on. Rejects with a classified error, or the signal's reason when it
 * aborts.
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
  // Of the socket, and for its opening only: the library itself knows no way to stop one.
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
      // What is agreed on is no more; without it 64 MiB are waited for.
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
  // Once the race below is over, nobody hears it any more.
  timeout.catch(() => undefined)
  const explained = opening.catch(async (error: unknown) => {
    const why = isVhostClosed(error) ? await vhostCloseReason(host, settings, deadlineSignal) : undefined
    throw why === undefined ? error : vhostFault(why, at, context)
  })
  try {
    return await unlessAborted(Promise.race([explained, timeout]), signal)
  } catch (error) {
    // What comes of it this very moment is closed; where nothing does, that is told already.
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
  // It would become an unhandled one.
  model.on('error', () => undefined)
  // Only an error or an end of the stream makes the library stop its heartbeat timers.
  amqplibConnection(model).stream.destroy(new Error('closed here'))
}

export class Connection {
  /** Why it ended. */
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
    // Without a listener an error ends the process.
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

  /** Bytes of a frame at most, overhead included. */
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
    // A connection that ends closes its channels first, and says why right after.
    channel.on('close', () => {
      queueMicrotask(() => {
        if (!this.isClosing) this.end(new Disconnected('the channel was closed'))
      })
    })
    // The library keeps a place for a callback of each message it published itself; it published none.
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

  /** The broker's answer; or why the link ended, as soon as it does. */
  call<T>(answer: (channel: ConfirmChannel) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.fault !== undefined) {
        reject(this.fault)
        return
      }
      // Not by way of `ended`, which would keep each of these for as long as the link lives.
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

  /** The consumer's tag; messages go to the handler. */
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
   * Ends the consumer and gives back what it has not acknowledged. Of the ways to do so a nack alone is no failed
   * delivery (`x-delivery-count` of quorum queues) to RabbitMQ 4.3 and later
   * (https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling); to 3.10, where each of them was tried, all
   * count once, and twice what is given back to a consumer that is still there.
   * @param upTo tags, ascending, none of them acknowledged: where earlier consumers of the channel ended. A quorum
   *   queue puts what comes back in one nack behind what came back before, by consumers in no order; so each consumer's
   *   messages go back by themselves.
   */
  async cancelAndRequeue(consumerTag: string, upTo: readonly number[]): Promise<void> {
    if (this.fault !== undefined || consumerTag === '') return
    await this.call((channel) => channel.cancel(consumerTag))
    for (const tag of upTo) this.channel.nack({ fields: { deliveryTag: tag } } as Returned, true, true)
    this.channel.nackAll(true)
  }

  /**
   * Offset of the last message of a stream, found by reading its last chunk on a channel of its own until nothing more
   * comes; at once where it is `enough` or more. undefined: nothing came, for there is nothing. A passive declaration
   * counts no messages of streams.
   */
  async lastOffset(stream: string, enough: number): Promise<number | undefined> {
    let last: number | undefined
    await this.scanStream(stream, 'last', (offset) => (last = Math.max(last ?? 0, offset)) >= enough)
    return last
  }

  /**
   * Offset of the first message of a stream in a chunk that was written at this time or later: the broker knows no time
   * of single messages. undefined: there is none. @param time seconds
   */
  async firstOffsetSince(stream: string, time: number): Promise<number | undefined> {
    let first: number | undefined
    await this.scanStream(stream, { '!': 'timestamp', value: time }, (offset) => {
      first = Math.min(first ?? offset, offset)
      return true
    })
    return first
  }

  /** Reads until it was told that this is enough, or nothing more comes. */
  private async scanStream(
    stream: string,
    from: 'last' | { readonly '!': 'timestamp'; readonly value: number },
    saw: (offset: number) => boolean,
  ): Promise<void> {
    const channel = await this.call(() => this.model.createChannel())
    const quiet = new AbortController()
    let seen = false
    let seenAt = this.clock.monotonic()
    // What goes wrong with it is told by whoever asks on it; without a listener it would end the process.
    channel.on('error', () => undefined)
    try {
      await this.call(() => channel.prefetch(CHUNK_MESSAGES))
      await this.call(() =>
        channel.consume(
          stream,
          (message) => {
            const offset = Number(message?.properties.headers?.['x-stream-offset'])
            if (!Number.isInteger(offset)) return
            seen = true
            seenAt = this.clock.monotonic()
            if (saw(offset)) quiet.abort(new Error('found'))
          },
          { arguments: { 'x-stream-offset': from } },
        ),
      )
      // A sleep that is cut short has found what was looked for: the loop looks at the signal itself.
      while (
        this.fault === undefined &&
        !quiet.signal.aborted &&
        this.clock.monotonic() - seenAt < (seen ? QUIET_AFTER_MS : EMPTY_AFTER_MS)
      )
        await this.clock.sleep(QUIET_AFTER_MS / 5, quiet.signal).catch(() => undefined)
    } finally {
      // It was for looking only: where it cannot be closed, the link ends, and says why.
      await channel.close().catch(() => undefined)
    }
    if (this.fault !== undefined) throw this.fault
  }

  /** A queue that is none refuses to be read from an offset. */
  async isStream(queue: string): Promise<boolean> {
    const channel = await this.call(() => this.model.createChannel())
    // A refusal closes the channel, which is the answer.
    channel.on('error', () => undefined)
    try {
      await channel.prefetch(1)
      await channel.consume(queue, () => undefined, { arguments: { 'x-stream-offset': 'next' } })
      return true
    } catch {
      if (this.fault !== undefined) throw this.fault
      return false
    } finally {
      // Closed already where it was refused.
      await channel.close().catch(() => undefined)
    }
  }

  acknowledgeUpTo(tag: number): void {
    if (this.fault !== undefined) throw this.fault
    this.channel.ack({ fields: { deliveryTag: tag } } as Returned, true)
  }

  /** In one write. The broker counts them on from the last one. */
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

  /** While held nothing is read from the socket, and the silence is no death. */
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
    // A broker that blocks a connection reads nothing from it, its end neither.
    if (this.fault === undefined && !this.isBlocked) {
      const timer = new AbortController()
      // It goes away in any case; what the broker has not heard it takes back, and sends again.
      const closing = this.channel
        .close()
        .then(() => this.model.close())
        .catch(() => undefined)
      // The sleep ends early where an answer came.
      await Promise.race([closing, this.ended, this.clock.sleep(CLOSE_TIMEOUT_MS, timer.signal).catch(() => undefined)])
      timer.abort(new Error('closed'))
    }
    this.end(new Disconnected('closed here'))
    destroy(this.model)
  }
}
