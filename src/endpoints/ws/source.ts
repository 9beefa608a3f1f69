/**
 * A feed. What arrives while nobody reads waits, bounded, then the connection is paused; what arrived before an end is
 * read before the end is told.
 */
import { within } from '../../core/batch'
import type { Delivery, Source, SourceContext } from '../../core/contract'
import { Disconnected, Refused, type ManifoldError } from '../../core/errors'
import { formatSize } from '../../kit/sizes'
import { Wake, linkedAbort, unlessAborted } from '../../kit/signal'
import type { CreateSource, Target } from '../../options/define'
import { Expect, jsonPick } from './expect'
import type { Taken } from './inbox'
import { FEED, Lane, messageBytes } from './lane'
import type { WsOptions } from './options'
import { settingsOf } from './settings'
import { Dedupe, keepSwapping } from './swap'

/** Connections in a row whose first message is too large to be taken: opening again will not help. */
const HOPELESS = 3
/** How long a server has to answer our close when we leave. */
const LEAVE_MS = 1000
/** How long it has when a connection is replaced, or after it closed itself. */
const CLOSE_MS = 5000

/** What a connection's end says where nothing else was wrong. */
const CLOSED = 'closed here'

/** A date, and by the monotonic clock where it is of this process. */
interface Instant {
  readonly date: number
  readonly moment?: number
}

export const create: CreateSource<WsOptions> = (target) => new FeedSource(target)

class FeedSource implements Source {
  private readonly wake = new Wake()
  /**
   * In the order in which they are read: more than one during an overlap, or where an earlier connection was closed
   * before all of it was read.
   */
  private lanes: Lane[] = []
  private epoch = 0
  private ctx: SourceContext | undefined
  private life: ReturnType<typeof linkedAbort> | undefined
  private swapping: Promise<void> = Promise.resolve()
  /** Nothing before `from` is missing; what comes after it is, until a connection is open. */
  private lost: { readonly from: Instant; readonly why: string } | undefined
  private begun = false
  /** Somebody waits in `read`: all that it returned before has been taken. */
  private reading = false
  private bug: { readonly error: unknown } | undefined
  private tooLarge = 0
  private readonly dedupe: Dedupe | undefined
  private readonly expect: Expect | undefined

  constructor(private readonly target: Target<WsOptions>) {
    const { dedupe, expect, overlap } = target.options
    this.dedupe = dedupe === undefined ? undefined : new Dedupe(jsonPick(dedupe), overlap)
    this.expect = expect === undefined ? undefined : new Expect(jsonPick(expect))
  }

  async open(ctx: SourceContext): Promise<void> {
    this.ctx = ctx
    const life = (this.life = linkedAbort(ctx.signal))
    const { signal } = life.controller
    if (this.target.options.tlsInsecure)
      ctx.log.warn(
        "tls-insecure: the server's certificate is not checked; whoever sits between can read and change everything",
      )
    const lane = await this.connect(signal)
    if (signal.aborted) {
      await lane.close(0)
      signal.throwIfAborted()
    }
    if (this.lanes.length === 0) {
      // Durable records of an earlier run end at `lastReceivedAt`.
      const lost =
        this.lost ??
        (this.begun || ctx.lastReceivedAt === undefined
          ? undefined
          : { from: { date: ctx.lastReceivedAt }, why: 'restart' })
      if (lost !== undefined) this.gap(lost.from, this.instant(lane.openedAt), lost.why)
      ctx.complete?.(this.instant(lane.openedAt).date)
    }
    this.lost = undefined
    this.begun = true
    this.dedupe?.reset()
    this.join(lane)
    const { reconnectEvery, overlap } = this.target.options
    if (reconnectEvery > 0) {
      this.swapping = keepSwapping(
        {
          everyMs: reconnectEvery,
          overlapMs: overlap,
          clock: ctx.clock,
          log: ctx.log,
          dedupe: this.dedupe,
          open: (during) => this.connect(during),
          join: (next) => {
            this.join(next)
          },
          leave: (next) => {
            this.leave(next)
          },
        },
        lane,
        signal,
      ).catch((error: unknown) => {
        if (signal.aborted) return
        this.bug = { error }
        this.wake.wake()
      })
    }
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    this.reading = true
    try {
      return await this.nextDelivery(signal)
    } finally {
      this.reading = false
    }
  }

  private async nextDelivery(signal: AbortSignal): Promise<Delivery> {
    this.tellComplete()
    for (;;) {
      signal.throwIfAborted()
      if (this.bug !== undefined) throw this.bug.error
      const delivery = this.next()
      if (delivery !== undefined) return delivery
      const lane = this.lanes[0]
      if (lane === undefined) throw new Disconnected('not connected')
      if (lane.end !== undefined && lane.empty && this.lanes.length === 1) throw this.ending(lane)
      await unlessAborted(this.wake.wait(), signal)
    }
  }

  async commit(): Promise<void> {
    /* A feed knows no positions. */
  }

  async close(_last?: boolean, why?: string): Promise<void> {
    const { life } = this
    this.life = undefined
    life?.controller.abort(new Disconnected('closed here'))
    life?.dispose()
    await this.swapping
    await Promise.all(this.lanes.map((lane) => lane.close(LEAVE_MS)))
    // What has arrived and was not read is read after the next opening.
    const last = this.lanes.at(-1)
    if (last === undefined || this.lanes.some((lane) => !lane.empty)) return
    const told = last.end?.why ?? CLOSED
    this.lost ??= {
      from: this.instant(last.drainedAt),
      why: told === CLOSED && why !== undefined ? `${CLOSED}: ${why}` : told,
    }
    this.lanes = []
  }

  private async connect(signal: AbortSignal): Promise<Lane> {
    const given = await this.target.resolve()
    // Up to twice the limit a message can still be told from others and kept as a dead letter; the library has no way
    // to skip one.
    const { maxRecord, framing } = given.options
    const { clock } = this.ctx ?? notOpen()
    return Lane.open(
      {
        settings: await settingsOf(given, 2 * messageBytes({ maxRecord, framing }), CLOSE_MS),
        maxRecord,
        framing,
        epoch: ++this.epoch,
        clock,
        changed: () => {
          this.wake.wake()
        },
        completed: () => {
          this.tellComplete()
        },
      },
      signal,
    )
  }

  private join(lane: Lane): void {
    this.lanes.push(lane)
    this.ctx?.gauge('connections', this.lanes.length)
    this.wake.wake()
  }

  private leave(lane: Lane): void {
    this.lanes = this.lanes.filter((other) => other !== lane)
    this.ctx?.gauge('connections', this.lanes.length)
  }

  /** What the first lane has; the next lane's turn comes when all of it has been read. */
  private next(): Delivery | undefined {
    for (;;) {
      const lane = this.lanes[0]
      if (lane === undefined) return undefined
      const taken = lane.take()
      if (taken !== undefined) {
        const delivery = this.delivery(lane, taken)
        if (delivery !== undefined) return delivery
        continue
      }
      const after = this.lanes[1]
      if (lane.end === undefined || after === undefined) return undefined
      this.leave(lane)
      if (this.dedupe === undefined && lane.drainedAt >= after.openedAt) after.doubtful = after.received
      // Within an overlap the old one brought all until after the new one had opened; elsewhere, or where it was dead
      // already, something is missing between.
      if (lane.drainedAt < after.openedAt)
        this.gap(this.instant(lane.drainedAt), this.instant(after.openedAt), lane.end.why)
    }
  }

  private delivery(lane: Lane, { batch: received, unfit, receivedAt, release }: Taken): Delivery | undefined {
    let batch = received
    if (this.dedupe !== undefined) {
      batch = this.dedupe.pass(batch, lane.epoch, receivedAt)
      if (batch !== received) this.ctx?.gauge('duplicates-dropped', this.dedupe.dropped)
    }
    if (this.expect !== undefined) {
      for (const hole of this.expect.holes(batch, lane.partition)) this.ctx?.gap(hole)
      if (this.expect.unnumbered > 0) this.ctx?.gauge('unnumbered', this.expect.unnumbered)
    }
    const filtered = received.count - batch.count
    if (batch.count === 0 && unfit === undefined && filtered === 0) {
      release?.()
      return undefined
    }
    const before = lane.handed
    lane.handed += batch.count + (unfit === undefined ? 0 : 1)
    const last = String(lane.handed)
    const doubtful = Math.min(batch.count, Math.max(0, lane.doubtful - before))
    const skew = this.skew()
    return {
      batch,
      partition: lane.partition,
      last,
      at: within(batch.count, (index) => String(before + index + 1)),
      receivedAt: receivedAt + skew,
      ...(doubtful === 0 ? {} : { doubtful }),
      ...(filtered === 0 ? {} : { filtered }),
      ...(release === undefined ? {} : { release }),
      ...(unfit === undefined ? {} : { unfit: [{ ...unfit, position: last }] }),
    }
  }

  /** Why reading cannot go on; all that was received has been read. */
  private ending(lane: Lane): ManifoldError {
    const { end } = lane
    if (end === undefined) return new Disconnected('not connected')
    this.tooLarge = end.tooLarge && lane.received === 0 ? this.tooLarge + 1 : 0
    if (this.tooLarge < HOPELESS) return end.error
    return new Refused(
      `the first message of each connection is larger than twice max-record=${formatSize(this.target.options.maxRecord)}: give a larger one`,
      { cause: end.error },
    )
  }

  /** From the monotonic clock to the date. */
  private skew(): number {
    const { clock } = this.ctx ?? notOpen()
    return clock.now() - clock.monotonic()
  }

  private instant(moment: number): Instant {
    return { date: moment + this.skew(), moment }
  }

  private tellComplete(): void {
    const [lane] = this.lanes
    if (this.reading && lane !== undefined) this.ctx?.complete?.(this.instant(lane.completeAt).date)
  }

  private gap(from: Instant, to: Instant, why: string): void {
    // Asleep meanwhile, the machine's monotonic clock stood still; set back meanwhile, the date of then was too late.
    // The earlier is right, or tells too much.
    const begin = from.moment === undefined ? from.date : Math.min(from.date, from.moment + this.skew())
    const [earlier, later] = begin <= to.date ? [begin, to.date] : [to.date, begin]
    const seconds = Math.round(later - earlier) / 1000
    this.ctx?.gap({
      partition: FEED,
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
