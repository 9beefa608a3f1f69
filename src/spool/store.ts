/** Writer, readers and drops share this: the list of segments, the newest positions, and who waits for a change. */
import { lineOf } from '../core/errors'
import type { FramePosition } from './format'
import type { SegmentFile, SpoolContext } from './segment'

export class Store {
  /** The segments are ascending, and at most the last one is open. */
  readonly segments: SegmentFile[] = []
  private readonly positions = new Map<string, Map<string, string>>()
  private readonly received = new Map<string, number>()
  private waiting: (() => void)[] = []
  /** Bytes on disk. */
  bytes = 0
  /** True once all that was appended before `end` is durable and sealed. */
  finished = false
  closed = false
  private below = 0

  /** @param head  sequence after the newest durable record */
  constructor(
    private readonly context: SpoolContext,
    public head: number,
  ) {}

  place(place: FramePosition): void {
    let partitions = this.positions.get(place.source)
    if (partitions === undefined) this.positions.set(place.source, (partitions = new Map<string, string>()))
    partitions.set(place.partition, place.last)
  }
  arrived(source: string, receivedAt: number): void {
    this.received.set(source, receivedAt)
  }
  position(source: string, partition: string): string | undefined {
    return this.positions.get(source)?.get(partition)
  }
  partitions(source: string): readonly string[] {
    return [...(this.positions.get(source)?.keys() ?? [])]
  }
  lastReceivedAt(source: string): number | undefined {
    return this.received.get(source)
  }

  /** Behind the last segment that was made for other segment sinks. */
  firstFor(sink: string): number {
    return (
      this.segments.findLast(({ madeFor = [] }) => madeFor.length > 0 && !madeFor.includes(sink))?.next ?? this.tail
    )
  }
  get tail(): number {
    return this.segments.find((segment) => segment.count > 0)?.first ?? this.head
  }

  countFrom(sequence: number): number {
    let count = 0
    for (let index = this.segments.length - 1; index >= 0; index--) {
      const segment = this.segments[index]
      if (segment === undefined || segment.next <= sequence) break
      if (segment.first >= sequence) {
        count += segment.count
        continue
      }
      // Within a segment sequences run on, but for what was lost in holes.
      count += segment.next - sequence
      for (const hole of segment.holes) count -= Math.max(0, hole.next - Math.max(hole.first, sequence))
    }
    return count
  }

  /** Resolves at the next change, or rejects with the signal's reason. */
  wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- the reason is the caller's
        reject(signal.reason)
        return
      }
      const aborted = (): void => {
        this.waiting = this.waiting.filter((one) => one !== woken)
        // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- the reason is the caller's
        reject(signal.reason)
      }
      const woken = (): void => {
        signal.removeEventListener('abort', aborted)
        resolve()
      }
      signal.addEventListener('abort', aborted, { once: true })
      this.waiting.push(woken)
    })
  }
  changed(): void {
    const waiting = this.waiting
    this.waiting = []
    for (const wake of waiting) wake()
  }

  /**
   * Unlinks whole sealed segments below. Without a directory fsync: one that comes back after a power cut is unlinked
   * at opening. Returns whether space came free.
   */
  async drop(below: number): Promise<boolean> {
    this.below = Math.max(this.below, below)
    let freed = false
    for (const segment of this.segments.filter((one) => one.sealed && one.next <= this.below)) {
      // Listed no longer before it is gone, so that no reader and no second drop begins on it.
      const index = this.segments.indexOf(segment)
      if (index === -1) continue
      this.segments.splice(index, 1)
      try {
        await this.context.fs.unlink(segment.path)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
          this.context.log.warn(
            `the delivered spool file ${segment.path} cannot be removed: ${lineOf(error)}; the next start removes it`,
          )
      }
      this.bytes -= segment.end
      freed = true
    }
    return freed
  }
  dropped(segment: SegmentFile): boolean {
    return segment.next <= this.below
  }
  /** Records below this were dropped already, but could not go while their segment was open. */
  dropAgain(): Promise<boolean> {
    return this.drop(0)
  }
}
