/**
 * Reads and writes pipes, FIFOs, sockets and terminals.
 *
 * They go through the event loop, never through the thread pool. A pending `fs.read` or `fs.write` on an idle pipe
 * delays the exit of the process until the other side moves, and four of them use up all threads.
 */
import { fstatSync } from 'node:fs'
import { Socket, type SocketConstructorOpts } from 'node:net'
import { ReadStream, WriteStream, isatty } from 'node:tty'

export type StreamKind = 'file' | 'pipe' | 'socket' | 'terminal' | 'device' | 'directory'

/** Tells what a descriptor stands for. A `device` is a character device such as /dev/null, which never blocks. */
export function kindOf(fd: number): StreamKind {
  const facts = fstatSync(fd)
  if (facts.isFIFO()) return 'pipe'
  if (facts.isSocket()) return 'socket'
  if (facts.isDirectory()) return 'directory'
  return facts.isCharacterDevice() ? (isatty(fd) ? 'terminal' : 'device') : 'file'
}

/** A read buffer takes bytes of a descriptor, one read at a time. */
export interface ReadBuffer {
  /** Returns space that stays valid until `filled`, even if bytes are taken meanwhile. */
  space(): Buffer
  filled(length: number): void
  /** Counts the bytes that were not taken yet. */
  readonly pending: number
}

/** Reading pauses while this many bytes are pending. */
const MAX_PENDING = 1024 * 1024
/** A pipe usually holds this many bytes. A read that fills its buffer is repeated at once. */
const READ_BYTES = 64 * 1024

/** Fills a read buffer from a descriptor. Bytes may be taken at any time, and `wait` makes the reading go on. */
export class PipeReader {
  private readonly socket: Socket
  private ended = false
  private error: Error | undefined
  private notify: (() => void) | undefined
  private watchedSignal: AbortSignal | undefined
  private readonly aborted = (): void => {
    this.notify?.()
  }
  private paused = false
  private isNotifyScheduled = false
  private readonly notifyScheduled = (): void => {
    this.isNotifyScheduled = false
    this.notify?.()
  }

  constructor(
    fd: number,
    private readonly buffer: ReadBuffer,
  ) {
    const onread = {
      buffer: (): Uint8Array => {
        const space = buffer.space()
        return space.length > READ_BYTES ? space.subarray(0, READ_BYTES) : space
      },
      callback: (length: number): boolean => {
        buffer.filled(length)
        this.paused = buffer.pending >= MAX_PENDING
        if (length < READ_BYTES || this.paused) this.notify?.()
        // Another read follows in this turn of the event loop, so that one delivery holds the bytes of all.
        else if (!this.isNotifyScheduled) {
          this.isNotifyScheduled = true
          setImmediate(this.notifyScheduled)
        }
        return !this.paused
      },
    }
    // A socket may be stdout as well, so its end must not close the other direction. A half-open socket leaves that to
    // its owner.
    const options: SocketConstructorOpts = { fd, readable: true, writable: false, allowHalfOpen: true, onread }
    // The constructor of terminals passes its options on (lib/tty.js), although its types do not say so.
    this.socket = isatty(fd)
      ? new (ReadStream as unknown as new (fd: number, options: object) => Socket)(fd, { onread, allowHalfOpen: true })
      : new Socket(options)
    this.socket.on('end', () => {
      this.ended = true
      this.notify?.()
    })
    this.socket.on('error', (error: Error) => {
      this.error = error
      this.notify?.()
    })
    this.socket.on('close', () => {
      this.ended = true
      this.notify?.()
    })
    this.socket.resume()
  }

  /**
   * Resolves with false once the stream has ended and nothing is pending. It rejects at once with the signal's reason.
   */
  async wait(signal: AbortSignal): Promise<boolean> {
    if (this.paused && this.buffer.pending < MAX_PENDING) {
      this.paused = false
      this.socket.resume()
    }
    while (this.buffer.pending === 0) {
      if (signal.aborted) throw signal.reason
      if (this.error !== undefined) throw this.error
      if (this.ended) return false
      this.watch(signal)
      await new Promise<void>((resolve) => {
        this.notify = resolve
      })
      this.notify = undefined
    }
    return true
  }

  /** Thousands of reads a second come with the same signal, so they share one listener. */
  private watch(signal: AbortSignal): void {
    if (this.watchedSignal === signal) return
    this.watchedSignal?.removeEventListener('abort', this.aborted)
    this.watchedSignal = signal
    signal.addEventListener('abort', this.aborted)
  }

  close(): void {
    this.watchedSignal?.removeEventListener('abort', this.aborted)
    this.watchedSignal = undefined
    this.socket.destroy()
  }
}

/** Writes to a descriptor without copying, one write at a time. */
export class PipeWriter {
  private readonly socket: Socket
  private error: Error | undefined

  constructor(fd: number) {
    this.socket = isatty(fd)
      ? new WriteStream(fd)
      : new Socket({ fd, readable: false, writable: true, allowHalfOpen: true })
    // Node makes terminals block (lib/tty.js). A terminal that was stopped with ^S would then stop the whole process,
    // signals included.
    if (isatty(fd)) libuvHandleOf(this.socket)?.setBlocking?.(false)
    this.socket.on('error', (error: Error) => {
      this.error = error
    })
  }

  /** Resolves once the kernel has taken everything. It waits for a slow reader. */
  write(chunks: readonly Buffer[]): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.error !== undefined) {
        reject(this.error)
        return
      }
      if (chunks.length === 0) {
        resolve()
        return
      }
      this.socket.cork()
      chunks.forEach((chunk, index) =>
        this.socket.write(
          chunk,
          index < chunks.length - 1
            ? undefined
            : (error) => {
                if (error) reject(error)
                else resolve()
              },
        ),
      )
      this.socket.uncork()
    })
  }

  /** Counts the bytes of the pending write that the kernel has not taken yet. */
  get queuedBytes(): number {
    return libuvHandleOf(this.socket)?.writeQueueSize ?? 0
  }

  /** Gives up a pending write, whose promise then rejects. */
  close(): void {
    this.socket.destroy()
  }
}

interface LibuvHandle {
  setBlocking?(on: boolean): void
  readonly writeQueueSize?: number
}
/** The handle of libuv knows more than the public interface shows. */
function libuvHandleOf(socket: Socket): LibuvHandle | undefined {
  return (socket as unknown as { readonly _handle?: LibuvHandle | null })._handle ?? undefined
}
