/** Makes reading wait for memory or disk: the bytes on their way into the spool are bounded, and so is the spool. */
import type { Spool } from '../flow/ports'

/** These bytes are enough for one group that is being synced and one that gathers. */
const APPENDING_BYTES = 16 * 1024 * 1024

export class SpoolBackpressure {
  private bytes = 0
  private waiting: (() => void)[] = []

  constructor(
    private readonly spool: Spool,
    private readonly memory: number,
  ) {
    spool.onStatus(() => {
      this.wake()
    })
  }

  enter(bytes: number): void {
    this.bytes += bytes
  }
  leave(bytes: number): void {
    this.bytes -= bytes
    this.wake()
  }

  /** Resolves when more may be read. One append is always let in, however large it is. */
  async wait(signal: AbortSignal): Promise<void> {
    const most = Math.min(this.memory / 2, APPENDING_BYTES)
    while ((this.bytes >= most && this.bytes > 0) || this.spool.status().full) {
      if (signal.aborted) throw signal.reason
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal.removeEventListener('abort', done)
          resolve()
        }
        this.waiting.push(done)
        signal.addEventListener('abort', done, { once: true })
      })
    }
  }
  wake(): void {
    for (const wake of this.waiting.splice(0)) wake()
  }
}
