/** The bytes of an object: a segment's content, cut into parts in buffers of the pool. */
import { crc32 } from 'node:zlib'
import type { Segment } from '../../core/contract'
import type { BufferPool } from './buffer-pool'

/**
 * A compressor gets so many bytes at once, as one task of the thread pool, which the disk shares: at a few milliseconds
 * each, a fsync does not wait long behind four of them.
 */
const COMPRESSOR_CHUNK_BYTES = 128 * 1024

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
    if (segment.compression === 'none') yield chunk
    else
      for (let from = 0; from < chunk.length; from += COMPRESSOR_CHUNK_BYTES)
        yield chunk.subarray(from, from + COMPRESSOR_CHUNK_BYTES)
  }
  if (at !== segment.length)
    throw new Error(`segment ${segment.key} has ${at} bytes, where ${segment.length} were sealed`)
}

/**
 * Each part but the last has exactly `size` bytes. Whoever takes a part releases it; a part is read only when the one
 * before was taken.
 */
export async function* partsOf(
  content: AsyncIterable<Buffer>,
  size: number,
  first: number,
  pool: BufferPool,
  signal: AbortSignal,
): AsyncGenerator<PartBytes> {
  let number = first
  let buffer = await pool.take(size, signal)
  let filled = 0
  let sum = 0
  let ownsBuffer = true
  const part = (last: boolean): PartBytes => {
    const full = buffer
    ownsBuffer = false
    return {
      number: number++,
      body: full.subarray(0, filled),
      crc32: sum,
      last,
      release: () => {
        pool.release(full)
      },
    }
  }
  try {
    for await (const chunk of content) {
      for (let at = 0; at < chunk.length; ) {
        // Only now is it known that more follows.
        if (filled === size) {
          yield part(false)
          buffer = await pool.take(size, signal)
          ownsBuffer = true
          filled = 0
          sum = 0
        }
        const length = Math.min(size - filled, chunk.length - at)
        const slice = chunk.subarray(at, at + length)
        buffer.set(slice, filled)
        sum = crc32(slice, sum)
        filled += length
        at += length
      }
      signal.throwIfAborted()
    }
    yield part(true)
  } finally {
    if (ownsBuffer) pool.release(buffer)
  }
}
