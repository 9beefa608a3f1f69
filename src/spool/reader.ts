/** Reads a spool in two ways: frame by frame as they become durable, and sealed segment by sealed segment. */
import { DiskFailed } from '../core/errors'
import type { SealedSegment, Sequence, Spooled, SpoolReader } from '../core/flow/ports'
import { closeQuietly, type File } from '../kit/file-system'
import { DATA_AT } from './format'
import { spooled, Walker } from './frames'
import { openForReading, readSeal, sealedSegment, type SegmentFile, type SpoolContext } from './segment'
import type { Store } from './store'

/**
 * Reads a segment of an earlier run once before it is served, sets aside what is damaged, and gives it a seal where the
 * present sinks need one.
 */
export type Verify = (segment: SegmentFile) => Promise<void>

export class BatchReader implements SpoolReader<Spooled> {
  private segment: SegmentFile | undefined
  private file: File | undefined
  private walker: Walker | undefined
  private busy = false
  private closed = false

  /** @param waits for more, where all that is there has been returned */
  constructor(
    private readonly context: SpoolContext,
    private readonly store: Store,
    private readonly verify: Verify,
    private at: Sequence,
    private readonly waits = true,
  ) {}

  async next(signal: AbortSignal): Promise<Spooled | null> {
    this.busy = true
    try {
      for (;;) {
        signal.throwIfAborted()
        if (this.closed) throw new Error('this reader of the spool is closed')
        const found = await this.step()
        if (found !== undefined) return found
        // No turn between the look at the store and the wait: no change is missed.
        if (this.waitingFor()) {
          if (this.store.finished || !this.waits) return null
          await this.store.wait(signal)
        }
      }
    } finally {
      this.busy = false
      if (this.closed) await this.leave()
    }
  }

  /** Frees the file, now or after the call under way. */
  async close(): Promise<void> {
    this.closed = true
    if (!this.busy) await this.leave()
  }

  /** Tells whether all that is durable has been returned. */
  private waitingFor(): boolean {
    if (this.segment !== undefined && this.walker !== undefined && this.walker.at < this.segment.end) return false
    return this.following() === undefined
  }
  private following(): SegmentFile | undefined {
    return this.store.segments.find(
      (segment) => segment !== this.segment && segment.next > this.at && segment.first >= (this.segment?.next ?? 0),
    )
  }

  private async step(): Promise<Spooled | undefined> {
    if (this.segment === undefined || this.walker === undefined || this.walker.at >= this.segment.end) {
      const following = this.following()
      // A file that is unlinked while it is open still takes its space, which a full disk is waiting for.
      if (following !== undefined || this.segment?.sealed === true) await this.leave()
      if (following === undefined) return undefined
      await this.verify(following)
      this.file = await openForReading(this.context, following.path)
      this.segment = following
      this.walker = new Walker(this.file, this.context.seed, DATA_AT, following.end, following.holes)
    }
    const { segment, walker } = this
    walker.to = segment.end
    const frame = await walker.next()
    if (frame === undefined) return undefined
    if (frame.kind === 'bad')
      throw new DiskFailed(
        `the spool file ${segment.path} has changed on disk at byte ${frame.from}: end manifold and start it again, it sets the damage aside`,
      )
    if (frame.head.count === 0 || frame.head.first + frame.head.count <= this.at) return undefined
    const found = spooled(frame, this.at)
    this.at = found.next
    return found
  }

  private async leave(): Promise<void> {
    const file = this.file
    this.file = undefined
    this.segment = undefined
    this.walker = undefined
    await closeQuietly(file)
  }
}

export class SegmentReader implements SpoolReader<SealedSegment> {
  constructor(
    private readonly context: SpoolContext,
    private readonly store: Store,
    private readonly verify: Verify,
    private readonly sink: string,
    private at: Sequence,
  ) {}

  async next(signal: AbortSignal): Promise<SealedSegment | null> {
    for (;;) {
      signal.throwIfAborted()
      const segment = this.store.segments.find((one) => one.sealed && one.next > this.at)
      if (segment === undefined) {
        if (this.store.finished) return null
        await this.store.wait(signal)
        continue
      }
      await this.verify(segment)
      const seal =
        segment.count > 0 && segment.foreign !== true ? await readSeal(this.context, segment.path) : undefined
      if (seal === undefined && segment.count > 0 && segment.foreign !== true)
        throw new DiskFailed(
          `the seal of the spool file ${segment.path} has changed on disk: end manifold and start it again, it is made anew`,
        )
      const found = seal === undefined ? undefined : sealedSegment(this.context, segment, seal, this.sink)
      this.at = segment.next
      if (found !== undefined) return found
    }
  }

  async close(): Promise<void> {
    /* nothing is held between calls */
  }
}
