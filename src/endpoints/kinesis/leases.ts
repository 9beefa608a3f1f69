/**
 * Shards shared between processes through a table of leases: what each promises is said in lease-table.ts, -holding.ts,
 * -shards.ts and -balance.ts.
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
import type { Partition } from '../../core/contract'
import { Disconnected, lineOf, Throttled } from '../../core/errors'
import { linkedAbort, unlessAborted } from '../../kit/signal'
import { GIVEN_BACK, Holding } from './lease-holding'
import { look } from './lease-look'
import { Lineage } from './lease-shards'
import type { Change, LeaseRow, LeaseTable } from './lease-table'
import { LeaseWatch } from './lease-watch'
import type { Checkpoint, LeaseHost, Leases } from './wire'

/**
 * What a holder that was asked for a lease gets to drain it (gracefulLeaseHandoffTimeoutMillis of the Kinesis Client
 * Library 3.x), and what of it a revoke may take.
 */
const HAND_OVER_MS = 30_000
const DRAIN_SHARE = 0.8
/** A shard's end waits for the sinks as long as they need. */
const FOR_EVER_MS = 2 ** 31 - 1
/** A timer may ring a little before its time. */
const LATER_MS = 5
/** What giving back may hold up the end of the run. */
const GIVE_BACK_MS = 5000

export interface LeaseSettings {
  /** For messages. */
  readonly table: string
  readonly me: string
  readonly leaseMs: number
  readonly maxLeases: number
  readonly maxSteals: number
  /** With credentials as of now. Nothing is sent yet. */
  connect(host: LeaseHost): Promise<LeaseTable>
}
/** From `start` to `stop`. */
interface Life {
  readonly host: LeaseHost
  readonly table: LeaseTable
  readonly abort: ReturnType<typeof linkedAbort>
  readonly signal: AbortSignal
  readonly works: Set<Promise<void>>
  tickers: readonly { stop(): void }[]
  stopping: boolean
  /** When it is to be looked at between two ticks. */
  lookAt: number | undefined
  looking: 'no' | 'yes' | 'once more'
}

export function openLeases(settings: LeaseSettings): Leases {
  return new SharedLeases(settings)
}

class SharedLeases implements Leases {
  private life: Life | undefined
  private readonly held = new Map<string, Holding>()
  private readonly watch: LeaseWatch
  private epochs = 0
  private settled = false
  private failing = false

  constructor(private readonly settings: LeaseSettings) {
    this.watch = new LeaseWatch(settings.me, settings.leaseMs, Math.max(HAND_OVER_MS, 2 * settings.leaseMs))
  }

  get isSettled(): boolean {
    return this.settled && ![...this.held.values()].some(({ leaving }) => leaving)
  }

  async start(host: LeaseHost): Promise<void> {
    this.settled = this.failing = false
    this.watch.forget()
    const table = await this.settings.connect(host)
    // Whoever has closed it meanwhile stops it no more.
    if (host.signal.aborted) {
      table.close()
      throw host.signal.reason
    }
    const abort = linkedAbort(host.ctx.signal)
    const { signal } = abort.controller
    const life: Life = (this.life = {
      host,
      table,
      abort,
      signal,
      works: new Set(),
      tickers: [],
      stopping: false,
      lookAt: undefined,
      looking: 'no',
    })
    await life.table.ready(signal)
    for (const holding of [...this.held.values()]) await this.resume(life, holding)
    await this.look(life)
    signal.throwIfAborted()
    const { clock } = host.ctx
    const { leaseMs } = this.settings
    life.tickers = [
      clock.every(leaseMs / 3, () => {
        for (const holding of this.held.values()) this.work(life, () => this.renew(life, holding))
      }),
      clock.every(leaseMs / 3, () => {
        this.lookSoon(life)
      }),
      clock.every(Math.max(50, leaseMs / 40), () => {
        for (const holding of this.held.values()) if (holding.isExpired()) this.drop(life, holding)
      }),
    ]
  }

  shardsChanged(): void {
    if (this.life !== undefined) this.lookSoon(this.life)
  }

  ended({ name, epoch }: Partition): void {
    const holding = this.held.get(name)
    const { life } = this
    if (life === undefined || holding?.epoch !== epoch || holding.leaving) return
    holding.leaving = true
    this.work(life, () => unlessAborted(life.host.ctx.revoke({ name, epoch }, FOR_EVER_MS), life.signal))
  }

  async commit({ name, epoch }: Partition, checkpoint: Checkpoint): Promise<void> {
    const holding = this.held.get(name)
    if (holding?.epoch !== epoch) return
    const { life } = this
    if (life === undefined || life.stopping) throw new Disconnected('not connected')
    const written = holding.note(checkpoint)
    this.work(life, () => this.renew(life, holding))
    await written
  }

  async stop(keep: boolean): Promise<void> {
    const { life } = this
    if (life === undefined) return
    life.stopping = true
    for (const ticker of life.tickers) ticker.stop()
    life.abort.controller.abort(new Disconnected('not connected'))
    await Promise.all(life.works)
    life.abort.dispose()
    for (const holding of this.held.values()) holding.drop(new Disconnected('not connected'))
    if (!keep) await this.giveBack(life)
    life.table.close()
    this.life = undefined
  }

  /** Kept since an earlier start, if nobody has taken it meanwhile. */
  private async resume(life: Life, holding: Holding): Promise<void> {
    if (!holding.isExpired())
      await holding.renew(life.table, (checkpoint) => this.changeFor(life, holding, checkpoint), life.signal)
    if (holding.gone !== undefined) {
      this.drop(life, holding)
      return
    }
    holding.leaving = false
    if (holding.handing) this.handOver(life, holding)
    else life.host.begin(holding.key, holding.epoch, holding.checkpoint)
  }

  private async look(life: Life): Promise<void> {
    const { me, maxLeases, maxSteals } = this.settings
    const { settled, outrun } = await look({
      host: life.host,
      table: life.table,
      bounds: { me, maxLeases, maxSteals },
      watch: this.watch,
      held: this.held,
      signal: life.signal,
      isStopping: () => life.stopping,
      took: (row, at, isGone) => {
        this.took(life, row, at, isGone)
      },
    })
    this.settled = settled
    if (outrun) this.lookSoon(life)
    else this.lookWhenDue(life)
  }

  /** Before the next tick, where a lease will have run out by then. */
  private lookWhenDue(life: Life): void {
    const { clock } = life.host.ctx
    const at = (this.watch.due ?? Infinity) + LATER_MS
    if (at - clock.monotonic() >= this.settings.leaseMs / 3 || at >= (life.lookAt ?? Infinity)) return
    life.lookAt = at
    clock.sleep(at - clock.monotonic(), life.signal).then(
      () => {
        if (life.lookAt !== at) return
        life.lookAt = undefined
        this.lookSoon(life)
      },
      () => undefined,
    )
  }

  private lookSoon(life: Life): void {
    if (life.looking !== 'no') {
      life.looking = 'once more'
      return
    }
    life.looking = 'yes'
    this.work(life, async () => {
      try {
        await this.look(life)
      } finally {
        const again = life.looking === 'once more'
        life.looking = 'no'
        if (again && !life.stopping) this.lookSoon(life)
      }
    })
  }

  private took(life: Life, row: LeaseRow, at: number, isGone: boolean): void {
    const { host } = life
    const holding = new Holding(
      { me: this.settings.me, leaseMs: this.settings.leaseMs, clock: host.ctx.clock },
      row,
      ++this.epochs,
      at,
    )
    this.held.set(row.key, holding)
    this.show(life)
    if (!isGone) {
      host.begin(row.key, holding.epoch, row.checkpoint)
      return
    }
    holding.leaving = true
    host.ctx.gap({
      partition: row.key,
      from: host.position(row.checkpoint),
      to: host.position({ kind: 'end' }),
      why: 'the shard is not listed any more: what was not read of it is older than the stream keeps its records',
    })
    void holding.note({ kind: 'end' })
    this.work(life, () => this.renew(life, holding))
  }

  private async renew(life: Life, holding: Holding): Promise<void> {
    if (this.held.get(holding.key) !== holding) return
    if (holding.drained) await holding.release(life.table, life.signal)
    else await holding.renew(life.table, (checkpoint) => this.changeFor(life, holding, checkpoint), life.signal)
    if (holding.gone !== undefined) this.drop(life, holding)
    else if (holding.handing && !holding.leaving) this.handOver(life, holding)
  }

  /** At a shard's end its children's leases come first: whoever sees it finished finds where to go on. */
  private async changeFor({ host, table, signal }: Life, { key }: Holding, checkpoint: Checkpoint): Promise<Change> {
    if (checkpoint.kind !== 'end') return {}
    const children = host
      .shards()
      .filter(({ parents }) => parents.includes(key))
      .map(({ id }) => id)
    const rows =
      children.length === 0
        ? []
        : (await table.list(signal)).map((row) => (row.key === key ? { ...row, checkpoint } : row))
    for (const { shard, checkpoint: from } of new Lineage(host.shards(), rows, (shard) =>
      host.beginning(shard),
    ).missing())
      if (children.includes(shard.id)) await table.create(shard, from, signal)
    return { children, release: true }
  }

  private handOver(life: Life, holding: Holding): void {
    const { host } = life
    const { key, epoch } = holding
    holding.leaving = true
    host.ctx.log.info(`lease ${key}: another process asks for it; what was read of it is delivered first`)
    this.work(life, async () => {
      await unlessAborted(
        host.giveUp(key).then(() => host.ctx.revoke({ name: key, epoch }, HAND_OVER_MS * DRAIN_SHARE)),
        life.signal,
      )
      holding.drained = true
      await this.renew(life, holding)
    })
  }

  /** Not ours any more. */
  private drop(life: Life, holding: Holding): void {
    const { key, epoch, gone, leaving } = holding
    if (this.held.get(key) !== holding) return
    this.held.delete(key)
    this.show(life)
    const { host } = life
    if (gone === GIVEN_BACK) {
      // Where it was finished, its children may begin.
      this.settled = false
      this.lookSoon(life)
      return
    }
    if (!leaving) this.work(life, () => host.giveUp(key))
    host.ctx.lost({ name: key, epoch })
    host.ctx.log.warn(`lease ${key} is lost: ${gone ?? ''}; what is not committed of it will be read again`)
  }

  /** What was taken without an answer is found by looking, too. */
  private async giveBack({ table, host }: Life): Promise<void> {
    const { me } = this.settings
    const { log, clock } = host.ctx
    const bound = new AbortController()
    const over = new AbortController()
    clock.sleep(GIVE_BACK_MS, over.signal).then(
      () => {
        bound.abort(new Disconnected('no answer in time'))
      },
      () => undefined,
    )
    try {
      const ours = (await table.list(bound.signal)).filter(({ owner, handing }) => (handing ?? owner) === me)
      const left = await Promise.allSettled(
        ours.map(({ key, counter, handing }) =>
          table.write({ key, me, counter, handing: handing === me }, { release: true }, bound.signal),
        ),
      )
      const failed = left.find((one) => one.status === 'rejected')
      if (failed !== undefined) throw failed.reason
    } catch (error) {
      log.warn(`the leases could not be given back, others take them when they run out: ${lineOf(error)}`)
    }
    over.abort()
    for (const holding of this.held.values()) holding.end(GIVEN_BACK)
    this.held.clear()
  }

  private show({ host }: Life): void {
    host.ctx.gauge('leases', this.held.size)
  }

  /**
   * Beside reading. A server that is away, or busy, is asked again with the next tick: leases run out by the clock
   * alone.
   */
  private work(life: Life, run: () => Promise<void>): void {
    const work = run().then(
      () => this.answered(life),
      (error: unknown) => {
        if (life.stopping || life.signal.aborted) return
        if (!(error instanceof Disconnected || error instanceof Throttled)) throw error
        if (!this.failing) life.host.ctx.log.warn(`leases: ${lineOf(error)}`)
        this.failing = true
      },
    )
    const tracked = work
      .catch(() => undefined)
      .finally(() => {
        life.works.delete(tracked)
      })
    life.works.add(tracked)
    life.host.run(work)
  }

  private answered({ host }: Life): void {
    if (this.failing) host.ctx.log.info(`leases: the table ${this.settings.table} answers again`)
    this.failing = false
  }
}
