import type * as fs from 'node:fs/promises'
import type { Compression } from '../../core/contract'
import type { ReadBuffer } from '../../kit/pipes'
import { unlessAborted } from '../../kit/signal'
import { Decompressor, ContentChanged } from './decompressor'
import { FINGERPRINT_BYTES, fingerprintLength, fingerprintOf, type FilePosition } from './position'

/**
 * Fills a read buffer with the uncompressed bytes of a file from an offset on. Compressed data cannot be entered in the
 * middle, so the bytes before the offset are decompressed and compared with the known fingerprints.
 */
export class CompressedFileReader {
  private readonly decompressor: Decompressor
  private readonly chunks: AsyncGenerator<Buffer, void, undefined>
  private readAhead: Promise<IteratorResult<Buffer, void>> | undefined
  /** The first bytes, as far as they were read. */
  head: Buffer = Buffer.alloc(0)
  private seen = 0
  private recent: Buffer = Buffer.alloc(0)
  private checked = false

  /** @param maxBytes limits the bytes of the file that are read */
  constructor(
    file: fs.FileHandle,
    kind: Compression,
    private readonly buffer: ReadBuffer & { push(bytes: Uint8Array): void },
    private readonly known: FilePosition | undefined,
    most = Infinity,
  ) {
    this.decompressor = new Decompressor(file, kind, most)
    this.chunks = this.decompressor.chunks()
  }

  /** Counts the compressed bytes that were read. */
  get consumed(): number {
    return this.decompressor.consumed
  }

  /**
   * Works as FileReader.wait.
   * @throws ContentChanged if the file is not the known one
   */
  async wait(signal: AbortSignal): Promise<boolean> {
    while (this.buffer.pending === 0) {
      const next = await unlessAborted((this.readAhead ??= this.startRead()), signal)
      this.readAhead = undefined
      if (next.done === true) {
        if (!this.checked && this.known !== undefined && this.known.offset > 0) this.check()
        return false
      }
      this.add(next.value)
      this.readAhead = this.startRead()
    }
    return true
  }

  private startRead(): Promise<IteratorResult<Buffer, void>> {
    const started = this.chunks.next()
    // `wait` reports an error. Until it is called, an error must not be an unhandled rejection.
    started.catch(() => undefined)
    return started
  }

  private add(part: Buffer): void {
    if (this.head.length < FINGERPRINT_BYTES)
      this.head = Buffer.concat([this.head, part.subarray(0, FINGERPRINT_BYTES - this.head.length)])
    const skip = Math.min(part.length, Math.max(0, (this.known?.offset ?? 0) - this.seen))
    this.seen += skip
    if (skip > 0)
      this.recent =
        skip >= FINGERPRINT_BYTES
          ? Buffer.from(part.subarray(skip - FINGERPRINT_BYTES, skip))
          : Buffer.concat([this.recent, part.subarray(0, skip)]).subarray(-FINGERPRINT_BYTES)
    if (skip === part.length) return
    if (!this.checked) this.check()
    this.seen += part.length - skip
    this.buffer.push(part.subarray(skip))
  }

  private check(): void {
    this.checked = true
    if (this.known === undefined) return
    const { offset, head, before } = this.known
    const other =
      this.seen < offset ||
      (head !== undefined && fingerprintOf(this.head.subarray(0, fingerprintLength(head))) !== head) ||
      (before !== undefined &&
        fingerprintOf(this.recent.subarray(this.recent.length - fingerprintLength(before))) !== before)
    if (other) throw new ContentChanged('its content is not what was read before')
  }

  async idle(): Promise<void> {
    // An error of the read does not matter any more.
    await this.readAhead?.catch(() => undefined)
    await this.chunks.return()
  }
}
