/**
 * Memory for lines and batches, used again and again: fresh memory by the gigabyte costs more than the copying, in page
 * faults and in garbage collections.
 */
export class Memory {
  private readonly free: Buffer[] = []
  /** @param kept pieces at the most that wait to be used again */
  constructor(private readonly kept = 12) {}

  /** At least so many bytes. */
  take(size: number): Buffer {
    const index = this.free.findIndex((one) => one.length >= size)
    const [found] = index === -1 ? [] : this.free.splice(index, 1)
    return found ?? Buffer.allocUnsafeSlow(Math.max(size, LEAST_MEMORY))
  }

  give(memory: Buffer): void {
    if (memory.length <= MOST_MEMORY && this.free.length < this.kept) this.free.push(memory)
  }
}

/** A delivery's lines, or a batch, and a little more. */
const LEAST_MEMORY = 1280 * 1024
const MOST_MEMORY = 4 * LEAST_MEMORY
