/**
 * The records of a batch, compressed as brokers and the Java client do it: plain gzip and zstd, lz4 in frames, snappy
 * in the framing of snappy-java. Raw snappy is read as well, because librdkafka and Go clients have written it.
 *
 * Decompressed data is bounded by `maxBytes`. gzip and zstd work in the thread pool of Node; the other two come with
 * the client library and are loaded on first use.
 */
import { constants, gunzip, gzip, zstdCompress, zstdDecompress } from 'node:zlib'
import { promisify } from 'node:util'
import { formatSize } from '../../../kit/sizes'
import type { NativeCodecs } from '../client'
import { Damaged, Unreadable, type Codec } from './record-batch'

export type { Codec }

/** "\x82SNAPPY\0", version 1, readable by version 1; then blocks, each after its length. */
const XERIAL = Buffer.from('82534e41505059000000000100000001', 'hex')
const XERIAL_MAGIC = 8
/** snappy-java's own block size. */
const XERIAL_BLOCK = 32 * 1024
const LZ4_MAGIC = 0x184d2204
const LZ4_CHECKSUMMED_BLOCKS = 0x10

const gzipAsync = promisify<Buffer, object, Buffer>(gzip)
const gunzipAsync = promisify<Buffer, object, Buffer>(gunzip)
const zstdCompressAsync = promisify<Buffer, object, Buffer>(zstdCompress)
const zstdDecompressAsync = promisify<Buffer, object, Buffer>(zstdDecompress)

export async function compressRecords(codec: Exclude<Codec, 'none'>, records: Buffer): Promise<Buffer> {
  switch (codec) {
    case 'gzip':
      return gzipAsync(records, { chunkSize: 256 * 1024 })
    case 'zstd':
      return zstdCompressAsync(records, { chunkSize: 256 * 1024, params: { [constants.ZSTD_c_compressionLevel]: 3 } })
    case 'lz4':
      return (await natives()).lz4Compress(records)
    case 'snappy': {
      const { snappyCompress } = await natives()
      const parts: Buffer[] = [XERIAL]
      for (let at = 0; at < records.length; at += XERIAL_BLOCK) {
        const block = snappyCompress(records.subarray(at, at + XERIAL_BLOCK))
        const length = Buffer.alloc(4)
        length.writeInt32BE(block.length)
        parts.push(length, block)
      }
      return Buffer.concat(parts)
    }
  }
}

/** @param maxBytes bytes @throws Damaged, Unreadable where it would be more */
export async function decompressRecords(
  codec: Exclude<Codec, 'none'>,
  packed: Buffer,
  maxBytes: number,
): Promise<Buffer> {
  const checkSize = (size: number): void => {
    if (size > maxBytes) throw tooLarge(maxBytes)
  }
  try {
    switch (codec) {
      case 'gzip':
        return await gunzipAsync(packed, { maxOutputLength: maxBytes })
      case 'zstd':
        return await zstdDecompressAsync(packed, { maxOutputLength: maxBytes })
      case 'lz4': {
        checkSize(maxLz4Size(packed))
        return (await natives()).lz4Decompress(packed)
      }
      case 'snappy': {
        const { snappyDecompress } = await natives()
        const blocks = snappyBlocks(packed)
        checkSize(blocks.reduce((sum, block) => sum + snappyLength(block), 0))
        return blocks.length === 1 && blocks[0] !== undefined
          ? snappyDecompress(blocks[0])
          : Buffer.concat(blocks.map((block) => snappyDecompress(block)))
      }
    }
  } catch (error) {
    if (error instanceof Damaged || error instanceof Unreadable) throw error
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(maxBytes)
    throw new Damaged(`its ${codec} data cannot be decompressed`, { cause: error })
  }
}

function tooLarge(maxBytes: number): Unreadable {
  return new Unreadable(`a record batch is larger than ${formatSize(maxBytes)} once it is decompressed`)
}

function snappyBlocks(packed: Buffer): readonly Buffer[] {
  if (packed.length < XERIAL.length || packed.compare(XERIAL, 0, XERIAL_MAGIC, 0, XERIAL_MAGIC) !== 0) return [packed]
  const blocks: Buffer[] = []
  for (let at = XERIAL.length; at < packed.length; ) {
    const length = packed.length - at < 4 ? -1 : packed.readInt32BE(at)
    if (length < 0 || length > packed.length - at - 4) throw new Damaged('its snappy data is cut off')
    blocks.push(packed.subarray(at + 4, at + 4 + length))
    at += 4 + length
  }
  return blocks
}

/** Raw snappy begins with the length of what it holds. */
function snappyLength(block: Buffer): number {
  let length = 0
  for (let index = 0, scale = 1; index < 5; index++, scale *= 128) {
    const byte = block[index]
    if (byte === undefined) break
    length += (byte & 0x7f) * scale
    if (byte < 0x80) return length
  }
  throw new Damaged('its snappy data has no length')
}

/**
 * The most that an lz4 frame can hold: its blocks, each at most as large as the frame says (LZ4 frame format 1.6.1).
 */
function maxLz4Size(packed: Buffer): number {
  if (packed.length < 7 || packed.readUInt32LE(0) !== LZ4_MAGIC) throw new Damaged('its lz4 data is no lz4 frame')
  const flags = packed[4] ?? 0
  const largest = 1 << (8 + 2 * (((packed[5] ?? 0) >> 4) & 7))
  const afterBlock = (flags & LZ4_CHECKSUMMED_BLOCKS) === 0 ? 0 : 4
  let bound = 0
  for (let at = 4 + 2 + ((flags & 8) === 0 ? 0 : 8) + ((flags & 1) === 0 ? 0 : 4) + 1; ; ) {
    if (packed.length - at < 4) throw new Damaged('its lz4 data is cut off')
    const word = packed.readUInt32LE(at)
    if (word === 0) return bound
    const length = word & 0x7fffffff
    // No block grows more than 255-fold.
    bound += Math.min(largest, length * 255)
    at += 4 + length + afterBlock
  }
}

async function natives(): Promise<NativeCodecs> {
  return (await import('../client.js')).nativeCodecs()
}
