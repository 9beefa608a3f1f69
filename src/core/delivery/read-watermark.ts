/**
 * Decides how far a sink that cannot confirm is believed: a position is marked with how much was written by then, and
 * committed once that mark has been passed.
 */
import type { Clock, Sink } from '../contract'

export interface ReadWatermark {
  mark(): number
  passed(): Promise<number>
  /** Marks that are less than this apart count as one. */
  readonly step: number
  /** True if records behind the mark are known to be unread. Otherwise they may just as well have been read. */
  readonly certain: boolean
}

/**
 * Nothing tells how far the reader is: one that went away is noticed at a write, and this is how long one is waited
 * for.
 */
const SUPPOSED_MS = 1000

/** Returns undefined for a sink that confirms. */
export function readWatermarkOf(sink: Sink, clock: Clock): ReadWatermark | undefined {
  if (sink.limits.confirms !== 'none') return undefined
  const { reader } = sink
  if (reader === undefined)
    return {
      mark: () => clock.monotonic(),
      passed: () => Promise.resolve(clock.monotonic() - SUPPOSED_MS),
      step: SUPPOSED_MS / 4,
      certain: false,
    }
  return { mark: () => reader.taken, passed: () => reader.read(), step: 16 * 1024, certain: true }
}
