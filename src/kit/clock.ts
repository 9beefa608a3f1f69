/** The time of this machine, behind the interface that tests replace. */
export const systemClock = {
  now: (): number => performance.timeOrigin + performance.now(),
  sleep(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) { reject(asError(signal.reason)); return }
      const aborted = (): void => { clearTimeout(timer); reject(asError(signal.reason)) }
      const timer = setTimeout(() => { signal.removeEventListener('abort', aborted); resolve() }, Math.min(Math.max(ms, 0), 2 ** 31 - 1))
      signal.addEventListener('abort', aborted, { once: true })
    })
  },
  every(ms: number, run: () => void): { stop(): void } {
    const timer = setInterval(run, ms)
    return { stop: () => { clearInterval(timer) } }
  },
}

function asError(reason: unknown): Error { return reason instanceof Error ? reason : new Error(String(reason)) }
