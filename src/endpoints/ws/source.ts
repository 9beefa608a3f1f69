/**
 * Reads a feed. Messages that arrive while nobody reads are buffered, and the connection is paused when the buffer is
 * full. Messages that arrived before an end are returned before the end is reported.
 */
import { within } from '../../core/batch'
import type { Delivery, Source, SourceContext } from '../../core/contract'
import { Disconnected, Refused, type ManifoldError } from '../../core/errors'
import { formatSize } from '../../kit/sizes'
import { Notifier, linkedAbort, unlessAborted } from '../../kit/signal'
import type { CreateSource, Target } from '../../options/define'
import { SequenceCheck, jsonMemberPicker } from './expect'
import type { ReceivedBatch } from './message-buffer'
import { PARTITION_NAME, SourceConnection, maxMessageBytes } from './feed-connection'
import type { WsOptions } from './options'
import { settingsOf } from './settings'
import { Deduplicator, keepReplacing } from './replacement'

/** After this many connections in a row whose first message is too large, another opening will not help. */
const MAX_TOO_LARGE = 3
/** A server has this long to answer our last close. */
const FINAL_CLOSE_MS = 1000
/** A server has this long when a connection is replaced, or after it has closed itself. */
const CLOSE_MS = 5000

/** The end of a connection has this text if nothing was wrong. */
const CLOSED_HERE = 'closed here'

/** A date, with the time of the monotonic clock if it was taken in this process. */
interface Instant {
  readonly date: number
  readonly monotonic?: number
}

export const create: CreateSource<WsOptions> = (target) => new WebSocketSource(target)

class WebSocketSource implements Source {
  private readonly notifier = new Notifier()
  /**
   * The connections in the order of reading. There are several during an overlap, or if an earlier one was closed
   * before all of it was read.
   */
  private connections: SourceConnection[] = []
  private epoch = 0
  private ctx: SourceContext | undefined
  private lifetime: ReturnType<typeof linkedAbort> | undefined
  private replacing: Promise<void> = Promise.resolve()
  /** Messages from `from` on are missing until a connection is open again. */
  private pendingGap: { readonly from: Instant; readonly why: string } | undefined
  private isOpenedBefore = false
  /** `read` is waiting, so all that it returned before has been taken. */
  private isReading = false
  private replacementError: { readonly error: unknown } | undefined
  private tooLargeInARow = 0
  private readonly dedupe: Deduplicator | undefined
  private readonly sequenceCheck: SequenceCheck | undefined

  constructor(private readonly target: Target<WsOptions>) {
    const { dedupe: deduplicator, expect, overlap } = target.options
    this.dedupe = deduplicator === undefined ? undefined : new Deduplicator(jsonMemberPicker(deduplicator), overlap)
    this.sequenceCheck = expect === undefined ? undefined : new SequenceCheck(jsonMemberPicker(expect))
  }

  async open(ctx: SourceContext): Promise<void> {
    this.ctx = ctx
    const lifetime = (this.lifetime = linkedAbort(ctx.signal))
    const { signal } = lifetime.controller
    if (this.target.options.tlsInsecure)
      ctx.log.warn(
        "tls-insecure: the server's certificate is not checked; whoever sits between can read and change everything",
      )
    const connection = await this.connect(signal)
    if (signal.aborted) {
      await connection.close(0)
      signal.throwIfAborted()
    }
    if (this.connections.length === 0) {
      // The durable records of an earlier run end at `lastReceivedAt`.
      const lost =
        this.pendingGap ??
        (this.isOpenedBefore || ctx.lastReceivedAt === undefined
          ? undefined
          : { from: { date: ctx.lastReceivedAt }, why: 'restart' })
      if (lost !== undefined) this.gap(lost.from, this.instant(connection.openedAt), lost.why)
      ctx.complete?.(this.instant(connection.openedAt).date)
    }
    this.pendingGap = undefined
    this.isOpenedBefore = true
    this.dedupe?.reset()
    this.addConnection(connection)
    const { reconnectEvery, overlap } = this.target.options
    if (reconnectEvery > 0) {
      this.replacing = keepReplacing(
        {
          everyMs: reconnectEvery,
          overlapMs: overlap,
          clock: ctx.clock,
          log: ctx.log,
          deduplicator: this.dedupe,
          open: (during) => this.connect(during),
          add: (next) => {
            this.addConnection(next)
          },
          remove: (next) => {
            this.removeConnection(next)
          },
        },
        connection,
        signal,
      ).catch((error: unknown) => {
        if (signal.aborted) return
        this.replacementError = { error }
        this.notifier.notify()
      })
    }
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    this.isReading = true
    try {
      return await this.nextDelivery(signal)
    } finally {
      this.isReading = false
    }
  }

  private async nextDelivery(signal: AbortSignal): Promise<Delivery> {
    this.reportComplete()
    for (;;) {
      signal.throwIfAborted()
      if (this.replacementError !== undefined) throw this.replacementError.error
      const delivery = this.next()
      if (delivery !== undefined) return delivery
      const connection = this.connections[0]
      if (connection === undefined) throw new Disconnected('not connected')
      if (connection.end !== undefined && connection.empty && this.connections.length === 1)
        throw this.ending(connection)
      await unlessAborted(this.notifier.wait(), signal)
    }
  }

  async commit(): Promise<void> {
    /* A feed has no positions. */
  }

  async close(_last?: boolean, why?: string): Promise<void> {
    const { lifetime } = this
    this.lifetime = undefined
    lifetime?.controller.abort(new Disconnected('closed here'))
    lifetime?.dispose()
    await this.replacing
    await Promise.all(this.connections.map((connection) => connection.close(FINAL_CLOSE_MS)))
    // Messages that have arrived and were not read are read after the next opening.
    const last = this.connections.at(-1)
    if (last === undefined || this.connections.some((connection) => !connection.empty)) return
    const reason = last.end?.why ?? CLOSED_HERE
    this.pendingGap ??= {
      from: this.instant(last.receivedUntil),
      why: reason === CLOSED_HERE && why !== undefined ? `${CLOSED_HERE}: ${why}` : reason,
    }
    this.connections = []
  }

  private async connect(signal: AbortSignal): Promise<SourceConnection> {
    const given = await this.target.resolve()
    // A message up to twice the limit is received and becomes a dead letter. The library cannot skip a message.
    const { maxRecord, framing } = given.options
    const { clock } = this.ctx ?? notOpen()
    return SourceConnection.open(
      {
        settings: await settingsOf(given, 2 * maxMessageBytes({ maxRecord, framing }), CLOSE_MS),
        maxRecord,
        framing,
        epoch: ++this.epoch,
        clock,
        changed: () => {
          this.notifier.notify()
        },
        completed: () => {
          this.reportComplete()
        },
      },
      signal,
    )
  }

  private addConnection(connection: SourceConnection): void {
    this.connections.push(connection)
    this.ctx?.gauge('connections', this.connections.length)
    this.notifier.notify()
  }

  private removeConnection(connection: SourceConnection): void {
    this.connections = this.connections.filter((other) => other !== connection)
    this.ctx?.gauge('connections', this.connections.length)
  }

  /** Returns records of the first connection. The next connection follows when all of the first has been read. */
  private next(): Delivery | undefined {
    for (;;) {
      const connection = this.connections[0]
      if (connection === undefined) return undefined
      const taken = connection.take()
      if (taken !== undefined) {
        const delivery = this.delivery(connection, taken)
        if (delivery !== undefined) return delivery
        continue
      }
      const after = this.connections[1]
      if (connection.end === undefined || after === undefined) return undefined
      this.removeConnection(connection)
      if (this.dedupe === undefined && connection.receivedUntil >= after.openedAt) after.doubtful = after.received
      // During an overlap the old connection received everything until after the new one had opened. Otherwise, or if
      // the old one was already dead, records between them are missing.
      if (connection.receivedUntil < after.openedAt)
        this.gap(this.instant(connection.receivedUntil), this.instant(after.openedAt), connection.end.why)
    }
  }

  private delivery(
    connection: SourceConnection,
    { batch: received, invalid, receivedAt, release }: ReceivedBatch,
  ): Delivery | undefined {
    let batch = received
    if (this.dedupe !== undefined) {
      batch = this.dedupe.filter(batch, connection.epoch, receivedAt)
      if (batch !== received) this.ctx?.gauge('duplicates-dropped', this.dedupe.dropped)
    }
    if (this.sequenceCheck !== undefined) {
      for (const hole of this.sequenceCheck.gaps(batch, connection.partition)) this.ctx?.gap(hole)
      if (this.sequenceCheck.unnumbered > 0) this.ctx?.gauge('unnumbered', this.sequenceCheck.unnumbered)
    }
    const filtered = received.count - batch.count
    if (batch.count === 0 && invalid === undefined && filtered === 0) {
      release?.()
      return undefined
    }
    const before = connection.handedOut
    connection.handedOut += batch.count + (invalid === undefined ? 0 : 1)
    const last = String(connection.handedOut)
    const doubtful = Math.min(batch.count, Math.max(0, connection.doubtful - before))
    const skew = this.clockOffset()
    return {
      batch,
      partition: connection.partition,
      last,
      at: within(batch.count, (index) => String(before + index + 1)),
      receivedAt: receivedAt + skew,
      ...(doubtful === 0 ? {} : { doubtful }),
      ...(filtered === 0 ? {} : { filtered }),
      ...(release === undefined ? {} : { release }),
      ...(invalid === undefined ? {} : { invalid: [{ ...invalid, position: last }] }),
    }
  }

  /** Returns why reading cannot go on, after everything was read. */
  private ending(connection: SourceConnection): ManifoldError {
    const { end } = connection
    if (end === undefined) return new Disconnected('not connected')
    this.tooLargeInARow = end.tooLarge && connection.received === 0 ? this.tooLargeInARow + 1 : 0
    if (this.tooLargeInARow < MAX_TOO_LARGE) return end.error
    return new Refused(
      `the first message of each connection is larger than twice max-record=${formatSize(this.target.options.maxRecord)}: give a larger one`,
      { cause: end.error },
    )
  }

  /** Returns the difference between the date and the monotonic clock. */
  private clockOffset(): number {
    const { clock } = this.ctx ?? notOpen()
    return clock.now() - clock.monotonic()
  }

  private instant(monotonic: number): Instant {
    return { date: monotonic + this.clockOffset(), monotonic }
  }

  private reportComplete(): void {
    const [connection] = this.connections
    if (this.isReading && connection !== undefined) this.ctx?.complete?.(this.instant(connection.completeAt).date)
  }

  private gap(from: Instant, to: Instant, why: string): void {
    // If the machine slept, its monotonic clock stood still. If the clock was set back, the earlier date is too late.
    // The earlier of the two is right, or makes the gap too long.
    const begin = from.monotonic === undefined ? from.date : Math.min(from.date, from.monotonic + this.clockOffset())
    const [earlier, later] = begin <= to.date ? [begin, to.date] : [to.date, begin]
    const seconds = Math.round(later - earlier) / 1000
    this.ctx?.gap({
      partition: PARTITION_NAME,
      from: new Date(earlier).toISOString(),
      to: new Date(later).toISOString(),
      why: begin <= to.date ? why : `${why} (the clock was set back meanwhile)`,
      seconds,
    })
  }
}

function notOpen(): never {
  throw new Error('connect before open')
}
