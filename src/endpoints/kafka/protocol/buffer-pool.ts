/**
 * Memory for lines and batches, used again and again: fresh memory by the gigabyte costs more than the copying, in page
 * faults and in garbage collections.
 */
export class BufferPool {
  private readonly free: Buffer[] = []
  /** @param maxFree pieces at the most that wait to be used again */
  constructor(private readonly maxFree = 12) {}

  /** At least so many bytes. */
  acquire(size: number): Buffer {
    const index = this.free.findIndex((one) => one.length >= size)
    const [found] = index === -1 ? [] : this.free.splice(index, 1)
    return found ?? Buffer.allocUnsafeSlow(Math.max(size, MIN_BUFFER_BYTES))
  }

  release(buffer: Buffer): void {
    if (buffer.length <= MAX_BUFFER_BYTES && this.free.length < this.maxFree) this.free.push(buffer)
  }
}

/** A delivery's lines, or a batch, and a little more. */
const MIN_BUFFER_BYTES = 1280 * 1024
const MAX_BUFFER_BYTES = 4 * MIN_BUFFER_BYTES
