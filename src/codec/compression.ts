/**
 * Compresses and decompresses streams of buffers with gzip and zstd. Memory is bounded, because the input is read only
 * as fast as the output is taken.
 *
 * - Several gzip members or zstd frames in a row are read as one stream.
 * - Data that ends too early, or that is followed by something else, is an error. All that could be read before it is
 *   returned first.
 */
import { createGunzip, createGzip, createZstdCompress, createZstdDecompress, constants } from 'node:zlib'
import type { Transform } from 'node:stream'
import type { Compression } from '../core/contract'

export type Buffers = AsyncIterable<Buffer> | Iterable<Buffer>
type Engine = Transform & { readonly bytesWritten: number }

/** The compressed data was complete, but something else follows it. */
export class TrailingData extends Error {}

/** zlib and zstd report with these messages that data is not compressed. */
const NOT_COMPRESSED = ['incorrect header check', 'Unknown frame descriptor']
/** A chunk of output has this size. */
const CHUNK_BYTES = 256 * 1024

/** Returns the compression that the end of a name stands for. */
export function compressionOf(name: string): Compression {
  return /\.gz$/i.test(name) ? 'gzip' : /\.zst$/i.test(name) ? 'zstd' : 'none'
}
export function suffixOf(compression: Compression): '' | '.gz' | '.zst' {
  return compression === 'gzip' ? '.gz' : compression === 'zstd' ? '.zst' : ''
}

/** @param level is 1 to 9 for gzip (default 6) and 1 to 22 for zstd (default 3) */
export function compress(
  kind: Compression,
  level?: number,
): (input: Buffers) => AsyncGenerator<Buffer, void, undefined> {
  return async function* (input) {
    if (kind === 'none') {
      yield* input
      return
    }
    const engine =
      kind === 'gzip'
        ? createGzip({ chunkSize: CHUNK_BYTES, ...(level === undefined ? {} : { level }) })
        : createZstdCompress({
            chunkSize: CHUNK_BYTES,
            ...(level === undefined ? {} : { params: { [constants.ZSTD_c_compressionLevel]: level } }),
          })
    const stream = new ZlibStream(engine)
    try {
      for await (const chunk of input) if (chunk.length > 0) yield* stream.write(chunk)
      yield* stream.end()
    } finally {
      engine.destroy()
    }
  }
}

/**
 * No data at all decompresses to nothing.
 * @throws an Error whose message is a clause about the data, such as `the gzip data ends too early`
 */
export function decompress(kind: Compression): (input: Buffers) => AsyncGenerator<Buffer, void, undefined> {
  return async function* (input) {
    if (kind === 'none') {
      yield* input
      return
    }
    const make = (): Engine =>
      kind === 'gzip' ? createGunzip({ chunkSize: CHUNK_BYTES }) : createZstdDecompress({ chunkSize: CHUNK_BYTES })
    let stream: ZlibStream | undefined
    let made = false
    try {
      for await (const chunk of input) {
        for (let rest = chunk; rest.length > 0; ) {
          if (stream?.ended === true) {
            // NULs may follow gzip data, because tapes and blocks are filled up with them.
            if (rest.some((byte) => byte !== 0)) throw trailing(kind)
            break
          }
          stream ??= new ZlibStream(make())
          const before = stream.consumed
          for await (const out of stream.write(rest)) {
            made = true
            yield out
          }
          rest = rest.subarray(stream.consumed - before)
          // If a zstd frame ends within a chunk, Node ends the stream and silently drops the rest. So the next frame
          // gets a stream of its own.
          if (stream.ended && kind === 'zstd') {
            stream.close()
            stream = undefined
          }
        }
      }
      if (stream !== undefined && !stream.ended) yield* stream.end()
    } catch (error) {
      if (error instanceof TrailingData) throw error
      // This error can only come from the beginning of a member or frame.
      if (made && NOT_COMPRESSED.includes((error as Error).message)) throw trailing(kind)
      // An error of the operating system is passed on as it is, because its code decides about a retry.
      throw (error as NodeJS.ErrnoException).syscall === undefined
        ? new Error(messageOf(error, kind), { cause: error })
        : error
    } finally {
      stream?.close()
    }
  }
}

function trailing(kind: Compression): TrailingData {
  return new TrailingData(`after the end of the ${kind} data something else follows`)
}

function messageOf(error: unknown, kind: Compression): string {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'Z_BUF_ERROR') return `the ${kind} data ends too early`
  return code === 'Z_DATA_ERROR' || code?.startsWith('ZSTD_') === true
    ? `this is no ${kind} data, or it is damaged (${message})`
    : message
}

/** Writes to a stream of node:zlib and reads from it, one step after the other. */
class ZlibStream {
  ended = false
  private error: Error | undefined
  private notify: (() => void) | undefined

  constructor(private readonly engine: Engine) {
    const notifyReader = (): void => {
      this.notify?.()
    }
    engine.on('readable', notifyReader)
    engine.on('end', () => {
      this.ended = true
      notifyReader()
    })
    engine.on('error', (error: Error) => {
      this.error = error
      notifyReader()
    })
  }

  /** Counts the bytes of input that were decoded. */
  get consumed(): number {
    return this.engine.bytesWritten
  }

  async *write(chunk: Buffer): AsyncGenerator<Buffer, void, undefined> {
    let written = false
    this.engine.write(chunk, () => {
      written = true
      this.notify?.()
    })
    yield* this.readUntil(() => written)
    // The output of the chunk is readable one turn after the write at the latest. An end is known then as well.
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
    yield* this.readUntil(() => true)
  }

  async *end(): AsyncGenerator<Buffer, void, undefined> {
    this.engine.end()
    yield* this.readUntil(() => false)
  }

  private async *readUntil(done: () => boolean): AsyncGenerator<Buffer, void, undefined> {
    for (;;) {
      const out = this.engine.read() as Buffer | null
      if (out !== null) {
        yield out
        continue
      }
      if (this.error !== undefined) throw this.error
      if (this.ended || done()) return
      await new Promise<void>((resolve) => {
        this.notify = resolve
      })
      this.notify = undefined
    }
  }

  close(): void {
    this.engine.destroy()
  }
}
