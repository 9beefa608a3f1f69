/**
 * Writes each record as a message, in order.
 *
 * - Without `barrier` a record counts as delivered once this machine's kernel has taken it. Records that a server had
 *   not read when the connection broke are lost.
 * - With `barrier` it counts once the server has answered a ping that was sent after it. The server answers after it
 *   has read all before (RFC 6455, 5.5.2).
 * - A server that closes with 1009 accepts no message as large as the largest unconfirmed one. That record is rejected,
 *   because a retry would never succeed.
 */
import { isUtf8 } from 'node:buffer'
import { encodeEnvelope } from '../../codec/envelope'
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
import { formatSize } from '../../kit/sizes'
import { linkedAbort, unlessAborted } from '../../kit/signal'
import type { CreateSink, Target } from '../../options/define'
import { connect, type ConnectionEnd, type Connection } from './client'
import type { WsOptions } from './options'
import { settingsOf } from './settings'

const MIB = 1024 * 1024
/** A server may send messages up to this size to a sink. They are ignored. */
const MAX_RECEIVED_MESSAGE = 16 * MIB
/** A slow server reads its buffers before it answers our close. */
const CLOSE_MS = 20_000
const MESSAGE_TOO_BIG = 1009

export const create: CreateSink<WsOptions> = (target) => new WebSocketSink(target)

class WebSocketSink implements Sink {
  readonly limits: Limits
  readonly wants: 'lines' | 'entries'
  private connection: Connection | undefined
  private connectionEnd: Promise<ConnectionEnd> = new Promise(() => undefined)
  private lifetime: ReturnType<typeof linkedAbort> | undefined
  private writes = 0
  private inFlight: { readonly largest: number }[] = []
  /** The server accepts no message of this size or larger. */
  private tooLarge = Infinity
  private readonly awaitingPong: { readonly ping: number; confirmed(): void }[] = []

  constructor(private readonly target: Target<WsOptions>) {
    const { barrier, framing } = target.options
    this.limits = {
      maxEntries: 65_536,
      maxBytes: 4 * MIB,
      maxEntryBytes: 256 * MIB,
      inFlight: barrier ? 4 : 1,
      ordered: true,
      unit: 'batch',
      confirms: barrier ? 'each' : 'none',
    }
    this.wants = framing === 'envelope' ? 'entries' : 'lines'
  }

  async open(ctx: EndpointContext): Promise<void> {
    const { signal } = (this.lifetime = linkedAbort(ctx.signal)).controller
    if (this.target.options.tlsInsecure)
      ctx.log.warn(
        "tls-insecure: the server's certificate is not checked; whoever sits between can read and change everything",
      )
    const settings = await settingsOf(await this.target.resolve(), MAX_RECEIVED_MESSAGE, CLOSE_MS)
    let received = 0
    let finish: (end: ConnectionEnd) => void = () => undefined
    this.connectionEnd = new Promise((resolve) => {
      finish = resolve
    })
    this.writes = 0
    this.inFlight = []
    this.awaitingPong.length = 0
    const connection = await connect(
      settings,
      {
        message: () => {
          received++
        },
        received: () => received,
        pong: (ping) => {
          while (this.awaitingPong[0] !== undefined && this.awaitingPong[0].ping <= ping)
            this.awaitingPong.shift()?.confirmed()
        },
        ended: finish,
      },
      ctx.clock,
      signal,
    )
    this.connection = connection
    if (signal.aborted) {
      connection.cut('closed here')
      signal.throwIfAborted()
    }
  }

  async write(write: Write, signal: AbortSignal): Promise<Outcome> {
    const { connection } = this
    if (connection === undefined) throw new Disconnected('not connected')
    if ('kind' in write.payload) throw new Error('a WebSocket takes batches')
    const { messages, rejected } = this.messagesOf(write)
    if (messages.length === 0) return rejected.length === 0 ? CONFIRMED : { retry: [], rejected }
    const flight = { largest: messages.reduce((most, { length }) => Math.max(most, length), 0) }
    this.inFlight.push(flight)
    this.writes++
    try {
      // Nothing is awaited before this, so concurrent writes are sent in the order of their calls.
      await unlessAborted(this.sent(connection, messages), signal)
      this.inFlight = this.inFlight.filter((other) => other !== flight)
    } catch (error) {
      const end = connection.ended
      if (end?.code === MESSAGE_TOO_BIG && (this.limits.confirms === 'each' || this.writes === 1))
        this.tooLarge = Math.min(
          this.tooLarge,
          ...this.inFlight
            .map(({ largest }) => largest)
            .sort((a, b) => b - a)
            .slice(0, 1),
        )
      throw error
    }
    return rejected.length === 0 ? CONFIRMED : { retry: [], rejected }
  }

  async close(): Promise<void> {
    const { connection, lifetime } = this
    this.connection = this.lifetime = undefined
    lifetime?.controller.abort(new Disconnected('closed here'))
    lifetime?.dispose()
    if (connection === undefined) return
    connection.close()
    await this.connectionEnd
  }

  /** Resolves as `confirms` says. It rejects when the connection has ended, with the reason. */
  private async sent(connection: Connection, messages: readonly Buffer[]): Promise<void> {
    const binary = this.target.options.type === 'binary'
    const broken = this.connectionEnd.then((end) => {
      throw end.error
    })
    const confirmed = !connection.isOpen
      ? broken
      : this.confirmed(
          connection,
          connection.sendAll(messages, (message) => binary || !isUtf8(message)),
        )
    // A send fails as soon as the closing begins. The code that says why comes at the end of the connection.
    await Promise.race([confirmed.catch(() => broken), broken])
  }

  private async confirmed(connection: Connection, flushed: Promise<void>): Promise<void> {
    if (this.limits.confirms === 'none') return flushed
    const ping = connection.ping()
    const answered = new Promise<void>((resolve) => {
      this.awaitingPong.push({ ping, confirmed: resolve })
    })
    await Promise.all([flushed, answered])
  }

  private messagesOf(write: Write): { readonly messages: readonly Buffer[]; readonly rejected: readonly Refusal[] } {
    const envelope = this.target.options.framing === 'envelope'
    const messages: Buffer[] = []
    const rejected: Refusal[] = []
    if ('kind' in write.payload) return { messages, rejected }
    write.payload.entries().forEach((entry, index) => {
      if (entry.value === null && !envelope) {
        rejected.push({ index, why: 'a null value is no message: framing=envelope has a place for it' })
        return
      }
      const message = envelope
        ? Buffer.from(encodeEnvelope(entry, write.origin(index)).slice(0, -1))
        : (entry.value ?? Buffer.alloc(0))
      if (message.length >= this.tooLarge)
        rejected.push({
          index,
          why: `the server closes (1009, message too big) on a message of ${formatSize(message.length)}`,
        })
      else messages.push(message)
    })
    return { messages, rejected }
  }
}
