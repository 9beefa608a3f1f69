/** A larger difference between the expected and the actual date is a step of the clock. */
const STEP_MS = 20
/** Both clocks are read this many times at most, to read them at the same moment. */
const TRIES = 5

/** Reads the clocks of this machine. Tests replace this object. */
export const systemClock = {
  now: wallClock(),
  monotonic: (): number => performance.now(),
  sleep(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(asError(signal.reason))
        return
      }
      const aborted = (): void => {
        clearTimeout(timer)
        reject(asError(signal.reason))
      }
      const timer = setTimeout(
        () => {
          signal.removeEventListener('abort', aborted)
          resolve()
        },
        Math.min(Math.max(ms, 0), 2 ** 31 - 1),
      )
      signal.addEventListener('abort', aborted, { once: true })
    })
  },
  every(ms: number, run: () => void): { stop(): void } {
    const timer = setInterval(run, ms)
    return {
      stop: () => {
        clearInterval(timer)
      },
    }
  },
}

/**
 * Returns the date with the fractions of the monotonic clock. The two differ only by steps: the date is corrected, by
 * hand or by NTP, or the machine sleeps, and the monotonic clock stands still.
 */
export function wallClock(
  date: () => number = Date.now,
  monotonic: () => number = () => performance.now(),
  origin: number = performance.timeOrigin,
): () => number {
  let offset = origin
  return () => {
    const supposed = offset + monotonic()
    const read = date()
    if (Math.abs(supposed - read) < STEP_MS) return supposed
    for (let tries = 0, apart = Infinity; tries < TRIES && apart > 1; tries++) {
      const before = monotonic()
      offset = date() - before
      // The process may have been interrupted between the two reads.
      apart = monotonic() - before
    }
    return offset + monotonic()
  }
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}
