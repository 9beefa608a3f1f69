/** Maps the end of a run to an exit code. */
import type { Ending } from './flow-parts'

export const EXIT = {
  complete: 0,
  bug: 1,
  usage: 2,
  source: 3,
  sink: 4,
  incomplete: 5,
  disk: 74,
  flowInUse: 75,
  readerGone: 141,
} as const

/** A process ends with an exit code or by a signal. */
export type ProcessEnd = number | NodeJS.Signals

/**
 * Returns the exit code, or undefined if the process has to end by the signal that stopped the run.
 * @param short the run stopped before its own end, so a script must not continue as after success (`&& rm source`)
 */
export function exitCode(ending: Ending, short: boolean): number | undefined {
  switch (ending.kind) {
    case 'complete':
      return EXIT.complete
    case 'stopped':
      return ending.safe && !short ? EXIT.complete : undefined
    case 'incomplete':
      return EXIT.incomplete
    case 'source failed':
      return EXIT.source
    case 'sink failed':
      return EXIT.sink
    case 'disk failed':
      return EXIT.disk
    case 'usage':
      return EXIT.usage
    case 'reader gone':
      return EXIT.readerGone
    case 'bug':
      return EXIT.bug
  }
}
