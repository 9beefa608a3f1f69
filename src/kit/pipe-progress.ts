/**
 * How far the reader of a pipe is. A pipe takes bytes long before somebody reads them, and whoever dies meanwhile never
 * had them.
 *
 * Linux tells whether an anonymous pipe is empty: its reading end, opened for a moment by way of /proc, is polled with
 * a buffer of no length, which libuv answers with ENOBUFS where there is something to read, and reads nothing
 * (uv_alloc_cb in its documentation). It is kept open for a turn of the event loop only: while it is, nobody gets
 * EPIPE. And of a pipe that is never empty, all but the last bytes have been read, as many as a pipe may hold.
 *
 * Not for FIFOs with a name: opening one for reading would release whoever waits in open(2) for a reader to come.
 */
import { closeSync, constants, openSync, readFileSync, readlinkSync } from 'node:fs'
import { Socket } from 'node:net'

const READ_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK
/** The longest pause between two questions. */
const MAX_PAUSE_MS = 100

export class PipeProgress {
  /** Bytes that the kernel took. Whoever writes counts them. */
  taken = 0
  private readBytes = 0
  private query: Promise<number> | undefined
  /** Of the last answer, where it was no. */
  private lastQuery = { taken: -1, at: 0, pauseMs: 0 }

  /** @param capacity bytes that the pipe holds at most */
  private constructor(
    private readonly path: string,
    private readonly capacity: number,
  ) {}

  /** undefined: this descriptor is no anonymous pipe, or this system or its permissions keep it from being asked. */
  static of(fd: number): PipeProgress | undefined {
    const path = `/proc/self/fd/${fd}`
    try {
      if (!readlinkSync(path).startsWith('pipe:')) return undefined
      closeSync(openSync(path, READ_FLAGS))
      // Its reader may have enlarged it up to here; root alone beyond.
      return new PipeProgress(path, Number(readFileSync('/proc/sys/fs/pipe-max-size', 'utf8')))
    } catch {
      return undefined
    }
  }

  /** Bytes of `taken` that have been read for certain. */
  read(): Promise<number> {
    return (this.query ??= this.queryPipe().finally(() => {
      this.query = undefined
    }))
  }

  private async queryPipe(): Promise<number> {
    const { taken, lastQuery } = this
    if (taken === this.readBytes) return taken
    const now = performance.now()
    // A reader that rests, as less does, is asked for less and less often, until something more is written.
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
      // Too many open files, as it may be: not known to be empty.
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
      // What is asked for within the poll phase is polled in the next turn.
      setImmediate(() =>
        setImmediate(() => {
          end.destroy()
          resolve(empty)
        }),
      )
    })
  }
}
