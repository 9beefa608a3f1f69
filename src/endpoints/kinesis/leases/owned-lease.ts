/**
 * One lease that is ours. Its writes (renewals, checkpoints, giving back) go one after the other, each asking for the
 * counter that the last one left.
 *
 * - It is ours for a lease duration after the moment the last write that succeeded was sent, by our own clock: others
 *   begin to count later than that.
 * - A write without an answer may have happened. The next one finds out: a counter one higher, with us in the row, was
 *   ours.
 */
import type { Clock } from '../../../core/contract'
import type { LeaseChange, LeaseRow, LeaseTable } from './table'
import type { Checkpoint } from '../stream-client'

/** Why a lease is gone that we wanted to be rid of. */
export const RELEASED = 'given back'

export interface OwnedLeaseSettings {
  readonly workerId: string
  readonly leaseMs: number
  readonly clock: Clock
}
interface PendingCheckpoint {
  readonly checkpoint: Checkpoint
  done(): void
  failed(error: unknown): void
}

export class OwnedLease {
  readonly key: string
  checkpoint: Checkpoint
  /** Somebody stands in the row as the next holder. */
  isRequested: boolean
  /** We read no further and drain. */
  isDraining = false
  /** Nothing is left to commit: to be given back. */
  isDrained = false
  /** Why it is not ours any more. */
  lostBecause: string | undefined
  private counter: number
  private renewedAt: number
  private unansweredAt: number | undefined
  private lastWrite: Promise<unknown> = Promise.resolve()
  private pending: PendingCheckpoint | undefined

  /** @param takenAt when the write that made it ours was sent */
  constructor(
    private readonly settings: OwnedLeaseSettings,
    row: LeaseRow,
    readonly epoch: number,
    takenAt: number,
  ) {
    this.key = row.key
    this.checkpoint = row.checkpoint
    this.counter = row.counter
    this.isRequested = row.checkpointOwner === settings.workerId && row.owner !== settings.workerId
    this.renewedAt = takenAt
  }

  /** Also notes it. */
  isExpired(): boolean {
    if (this.lostBecause === undefined && this.settings.clock.monotonic() - this.renewedAt >= this.settings.leaseMs)
      this.end('it could not be renewed in time')
    return this.lostBecause !== undefined
  }

  /** To go with the next write. Resolves once it is in the table, or the lease is not ours any more. */
  setCheckpoint(checkpoint: Checkpoint): Promise<void> {
    this.pending?.done()
    if (this.lostBecause !== undefined) return Promise.resolve()
    return new Promise((done, failed) => {
      this.pending = { checkpoint, done, failed }
    })
  }

  /** Checkpoints that wait to be written will not be any more. */
  dropPending(error?: Error): void {
    const { pending } = this
    this.pending = undefined
    if (error === undefined) pending?.done()
    else pending?.failed(error)
  }

  end(why: string): void {
    this.lostBecause ??= why
    this.dropPending()
  }

  /**
   * Renews, with the checkpoint that waits. @param more what else to change with a checkpoint @returns false: it is not
   * ours any more
   */
  renew(
    table: LeaseTable,
    more: (checkpoint: Checkpoint) => Promise<LeaseChange>,
    signal: AbortSignal,
  ): Promise<boolean> {
    return this.afterLastWrite(async () => {
      const { pending } = this
      const change: LeaseChange =
        pending === undefined ? {} : { ...(await more(pending.checkpoint)), checkpoint: pending.checkpoint }
      if (!(await this.write(table, change, signal))) return false
      if (change.checkpoint !== undefined) this.checkpoint = change.checkpoint
      if (this.pending === pending) this.dropPending()
      if (change.release === true) this.end(RELEASED)
      return true
    })
  }

  /** For others to take at once. */
  release(table: LeaseTable, signal: AbortSignal): Promise<void> {
    return this.afterLastWrite(async () => {
      if (await this.write(table, { release: true }, signal)) this.end(RELEASED)
    })
  }

  private async write(table: LeaseTable, change: LeaseChange, signal: AbortSignal): Promise<boolean> {
    const { workerId: me, clock } = this.settings
    while (!this.isExpired()) {
      const at = clock.monotonic()
      const { key, counter, isRequested: handing } = this
      const written = await table
        .write({ key, workerId: me, counter, isRequested: handing }, change, signal)
        .catch((error: unknown) => {
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
      const isOurs = now !== undefined && (now.checkpointOwner ?? now.owner) === me
      if (isOurs && now.counter === counter && now.checkpointOwner === me && !handing) this.isRequested = true
      else if (isOurs && now.counter === counter + 1 && this.unansweredAt !== undefined) {
        this.counter = now.counter
        this.renewedAt = this.unansweredAt
        this.unansweredAt = undefined
        this.isRequested = now.checkpointOwner === me
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

  private afterLastWrite<T>(work: () => Promise<T>): Promise<T> {
    const next = this.lastWrite.then(work)
    this.lastWrite = next.catch(() => undefined)
    return next
  }
}
