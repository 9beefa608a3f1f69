/**
 * Follows one endpoint's life: opening → running → backing off → … → stopped | failed. It owns retry, backoff and the
 * decision to give up; endpoints only classify. A fault that repeats is logged at 1, 2, 4, … times, then hourly with
 * its count. A fault that was not told since the endpoint was well is logged as it comes.
 */
import { Backoff } from '../../kit/backoff'
import type { Clock, Log } from '../contract'
import {
  DiskFailed,
  Disconnected,
  Fatal,
  ReaderGone,
  Refused,
  Throttled,
  UsageError,
  lineOf,
  isSystemError,
} from '../errors'
import { CorrectedTime } from '../flow/corrected-time'
import type { EndpointState, EndpointStatus } from '../flow/status'

/** The endpoint has failed for good, and the run ends with 3 (source) or 4 (sink). */
export class EndpointFailed extends Error {
  constructor(
    readonly role: EndpointStatus['role'],
    readonly label: string,
    message: string,
    override readonly cause: unknown,
  ) {
    super(message)
  }
}

/**
 * An endpoint is given up after so many milliseconds of failure, never, or when its first connection cannot be made.
 */
export type GiveUpAfter = number | 'never' | 'first'

export interface Supervision {
  readonly giveUpAfter: GiveUpAfter
  /** The endpoint has worked in an earlier run of this flow, so a refusal is no typo. */
  readonly knownGood: boolean
  /** The longest wait between attempts, in milliseconds. */
  readonly longestWait?: number
}

/** Health that lasts this long makes the next fault a first one again. */
const SUSTAINED_MS = 30_000
const HOUR_MS = 3_600_000
/** A peer that asks for more patience is asked again after this. */
const LONGEST_ASKED_MS = 5 * 60_000
/**
 * A failure that lasts this long, or half of what is given it, is told to whoever reads what is otherwise told at
 * failure only.
 */
const LASTING_MS = 60_000
/** So many different faults are told as they come, because a text may be another one each time. */
const MOST_TOLD = 32

export class Supervisor {
  private state: EndpointState = 'opening'
  private since: CorrectedTime
  private faults = 0
  private text: string | undefined
  private failingSince: number | undefined
  private healthySince: number | undefined
  private succeeded: boolean
  private loggedAt = 0
  /** A fault was logged, and its end was not. */
  private isTold = false
  private isLasting = false
  /** The texts that were logged since the endpoint was well, without their numbers. */
  private readonly told = new Set<string>()
  private readonly backoff: Backoff
  readonly gauges: Record<string, number> = {}

  constructor(
    readonly id: string,
    readonly role: EndpointStatus['role'],
    readonly label: string,
    private readonly rules: Supervision,
    private readonly clock: Clock,
    private readonly log: Log,
  ) {
    this.since = new CorrectedTime(clock)
    this.succeeded = rules.knownGood
    this.backoff = new Backoff(250, Math.max(250, rules.longestWait ?? 10_000))
  }

  status(): EndpointStatus {
    return {
      id: this.id,
      role: this.role,
      label: this.label,
      state: this.state,
      since: this.since.at,
      faults: this.faults,
      ...(this.text === undefined ? {} : { error: this.text }),
      gauges: this.gauges,
    }
  }

  get current(): EndpointState {
    return this.state
  }

  to(state: EndpointState): void {
    if (this.state === state) return
    this.state = state
    this.since = new CorrectedTime(this.clock)
  }

  /** Tells that the endpoint could be opened. */
  opened(): void {
    this.to('running')
    this.healthySince = this.clock.monotonic()
  }

  /** The endpoint has been failing for so many milliseconds without a break. */
  get failingMs(): number {
    return this.failingSince === undefined ? 0 : this.clock.monotonic() - this.failingSince
  }

  /** Tells that records moved, which is the first success, or the end of a run of faults. */
  moved(): void {
    this.succeeded = true
    if (this.state === 'opening' || this.state === 'backing off') this.to('running')
    if (this.faults === 0) return
    const now = this.clock.monotonic()
    this.healthySince ??= now
    this.failingSince = undefined
    // This is told as often as faults are, so that an endpoint that comes and goes fills no log.
    if (this.isTold)
      this.log.info(`${this.label}: well again after ${this.faults} fault${this.faults === 1 ? '' : 's'}`)
    this.isTold = this.isLasting = false
    if (now - this.healthySince >= SUSTAINED_MS) {
      this.faults = 0
      this.text = undefined
      this.told.clear()
      this.backoff.reset()
    }
  }

  /**
   * Takes a fault and waits as long as it asks. Throws what ends the run: `EndpointFailed`, or the fault itself where
   * it is not the endpoint's (a bug, our disk, our stdout's reader).
   * @param opening the fault came from `open`
   */
  async fault(thrown: unknown, opening: boolean, signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw signal.reason
    // A system call that failed may work again, even if the endpoint did not classify it.
    const error = isSystemError(thrown) ? new Disconnected(lineOf(thrown), { cause: thrown }) : thrown
    if (error instanceof ReaderGone || error instanceof DiskFailed || error instanceof UsageError) throw error
    if (error instanceof Fatal) throw this.failed(lineOf(error), error)
    if (!(error instanceof Disconnected || error instanceof Throttled || error instanceof Refused)) {
      this.to('failed')
      throw error
    }
    this.text = lineOf(error)
    if (error instanceof Refused && !this.succeeded) throw this.failed(this.text, error)
    if (opening && this.rules.giveUpAfter === 'first')
      throw this.failed(`${this.text} (giving up at the first failed connection, as asked)`, error)
    this.count(this.text, error)
    const wait =
      error instanceof Throttled && error.afterMs !== undefined
        ? this.asked(error.afterMs)
        : // The first fault after health is mostly a restart at the other end: at once is soon enough, and right for a
          // feed.
          this.faults === 1 && error instanceof Disconnected && !opening
          ? 0
          : this.backoff.next()
    this.to('backing off')
    await this.clock.sleep(wait, signal)
  }

  /**
   * It answers and takes nothing for now: a failure as well, though no connection is at fault. Returns how long to
   * wait.
   * @param afterMs what it asked for, 0: nothing
   * @throws EndpointFailed
   */
  denied(why: string, afterMs: number): number {
    this.count((this.text = why), undefined)
    this.to('backing off')
    return afterMs > 0 ? this.asked(afterMs) : this.backoff.next()
  }

  private asked(afterMs: number): number {
    return Math.min(afterMs, this.rules.longestWait ?? LONGEST_ASKED_MS)
  }

  /** Counts one more fault: it gives up, or tells of it. */
  private count(text: string, cause: unknown): void {
    const now = this.clock.monotonic()
    // If an opening worked but no record moved before the next fault, it is still the same failure.
    this.failingSince ??= now
    const since = this.failingSince
    const { giveUpAfter } = this.rules
    if (typeof giveUpAfter === 'number' && now - since >= giveUpAfter) {
      throw this.failed(
        `${text} (failing for ${Math.round((now - since) / 1000)} s, ${this.faults + 1} tries; --give-up-after says how long)`,
        cause,
      )
    }
    this.faults++
    this.healthySince = undefined
    const kind = text.replace(/\d+/g, '#')
    const isNew = this.told.size < MOST_TOLD && !this.told.has(kind)
    if (isNew || ((this.faults & (this.faults - 1)) === 0 && this.faults <= 1024) || now - this.loggedAt >= HOUR_MS) {
      this.loggedAt = now
      this.isTold = true
      if (isNew) this.told.add(kind)
      this.log.warn(`${this.label}: ${text}${this.faults > 1 && !isNew ? ` (${this.faults} times)` : ''}; trying again`)
    }
    if (
      this.isLasting ||
      now - since < (typeof giveUpAfter === 'number' ? Math.min(LASTING_MS, giveUpAfter / 2) : LASTING_MS)
    )
      return
    this.isLasting = true
    const date = (at: number): string => new Date(this.clock.now() + at - now).toISOString()
    this.log.lasting?.(
      `${this.label}: failing since ${date(since)}: ${text}; trying again${typeof giveUpAfter === 'number' ? ` until ${date(since + giveUpAfter)}` : ''} (--give-up-after)`,
    )
  }

  private failed(text: string, cause: unknown): EndpointFailed {
    this.text = text
    this.to('failed')
    return new EndpointFailed(this.role, this.label, `${this.label}: ${text}`, cause)
  }
}
