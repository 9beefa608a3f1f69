/**
 * Makes whole what a start finds on disk. Nothing is changed before every header was understood. Records that survive
 * are synced before they are served. Damage is copied aside before anything is cut.
 */
import { isDeepStrictEqual } from 'node:util'
import { Fatal, lineOf } from '../core/errors'
import type { File } from '../kit/file-system'
import { examine, type Examined } from './examine'
import { DATA_AT, type FramePosition, type RecordedGap, type Seal } from './format'
import type { StoredSegmentFile } from './segment-files'
import { lostGapOf, Repair, sealedKnowledge, tolerant, type SegmentGap, type Quarantined } from './repair'
import { goesTo, readSeal, type SegmentFile, type SpoolContext, type SegmentCounts } from './segment'

const TWO32 = 2 ** 32
/** Sealed segments of earlier runs are read through at the start up to this much; the others when their turn comes. */
const VERIFY_AT_START = 256 * 1024 * 1024

export interface RecoveryKnowledge {
  readonly sequence: number
  readonly clean: boolean
  readonly tail: number
  readonly acceptedThrough: number
  /**
   * The lowest cursor that is stored: what was accepted from there on has to be here. Absent: nothing is known of the
   * kind.
   */
  readonly owedFrom?: number
}
/**
 * A segment with undelivered records that names another target for a sink; or, where the flow file knows nothing, a
 * sink that is not there.
 */
export interface Foreign {
  readonly path: string
  readonly sink: string
  readonly target: string
  readonly count: number
}

export interface Carried {
  readonly gaps: RecordedGap[]
  readonly progress: (FramePosition & { readonly receivedAt: number })[]
  readonly paths: string[]
}

export interface Recovered {
  readonly segments: readonly SegmentFile[]
  /** Newest of each partition. */
  readonly places: readonly FramePosition[]
  readonly received: readonly (readonly [source: string, at: number])[]
  readonly gaps: readonly SegmentGap[]
  readonly quarantined: readonly Quarantined[]
  readonly foreign: readonly Foreign[]
  readonly tornBytes: number
  readonly head: number
  readonly nextSequence: number
  /** Gaps and positions of a segment without records, and that file: to be written again before it goes. */
  readonly carried: Carried
}

/** The files as they are decided over, from the newest to the oldest. */
interface Sorted {
  readonly segments: SegmentFile[]
  readonly remove: string[]
  readonly carried: Carried
  /** First sequence of the next newer file that has anything in it. */
  limit: number
  /** A newer file has records. */
  records: boolean
}

export class Recovery {
  private readonly gaps: SegmentGap[] = []
  private readonly repair: Repair
  private readonly foreign: Foreign[] = []
  private readonly places = new Map<string, FramePosition>()
  private readonly received = new Map<string, number>()
  /** Not to be sealed before somebody wants to read it. */
  private readonly later = new Set<SegmentFile>()
  private tornBytes = 0
  private highest = 0

  /** @param idKnown  the spool's id is not new: frames of its files can be told from other bytes */
  constructor(
    private readonly context: SpoolContext,
    private readonly known: RecoveryKnowledge,
    private readonly idKnown: boolean,
    private readonly verifyAtStart = VERIFY_AT_START,
  ) {
    this.repair = new Repair(context, known.tail)
  }

  verify(segment: SegmentFile): Promise<readonly SegmentGap[]> {
    return this.repair.verify(segment)
  }

  async run(found: readonly StoredSegmentFile[]): Promise<Recovered> {
    const { known } = this
    const { segments, remove, carried } = await this.sort(found)
    await this.remove(remove)

    let budget = this.verifyAtStart
    for (const segment of segments) {
      if (segment.verified || this.later.has(segment)) continue
      budget -= segment.end
      if (budget < 0) break
      this.gaps.push(...(await this.verify(segment)))
    }
    const head = await this.betweenSegments(segments)
    const since = (gap: SegmentGap): boolean => gap.lost || gap.sequence >= known.acceptedThrough
    return {
      segments,
      head,
      nextSequence: this.nextSequence(head, found.length),
      carried,
      foreign: this.foreign,
      tornBytes: this.tornBytes,
      quarantined: this.repair.quarantined,
      places: [...this.places.values()],
      received: [...this.received],
      gaps: [...this.gaps, ...carried.gaps.map((gap) => ({ ...gap, lost: false }))]
        .filter(since)
        .sort((a, b) => a.sequence - b.sequence),
    }
  }

  /**
   * Decides over each file, from the newest to the oldest: the one after a segment says where it ends, if it has
   * anything in it.
   */
  private async sort(found: readonly StoredSegmentFile[]): Promise<Sorted> {
    const sorted: Sorted = {
      segments: [],
      remove: [],
      carried: { gaps: [], progress: [], paths: [] },
      limit: Infinity,
      records: false,
    }
    for (const one of found.toReversed()) {
      const seal = await readSeal(this.context, one.path)
      if (seal !== undefined) await this.sortSealed(one, seal, sorted, one === found.at(-1))
      else if (sorted.limit <= this.known.tail && sorted.records) sorted.remove.push(one.path)
      else await this.sortUnsealed(one, sorted)
    }
    return sorted
  }

  private async sortSealed(one: StoredSegmentFile, seal: Seal, sorted: Sorted, last: boolean): Promise<void> {
    const { context, known } = this
    this.highest = Math.max(this.highest, seal.next)
    const newest = !sorted.records
    sorted.limit = one.first
    sorted.records = true
    if (last) await this.repair.rewritten(one.path)
    if (seal.next > known.tail || (!newest && seal.next === known.tail && seal.next === known.acceptedThrough)) {
      sorted.segments.unshift(await this.sealed(one, seal))
      return
    }
    if (seal.next < known.tail || seal.next < known.acceptedThrough) {
      sorted.remove.push(one.path)
      return
    }
    // It ends where the cursors stand: a gap at its end may be known nowhere else.
    const file = tolerant(await context.fs.open(one.path, 'update'))
    try {
      const result = await examine(file, sealedKnowledge(context, seal, one.size))
      if (!(await this.carry(file, one, result, sorted.carried))) sorted.remove.push(one.path)
    } finally {
      await file.close()
    }
  }

  private async sortUnsealed(one: StoredSegmentFile, sorted: Sorted): Promise<void> {
    const { context, known } = this
    const file = tolerant(await context.fs.open(one.path, 'update'))
    try {
      const { limit } = sorted
      const sequence = this.durableSequence(one.first, limit)
      const result = await examine(file, {
        first: one.first,
        size: one.size,
        seed: context.seed,
        durableSequence: sequence,
        durableBytes: 0,
        limit,
      })
      const { counts, lost } = result
      this.highest = Math.max(this.highest, result.highest)
      if (counts.count === 0 && lost.length === 0) {
        await this.sortEmpty(file, one, result, sorted)
        return
      }
      const newest = !sorted.records
      sorted.limit = one.first
      sorted.records = true
      const delivered =
        counts.next < known.tail || (counts.next === known.tail && (newest || counts.next < known.acceptedThrough))
      if (lost.length > 0 || !delivered) sorted.segments.unshift(await this.finish(file, one, result))
      else if (counts.next < known.acceptedThrough || !(await this.carry(file, one, result, sorted.carried)))
        sorted.remove.push(one.path)
    } finally {
      await file.close()
    }
  }

  /** A file without records: gaps and positions in it are carried, and it goes. */
  private async sortEmpty(file: File, one: StoredSegmentFile, result: Examined, sorted: Sorted): Promise<void> {
    // Where a record follows in another file, what is carried has become durable before it.
    if (sorted.records || !(await this.carry(file, one, result, sorted.carried))) {
      if (!this.idKnown && one.size > DATA_AT)
        await this.repair.aside(
          file,
          one,
          [{ from: 0, to: one.size }],
          'its header cannot be read, and nothing else names the spool it belongs to',
        )
      if (result.counts.gaps.length === 0 && result.progress.length === 0)
        this.context.log.info(`the spool file ${one.path} was being made when the last run ended: it is removed`)
      sorted.remove.push(one.path)
    }
    if (result.frames > 0) sorted.limit = one.first
  }

  private async remove(paths: readonly string[]): Promise<void> {
    const { fs, log, directory } = this.context
    // Without any file too: one that the last run removed must not come back.
    await fs.syncDirectory(directory)
    for (const path of paths)
      await fs.unlink(path).catch((error: unknown) => {
        log.warn(`the spool file ${path} cannot be removed: ${lineOf(error)}`)
      })
    // Before what was recovered counts as accepted: an empty newer copy that came back after a power cut would be
    // believed to have held it.
    if (paths.length > 0) await fs.syncDirectory(directory)
  }

  /**
   * Writes gaps that came after the last record into the next segment again; the file stays until that is durable.
   * Returns false where there are none.
   */
  private async carry(file: File, one: StoredSegmentFile, result: Examined, carried: Carried): Promise<boolean> {
    const gaps = result.counts.gaps.filter((gap) => gap.sequence >= result.counts.next)
    if (gaps.length === 0 && result.progress.length === 0) return false
    await this.cutTail(file, one, result)
    carried.gaps.unshift(
      ...gaps.filter(
        (gap) => !carried.gaps.some((other) => isDeepStrictEqual({ ...other, sequence: 0 }, { ...gap, sequence: 0 })),
      ),
    )
    carried.progress.unshift(...result.progress)
    carried.paths.push(one.path)
    return true
  }

  /**
   * Returns what was durable here, as the flow file and the next segment say. Sequences jump to a multiple of 2^32 at a
   * start, and across a jump nothing can be said.
   */
  private durableSequence(first: number, limit: number): number {
    if (limit !== Infinity) return limit % TWO32 === 0 ? 0 : limit
    const through = this.known.acceptedThrough
    return through > Math.max(first, this.known.tail) &&
      through % TWO32 !== 0 &&
      Math.floor((through - 1) / TWO32) === Math.floor(first / TWO32)
      ? through
      : 0
  }

  private async sealed(one: StoredSegmentFile, seal: Seal): Promise<SegmentFile> {
    const segment: SegmentFile = {
      path: one.path,
      first: seal.first,
      next: seal.next,
      count: seal.count,
      end: seal.end,
      sealed: true,
      verified: false,
      holes: seal.holes,
    }
    this.checkTargets(segment, {
      ...one.header?.targets,
      ...Object.fromEntries(Object.entries(seal.sinks).map(([sink, { target }]) => [sink, target])),
    })
    let facts: Pick<Seal, 'sources' | 'gaps'> = seal
    if (seal.omitted !== undefined) {
      const file = tolerant(await this.context.fs.open(one.path, 'read'))
      try {
        facts = sourcesOf((await examine(file, sealedKnowledge(this.context, segment, one.size))).counts)
      } finally {
        await file.close()
      }
    }
    this.newest(facts)
    this.gaps.push(...facts.gaps.map((gap) => ({ ...gap, lost: false })))
    return segment
  }
  /** True where it names sinks or targets that are not there now. */
  private checkTargets(segment: SegmentFile, targets: Readonly<Record<string, string>>): boolean {
    const { acceptedThrough, sequence, tail } = this.known
    segment.madeFor = Object.keys(targets)
    const strange = Object.entries(targets)
      .map(([sink, target]) => ({ sink, target, now: this.context.policies.find((one) => one.sink === sink)?.policy }))
      .filter(({ now, target }) => !goesTo(now, target))
    // A sink that is not named any more is the caller's to judge, who has its cursor; unless the flow file is lost.
    const lostFlow = acceptedThrough === 0 && sequence === 0
    if (segment.next > tail)
      for (const { sink, target, now } of strange)
        if (now !== undefined || lostFlow) this.foreign.push({ path: segment.path, sink, target, count: segment.count })
    return strange.length > 0
  }

  /** Without what was never acknowledged, and the rest on disk for certain. */
  private async cutTail(file: File, one: StoredSegmentFile, result: Examined): Promise<void> {
    if (result.torn.frames.length > 0)
      await this.repair.aside(file, one, result.torn.frames, 'never acknowledged, behind a torn frame')
    if (result.torn.bytes > 0) {
      this.tornBytes += result.torn.bytes
      await file.truncate(result.end)
      this.context.log.info(
        `the spool file ${one.path} ended in ${result.torn.bytes} bytes that were never acknowledged: they are cut off`,
      )
    }
    await this.repair.synced(file, one.path, result)
  }

  /** An open segment of the last run: damage aside, tail cut, synced, sealed as it is. */
  private async finish(file: File, one: StoredSegmentFile, result: Examined): Promise<SegmentFile> {
    const next = Math.max(result.counts.next, ...result.lost.map((lost) => lost.next))
    const segment: SegmentFile = {
      path: one.path,
      first: one.first,
      next,
      count: result.counts.count,
      end: result.end,
      sealed: true,
      verified: true,
      holes: result.holes,
    }
    if (result.damaged.length > 0)
      await this.repair.aside(
        file,
        one,
        result.damaged,
        `damaged below its durable mark at byte ${result.damaged.map((range) => range.from).join(', ')}`,
      )
    await this.cutTail(file, one, result)
    const facts = sourcesOf(result.counts)
    this.newest(facts)
    this.gaps.push(...facts.gaps.map((gap) => ({ ...gap, lost: false })), ...this.repair.losses(one.path, result))
    // Where it names what is not there now the caller may refuse to run: then it must not have lost its chance of a
    // seal. It gets one when it is read.
    if (this.checkTargets(segment, one.header?.targets ?? {})) {
      segment.verified = false
      this.later.add(segment)
    } else await this.repair.seal(file, segment, result.counts, one.header?.targets ?? {})
    return segment
  }

  /** Records that are missing between files, and after the last one. Returns the sequence after the newest record. */
  private async betweenSegments(segments: readonly SegmentFile[]): Promise<number> {
    const { known } = this
    // A tail of 0 may stand for a sink that begins at the oldest kept.
    const certain = known.owedFrom !== undefined
    let expected = known.owedFrom ?? known.tail
    for (const segment of segments) {
      const noted = segment.holes.some((hole) => hole.next === segment.first && hole.first < hole.next)
      if ((expected > 0 || certain) && segment.first > expected && segment.first % TWO32 !== 0 && !noted) {
        this.missing(expected, segment.first)
        await this.repair.note(segment, expected)
      }
      expected = Math.max(expected, segment.next)
    }
    const through = known.acceptedThrough
    if ((certain || !known.clean) && through > expected && through % TWO32 !== 0)
      this.missing(Math.max(expected, Math.floor((through - 1) / TWO32) * TWO32), through)
    return known.clean ? Math.max(expected, through) : expected
  }
  private missing(first: number, next: number): void {
    this.gaps.push(
      lostGapOf(
        '',
        first,
        next,
        `missing from the spool in ${this.context.directory}: a file is gone, or was cut short`,
      ),
    )
  }

  private nextSequence(head: number, files: number): number {
    const { known } = this
    const largest = Math.max(known.sequence, known.acceptedThrough, known.tail, head, this.highest)
    const next =
      (known.clean && known.sequence >= largest) || (largest === 0 && files === 0)
        ? known.sequence
        : Math.ceil((largest + TWO32) / TWO32) * TWO32
    if (next + TWO32 > Number.MAX_SAFE_INTEGER)
      throw new Fatal(
        `the spool in ${this.context.directory} has used up its sequence numbers: deliver what it holds (manifold spool drain) and begin with an empty one`,
      )
    return next
  }

  /** Segments come from the newest to the oldest. */
  private newest({ sources }: Pick<Seal, 'sources'>): void {
    for (const source of sources) {
      if (source.received > 0 && !this.received.has(source.id)) this.received.set(source.id, source.received)
      for (const [partition, last] of source.partitions) {
        const key = JSON.stringify([source.id, partition])
        if (!this.places.has(key)) this.places.set(key, { source: source.id, partition, last })
      }
    }
  }
}

function sourcesOf(counts: SegmentCounts): Pick<Seal, 'sources' | 'gaps'> {
  return {
    sources: [...counts.sources].map(([id, { received, partitions }]) => ({
      id,
      received,
      partitions: [...partitions],
    })),
    gaps: counts.gaps,
  }
}
