/**
 * Decides when a connection needs a ping and when it counts as dead. Its caller provides ticks, so it uses no clock and
 * no socket.
 */
import { formatDuration } from '../../kit/durations'
import type { Settings } from './settings'

/** After a protocol error only our close frame has to be sent. */
const VIOLATION_MS = 1000

export interface ConnectionState {
  /** The number of received messages. */
  readonly received: number
  /** The number of writes that the kernel has taken. */
  readonly written: number
  readonly open: boolean
  /** The peer broke the protocol, and we have closed. */
  readonly violated: boolean
}
export type DueAction = { readonly what: 'nothing' | 'ping' } | { readonly what: 'cut'; readonly why: string }
const NOTHING_DUE: DueAction = { what: 'nothing' }

export class Deadlines {
  /** The interval of ticks. */
  readonly everyMs: number
  private lastSignOfLifeAt: number
  private lastMessageAt: number
  private lastPingAt: number
  private pongDueFrom: number | undefined
  private closingSince: number | undefined
  private tickedAt: number
  private received = 0
  private written = 0

  constructor(
    private readonly settings: Pick<Settings, 'pingMs' | 'pongMs' | 'silenceMs' | 'closeMs'>,
    now: number,
  ) {
    this.lastSignOfLifeAt = this.lastMessageAt = this.lastPingAt = this.tickedAt = now
    const { pingMs, pongMs, silenceMs } = settings
    this.everyMs = Math.max(
      10,
      Math.min(1000, ...[pingMs, pongMs, silenceMs].filter((ms) => ms > 0).map((ms) => ms / 4)),
    )
  }

  heard(now: number): void {
    this.lastSignOfLifeAt = now
  }

  /** Reading goes on after a pause in which nothing could arrive. */
  resumed(now: number): void {
    this.lastMessageAt = now
    if (this.pongDueFrom !== undefined) this.pongDueFrom = now
    if (this.closingSince !== undefined) this.closingSince = now
    this.tickedAt = now
  }

  tick(now: number, { received, written, open, violated }: ConnectionState): DueAction {
    const late = now - this.tickedAt - 2 * this.everyMs
    this.tickedAt = now
    // A process that was busy or asleep has not read its sockets. So its own delay does not count as silence of the
    // peer.
    if (late > 0) {
      this.lastMessageAt += late
      if (this.pongDueFrom !== undefined) this.pongDueFrom += late
    }
    if (received !== this.received) {
      this.received = received
      this.lastMessageAt = this.lastSignOfLifeAt = now
    }
    const moved = written !== this.written
    this.written = written
    const { silenceMs, pingMs, pongMs, closeMs } = this.settings
    if (!open) {
      this.closingSince ??= now
      return now - this.closingSince > (violated ? VIOLATION_MS : closeMs)
        ? { what: 'cut', why: 'the closing handshake was not completed' }
        : NOTHING_DUE
    }
    if (silenceMs > 0 && now - this.lastMessageAt >= silenceMs)
      return { what: 'cut', why: `no message for ${formatDuration(silenceMs)} (silence=)` }
    if (this.pongDueFrom !== undefined) {
      // Anything that arrives is a sign of life. A slow server reads pending data before the ping.
      if (this.lastSignOfLifeAt >= this.pongDueFrom) this.pongDueFrom = undefined
      else if (moved) this.pongDueFrom = now
      else if (pongMs > 0 && now - this.pongDueFrom >= pongMs)
        return { what: 'cut', why: `no pong within ${formatDuration(pongMs)} (pong-timeout=)` }
    }
    if (pingMs === 0 || this.pongDueFrom !== undefined || now - this.lastPingAt < pingMs) return NOTHING_DUE
    this.lastPingAt = this.pongDueFrom = now
    return { what: 'ping' }
  }
}
