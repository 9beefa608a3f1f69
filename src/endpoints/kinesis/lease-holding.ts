/**
 * One lease that is ours. Its writes (renewals, checkpoints, giving back) go one after the other, each asking for the
 * counter that the last one left.
 *
 * - It is ours for a lease duration after the moment the last write that succeeded was sent, by our own clock: others
 *   begin to count later than that.
 * - A write without an answer may have happened. The next one finds out: a counter one higher, with us in the row, was
 *   ours.
 */
import type { Clock } from '../../core/contract'
import type { Change, LeaseRow, LeaseTable } from './lease-table'
import type { Checkpoint } from './wire'

/** Why a lease is gone that we wanted to be rid of. */
export const GIVEN_BACK = 'given back'

export interface HoldingSettings {
  readonly me: string
  readonly leaseMs: number
  readonly clock: Clock
}
interface Pending {
  readonly checkpoint: Checkpoint
  done(): void
  failed(error: unknown): void
}

export class Holding {
  readonly key: string
  checkpoint: Checkpoint
  /** Somebody stands in the row as the next holder. */
  handing: boolean
  /** We read no further and drain. */
  leaving = false
  /** Nothing is left to commit: to be given back. */
  drained = false
  /** Why it is not ours any more. */
  gone: string | undefined
  private counter: number
  private renewedAt: number
  private unansweredAt: number | undefined
  private turn: Promise<unknown> = Promise.resolve()
  private pending: Pending | undefined

  /** @param takenAt when the write that made it ours was sent */
  constructor(
    private readonly settings: HoldingSettings,
    row: LeaseRow,
    readonly epoch: number,
    takenAt: number,
  ) {
    this.key = row.key
    this.checkpoint = row.checkpoint
    this.counter = row.counter
    this.handing = row.handing === settings.me && row.owner !== settings.me
    this.renewedAt = takenAt
  }

  /** Also notes it. */
  isExpired(): boolean {
    if (this.gone === undefined && this.settings.clock.monotonic() - this.renewedAt >= this.settings.leaseMs)
      this.end('it could not be renewed in time')
    return this.gone !== undefined
  }

  /** To go with the next write. Resolves once it is in the table, or the lease is not ours any more. */
  note(checkpoint: Checkpoint): Promise<void> {
    this.pending?.done()
    if (this.gone !== undefined) return Promise.resolve()
    return new Promise((done, failed) => {
      this.pending = { checkpoint, done, failed }
    })
  }

  /** What waits to be written will not be any more. */
  drop(error?: Error): void {
    const { pending } = this
    this.pending = undefined
    if (error === undefined) pending?.done()
    else pending?.failed(error)
  }

  end(why: string): void {
    this.gone ??= why
    this.drop()
  }

  /**
   * Renews, with the checkpoint that waits. @param more what else to change with a checkpoint @returns false: it is not
   * ours any more
   */
  renew(table: LeaseTable, more: (checkpoint: Checkpoint) => Promise<Change>, signal: AbortSignal): Promise<boolean> {
    return this.inTurn(async () => {
      const { pending } = this
      const change: Change =
        pending === undefined ? {} : { ...(await more(pending.checkpoint)), checkpoint: pending.checkpoint }
      if (!(await this.write(table, change, signal))) return false
      if (change.checkpoint !== undefined) this.checkpoint = change.checkpoint
      if (this.pending === pending) this.drop()
      if (change.release === true) this.end(GIVEN_BACK)
      return true
    })
  }

  /** For others to take at once. */
  release(table: LeaseTable, signal: AbortSignal): Promise<void> {
    return this.inTurn(async () => {
      if (await this.write(table, { release: true }, signal)) this.end(GIVEN_BACK)
    })
  }

  private async write(table: LeaseTable, change: Change, signal: AbortSignal): Promise<boolean> {
    const { me, clock } = this.settings
    while (!this.isExpired()) {
      const at = clock.monotonic()
      const { key, counter, handing } = this
      const written = await table.write({ key, me, counter, handing }, change, signal).catch((error: unknown) => {
        this.unansweredAt ??= at
        throw error
      })
      if (written.done) {
        this.counter++
        this.renewedAt = at
        this.unansweredAt = undefined
        return true
      }
      const { now } = written
      const isOurs = now !== undefined && (now.handing ?? now.owner) === me
      if (isOurs && now.counter === counter && now.handing === me && !handing) this.handing = true
      else if (isOurs && now.counter === counter + 1 && this.unansweredAt !== undefined) {
        this.counter = now.counter
        this.renewedAt = this.unansweredAt
        this.unansweredAt = undefined
        this.handing = now.handing === me
      } else
        this.end(
          now === undefined
            ? 'its row was removed from the table'
            : isOurs
              ? `another process goes by the name ${me}: give each its own worker-id=`
              : now.owner === undefined
                ? 'it was given back'
                : `${now.owner} has taken it`,
        )
    }
    return false
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const next = this.turn.then(work)
    this.turn = next.catch(() => undefined)
    return next
  }
}
