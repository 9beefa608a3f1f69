/**
 * Tracks the time until which nothing that the server sent over a connection is missing. A gap begins at this
 * watermark.
 *
 * - If a turn of the event loop finds the socket empty, all that arrived before has been read. So all that was sent
 *   until the last arrival is here. Later silence proves nothing, because a broken connection is silent as well, unless
 *   the server itself has ended the connection.
 * - An empty socket proves nothing after a backlog (this process was stopped or busy, or reading was paused), because
 *   the server may still hold the rest. Then only the answer to a later ping counts, or some time if no pings are sent.
 * - The answer to a ping, or to our close, follows all that was sent before the server read it.
 *
 * Times are of the monotonic clock.
 */
/** Two probes are at least this far apart, because each costs two turns of the event loop. */
const MIN_PROBE_MS = 20
/** The socket is probed at least this often. A gap is reported longer than it was by at most this time. */
export const PROBE_MS = 100
/** After this time without an empty probe, and with this many bytes read meanwhile, there may be a backlog. */
const BACKLOG_MS = 300
const BACKLOG_BYTES = 64 * 1024
/** Without pings a backlog counts as read after this time. */
const BACKLOG_TIMEOUT_MS = 1000

export interface WatermarkContext {
  monotonic(): number
  /** Returns the number of bytes read from the socket. */
  bytesRead(): number
  /** Tells whether nothing can be known now, because reading is paused or data is still being decompressed. */
  isBusy(): boolean
  /** Sends a ping, or returns undefined if none may be sent. */
  ping(): number | undefined
  /** All that the server sent until this time has been handed out. */
  advanced(at: number): void
  /** Calls back in the next turn of the event loop, after it has polled the sockets. */
  nextTurn(run: () => void): void
}

export class ReceiveWatermark {
  /** Nothing that was sent until this time is missing. */
  at: number
  /** The same, if the server was still alive at that time, as its own close of the connection proves. */
  quietAt: number
  private lastArrivalAt: number
  /** The bytes read until `quietAt`. */
  private bytesAtQuiet: number
  private isProbing = false
  private backlog: { readonly ping: number | undefined; readonly askedAt: number } | undefined
  /** The times at which unanswered pings were sent. */
  private readonly pingSentAt = new Map<number, number>()

  constructor(private readonly context: WatermarkContext) {
    this.at = this.quietAt = this.lastArrivalAt = context.monotonic()
    this.bytesAtQuiet = context.bytesRead()
  }

  /** Something has arrived in this turn of the event loop. */
  arrived(): void {
    this.lastArrivalAt = this.context.monotonic()
    this.probe()
  }

  probe(): void {
    const { context } = this
    if (this.isProbing || context.isBusy() || context.monotonic() - this.quietAt < MIN_PROBE_MS) return
    this.isProbing = true
    // The current turn may have polled already.
    context.nextTurn(() => {
      const at = context.monotonic()
      const bytes = context.bytesRead()
      context.nextTurn(() => {
        this.isProbing = false
        if (!context.isBusy() && context.bytesRead() === bytes) this.probedEmpty(at, bytes)
      })
    })
  }

  pinged(ping: number): void {
    this.pingSentAt.set(ping, this.context.monotonic())
  }

  answered(ping: number): void {
    const at = this.pingSentAt.get(ping)
    for (const earlier of this.pingSentAt.keys()) if (earlier <= ping) this.pingSentAt.delete(earlier)
    if (this.backlog?.ping !== undefined && ping >= this.backlog.ping) this.backlog = undefined
    if (at !== undefined) this.advance(at)
  }

  /** All that was sent until this time has arrived. */
  advance(at: number): void {
    this.quietAt = Math.max(this.quietAt, at)
    this.bytesAtQuiet = this.context.bytesRead()
    if (at <= this.at) return
    this.at = at
    this.context.advanced(at)
  }

  private probedEmpty(at: number, bytes: number): void {
    const { context } = this
    if (this.backlog === undefined && at - this.quietAt > BACKLOG_MS && bytes - this.bytesAtQuiet >= BACKLOG_BYTES) {
      const ping = context.ping()
      this.backlog = { ping, askedAt: at }
    }
    if (this.backlog !== undefined) {
      if (this.backlog.ping !== undefined || at - this.backlog.askedAt < BACKLOG_TIMEOUT_MS) return
      this.backlog = undefined
    }
    this.quietAt = at
    this.advance(Math.min(at, this.lastArrivalAt))
  }
}
