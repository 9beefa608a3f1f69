/**
 * Tells how far the reader of a pipe has come. A pipe takes bytes long before they are read, and a reader that dies
 * meanwhile never gets them.
 *
 * Linux can tell whether an anonymous pipe is empty. Its reading end is opened through /proc and polled with an empty
 * buffer. libuv then reports ENOBUFS if there is something to read, and reads nothing (uv_alloc_cb in its
 * documentation). The end stays open for one turn of the event loop only, because no writer gets EPIPE meanwhile. If a
 * pipe is never empty, all bytes have been read except the last ones, as many as the pipe can hold.
 *
 * This does not work for named FIFOs: opening one for reading would release a writer that waits in open(2) for a
 * reader.
 */
import { closeSync, constants, openSync, readFileSync, readlinkSync } from 'node:fs'
import { Socket } from 'node:net'

const READ_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK
/** Two queries are at most this far apart. */
const MAX_PAUSE_MS = 100

export class PipeProgress {
  /** Counts the bytes that the kernel took. The writer updates it. */
  taken = 0
  private readBytes = 0
  private query: Promise<number> | undefined
  /** The last query that found the pipe not empty. */
  private lastQuery = { taken: -1, at: 0, pauseMs: 0 }

  /** @param capacity the most bytes that the pipe can hold */
  private constructor(
    private readonly path: string,
    private readonly capacity: number,
  ) {}

  /** Returns undefined if the descriptor is no anonymous pipe, or if the system does not let it be queried. */
  static of(fd: number): PipeProgress | undefined {
    const path = `/proc/self/fd/${fd}`
    try {
      if (!readlinkSync(path).startsWith('pipe:')) return undefined
      closeSync(openSync(path, READ_FLAGS))
      // The reader may have enlarged the pipe up to this size. Only root could enlarge it further.
      return new PipeProgress(path, Number(readFileSync('/proc/sys/fs/pipe-max-size', 'utf8')))
    } catch {
      return undefined
    }
  }

  /** Returns how many bytes of `taken` have certainly been read. */
  read(): Promise<number> {
    return (this.query ??= this.queryPipe().finally(() => {
      this.query = undefined
    }))
  }

  private async queryPipe(): Promise<number> {
    const { taken, lastQuery } = this
    if (taken === this.readBytes) return taken
    const now = performance.now()
    // A reader that pauses, as less does, is queried less and less often until more is written.
    if (lastQuery.taken === taken && now < lastQuery.at + lastQuery.pauseMs) return this.readBytes
    const empty = await this.isEmpty()
    this.readBytes = Math.max(this.readBytes, empty ? taken : taken - this.capacity)
    this.lastQuery = {
      taken,
      at: now,
      pauseMs: lastQuery.taken === taken ? Math.min(MAX_PAUSE_MS, 2 * lastQuery.pauseMs) : 1,
    }
    return this.readBytes
  }

  private isEmpty(): Promise<boolean> {
    return new Promise((resolve) => {
      let fd: number
      // If the pipe cannot be opened, for example because too many files are open, it counts as not empty.
      try {
        fd = openSync(this.path, READ_FLAGS)
      } catch {
        resolve(false)
        return
      }
      let empty = true
      const end = new Socket({
        fd,
        readable: true,
        writable: false,
        onread: { buffer: Buffer.alloc(0), callback: () => false },
      })
      end.on('error', () => {
        empty = false
      })
      // A poll that is requested during the poll phase happens in the next turn.
      setImmediate(() =>
        setImmediate(() => {
          end.destroy()
          resolve(empty)
        }),
      )
    })
  }
}
