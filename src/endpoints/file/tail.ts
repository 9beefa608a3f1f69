import { close, constants, open } from 'node:fs'
import * as fs from 'node:fs/promises'
import { promisify } from 'node:util'
import { createFramer, deliveryOf, type Framed, type Framer, type Framing } from '../../codec/framing'
import { EMPTY, within } from '../../core/batch'
import type { Delivery, Partition } from '../../core/contract'
import { pathOf } from '../../kit/file-names'
import { FileReader } from '../../kit/file-reader'
import { kindOf, PipeReader } from '../../kit/pipes'
import type { Candidate } from './candidates'
import { CompressedFileReader } from './compressed-file-reader'
import { encodePosition, FINGERPRINT_BYTES, fingerprintLength, fingerprintOf, type FilePosition } from './position'
import { endOfLine, offsetOfLast, offsetOfLastIn } from './start'

const NEWLINE = 0x0a
/** This text occurs once in an encoded position, because quotes inside strings are escaped. */
const OFFSET_ZERO = '"offset":0,'

export interface TailFacts {
  readonly partition: Partition
  /** The path where a pattern first found the file. */
  readonly origin: string
  readonly candidate: Candidate
  /** The position to go on from. If it is absent, the file is read from its beginning. */
  readonly known?: FilePosition
  readonly since: number
  /** Another file of the same path, which is read to its end first. */
  readonly predecessor?: Tail
  readonly framing: Framing
  readonly maxRecord: number
  readonly follow: boolean
}
/** A file has a `handle`, a device a descriptor. The descriptor of a pipe belongs to its reader. */
interface Opened {
  readonly reader: FileReader | CompressedFileReader | PipeReader
  readonly handle?: fs.FileHandle
  readonly device?: number
}

/** The open file was truncated or rewritten. */
export class FileTruncated extends Error {}
/** The path leads to another file by now, or to none. */
export class FileMoved extends Error {}

/** Reads one file, whatever its name becomes, from its position to its present end. The first `wait` opens it. */
export class Tail {
  readonly partition: Partition
  readonly key: string
  readonly origin: string
  readonly since: number
  candidate: Candidate
  /** The offset behind the delivered records. */
  offset: number
  /** The end of the file was reached. */
  atEnd = false
  /** The file may have something to read. */
  mayHaveData = true
  /** The file could not be read to its end. */
  unreadable: 'damaged' | 'refused' | undefined
  /** The time since which no followed path leads to the file. */
  unmatchedSince: number | undefined
  private framer: Framer
  private opened: Opened | undefined
  /** The fingerprints as of the last delivery. */
  head: string | undefined
  private headLength = 0
  before: string | undefined
  private compressedLength: number | undefined
  private openedAt = 0
  /**
   * The end of a file that is not followed: its size at the start, or the end of the line that was being written then.
   */
  private end: number

  constructor(private readonly facts: TailFacts) {
    this.partition = facts.partition
    this.candidate = facts.candidate
    this.key = facts.candidate.key
    this.origin = facts.origin
    this.since = facts.since
    this.offset = facts.known?.offset ?? 0
    this.head = facts.known?.head
    this.headLength = this.head === undefined ? 0 : fingerprintLength(this.head)
    this.before = facts.known?.before
    this.compressedLength = facts.known?.whole
    this.framer = this.newFramer()
    // A file that the system generates as it is read has no size.
    this.end = facts.follow || facts.candidate.size === 0 ? Infinity : facts.candidate.size
  }

  /** Tells whether no other file has to be read first. */
  get isPredecessorRead(): boolean {
    return this.facts.predecessor?.mayHaveData !== true
  }
  get isOpen(): boolean {
    return this.opened !== undefined
  }
  /** Counts the bytes of an unfinished line. */
  get unfinished(): number {
    return this.framer.unfinished
  }

  /**
   * Resolves with false at the present end of the file.
   * @throws FileMoved, ContentChanged, or an error of the operating system
   */
  async wait(signal: AbortSignal): Promise<boolean> {
    this.opened ??= await this.open()
    const { reader, handle } = this.opened
    if (await reader.wait(signal)) return true
    return (
      handle !== undefined &&
      reader instanceof FileReader &&
      (await this.extendToLineEnd(handle)) &&
      (await reader.wait(signal))
    )
  }

  /** Extends the end to that of an unfinished line, because bytes that were written since belong to the line. */
  private async extendToLineEnd(handle: fs.FileHandle): Promise<boolean> {
    if (this.end === Infinity || this.framer.unfinished === 0) return false
    const before = this.end
    this.end = await endOfLine(handle, before)
    return this.end > before
  }

  /** @param final the file is finished, so a last line without newline counts */
  async take(final: boolean): Promise<Delivery | undefined> {
    const framed = final ? this.framer.end() : this.framer.take()
    return framed === undefined ? this.compressedEndReached(final) : this.deliver(framed, final)
  }

  /** Returns a last line without newline, for data that ends although something else follows it. */
  async takeRest(): Promise<Delivery | undefined> {
    const framed = this.framer.end()
    return framed === undefined ? undefined : this.deliver(framed, true)
  }

  private async deliver(framed: Framed, final: boolean): Promise<Delivery> {
    if (this.candidate.kind === 'stream') return deliveryOf(framed, this.partition, String)
    await this.fingerprint(framed, final)
    const { head, before } = this
    this.offset = framed.to
    // Fingerprints are made once for a delivery, because a hash of each record would cost more than reading it.
    const around = encodePosition(this.position(0, { head })).split(OFFSET_ZERO)
    return {
      ...deliveryOf(framed, this.partition, (offset) => around.join(`"offset":${offset},`)),
      last: encodePosition(this.position(framed.to, { head, before })),
    }
  }

  /** Returns a delivery without records, which stores that a compressed file of this size was read to its end. */
  private compressedEndReached(final: boolean): Delivery | undefined {
    const feed = this.opened?.reader
    if (
      !(final || this.atEnd) ||
      !(feed instanceof CompressedFileReader) ||
      this.compressedLength === feed.consumed ||
      this.framer.unfinished > 0
    )
      return undefined
    this.compressedLength = feed.consumed
    const position = encodePosition({ ...this.position(), whole: this.compressedLength })
    return { batch: EMPTY, partition: this.partition, last: position, at: within(0, () => position) }
  }

  position(
    offset = this.offset,
    { head, before }: { readonly head?: string | undefined; readonly before?: string | undefined } = this,
  ): FilePosition {
    const { inode, born } = this.candidate
    return {
      path: this.origin,
      inode,
      born,
      offset,
      since: this.since,
      ...(head === undefined ? {} : { head }),
      ...(before === undefined ? {} : { before }),
    }
  }

  /**
   * Starts at the last N lines, and returns a delivery without records that stores this position. A compressed file is
   * read to its end for that.
   */
  async startAtLast(lines: number): Promise<Delivery> {
    const { path, size, compression } = this.candidate
    const handle = await fs.open(pathOf(path), 'r')
    try {
      if (compression === 'none') this.offset = await offsetOfLast(lines, handle, size)
      else {
        const { offset, head } = await offsetOfLastIn(lines, handle, compression)
        this.offset = offset
        if (head.length > 0) this.head = fingerprintOf(head)
        this.headLength = head.length
      }
    } finally {
      await handle.close()
    }
    this.framer = this.newFramer()
    if (compression === 'none') this.opened ??= await this.open()
    const position = compression === 'none' ? await this.fingerprintedPosition(this.offset) : this.position()
    // Not all of many files can be open.
    await this.suspend()
    return {
      batch: EMPTY,
      partition: this.partition,
      last: encodePosition(position),
      at: within(0, () => encodePosition(position)),
    }
  }

  /** Tells whether the file was truncated or rewritten. It is known only of an open, uncompressed file. */
  async isTruncated(): Promise<boolean> {
    const handle = this.opened?.handle
    if (handle === undefined || this.candidate.compression !== 'none' || this.candidate.kind === 'stream') return false
    const { size } = await handle.stat()
    // A file that the system generates as it is read still has no size. It is read once.
    if (size === 0 && this.end === Infinity && !this.facts.follow) return false
    if (size < this.offset + this.framer.unfinished) return true
    if (this.before !== undefined)
      return fingerprintOf(await this.bytesAt(this.offset - FINGERPRINT_BYTES, FINGERPRINT_BYTES)) !== this.before
    return this.head !== undefined && fingerprintOf(await this.bytesAt(0, this.headLength)) !== this.head
  }

  /** Returns the number of links of the open file, or undefined if it is not open. */
  async linkCount(): Promise<number | undefined> {
    return (await this.opened?.handle?.stat())?.nlink
  }

  /**
   * Returns the bytes delivered since the opening. It is 0 for compressed data, which is not interrupted because it
   * would start again.
   */
  get bytesSinceOpen(): number {
    return this.candidate.compression === 'none' ? this.offset - this.openedAt : 0
  }

  /** Closes the file until the next `wait` opens it by its path. An unfinished line is read again. */
  async suspend(): Promise<void> {
    await this.close()
    this.framer = this.newFramer()
  }

  async close(): Promise<void> {
    const { reader, handle, device } = this.opened ?? {}
    this.opened = undefined
    if (reader instanceof PipeReader) reader.close()
    else await reader?.idle()
    await handle?.close()
    if (device !== undefined) await promisify(close)(device)
  }

  private newFramer(): Framer {
    return createFramer(this.facts.framing, { maxRecord: this.facts.maxRecord, offset: this.offset })
  }

  private async open(): Promise<Opened> {
    const { path, kind, compression, key } = this.candidate
    this.openedAt = this.offset
    if (kind === 'stream') return this.openStream(path)
    const handle = await fs.open(pathOf(path), 'r').catch((error: unknown) => {
      throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? new FileMoved(path) : error
    })
    try {
      const { dev, ino } = await handle.stat({ bigint: true })
      if (`${dev}:${ino}` !== key) throw new FileMoved(path)
      if (compression !== 'none')
        return {
          reader: new CompressedFileReader(
            handle,
            compression,
            this.framer,
            this.position(),
            await this.compressedEnd(handle),
          ),
          handle,
        }
      await this.skipTerminator(handle)
      return {
        reader: new FileReader(
          handle.fd,
          this.framer,
          this.offset,
          async () => {
            if (await this.isTruncated()) throw new FileTruncated(path)
          },
          () => this.end,
        ),
        handle,
      }
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  /** Reading cannot go on within a member, so a member that was being written is read to its end. */
  private async compressedEnd(handle: fs.FileHandle): Promise<number> {
    if (this.end === Infinity) return Infinity
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(4), 0, 4, this.end)
    return bytesRead === 0 || /^(?:1f8b08|28b52ffd)/.test(buffer.toString('hex', 0, bytesRead)) ? this.end : Infinity
  }

  private async openStream(path: string): Promise<Opened> {
    // A FIFO without writer must not block, and a followed FIFO must not end with its writer.
    const fd = await promisify(open)(
      pathOf(path),
      constants.O_NONBLOCK | constants.O_NOCTTY | (this.facts.follow ? constants.O_RDWR : constants.O_RDONLY),
    )
    return kindOf(fd) === 'device'
      ? { reader: new FileReader(fd, this.framer, null), device: fd }
      : { reader: new PipeReader(fd, this.framer) }
  }

  /** Skips the newline of a last line that was delivered without it. Otherwise it would count as an empty line. */
  private async skipTerminator(handle: fs.FileHandle): Promise<void> {
    if (this.offset === 0) return
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(2), 0, 2, this.offset - 1)
    if (bytesRead < 2 || buffer[0] === NEWLINE || buffer[1] !== NEWLINE) return
    this.offset++
    this.before = undefined
    this.framer = this.newFramer()
  }

  /** Makes the fingerprints of the first bytes and of the bytes before the end of this delivery. */
  private async fingerprint(framed: Framed, final: boolean): Promise<void> {
    const chunk =
      framed.batch.form === 'lines' && framed.invalid.length === 0 && !final
        ? framed.batch.lines().chunks.at(-1)
        : undefined
    await this.fingerprintHead(framed.to)
    if (framed.to <= FINGERPRINT_BYTES) this.before = undefined
    else if (chunk !== undefined && chunk.length >= FINGERPRINT_BYTES)
      this.before = fingerprintOf(chunk.subarray(-FINGERPRINT_BYTES))
    else if (this.candidate.compression === 'none')
      this.before = fingerprintOf(await this.bytesAt(framed.to - FINGERPRINT_BYTES, FINGERPRINT_BYTES))
    else this.before = undefined
  }

  private async fingerprintHead(to: number): Promise<void> {
    const length = Math.min(FINGERPRINT_BYTES, to)
    if (length <= this.headLength) return
    const feed = this.opened?.reader
    const bytes = feed instanceof CompressedFileReader ? feed.head.subarray(0, length) : await this.bytesAt(0, length)
    this.head = fingerprintOf(bytes)
    this.headLength = bytes.length
  }

  private async fingerprintedPosition(offset: number): Promise<FilePosition> {
    await this.fingerprintHead(offset)
    this.before =
      offset <= FINGERPRINT_BYTES
        ? undefined
        : fingerprintOf(await this.bytesAt(offset - FINGERPRINT_BYTES, FINGERPRINT_BYTES))
    return this.position(offset)
  }

  private async bytesAt(position: number, length: number): Promise<Buffer> {
    const read = await this.opened?.handle?.read(Buffer.allocUnsafe(length), 0, length, position)
    return read === undefined ? Buffer.alloc(0) : read.buffer.subarray(0, read.bytesRead)
  }
}
