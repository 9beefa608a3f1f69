/** Reading of regular files in large blocks, one read ahead of what is being worked on. */
import { read } from 'node:fs'
import type { ReadBuffer } from './pipes'
import { unlessAborted } from './signal'

/** Fills a read buffer from a descriptor, from a position on or, with null, from where the descriptor stands. */
export class FileReader {
  private readAhead: Promise<number> | undefined
  private reachedEnd = false

  /**
   * @param checkUnchanged asked before a read that follows an end: it may reject, where the file is no longer what it
   *   was
   * @param end the position that counts as the file's end, whatever lies beyond it
   */
  constructor(
    private readonly fd: number,
    private readonly buffer: ReadBuffer,
    private position: number | null,
    private readonly checkUnchanged: () => Promise<void> = () => Promise.resolve(),
    private readonly end: () => number = () => Infinity,
  ) {}

  /**
   * Resolves with false at the end of the file, as it stands now, where nothing is pending. Rejects with the signal's
   * reason, at once.
   */
  async wait(signal: AbortSignal): Promise<boolean> {
    while (this.buffer.pending === 0) {
      const fresh = this.readAhead === undefined
      const length = await unlessAborted((this.readAhead ??= this.startRead()), signal)
      this.readAhead = undefined
      this.reachedEnd = length === 0
      if (length === 0) {
        if (fresh) return false
        // The read ahead met the end some time ago: the file may have grown since.
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
    // Whoever waits for it is told; until somebody does, it is nobody's.
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

  /** Waits for the read under way, if any: its descriptor may be closed then, and not before. */
  async idle(): Promise<void> {
    await this.readAhead?.catch(() => undefined /* what it failed of is nobody's concern any more */)
  }
}
