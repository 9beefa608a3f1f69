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
const BLOCK = 1024 * 1024
/** A read into less than this costs more than a new block. */
const LEAST = 16 * 1024
/** Blocks kept for use again. */
const MOST_FREE = 16
/** Fewer NULs than a page are no hole, but part of a record. */
const LEAST_HOLE = 4095
/** What is kept of a record that is no record (contract.ts, Unfit). */
export const HEAD = 64 * 1024

/** An Unfit whose position is still an offset in the stream: after the record. */
export type Misfit = Omit<Unfit, 'position'> & { readonly offset: number }

/** Records, and the misfits that follow them. */
export interface Framed {
  readonly batch: Batch
  /** Offset after all of it, terminators included: where reading goes on after a restart. */
  readonly to: number
  /** Offset after record i: reading goes on with record i + 1 from there. Found by looking, on first use. */
  at(index: number): number
  readonly misfits: readonly Misfit[]
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

interface Piece {
  readonly bytes: Buffer
  readonly offset: number
  readonly block: Buffer
  readonly lines: number
}
/** A line that outgrew `maxRecord`: its bytes are hashed and let go. */
interface Giant {
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
  private from = 0
  private line = 0
  private free = 0
  /** Between `from` and `line`. */
  private lines = 0
  /** In the order of the stream. */
  private queue: (Piece | Misfit)[] = []
  private giant: Giant | undefined
  /** Bytes of the pieces, and one for each misfit. */
  private held = 0
  private unterminated: number | undefined
  private readonly blocks: Blocks

  constructor(options: FramerOptions) {
    this.maxRecord = options.maxRecord
    this.blockBytes = options.blockBytes ?? BLOCK
    this.blockOffset = options.offset ?? 0
    this.blocks = new Blocks(this.blockBytes)
  }

  get pending(): number {
    return this.held + this.line - this.from
  }
  get unfinished(): number {
    return this.giant?.length ?? this.free - this.line
  }

  space(): Buffer {
    if (this.block.length - this.free < Math.min(LEAST, this.blockBytes / 4) || this.block.length === this.free)
      this.renew()
    return this.block.subarray(this.free)
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
    let start = this.free
    this.free += length
    if (this.giant !== undefined) {
      const fresh = this.block.subarray(start, this.free)
      const end = this.giant.hole ? this.leaveHole(this.giant, fresh) : this.finishGiant(this.giant, fresh)
      if (end === -1) return
      start += end
    }
    const fresh = this.block.subarray(start, this.free)
    const last = lastNewline(fresh)
    if (last !== -1) {
      const whole = start + last + 1
      // Only the first of the new lines can hold bytes of earlier reads: where a read is no larger than a record may
      // be, the others fit.
      if (fresh.length > this.maxRecord || start + fresh.indexOf(NEWLINE) - this.line > this.maxRecord) this.sift(whole)
      // Now, while the bytes are in the processor's nearest cache.
      else this.lines += countNewlines(this.block.subarray(start, whole))
      this.line = whole
    }
    if (this.free - this.line > this.maxRecord) this.becomeGiant()
  }

  take(): Framed | undefined {
    this.close(this.line)
    const { queue } = this
    const first = queue.findIndex(isMisfit)
    const past = first === -1 ? -1 : queue.findIndex((item, index) => index > first && !isMisfit(item))
    const taken = past === -1 ? queue : queue.splice(0, past)
    if (past === -1) this.queue = []
    if (taken.length === 0) return undefined
    const pieces: Piece[] = []
    const misfits: Misfit[] = []
    for (const item of taken) {
      if (isMisfit(item)) misfits.push(item)
      else pieces.push(item)
      this.held -= isMisfit(item) ? 1 : item.bytes.length
    }
    const to = misfits.at(-1)?.offset ?? pieces.reduce((_, { offset, bytes }) => offset + bytes.length, 0)
    return framed(pieces, misfits, to, () => {
      for (const piece of pieces) this.blocks.drop(piece.block)
    })
  }

  end(): Framed | undefined {
    const giant = this.giant
    if (giant !== undefined) this.settle(giant, this.blockOffset + this.free)
    if (this.free > this.line) {
      if (this.free === this.block.length) this.renew()
      this.block[this.free] = NEWLINE
      this.line = ++this.free
      this.lines++
      // The terminator is ours and not in the stream.
      this.unterminated = this.blockOffset + this.free
    }
    const made = this.take()
    return made === undefined || made.to !== this.unterminated
      ? made
      : { ...made, to: made.to - 1, at: (index) => Math.min(made.at(index), made.to - 1) }
  }

  /** A new block that begins with the unfinished line. */
  private renew(): void {
    this.close(this.line)
    const tail = this.free - this.line
    const next = this.blocks.take(Math.max(this.blockBytes, tail + Math.min(Math.max(tail, LEAST), this.maxRecord)))
    this.block.copy(next, 0, this.line, this.free)
    this.blocks.drop(this.block)
    this.blockOffset += this.line
    this.block = next
    this.from = this.line = 0
    this.free = tail
  }

  /** Whole lines of the block up to an index become a piece. */
  private close(upTo: number): void {
    if (upTo > this.from) {
      this.blocks.hold(this.block)
      this.queue.push({
        bytes: this.block.subarray(this.from, upTo),
        offset: this.blockOffset + this.from,
        block: this.block,
        lines: this.lines,
      })
      this.held += upTo - this.from
      this.lines = 0
    }
    this.from = upTo
  }

  /** Takes the lines that are too large out of those that end before an index. */
  private sift(whole: number): void {
    for (let at = this.line; at < whole; ) {
      const end = this.block.indexOf(NEWLINE, at)
      const hole = end - at > this.maxRecord ? this.holeIn(at, end) : 0
      if (hole > 0) {
        this.passHole(at, at + hole)
        at += hole
        continue
      }
      if (end - at > this.maxRecord) {
        this.close(at)
        const record = this.block.subarray(at, end)
        this.misfit({
          why: tooLarge(record.length, this.maxRecord),
          offset: this.blockOffset + end + 1,
          head: Buffer.from(record.subarray(0, HEAD)),
          length: record.length,
          sha256: createHash('sha256').update(record).digest('hex'),
        })
        this.from = end + 1
      } else this.lines++
      at = end + 1
    }
  }

  private misfit(misfit: Misfit): void {
    this.queue.push(misfit)
    this.held++
  }

  /**
   * NULs that a record which is too large begins with: what a truncated file leaves before the place where its writer
   * went on. They are no part of the line behind them.
   */
  private holeIn(from: number, to: number): number {
    const nuls = nulsOf(this.block.subarray(from, to))
    return nuls > Math.min(this.maxRecord, LEAST_HOLE) ? nuls : 0
  }

  private passHole(from: number, to: number): void {
    this.close(from)
    const nuls = this.block.subarray(from, to)
    const head = Buffer.from(nuls.subarray(0, HEAD))
    this.misfit({
      why: holed(nuls.length),
      offset: this.blockOffset + to,
      head,
      length: nuls.length,
      sha256: createHash('sha256').update(nuls).digest('hex'),
    })
    this.from = this.line = to
  }

  private becomeGiant(): void {
    const hole = this.holeIn(this.line, this.free)
    if (hole > 0 && hole < this.free - this.line) {
      this.passHole(this.line, this.line + hole)
      if (this.free - this.line <= this.maxRecord) return
    }
    this.close(this.line)
    const known = this.block.subarray(this.line, this.free)
    this.giant = {
      hole: hole > 0 && hole === known.length,
      offset: this.blockOffset + this.line,
      head: Buffer.from(known.subarray(0, HEAD)),
      hash: createHash('sha256').update(known),
      length: known.length,
    }
    // A block of its own, filled again and again until the line ends: the old one may be in use downstream.
    this.blockOffset += this.free
    this.blocks.drop(this.block)
    this.block = this.blocks.take(this.blockBytes)
    this.from = this.line = this.free = 0
  }

  /** Index in the fresh bytes of the line behind the hole; -1 where it goes on. */
  private leaveHole(giant: Giant, fresh: Buffer): number {
    const nuls = nulsOf(fresh)
    giant.hash.update(fresh.subarray(0, nuls))
    giant.length += nuls
    if (nuls === fresh.length) {
      this.blockOffset += this.free
      this.from = this.line = this.free = 0
      return -1
    }
    this.from = this.line = this.free - fresh.length + nuls
    this.settle(giant, this.blockOffset + this.line)
    return nuls
  }

  /** Index in the fresh bytes after the newline that ends the giant; -1 where it goes on. */
  private finishGiant(giant: Giant, fresh: Buffer): number {
    const end = fresh.indexOf(NEWLINE)
    const rest = end === -1 ? fresh : fresh.subarray(0, end)
    giant.hash.update(rest)
    giant.length += rest.length
    if (giant.head.length < HEAD) giant.head = Buffer.concat([giant.head, rest.subarray(0, HEAD - giant.head.length)])
    if (end === -1) {
      this.blockOffset += this.free
      this.from = this.line = this.free = 0
      return -1
    }
    this.from = this.line = this.free - fresh.length + end + 1
    this.settle(giant, this.blockOffset + this.line)
    return end + 1
  }

  private settle(giant: Giant, offset: number): void {
    this.misfit({
      why: giant.hole ? holed(giant.length) : tooLarge(giant.length, this.maxRecord),
      offset,
      head: giant.head,
      length: giant.length,
      sha256: giant.hash.digest('hex'),
    })
    this.giant = undefined
  }
}

/**
 * Blocks in use, and a few that can be used again: fresh memory by the gigabyte costs page faults and garbage
 * collections, more than the reading itself.
 */
class Blocks {
  private readonly held = new Map<Buffer, number>()
  private readonly free: Buffer[] = []

  constructor(private readonly size: number) {}

  /** Held once, by whoever fills it. */
  take(size: number): Buffer {
    const block = (size === this.size ? this.free.pop() : undefined) ?? Buffer.allocUnsafeSlow(size)
    this.held.set(block, 1)
    return block
  }

  hold(block: Buffer): void {
    this.held.set(block, (this.held.get(block) ?? 0) + 1)
  }

  drop(block: Buffer): void {
    const holders = (this.held.get(block) ?? 0) - 1
    if (holders > 0) {
      this.held.set(block, holders)
      return
    }
    if (!this.held.delete(block) || block.length !== this.size || this.free.length >= MOST_FREE) return
    this.free.push(block)
  }
}

function isMisfit(item: Piece | Misfit): item is Misfit {
  return 'why' in item
}

function framed(pieces: readonly Piece[], misfits: readonly Misfit[], to: number, release: () => void): Framed {
  let count = 0
  for (const piece of pieces) count += piece.lines
  let offsets: number[] | undefined
  return {
    batch:
      count === 0
        ? EMPTY
        : new LineBatch(
            pieces.map((piece) => piece.bytes),
            count,
          ),
    to,
    misfits,
    release,
    at: (index) => (offsets ??= offsetsOf(pieces))[index] ?? to,
  }
}

function offsetsOf(pieces: readonly Piece[]): number[] {
  const offsets: number[] = []
  for (const { bytes, offset } of pieces) {
    for (let end = bytes.indexOf(NEWLINE); end !== -1; end = bytes.indexOf(NEWLINE, end + 1))
      offsets.push(offset + end + 1)
  }
  return offsets
}

function nulsOf(bytes: Buffer): number {
  const end = bytes.findIndex((byte) => byte !== 0)
  return end === -1 ? bytes.length : end
}

function holed(length: number): string {
  return `a hole of ${length} NUL bytes`
}

function tooLarge(length: number, maxRecord: number): string {
  return `a record of ${length} bytes is larger than max-record=${formatSize(maxRecord)}`
}
