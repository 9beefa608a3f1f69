/**
 * Keeps a moment that is told as a date later on, by what the clock says by then. So a date that was wrong at the start
 * of a run is corrected while the run goes on.
 */
import { uptime } from 'node:os'
import type { Clock } from '../contract'

/** Dates that differ by less than this are the same. */
const STEP_MS = 1000

export class CorrectedTime {
  private readonly date: number
  private readonly monotonic: number
  private readonly up: number

  /** Keeps this moment. @param sinceBoot seconds since the start of the machine, with those in which it slept */
  constructor(
    private readonly clock: Pick<Clock, 'now' | 'monotonic'>,
    private readonly sinceBoot: () => number = uptime,
  ) {
    this.date = clock.now()
    this.monotonic = clock.monotonic()
    this.up = sinceBoot()
  }

  /** The moment in milliseconds since the epoch. */
  get at(): number {
    const { date, clock, up } = this
    const elapsed = Math.max(clock.monotonic() - this.monotonic, (this.sinceBoot() - up) * 1000)
    const supposed = clock.now() - elapsed
    return Math.abs(supposed - date) < STEP_MS ? date : supposed
  }

  /** The milliseconds since the moment, without those in which the machine slept. */
  get ms(): number {
    return this.clock.monotonic() - this.monotonic
  }
}
