/**
 * Shards shared between processes through a table of leases: what each promises is said in table.ts, owned-lease.ts,
 * lineage.ts and balance.ts.
 *
 * - Every third of a lease duration ours are renewed, and the table is looked at: what is missing is made, what nobody
 *   holds is taken, what others have too much of is asked for. It is looked at in between where another's lease runs
 *   out, and where somebody was quicker: what one that is gone had is with others within four thirds of a lease
 *   duration and the time that a few requests take.
 * - Whoever is asked for a lease reads no further, drains and commits while renewing, and completes the hand-over; or
 *   is overtaken when its time is over.
 * - A lease that is lost is so at once: its commits never reach the table. Where DynamoDB is away leases run out by our
 *   own clock, and reading goes on when it is back.
 * - Over a fault that is followed by opening again leases stay, with their epochs, as long as they have not run out.
 */
import type { Partition } from '../../../core/contract'
import { Disconnected, lineOf, Throttled } from '../../../core/errors'
import { linkedAbort, unlessAborted } from '../../../kit/signal'
import { RELEASED, OwnedLease } from './owned-lease'
import { syncLeases } from './sync'
import { Lineage } from './lineage'
import type { LeaseChange, LeaseRow, LeaseTable } from './table'
import { LeaseMonitor } from './monitor'
import type { Checkpoint, LeaseListener, Leases } from '../stream-client'

/**
 * A holder that was asked for a lease has so long to drain it (gracefulLeaseHandoffTimeoutMillis of the Kinesis Client
 * Library 3.x), and a revoke may take this share of it.
 */
const HAND_OVER_MS = 30_000
const DRAIN_SHARE = 0.8
/** A shard's end waits for the sinks as long as they need. */
const UNBOUNDED_MS = 2 ** 31 - 1
/** A timer may ring a little before its time. */
const TIMER_SLACK_MS = 5
/** Giving back may hold up the end of the run for so long, milliseconds. */
const RELEASE_WITHIN_MS = 5000

export interface LeaseSettings {
  /** For messages. */
  readonly table: string
  readonly workerId: string
  readonly leaseMs: number
  readonly maxLeases: number
  readonly maxSteals: number
  /** With credentials as of now. Nothing is sent yet. */
  connect(listener: LeaseListener): Promise<LeaseTable>
}
/** From `start` to `stop`. */
interface LeaseSession {
  readonly listener: LeaseListener
  readonly table: LeaseTable
  readonly abort: ReturnType<typeof linkedAbort>
  readonly signal: AbortSignal
  readonly tasks: Set<Promise<void>>
  timers: readonly { stop(): void }[]
  stopping: boolean
  /** When it is to be looked at between two ticks. */
  syncAt: number | undefined
  syncing: 'no' | 'yes' | 'once more'
}

export function createLeases(settings: LeaseSettings): Leases {
  return new LeaseCoordinator(settings)
}

class LeaseCoordinator implements Leases {
  private session: LeaseSession | undefined
  private readonly owned = new Map<string, OwnedLease>()
  private readonly monitor: LeaseMonitor
  private lastEpoch = 0
  private settled = false
  private failing = false

  constructor(private readonly settings: LeaseSettings) {
    this.monitor = new LeaseMonitor(settings.workerId, settings.leaseMs, Math.max(HAND_OVER_MS, 2 * settings.leaseMs))
  }

  get isSettled(): boolean {
    return this.settled && ![...this.owned.values()].some(({ isDraining: leaving }) => leaving)
  }

  async start(listener: LeaseListener): Promise<void> {
    this.settled = this.failing = false
    this.monitor.forget()
    const table = await this.settings.connect(listener)
    // A caller that has closed it meanwhile stops it no more.
    if (listener.signal.aborted) {
      table.close()
      throw listener.signal.reason
    }
    const abort = linkedAbort(listener.ctx.signal)
    const { signal } = abort.controller
    const session: LeaseSession = (this.session = {
      listener,
      table,
      abort,
      signal,
      tasks: new Set(),
      timers: [],
      stopping: false,
      syncAt: undefined,
      syncing: 'no',
    })
    await session.table.ready(signal)
    for (const lease of [...this.owned.values()]) await this.resume(session, lease)
    await this.sync(session)
    signal.throwIfAborted()
    const { clock } = listener.ctx
    const { leaseMs } = this.settings
    session.timers = [
      clock.every(leaseMs / 3, () => {
        for (const lease of this.owned.values()) this.runTask(session, () => this.renew(session, lease))
      }),
      clock.every(leaseMs / 3, () => {
        this.syncSoon(session)
      }),
      clock.every(Math.max(50, leaseMs / 40), () => {
        for (const lease of this.owned.values()) if (lease.isExpired()) this.forgetLost(session, lease)
      }),
    ]
  }

  shardsChanged(): void {
    if (this.session !== undefined) this.syncSoon(this.session)
  }

  ended({ name, epoch }: Partition): void {
    const lease = this.owned.get(name)
    const { session } = this
    if (session === undefined || lease?.epoch !== epoch || lease.isDraining) return
    lease.isDraining = true
    this.runTask(session, () =>
      unlessAborted(session.listener.ctx.revoke({ name, epoch }, UNBOUNDED_MS), session.signal),
    )
  }

  async commit({ name, epoch }: Partition, checkpoint: Checkpoint): Promise<void> {
    const lease = this.owned.get(name)
    if (lease?.epoch !== epoch) return
    const { session } = this
    if (session === undefined || session.stopping) throw new Disconnected('not connected')
    const written = lease.setCheckpoint(checkpoint)
    this.runTask(session, () => this.renew(session, lease))
    await written
  }

  async stop(keep: boolean): Promise<void> {
    const { session } = this
    if (session === undefined) return
    session.stopping = true
    for (const timer of session.timers) timer.stop()
    session.abort.controller.abort(new Disconnected('not connected'))
    await Promise.all(session.tasks)
    session.abort.dispose()
    for (const lease of this.owned.values()) lease.dropPending(new Disconnected('not connected'))
    if (!keep) await this.releaseAll(session)
    session.table.close()
    this.session = undefined
  }

  /** Kept since an earlier start, if nobody has taken it meanwhile. */
  private async resume(session: LeaseSession, lease: OwnedLease): Promise<void> {
    if (!lease.isExpired())
      await lease.renew(session.table, (checkpoint) => this.changeFor(session, lease, checkpoint), session.signal)
    if (lease.lostBecause !== undefined) {
      this.forgetLost(session, lease)
      return
    }
    lease.isDraining = false
    if (lease.isRequested) this.handOver(session, lease)
    else session.listener.begin(lease.key, lease.epoch, lease.checkpoint)
  }

  private async sync(session: LeaseSession): Promise<void> {
    const { workerId: me, maxLeases, maxSteals } = this.settings
    const { settled, isOutdated: outrun } = await syncLeases({
      listener: session.listener,
      table: session.table,
      bounds: { workerId: me, maxLeases, maxSteals },
      monitor: this.monitor,
      owned: this.owned,
      signal: session.signal,
      isStopping: () => session.stopping,
      taken: (row, at, isGone) => {
        this.taken(session, row, at, isGone)
      },
    })
    this.settled = settled
    if (outrun) this.syncSoon(session)
    else this.syncWhenDue(session)
  }

  /** Before the next tick, where a lease will have run out by then. */
  private syncWhenDue(session: LeaseSession): void {
    const { clock } = session.listener.ctx
    const at = (this.monitor.due ?? Infinity) + TIMER_SLACK_MS
    if (at - clock.monotonic() >= this.settings.leaseMs / 3 || at >= (session.syncAt ?? Infinity)) return
    session.syncAt = at
    clock.sleep(at - clock.monotonic(), session.signal).then(
      () => {
        if (session.syncAt !== at) return
        session.syncAt = undefined
        this.syncSoon(session)
      },
      () => undefined,
    )
  }

  private syncSoon(session: LeaseSession): void {
    if (session.syncing !== 'no') {
      session.syncing = 'once more'
      return
    }
    session.syncing = 'yes'
    this.runTask(session, async () => {
      try {
        await this.sync(session)
      } finally {
        const again = session.syncing === 'once more'
        session.syncing = 'no'
        if (again && !session.stopping) this.syncSoon(session)
      }
    })
  }

  private taken(session: LeaseSession, row: LeaseRow, at: number, isGone: boolean): void {
    const { listener } = session
    const lease = new OwnedLease(
      { workerId: this.settings.workerId, leaseMs: this.settings.leaseMs, clock: listener.ctx.clock },
      row,
      ++this.lastEpoch,
      at,
    )
    this.owned.set(row.key, lease)
    this.reportCount(session)
    if (!isGone) {
      listener.begin(row.key, lease.epoch, row.checkpoint)
      return
    }
    lease.isDraining = true
    listener.ctx.gap({
      partition: row.key,
      from: listener.position(row.checkpoint),
      to: listener.position({ kind: 'end' }),
      why: 'the shard is not listed any more: what was not read of it is older than the stream keeps its records',
    })
    void lease.setCheckpoint({ kind: 'end' })
    this.runTask(session, () => this.renew(session, lease))
  }

  private async renew(session: LeaseSession, lease: OwnedLease): Promise<void> {
    if (this.owned.get(lease.key) !== lease) return
    if (lease.isDrained) await lease.release(session.table, session.signal)
    else await lease.renew(session.table, (checkpoint) => this.changeFor(session, lease, checkpoint), session.signal)
    if (lease.lostBecause !== undefined) this.forgetLost(session, lease)
    else if (lease.isRequested && !lease.isDraining) this.handOver(session, lease)
  }

  /** At a shard's end its children's leases come first: whoever sees it finished finds where to go on. */
  private async changeFor(
    { listener, table, signal }: LeaseSession,
    { key }: OwnedLease,
    checkpoint: Checkpoint,
  ): Promise<LeaseChange> {
    if (checkpoint.kind !== 'end') return {}
    const children = listener
      .shards()
      .filter(({ parents }) => parents.includes(key))
      .map(({ id }) => id)
    const rows =
      children.length === 0
        ? []
        : (await table.list(signal)).map((row) => (row.key === key ? { ...row, checkpoint } : row))
    for (const { shard, checkpoint: from } of new Lineage(listener.shards(), rows, (shard) =>
      listener.beginning(shard),
    ).missing())
      if (children.includes(shard.id)) await table.create(shard, from, signal)
    return { children, release: true }
  }

  private handOver(session: LeaseSession, lease: OwnedLease): void {
    const { listener } = session
    const { key, epoch } = lease
    lease.isDraining = true
    listener.ctx.log.info(`lease ${key}: another process asks for it; what was read of it is delivered first`)
    this.runTask(session, async () => {
      await unlessAborted(
        listener.stopReading(key).then(() => listener.ctx.revoke({ name: key, epoch }, HAND_OVER_MS * DRAIN_SHARE)),
        session.signal,
      )
      lease.isDrained = true
      await this.renew(session, lease)
    })
  }

  /** Not ours any more. */
  private forgetLost(session: LeaseSession, lease: OwnedLease): void {
    const { key, epoch, lostBecause: gone, isDraining: leaving } = lease
    if (this.owned.get(key) !== lease) return
    this.owned.delete(key)
    this.reportCount(session)
    const { listener } = session
    if (gone === RELEASED) {
      // Where it was finished, its children may begin.
      this.settled = false
      this.syncSoon(session)
      return
    }
    if (!leaving) this.runTask(session, () => listener.stopReading(key))
    listener.ctx.lost({ name: key, epoch })
    listener.ctx.log.warn(`lease ${key} is lost: ${gone ?? ''}; what is not committed of it will be read again`)
  }

  /** Leases that were taken without an answer are found by looking, too. */
  private async releaseAll({ table, listener }: LeaseSession): Promise<void> {
    const { workerId: me } = this.settings
    const { log, clock } = listener.ctx
    const bound = new AbortController()
    const over = new AbortController()
    clock.sleep(RELEASE_WITHIN_MS, over.signal).then(
      () => {
        bound.abort(new Disconnected('no answer in time'))
      },
      () => undefined,
    )
    try {
      const ours = (await table.list(bound.signal)).filter(
        ({ owner, checkpointOwner: handing }) => (handing ?? owner) === me,
      )
      const left = await Promise.allSettled(
        ours.map(({ key, counter, checkpointOwner: handing }) =>
          table.write({ key, workerId: me, counter, isRequested: handing === me }, { release: true }, bound.signal),
        ),
      )
      const failed = left.find((one) => one.status === 'rejected')
      if (failed !== undefined) throw failed.reason
    } catch (error) {
      log.warn(`the leases could not be given back, others take them when they run out: ${lineOf(error)}`)
    }
    over.abort()
    for (const lease of this.owned.values()) lease.end(RELEASED)
    this.owned.clear()
  }

  private reportCount({ listener }: LeaseSession): void {
    listener.ctx.gauge('leases', this.owned.size)
  }

  /**
   * Beside reading. A server that is away, or busy, is asked again with the next tick: leases run out by the clock
   * alone.
   */
  private runTask(session: LeaseSession, run: () => Promise<void>): void {
    const task = run().then(
      () => this.tableAnswered(session),
      (error: unknown) => {
        if (session.stopping || session.signal.aborted) return
        if (!(error instanceof Disconnected || error instanceof Throttled)) throw error
        if (!this.failing) session.listener.ctx.log.warn(`leases: ${lineOf(error)}`)
        this.failing = true
      },
    )
    const tracked = task
      .catch(() => undefined)
      .finally(() => {
        session.tasks.delete(tracked)
      })
    session.tasks.add(tracked)
    session.listener.run(task)
  }

  private tableAnswered({ listener }: LeaseSession): void {
    if (this.failing) listener.ctx.log.info(`leases: the table ${this.settings.table} answers again`)
    this.failing = false
  }
}
