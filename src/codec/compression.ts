/**
 * gzip and zstd over streams of buffers, in bounded memory: as much is read from the input as the reader of the output
 * takes.
 *
 * - What was compressed in several pieces and put together (gzip members, zstd frames) is read as one.
 * - Data that ends too early or is followed by something else is an error, after all that could be read before it.
 */
import { createGunzip, createGzip, createZstdCompress, createZstdDecompress, constants } from 'node:zlib'
import type { Transform } from 'node:stream'
import type { Compression } from '../core/contract'

export type Buffers = AsyncIterable<Buffer> | Iterable<Buffer>
type Engine = Transform & { readonly bytesWritten: number }

/** All of the compressed data was sound; what lies behind it is something else. */
export class TrailingData extends Error {}

/** Of zlib and of zstd. */
const NOT_COMPRESSED = ['incorrect header check', 'Unknown frame descriptor']
/** Bytes of output that are handed over at once. */
const CHUNK_BYTES = 256 * 1024

/** The compression that a name ends in. */
export function compressionOf(name: string): Compression {
  return /\.gz$/i.test(name) ? 'gzip' : /\.zst$/i.test(name) ? 'zstd' : 'none'
}
export function suffixOf(compression: Compression): '' | '.gz' | '.zst' {
  return compression === 'gzip' ? '.gz' : compression === 'zstd' ? '.zst' : ''
}

/** @param level gzip 1 to 9, zstd 1 to 22; absent: 6 and 3 */
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
 * Throws an Error whose message is a clause about the data: `the gzip data ends too early`. No data at all is the
 * compressed form of nothing.
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
            // Only of gzip: NULs may follow, which tapes and blocks are filled up with.
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
          // Node ends the stream where zstd stops within a chunk, at the end of a frame, and drops the rest without a
          // word: the next frame gets an engine of its own.
          if (stream.ended && kind === 'zstd') {
            stream.close()
            stream = undefined
          }
        }
      }
      if (stream !== undefined && !stream.ended) yield* stream.end()
    } catch (error) {
      if (error instanceof TrailingData) throw error
      // Only the beginning of a member, or a frame, can be none.
      if (made && NOT_COMPRESSED.includes((error as Error).message)) throw trailing(kind)
      // What the system says of the input is no clause about the data, and its code decides whether to try again.
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

/** Writes to a stream of node:zlib and reads from it in one thread of control. */
class ZlibStream {
  ended = false
  private error: Error | undefined
  private notify: (() => void) | undefined

  constructor(private readonly engine: Engine) {
    const awake = (): void => {
      this.notify?.()
    }
    engine.on('readable', awake)
    engine.on('end', () => {
      this.ended = true
      awake()
    })
    engine.on('error', (error: Error) => {
      this.error = error
      awake()
    })
  }

  /** Bytes of input that were understood. */
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
    // What was made of the chunk and is still on its way out is 'readable' one turn after the write; an end is known
    // then, too.
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
