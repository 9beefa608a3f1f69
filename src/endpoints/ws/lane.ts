/** A connection and what it has received: one epoch of the feed. */
import { envelopeBytes } from '../../codec/envelope'
import type { Clock, Partition } from '../../core/contract'
import type { Framing } from '../../options/shared'
import { connect, type End, type Link } from './client'
import { unwrapped } from './envelope'
import { INBOX_BOUND, Inbox, type Taken } from './inbox'
import type { Settings } from './settings'

export const FEED = 'feed'

export interface LaneParts {
  readonly settings: Settings
  /** Bytes of a record. */
  readonly maxRecord: number
  readonly framing: Framing
  readonly epoch: number
  readonly clock: Clock
  /** Something to read, or the end. */
  changed(): void
  /** `completeAt` has grown while nothing waited to be read. */
  completed(): void
}

/** Largest message that can hold a record. */
export function messageBytes({ framing, maxRecord }: Pick<LaneParts, 'framing' | 'maxRecord'>): number {
  return framing === 'envelope' ? envelopeBytes(maxRecord) : maxRecord
}

export class Lane {
  readonly partition: Partition
  /** By the monotonic clock, as all moments here. */
  readonly openedAt: number
  /** All that the server sent until then has been handed out. */
  completeAt: number
  /** What is complete once so many messages have been taken. */
  private mark: { readonly received: number; readonly at: number } | undefined
  /** Of the records, the first so many may have come over another connection as well. */
  doubtful = 0
  /** Records handed out. */
  handed = 0
  private ready: Taken[] = []

  private constructor(
    private readonly link: Link,
    private readonly inbox: Inbox,
    private readonly parts: LaneParts,
    private readonly over: Promise<End>,
  ) {
    this.partition = { name: FEED, epoch: parts.epoch }
    this.openedAt = this.completeAt = parts.clock.monotonic()
  }

  static async open(parts: LaneParts, signal: AbortSignal): Promise<Lane> {
    let finish: (end: End) => void = () => undefined
    const over = new Promise<End>((resolve) => {
      finish = resolve
    })
    let full = false
    let pause = (): void => undefined
    let arrived = (): void => undefined
    let drained: (at: number) => void = () => undefined
    const inbox = new Inbox({
      maxRecord: messageBytes(parts),
      now: () => parts.clock.monotonic(),
      full: () => {
        full = true
        pause()
      },
      arrived: () => {
        arrived()
        parts.changed()
      },
    })
    const link = await connect(
      parts.settings,
      {
        message: (data) => {
          inbox.add(data)
        },
        received: () => inbox.received,
        drained: (at) => {
          drained(at)
        },
        ended: (end) => {
          finish(end)
          parts.changed()
        },
      },
      parts.clock,
      signal,
    )
    pause = () => {
      link.pause()
    }
    // It may have been full before its opening was told.
    if (full) link.pause()
    arrived = () => {
      link.arrived()
    }
    const lane = new Lane(link, inbox, parts, over)
    drained = (at) => {
      lane.drained(at)
    }
    return lane
  }

  get epoch(): number {
    return this.parts.epoch
  }
  get end(): End | undefined {
    return this.link.ended
  }
  get ended(): Promise<End> {
    return this.over
  }
  get received(): number {
    return this.inbox.received
  }
  get empty(): boolean {
    return this.inbox.empty && this.ready.length === 0
  }
  /** More waits than may: the connection is paused. */
  get isFull(): boolean {
    return this.inbox.waiting >= INBOX_BOUND
  }
  /** Until when nothing that the server sent is missing. */
  get drainedAt(): number {
    return this.link.drainedAt
  }

  take(): Taken | undefined {
    const taken = this.takeNext()
    this.reach()
    return taken
  }

  private takeNext(): Taken | undefined {
    const ready = this.ready.shift()
    if (ready !== undefined) return ready
    const taken = this.inbox.take()
    if (this.inbox.waiting <= INBOX_BOUND / 2) this.link.resume()
    if (taken === undefined || this.parts.framing === 'lines') return taken
    this.ready = [...unwrapped(taken, this.parts.maxRecord)]
    return this.ready.shift()
  }

  private drained(at: number): void {
    this.mark ??= { received: this.inbox.received, at }
    if (this.reach()) this.mark = { received: this.inbox.received, at }
    if (this.reach()) this.parts.completed()
  }

  /** Whether all that is marked has been handed out. */
  private reach(): boolean {
    const { mark } = this
    if (mark === undefined) return true
    if (mark.received > this.inbox.taken || this.ready.length > 0) return false
    this.completeAt = mark.at
    this.mark = undefined
    return true
  }

  /** By the closing handshake, waiting for its end; not for longer than `ms` if given. */
  async close(ms?: number): Promise<void> {
    this.link.close()
    if (ms === undefined) {
      await this.over
      return
    }
    const timer = new AbortController()
    await Promise.race([
      this.over,
      this.parts.clock.sleep(ms, timer.signal).catch(() => undefined /* it rejects only when told to end */),
    ])
    timer.abort(new Error('closed'))
    this.link.cut('closed here')
    await this.over
  }
}
