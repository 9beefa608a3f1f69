/** How long counters stand still, as seen from here: no other machine's clock is ever asked. */
import type { LeaseRow } from './lease-table'

interface Observed {
  readonly counter: number
  readonly since: number
  readonly moved: boolean
  readonly askedSince: number | undefined
}
export interface Standing {
  /** Nobody has it, or its holder has not moved it for a lease duration. */
  readonly free: boolean
  readonly old: boolean
  readonly overdue: boolean
  /** Its holder was seen to renew it. */
  readonly alive: boolean
}

/**
 * A lease that nobody took for so many durations is anybody's (DynamoDBLeaseTaker,
 * veryOldLeaseDurationNanosMultiplier).
 */
const OLD = 3

export class LeaseWatch {
  private seen = new Map<string, Observed>()
  private next: number | undefined

  /** @param handOverMs what a holder that was asked for a lease gets to drain it */
  constructor(
    private readonly me: string,
    private readonly leaseMs: number,
    private readonly handOverMs: number,
  ) {}

  /**
   * When the first lease that another process holds will have run out, if nobody moves it: looking then finds it free.
   */
  get due(): number | undefined {
    return this.next
  }

  /** @param begun and @param ended when the listing was asked for, and had been answered, milliseconds */
  look(rows: readonly LeaseRow[], begun: number, ended: number): ReadonlyMap<string, Standing> {
    const seen = new Map<string, Observed>()
    const standings = new Map<string, Standing>()
    this.next = undefined
    for (const row of rows) {
      const before = this.seen.get(row.key)
      const stood = before?.counter === row.counter
      const asked = row.owner === this.me && row.handing !== undefined && row.handing !== this.me
      const now: Observed = {
        counter: row.counter,
        since: stood ? before.since : ended,
        moved: row.owner !== undefined && (stood ? before.moved : before !== undefined),
        askedSince: asked ? (before?.askedSince ?? ended) : undefined,
      }
      seen.set(row.key, now)
      const still = begun - now.since
      if (row.owner !== undefined && row.owner !== this.me && still < this.leaseMs)
        this.next = Math.min(this.next ?? Infinity, now.since + this.leaseMs)
      standings.set(row.key, {
        free: row.owner === undefined || still >= this.leaseMs,
        old: still >= OLD * this.leaseMs,
        overdue: now.askedSince !== undefined && begun - now.askedSince >= this.handOverMs,
        alive: now.moved && still < this.leaseMs,
      })
    }
    this.seen = seen
    return standings
  }

  forget(): void {
    this.seen.clear()
  }
}
