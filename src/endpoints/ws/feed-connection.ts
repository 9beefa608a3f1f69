/** Combines a connection with the messages that it has received. It is one epoch of the feed. */
import { envelopeBytes } from '../../codec/envelope'
import type { Clock, Partition } from '../../core/contract'
import type { Framing } from '../../options/shared'
import { connect, type ConnectionEnd, type Connection } from './client'
import { decodeEnvelopes } from './envelope'
import { MAX_BUFFERED, MessageBuffer, type ReceivedBatch } from './message-buffer'
import type { Settings } from './settings'

export const PARTITION_NAME = 'feed'

export interface SourceConnectionContext {
  readonly settings: Settings
  /** The largest size of a record. */
  readonly maxRecord: number
  readonly framing: Framing
  readonly epoch: number
  readonly clock: Clock
  /** There is something to read, or the connection has ended. */
  changed(): void
  /** `completeAt` has grown while nothing was waiting to be read. */
  completed(): void
}

/** Returns the size of the largest message that can contain a record. */
export function maxMessageBytes({
  framing,
  maxRecord,
}: Pick<SourceConnectionContext, 'framing' | 'maxRecord'>): number {
  return framing === 'envelope' ? envelopeBytes(maxRecord) : maxRecord
}

export class SourceConnection {
  readonly partition: Partition
  /** The time of the opening. All times here are of the monotonic clock. */
  readonly openedAt: number
  /** All that the server sent until this time has been handed out. */
  completeAt: number
  /** The next value of `completeAt`, once this many messages have been taken. */
  private pendingWatermark: { readonly received: number; readonly at: number } | undefined
  /** This many of the first records may have come over another connection as well. */
  doubtful = 0
  /** Counts the records that were handed out. */
  handedOut = 0
  private decoded: ReceivedBatch[] = []

  private constructor(
    private readonly connection: Connection,
    private readonly buffer: MessageBuffer,
    private readonly context: SourceConnectionContext,
    private readonly endedPromise: Promise<ConnectionEnd>,
  ) {
    this.partition = { name: PARTITION_NAME, epoch: context.epoch }
    this.openedAt = this.completeAt = context.clock.monotonic()
  }

  static async open(context: SourceConnectionContext, signal: AbortSignal): Promise<SourceConnection> {
    let finish: (end: ConnectionEnd) => void = () => undefined
    const endedPromise = new Promise<ConnectionEnd>((resolve) => {
      finish = resolve
    })
    let full = false
    let pause = (): void => undefined
    let arrived = (): void => undefined
    let watermark: (at: number) => void = () => undefined
    const buffer = new MessageBuffer({
      maxRecord: maxMessageBytes(context),
      now: () => context.clock.monotonic(),
      full: () => {
        full = true
        pause()
      },
      arrived: () => {
        arrived()
        context.changed()
      },
    })
    const connection = await connect(
      context.settings,
      {
        message: (data) => {
          buffer.add(data)
        },
        received: () => buffer.received,
        receivedUntil: (at) => {
          watermark(at)
        },
        ended: (end) => {
          finish(end)
          context.changed()
        },
      },
      context.clock,
      signal,
    )
    pause = () => {
      connection.pause()
    }
    // The buffer may have been full before `connect` resolved.
    if (full) connection.pause()
    arrived = () => {
      connection.arrived()
    }
    const opened = new SourceConnection(connection, buffer, context, endedPromise)
    watermark = (at) => {
      opened.onReceivedUntil(at)
    }
    return opened
  }

  get epoch(): number {
    return this.context.epoch
  }
  get end(): ConnectionEnd | undefined {
    return this.connection.ended
  }
  get ended(): Promise<ConnectionEnd> {
    return this.endedPromise
  }
  get received(): number {
    return this.buffer.received
  }
  get empty(): boolean {
    return this.buffer.empty && this.decoded.length === 0
  }
  /** Tells whether the buffer is full, so that the connection is paused. */
  get isFull(): boolean {
    return this.buffer.bufferedBytes >= MAX_BUFFERED
  }
  /** Returns the time until which nothing that the server sent is missing. */
  get receivedUntil(): number {
    return this.connection.receivedUntil
  }

  take(): ReceivedBatch | undefined {
    const taken = this.takeBuffered()
    this.advance()
    return taken
  }

  private takeBuffered(): ReceivedBatch | undefined {
    const ready = this.decoded.shift()
    if (ready !== undefined) return ready
    const taken = this.buffer.take()
    if (this.buffer.bufferedBytes <= MAX_BUFFERED / 2) this.connection.resume()
    if (taken === undefined || this.context.framing === 'lines') return taken
    this.decoded = [...decodeEnvelopes(taken, this.context.maxRecord)]
    return this.decoded.shift()
  }

  private onReceivedUntil(at: number): void {
    this.pendingWatermark ??= { received: this.buffer.received, at }
    if (this.advance()) this.pendingWatermark = { received: this.buffer.received, at }
    if (this.advance()) this.context.completed()
  }

  /** Advances `completeAt` if the pending watermark is reached, and tells whether it is. */
  private advance(): boolean {
    const { pendingWatermark } = this
    if (pendingWatermark === undefined) return true
    if (pendingWatermark.received > this.buffer.taken || this.decoded.length > 0) return false
    this.completeAt = pendingWatermark.at
    this.pendingWatermark = undefined
    return true
  }

  /** Closes the connection and waits for its end, at most for `ms` if that is given. */
  async close(ms?: number): Promise<void> {
    this.connection.close()
    if (ms === undefined) {
      await this.endedPromise
      return
    }
    const timer = new AbortController()
    await Promise.race([
      this.endedPromise,
      this.context.clock.sleep(ms, timer.signal).catch(() => undefined /* it rejects only when it is aborted */),
    ])
    timer.abort(new Error('closed'))
    this.connection.cut('closed here')
    await this.endedPromise
  }
}
