/**
 * Splits a stream of bytes into whole lines without looking inside them.
 *
 * - A line is delivered once its newline has arrived. An unfinished line waits and is copied at most once per block.
 * - Delivered bytes are views into the blocks, and are not overwritten before their release.
 * - A record that is too large is the last one of a `take`. A flow that stops there has passed on nothing that follows
 *   it.
 * - Memory is bounded by two blocks and twice `maxRecord`, however long a line is.
 * - Offsets are those of the stream, so a delivery knows where it begins and ends.
 */
import { createHash, type Hash } from 'node:crypto'
import { EMPTY, LineBatch } from '../core/batch'
import type { Batch, InvalidRecord } from '../core/contract'
import { countNewlines, lastNewline } from '../kit/lines'
import { formatSize } from '../kit/sizes'

const NEWLINE = 0x0a
const BLOCK_BYTES = 1024 * 1024
/** A read into less space than this costs more than a new block. */
const MIN_READ = 16 * 1024
/** At most this many free blocks are kept for reuse. */
const MAX_FREE_BLOCKS = 16
/** Fewer NULs than a page are part of a record and no hole. */
const MIN_HOLE = 4095
/** This many bytes of an invalid record are kept. */
export const HEAD = 64 * 1024

/** An invalid record whose position is still an offset of the stream, behind the record. */
export type InvalidLine = Omit<InvalidRecord, 'position'> & { readonly offset: number }

/** Records, and the invalid records that follow them. */
export interface Framed {
  readonly batch: Batch
  /** The offset behind all of it, with terminators. Reading goes on there after a restart. */
  readonly to: number
  /** Returns the offset behind record i, where record i + 1 begins. The offsets are computed on first use. */
  at(index: number): number
  readonly invalid: readonly InvalidLine[]
  /**
   * Releases the memory of the batch for new reads. It is called at most once, and neither the batch nor `at` may be
   * used afterwards.
   */
  release(): void
}

/** Turns a byte stream into records. A reader without buffer of its own uses `space` and `filled`, any other `push`. */
export interface Framer {
  /** Returns the buffer for the next read, which is never empty. It is valid until any other method is called. */
  space(): Buffer
  /** Says how many bytes were read into that buffer. */
  filled(length: number): void
  /** Copies the bytes. */
  push(bytes: Uint8Array): void
  /** Counts the bytes of whole records that were not taken yet. It is not 0 if `take` would return something. */
  readonly pending: number
  /** Counts the bytes of an unfinished record. */
  readonly unfinished: number
  take(): Framed | undefined
  /** Ends the stream, and terminates a last record without terminator. It has to be called until it returns nothing. */
  end(): Framed | undefined
}

export interface FramerOptions {
  readonly maxRecord: number
  /** The offset in the stream of the block's first byte. */
  readonly offset?: number
  readonly blockBytes?: number
}

interface LineRun {
  readonly bytes: Buffer
  readonly offset: number
  readonly block: Buffer
  readonly lineCount: number
}
/** A line that outgrew `maxRecord`. Its bytes are hashed and not kept. */
interface OversizedLine {
  /** It consists of NULs only. */ readonly hole: boolean
  readonly offset: number
  readonly hash: Hash
  head: Buffer
  length: number
}

export class LineFramer implements Framer {
  private readonly blockBytes: number
  private readonly maxRecord: number
  private block: Buffer = Buffer.alloc(0)
  /** The offset in the stream of the block's first byte. */
  private blockOffset: number
  /**
   * Indexes in the block: whole lines begin at `linesStart`, the unfinished line at `unfinishedStart`, and free space
   * at `freeStart`.
   */
  private linesStart = 0
  private unfinishedStart = 0
  private freeStart = 0
  /** Counts the lines between `linesStart` and `unfinishedStart`. */
  private lineCount = 0
  /** The queue has the order of the stream. */
  private queue: (LineRun | InvalidLine)[] = []
  private oversized: OversizedLine | undefined
  /** Counts the bytes of the runs, and one for each invalid record. */
  private queuedBytes = 0
  private unterminated: number | undefined
  private readonly blocks: BlockPool

  constructor(options: FramerOptions) {
    this.maxRecord = options.maxRecord
    this.blockBytes = options.blockBytes ?? BLOCK_BYTES
    this.blockOffset = options.offset ?? 0
    this.blocks = new BlockPool(this.blockBytes)
  }

  get pending(): number {
    return this.queuedBytes + this.unfinishedStart - this.linesStart
  }
  get unfinished(): number {
    return this.oversized?.length ?? this.freeStart - this.unfinishedStart
  }

  space(): Buffer {
    if (
      this.block.length - this.freeStart < Math.min(MIN_READ, this.blockBytes / 4) ||
      this.block.length === this.freeStart
    )
      this.renew()
    return this.block.subarray(this.freeStart)
  }

  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const space = this.space()
      const length = Math.min(space.length, bytes.length - at)
      space.set(length === bytes.length ? bytes : bytes.subarray(at, at + length))
      this.filled(length)
      at += length
    }
  }

  filled(length: number): void {
    let start = this.freeStart
    this.freeStart += length
    if (this.oversized !== undefined) {
      const fresh = this.block.subarray(start, this.freeStart)
      const end = this.oversized.hole
        ? this.continueHole(this.oversized, fresh)
        : this.continueOversized(this.oversized, fresh)
      if (end === -1) return
      start += end
    }
    const fresh = this.block.subarray(start, this.freeStart)
    const last = lastNewline(fresh)
    if (last !== -1) {
      const whole = start + last + 1
      // Only the first new line can contain bytes of earlier reads. If the read itself is no larger than a record may
      // be, no other line is too large.
      if (fresh.length > this.maxRecord || start + fresh.indexOf(NEWLINE) - this.unfinishedStart > this.maxRecord)
        this.splitOversized(whole)
      // The lines are counted now, while the bytes are in the processor's cache.
      else this.lineCount += countNewlines(this.block.subarray(start, whole))
      this.unfinishedStart = whole
    }
    if (this.freeStart - this.unfinishedStart > this.maxRecord) this.startOversized()
  }

  take(): Framed | undefined {
    this.closeRun(this.unfinishedStart)
    const { queue } = this
    const first = queue.findIndex(isInvalid)
    const past = first === -1 ? -1 : queue.findIndex((item, index) => index > first && !isInvalid(item))
    const taken = past === -1 ? queue : queue.splice(0, past)
    if (past === -1) this.queue = []
    if (taken.length === 0) return undefined
    const runs: LineRun[] = []
    const invalid: InvalidLine[] = []
    for (const item of taken) {
      if (isInvalid(item)) invalid.push(item)
      else runs.push(item)
      this.queuedBytes -= isInvalid(item) ? 1 : item.bytes.length
    }
    const to = invalid.at(-1)?.offset ?? runs.reduce((_, { offset, bytes }) => offset + bytes.length, 0)
    return framed(runs, invalid, to, () => {
      for (const run of runs) this.blocks.release(run.block)
    })
  }

  end(): Framed | undefined {
    const oversized = this.oversized
    if (oversized !== undefined) this.endOversized(oversized, this.blockOffset + this.freeStart)
    if (this.freeStart > this.unfinishedStart) {
      if (this.freeStart === this.block.length) this.renew()
      this.block[this.freeStart] = NEWLINE
      this.unfinishedStart = ++this.freeStart
      this.lineCount++
      // This terminator is not in the stream.
      this.unterminated = this.blockOffset + this.freeStart
    }
    const made = this.take()
    return made === undefined || made.to !== this.unterminated
      ? made
      : { ...made, to: made.to - 1, at: (index) => Math.min(made.at(index), made.to - 1) }
  }

  /** Starts a new block with the unfinished line. */
  private renew(): void {
    this.closeRun(this.unfinishedStart)
    const tail = this.freeStart - this.unfinishedStart
    const next = this.blocks.take(Math.max(this.blockBytes, tail + Math.min(Math.max(tail, MIN_READ), this.maxRecord)))
    this.block.copy(next, 0, this.unfinishedStart, this.freeStart)
    this.blocks.release(this.block)
    this.blockOffset += this.unfinishedStart
    this.block = next
    this.linesStart = this.unfinishedStart = 0
    this.freeStart = tail
  }

  /** Makes a run of the whole lines up to an index. */
  private closeRun(upTo: number): void {
    if (upTo > this.linesStart) {
      this.blocks.retain(this.block)
      this.queue.push({
        bytes: this.block.subarray(this.linesStart, upTo),
        offset: this.blockOffset + this.linesStart,
        block: this.block,
        lineCount: this.lineCount,
      })
      this.queuedBytes += upTo - this.linesStart
      this.lineCount = 0
    }
    this.linesStart = upTo
  }

  /** Separates the lines that are too large from those that end before an index. */
  private splitOversized(whole: number): void {
    for (let at = this.unfinishedStart; at < whole; ) {
      const end = this.block.indexOf(NEWLINE, at)
      const hole = end - at > this.maxRecord ? this.holeIn(at, end) : 0
      if (hole > 0) {
        this.skipHole(at, at + hole)
        at += hole
        continue
      }
      if (end - at > this.maxRecord) {
        this.closeRun(at)
        const record = this.block.subarray(at, end)
        this.queueInvalid({
          why: tooLargeText(record.length, this.maxRecord),
          offset: this.blockOffset + end + 1,
          head: Buffer.from(record.subarray(0, HEAD)),
          length: record.length,
          sha256: createHash('sha256').update(record).digest('hex'),
        })
        this.linesStart = end + 1
      } else this.lineCount++
      at = end + 1
    }
  }

  private queueInvalid(invalid: InvalidLine): void {
    this.queue.push(invalid)
    this.queuedBytes++
  }

  /**
   * Returns how many NULs a record that is too large begins with. A file that is truncated under its writer gets such a
   * hole. It is not part of the line behind it.
   */
  private holeIn(from: number, to: number): number {
    const nuls = nulsOf(this.block.subarray(from, to))
    return nuls > Math.min(this.maxRecord, MIN_HOLE) ? nuls : 0
  }

  private skipHole(from: number, to: number): void {
    this.closeRun(from)
    const nuls = this.block.subarray(from, to)
    const head = Buffer.from(nuls.subarray(0, HEAD))
    this.queueInvalid({
      why: holeText(nuls.length),
      offset: this.blockOffset + to,
      head,
      length: nuls.length,
      sha256: createHash('sha256').update(nuls).digest('hex'),
    })
    this.linesStart = this.unfinishedStart = to
  }

  private startOversized(): void {
    const hole = this.holeIn(this.unfinishedStart, this.freeStart)
    if (hole > 0 && hole < this.freeStart - this.unfinishedStart) {
      this.skipHole(this.unfinishedStart, this.unfinishedStart + hole)
      if (this.freeStart - this.unfinishedStart <= this.maxRecord) return
    }
    this.closeRun(this.unfinishedStart)
    const known = this.block.subarray(this.unfinishedStart, this.freeStart)
    this.oversized = {
      hole: hole > 0 && hole === known.length,
      offset: this.blockOffset + this.unfinishedStart,
      head: Buffer.from(known.subarray(0, HEAD)),
      hash: createHash('sha256').update(known),
      length: known.length,
    }
    // The line is read into a block of its own until it ends, because the old block may still be in use downstream.
    this.blockOffset += this.freeStart
    this.blocks.release(this.block)
    this.block = this.blocks.take(this.blockBytes)
    this.linesStart = this.unfinishedStart = this.freeStart = 0
  }

  /** Returns the index of the line behind the hole, or -1 if the hole goes on. */
  private continueHole(oversized: OversizedLine, fresh: Buffer): number {
    const nuls = nulsOf(fresh)
    oversized.hash.update(fresh.subarray(0, nuls))
    oversized.length += nuls
    if (nuls === fresh.length) {
      this.blockOffset += this.freeStart
      this.linesStart = this.unfinishedStart = this.freeStart = 0
      return -1
    }
    this.linesStart = this.unfinishedStart = this.freeStart - fresh.length + nuls
    this.endOversized(oversized, this.blockOffset + this.unfinishedStart)
    return nuls
  }

  /** Returns the index behind the newline that ends the line, or -1 if the line goes on. */
  private continueOversized(oversized: OversizedLine, fresh: Buffer): number {
    const end = fresh.indexOf(NEWLINE)
    const rest = end === -1 ? fresh : fresh.subarray(0, end)
    oversized.hash.update(rest)
    oversized.length += rest.length
    if (oversized.head.length < HEAD)
      oversized.head = Buffer.concat([oversized.head, rest.subarray(0, HEAD - oversized.head.length)])
    if (end === -1) {
      this.blockOffset += this.freeStart
      this.linesStart = this.unfinishedStart = this.freeStart = 0
      return -1
    }
    this.linesStart = this.unfinishedStart = this.freeStart - fresh.length + end + 1
    this.endOversized(oversized, this.blockOffset + this.unfinishedStart)
    return end + 1
  }

  private endOversized(oversized: OversizedLine, offset: number): void {
    this.queueInvalid({
      why: oversized.hole ? holeText(oversized.length) : tooLargeText(oversized.length, this.maxRecord),
      offset,
      head: oversized.head,
      length: oversized.length,
      sha256: oversized.hash.digest('hex'),
    })
    this.oversized = undefined
  }
}

/**
 * Keeps the blocks in use and a few free ones. New memory for each gigabyte would cost page faults and garbage
 * collections, more than the reading itself.
 */
class BlockPool {
  private readonly references = new Map<Buffer, number>()
  private readonly freeBlocks: Buffer[] = []

  constructor(private readonly size: number) {}

  /** Returns a block with one reference, that of its writer. */
  take(size: number): Buffer {
    const block = (size === this.size ? this.freeBlocks.pop() : undefined) ?? Buffer.allocUnsafeSlow(size)
    this.references.set(block, 1)
    return block
  }

  retain(block: Buffer): void {
    this.references.set(block, (this.references.get(block) ?? 0) + 1)
  }

  release(block: Buffer): void {
    const references = (this.references.get(block) ?? 0) - 1
    if (references > 0) {
      this.references.set(block, references)
      return
    }
    if (!this.references.delete(block) || block.length !== this.size || this.freeBlocks.length >= MAX_FREE_BLOCKS)
      return
    this.freeBlocks.push(block)
  }
}

function isInvalid(item: LineRun | InvalidLine): item is InvalidLine {
  return 'why' in item
}

function framed(runs: readonly LineRun[], invalid: readonly InvalidLine[], to: number, release: () => void): Framed {
  let count = 0
  for (const run of runs) count += run.lineCount
  let offsets: number[] | undefined
  return {
    batch:
      count === 0
        ? EMPTY
        : new LineBatch(
            runs.map((run) => run.bytes),
            count,
          ),
    to,
    invalid,
    release,
    at: (index) => (offsets ??= offsetsOf(runs))[index] ?? to,
  }
}

function offsetsOf(runs: readonly LineRun[]): number[] {
  const offsets: number[] = []
  for (const { bytes, offset } of runs) {
    for (let end = bytes.indexOf(NEWLINE); end !== -1; end = bytes.indexOf(NEWLINE, end + 1))
      offsets.push(offset + end + 1)
  }
  return offsets
}

function nulsOf(bytes: Buffer): number {
  const end = bytes.findIndex((byte) => byte !== 0)
  return end === -1 ? bytes.length : end
}

function holeText(length: number): string {
  return `a hole of ${length} NUL bytes`
}

function tooLargeText(length: number, maxRecord: number): string {
  return `a record of ${length} bytes is larger than max-record=${formatSize(maxRecord)}`
}
