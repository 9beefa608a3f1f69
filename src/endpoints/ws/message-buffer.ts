/**
 * Buffers the messages that a connection has received and nobody has read yet.
 *
 * Messages lie one after the other in large blocks, each with a byte for its terminator, so that a read returns the
 * bytes as they lie. A message costs a copy and an entry for its end. One search over many messages finds out whether
 * any contains a newline, and then the terminators are set.
 *
 * A message with a newline inside is kept separately, and its delivery has the form of entries. From then on each
 * message is checked by itself.
 *
 * Returned bytes are not overwritten before they are released. A block is reused when all its deliveries are released.
 */
import { createHash } from 'node:crypto'
import { EMPTY, EntryBatch, LineBatch } from '../../core/batch'
import type { Batch, Entry, InvalidRecord } from '../../core/contract'
import { formatSize } from '../../kit/sizes'

const NEWLINE = 0x0a
const BLOCK_BYTES = 256 * 1024
/** At most this many messages are searched together. */
const MAX_MESSAGES = 8192
/** A larger message gets a buffer of its own, because it would leave too much of a block unused. */
const LARGE_MESSAGE = 64 * 1024
/** A read returns about this many bytes. */
const READ_BYTES = 1024 * 1024
/** The connection is paused at this many buffered bytes, and resumed at half of them. */
export const MAX_BUFFERED = 8 * 1024 * 1024
/** At most this many free blocks are kept for reuse. */
const MAX_FREE_BLOCKS = 16
/** This many bytes of a message that is too large are kept. */
export const HEAD = 64 * 1024

export type InvalidMessage = Omit<InvalidRecord, 'position'>
export interface ReceivedBatch {
  readonly batch: Batch
  /** The invalid message follows the batch. */
  readonly invalid?: InvalidMessage
  /** The time of the monotonic clock at which the first message arrived. */
  readonly receivedAt: number
  /** Releases the bytes of the batch. */
  readonly release?: () => void
}
/** `references` counts the runs in the block that were not released. */
interface Block {
  readonly bytes: Buffer
  references: number
}
interface Run {
  readonly receivedAt: number
  readonly bytes: number
  /** The block of the run, if it can be reused. */
  readonly block?: Block
  readonly content:
    | { readonly lines: Buffer; readonly count: number }
    | { readonly message: Buffer }
    | { readonly invalid: InvalidMessage }
}

export interface BufferContext {
  readonly maxRecord: number
  now(): number
  /** The buffer is full. It is called again for all further messages. */
  full(): void
  /** Messages have arrived. It is called once in a turn of the event loop, after all messages of that turn. */
  arrived(): void
}

export class MessageBuffer {
  private block: Buffer = Buffer.allocUnsafeSlow(0)
  private currentBlock: Block = { bytes: this.block, references: 0 }
  private readonly freeBlocks: Buffer[] = []
  /** The range [from, to) of the block contains `count` messages that were not taken. The first arrived at `since`. */
  private from = 0
  private to = 0
  private count = 0
  private since = 0
  /** The places of their terminators, while messages are not checked one by one. */
  private readonly messageEnds = new Uint32Array(MAX_MESSAGES)
  /** A newline was found, so each message is checked and terminated at once. */
  private checksEach = false
  private runs: Run[] = []
  private sealedBytes = 0
  private isNotifyScheduled = false
  /** Counts all messages that were received. */
  received = 0
  /** Counts those of them that were taken. */
  taken = 0

  /** Messages up to this size are added without a check. */
  private readonly maxUnchecked: number

  constructor(private readonly context: BufferContext) {
    this.maxUnchecked = Math.min(LARGE_MESSAGE, context.maxRecord)
  }

  /** Counts the buffered bytes. */
  get bufferedBytes(): number {
    return this.sealedBytes + this.to - this.from
  }
  get empty(): boolean {
    return this.count === 0 && this.runs.length === 0
  }

  /** Copies a message into the buffer. */
  add(data: Buffer): void {
    this.received++
    if (!this.isNotifyScheduled) {
      this.isNotifyScheduled = true
      setImmediate(() => {
        this.notifyArrived()
      })
    }
    const { length } = data
    if (this.checksEach || length > this.maxUnchecked) {
      this.addChecked(data)
      return
    }
    if (this.to + length >= this.block.length || this.count === MAX_MESSAGES) {
      this.nextBlock()
      if (this.isCheckingEach()) {
        this.addChecked(data)
        return
      }
    }
    if (this.count === 0) this.since = this.context.now()
    this.block.set(data, this.to)
    const end = this.to + length
    // The byte is no newline until the search has found that there is no other.
    this.block[end] = 0
    this.messageEnds[this.count++] = end
    this.to = end + 1
  }

  /** Returns up to about 1 MiB of messages. The batch ends behind a message that is too large. */
  take(): ReceivedBatch | undefined {
    if (this.sealedBytes < READ_BYTES) this.seal()
    const first = this.runs[0]
    if (first === undefined) return undefined
    let bytes = 0
    let taken = 0
    let invalid: InvalidMessage | undefined
    for (const run of this.runs) {
      if (taken > 0 && bytes + run.bytes > READ_BYTES) break
      bytes += run.bytes
      taken++
      this.taken += 'lines' in run.content ? run.content.count : 1
      if ('invalid' in run.content) {
        invalid = run.content.invalid
        break
      }
    }
    const runs = this.runs.splice(0, taken)
    this.sealedBytes -= bytes
    return {
      batch: batchOf(runs),
      receivedAt: first.receivedAt,
      release: () => {
        this.release(runs)
      },
      ...(invalid === undefined ? {} : { invalid }),
    }
  }

  private notifyArrived(): void {
    this.isNotifyScheduled = false
    this.context.arrived()
  }

  /** Sealing may have set it, which the type checker does not see. */
  private isCheckingEach(): boolean {
    return this.checksEach
  }

  private nextBlock(): void {
    this.seal()
    if (this.block.length - this.to > LARGE_MESSAGE) return
    this.startBlock()
  }

  private startBlock(): void {
    const old = this.currentBlock
    this.block = this.freeBlocks.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES)
    this.currentBlock = { bytes: this.block, references: 0 }
    this.from = this.to = this.count = 0
    this.recycle(old)
  }

  private release(runs: readonly Run[]): void {
    for (const { block } of runs) {
      if (block === undefined) continue
      block.references--
      if (block !== this.currentBlock) this.recycle(block)
    }
  }

  private recycle({ bytes, references }: Block): void {
    if (references === 0 && bytes.length === BLOCK_BYTES && this.freeBlocks.length < MAX_FREE_BLOCKS)
      this.freeBlocks.push(bytes)
  }

  private addChecked(data: Buffer): void {
    const { length } = data
    if (!this.checksEach) this.seal()
    const newline = data.indexOf(NEWLINE)
    if ((newline !== -1 && newline !== length - 1) || length > this.context.maxRecord) {
      this.addSeparately(data)
      return
    }
    // A newline at the end is already the terminator.
    const size = newline === -1 ? length + 1 : length
    if (size > LARGE_MESSAGE) {
      this.addLarge(data, size)
      return
    }
    if (this.to + size > this.block.length) this.nextBlock()
    if (this.count === 0) this.since = this.context.now()
    this.block.set(data, this.to)
    this.to += size
    this.block[this.to - 1] = NEWLINE
    this.count++
    // Unless each message is checked, the next messages are searched without this one.
    if (!this.checksEach) this.closeRun()
  }

  private addLarge(data: Buffer, size: number): void {
    this.seal()
    const lines = Buffer.allocUnsafeSlow(size)
    lines.set(data)
    lines[size - 1] = NEWLINE
    this.push({ receivedAt: this.context.now(), bytes: size, content: { lines, count: 1 } })
  }

  private addSeparately(data: Buffer): void {
    this.seal()
    const { maxRecord, now } = this.context
    if (data.length > maxRecord) {
      const invalid: InvalidMessage = {
        why: `a message of ${formatSize(data.length)} is larger than max-record=${formatSize(maxRecord)}`,
        head: Buffer.from(data.subarray(0, HEAD)),
        length: data.length,
        sha256: createHash('sha256').update(data).digest('hex'),
      }
      this.push({ receivedAt: now(), bytes: invalid.head.length, content: { invalid } })
    } else this.push({ receivedAt: now(), bytes: data.length, content: { message: Buffer.from(data) } })
  }

  private seal(): void {
    if (this.count === 0) return
    if (!this.checksEach) {
      const { block, from, to, count, messageEnds, since } = this
      if (block.subarray(from, to).includes(NEWLINE)) {
        this.checksEach = true
        // The old block is still read here, so it must not be reused yet.
        this.currentBlock.references++
        this.startBlock()
        for (let i = 0, at = from; i < count; i++) {
          const end = messageEnds[i] ?? at
          this.addChecked(block.subarray(at, end))
          at = end + 1
          this.since = since
        }
        if (this.count === 0) return
      } else for (let i = 0; i < count; i++) block[messageEnds[i] ?? from] = NEWLINE
    }
    this.closeRun()
  }

  private closeRun(): void {
    this.currentBlock.references++
    this.push({
      receivedAt: this.since,
      bytes: this.to - this.from,
      block: this.currentBlock,
      content: { lines: this.block.subarray(this.from, this.to), count: this.count },
    })
    this.from = this.to
    this.count = 0
  }

  private push(run: Run): void {
    this.runs.push(run)
    this.sealedBytes += run.bytes
    if (this.sealedBytes >= MAX_BUFFERED) this.context.full()
  }
}

function batchOf(runs: readonly Run[]): Batch {
  const chunks: Buffer[] = []
  let count = 0
  let retained = 0
  let apart = false
  for (const { content, bytes } of runs) {
    if ('invalid' in content) continue
    retained += bytes
    if ('lines' in content) {
      chunks.push(content.lines)
      count += content.count
    } else apart = true
  }
  if (!apart) return count === 0 ? EMPTY : new LineBatch(chunks, count)
  const entries: Entry[] = []
  for (const { content } of runs) {
    if ('lines' in content)
      for (const entry of new LineBatch([content.lines], content.count).entries()) entries.push(entry)
    else if ('message' in content) entries.push({ value: content.message })
  }
  return new EntryBatch(entries, retained)
}
