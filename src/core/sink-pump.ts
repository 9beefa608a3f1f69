/**
 * From a feed of records to one sink: submits and resubmits what the gatherer makes of it. Owns what an endpoint must
 * not: retry, order, deadlines.
 *
 * Invariants: a write that was submitted is submitted again, with the same id, bytes and boundaries, until its outcome
 * is known. A piece is settled once every record of it is confirmed, or is a dead letter that was confirmed elsewhere.
 * Settling is the only way anything is released.
 */
import { linkedAbort, Notifier } from '../kit/signal'
import { only } from './batch'
import type { Clock, EndpointContext, Log, Outcome, Sink, Write } from './contract'
import { Disconnected, Fatal, Throttled } from './errors'
import { Gatherer } from './gatherer'
import {
  add,
  bytesOf,
  held,
  nothing,
  originOf,
  sliceAt,
  Tracked,
  type Fate,
  type Feed,
  type Job,
  type Tally,
} from './job'
import type { DeadLetters } from './ports'
import { Rejects } from './rejects'
import type { Supervisor } from './supervisor'

/** As things stand, for progress; the ledger counts what was settled. */
export interface SinkCounts extends Tally {
  possibleDuplicates: number
  pending: number
}

export interface SinkPumpParts {
  readonly sink: Sink
  readonly id: string
  readonly feed: Feed
  readonly supervisor: Supervisor
  readonly deadLetters: DeadLetters
  readonly clock: Clock
  readonly log: Log
  readonly lingerMs: number
  readonly stallMs: number
  /** Aborts when the run is cut short. */
  readonly signal: AbortSignal
  /** A record was rejected and there is nowhere to put it (`policy: stop`). */
  readonly onUnplaced: (why: string) => void
  /** A write was confirmed. */
  readonly onProgress: () => void
  /** Resolves once it is known for good that something may have been written: awaited before the first write. */
  readonly beforeFirst?: () => Promise<void>
  /** Records that an earlier run may have written, and that come again. */
  readonly doubtful?: number
}

export class SinkPump {
  readonly counts: SinkCounts = { delivered: 0, rejected: 0, dropped: 0, possibleDuplicates: 0, bytes: 0, pending: 0 }
  private readonly wake = new Notifier()
  private readonly gatherer: Gatherer
  private readonly rejects: Rejects
  private again: Job[] = []
  /** Pieces of which something is settled and something is not. */
  private readonly partial = new Set<Tracked>()
  private readonly flying = new Map<Job, AbortController>()
  private ended = false
  private failure: { readonly error: unknown } | undefined
  private first: Promise<void> | undefined
  private fault: unknown
  private isOpen = false
  private lastMove: number
  private wakesAt = Infinity

  constructor(private readonly parts: SinkPumpParts) {
    const { sink, id, supervisor, lingerMs, clock, deadLetters, signal, onUnplaced } = parts
    this.lastMove = clock.monotonic()
    this.counts.possibleDuplicates = parts.doubtful ?? 0
    this.gatherer = new Gatherer({
      id,
      label: supervisor.label,
      limits: sink.limits,
      lingerMs,
      clock,
      wakeAfter: (ms) => {
        this.wakeAfter(ms)
      },
      refuse: (job, refused) => {
        void this.rejects.put(job, refused)
      },
    })
    this.rejects = new Rejects({
      deadLetters,
      label: supervisor.label,
      signal,
      counts: this.counts,
      onUnplaced,
      settled: (tracked, index, fate) => {
        this.settled(tracked, index, 1, fate, 0)
        this.tell(tracked)
      },
      fail: (error) => {
        this.failure ??= { error }
      },
      wake: () => {
        this.wake.notify()
      },
    })
  }

  /** Until the feed ends and all is settled, or throws what ends the run. Closes the sink on every path. */
  async run(): Promise<void> {
    const { supervisor, sink, signal, clock } = this.parts
    const stop = linkedAbort(signal)
    const onAbort = (): void => {
      this.wake.notify()
    }
    signal.addEventListener('abort', onAbort, { once: true })
    const filling = this.fill(stop.controller.signal)
    const watch = clock.every(1000, () => {
      this.checkStall()
    })
    try {
      for (;;) {
        if (signal.aborted) throw signal.reason
        if (this.failure !== undefined) throw this.failure.error
        // Looked at anew, not waited for: the write that recovery waited for may have been the last to wake anybody.
        if (this.fault !== undefined) {
          await this.recover()
          continue
        }
        if (!this.isOpen) {
          await this.open()
          continue
        }
        this.submitAll()
        if (
          this.ended &&
          this.gatherer.isEmpty &&
          this.again.length === 0 &&
          this.flying.size === 0 &&
          this.rejects.isIdle
        )
          break
        await this.wake.wait()
      }
    } finally {
      watch.stop()
      signal.removeEventListener('abort', onAbort)
      for (const attempt of this.flying.values()) attempt.abort(new Disconnected('the run ended'))
      stop.controller.abort(new Disconnected('the run ended'))
      stop.dispose()
      this.gatherer.wake()
      await filling
      await sink.close()
      for (const tracked of this.partial) tracked.tell()
      if (supervisor.current !== 'failed') supervisor.to('stopped')
    }
  }

  /**
   * Records that were written and whose answer did not come, or that were confirmed behind others that were not: a
   * later run may write them again.
   */
  get unanswered(): number {
    return this.again.reduce(
      (sum, job) => sum + (job.unanswered === true ? job.count : 0),
      this.untold().beyond.delivered,
    )
  }

  private context(): EndpointContext {
    const { signal, clock, log, supervisor } = this.parts
    return {
      signal,
      clock,
      log,
      gauge: (name, value) => {
        supervisor.gauges[name] = value
        // A slow upload that moves is no stall.
        this.lastMove = clock.monotonic()
      },
    }
  }

  private async open(): Promise<void> {
    const { sink, supervisor, signal } = this.parts
    supervisor.to('opening')
    try {
      await sink.open(this.context())
      this.isOpen = true
      this.lastMove = this.parts.clock.monotonic()
      supervisor.opened()
    } catch (error) {
      await sink.close()
      await supervisor.fault(error, true, signal)
    }
  }

  /**
   * After a fault: lets the other writes end, closes, waits as long as the supervisor says. What is unconfirmed goes
   * again, in order.
   */
  private async recover(): Promise<void> {
    const { sink, supervisor, signal } = this.parts
    if (this.flying.size > 0) {
      await this.wake.wait()
      return
    }
    const fault = this.fault
    this.fault = undefined
    this.again.sort((a, b) => a.order - b.order)
    if (!(fault instanceof Throttled)) {
      this.isOpen = false
      await sink.close()
    }
    await supervisor.fault(fault, false, signal)
    if (fault instanceof Throttled) supervisor.to('running')
    this.lastMove = this.parts.clock.monotonic()
  }

  /** Keeps a little more than one write's worth at hand. */
  private async fill(signal: AbortSignal): Promise<void> {
    const { feed } = this.parts
    try {
      for (;;) {
        await this.gatherer.room(signal)
        const piece = await feed.next(signal)
        if (piece === null) break
        this.counts.pending += piece.count
        this.gatherer.add(new Tracked(piece))
        this.wake.notify()
      }
    } catch (error) {
      if (!signal.aborted) this.failure ??= { error }
    }
    this.ended = true
    this.wake.notify()
  }

  private submitAll(): void {
    const { limits } = this.parts.sink
    while (this.fault === undefined && this.flying.size < limits.inFlight) {
      // Where nothing is taken for now, no more of it is fetched into memory.
      const isFull =
        this.again.length > 0 &&
        (limits.ordered ||
          (limits.unit === 'batch' &&
            this.again.reduce((sum, { payload }) => sum + held(payload), 0) >= limits.maxBytes * limits.inFlight))
      const job = this.nextAgain() ?? (isFull ? undefined : this.gathered())
      if (job === undefined) return
      void this.attempt(job)
    }
  }

  private nextAgain(): Job | undefined {
    const now = this.parts.clock.monotonic()
    const index = this.again.findIndex((job) => job.notBefore <= now)
    if (index === -1) {
      const soonest = Math.min(...this.again.map((job) => job.notBefore))
      if (this.again.length > 0) this.wakeAfter(soonest - now)
      return undefined
    }
    if (this.parts.sink.limits.ordered && index > 0) return undefined
    return this.again.splice(index, 1)[0]
  }

  /** One timer is enough, the earliest: each that goes off is asked for anew, and several would multiply. */
  private wakeAfter(ms: number): void {
    const { clock, signal } = this.parts
    const due = clock.monotonic() + ms
    if (due >= this.wakesAt) return
    this.wakesAt = due
    clock.sleep(ms, signal).then(
      () => {
        if (this.wakesAt === due) this.wakesAt = Infinity
        this.wake.notify()
      },
      () => undefined,
    )
  }

  /** The next write out of what has arrived. */
  private gathered(): Job | undefined {
    const jobs = this.gatherer.next(this.ended)
    if (jobs.length === 1) return jobs[0]
    this.again.push(...jobs)
    return this.nextAgain()
  }

  private async attempt(job: Job): Promise<void> {
    const { sink, supervisor, signal, clock, beforeFirst } = this.parts
    job.attempt++
    // What was answered with a failure is not there: only what was not answered may be.
    if (job.unanswered === true)
      this.counts.possibleDuplicates +=
        sink.limits.unit === 'segment' || sink.limits.recognises === true ? 0 : job.count
    const link = linkedAbort(signal)
    this.flying.set(job, link.controller)
    const write: Write = {
      id: job.id,
      attempt: job.attempt,
      payload: job.payload,
      origin: (index) => originOf(job, index),
    }
    try {
      if (beforeFirst !== undefined) await (this.first ??= beforeFirst())
      const outcome = await sink.write(write, link.controller.signal)
      this.counts.possibleDuplicates += outcome.doubtful ?? 0
      this.lastMove = clock.monotonic()
      const isDenied = outcome.retry.length > 0 && (outcome.retry.length === job.count || 'kind' in job.payload)
      if (!isDenied) supervisor.moved()
      this.settle(job, outcome, isDenied && job.attempt > 1 ? this.denied(outcome) : 0)
    } catch (error) {
      job.unanswered = true
      this.again.push(job)
      this.fault ??= error
    } finally {
      link.dispose()
      this.flying.delete(job)
      this.wake.notify()
    }
  }

  /**
   * A sink that answers, and takes nothing, time and again, is failing all the same. Returns how long to wait at least.
   */
  private denied({ retry }: Outcome): number {
    try {
      return this.parts.supervisor.denied(
        retry[0]?.why ?? 'it takes nothing for now',
        Math.max(0, ...retry.map(({ afterMs }) => afterMs ?? 0)),
      )
    } catch (error) {
      this.failure ??= { error }
      return 0
    }
  }

  /** Nothing is under way, and all that is left waits until it is tried again. */
  get isWaiting(): boolean {
    const { current } = this.parts.supervisor
    return current === 'stopped' || (current === 'backing off' && this.flying.size === 0)
  }

  /** After the run: records that were settled though their piece was not. `within`: at its beginning. */
  untold(): { readonly within: Tally; readonly beyond: Tally } {
    const sum = { within: nothing(), beyond: nothing() }
    for (const tracked of this.partial) {
      const { within, beyond } = tracked.untold()
      add(sum.within, within)
      add(sum.beyond, beyond)
    }
    return sum
  }

  /** @param waitMs what has to go again waits so long at least */
  private settle(job: Job, outcome: Outcome, waitMs: number): void {
    if (outcome.retry.length === 0 && outcome.rejected.length === 0) {
      this.counts.delivered += job.count
      this.counts.bytes += bytesOf(job.payload)
      for (const { piece, from, count } of job.slices)
        this.settled(
          piece,
          from,
          count,
          'delivered',
          Math.round((bytesOf(piece.piece.payload) * count) / Math.max(1, piece.piece.count)),
        )
      this.parts.onProgress()
      return
    }
    if ('kind' in job.payload) {
      const refusal = outcome.rejected[0]
      if (refusal !== undefined) {
        this.fault ??= new Fatal(`${job.payload.key} was refused: ${refusal.why}`)
        this.again.push(job)
        return
      }
      job.notBefore = this.parts.clock.monotonic() + Math.max(waitMs, outcome.retry[0]?.afterMs ?? 1000)
      this.again.push(job)
      return
    }
    const open = new Set<number>()
    for (const { index } of outcome.retry) open.add(index)
    for (const { index } of outcome.rejected) open.add(index)
    const entries = job.payload.entries()
    for (let index = 0; index < job.count; index++) {
      if (open.has(index)) continue
      const slice = sliceAt(job, index)
      const bytes = entries[index]?.value?.length ?? 0
      this.counts.delivered++
      this.counts.bytes += bytes
      this.settled(slice.piece, slice.index, 1, 'delivered', bytes)
    }
    for (const { piece } of job.slices) this.tell(piece)
    if (outcome.retry.length > 0) {
      const indexes = outcome.retry.map((retry) => retry.index).sort((a, b) => a - b)
      const after = Math.max(waitMs, ...outcome.retry.map((retry) => retry.afterMs ?? 0))
      // One slice a record: what is left of a write has no boundaries of its own but keeps its place in the order.
      const slices = indexes.map((index) => {
        const slice = sliceAt(job, index)
        return { piece: slice.piece, from: slice.index, count: 1 }
      })
      this.again.push({
        id: `${job.id}.r${job.attempt}`,
        attempt: job.attempt,
        order: job.order,
        payload: only(job.payload, indexes),
        slices,
        count: indexes.length,
        notBefore: this.parts.clock.monotonic() + after,
      })
      this.again.sort((a, b) => a.order - b.order)
    }
    if (outcome.rejected.length > 0) void this.rejects.put(job, outcome.rejected)
    this.parts.onProgress()
  }

  private settled(tracked: Tracked, from: number, count: number, fate: Fate, bytes: number): void {
    this.counts.pending -= count
    tracked.settle(from, count, fate, bytes)
    if (tracked.through === tracked.piece.count) this.partial.delete(tracked)
    else this.partial.add(tracked)
  }

  private tell(tracked: Tracked): void {
    if (this.partial.has(tracked)) tracked.tell()
  }

  private checkStall(): void {
    const { stallMs, clock, sink, supervisor } = this.parts
    // A full pipe is backpressure; nobody can tell it from a stall.
    if (
      stallMs === 0 ||
      this.flying.size === 0 ||
      sink.limits.confirms === 'none' ||
      clock.monotonic() - this.lastMove < stallMs
    )
      return
    this.lastMove = clock.monotonic()
    for (const attempt of this.flying.values())
      attempt.abort(new Disconnected(`${supervisor.label} did not answer for ${Math.round(stallMs / 1000)} s`))
  }
}
