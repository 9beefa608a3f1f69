/** Reads a whole segment file and says what of it stands: frames kept, holes, records lost, the torn tail. Changes nothing. */
import type { File } from '../kit/file-system'
import { CONTINUED, DATA_AT, type Hole } from './format'
import { Walker, type Frame, type Range } from './frames'
import { gapOf, Tally } from './segment'
import type { Place } from './format'

export interface Lost { readonly first: number; readonly next: number }
export interface Examined {
  /** Frames of ours in the file, kept or not. */
  readonly frames: number
  readonly tally: Tally
  /** Where the file is cut. */
  readonly end: number
  /** Bytes below were known synced. */
  readonly mark: number
  readonly holes: readonly Hole[]
  readonly lost: readonly Lost[]
  /** Damaged bytes below the durable mark. */
  readonly damaged: readonly Range[]
  /** Bytes beyond `end`, and the sound frames among them. */
  readonly torn: { readonly bytes: number; readonly frames: readonly Range[] }
  /** The newest of each partition that came without records, while no record follows. */
  readonly progress: readonly (Place & { readonly receivedAt: number })[]
  /** Highest sequence seen, in cut frames too. */
  readonly highest: number
}

export interface Knowledge {
  /** Sequence of the first record. */
  readonly first: number
  readonly size: number
  readonly seed: number
  /** Records below were durable once: damage there is no torn tail. At most `limit`. */
  readonly durableSequence: number
  /** The bytes below were durable once. */
  readonly durableBytes: number
  /** Where the next segment begins, Infinity for the last one. What is here of that and later was written again there; and all else was durable before that one was made. */
  readonly limit: number
}

type Seen = { readonly kind: 'bad' } & Range | { readonly kind: 'frame'; readonly at: number; readonly end: number; readonly head: Frame['head']; readonly place: Place; readonly gap: ReturnType<typeof gapOf> }

export async function examine(file: File, known: Knowledge): Promise<Examined> {
  const seen: Seen[] = []
  const walker = new Walker(file, known.seed, DATA_AT, known.size)
  let mark = known.durableBytes
  let highest = known.first
  for (let found = await walker.next(); found !== undefined; found = await walker.next()) {
    if (found.kind === 'bad') { seen.push(found); continue }
    const { at, end, head, place } = found
    seen.push({ kind: 'frame', at, end, head, place, gap: gapOf(found) })
    if (head.durable <= at) mark = Math.max(mark, head.durable)
    highest = Math.max(highest, head.first + head.count)
  }
  const durable = known.durableSequence
  const newest = known.limit === Infinity

  const kept: Extract<Seen, { kind: 'frame' }>[] = []
  const holes: Hole[] = []
  const lost: Lost[] = []
  const damaged: Range[] = []
  let expected = known.first
  let end = DATA_AT
  for (const one of seen) {
    if (one.kind === 'bad') {
      if (expected >= known.limit || (newest && one.from >= mark && expected >= durable)) break
      damaged.push({ from: one.from, to: one.to })
      holes.push({ from: one.from, to: one.to, first: expected, next: expected })
      end = one.to
      continue
    }
    const { first, count } = one.head
    if (count > 0 && first >= known.limit) break
    // A sequence seen before: passed over.
    if (first < expected) { holes.push({ from: one.at, to: one.end, first: expected, next: expected }); end = one.end; continue }
    if (first > expected) {
      lost.push({ first: expected, next: first })
      widen(holes, one.at, expected, first)
    }
    kept.push(one)
    expected = first + count
    end = one.end
  }
  // The last append has to be whole: without its last frame it was never acknowledged, and its position was never reached.
  for (let tail = kept.at(-1); newest && tail !== undefined && tail.end === end && (tail.head.flags & CONTINUED) !== 0 && tail.at >= mark && tail.head.first >= durable; tail = kept.at(-1)) {
    kept.pop()
    end = tail.at
    expected = tail.head.first
  }
  if (expected < durable) {
    lost.push({ first: expected, next: durable })
    widen(holes, end, expected, durable)
  }
  const tally = new Tally(known.first)
  const progress = new Map<string, Place & { receivedAt: number }>()
  for (const { head, place, gap } of kept) {
    tally.add(head, place, gap)
    if (head.count > 0) progress.clear()
    else if (gap === undefined) progress.set(JSON.stringify([place.source, place.partition]), { ...place, receivedAt: head.receivedAt })
  }
  const beyond = seen.filter((one) => one.kind === 'frame' && one.at >= end).map((one) => one.kind === 'frame' ? { from: one.at, to: one.end } : { from: 0, to: 0 })
  return {
    frames: seen.filter((one) => one.kind === 'frame').length, tally, end, mark, holes, lost, damaged,
    torn: { bytes: Math.max(0, known.size - end), frames: beyond }, progress: [...progress.values()], highest,
  }
}

/** Says in the hole before the byte `at` which records went with it; without one, in a hole of no bytes. */
function widen(holes: Hole[], at: number, first: number, next: number): void {
  const last = holes.at(-1)
  if (last !== undefined && last.to === at && last.first === first) holes[holes.length - 1] = { ...last, next }
  else holes.push({ from: at, to: at, first, next })
}
