/**
 * Memory that all shards share: what was read and waits, and what is being asked for. First come, first served; one
 * that is larger than all of it goes alone.
 */
import { unlessAborted } from '../../../kit/signal'

interface Waiter {
  readonly bytes: number
  grant(): void
}

export class MemoryBudget {
  private usedBytes = 0
  private waiters: Waiter[] = []

  constructor(private readonly maxBytes: number) {}

  /** Resolves once there is room, which is taken then. */
  async acquire(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.waiters.length === 0 && this.fits(bytes)) {
      this.usedBytes += bytes
      return
    }
    let waiter: Waiter | undefined
    const granted = new Promise<void>((resolve) => {
      this.waiters.push((waiter = { bytes, grant: resolve }))
    })
    try {
      await unlessAborted(granted, signal)
    } catch (error) {
      if (waiter !== undefined) {
        if (this.waiters.includes(waiter)) this.waiters = this.waiters.filter((one) => one !== waiter)
        else this.release(bytes)
      }
      throw error
    }
  }

  /** Counts bytes that are there already, even beyond the capacity. */
  add(bytes: number): void {
    this.usedBytes += bytes
  }

  release(bytes: number): void {
    this.usedBytes -= bytes
    for (let first = this.waiters[0]; first !== undefined && this.fits(first.bytes); first = this.waiters[0]) {
      this.waiters.shift()
      this.usedBytes += first.bytes
      first.grant()
    }
  }

  private fits(bytes: number): boolean {
    return this.usedBytes <= 0 || this.usedBytes + bytes <= this.maxBytes
  }
}
