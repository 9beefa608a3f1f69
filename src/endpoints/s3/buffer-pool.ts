/**
 * Buffers for what is on its way, over all uploads together. What is handed out and what is kept for reuse never exceed
 * the capacity, but for one buffer larger than all of it. Kept because a fresh 8 MiB costs its page faults, and the
 * collector lets many of them pile up.
 */
const MIB = 1024 * 1024

interface Waiter {
  readonly bytes: number
  grant(buffer: Buffer): void
}

export class BufferPool {
  private free: Buffer[] = []
  private allocatedBytes = 0
  private usedBytes = 0
  private readonly waiting = new Set<Waiter>()

  constructor(private readonly capacity: number) {}

  /**
   * At least so many bytes. Granted in the order asked; rejects with the signal's reason. Every holder must be able to
   * go on, and to release, without another one.
   */
  take(bytes: number, signal: AbortSignal): Promise<Buffer> {
    if (signal.aborted) return Promise.reject(signal.reason as Error)
    const ready = this.waiting.size === 0 ? this.tryTake(bytes) : undefined
    if (ready !== undefined) return Promise.resolve(ready)
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        bytes,
        grant: (buffer) => {
          signal.removeEventListener('abort', aborted)
          resolve(buffer)
        },
      }
      const aborted = (): void => {
        this.waiting.delete(waiter)
        reject(signal.reason as Error)
        this.serve()
      }
      signal.addEventListener('abort', aborted, { once: true })
      this.waiting.add(waiter)
    })
  }

  release(buffer: Buffer): void {
    this.usedBytes -= buffer.length
    if (buffer.length > this.capacity) this.allocatedBytes -= buffer.length
    else this.free.push(buffer)
    this.serve()
  }

  /** Gives up what is kept. */
  clear(): void {
    for (const buffer of this.free) this.allocatedBytes -= buffer.length
    this.free = []
  }

  private serve(): void {
    for (const waiter of this.waiting) {
      const buffer = this.tryTake(waiter.bytes)
      if (buffer === undefined) return
      this.waiting.delete(waiter)
      waiter.grant(buffer)
    }
  }

  private tryTake(bytes: number): Buffer | undefined {
    const size = Math.max(1, Math.ceil(bytes / MIB)) * MIB
    if (this.usedBytes > 0 && this.usedBytes + size > this.capacity) return undefined
    const index = this.free.findIndex((buffer) => buffer.length === size)
    const reused = index === -1 ? undefined : this.free.splice(index, 1)[0]
    if (reused === undefined) {
      while (this.free.length > 0 && this.allocatedBytes + size > this.capacity)
        this.allocatedBytes -= this.free.shift()?.length ?? 0
      this.allocatedBytes += size
    }
    this.usedBytes += size
    return reused ?? Buffer.allocUnsafeSlow(size)
  }
}
