/** Waits for events without polling. */

/** Wakes the waiter. If nobody waits, the notification is kept for the next one who does (an auto-reset event). */
export class Notifier {
  private set = false
  private waiter: (() => void) | undefined

  /** Only one may wait at a time. */
  wait(): Promise<void> {
    if (this.set) {
      this.set = false
      return Promise.resolve()
    }
    return new Promise((resolve) => {
      this.waiter = () => {
        this.waiter = undefined
        resolve()
      }
    })
  }

  notify(): void {
    if (this.waiter !== undefined) this.waiter()
    else this.set = true
  }
}

/** Makes an abort controller that also aborts when one of its parents does. `dispose` detaches it from them. */
export function linkedAbort(...parents: readonly AbortSignal[]): {
  readonly controller: AbortController
  dispose(): void
} {
  const controller = new AbortController()
  const undo: (() => void)[] = []
  for (const parent of parents) {
    if (parent.aborted) {
      controller.abort(parent.reason)
      break
    }
    const passOn = (): void => {
      controller.abort(parent.reason)
    }
    parent.addEventListener('abort', passOn, { once: true })
    undo.push(() => {
      parent.removeEventListener('abort', passOn)
    })
  }
  return {
    controller,
    dispose: () => {
      for (const take of undo) take()
    },
  }
}

/**
 * Settles as the promise does, or rejects with the signal's reason as soon as it aborts. The promise itself goes on.
 */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const aborted = (): void => {
      reject(signal.reason as Error)
    }
    if (signal.aborted) {
      promise.catch(() => undefined)
      aborted()
      return
    }
    signal.addEventListener('abort', aborted, { once: true })
    promise
      .finally(() => {
        signal.removeEventListener('abort', aborted)
      })
      .then(resolve, reject)
  })
}
