/**
 * Until when nothing is missing of what the server has sent over a connection: what a gap begins with.
 *
 * - A turn of the event loop that looks at the socket and finds nothing has read all that had come before it. All that
 *   was sent by the time at which the last of it came is here; later silence tells only where the server itself has
 *   ended the connection, for what is broken is as silent.
 * - That says nothing where much was waiting (this process was stopped or busy, reading was paused): the rest of it may
 *   be held up at the server. There only an answer counts to a ping that was sent after it; where no pings are to be
 *   sent, some time in which the backlog has come.
 * - An answer to a ping, or to our close, comes behind all that was sent before the server read it.
 *
 * Moments are of the monotonic clock.
 */
/** No two looks within this: each costs two turns of the event loop. */
const MIN_PROBE_MS = 20
/** How often to look at the least: a gap is told longer than it was by so much. */
export const PROBE_MS = 100
/** So long without a look that found nothing, and so much read meanwhile: it may not have been all. */
const BACKLOG_MS = 300
const BACKLOG_BYTES = 64 * 1024
/** For this long it is not asked again. */
const BACKLOG_TIMEOUT_MS = 1000

export interface WatermarkContext {
  monotonic(): number
  /** Bytes read off the socket so far. */
  bytesRead(): number
  /** Nothing can be said now: reading is paused, or what was read is still being unpacked. */
  isBusy(): boolean
  /** Sends a ping; undefined: none is to be sent. */
  ping(): number | undefined
  /** All that the server sent until then has been handed out. */
  advanced(at: number): void
  /** Calls back in the next turn of the event loop, after its look at the sockets. */
  nextTurn(run: () => void): void
}

export class ReceiveWatermark {
  /** Nothing is missing that was sent until then. */
  at: number
  /** The same, where the server was still there by then, as its end of the connection shows. */
  quietAt: number
  private lastArrivalAt: number
  /** Read by `quietAt`. */
  private bytesAtQuiet: number
  private isProbing = false
  private backlog: { readonly ping: number | undefined; readonly askedAt: number } | undefined
  /** When the pings were sent that were not answered yet. */
  private readonly pingSentAt = new Map<number, number>()

  constructor(private readonly context: WatermarkContext) {
    this.at = this.quietAt = this.lastArrivalAt = context.monotonic()
    this.bytesAtQuiet = context.bytesRead()
  }

  /** Something has come in this turn of the event loop. */
  arrived(): void {
    this.lastArrivalAt = this.context.monotonic()
    this.probe()
  }

  probe(): void {
    const { context } = this
    if (this.isProbing || context.isBusy() || context.monotonic() - this.quietAt < MIN_PROBE_MS) return
    this.isProbing = true
    // The turn that is under way may have looked already.
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

  /** What was sent until then has come. */
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
