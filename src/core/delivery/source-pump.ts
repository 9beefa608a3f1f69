/**
 * Moves records from one source into the flow: it opens the source, reads it, and opens it again. Within a run nothing
 * that was handed over is read twice: a source that is opened again goes on after the last delivery, not after the last
 * commit.
 */
import { linkedAbort, unlessAborted } from '../../kit/signal'
import type { Clock, Delivery, Log, Partition, Position, Source, SourceContext } from '../contract'
import type { Supervisor } from '../supervision/supervisor'

export interface Until {
  /** Stops where each partition ended at the start. */
  readonly end?: boolean
  /** Stops where each partition stood at that time, in milliseconds since the epoch. */
  readonly time?: number
  /** Stops after so many milliseconds without a record. */
  readonly idleMs?: number
  /** Stops after so many records of all sources together. */
  readonly count?: number
}

export interface SourcePumpParts {
  readonly source: Source
  readonly supervisor: Supervisor
  readonly live: boolean
  readonly clock: Clock
  readonly log: Log
  readonly until: Until
  /** Aborts when the run is cut short. */
  readonly signal: AbortSignal
  /** Aborts when reading stops; records that were read go on. */
  readonly stopReading: AbortSignal
  readonly host: SourceHost
}

/** The run as its source sees it (`src/core/flow/source-run.ts`). */
export interface SourceHost extends Pick<SourceContext, 'gap' | 'lost' | 'held' | 'committed'> {
  /** The newest position of a partition that is durable here. */
  stored(partition: string): Position | undefined
  storedPartitions(): readonly string[]
  lastReceivedAt(): number | undefined
  /** Resolves when memory and spool have capacity for more. */
  capacity(signal: AbortSignal): Promise<void>
  /** The spool is full, so a live source is closed meanwhile. */
  isFull(): boolean
  /** Resolves when the source may be opened. */
  opening(): Promise<void>
  /** All that was sent until then, epoch milliseconds, has been handed over. */
  complete(until: number): void
  /** Hands a delivery over; resolves when the next one may be read. */
  take(delivery: Delivery, receivedAt: number): Promise<void>
  /** @param opened aborts when the opening ends that asked for it */
  revoke(partition: Partition, deadlineMs: number, opened: AbortSignal): Promise<void>
  /** A delivery of the partition was read. */
  saw(partition: Partition): void
}

export class SourcePump {
  private readonly handed = new Map<string, Position>()
  private lastRecordAt: number
  /** It lives from `open` to `close`. */
  private opened = new AbortController()
  /** The delivery that was read and is not in the spool, or the window, yet: its dead letters may take a while. */
  private inHand: { readonly partition: string; readonly done: Promise<unknown> } | undefined

  constructor(private readonly parts: SourcePumpParts) {
    this.lastRecordAt = parts.clock.monotonic()
  }

  /**
   * Runs until the source ends or reading stops, and throws whatever ends the run. The source stays open for its last
   * commits, so `close` follows.
   */
  async run(): Promise<'ended' | 'stopped'> {
    const { supervisor, signal, stopReading } = this.parts
    const halt = linkedAbort(signal, stopReading)
    const halted = halt.controller.signal
    try {
      for (;;) {
        if (signal.aborted) throw signal.reason
        if (stopReading.aborted) return 'stopped'
        let opening = true
        try {
          await this.open(halted)
          opening = false
          if ((await this.read(halted)) === 'ended') return 'ended'
        } catch (error) {
          if (signal.aborted) throw signal.reason
          if (stopReading.aborted) return 'stopped'
          await this.closeForNow()
          await supervisor.fault(error, opening, halted).catch((reason: unknown) => {
            if (!halted.aborted) throw reason
          })
        }
      }
    } finally {
      halt.dispose()
      if (supervisor.current !== 'failed') supervisor.to('draining')
    }
  }

  private async open(halted: AbortSignal): Promise<void> {
    const { source, supervisor, until } = this.parts
    supervisor.to('opening')
    this.opened = new AbortController()
    await this.parts.host.opening()
    await unlessAborted(source.open(this.context()), halted)
    if (until.end === true && source.ends !== undefined) await unlessAborted(source.ends(), halted)
    if (until.time !== undefined && source.endsAt !== undefined) await unlessAborted(source.endsAt(until.time), halted)
    supervisor.opened()
  }

  private async read(halted: AbortSignal): Promise<'ended'> {
    const { supervisor, clock, live, host } = this.parts
    for (;;) {
      if (live && host.isFull()) {
        // A feed does not wait: what it would send meanwhile is a gap, and an open socket that nobody reads hides it.
        await this.closeForNow('the spool is full')
        await host.capacity(halted)
        await this.open(halted)
      }
      await host.capacity(halted)
      // A source that always has something at hand need not look at the signal.
      halted.throwIfAborted()
      const delivery = await this.next(halted)
      if (delivery === 'idle' || delivery === null) return 'ended'
      const receivedAt = delivery.receivedAt ?? clock.now()
      host.saw(delivery.partition)
      this.handed.set(delivery.partition.name, delivery.last)
      if (delivery.batch.count > 0) {
        this.lastRecordAt = clock.monotonic()
        supervisor.moved()
      }
      const taken = host.take(delivery, receivedAt)
      this.inHand = { partition: delivery.partition.name, done: taken.catch(() => undefined) }
      try {
        await taken
      } finally {
        this.inHand = undefined
      }
    }
  }

  /** Resolves once all that `read` has returned of a partition is where it can be waited for. */
  async handedOn(partition: string): Promise<void> {
    // A delivery that was returned just now is taken in hand in the same turn.
    await this.parts.clock.sleep(0, this.parts.signal)
    while (this.inHand?.partition === partition) await this.inHand.done
  }

  /** Reads once, unless no record comes for as long as `--until idle` allows. */
  private async next(halted: AbortSignal): Promise<Delivery | null | 'idle'> {
    const { source, clock, until } = this.parts
    if (until.idleMs === undefined) return source.read(halted)
    const idle = linkedAbort(halted)
    const left = Math.max(0, this.lastRecordAt + until.idleMs - clock.monotonic())
    const timer = linkedAbort(halted)
    let expired = false
    clock.sleep(left, timer.controller.signal).then(
      () => {
        expired = true
        idle.controller.abort(new Error('idle'))
      },
      () => undefined,
    )
    try {
      return await source.read(idle.controller.signal)
    } catch (error) {
      if (expired && !halted.aborted) return 'idle'
      throw error
    } finally {
      timer.controller.abort(new Error('read'))
      timer.dispose()
      idle.dispose()
    }
  }

  /** Closes the source, which will be opened again. */
  private async closeForNow(why?: string): Promise<void> {
    this.opened.abort(new Error('closed'))
    await this.parts.source.close(false, why)
  }

  async close(): Promise<void> {
    await this.parts.source.close(true)
    if (this.parts.supervisor.current !== 'failed') this.parts.supervisor.to('stopped')
  }

  private context(): SourceContext {
    const { signal, clock, log, supervisor, host } = this.parts
    const lastReceivedAt = host.lastReceivedAt()
    const opened = this.opened.signal
    return {
      signal,
      clock,
      log,
      gauge: (name, value) => {
        supervisor.gauges[name] = value
      },
      resume: (partition) => this.handed.get(partition) ?? host.stored(partition),
      resumable: () => [...new Set([...this.handed.keys(), ...host.storedPartitions()])],
      complete: (until) => {
        host.complete(until)
      },
      ...(lastReceivedAt === undefined ? {} : { lastReceivedAt }),
      revoke: (partition, deadlineMs) => host.revoke(partition, deadlineMs, opened),
      lost: (partition) => {
        host.lost(partition)
      },
      gap: (gap) => {
        host.gap(gap)
      },
      held: () => host.held(),
      committed: (partition, upTo) => {
        host.committed(partition, upTo)
      },
    }
  }
}
