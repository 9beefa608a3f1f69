import type { Clock, Log } from '../contract'
import { lineOf } from '../errors'

const CUT_MS = 250
const MOST_MS = 10_000

/**
 * Gives closing calls a moment, also after the grace is over. A peer that does not answer must not hold up the exit.
 */
export async function closing(
  work: Promise<unknown>,
  cut: boolean,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): Promise<void> {
  const limit = new AbortController()
  const guarded = work.catch((error: unknown) => {
    log.debug(`closing: ${lineOf(error)}`)
  })
  await Promise.race([guarded, clock.sleep(cut ? CUT_MS : MOST_MS, limit.signal).catch(() => undefined)])
  limit.abort(new Error('closed'))
}
