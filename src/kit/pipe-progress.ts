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

const READING_END = constants.O_RDONLY | constants.O_NONBLOCK
/** The longest pause between two questions. */
const RESTING_MS = 100

export class PipeProgress {
  /** Bytes that the kernel took. Whoever writes counts them. */
  taken = 0
  private known = 0
  private asking: Promise<number> | undefined
  /** Of the last answer, where it was no. */
  private asked = { taken: -1, at: 0, pauseMs: 0 }

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
      closeSync(openSync(path, READING_END))
      // Its reader may have enlarged it up to here; root alone beyond.
      return new PipeProgress(path, Number(readFileSync('/proc/sys/fs/pipe-max-size', 'utf8')))
    } catch {
      return undefined
    }
  }

  /** Bytes of `taken` that have been read for certain. */
  read(): Promise<number> {
    return (this.asking ??= this.ask().finally(() => {
      this.asking = undefined
    }))
  }

  private async ask(): Promise<number> {
    const { taken, asked } = this
    if (taken === this.known) return taken
    const now = performance.now()
    // A reader that rests, as less does, is asked for less and less often, until something more is written.
    if (asked.taken === taken && now < asked.at + asked.pauseMs) return this.known
    const empty = await this.isEmpty()
    this.known = Math.max(this.known, empty ? taken : taken - this.capacity)
    this.asked = { taken, at: now, pauseMs: asked.taken === taken ? Math.min(RESTING_MS, 2 * asked.pauseMs) : 1 }
    return this.known
  }

  private isEmpty(): Promise<boolean> {
    return new Promise((resolve) => {
      let fd: number
      // Too many open files, as it may be: not known to be empty.
      try {
        fd = openSync(this.path, READING_END)
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
