import type * as fs from 'node:fs/promises'
import { decompress } from '../../codec/compression'
import type { Compression } from '../../core/contract'

const BLOCK_BYTES = 256 * 1024
/**
 * So much is decompressed at once: where data is damaged, ever less up to there, for of a write that fails the engine
 * gives out nothing.
 */
const READ_SIZES = [BLOCK_BYTES, 4096, 128, 8, 1]

/** The file is not the one whose position is known: its content differs, or ends before it. */
export class ContentChanged extends Error {}

/** What the content itself is to blame for, not the system. */
export function isDamage(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).syscall === undefined && !(error instanceof ContentChanged)
}

/** Whole as far as it goes. */
export function isCutShort(error: unknown): boolean {
  return error instanceof Error && error.message.endsWith('ends too early')
}

/** The uncompressed bytes of a file: of a damaged one all that lies before the damage, then the error. */
export class Decompressor {
  /** Compressed bytes read. */
  consumed = 0
  /** Where the block began that was read last. */
  private blockAt = 0
  /** From each on, the next of the sizes. */
  private readonly smallerReadsFrom: number[] = []

  /** @param maxBytes bytes of the file that are looked at */
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
