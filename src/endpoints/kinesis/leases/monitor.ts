/** Measures how long counters stand still, as seen from here: no other machine's clock is ever asked. */
import type { LeaseRow } from './table'

interface Observation {
  readonly counter: number
  readonly since: number
  readonly moved: boolean
  readonly askedSince: number | undefined
}
export interface LeaseStatus {
  /** Nobody has it, or its holder has not moved it for a lease duration. */
  readonly free: boolean
  readonly longFree: boolean
  readonly overdue: boolean
  /** Its holder was seen to renew it. */
  readonly alive: boolean
}

/**
 * A lease that nobody took for so many durations is anybody's (DynamoDBLeaseTaker,
 * veryOldLeaseDurationNanosMultiplier).
 */
const LONG_FREE_DURATIONS = 3

export class LeaseMonitor {
  private observations = new Map<string, Observation>()
  private nextDue: number | undefined

  /** @param handOverMs what a holder that was asked for a lease gets to drain it */
  constructor(
    private readonly workerId: string,
    private readonly leaseMs: number,
    private readonly handOverMs: number,
  ) {}

  /**
   * When the first lease that another process holds will have run out, if nobody moves it: looking then finds it free.
   */
  get due(): number | undefined {
    return this.nextDue
  }

  /** @param begun and @param ended when the listing was asked for, and had been answered, milliseconds */
  observe(rows: readonly LeaseRow[], begun: number, ended: number): ReadonlyMap<string, LeaseStatus> {
    const seen = new Map<string, Observation>()
    const statuses = new Map<string, LeaseStatus>()
    this.nextDue = undefined
    for (const row of rows) {
      const before = this.observations.get(row.key)
      const isUnmoved = before?.counter === row.counter
      const asked =
        row.owner === this.workerId && row.checkpointOwner !== undefined && row.checkpointOwner !== this.workerId
      const now: Observation = {
        counter: row.counter,
        since: isUnmoved ? before.since : ended,
        moved: row.owner !== undefined && (isUnmoved ? before.moved : before !== undefined),
        askedSince: asked ? (before?.askedSince ?? ended) : undefined,
      }
      seen.set(row.key, now)
      const unmovedMs = begun - now.since
      if (row.owner !== undefined && row.owner !== this.workerId && unmovedMs < this.leaseMs)
        this.nextDue = Math.min(this.nextDue ?? Infinity, now.since + this.leaseMs)
      statuses.set(row.key, {
        free: row.owner === undefined || unmovedMs >= this.leaseMs,
        longFree: unmovedMs >= LONG_FREE_DURATIONS * this.leaseMs,
        overdue: now.askedSince !== undefined && begun - now.askedSince >= this.handOverMs,
        alive: now.moved && unmovedMs < this.leaseMs,
      })
    }
    this.observations = seen
    return statuses
  }

  forget(): void {
    this.observations.clear()
  }
}
