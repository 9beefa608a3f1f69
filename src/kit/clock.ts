/** A difference between the date and what it is supposed to be that is a step of the clock. */
const STEP_MS = 20
/** Tries to read both clocks as one. */
const TRIES = 5

/** The time of this machine, behind the interface that tests replace. */
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
 * The date, with the fractions of the monotonic clock. The two agree but for steps: the date is corrected, by hand or
 * by NTP, or the machine was asleep, when the monotonic clock stands still.
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
      // In between others may have had the processor.
      apart = monotonic() - before
    }
    return offset + monotonic()
  }
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}
