import { fdatasync, writev } from 'node:fs'
import { promisify } from 'node:util'
import { render, type Framing, type Newline } from '../../codec/framing'
import type { Batch, Limits, Outcome, Sink, Write } from '../../core/contract'
import { Disconnected, Fatal, lineOf, ReaderGone } from '../../core/errors'
import { PipeProgress } from '../../kit/pipe-progress'
import { kindOf, PipeWriter, type StreamKind } from '../../kit/pipes'
import { unlessAborted } from '../../kit/signal'
import type { CreateSink } from '../../options/define'
import type { options } from './options'

export const create: CreateSink<typeof options> = ({ options: { framing, newline } }) =>
  new StdioSink(1, framing, newline)

/** IOV_MAX is 1024 on Linux and macOS. */
const MAX_BUFFERS = 1024
const syncData = promisify(fdatasync)

/**
 * Writes to stdout. If a write fails or is given up, the sink remembers by its id how much was written, and a retry
 * goes on there. Bytes in a pipe or after O_APPEND cannot be taken back, and half a record must not be followed by a
 * whole one.
 */
export class StdioSink implements Sink {
  readonly limits: Limits
  readonly wants: 'lines' | 'entries'
  readonly reader?: PipeProgress
  private readonly kind: StreamKind
  private pipe: PipeWriter | undefined
  private pending: { readonly id: string; readonly bytes: number; readonly done: Promise<void> } | undefined
  private partial: { readonly id: string; taken: number } | undefined

  constructor(
    private readonly fd: number,
    private readonly framing: Framing,
    private readonly newline: Newline,
  ) {
    this.kind = kindOf(fd)
    // If stdout was closed, the launcher puts a directory in its place. This is reported before anything is read.
    if (this.kind === 'directory') throw new Fatal('stdout is closed, or a directory: redirect it to a file or a pipe')
    const reader = this.kind === 'pipe' ? PipeProgress.of(fd) : undefined
    if (reader !== undefined) this.reader = reader
    this.wants = framing === 'lines' ? 'lines' : 'entries'
    this.limits = {
      maxEntries: Number.MAX_SAFE_INTEGER,
      maxBytes: 4 * 1024 * 1024,
      maxEntryBytes: Number.MAX_SAFE_INTEGER,
      inFlight: 1,
      ordered: true,
      unit: 'batch',
      confirms: this.kind === 'file' ? 'each' : 'none',
    }
  }

  open(): Promise<void> {
    if (this.kind !== 'file' && this.kind !== 'device') this.pipe ??= new PipeWriter(this.fd)
    return Promise.resolve()
  }

  async write(write: Write, signal: AbortSignal): Promise<Outcome> {
    const { chunks, bytes, refused } = render(write.payload as Batch, this.framing, this.newline, (index) =>
      write.origin(index),
    )
    if (this.pending?.id !== write.id) {
      await unlessAborted(this.pending?.done ?? Promise.resolve(), signal)
      const taken = this.partial?.id === write.id ? this.partial.taken : 0
      this.partial = { id: write.id, taken }
      const done = this.writeChunks(dropBytes(chunks, taken), this.partial)
      // If this write is given up, the next one gets its error.
      done.catch(() => undefined)
      this.pending = { id: write.id, bytes: bytes - taken, done }
    }
    try {
      await unlessAborted(this.pending.done, signal)
    } catch (error) {
      if (signal.aborted) throw error
      this.pending = undefined
      throw faultOf(error)
    }
    if (this.reader !== undefined) this.reader.taken += this.pending.bytes
    this.pending = this.partial = undefined
    return { retry: [], rejected: refused }
  }

  private writeChunks(chunks: readonly Buffer[], partial: { taken: number }): Promise<void> {
    return this.pipe === undefined ? this.append(chunks, partial) : this.pipe.write(chunks)
  }

  /** Writes at the position of the descriptor, because other processes may share it. */
  private async append(chunks: readonly Buffer[], partial: { taken: number }): Promise<void> {
    for (let rest = chunks; rest.length > 0; ) {
      const { bytesWritten } = (await promisify(writev)(this.fd, rest.slice(0, MAX_BUFFERS))) as unknown as {
        bytesWritten: number
      }
      // Some file systems report a full disk in this way.
      if (bytesWritten === 0) throw Object.assign(new Error('the disk took no bytes'), { code: 'ENOSPC' })
      partial.taken += bytesWritten
      rest = dropBytes(rest, bytesWritten)
    }
    if (this.kind === 'file') await syncData(this.fd)
  }

  async close(): Promise<void> {
    // A pending write may still fail. It was not confirmed, and it is tried again if the sink is opened again.
    if (this.pipe === undefined) {
      await this.pending?.done.catch(() => undefined)
      return
    }
    if (this.pending !== undefined && this.partial !== undefined)
      this.partial.taken += this.pending.bytes - this.pipe.queuedBytes
    this.pending = undefined
    this.pipe.close()
    this.pipe = undefined
  }
}

/** Returns the chunks without their first bytes. */
function dropBytes(chunks: readonly Buffer[], bytes: number): readonly Buffer[] {
  let index = 0
  let skip = bytes
  for (let chunk = chunks[index]; chunk !== undefined && skip >= chunk.length; chunk = chunks[++index])
    skip -= chunk.length
  const first = chunks[index]
  return first === undefined
    ? []
    : skip === 0
      ? chunks.slice(index)
      : [first.subarray(skip), ...chunks.slice(index + 1)]
}

function faultOf(error: unknown): Error {
  const code = (error as NodeJS.ErrnoException).code
  if (code === 'EPIPE' || code === 'ECONNRESET')
    return new ReaderGone('the reader of stdout went away', { cause: error })
  const message = `writing to stdout failed: ${lineOf(error)}`
  return code === 'ENOSPC' || code === 'EDQUOT'
    ? new Disconnected(`${message}; make room on the disk it goes to`, { cause: error })
    : new Fatal(message, { cause: error })
}
