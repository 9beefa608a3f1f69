/**
 * Walks the frames of a segment file through windows of memory, and yields views into them. They stay valid, because a
 * window is never filled again. With `reuse` each frame is done with before the next call, so there is one window only,
 * which spares fresh memory by the gigabyte.
 */
import { EntryBatch, LineBatch } from '../core/batch'
import { DiskFailed, lineOf } from '../core/errors'
import type { Spooled } from '../core/flow/ports'
import type { File } from '../kit/file-system'
import { decodeEntries } from './entries'
import {
  decodeFramePosition,
  ENTRIES,
  FRAME_HEAD,
  FRAME_MAGIC,
  readHead,
  sound,
  type Head,
  type FramePosition,
} from './format'

export interface Frame {
  readonly kind: 'frame'
  readonly at: number
  readonly end: number
  readonly head: Head
  readonly place: FramePosition
  readonly payload: Buffer
}
/** Bytes that are no frame, up to the next one that is, or to the end. */
export interface Bad {
  readonly kind: 'bad'
  readonly from: number
  readonly to: number
}
export interface Range {
  readonly from: number
  readonly to: number
}

export class Walker {
  private window: Buffer = Buffer.alloc(0)
  private windowAt = 0
  private reused: Buffer | undefined

  /**
   * @param to end of what may be read; may grow @param skip ranges passed over, ascending @param reuse a frame is valid
   *   until the next call only
   */
  constructor(
    private readonly file: File,
    private readonly seed: number,
    public at: number,
    public to: number,
    private readonly skip: readonly Range[] = [],
    private readonly windowBytes = 1024 * 1024,
    private readonly reuse = false,
  ) {}

  /** undefined at the end. */
  async next(): Promise<Frame | Bad | undefined> {
    this.passHoles()
    if (this.at >= this.to) return undefined
    const frame = await this.frameAt(this.at)
    if (frame !== undefined) {
      this.at = frame.end
      return frame
    }
    const from = this.at
    this.at = await this.findFrame(from + 1)
    return { kind: 'bad', from, to: this.at }
  }

  /** The head of the next frame, unchecked: to pass over frames by their length. */
  async peek(): Promise<Head | undefined> {
    this.passHoles()
    if (this.to - this.at < FRAME_HEAD) return undefined
    const offset = await this.need(this.at, FRAME_HEAD)
    return offset === undefined ? undefined : readHead(this.window, offset)
  }

  private passHoles(): void {
    for (const hole of this.skip) if (this.at >= hole.from && this.at < hole.to) this.at = hole.to
  }

  private async frameAt(at: number): Promise<Frame | undefined> {
    if (this.to - at < FRAME_HEAD) return undefined
    const headAt = await this.need(at, FRAME_HEAD)
    const head = headAt === undefined ? undefined : readHead(this.window, headAt)
    if (head === undefined || head.length > this.to - at) return undefined
    const offset = await this.need(at, head.length)
    if (offset === undefined) return undefined
    const bytes = this.window.subarray(offset, offset + head.length)
    if (!sound(bytes, head, this.seed)) return undefined
    const body = FRAME_HEAD + head.positionsLength
    // The place on demand: content of objects is read without it.
    return {
      kind: 'frame',
      at,
      end: at + head.length,
      head,
      get place() {
        return decodeFramePosition(bytes.subarray(FRAME_HEAD, body))
      },
      payload: bytes.subarray(body),
    }
  }

  private async findFrame(from: number): Promise<number> {
    for (let at = from; this.to - at >= FRAME_HEAD; ) {
      const offset = await this.need(at, FRAME_HEAD)
      if (offset === undefined) break
      const found = this.window.indexOf(FRAME_MAGIC, offset)
      if (found === -1) {
        // The magic may straddle the end of the window.
        at = this.windowAt + this.window.length - (FRAME_MAGIC.length - 1)
        continue
      }
      at = this.windowAt + found
      if ((await this.frameAt(at)) !== undefined) return at
      at++
    }
    return this.to
  }

  /**
   * Makes the bytes [at, at + length) present and returns where they are in the window; undefined where the file ends
   * earlier.
   */
  private async need(at: number, length: number): Promise<number | undefined> {
    const offset = at - this.windowAt
    if (offset >= 0 && offset + length <= this.window.length) return offset
    // For a large frame exactly its bytes and the next head, so that nothing is read twice.
    // And never into a hole: it may not even be readable.
    const hole = this.skip.find((one) => one.from >= at + length && one.to > one.from)
    const size = Math.min(
      (hole?.from ?? this.to) - at,
      this.to - at,
      length > this.windowBytes ? length + FRAME_HEAD : this.windowBytes,
    )
    const fresh = this.space(size)
    // Also within the same memory: overlapping bytes are moved.
    const kept = offset >= 0 && offset < this.window.length ? this.window.copy(fresh, 0, offset) : 0
    // Before the read: where that fails, the bytes behind may be anything.
    this.window = fresh.subarray(0, kept)
    this.windowAt = at
    const filled = kept + (kept < size ? await this.read(fresh.subarray(kept), at + kept) : 0)
    this.window = filled === size ? fresh : fresh.subarray(0, filled)
    return filled >= length ? 0 : undefined
  }
  private space(size: number): Buffer {
    if (!this.reuse) return Buffer.allocUnsafeSlow(size)
    if (this.reused === undefined || this.reused.length < size)
      this.reused = Buffer.allocUnsafeSlow(Math.max(size, Math.min(this.windowBytes, this.to - this.at)))
    return this.reused.subarray(0, size)
  }
  private async read(into: Buffer, at: number): Promise<number> {
    try {
      return await this.file.read(into, at)
    } catch (error) {
      throw new DiskFailed(`a file of the spool cannot be read at byte ${at}: ${lineOf(error)}`, { cause: error })
    }
  }
}

/** The frame as a sink gets it, from record `from` on. */
export function spooled(frame: Pick<Frame, 'head' | 'place' | 'payload'>, from = frame.head.first): Spooled {
  const { head, place, payload } = frame
  const skip = Math.max(0, from - head.first)
  const facts = {
    first: head.first + skip,
    next: head.first + head.count,
    source: place.source,
    partition: place.partition,
    receivedAt: head.receivedAt,
  }
  if (head.encoding === ENTRIES) {
    const { entries, positions } = decodeEntries(payload, head.count)
    return {
      ...facts,
      batch: new EntryBatch(skip === 0 ? entries : entries.slice(skip), payload.length),
      at: (index) => positions[index + skip] ?? place.last,
    }
  }
  let offset = 0
  for (let left = skip; left > 0; left--) offset = payload.indexOf(0x0a, offset) + 1
  return {
    ...facts,
    batch: new LineBatch(payload.length === 0 ? [] : [payload.subarray(offset)], head.count - skip, payload.length),
    at: () => place.last,
  }
}
