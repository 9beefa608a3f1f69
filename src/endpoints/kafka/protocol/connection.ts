/**
 * One connection to one broker: opened with TLS and login, limited in the size of answers, and dropped as soon as a
 * caller abandons a request. The library's `Connection` does the work, but can neither abandon a call nor limit an
 * answer.
 */
import type { Connection } from '@platformatic/kafka'
import { Disconnected, Refused } from '../../../core/errors'
import { UNSUPPORTED_VERSION } from './error-codes'
import { classify, type Peer } from '../errors'
import { DeferredBodies, type DeferBody } from './deferred-body'
import type { Settings } from '../settings'
import type { ApiCall, Library, SaslOptions } from './library'

export interface ConnectionOptions {
  readonly host: string
  readonly port: number
  /** Milliseconds in which each request has to be answered. */
  readonly requestMs: number
  /** Bytes of the largest answer. */
  readonly maxAnswerBytes: number
}
export type ApiVersions = ReadonlyMap<number, { readonly min: number; readonly max: number }>

/**
 * Requests that a broker works on at once for one connection: with more an idempotent producer loses its order (KIP-98,
 * `max.in.flight.requests.per.connection`).
 */
const MAX_IN_FLIGHT = 5

export class BrokerConnection {
  /** Versions of each request that the broker speaks. */
  versions: ApiVersions = new Map()
  private usable = true
  private fault: Error | undefined
  /**
   * Error of the socket at its end. After a TLS alert that follows the handshake, calls only learn that the connection
   * is closed.
   */
  private socketError: Error | undefined
  private readonly deferredBodies = new DeferredBodies()
  private constructor(
    private readonly connection: Connection,
    readonly peer: Peer,
    private readonly onDrop: () => void,
  ) {}

  /**
   * Rejects with a classified error, or the signal's reason. @param versions what is known of this broker: asked for
   * where it is nothing @param onDrop called once, when it cannot be used any more
   */
  static async open(
    library: Library,
    settings: Settings,
    sasl: SaslOptions | undefined,
    options: ConnectionOptions,
    versions: ApiVersions | undefined,
    onDrop: () => void,
    signal: AbortSignal,
  ): Promise<BrokerConnection> {
    signal.throwIfAborted()
    const { host, port } = options
    const { login, tls } = settings
    const peer: Peer = {
      address: `${host.includes(':') ? `[${host}]` : host}:${port}`,
      tls: tls !== undefined,
      mechanism: login?.mechanism ?? 'none',
      ...(login !== undefined && 'user' in login ? { user: login.user } : {}),
    }
    const connection = new library.Connection(settings.clientId, {
      connectTimeout: settings.connectMs,
      requestTimeout: options.requestMs,
      maxInflights: MAX_IN_FLIGHT,
      ...(tls === undefined ? {} : { tls: { ...tls } }),
      ...(sasl === undefined ? {} : { sasl }),
    })
    const broker = new BrokerConnection(connection, peer, onDrop)
    // Each call learns of a fault by its callback; without a listener the event would end the process.
    connection.on('error', (error) => {
      broker.socketError ??= error
      broker.markUnusable()
    })
    connection.on('close', () => {
      broker.markUnusable()
    })
    const abandon = (): void => {
      broker.drop()
    }
    signal.addEventListener('abort', abandon, { once: true })
    try {
      await new Promise<void>((resolve, reject) => {
        void connection.connect(host, port, (error) => {
          if (error === null || error === undefined) resolve()
          else reject(error)
        })
        broker.boundAnswers(options.maxAnswerBytes)
      })
      if (connection.socket !== undefined) broker.deferredBodies.interceptWrites(connection.socket)
      broker.versions = versions ?? (await broker.askVersions(library, signal))
      return broker
    } catch (error) {
      broker.drop()
      if (signal.aborted) throw signal.reason
      throw broker.fault ?? classify(error, 'be connected', peer)
    } finally {
      signal.removeEventListener('abort', abandon)
    }
  }

  get isUsable(): boolean {
    return this.usable
  }
  /** For requests whose body is to go out as it lies in memory. */
  get deferBody(): DeferBody {
    return this.deferredBodies.defer
  }

  /**
   * Answers with error codes resolve as others do. Rejects with a classified error, or, at once, with the signal's
   * reason; the connection is then of no use any more.
   */
  call<A extends unknown[], R>(api: ApiCall<A, R>, args: A, doing: string, signal: AbortSignal): Promise<R> {
    return new Promise<R>((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason as Error)
        return
      }
      const abandon = (): void => {
        this.drop()
        reject(signal.reason as Error)
      }
      signal.addEventListener('abort', abandon, { once: true })
      const answered = (error: Error | null, answer?: R): void => {
        signal.removeEventListener('abort', abandon)
        if (error === null || error === undefined) {
          resolve(answer as R)
          return
        }
        const coded = (error as { readonly response?: R }).response
        if (coded !== undefined) {
          resolve(coded)
          return
        }
        this.drop()
        const fault = this.fault ?? classify(this.socketError ?? error, doing, this.peer)
        reject(fault instanceof Error ? fault : error)
      }
      const send = api as unknown as (connection: Connection, ...rest: unknown[]) => void
      send(this.connection, ...args, answered)
    })
  }

  /** Closes the connection; calls that wait for an answer reject. */
  drop(): void {
    this.markUnusable()
    // Of a connection that is still being made only this ends the library's timer.
    this.connection.close(() => undefined)
    this.connection.socket?.destroy()
  }

  private markUnusable(): void {
    if (!this.usable) return
    this.usable = false
    this.onDrop()
  }

  private async askVersions(library: Library, signal: AbortSignal): Promise<ApiVersions> {
    // Version 2 is understood by every broker since 0.11; newer ones change only what is told about the client.
    const answer = await this.call(library.apiVersionsV2.api, ['', ''], 'say which versions it speaks', signal)
    if (answer.errorCode === UNSUPPORTED_VERSION)
      throw new Refused(`${this.peer.address} is too old a broker: Kafka 2.1 is the oldest that is spoken to`)
    return new Map(
      answer.apiKeys.map(({ apiKey, minVersion, maxVersion }) => [apiKey, { min: minVersion, max: maxVersion }]),
    )
  }

  /**
   * Drops the connection where an answer is larger than `maxBytes`, before the library gathers it, or where the peer is
   * not a Kafka broker.
   */
  private boundAnswers(maxBytes: number): void {
    const { socket } = this.connection
    const head = Buffer.alloc(4)
    let have = 0
    let left = 0
    let answers = 0
    socket?.on('data', (chunk: Buffer) => {
      for (let at = 0; at < chunk.length && this.usable; ) {
        if (left > 0) {
          const taken = Math.min(left, chunk.length - at)
          left -= taken
          at += taken
          continue
        }
        head[have++] = chunk[at++] as number
        if (have < 4) continue
        have = 0
        left = head.readInt32BE(0)
        if (left >= 4 && left <= maxBytes) {
          answers++
          continue
        }
        this.fault =
          answers === 0
            ? this.notKafka(chunk)
            : new Disconnected(
                `${this.peer.address} sent an answer of ${left} bytes, more than the ${maxBytes} that are taken`,
              )
        this.drop()
      }
    })
  }

  private notKafka(chunk: Buffer): Error {
    const { address: at, tls } = this.peer
    // A TLS record (RFC 8446, 5.1): mostly the alert of a server that takes our request for a handshake.
    if (!tls && (chunk[0] ?? 0) >= 0x14 && (chunk[0] ?? 0) <= 0x17 && chunk[1] === 3)
      return new Refused(`${at} speaks TLS: write kafka+tls://`)
    const shown =
      chunk
        .subarray(0, 24)
        .toString('latin1')
        .split(/[\r\n]/, 1)[0]
        ?.replace(/[^\x20-\x7e]/g, '.') ?? ''
    return new Refused(`${at} is no Kafka broker: it answers '${shown}'`)
  }
}
