import { createFramer, deliveryOf, type Framer } from '../../codec/framing'
import type { Delivery, Partition, Source } from '../../core/contract'
import { Disconnected, Refused, lineOf } from '../../core/errors'
import { FileReader } from '../../kit/file-reader'
import { kindOf, PipeReader, type StreamKind } from '../../kit/pipes'
import type { CreateSource } from '../../options/define'
import type { options } from './options'

export const create: CreateSource<typeof options> = ({ options: { framing, maxRecord } }) =>
  new StdioSource(0, createFramer(framing, { maxRecord }))

const PARTITION: Partition = { name: 'stdin', epoch: 0 }

/** Reads stdin. The framer survives `close`, because the bytes that it took from a pipe exist nowhere else. */
export class StdioSource implements Source {
  private reader: PipeReader | FileReader | undefined
  private ended = false

  private readonly kind: StreamKind

  constructor(
    private readonly fd: number,
    private readonly framer: Framer,
  ) {
    this.kind = kindOf(fd)
    // If stdin was closed, the launcher puts a directory in its place.
    if (this.kind === 'directory')
      throw new Refused(
        "stdin is closed, or a directory: redirect a file, or name the files of a directory with --from 'DIRECTORY/*'",
      )
  }

  async open(): Promise<void> {
    const { kind } = this
    if (!this.ended)
      this.reader ??=
        kind === 'file' || kind === 'device'
          ? new FileReader(this.fd, this.framer, null)
          : new PipeReader(this.fd, this.framer)
    return Promise.resolve()
  }

  async read(signal: AbortSignal): Promise<Delivery | null> {
    if (!this.ended && this.reader !== undefined) {
      this.ended = !(await this.reader.wait(signal).catch((error: unknown) => {
        if (signal.aborted) throw error
        throw new Disconnected(`reading stdin failed: ${lineOf(error)}`, { cause: error })
      }))
    }
    const framed = this.ended ? this.framer.end() : this.framer.take()
    return framed === undefined ? null : deliveryOf(framed, PARTITION, String)
  }

  commit(): Promise<void> {
    return Promise.resolve()
  }

  async close(): Promise<void> {
    if (this.reader instanceof PipeReader) this.reader.close()
    // The read ahead still fills the framer, so that a source that is opened again misses nothing.
    else await this.reader?.idle()
    if (this.reader instanceof PipeReader) this.reader = undefined
  }
}
