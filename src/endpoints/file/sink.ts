import { statSync } from 'node:fs'
import * as path from 'node:path'
import { compress, compressionOf } from '../../codec/compression'
import { render } from '../../codec/framing'
import {
  CONFIRMED,
  type Batch,
  type Compression,
  type EndpointContext,
  type Limits,
  type Outcome,
  type Sink,
  type Write,
} from '../../core/contract'
import { Disconnected, Fatal, lineOf, ManifoldError, Refused } from '../../core/errors'
import { unlessAborted } from '../../kit/signal'
import type { CreateSink, OptionsOf } from '../../options/define'
import type { options } from './options'
import { OutputFile, renameDurably } from './output-file'
import { hasTimes, pathAt, rotatedPath } from './template'
import { StreamFileSink } from './stream-sink'

export const create: CreateSink<typeof options> = ({ options: given, uri }) =>
  isStream(uri.path) ? new StreamFileSink(uri.path, given) : new FileSink(uri.path, given)
export type SinkOptions = Pick<
  OptionsOf<typeof options>,
  'framing' | 'newline' | 'compression' | 'compressionLevel' | 'rotateSize' | 'rotateEvery'
>

const MIB = 1024 * 1024

/** Tells whether the path is an existing FIFO or device. */
function isStream(name: string): boolean {
  const facts = statSync(name, { throwIfNoEntry: false })
  return facts !== undefined && !facts.isFile() && !facts.isDirectory()
}

export class FileSink implements Sink {
  readonly limits: Limits
  readonly wants: 'lines' | 'entries'
  private readonly compression: Compression
  private readonly hasTimes: boolean
  private context: EndpointContext | undefined
  private file: OutputFile | undefined
  /** The time of our last write. Before it, the time at which the file was modified counts. */
  private wroteAt: number | undefined
  /** An unconfirmed write may stay in a file, and its retry is then a duplicate. */
  private mayHaveLeftovers = false
  /** The last write. Closing waits for it, even if it was given up. */
  private pendingWrite: Promise<unknown> = Promise.resolve()

  constructor(
    private readonly template: string,
    private readonly given: SinkOptions,
  ) {
    this.compression = given.compression === 'auto' ? compressionOf(template) : given.compression
    this.hasTimes = hasTimes(template)
    this.wants = given.framing === 'lines' ? 'lines' : 'entries'
    // Each write is compressed by itself, so larger writes compress better. An unconfirmed part of a write is removed
    // before its retry.
    this.limits = {
      maxEntries: Number.MAX_SAFE_INTEGER,
      maxBytes: (this.compression === 'none' ? 4 : 16) * MIB,
      maxEntryBytes: Number.MAX_SAFE_INTEGER,
      inFlight: 1,
      ordered: true,
      unit: 'batch',
      confirms: 'each',
      recognises: true,
    }
  }

  /** Opens the file, so that a path that cannot be written is reported at once. */
  async open(context: EndpointContext): Promise<void> {
    this.context = context
    if (!this.hasTimes)
      await this.classified(this.template, () => this.fileAt(path.resolve(this.template), context.clock.now()))
  }

  async write(write: Write, signal: AbortSignal): Promise<Outcome> {
    const { chunks, bytes, refused } = render(write.payload as Batch, this.given.framing, this.given.newline, (index) =>
      write.origin(index),
    )
    if (bytes === 0) return refused.length === 0 ? CONFIRMED : { retry: [], rejected: refused }
    // The time of the records counts, not that of a retry hours later.
    const at = this.hasTimes ? write.origin(0).receivedAt : (this.context?.clock.now() ?? 0)
    const target = path.resolve(this.hasTimes ? pathAt(this.template, at) : this.template)
    const done = this.classified(target, async () => {
      const file = await this.fileAt(target, at)
      await file.append(await this.compressed(chunks))
      this.wroteAt = at
      // A write that was given up meanwhile counts as not written and may be retried.
      if (signal.aborted) file.retract()
    })
    this.pendingWrite = done.catch(() => undefined)
    await unlessAborted(done, signal)
    const doubtful = this.mayHaveLeftovers && write.attempt > 1 ? write.payload.count : 0
    this.mayHaveLeftovers = false
    return { retry: [], rejected: refused, ...(doubtful === 0 ? {} : { doubtful }) }
  }

  private async compressed(chunks: readonly Buffer[]): Promise<readonly Buffer[]> {
    if (this.compression === 'none') return chunks
    // Each write is a complete member, so the file stays readable whatever is removed after a crash.
    const parts: Buffer[] = []
    for await (const part of compress(this.compression, this.given.compressionLevel)(chunks)) parts.push(part)
    return parts
  }

  /** Returns the file to write to, after rotation if that is due. */
  private async fileAt(target: string, now: number): Promise<OutputFile> {
    if (this.file !== undefined && (this.file.path !== target || (await this.file.isElsewhere())))
      await this.closeFile()
    this.file ??= await this.openFile(target)
    if (!this.isFull(this.file, now)) return this.file
    const { real } = this.file
    await this.closeFile()
    await this.rotate(target, real, now)
    this.file = await this.openFile(target)
    return this.file
  }

  private isFull(file: OutputFile, now: number): boolean {
    const { rotateSize, rotateEvery } = this.given
    if (file.length === 0) return false
    return (
      (rotateSize > 0 && file.length >= rotateSize) ||
      (rotateEvery > 0 && Math.floor((this.wroteAt ?? file.modified) / rotateEvery) < Math.floor(now / rotateEvery))
    )
  }

  private openFile(target: string): Promise<OutputFile> {
    const { context } = this
    return OutputFile.open({
      path: target,
      lines: this.compression === 'none',
      makeFolders: hasTimes(path.dirname(this.template)),
      tornWriteRemoved: (bytes) => {
        context?.log.warn(`${target}: ${bytes} bytes that were written and not confirmed before a crash were cut off`)
      },
      truncated: () => {
        context?.log.warn(`${target} was truncated by somebody: it is gone on with at its new end`)
      },
      markerUnavailable: (folder) => {
        context?.log.info(
          `${folder} may not be written: what a kill leaves unfinished in ${path.basename(target)} stays there`,
        )
      },
      pause: async (milliseconds) => {
        await context?.clock.sleep(milliseconds, context.signal)
      },
    })
  }

  private async rotate(target: string, real: string, now: number): Promise<void> {
    let number = 0
    while (!(await renameDurably(real, rotatedPath(real, now, number)))) number++
    this.context?.log.info(`${target} is full and is ${path.basename(rotatedPath(real, now, number))} now`)
  }

  private async closeFile(): Promise<void> {
    const { file } = this
    this.file = undefined
    if ((await file?.close()) === true) this.mayHaveLeftovers = true
  }

  private async classified<T>(target: string, run: () => Promise<T>): Promise<T> {
    try {
      return await run()
    } catch (error) {
      throw faultOf(target, error)
    }
  }

  async close(): Promise<void> {
    await this.pendingWrite
    await this.closeFile()
  }
}

export function faultOf(target: string, error: unknown): Error {
  if (error instanceof ManifoldError) return error
  const facts = { cause: error }
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new Disconnected(`${target}: the disk is full; writing goes on when there is room`, facts)
    case 'EACCES':
    case 'EPERM':
      return new Refused(`${target} may not be written: permission denied`, facts)
    case 'EROFS':
      return new Refused(`${target} lies on a file system that is mounted read-only`, facts)
    case 'ENOENT':
    case 'ENOTDIR':
      return new Refused(`${target} cannot be created: its folder does not exist`, facts)
    case 'EISDIR':
      return new Refused(`${target} is a directory: name a file in it`, facts)
    case 'EFBIG':
      return new Fatal(
        `${target} has grown as large as a file can be here; rotate-size= begins a new one in time`,
        facts,
      )
    default:
      return new Disconnected(`writing ${target} failed: ${lineOf(error)}`, facts)
  }
}
