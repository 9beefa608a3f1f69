/** The bytes of an object: a segment's content, compressed where it is to be, cut into parts in buffers of the pool. */
import { pipeline } from 'node:stream/promises'
import { constants, crc32, createGzip, createZstdCompress } from 'node:zlib'
import type { Compression, Segment } from '../../core/contract'
import type { BufferPool } from './memory'

/** Output of a compressor in one piece: a trip through the thread pool for each. */
const COMPRESSED_CHUNK = 256 * 1024

export interface PartBytes {
  /** 1, 2, … */
  readonly number: number
  readonly body: Buffer
  readonly crc32: number
  /** Nothing follows. */
  readonly last: boolean
  /** The body is not read any more. */
  release(): void
}

/** The segment's content from an offset on; throws where it is not as long as it was sealed. */
export async function* contentOf(segment: Segment, from: number): AsyncGenerator<Buffer> {
  let at = from
  for await (const chunk of segment.read(from)) {
    at += chunk.length
    yield chunk
  }
  if (at !== segment.length) throw new Error(`segment ${segment.key} has ${at} bytes, where ${segment.length} were sealed`)
}

export async function* compressed(content: AsyncIterable<Buffer>, compression: Exclude<Compression, 'none'>, level: number | undefined): AsyncGenerator<Buffer> {
  const compressor = compression === 'gzip'
    ? createGzip({ level: level ?? 6, chunkSize: COMPRESSED_CHUNK })
    : createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: level ?? 3 }, chunkSize: COMPRESSED_CHUNK })
  const feeding = pipeline(content, compressor)
  // Its error comes out of the compressor as well.
  feeding.catch(() => undefined)
  try {
    for await (const chunk of compressor) yield chunk as Buffer
    await feeding
  } finally {
    compressor.destroy()
  }
}

/** Each part but the last has exactly `size` bytes. Whoever takes a part releases it; a part is read only when the one before was taken. */
export async function* partsOf(content: AsyncIterable<Buffer>, size: number, first: number, pool: BufferPool, signal: AbortSignal): AsyncGenerator<PartBytes> {
  let number = first
  let buffer = await pool.take(size, signal)
  let filled = 0
  let sum = 0
  let held = true
  const part = (last: boolean): PartBytes => {
    const full = buffer
    held = false
    return { number: number++, body: full.subarray(0, filled), crc32: sum, last, release: () => { pool.release(full) } }
  }
  try {
    for await (const chunk of content) {
      for (let at = 0; at < chunk.length;) {
        // Only now is it known that more follows.
        if (filled === size) {
          yield part(false)
          buffer = await pool.take(size, signal)
          held = true
          filled = 0
          sum = 0
        }
        const length = Math.min(size - filled, chunk.length - at)
        const piece = chunk.subarray(at, at + length)
        buffer.set(piece, filled)
        sum = crc32(piece, sum)
        filled += length
        at += length
      }
      signal.throwIfAborted()
    }
    yield part(true)
  } finally {
    if (held) pool.release(buffer)
  }
}
