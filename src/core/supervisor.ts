/**
 * One endpoint's life: opening → running → backing off → … → stopped | failed. Owns retry, backoff and the decision to give up; endpoints only
 * classify. A repeating fault is logged at 1, 2, 4, … times, then hourly with its count; one that was not told since it was well is logged as it comes.
 */
import { Backoff } from '../kit/backoff'
import type { Clock, Log } from './contract'
import { DiskFailed, Disconnected, Fatal, ReaderGone, Refused, Throttled, UsageError, lineOf, isSystemError } from './errors'
import { Moment } from './moment'
import type { EndpointState, EndpointStatus } from './status'

/** The endpoint has failed for good: the run ends with 3 (source) or 4 (sink). */
export class EndpointFailed extends Error {
  constructor(readonly role: EndpointStatus['role'], readonly label: string, message: string, override readonly cause: unknown) { super(message) }
}

/** Milliseconds of continuous failure, or never, or the first connection that cannot be made. */
export type GiveUpAfter = number | 'never' | 'first'

export interface Supervision {
  readonly giveUpAfter: GiveUpAfter
  /** It has worked in an earlier run of this flow: a refusal is no typo. */
  readonly knownGood: boolean
  /** Longest wait between tries, milliseconds. */
  readonly longestWait?: number
}

/** Health that lasts this long makes the next fault a first one again. */
const SUSTAINED_MS = 30_000
const HOUR_MS = 3_600_000
/** A peer that asks for more patience is asked again after this. */
const LONGEST_ASKED_MS = 5 * 60_000
/** Different faults that are told as they come: no more than these, where a text is another one each time. */
const MOST_TOLD = 32

export class Supervisor {
  private state: EndpointState = 'opening'
  private since: Moment
  private faults = 0
  private text: string | undefined
  private failingSince: number | undefined
  private healthySince: number | undefined
  private succeeded: boolean
  private loggedAt = 0
  /** What was logged since it was well, numbers left out. */
  private readonly told = new Set<string>()
  private readonly backoff: Backoff
  readonly gauges: Record<string, number> = {}

  constructor(readonly id: string, readonly role: EndpointStatus['role'], readonly label: string, private readonly rules: Supervision, private readonly clock: Clock, private readonly log: Log) {
    this.since = new Moment(clock)
    this.succeeded = rules.knownGood
    this.backoff = new Backoff(250, Math.max(250, rules.longestWait ?? 10_000))
  }

  status(): EndpointStatus {
    return { id: this.id, role: this.role, label: this.label, state: this.state, since: this.since.at, faults: this.faults, ...(this.text === undefined ? {} : { error: this.text }), gauges: this.gauges }
  }

  get current(): EndpointState { return this.state }

  to(state: EndpointState): void {
    if (this.state === state) return
    this.state = state
    this.since = new Moment(this.clock)
  }

  /** It opened: a new connection could be made. */
  opened(): void {
    this.to('running')
    this.healthySince = this.clock.monotonic()
  }

  /** Records moved: the first success, and the end of a run of faults. */
  moved(): void {
    this.succeeded = true
    if (this.state === 'opening') this.to('running')
    if (this.faults === 0) return
    const now = this.clock.monotonic()
    this.failingSince = undefined
    if (this.healthySince !== undefined && now - this.healthySince >= SUSTAINED_MS) {
      this.log.info(`${this.label}: well again after ${this.faults} faults`)
      this.faults = 0
      this.text = undefined
      this.told.clear()
      this.backoff.reset()
    }
  }

  /**
   * Takes a fault and waits as long as it asks. Throws what ends the run: `EndpointFailed`, or the fault itself where it is not the endpoint's
   * (a bug, our disk, our stdout's reader).
   * @param opening the fault came from `open`
   */
  async fault(thrown: unknown, opening: boolean, signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw signal.reason
    // A call of the system that failed may work again, whoever forgot to say so.
    const error = isSystemError(thrown) ? new Disconnected(lineOf(thrown), { cause: thrown }) : thrown
    if (error instanceof ReaderGone || error instanceof DiskFailed || error instanceof UsageError) throw error
    if (error instanceof Fatal) throw this.failed(lineOf(error), error)
    if (!(error instanceof Disconnected || error instanceof Throttled || error instanceof Refused)) { this.to('failed'); throw error }
    const now = this.clock.monotonic()
    this.text = lineOf(error)
    if (error instanceof Refused && !this.succeeded) throw this.failed(this.text, error)
    if (opening && this.rules.giveUpAfter === 'first') throw this.failed(`${this.text} (giving up at the first failed connection, as asked)`, error)
    // An open that worked and moved nothing before it failed again is still the same failure.
    this.failingSince ??= now
    if (typeof this.rules.giveUpAfter === 'number' && now - this.failingSince >= this.rules.giveUpAfter) {
      throw this.failed(`${this.text} (failing for ${Math.round((now - this.failingSince) / 1000)} s, ${this.faults + 1} tries; --give-up-after says how long)`, error)
    }
    this.faults++
    this.healthySince = undefined
    const wait = error instanceof Throttled && error.afterMs !== undefined ? Math.min(error.afterMs, this.rules.longestWait ?? LONGEST_ASKED_MS)
      // The first fault after health is mostly a restart at the other end: at once is soon enough, and right for a feed.
      : this.faults === 1 && error instanceof Disconnected && !opening ? 0 : this.backoff.next()
    const kind = this.text.replace(/\d+/g, '#')
    const isNew = this.told.size < MOST_TOLD && !this.told.has(kind)
    if (isNew || (this.faults & (this.faults - 1)) === 0 && this.faults <= 1024 || now - this.loggedAt >= HOUR_MS) {
      this.loggedAt = now
      if (isNew) this.told.add(kind)
      this.log.warn(`${this.label}: ${this.text}${this.faults > 1 && !isNew ? ` (${this.faults} times)` : ''}; trying again`)
    }
    this.to('backing off')
    await this.clock.sleep(wait, signal)
  }

  private failed(text: string, cause: unknown): EndpointFailed {
    this.text = text
    this.to('failed')
    return new EndpointFailed(this.role, this.label, `${this.label}: ${text}`, cause)
  }
}
