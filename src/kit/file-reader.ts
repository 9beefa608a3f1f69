/** Reads regular files in large blocks, one block ahead. */
import { read } from 'node:fs'
import type { ReadBuffer } from './pipes'
import { unlessAborted } from './signal'

/** Fills a read buffer from a descriptor, beginning at a position. With null it begins where the descriptor stands. */
export class FileReader {
  private readAhead: Promise<number> | undefined
  private reachedEnd = false

  /**
   * @param checkUnchanged is called before a read after the end of the file, and rejects if the file has changed
   * @param end returns the position that counts as the end of the file
   */
  constructor(
    private readonly fd: number,
    private readonly buffer: ReadBuffer,
    private position: number | null,
    private readonly checkUnchanged: () => Promise<void> = () => Promise.resolve(),
    private readonly end: () => number = () => Infinity,
  ) {}

  /**
   * Resolves with false at the current end of the file, if nothing is pending. It rejects at once with the signal's
   * reason.
   */
  async wait(signal: AbortSignal): Promise<boolean> {
    while (this.buffer.pending === 0) {
      const fresh = this.readAhead === undefined
      const length = await unlessAborted((this.readAhead ??= this.startRead()), signal)
      this.readAhead = undefined
      this.reachedEnd = length === 0
      if (length === 0) {
        if (fresh) return false
        // The read ahead met the end some time ago, and the file may have grown since.
        continue
      }
      if (this.position !== null) this.position += length
      this.buffer.filled(length)
      this.readAhead = this.startRead()
    }
    return true
  }

  private startRead(): Promise<number> {
    const started = this.reachedEnd ? this.checkUnchanged().then(() => this.read()) : this.read()
    // `wait` reports an error. Until it is called, an error must not be an unhandled rejection.
    started.catch(() => undefined)
    return started
  }

  private read(): Promise<number> {
    return new Promise((resolve, reject) => {
      const space = this.buffer.space()
      const length = this.position === null ? space.length : Math.min(space.length, this.end() - this.position)
      if (length <= 0) {
        resolve(0)
        return
      }
      read(this.fd, space, 0, length, this.position, (error, bytes) => {
        if (error === null) resolve(bytes)
        else reject(error)
      })
    })
  }

  /** Waits for the pending read. The descriptor must not be closed before. */
  async idle(): Promise<void> {
    await this.readAhead?.catch(() => undefined /* its error does not matter any more */)
  }
}
