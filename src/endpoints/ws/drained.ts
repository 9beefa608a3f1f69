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
const LEAST_MS = 20
/** How often to look at the least: a gap is told longer than it was by so much. */
export const LOOK_MS = 100
/** So long without a look that found nothing, and so much read meanwhile: it may not have been all. */
const LAG_MS = 300
const LAG_BYTES = 64 * 1024
/** For this long it is not asked again. */
const ASK_MS = 1000

export interface DrainedParts {
  monotonic(): number
  /** Bytes read off the socket so far. */
  bytes(): number
  /** Nothing can be said now: reading is paused, or what was read is still being unpacked. */
  busy(): boolean
  /** Sends a ping; undefined: none is to be sent. */
  ping(): number | undefined
  /** All that the server sent until then has been handed out. */
  drained(at: number): void
  /** Calls back in the next turn of the event loop, after its look at the sockets. */
  nextTurn(run: () => void): void
}

export class Drained {
  /** Nothing is missing that was sent until then. */
  at: number
  /** The same, where the server was still there by then, as its end of the connection shows. */
  quietAt: number
  private heardAt: number
  /** Read by `quietAt`. */
  private bytes: number
  private looking = false
  private lag: { readonly ping: number | undefined; readonly askedAt: number } | undefined
  /** When the pings were sent that were not answered yet. */
  private readonly sent = new Map<number, number>()

  constructor(private readonly parts: DrainedParts) {
    this.at = this.quietAt = this.heardAt = parts.monotonic()
    this.bytes = parts.bytes()
  }

  /** Something has come in this turn of the event loop. */
  arrived(): void {
    this.heardAt = this.parts.monotonic()
    this.look()
  }

  look(): void {
    const { parts } = this
    if (this.looking || parts.busy() || parts.monotonic() - this.quietAt < LEAST_MS) return
    this.looking = true
    // The turn that is under way may have looked already.
    parts.nextTurn(() => {
      const at = parts.monotonic()
      const bytes = parts.bytes()
      parts.nextTurn(() => {
        this.looking = false
        if (!parts.busy() && parts.bytes() === bytes) this.foundNothing(at, bytes)
      })
    })
  }

  pinged(ping: number): void {
    this.sent.set(ping, this.parts.monotonic())
  }

  answered(ping: number): void {
    const at = this.sent.get(ping)
    for (const earlier of this.sent.keys()) if (earlier <= ping) this.sent.delete(earlier)
    if (this.lag?.ping !== undefined && ping >= this.lag.ping) this.lag = undefined
    if (at !== undefined) this.until(at)
  }

  /** What was sent until then has come. */
  until(at: number): void {
    this.quietAt = Math.max(this.quietAt, at)
    this.bytes = this.parts.bytes()
    if (at <= this.at) return
    this.at = at
    this.parts.drained(at)
  }

  private foundNothing(at: number, bytes: number): void {
    const { parts } = this
    if (this.lag === undefined && at - this.quietAt > LAG_MS && bytes - this.bytes >= LAG_BYTES) {
      const ping = parts.ping()
      this.lag = { ping, askedAt: at }
    }
    if (this.lag !== undefined) {
      if (this.lag.ping !== undefined || at - this.lag.askedAt < ASK_MS) return
      this.lag = undefined
    }
    this.quietAt = at
    this.until(Math.min(at, this.heardAt))
  }
}
