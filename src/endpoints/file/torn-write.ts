/**
 * Tells whether the end of a file is a torn write of ours. A kill or a power cut tears a write at a page of the file,
 * or leaves NULs in place of pages. So each page has a checksum, and an end that is neither ours nor NULs belongs to
 * another process.
 */
import type * as fs from 'node:fs/promises'
import { crc32 } from 'node:zlib'

/** Blocks lie at multiples of their size in the file. The first and the last one may be partial. */
export interface WriteIntent {
  readonly start: number
  readonly length: number
  readonly block: number /** The sums have four bytes for each block. */
  readonly sums: Buffer
}
/** With `none` nothing of the write is there. With `other` the bytes are not ours, or not only ours. */
export type WriteState = 'none' | 'torn' | 'whole' | 'other'

const PAGE_BYTES = 4096

/** @param most the most blocks; larger writes have larger blocks */
export function intentWithChecksums(start: number, chunks: readonly Buffer[], most: number): WriteIntent {
  const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  let block = PAGE_BYTES
  while (length / block + 2 > most) block *= 2
  const sums: number[] = []
  let crc = 0
  let at = start
  for (const chunk of chunks) {
    for (let from = 0; from < chunk.length; ) {
      const to = Math.min(chunk.length, from + block - (at % block))
      crc = crc32(chunk.subarray(from, to), crc)
      at += to - from
      from = to
      if (at % block === 0) {
        sums.push(crc)
        crc = 0
      }
    }
  }
  if (at % block !== 0) sums.push(crc)
  const packed = Buffer.alloc(4 * sums.length)
  sums.forEach((sum, index) => packed.writeUInt32LE(sum, 4 * index))
  return { start, length, block, sums: packed }
}

/** Returns the state of a write in a file of this size. */
export async function writeStateOf(
  file: fs.FileHandle,
  { start, length, block, sums }: WriteIntent,
  size: number,
): Promise<WriteState> {
  if (size <= start) return 'none'
  const end = start + length
  if (size > end) return 'other'
  let whole = size === end
  const buffer = Buffer.allocUnsafe(block)
  for (let at = start, index = 0; at < size; index++) {
    const to = Math.min(end, at + block - (at % block))
    const bytes = buffer.subarray(0, Math.min(to, size) - at)
    const { bytesRead } = await file.read(bytes, 0, bytes.length, at)
    if (bytesRead < bytes.length) return 'other'
    const isOurs = to <= size && crc32(bytes) === sums.readUInt32LE(4 * index)
    if (!isOurs && bytes.some((byte) => byte !== 0)) return 'other'
    whole &&= isOurs
    at = to
  }
  return whole ? 'whole' : 'torn'
}
