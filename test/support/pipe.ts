/** Makes an anonymous pipe as a shell does. Node has no call for that, and gives its children sockets. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'

export class AnonymousPipe {
  private constructor(
    private readonly readingEnd: number,
    readonly writingEnd: number,
  ) {}
  private open = new Set(['reading', 'writing'])

  static async make(): Promise<AnonymousPipe> {
    // head is gone once it has told us who holds the pipe; cat goes when we have opened it.
    const shell = spawn('sh', ['-c', 'sh -c "echo \\$\\$; exec cat" | head -n 1'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const [pid] = (await once(shell.stdout, 'data')) as [Buffer]
    const path = `/proc/${pid.toString().trim()}/fd/1`
    const pipe = new AnonymousPipe(
      openSync(path, constants.O_RDONLY | constants.O_NONBLOCK),
      openSync(path, constants.O_WRONLY),
    )
    shell.stdin.end()
    await once(shell, 'close')
    return pipe
  }

  write(bytes: Buffer | string): void {
    const all = Buffer.from(bytes)
    for (let at = 0; at < all.length; ) at += writeSync(this.writingEnd, all, at)
  }

  /** Returns the available bytes, at most `most`. */
  read(most: number): Buffer {
    const into = Buffer.alloc(most)
    try {
      return into.subarray(0, readSync(this.readingEnd, into, 0, most, null))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return into.subarray(0, 0)
      throw error
    }
  }

  closeReading(): void {
    if (this.open.delete('reading')) closeSync(this.readingEnd)
  }
  closeWriting(): void {
    if (this.open.delete('writing')) closeSync(this.writingEnd)
  }
  close(): void {
    this.closeReading()
    this.closeWriting()
  }
}
