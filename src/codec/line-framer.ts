/**
 * Cuts a stream of bytes into whole lines without looking inside them.
 *
 * - A line is delivered once its newline was seen; what has none yet waits, copied at most once per block.
 * - Bytes that were delivered are never written again: deliveries are views into the blocks.
 * - A record that is too large ends what is taken with it: what follows comes with the next `take`, so that a flow that
 *   stops there has passed on nothing from beyond.
 * - Memory is bounded by two blocks and twice `maxRecord`, however long a line is.
 * - Offsets are those of the stream, so that a delivery can say where it begins and ends.
 */
import { createHash, type Hash } from 'node:crypto'
import { EMPTY, LineBatch } from '../core/batch'
import type { Batch, Unfit } from '../core/contract'
import { countNewlines, lastNewline } from '../kit/lines'
import { formatSize } from '../kit/sizes'

const NEWLINE = 0x0a
const BLOCK_BYTES = 1024 * 1024
/** A read into less than this costs more than a new block. */
const MIN_READ = 16 * 1024
/** Blocks kept for use again. */
const MAX_FREE_BLOCKS = 16
/** Fewer NULs than a page are no hole, but part of a record. */
const MIN_HOLE = 4095
/** What is kept of a record that is no record (contract.ts, Unfit). */
export const HEAD = 64 * 1024

/** An Unfit whose position is still an offset in the stream: after the record. */
export type InvalidLine = Omit<Unfit, 'position'> & { readonly offset: number }

/** Records, and the invalid records that follow them. */
export interface Framed {
  readonly batch: Batch
  /** Offset after all of it, terminators included: where reading goes on after a restart. */
  readonly to: number
  /** Offset after record i: reading goes on with record i + 1 from there. Found by looking, on first use. */
  at(index: number): number
  readonly invalid: readonly InvalidLine[]
  /** Nobody looks at the batch any more (nor asks `at`): its memory is read into again. Once at most. */
  release(): void
}

/**
 * A byte stream becoming records. Bytes come in by `space` and `filled`, where the reader has no buffer of its own, or
 * by `push`.
 */
export interface Framer {
  /** Where the next read may land: never empty. Valid until the next call of anything but itself. */
  space(): Buffer
  /** So many bytes have landed there. */
  filled(length: number): void
  /** Copies. */
  push(bytes: Uint8Array): void
  /** Bytes of whole records not taken yet; never 0 where `take` has something. */
  readonly pending: number
  /** Bytes of an unfinished record. */
  readonly unfinished: number
  take(): Framed | undefined
  /** The stream has ended: a last record without terminator gets one. To be called until it gives nothing. */
  end(): Framed | undefined
}

export interface FramerOptions {
  readonly maxRecord: number
  /** Offset of the stream at which the first byte lies. */
  readonly offset?: number
  readonly blockBytes?: number
}

interface LineRun {
  readonly bytes: Buffer
  readonly offset: number
  readonly block: Buffer
  readonly lineCount: number
}
/** A line that outgrew `maxRecord`: its bytes are hashed and let go. */
interface OversizedLine {
  /** Of NULs alone. */ readonly hole: boolean
  readonly offset: number
  readonly hash: Hash
  head: Buffer
  length: number
}

export class LineFramer implements Framer {
  private readonly blockBytes: number
  private readonly maxRecord: number
  private block: Buffer = Buffer.alloc(0)
  /** Offset in the stream of the block's first byte. */
  private blockOffset: number
  /** Indexes in the block: whole lines not taken begin at `from`, the unfinished one at `line`, free space at `end`. */
  private linesStart = 0
  private unfinishedStart = 0
  private freeStart = 0
  /** Between `from` and `line`. */
  private lineCount = 0
  /** In the order of the stream. */
  private queue: (LineRun | InvalidLine)[] = []
  private oversized: OversizedLine | undefined
  /** Bytes of the runs, and one for each invalid record. */
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
      // Only the first of the new lines can hold bytes of earlier reads: where a read is no larger than a record may
      // be, the others fit.
      if (fresh.length > this.maxRecord || start + fresh.indexOf(NEWLINE) - this.unfinishedStart > this.maxRecord)
        this.splitOversized(whole)
      // Now, while the bytes are in the processor's nearest cache.
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
      // The terminator is ours and not in the stream.
      this.unterminated = this.blockOffset + this.freeStart
    }
    const made = this.take()
    return made === undefined || made.to !== this.unterminated
      ? made
      : { ...made, to: made.to - 1, at: (index) => Math.min(made.at(index), made.to - 1) }
  }

  /** A new block that begins with the unfinished line. */
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

  /** Whole lines of the block up to an index become a piece. */
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

  /** Takes the lines that are too large out of those that end before an index. */
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
   * NULs that a record which is too large begins with: what a truncated file leaves before the place where its writer
   * went on. They are no part of the line behind them.
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
    // A block of its own, filled again and again until the line ends: the old one may be in use downstream.
    this.blockOffset += this.freeStart
    this.blocks.release(this.block)
    this.block = this.blocks.take(this.blockBytes)
    this.linesStart = this.unfinishedStart = this.freeStart = 0
  }

  /** Index in the fresh bytes of the line behind the hole; -1 where it goes on. */
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

  /** Index in the fresh bytes after the newline that ends the oversized line; -1 where it goes on. */
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
 * Blocks in use, and a few that can be used again: fresh memory by the gigabyte costs page faults and garbage
 * collections, more than the reading itself.
 */
class BlockPool {
  private readonly references = new Map<Buffer, number>()
  private readonly freeBlocks: Buffer[] = []

  constructor(private readonly size: number) {}

  /** Held once, by whoever fills it. */
  take(size: number): Buffer {
    const block = (size === this.size ? this.freeBlocks.pop() : undefined) ?? Buffer.allocUnsafeSlow(size)
    this.references.set(block, 1)
    return block
  }

  retain(block: Buffer): void {
    this.references.set(block, (this.references.get(block) ?? 0) + 1)
  }

  release(block: Buffer): void {
    const holders = (this.references.get(block) ?? 0) - 1
    if (holders > 0) {
      this.references.set(block, holders)
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
