/**
 * Opens a WebSocket connection for both directions, with its pings, deadlines and end. Only this file uses the library.
 *
 * - `connect` takes at most `handshake-timeout`, whatever hangs: the name, TCP, the proxy, TLS or the upgrade.
 * - A connection ends once, and `ended` says why. No message is handed out after it.
 * - A paused connection receives nothing, so no deadline runs.
 * - All messages that were received are handed out before the end, even if the end is our own `close`.
 */
import { randomBytes } from 'node:crypto'
import * as net from 'node:net'
import * as tls from 'node:tls'
import type { ClientRequest } from 'node:http'
import type { ClientOptions, RawData, WebSocket } from 'ws'
import type { Clock } from '../../core/contract'
import { Disconnected, lineOf, type ManifoldError } from '../../core/errors'
import { formatDuration } from '../../kit/durations'
import { formatSize } from '../../kit/sizes'
import { Deadlines } from './deadlines'
import { ReceiveWatermark, PROBE_MS } from './receive-watermark'
import { closeText, networkFault, statusFault } from './faults'
import { proxyFor, tunnel } from './proxy'
import type { Settings } from './settings'

const NEVER_MS = 2 ** 31 - 1
/**
 * A fragment of a large message, or the part of it in one read of the socket, has on average at least this many bytes.
 */
const SMALL_FRAGMENT = 256
/** The library reports with this code that a message is too large. */
const TOO_LARGE = 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH'

export interface ConnectionEnd {
  readonly error: ManifoldError
  /** The text of the error, for a gap. */
  readonly why: string
  /** The close code. It is 1006 if there was no closing handshake. */
  readonly code: number
  /** A message that was too large has ended the connection. */
  readonly tooLarge: boolean
}
export interface Handlers {
  /** The buffer belongs to the library, so bytes that are kept have to be copied. */
  message(data: Buffer, binary: boolean): void
  /** Returns the number of received messages, for the deadlines. */
  received(): number
  /** All that the server sent until this time of the monotonic clock has been handed out. */
  receivedUntil?(at: number): void
  /** The ping of this number, and all before it, were answered. */
  pong?(ping: number): void
  ended(end: ConnectionEnd): void
}

/**
 * Opens a connection. It rejects with a classified error, or with the signal's reason.
 * @param signal aborts the opening only
 */
export async function connect(
  settings: Settings,
  handlers: Handlers,
  clock: Clock,
  signal: AbortSignal,
): Promise<Connection> {
  // The types of the library's ESM entry differ from those of its CommonJS entry, but the class is the same.
  const { WebSocket: Client } = (await import('ws')) as unknown as { readonly WebSocket: typeof WebSocket }
  signal.throwIfAborted()
  const opening = new AbortController()
  const aborted = (): void => {
    opening.abort(signal.reason)
  }
  signal.addEventListener('abort', aborted, { once: true })
  const timer = new AbortController()
  clock.sleep(settings.handshakeMs, timer.signal).then(
    () => {
      opening.abort(
        new Disconnected(`no connection within ${formatDuration(settings.handshakeMs)} (handshake-timeout=)`),
      )
    },
    () => undefined,
  )
  try {
    const proxy = proxyFor(settings)
    const tunnelled = proxy === undefined ? undefined : await tunnel(proxy, settings, () => clock.now(), opening.signal)
    return await upgrade(Client, settings, tunnelled, handlers, clock, opening.signal)
  } finally {
    timer.abort(new Error('open'))
    signal.removeEventListener('abort', aborted)
  }
}

function upgrade(
  Client: typeof WebSocket,
  settings: Settings,
  tunnelled: net.Socket | undefined,
  handlers: Handlers,
  clock: Clock,
  signal: AbortSignal,
): Promise<Connection> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      tunnelled?.destroy()
      reject(signal.reason as Error)
      return
    }
    let socket: net.Socket | undefined
    const options: ClientOptions & { closeTimeout: number; maxFragments: number; maxBufferedChunks: number } = {
      // A header may have several values, although the types do not say so.
      headers: settings.headers as Record<string, string>,
      perMessageDeflate: settings.compression,
      // Records pass byte for byte, so text messages are not validated.
      skipUTF8Validation: true,
      maxPayload: settings.maxMessage,
      // These bounds limit the number of empty and tiny fragments. The largest message may have fewer.
      maxFragments: Math.max(16 * 1024, settings.maxMessage / SMALL_FRAGMENT),
      maxBufferedChunks: Math.max(256 * 1024, settings.maxMessage / SMALL_FRAGMENT),
      // The library would cut a connection with many unanswered pings, which there are after this process was stopped.
      // So pings are answered here, and only the latest.
      autoPong: false,
      // Our own deadline begins when a close was seen, and does not run while reading is paused.
      closeTimeout: NEVER_MS,
      followRedirects: false,
      createConnection: () => (socket = dial(settings, tunnelled)),
      finishRequest: (request: ClientRequest) => {
        // `new URL` would rewrite paths and queries (quotes, dots, backslashes), but servers that verify signatures
        // need them as typed.
        request.path = settings.target
        request.end()
      },
    }
    let ws: WebSocket
    try {
      ws = new Client(
        `${settings.secure ? 'wss' : 'ws'}://${settings.host.includes(':') ? `[${settings.host}]` : settings.host}:${settings.port}/`,
        [...settings.protocols],
        options,
      )
    } catch (error) {
      tunnelled?.destroy()
      reject(networkFault(error, settings))
      return
    }
    const aborted = (): void => {
      fail(signal.reason as Error)
    }
    const settled = (): void => {
      signal.removeEventListener('abort', aborted)
    }
    const fail = (error: Error): void => {
      settled()
      reject(error)
      // If the connection is not open, terminate emits another error.
      ws.on('error', () => undefined)
      ws.terminate()
      socket?.destroy()
    }
    signal.addEventListener('abort', aborted, { once: true })
    ws.on('error', (error) => {
      if (ws.readyState !== ws.OPEN) fail(networkFault(error, settings))
    })
    ws.on('unexpected-response', (_request, response) => {
      fail(statusFault(response.statusCode ?? 0, response.headers, clock.now()))
    })
    ws.on('open', () => {
      settled()
      ws.removeAllListeners('error')
      if (socket !== undefined) resolve(new Connection(ws, socket, settings, handlers, clock))
    })
  })
}

function dial(settings: Settings, tunnelled: net.Socket | undefined): net.Socket {
  const { host, port, secure } = settings
  if (!secure) return tunnelled ?? net.connect({ host, port })
  const { servername, ...rest } = settings.tls
  const name = servername ?? (net.isIP(host) === 0 ? host : '')
  return tls.connect({
    ...(tunnelled === undefined ? { port } : { socket: tunnelled }),
    host,
    ...rest,
    servername: name,
    ALPNProtocols: ['http/1.1'],
    // Node checks the certificate against `servername`, or against the host if that is empty (an address).
  })
}

export class Connection {
  private readonly deadlines: Deadlines
  private readonly watermark: ReceiveWatermark
  private readonly timers: { stop(): void }[] = []
  private end: ConnectionEnd | undefined
  private protocolError: Error | undefined
  private socketError: Error | undefined
  private cutReason: string | undefined
  private isPaused = false
  private isClosing = false
  private closedAt = 0
  /** The server has closed its side of the TCP connection. */
  private endedByPeer = false
  private written = 0
  private pings = 0
  /** The payload of the latest ping that is not answered yet. */
  private unansweredPing: Buffer | undefined
  /** Distinguishes answers to our pings from unsolicited pongs. */
  private readonly pingPrefix = randomBytes(4).toString('hex')

  constructor(
    private readonly ws: WebSocket,
    private readonly socket: net.Socket,
    private readonly settings: Settings,
    private readonly handlers: Handlers,
    private readonly clock: Clock,
  ) {
    const deadlines = (this.deadlines = new Deadlines(settings, clock.monotonic()))
    this.watermark = new ReceiveWatermark({
      monotonic: () => clock.monotonic(),
      bytesRead: () => socket.bytesRead,
      isBusy: () => this.isPaused || !this.isOpen || this.isUnpacking,
      ping: () => (settings.pingMs === 0 ? undefined : this.ping()),
      advanced: (at) => handlers.receivedUntil?.(at),
      nextTurn: (run) => {
        setImmediate(run)
      },
    })
    // With the default `binaryType`, data is a single Buffer.
    ws.on('message', handlers.message as (data: RawData, binary: boolean) => void)
    ws.on('pong', (data) => {
      deadlines.heard(clock.monotonic())
      this.watermark.arrived()
      this.onPong(data)
    })
    ws.on('ping', (data) => {
      deadlines.heard(clock.monotonic())
      this.watermark.arrived()
      this.queuePong(data)
    })
    ws.on('error', (error) => {
      this.protocolError ??= error
    })
    ws.on('close', (code, reason) => {
      this.finish(code, reason)
    })
    // The library gives no reason for a broken connection.
    socket.on('error', (error) => {
      this.socketError ??= error
    })
    socket.on('end', () => {
      this.endedByPeer = true
    })
    this.timers.push(
      clock.every(PROBE_MS, () => {
        this.watermark.probe()
      }),
    )
    this.timers.push(
      clock.every(deadlines.everyMs, () => {
        this.tick()
      }),
    )
    for (const { ms, text } of settings.sendEvery)
      this.timers.push(
        clock.every(ms, () => {
          if (this.isOpen) ws.send(text)
        }),
      )
    for (const text of settings.send) ws.send(text)
  }

  get isOpen(): boolean {
    return this.end === undefined && this.ws.readyState === this.ws.OPEN
  }
  get ended(): ConnectionEnd | undefined {
    return this.end
  }
  /** Returns the time of the monotonic clock until which nothing that the server sent is missing. */
  get receivedUntil(): number {
    return this.end !== undefined && (this.end.code !== 1006 || this.endedByPeer)
      ? this.watermark.quietAt
      : this.watermark.at
  }
  /** This is called once in each turn of the event loop in which something arrived. */
  arrived(): void {
    this.watermark.arrived()
  }
  /**
   * Tells whether compressed messages are still being decompressed by a thread. Only a private member of the library
   * knows.
   */
  private get isUnpacking(): boolean {
    if (this.ws.extensions === '') return false
    return (
      ((this.ws as unknown as { readonly _receiver?: { readonly writableLength: number } })._receiver?.writableLength ??
        1) > 0
    )
  }

  pause(): void {
    if (this.isPaused) return
    this.isPaused = true
    this.ws.pause()
  }

  resume(): void {
    if (!this.isPaused) return
    this.isPaused = false
    this.deadlines.resumed(this.clock.monotonic())
    this.ws.resume()
  }

  /** Sends several messages. It resolves when the kernel has taken them, and rejects when the connection ends. */
  sendAll(messages: readonly Buffer[], binary: (message: Buffer) => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const last = messages.length - 1
      // Corking sends thousands of small frames in one system call.
      this.socket.cork()
      messages.forEach((message, index) => {
        this.ws.send(
          message,
          { binary: binary(message), compress: this.settings.compression },
          index < last
            ? undefined
            : (error) => {
                this.written++
                if (error === undefined || error === null) resolve()
                else reject(new Disconnected(this.settings.redact(lineOf(error)), { cause: error }))
              },
        )
      })
      this.socket.uncork()
      if (last < 0) resolve()
    })
  }

  /** Sends a ping and returns its number. A server may answer only the latest of several (RFC 6455, 5.5.3). */
  ping(): number {
    if (!this.isOpen) return this.pings
    this.ws.ping(Buffer.from(`${this.pingPrefix}${++this.pings}`))
    this.watermark.pinged(this.pings)
    return this.pings
  }

  /**
   * Starts the closing handshake. The end follows within `closeMs` of reading. Messages that the server sends before
   * its answer are handed out.
   */
  close(): void {
    if (this.end !== undefined) return
    if (!this.isClosing) this.closedAt = this.clock.monotonic()
    this.isClosing = true
    this.ws.close(1000)
  }

  /** Cuts the connection at once. */
  cut(why: string): void {
    if (this.end !== undefined) return
    this.cutReason ??= why
    this.ws.terminate()
  }

  /** Answers one ping at a time. Of those that arrive meanwhile, only the latest is answered (RFC 6455, 5.5.3). */
  private queuePong(ping: Buffer): void {
    const answering = this.unansweredPing !== undefined
    // The buffer belongs to the library.
    this.unansweredPing = Buffer.from(ping)
    if (!answering)
      setImmediate(() => {
        this.sendPong()
      })
  }

  private sendPong(): void {
    const { unansweredPing } = this
    if (unansweredPing === undefined || !this.isOpen) return
    this.ws.pong(unansweredPing, undefined, () => {
      if (this.unansweredPing === unansweredPing) this.unansweredPing = undefined
      else this.sendPong()
    })
  }

  private onPong(data: Buffer): void {
    const text = data.toString('latin1')
    if (!text.startsWith(this.pingPrefix)) return
    const ping = Number(text.slice(this.pingPrefix.length))
    this.watermark.answered(ping)
    this.handlers.pong?.(ping)
  }

  private tick(): void {
    if (this.end !== undefined || this.isPaused) return
    const due = this.deadlines.tick(this.clock.monotonic(), {
      received: this.handlers.received(),
      written: this.written,
      open: this.isOpen,
      violated: this.protocolError !== undefined,
    })
    switch (due.what) {
      case 'nothing':
        return
      case 'ping':
        this.ping()
        return
      case 'cut':
        this.cut(due.why)
    }
  }

  private finish(code: number, reason: Buffer): void {
    for (const timer of this.timers) timer.stop()
    const { redact, maxMessage } = this.settings
    const { protocolError, socketError } = this
    const tooLarge = (protocolError as NodeJS.ErrnoException | undefined)?.code === TOO_LARGE
    const why = tooLarge
      ? `closed here: a message larger than ${formatSize(maxMessage)}`
      : protocolError !== undefined
        ? `closed here: ${redact(lineOf(protocolError))}`
        : (this.cutReason ??
          (this.isClosing
            ? 'closed here'
            : code === 1006 && socketError !== undefined
              ? redact(lineOf(socketError))
              : closeText(code, reason, redact, this.endedByPeer)))
    // The answer to our close follows all that was sent before it.
    if (code !== 1006 && this.isClosing) this.watermark.advance(this.closedAt)
    this.end = {
      error: new Disconnected(
        why,
        protocolError === undefined && socketError === undefined ? {} : { cause: protocolError ?? socketError },
      ),
      why,
      code,
      tooLarge,
    }
    this.handlers.ended(this.end)
  }
}
