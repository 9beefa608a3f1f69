import type * as fs from 'node:fs/promises'
import type { Compression } from '../../core/contract'
import { countNewlines } from '../../kit/lines'
import { Decompressor, isDamage } from './decompressor'
import { FINGERPRINT_BYTES } from './position'

const NEWLINE = 0x0a
const BLOCK = 256 * 1024

/**
 * Returns `oldest` or the number of lines before the end: 0 for `latest` and N for `-N`.
 * @throws an Error that says what is allowed
 */
export function startOf(text: string): 'oldest' | number {
  if (/^oldest$/i.test(text)) return 'oldest'
  if (/^latest$/i.test(text)) return 0
  if (/^-\d{1,15}$/.test(text)) return Number(text.slice(1))
  throw new Error(`start=${text}: oldest, latest or -N (the last N lines) is expected`)
}

/**
 * Returns the offset at which the last N whole lines begin. An unfinished line does not count, because it is read once
 * it is finished.
 */
export async function offsetOfLast(lines: number, file: fs.FileHandle, size: number): Promise<number> {
  let left = lines + 1
  for (let end = size; end > 0; ) {
    const begin = Math.max(0, end - BLOCK)
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(end - begin), 0, end - begin, begin)
    const block = buffer.subarray(0, bytesRead)
    for (let at = block.lastIndexOf(NEWLINE); at !== -1; at = at === 0 ? -1 : block.lastIndexOf(NEWLINE, at - 1)) {
      if (--left === 0) return begin + at + 1
    }
    end = begin
  }
  return 0
}

/** Returns the end of the line that goes on at an offset, as far as it is written. */
export async function endOfLine(file: fs.FileHandle, offset: number): Promise<number> {
  for (let at = offset; ; ) {
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(BLOCK), 0, BLOCK, at)
    const newline = buffer.subarray(0, bytesRead).indexOf(NEWLINE)
    if (newline !== -1) return at + newline + 1
    if (bytesRead === 0) return at
    at += bytesRead
  }
}

/**
 * Does the same for compressed data. It is read once to count the lines, and again to find the right one. Damaged data
 * ends where it can be read no further.
 */
export async function offsetOfLastIn(
  lines: number,
  file: fs.FileHandle,
  compression: Compression,
): Promise<{ readonly offset: number; readonly head: Buffer }> {
  let total = 0
  let head: Buffer = Buffer.alloc(0)
  for await (const part of contentOf(file, compression)) {
    total += countNewlines(part)
    if (head.length < FINGERPRINT_BYTES) head = Buffer.concat([head, part.subarray(0, FINGERPRINT_BYTES - head.length)])
  }
  const offset = await offsetAfter(Math.max(0, total - lines), contentOf(file, compression))
  return { offset, head: head.subarray(0, offset) }
}

/** Returns the offset behind this many newlines. */
async function offsetAfter(newlines: number, parts: AsyncIterable<Buffer>): Promise<number> {
  let left = newlines
  let offset = 0
  if (left === 0) return 0
  for await (const part of parts) {
    const here = countNewlines(part)
    if (here < left) {
      left -= here
      offset += part.length
      continue
    }
    let end = -1
    for (; left > 0; left--) end = part.indexOf(NEWLINE, end + 1)
    return offset + end + 1
  }
  return offset
}

async function* contentOf(file: fs.FileHandle, compression: Compression): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* new Decompressor(file, compression).chunks()
  } catch (error) {
    if (!isDamage(error)) throw error
  }
}
