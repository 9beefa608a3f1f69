/**
 * Reads a whole segment file, changes nothing, and says what is in it: good frames, holes, lost records, the torn tail.
 * It reads twice from front to back, because a torn tail can be told from damage only once the last durable mark is
 * known. It keeps nothing per frame.
 */
import type { File } from '../kit/file-system'
import { CONTINUED, DATA_AT, type Hole, type FramePosition } from './format'
import { Walker, type Frame, type Range } from './frames'
import { gapOf, SegmentCounts } from './segment'

export interface SequenceRange {
  readonly first: number
  readonly next: number
}
export interface Examined {
  /** Frames of ours in the file, kept or not. */
  readonly frames: number
  readonly counts: SegmentCounts
  /** Where the file is cut. */
  readonly end: number
  /** Bytes below were known synced. */
  readonly mark: number
  readonly holes: readonly Hole[]
  readonly lost: readonly SequenceRange[]
  /** Damaged bytes below the durable mark. */
  readonly damaged: readonly Range[]
  /** Bytes beyond `end`, and the sound frames among them. */
  readonly torn: { readonly bytes: number; readonly frames: readonly Range[] }
  /** The newest of each partition that came without records, while no record follows. */
  readonly progress: readonly (FramePosition & { readonly receivedAt: number })[]
  /** Highest sequence seen, in cut frames too. */
  readonly highest: number
}

export interface DurableExtent {
  /** Sequence of the first record. */
  readonly first: number
  readonly size: number
  readonly seed: number
  /** Records below were durable once: damage there is no torn tail. At most `limit`. */
  readonly durableSequence: number
  /** The bytes below were durable once. */
  readonly durableBytes: number
  /**
   * Where the next segment begins, Infinity for the last one. What is here of that and later was written again there;
   * and all else was durable before that one was made.
   */
  readonly limit: number
}

export async function examine(file: File, known: DurableExtent): Promise<Examined> {
  let mark = known.durableBytes
  let highest = known.first
  let frames = 0
  const first = new Walker(file, known.seed, DATA_AT, known.size)
  for (let found = await first.next(); found !== undefined; found = await first.next()) {
    if (found.kind === 'bad') continue
    frames++
    if (found.head.durable <= found.at) mark = Math.max(mark, found.head.durable)
    highest = Math.max(highest, found.head.first + found.head.count)
  }
  const sight = new Sight(known, mark)
  const second = new Walker(file, known.seed, DATA_AT, known.size)
  const torn: Range[] = []
  let cut = false
  for (let found = await second.next(); found !== undefined; found = await second.next()) {
    cut ||= !sight.take(found)
    if (cut && found.kind === 'frame') torn.push({ from: found.at, to: found.end })
  }
  const kept = sight.finish()
  return {
    ...kept,
    frames,
    mark,
    highest,
    torn: { bytes: Math.max(0, known.size - kept.end), frames: [...kept.unfinished, ...torn] },
  }
}

/** Decides frame by frame. */
class Sight {
  private readonly counts: SegmentCounts
  private readonly holes: Hole[] = []
  private readonly lost: SequenceRange[] = []
  private readonly damaged: Range[] = []
  private readonly progress = new Map<string, FramePosition & { receivedAt: number }>()
  /** Frames of an append whose last frame has not come yet. */
  private chain: Frame[] = []
  private expected: number
  private end = DATA_AT

  constructor(
    private readonly known: DurableExtent,
    private readonly mark: number,
  ) {
    this.counts = new SegmentCounts(known.first)
    this.expected = known.first
  }

  /** False where the file is to be cut: this and all that follows does not count. */
  take(found: NonNullable<Awaited<ReturnType<Walker['next']>>>): boolean {
    const { limit, durableSequence } = this.known
    if (found.kind === 'bad') {
      if (this.expected >= limit || (limit === Infinity && found.from >= this.mark && this.expected >= durableSequence))
        return false
      this.settle()
      this.damaged.push({ from: found.from, to: found.to })
      this.hole(found.from, found.to)
      return true
    }
    const { first, count } = found.head
    if (count > 0 && first >= limit) return false
    if (first < this.expected) {
      // A sequence seen before: passed over.
      this.settle()
      this.hole(found.at, found.end)
      return true
    }
    if (first > this.expected) {
      this.settle()
      this.miss(found.at, first)
    }
    this.chain.push(found)
    this.expected = first + count
    this.end = found.end
    if ((found.head.flags & CONTINUED) === 0) this.settle()
    return true
  }

  finish(): Pick<Examined, 'counts' | 'end' | 'holes' | 'lost' | 'damaged' | 'progress'> & {
    readonly unfinished: readonly Range[]
  } {
    const { limit, durableSequence } = this.known
    const [begun] = this.chain
    let unfinished: readonly Range[] = []
    if (begun !== undefined && limit === Infinity && begun.at >= this.mark && begun.head.first >= durableSequence) {
      // The last append has to be whole: without its last frame it was never acknowledged, and its position was never
      // reached.
      unfinished = this.chain.map((frame) => ({ from: frame.at, to: frame.end }))
      this.end = begun.at
      this.expected = begun.head.first
      this.chain = []
    }
    this.settle()
    if (this.expected < durableSequence) this.miss(this.end, durableSequence)
    return {
      counts: this.counts,
      end: this.end,
      holes: this.holes,
      lost: this.lost,
      damaged: this.damaged,
      progress: [...this.progress.values()],
      unfinished,
    }
  }

  private settle(): void {
    for (const frame of this.chain) {
      const { head, place } = frame
      const gap = gapOf(frame)
      this.counts.add(head, place, gap)
      if (head.count > 0) this.progress.clear()
      else if (gap === undefined)
        this.progress.set(JSON.stringify([place.source, place.partition]), { ...place, receivedAt: head.receivedAt })
    }
    this.chain = []
  }
  private hole(from: number, to: number): void {
    this.holes.push({ from, to, first: this.expected, next: this.expected })
    this.end = to
  }
  /** Says in the hole before the byte `at` which records went with it; without one, in a hole of no bytes. */
  private miss(at: number, next: number): void {
    const last = this.holes.at(-1)
    this.lost.push({ first: this.expected, next })
    if (last !== undefined && last.to === at && last.first === this.expected)
      this.holes[this.holes.length - 1] = { ...last, next }
    else this.holes.push({ from: at, to: at, first: this.expected, next })
    this.expected = next
  }
}
