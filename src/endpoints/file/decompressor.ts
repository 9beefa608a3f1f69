import type * as fs from 'node:fs/promises'
import { decompress } from '../../codec/compression'
import type { Compression } from '../../core/contract'

const BLOCK_BYTES = 256 * 1024
/**
 * This many bytes are decompressed at once. Before damaged data the size shrinks, because the engine returns nothing of
 * a write that fails.
 */
const READ_SIZES = [BLOCK_BYTES, 4096, 128, 8, 1]

/** The file is not the one of the position: its content differs, or ends before it. */
export class ContentChanged extends Error {}

/** Tells whether the content is damaged, as opposed to an error of the operating system. */
export function isDamage(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).syscall === undefined && !(error instanceof ContentChanged)
}

/** Tells whether the data is sound but ends too early. */
export function isCutShort(error: unknown): boolean {
  return error instanceof Error && error.message.endsWith('ends too early')
}

/** Decompresses a file. Of a damaged file it returns all bytes before the damage and then throws. */
export class Decompressor {
  /** Counts the compressed bytes that were read. */
  consumed = 0
  /** The offset of the last block that was read. */
  private blockAt = 0
  /** From each of these offsets on, the next smaller size is used. */
  private readonly smallerReadsFrom: number[] = []

  /** @param maxBytes limits the bytes of the file that are read */
  constructor(
    private readonly file: fs.FileHandle,
    private readonly kind: Compression,
    private readonly maxBytes = Infinity,
  ) {}

  async *chunks(): AsyncGenerator<Buffer, void, undefined> {
    for (let seen = 0; ; ) {
      try {
        for await (const part of skipBytes(seen, decompress(this.kind)(this.blocks()))) {
          seen += part.length
          yield part
        }
        return
      } catch (error) {
        if (!isDamage(error) || isCutShort(error) || this.smallerReadsFrom.length === READ_SIZES.length - 1) throw error
        this.smallerReadsFrom.push(this.blockAt)
        this.consumed = 0
      }
    }
  }

  private async *blocks(): AsyncGenerator<Buffer, void, undefined> {
    for (;;) {
      const stage = this.smallerReadsFrom.filter((from) => from <= this.consumed).length
      const length = Math.min(
        READ_SIZES[stage] ?? 1,
        (this.smallerReadsFrom[stage] ?? this.maxBytes) - this.consumed,
        this.maxBytes - this.consumed,
      )
      if (length <= 0) return
      const { bytesRead, buffer } = await this.file.read(Buffer.allocUnsafe(length), 0, length, this.consumed)
      if (bytesRead === 0) return
      this.blockAt = this.consumed
      this.consumed += bytesRead
      yield buffer.subarray(0, bytesRead)
    }
  }
}

async function* skipBytes(bytes: number, parts: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  let left = bytes
  for await (const part of parts) {
    const skip = Math.min(left, part.length)
    left -= skip
    if (skip < part.length) yield part.subarray(skip)
  }
}
