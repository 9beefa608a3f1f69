/**
 * Moves records from a feed to one sink: it submits the writes that the batcher makes, again and again if it has to. It
 * owns retry, order and deadlines, which an endpoint must not.
 *
 * Invariants: a write that was submitted is submitted again, with the same id, bytes and boundaries, until its outcome
 * is known. An item is settled once every record of it is confirmed, or is a dead letter that was confirmed elsewhere.
 * Settling is the only way anything is released.
 */
import { linkedAbort, Notifier } from '../../kit/signal'
import { only } from '../batch'
import type { Clock, EndpointContext, Log, Outcome, Sink, Write } from '../contract'
import { Disconnected, Fatal, Throttled } from '../errors'
import { Batcher } from './batcher'
import {
  addCounts,
  bytesOf,
  retainedBytes,
  noCounts,
  originOf,
  sliceAt,
  TrackedItem,
  type RecordOutcome,
  type Feed,
  type PendingWrite,
  type Counts,
} from './pending-write'
import type { DeadLetters } from '../flow/ports'
import { Rejects } from './rejects'
import type { Supervisor } from '../supervision/supervisor'

/** Counts of the moment, for progress. The ledger counts what was settled. */
export interface SinkCounts extends Counts {
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
  /** Tells that a record was rejected and there is nowhere to put it (`policy: stop`). */
  readonly onUnplaced: (why: string) => void
  /** Resolves once it is stored that something may have been written. The first write waits for it. */
  readonly beforeFirst?: () => Promise<void>
  /** An earlier run may have written so many records that come again. */
  readonly doubtful?: number
}

export class SinkPump {
  readonly counts: SinkCounts = { delivered: 0, rejected: 0, dropped: 0, possibleDuplicates: 0, bytes: 0, pending: 0 }
  private readonly wake = new Notifier()
  private readonly batcher: Batcher
  private readonly rejects: Rejects
  private again: PendingWrite[] = []
  /** Items of which some records are settled and some are not. */
  private readonly partial = new Set<TrackedItem>()
  private readonly flying = new Map<PendingWrite, AbortController>()
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
    this.batcher = new Batcher({
      id,
      label: supervisor.label,
      limits: sink.limits,
      lingerMs,
      clock,
      wakeAfter: (ms) => {
        this.wakeAfter(ms)
      },
      refuse: (pending, refused) => {
        void this.rejects.put(pending, refused)
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

  /**
   * Runs until the feed ends and all is settled. It throws whatever ends the run, and closes the sink on every path.
   */
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
        // Nothing is awaited here: the write that recovery waited for may have been the last one to wake this loop.
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
          this.batcher.isEmpty &&
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
      this.batcher.wake()
      await filling
      await sink.close()
      for (const tracked of this.partial) tracked.tell()
      if (supervisor.current !== 'failed') supervisor.to('stopped')
    }
  }

  /**
   * Counts records that were written and not answered, or confirmed behind others that were not: a later run may write
   * them again.
   */
  get unanswered(): number {
    return this.again.reduce(
      (sum, pending) => sum + (pending.unanswered === true ? pending.count : 0),
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
        await this.batcher.capacity(signal)
        const item = await feed.next(signal)
        if (item === null) break
        this.counts.pending += item.count
        this.batcher.add(new TrackedItem(item))
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
      // While the sink takes nothing, no more is fetched into memory.
      const isFull =
        this.again.length > 0 &&
        (limits.ordered ||
          (limits.unit === 'batch' &&
            this.again.reduce((sum, { payload }) => sum + retainedBytes(payload), 0) >=
              limits.maxBytes * limits.inFlight))
      const pending = this.nextAgain() ?? (isFull ? undefined : this.gathered())
      if (pending === undefined) return
      void this.attempt(pending)
    }
  }

  private nextAgain(): PendingWrite | undefined {
    const now = this.parts.clock.monotonic()
    const index = this.again.findIndex((pending) => pending.notBefore <= now)
    if (index === -1) {
      const soonest = Math.min(...this.again.map((pending) => pending.notBefore))
      if (this.again.length > 0) this.wakeAfter(soonest - now)
      return undefined
    }
    if (this.parts.sink.limits.ordered && index > 0) return undefined
    return this.again.splice(index, 1)[0]
  }

  /** Only the earliest timer runs: each that goes off is set again, and several would multiply. */
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

  /** Makes the next write of what has arrived. */
  private gathered(): PendingWrite | undefined {
    const writes = this.batcher.next(this.ended)
    if (writes.length === 1) return writes[0]
    this.again.push(...writes)
    return this.nextAgain()
  }

  private async attempt(pending: PendingWrite): Promise<void> {
    const { sink, supervisor, signal, clock, beforeFirst } = this.parts
    pending.attempt++
    // Records that were answered with a failure are not there: only those without an answer may be.
    if (pending.unanswered === true)
      this.counts.possibleDuplicates +=
        sink.limits.unit === 'segment' || sink.limits.recognises === true ? 0 : pending.count
    const link = linkedAbort(signal)
    this.flying.set(pending, link.controller)
    const write: Write = {
      id: pending.id,
      attempt: pending.attempt,
      payload: pending.payload,
      origin: (index) => originOf(pending, index),
    }
    try {
      if (beforeFirst !== undefined) await (this.first ??= beforeFirst())
      const outcome = await sink.write(write, link.controller.signal)
      this.counts.possibleDuplicates += outcome.doubtful ?? 0
      this.lastMove = clock.monotonic()
      const isDenied = outcome.retry.length > 0 && (outcome.retry.length === pending.count || 'kind' in pending.payload)
      if (!isDenied) supervisor.moved()
      this.settle(pending, outcome, isDenied && pending.attempt > 1 ? this.denied(outcome) : 0)
    } catch (error) {
      pending.unanswered = true
      this.again.push(pending)
      this.fault ??= error
    } finally {
      link.dispose()
      this.flying.delete(pending)
      this.wake.notify()
    }
  }

  /**
   * Counts a sink that answers again and again and takes nothing as failing. Returns how long to wait at least.
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

  /** True if nothing is under way and all that is left waits for its next attempt. */
  get isWaiting(): boolean {
    const { current } = this.parts.supervisor
    return current === 'stopped' || (current === 'backing off' && this.flying.size === 0)
  }

  /**
   * Counts, after the run, records that were settled though their item was not. `within` are those at its beginning.
   */
  untold(): { readonly within: Counts; readonly beyond: Counts } {
    const sum = { within: noCounts(), beyond: noCounts() }
    for (const tracked of this.partial) {
      const { within, beyond } = tracked.untold()
      addCounts(sum.within, within)
      addCounts(sum.beyond, beyond)
    }
    return sum
  }

  /** @param waitMs records that have to go again wait so long at least */
  private settle(pending: PendingWrite, outcome: Outcome, waitMs: number): void {
    if (outcome.retry.length === 0 && outcome.rejected.length === 0) {
      this.counts.delivered += pending.count
      this.counts.bytes += bytesOf(pending.payload)
      for (const { item, from, count } of pending.slices)
        this.settled(
          item,
          from,
          count,
          'delivered',
          Math.round((bytesOf(item.item.payload) * count) / Math.max(1, item.item.count)),
        )
      return
    }
    if ('kind' in pending.payload) {
      const refusal = outcome.rejected[0]
      if (refusal !== undefined) {
        this.fault ??= new Fatal(`${pending.payload.key} was refused: ${refusal.why}`)
        this.again.push(pending)
        return
      }
      pending.notBefore = this.parts.clock.monotonic() + Math.max(waitMs, outcome.retry[0]?.afterMs ?? 1000)
      this.again.push(pending)
      return
    }
    const open = new Set<number>()
    for (const { index } of outcome.retry) open.add(index)
    for (const { index } of outcome.rejected) open.add(index)
    const entries = pending.payload.entries()
    for (let index = 0; index < pending.count; index++) {
      if (open.has(index)) continue
      const slice = sliceAt(pending, index)
      const bytes = entries[index]?.value?.length ?? 0
      this.counts.delivered++
      this.counts.bytes += bytes
      this.settled(slice.item, slice.index, 1, 'delivered', bytes)
    }
    for (const { item } of pending.slices) this.tell(item)
    if (outcome.retry.length > 0) {
      const indexes = outcome.retry.map((retry) => retry.index).sort((a, b) => a - b)
      const after = Math.max(waitMs, ...outcome.retry.map((retry) => retry.afterMs ?? 0))
      // Each record is a slice: the rest of a write has no boundaries of its own, but keeps its place in the order.
      const slices = indexes.map((index) => {
        const slice = sliceAt(pending, index)
        return { item: slice.item, from: slice.index, count: 1 }
      })
      this.again.push({
        id: `${pending.id}.r${pending.attempt}`,
        attempt: pending.attempt,
        order: pending.order,
        payload: only(pending.payload, indexes),
        slices,
        count: indexes.length,
        notBefore: this.parts.clock.monotonic() + after,
      })
      this.again.sort((a, b) => a.order - b.order)
    }
    if (outcome.rejected.length > 0) void this.rejects.put(pending, outcome.rejected)
  }

  private settled(tracked: TrackedItem, from: number, count: number, fate: RecordOutcome, bytes: number): void {
    this.counts.pending -= count
    tracked.settle(from, count, fate, bytes)
    if (tracked.through === tracked.item.count) this.partial.delete(tracked)
    else this.partial.add(tracked)
  }

  private tell(tracked: TrackedItem): void {
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
