import type * as fs from 'node:fs/promises'
import type { Compression } from '../../core/contract'
import type { Landing } from '../../kit/pipes'
import { unlessAborted } from '../../kit/signal'
import { CompressedReader, OtherContent } from './compressed-reader'
import { PRINTED, printedLength, printOf, type FilePosition } from './position'

/**
 * Fills a landing with the uncompressed bytes of a file from an offset on. There is no way into the middle of
 * compressed data: what lies before is decompressed and compared with what is known of it.
 */
export class CompressedFeed {
  private readonly reader: CompressedReader
  private readonly parts: AsyncGenerator<Buffer, void, undefined>
  private ahead: Promise<IteratorResult<Buffer, void>> | undefined
  /** The first bytes, as far as seen. */
  head: Buffer = Buffer.alloc(0)
  private seen = 0
  private recent: Buffer = Buffer.alloc(0)
  private checked = false

  /** @param most bytes of the file that are looked at */
  constructor(
    file: fs.FileHandle,
    kind: Compression,
    private readonly landing: Landing & { push(bytes: Uint8Array): void },
    private readonly known: FilePosition | undefined,
    most = Infinity,
  ) {
    this.reader = new CompressedReader(file, kind, most)
    this.parts = this.reader.parts()
  }

  /** Compressed bytes read. */
  get consumed(): number {
    return this.reader.consumed
  }

  /** As FileReader.wait. Throws OtherContent. */
  async wait(signal: AbortSignal): Promise<boolean> {
    while (this.landing.pending === 0) {
      const next = await unlessAborted((this.ahead ??= this.start()), signal)
      this.ahead = undefined
      if (next.done === true) {
        if (!this.checked && this.known !== undefined && this.known.offset > 0) this.check()
        return false
      }
      this.add(next.value)
      this.ahead = this.start()
    }
    return true
  }

  private start(): Promise<IteratorResult<Buffer, void>> {
    const started = this.parts.next()
    // Whoever waits for it is told; until somebody does, it is nobody's.
    started.catch(() => undefined)
    return started
  }

  private add(part: Buffer): void {
    if (this.head.length < PRINTED) this.head = Buffer.concat([this.head, part.subarray(0, PRINTED - this.head.length)])
    const skip = Math.min(part.length, Math.max(0, (this.known?.offset ?? 0) - this.seen))
    this.seen += skip
    if (skip > 0)
      this.recent =
        skip >= PRINTED
          ? Buffer.from(part.subarray(skip - PRINTED, skip))
          : Buffer.concat([this.recent, part.subarray(0, skip)]).subarray(-PRINTED)
    if (skip === part.length) return
    if (!this.checked) this.check()
    this.seen += part.length - skip
    this.landing.push(part.subarray(skip))
  }

  private check(): void {
    this.checked = true
    if (this.known === undefined) return
    const { offset, head, before } = this.known
    const other =
      this.seen < offset ||
      (head !== undefined && printOf(this.head.subarray(0, printedLength(head))) !== head) ||
      (before !== undefined && printOf(this.recent.subarray(this.recent.length - printedLength(before))) !== before)
    if (other) throw new OtherContent('its content is not what was read before')
  }

  async idle(): Promise<void> {
    // What it failed of is nobody's concern any more.
    await this.ahead?.catch(() => undefined)
    await this.parts.return()
  }
}
