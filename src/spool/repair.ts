/**
 * Makes the changes of recovery on disk: damage is copied aside before anything is cut, tails are synced, and segments
 * without a seal get one.
 */
import type { Gap } from '../core/contract'
import { DiskFailed, lineOf } from '../core/errors'
import type { File } from '../kit/file-system'
import { examine, type Examined, type DurableExtent } from './examine'
import { DATA_AT, decodeHeader, decodeSeal, HEADER_BYTES, SEAL_AT, type RecordedGap, type Seal } from './format'
import { Walker, type Range } from './frames'
import {
  digest,
  framingOf,
  goesTo,
  makeSeal,
  readSeal,
  writeSeal,
  type SegmentFile,
  type SpoolContext,
  type SegmentCounts,
} from './segment'

export interface SegmentGap extends RecordedGap {
  /** Records that are gone, as opposed to a gap that the source reported. */
  readonly lost: boolean
}
export interface Quarantined {
  readonly path: string
  readonly why: string
}
export type Targets = Readonly<Record<string, string>>

const SECTOR = 4096

export class Repair {
  readonly quarantined: Quarantined[] = []

  /** @param tail  records below are delivered: nobody misses them */
  constructor(
    private readonly context: SpoolContext,
    private readonly tail: number,
  ) {}

  /**
   * Copies byte ranges beside the file. Best effort: on a full disk the original of what is damaged stays where it is
   * anyway.
   */
  async aside(
    file: File,
    one: { readonly path: string; readonly size: number },
    ranges: readonly Range[],
    why: string,
  ): Promise<void> {
    const { fs, log } = this.context
    const base = one.path.replace(/\.seg$/, '')
    for (let copy = 0; ; copy++) {
      const path = `${base}.${copy}.quarantine`
      try {
        const to = await fs.open(path, 'create')
        try {
          let at = 0
          for (const range of ranges) {
            for (let from = range.from; from < range.to; ) {
              const chunk = Buffer.allocUnsafe(Math.min(1024 * 1024, range.to - from))
              const filled = await file.read(chunk, from)
              if (filled === 0) break
              await to.write([chunk.subarray(0, filled)], at)
              at += filled
              from += filled
            }
          }
          await to.datasync()
        } finally {
          await to.close()
        }
        this.quarantined.push({ path, why })
        log.warn(`parts of the spool file ${one.path} are set aside in ${path}: ${why}`)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue
        log.warn(`parts of the spool file ${one.path} could not be set aside in ${path}: ${why}; ${lineOf(error)}`)
      }
      return
    }
  }

  /**
   * Writes what may never have reached the disk once more, and syncs it. An fdatasync alone would not do: after one
   * that failed in the last run, the kernel counts the pages as clean and serves them from memory until the power goes.
   */
  async synced(file: File, path: string, result: Pick<Examined, 'mark' | 'end'>): Promise<void> {
    try {
      const from = result.mark > DATA_AT ? result.mark : 0
      const chunk = Buffer.allocUnsafe(Math.max(0, Math.min(1024 * 1024, result.end - from)))
      for (let at = from; at < result.end; ) {
        const filled = await file.read(chunk.subarray(0, Math.min(chunk.length, result.end - at)), at)
        if (filled === 0) break
        await file.write([chunk.subarray(0, filled)], at)
        at += filled
      }
      await file.datasync()
    } catch (error) {
      throw new DiskFailed(`the spool file ${path} cannot be synced: ${lineOf(error)}`, { cause: error })
    }
  }
  /** The seal of the newest file: any other was synced before the next file was made. */
  async rewritten(path: string): Promise<void> {
    const file = await this.context.fs.open(path, 'update')
    try {
      await this.synced(file, path, { mark: 0, end: DATA_AT })
    } finally {
      await file.close()
    }
  }

  losses(path: string, result: Pick<Examined, 'lost' | 'counts'>): SegmentGap[] {
    const [source = ''] = result.counts.sources.keys()
    const lost = result.lost
      .map((one) => ({ first: Math.max(one.first, this.tail), next: one.next }))
      .filter((one) => one.next > one.first)
    return lost.map(({ first, next }) => lostGapOf(source, first, next, `damaged in ${path}`))
  }

  /**
   * False where it stays without a seal: it is meant for other sinks than those of today. One whose header names none
   * takes on all of today's.
   */
  async seal(
    file: File,
    segment: SegmentFile,
    counts: SegmentCounts,
    targets: Targets,
    former?: Seal,
  ): Promise<boolean> {
    const { context } = this
    const policies =
      Object.keys(targets).length === 0
        ? context.policies
        : context.policies.filter(({ sink, policy }) => goesTo(policy, targets[sink]))
    const sinks = former === undefined || Object.keys(former.sinks).length === 0 ? undefined : former.sinks
    if (Object.keys(targets).length > 0 && policies.length === 0 && sinks === undefined) return false
    const framing = sinks === undefined ? framingOf(context) : (former?.framing ?? framingOf(context))
    const object =
      segment.count === 0 || (policies.length === 0 && sinks === undefined)
        ? { sha256: '', length: 0 }
        : await digest(context, segment, framing)
    try {
      await writeSeal(context, file, { ...makeSeal({ ...context, policies }, segment, counts, object, sinks), framing })
    } catch (error) {
      throw new DiskFailed(`the spool file ${segment.path} cannot be sealed: ${lineOf(error)}`, { cause: error })
    }
    return true
  }

  /**
   * Reads a sealed segment once. What is damaged is set aside, and the seal made anew for the rest. Returns what was
   * lost.
   */
  async verify(segment: SegmentFile): Promise<readonly SegmentGap[]> {
    const { context } = this
    const file = tolerant(await context.fs.open(segment.path, 'update'))
    try {
      const page = Buffer.alloc(DATA_AT)
      await file.read(page, 0)
      const seal = decodeSeal(page.subarray(SEAL_AT), context.seed)
      const header = decodeHeader(page.subarray(0, HEADER_BYTES))
      const targets = header === undefined || 'newer' in header ? {} : header.targets
      const intact = await this.intact(file, segment)
      const orphan =
        context.policies.length > 0 &&
        seal !== undefined &&
        Object.keys(seal.sinks).length === 0 &&
        Object.keys(targets).length === 0
      if (intact && seal !== undefined && !orphan) {
        segment.verified = true
        return []
      }
      const size = await file.size()
      const result = await examine(file, sealedKnowledge(context, segment, size))
      const before = segment.holes
      const damaged = result.damaged.filter(
        (range) => !before.some((hole) => hole.from === range.from && hole.to === range.to),
      )
      const lost = result.lost.filter(
        (one) => !before.some((hole) => hole.first === one.first && hole.next === one.next),
      )
      if (damaged.length > 0)
        await this.aside(
          file,
          { path: segment.path, size },
          damaged,
          `damaged at byte ${damaged.map((range) => range.from).join(', ')}`,
        )
      segment.count = result.counts.count
      segment.end = result.end
      segment.holes = [
        ...before.filter((hole) => hole.next <= segment.first && hole.first < hole.next),
        ...result.holes,
      ]
      segment.foreign = !(await this.seal(file, segment, result.counts, targets, seal))
      segment.verified = true
      return this.losses(segment.path, { lost, counts: result.counts })
    } finally {
      await file.close()
    }
  }
  private async intact(file: File, segment: SegmentFile): Promise<boolean> {
    const walker = new Walker(file, this.context.seed, DATA_AT, segment.end, segment.holes)
    let count = 0
    for (let found = await walker.next(); found !== undefined; found = await walker.next()) {
      if (found.kind === 'bad') return false
      count += found.head.count
    }
    return count === segment.count && (await file.size()) >= segment.end
  }

  /** Into the seal of the segment that follows: what is missing is reported once. */
  async note(segment: SegmentFile, first: number): Promise<void> {
    const hole = { from: DATA_AT, to: DATA_AT, first, next: segment.first }
    try {
      const seal = await readSeal(this.context, segment.path)
      if (seal === undefined) return
      const file = await this.context.fs.open(segment.path, 'update')
      try {
        await writeSeal(this.context, file, { ...seal, holes: [hole, ...seal.holes] })
      } finally {
        await file.close()
      }
      segment.holes = [hole, ...segment.holes]
    } catch (error) {
      this.context.log.warn(
        `what is missing before ${segment.path} cannot be noted there and will be reported again: ${lineOf(error)}`,
      )
    }
  }
}

export function lostGapOf(source: string, first: number, next: number, why: string): SegmentGap {
  const gap: Gap = { partition: '', from: String(first), to: String(next - 1), why, records: next - first }
  return { ...gap, source, sequence: first, lost: true }
}

/** Reads what can be read: a bad sector is NULs, which no frame is, and so is set aside like any other damage. */
export function tolerant(file: File): File {
  const read = async (into: Buffer, offset: number): Promise<number> => {
    try {
      return await file.read(into, offset)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EIO') throw error
      if (into.length <= SECTOR) {
        const there = Math.min(into.length, Math.max(0, (await file.size()) - offset))
        into.fill(0, 0, there)
        return there
      }
      let filled = 0
      while (filled < into.length) {
        const piece = into.subarray(filled, filled + SECTOR - ((offset + filled) % SECTOR))
        const got = await read(piece, offset + filled)
        filled += got
        if (got < piece.length) break
      }
      return filled
    }
  }
  return {
    read,
    write: (buffers, offset) => file.write(buffers, offset),
    datasync: () => file.datasync(),
    truncate: (length) => file.truncate(length),
    size: () => file.size(),
    close: () => file.close(),
  }
}

/** A seal says this of its segment. */
export function sealedKnowledge(
  context: SpoolContext,
  segment: Pick<SegmentFile, 'first' | 'next' | 'end'>,
  size: number,
): DurableExtent {
  return {
    first: segment.first,
    size: Math.min(size, segment.end),
    seed: context.seed,
    durableSequence: segment.next,
    durableBytes: segment.end,
    limit: Infinity,
  }
}
