/**
 * Memory that all shards share: what was read and waits, and what is being asked for. First come, first served; one
 * that is larger than all of it goes alone.
 */
import { unlessAborted } from '../../kit/signal'

interface Waiter {
  readonly bytes: number
  go(): void
}

export class Budget {
  private used = 0
  private waiters: Waiter[] = []

  constructor(private readonly most: number) {}

  /** Resolves once there is room, which is taken then. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.waiters.length === 0 && this.fits(bytes)) {
      this.used += bytes
      return
    }
    let waiter: Waiter | undefined
    const turn = new Promise<void>((resolve) => {
      this.waiters.push((waiter = { bytes, go: resolve }))
    })
    try {
      await unlessAborted(turn, signal)
    } catch (error) {
      if (waiter !== undefined) {
        if (this.waiters.includes(waiter)) this.waiters = this.waiters.filter((one) => one !== waiter)
        else this.give(bytes)
      }
      throw error
    }
  }

  /** What is there already, whether there is room or not. */
  add(bytes: number): void {
    this.used += bytes
  }

  give(bytes: number): void {
    this.used -= bytes
    for (let first = this.waiters[0]; first !== undefined && this.fits(first.bytes); first = this.waiters[0]) {
      this.waiters.shift()
      this.used += first.bytes
      first.go()
    }
  }

  private fits(bytes: number): boolean {
    return this.used <= 0 || this.used + bytes <= this.most
  }
}
