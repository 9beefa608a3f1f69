import type * as fs from 'node:fs/promises'

const NEWLINE = 0x0a
const BLOCK = 256 * 1024

/** `oldest`, or how many lines before the end: `latest` is none, `-N` is N. Throws an Error that says what is allowed. */
export function startOf(text: string): 'oldest' | number {
  if (/^oldest$/i.test(text)) return 'oldest'
  if (/^latest$/i.test(text)) return 0
  if (/^-\d{1,15}$/.test(text)) return Number(text.slice(1))
  throw new Error(`start=${text}: oldest, latest or -N (the last N lines) is expected`)
}

/** Offset at which the last so many whole lines begin. A line that is being written does not count: it is read once it is whole. */
export async function offsetOfLast(lines: number, file: fs.FileHandle, size: number): Promise<number> {
  let left = lines + 1
  for (let end = size; end > 0;) {
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
