import { close, constants, open, writev } from 'node:fs'
import { promisify } from 'node:util'
import { render } from '../../codec/framing'
import type { Batch, Limits, Outcome, Sink, Write } from '../../core/contract'
import { Disconnected, lineOf, Refused } from '../../core/errors'
import { kindOf, PipeWriter } from '../../kit/pipes'
import { unlessAborted } from '../../kit/signal'
import type { Framing, Newline } from '../../options/shared'

/**
 * Writes to a FIFO, terminal or device. It waits for the reader of a FIFO. After a reader has gone away, the next one
 * gets whole records.
 */
export class StreamFileSink implements Sink {
  readonly limits: Limits = {
    maxEntries: Number.MAX_SAFE_INTEGER,
    maxBytes: 1024 * 1024,
    maxEntryBytes: Number.MAX_SAFE_INTEGER,
    inFlight: 1,
    ordered: true,
    unit: 'batch',
    confirms: 'none',
  }
  readonly wants: 'lines' | 'entries'
  private pipe: PipeWriter | undefined
  private device: number | undefined

  constructor(
    private readonly path: string,
    private readonly given: { readonly framing: Framing; readonly newline: Newline },
  ) {
    this.wants = given.framing === 'lines' ? 'lines' : 'entries'
  }

  async open(): Promise<void> {
    // Without O_NONBLOCK, opening a FIFO without reader would block a thread.
    const fd = await promisify(open)(this.path, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY).catch(
      (error: unknown) => {
        const { code } = error as NodeJS.ErrnoException
        throw code === 'ENXIO'
          ? new Disconnected(`nobody reads ${this.path}`, { cause: error })
          : new Refused(`${this.path} cannot be opened for writing: ${lineOf(error)}`, { cause: error })
      },
    )
    if (kindOf(fd) === 'device') this.device = fd
    else this.pipe = new PipeWriter(fd)
  }

  async write(write: Write, signal: AbortSignal): Promise<Outcome> {
    const { chunks, refused } = render(write.payload as Batch, this.given.framing, this.given.newline, (index) =>
      write.origin(index),
    )
    try {
      await unlessAborted(this.put(chunks), signal)
    } catch (error) {
      if (signal.aborted) throw error
      throw new Disconnected(
        (error as NodeJS.ErrnoException).code === 'EPIPE'
          ? `the reader of ${this.path} went away`
          : `writing ${this.path} failed: ${lineOf(error)}`,
        { cause: error },
      )
    }
    return { retry: [], rejected: refused }
  }

  private async put(chunks: readonly Buffer[]): Promise<void> {
    if (this.pipe !== undefined) await this.pipe.write(chunks)
    else if (this.device !== undefined) for (const chunk of chunks) await promisify(writev)(this.device, [chunk])
  }

  async close(): Promise<void> {
    this.pipe?.close()
    // Closing a device cannot lose anything.
    if (this.device !== undefined) await promisify(close)(this.device).catch(() => undefined)
    this.pipe = this.device = undefined
  }
}
