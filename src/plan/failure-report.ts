/** Tells of a run that has not ended well. */
import type { FlowResult } from '../core/flow/flow-parts'
import type { Assembled } from './assemble'
import type { RunLog } from './run-log'

/** A bounded run that fails prints this many buffered lines before the two or three that say why. */
const MAX_BUFFERED_LINES = 7

/** Prints at most ten lines: what failed, since when, the counts, where the records lie, and the next command. */
export function reportFailure(
  { ending, receipt }: FlowResult,
  { name, deadLetters, drainable }: Pick<Assembled, 'name' | 'deadLetters' | 'drainable'>,
  log: RunLog,
  redact: (text: string) => string,
): void {
  // A run that was told to stop has not failed.
  if (!(ending.kind === 'stopped' && ending.safe)) log.showBuffered(MAX_BUFFERED_LINES)
  const spooled = Math.max(0, ...receipt.sinks.map((sink) => sink.spooled))
  const rejected = Math.max(0, ...receipt.sinks.map((sink) => sink.rejected))
  switch (ending.kind) {
    case 'bug': {
      const stack = ending.error instanceof Error ? (ending.error.stack ?? ending.error.message) : String(ending.error)
      log.error(`this is a bug in manifold, please report it: ${redact(stack)}`)
      break
    }
    case 'stopped':
      log.error(
        ending.safe
          ? `stopped before its end: ${receipt.sinks.map((sink) => `${sink.delivered} records of ${receipt.read + sink.carriedIn} were delivered to ${sink.label}`).join('; ')}`
          : `cut short: ${receipt.sinks.map((sink) => `${sink.returned + sink.abandoned} records of ${receipt.read} were not delivered to ${sink.label}`).join('; ')}`,
      )
      break
    case 'complete':
    case 'reader gone':
      break
    default:
      log.error(ending.why)
  }
  if (spooled > 0)
    log.error(
      `${spooled} record${spooled === 1 ? ' is' : 's are'} safe in the spool; run the same line again${drainable ? `, or: manifold spool drain ${name}` : ''}`,
    )
  if (rejected > 0 && deadLetters !== undefined)
    log.error(
      `${rejected === 1 ? 'the rejected record lies' : `${rejected} rejected records lie`} in ${deadLetters}, with the reason; framing=envelope reads ${rejected === 1 ? 'it' : 'them'} again`,
    )
}
