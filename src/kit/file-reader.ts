/** Reading of regular files in large blocks, one read ahead of what is being worked on. */
import { read } from 'node:fs'
import type { Landing } from './pipes'
import { unlessAborted } from './signal'

/** Fills a landing from a descriptor, from a position on or, with null, from where the descriptor stands. */
export class FileReader {
  private ahead: Promise<number> | undefined

  constructor(private readonly fd: number, private readonly landing: Landing, private position: number | null) {}

  /** Resolves with false at the end of the file, as it stands now, where nothing is pending. Rejects with the signal's reason, at once. */
  async wait(signal: AbortSignal): Promise<boolean> {
    while (this.landing.pending === 0) {
      const length = await unlessAborted(this.ahead ??= this.start(), signal)
      this.ahead = undefined
      if (length === 0) return false
      if (this.position !== null) this.position += length
      this.landing.filled(length)
      this.ahead = this.start()
    }
    return true
  }

  private start(): Promise<number> {
    const started = new Promise<number>((resolve, reject) => {
      const space = this.landing.space()
      read(this.fd, space, 0, space.length, this.position, (error, length) => { if (error === null) resolve(length); else reject(error) })
    })
    started.catch(() => undefined)
    return started
  }

  /** Waits for the read under way, if any: its descriptor may be closed then, and not before. */
  async idle(): Promise<void> { await this.ahead?.catch(() => undefined) }
}
