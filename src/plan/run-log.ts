/** The log of a run, as the command line shows it. */
import type { Log } from '../core/contract'

export interface RunLog extends Log {
  error(message: string, facts?: object): void
  lasting(message: string): void
  /** Prints buffered lines after a failure: the first warning and the last lines, at most this many in all. */
  showBuffered(lines: number): void
}
