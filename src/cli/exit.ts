/** How a run ended, as an exit code; the first that applies, in this order. */
import type { Ending } from '../core/flow-parts'

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

/**
 * undefined: end by the signal that stopped the run.
 * @param short of an end that the run has: whoever goes on only after success (`&& rm source`) must not go on
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
