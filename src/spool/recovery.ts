/**
 * What a start finds on disk, made whole: nothing is changed before every header was understood; what survives is synced before it is served; what
 * is damaged is copied aside before anything is cut.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Gap } from '../core/contract'
import { DiskFailed, Fatal, lineOf, UsageError } from '../core/errors'
import type { File } from '../kit/file-system'
import { examine, type Examined } from './examine'
import { DATA_AT, decodeHeader, decodeSeal, FORMAT, HEADER_BYTES, SEAL_AT, SEAL_BYTES, type Header, type RecordedGap, type Seal } from './format'
import type { Place } from './format'
import type { Range } from './frames'
import { digest, framingOf, makeSeal, readSeal, writeSeal, type SegmentFile, type SpoolContext, type Tally } from './segment'

const NAME = /^(\d{16})(?:-(\d+))?\.seg$/
const TWO32 = 2 ** 32
/** Sealed segments of earlier runs are read through at the start up to this much; the others when their turn comes. */
const VERIFY_AT_START = 256 * 1024 * 1024

export interface Known { readonly sequence: number; readonly clean: boolean; readonly tail: number; readonly acceptedThrough: number }
export interface Loss extends RecordedGap {
  /** Records that are gone, as opposed to a gap that the source reported. */
  readonly lost: boolean
}
export interface Quarantined { readonly path: string; readonly why: string }
export interface Foreign { readonly path: string; readonly sink: string; readonly target: string; readonly count: number }

interface Found {
  readonly path: string
  readonly name: string
  readonly first: number
  readonly copy: number
  readonly size: number
  readonly page: Buffer
  readonly header: Header | undefined
}

export interface Carried { readonly gaps: RecordedGap[]; readonly progress: (Place & { readonly receivedAt: number })[]; readonly paths: string[] }

export interface Recovered {
  readonly segments: readonly SegmentFile[]
  /** Newest of each partition, oldest frame first. */
  readonly places: readonly Place[]
  readonly received: readonly (readonly [source: string, at: number])[]
  readonly gaps: readonly Loss[]
  readonly quarantined: readonly Quarantined[]
  readonly foreign: readonly Foreign[]
  readonly tornBytes: number
  readonly head: number
  readonly nextSequence: number
  /** Gaps and positions of a segment without records, and that file: to be written again before it goes. */
  readonly carried: Carried
}

/** Reads all headers, so that a format of the future or another spool's file is refused before anything is touched. */
export async function look(fs: SpoolContext['fs'], directory: string, id: string | undefined): Promise<{ readonly found: readonly Found[]; readonly id: string | undefined }> {
  await fs.makeDirectory(directory)
  const found: Found[] = []
  for (const name of await fs.list(directory)) {
    const match = NAME.exec(name)
    if (match === null) continue
    const path = `${directory}/${name}`
    const file = await fs.open(path, 'read')
    try {
      const buffer = Buffer.alloc(DATA_AT)
      const page = buffer.subarray(0, await file.read(buffer, 0))
      const header = decodeHeader(page.subarray(0, HEADER_BYTES))
      if (header !== undefined && 'newer' in header) throw new UsageError([`the spool in ${directory} was written by a newer manifold (format ${header.newer}, this one reads up to ${FORMAT}): run that one; nothing was changed`])
      found.push({ path, name, first: Number(match[1]), copy: Number(match[2] ?? 0), size: await file.size(), page, header })
    } finally { await file.close() }
  }
  found.sort((a, b) => a.first - b.first || a.copy - b.copy)
  const own = id ?? found.find((one) => one.header !== undefined)?.header?.id
  const other = found.find((one) => one.header !== undefined && one.header.id !== own)
  if (other !== undefined) throw new UsageError([`${other.path} belongs to another spool: move it away, or name its directory as the spool of its own flow; nothing was changed`])
  return { found, id: own }
}

export class Recovery {
  private readonly gaps: Loss[] = []
  private readonly quarantined: Quarantined[] = []
  private readonly foreign: Foreign[] = []
  private readonly tallies: (readonly [SegmentFile, Pick<Seal, 'sources' | 'gaps'>])[] = []
  private tornBytes = 0
  private highest = 0

  /** @param idKnown  the spool's id is not new: frames of its files can be told from other bytes */
  constructor(private readonly context: SpoolContext, private readonly known: Known, private readonly idKnown: boolean) {}

  async run(found: readonly Found[]): Promise<Recovered> {
    const { context, known } = this
    const { fs, log } = context
    const segments: SegmentFile[] = []
    const remove: string[] = []
    const carried: Carried = { gaps: [], progress: [], paths: [] }
    // From the newest to the oldest: where a segment ends is said by the one after it, if that has anything in it.
    let limit = Infinity
    let records = false
    for (const one of found.toReversed()) {
      const seal = decodeSeal(one.page.subarray(SEAL_AT), context.seed)
      if (seal !== undefined) {
        this.highest = Math.max(this.highest, seal.next)
        const newest = !records
        limit = one.first
        records = true
        if (one === found.at(-1)) await this.rewritten(one.path)
        if (seal.next > known.tail || (!newest && seal.next === known.tail && seal.next === known.acceptedThrough)) { segments.unshift(await this.sealed(one, seal)); continue }
        if (seal.next < known.tail || seal.next < known.acceptedThrough) { remove.push(one.path); continue }
        // It ends where the cursors stand: a gap at its end may be known nowhere else.
        const file = await fs.open(one.path, 'update')
        try {
          const result = await examine(file, { first: seal.first, size: Math.min(one.size, seal.end), seed: context.seed, durableSequence: seal.next, durableBytes: seal.end, limit: Infinity })
          if (!(await this.carry(file, one.path, result, carried))) remove.push(one.path)
        } finally { await file.close() }
        continue
      }
      if (limit <= known.tail && records) { remove.push(one.path); continue }
      const file = await fs.open(one.path, 'update')
      try {
        const sequence = this.durableSequence(one.first, limit)
        const result = await examine(file, { first: one.first, size: one.size, seed: context.seed, durableSequence: sequence, durableBytes: 0, limit })
        this.highest = Math.max(this.highest, result.highest)
        if (result.tally.count === 0 && result.lost.length === 0) {
          const bare = result.tally.gaps.length === 0 && result.progress.length === 0
          // Where a record follows in another file, what is carried has become durable before it.
          if (records || !(await this.carry(file, one.path, result, carried))) {
            if (!this.idKnown && one.size > DATA_AT) await this.aside(file, one, [{ from: 0, to: one.size }], 'its header cannot be read, and nothing else names the spool it belongs to')
            if (bare) log.info(`the spool file ${one.path} was being made when the last run ended: it is removed`)
            remove.push(one.path)
          }
          if (result.frames > 0) limit = one.first
          continue
        }
        const newest = !records
        limit = one.first
        records = true
        if (result.lost.length === 0 && (result.tally.next < known.tail || (result.tally.next === known.tail && (newest || result.tally.next < known.acceptedThrough)))) {
          if (result.tally.next < known.acceptedThrough || !(await this.carry(file, one.path, result, carried))) remove.push(one.path)
          continue
        }
        segments.unshift(await this.finish(file, one, result))
      } finally { await file.close() }
    }
    // Without any file too: one that the last run removed must not come back.
    await fs.syncDirectory(context.directory)
    for (const path of remove) await fs.unlink(path).catch((error: unknown) => { log.warn(`the spool file ${path} cannot be removed: ${lineOf(error)}`) })

    let budget = VERIFY_AT_START
    for (const segment of segments) {
      if (segment.verified) continue
      budget -= segment.end
      if (budget < 0) break
      this.gaps.push(...await this.verify(segment))
    }
    const head = await this.betweenSegments(segments)
    const since = (gap: Loss): boolean => gap.lost || gap.sequence >= known.acceptedThrough
    return {
      segments, head, nextSequence: this.nextSequence(head, found.length), carried, foreign: this.foreign, tornBytes: this.tornBytes, quarantined: this.quarantined, ...this.newest(),
      gaps: [...this.gaps, ...carried.gaps.map((gap) => ({ ...gap, lost: false }))].filter(since).sort((a, b) => a.sequence - b.sequence),
    }
  }

  /** What came after the last record is written again into the next segment; the file stays until that is durable. False where there is nothing of the kind. */
  private async carry(file: File, path: string, result: Examined, carried: Carried): Promise<boolean> {
    const gaps = result.tally.gaps.filter((gap) => gap.sequence >= result.tally.next)
    if (gaps.length === 0 && result.progress.length === 0) return false
    await this.synced(file, path, result)
    carried.gaps.unshift(...gaps.filter((gap) => !carried.gaps.some((other) => isDeepStrictEqual({ ...other, sequence: 0 }, { ...gap, sequence: 0 }))))
    carried.progress.unshift(...result.progress)
    carried.paths.push(path)
    return true
  }

  /** What the flow file and the next segment say was durable here. Sequences jump to a multiple of 2^32 at a start, and across a jump nothing can be said. */
  private durableSequence(first: number, limit: number): number {
    if (limit !== Infinity) return limit % TWO32 === 0 ? 0 : limit
    const through = this.known.acceptedThrough
    return through > Math.max(first, this.known.tail) && through % TWO32 !== 0 && Math.floor((through - 1) / TWO32) === Math.floor(first / TWO32) ? through : 0
  }

  private async sealed(one: Found, seal: Seal): Promise<SegmentFile> {
    const segment: SegmentFile = { path: one.path, first: seal.first, next: seal.next, count: seal.count, end: seal.end, sealed: true, verified: false, holes: seal.holes }
    const targets = one.header?.targets ?? {}
    for (const [sink, place] of Object.entries({ ...Object.fromEntries(Object.entries(targets).map(([name, target]) => [name, { target }])), ...seal.sinks })) this.checkTarget(segment, sink, place.target)
    let facts: Pick<Seal, 'sources' | 'gaps'> = seal
    if (seal.omitted !== undefined) {
      const file = await this.context.fs.open(one.path, 'read')
      try { facts = sourcesOf((await examine(file, this.asSealed(segment, one.size))).tally) } finally { await file.close() }
    }
    this.tallies.push([segment, facts])
    this.gaps.push(...facts.gaps.map((gap) => ({ ...gap, lost: false })))
    return segment
  }
  private asSealed(segment: SegmentFile, size: number): Parameters<typeof examine>[1] {
    return { first: segment.first, size: Math.min(size, segment.end), seed: this.context.seed, durableSequence: segment.next, durableBytes: segment.end, limit: Infinity }
  }
  private checkTarget(segment: SegmentFile, sink: string, target: string): void {
    const policy = this.context.policies.find((one) => one.sink === sink)?.policy
    if (segment.next > this.known.tail && policy?.target !== target) this.foreign.push({ path: segment.path, sink, target, count: segment.count })
  }

  /** An open segment of the last run: damage aside, tail cut, synced, sealed as it is. */
  private async finish(file: File, one: Found, result: Examined): Promise<SegmentFile> {
    const { context } = this
    const next = Math.max(result.tally.next, ...result.lost.map((lost) => lost.next))
    const segment: SegmentFile = { path: one.path, first: one.first, next, count: result.tally.count, end: result.end, sealed: true, verified: true, holes: result.holes }
    if (result.damaged.length > 0) await this.aside(file, one, result.damaged, `damaged below its durable mark at byte ${result.damaged.map((range) => range.from).join(', ')}`)
    if (result.torn.frames.length > 0) await this.aside(file, one, result.torn.frames, 'never acknowledged, behind a torn frame')
    if (result.torn.bytes > 0) {
      this.tornBytes += result.torn.bytes
      await file.truncate(result.end)
      context.log.info(`the spool file ${one.path} ended in ${result.torn.bytes} bytes that were never acknowledged: they are cut off`)
    }
    await this.synced(file, one.path, result)
    for (const [sink, target] of Object.entries(one.header?.targets ?? {})) this.checkTarget(segment, sink, target)
    const facts = sourcesOf(result.tally)
    this.tallies.push([segment, facts])
    this.gaps.push(...facts.gaps.map((gap) => ({ ...gap, lost: false })), ...this.losses(one.path, result))
    await this.seal(file, segment, result.tally, one.header?.targets)
    return segment
  }

  /**
   * Writes what may never have reached the disk once more, and syncs it. An fdatasync alone would not do: after one that failed in the last run, the
   * kernel counts the pages as clean and serves them from memory until the power goes.
   */
  private async synced(file: File, path: string, result: Pick<Examined, 'mark' | 'end'>): Promise<void> {
    try {
      const from = result.mark > DATA_AT ? result.mark : 0
      const chunk = Buffer.allocUnsafe(Math.max(0, Math.min(1024 * 1024, result.end - from)))
      for (let at = from; at < result.end;) {
        const filled = await file.read(chunk.subarray(0, Math.min(chunk.length, result.end - at)), at)
        if (filled === 0) break
        await file.write([chunk.subarray(0, filled)], at)
        at += filled
      }
      await file.datasync()
    } catch (error) { throw new DiskFailed(`the spool file ${path} cannot be synced: ${lineOf(error)}`, { cause: error }) }
  }
  /** The seal of the newest file: any other was synced before the next file was made. */
  private async rewritten(path: string): Promise<void> {
    const file = await this.context.fs.open(path, 'update')
    try { await this.synced(file, path, { mark: 0, end: DATA_AT }) } finally { await file.close() }
  }

  private losses(path: string, result: Pick<Examined, 'lost' | 'tally'>): Loss[] {
    const [source = ''] = result.tally.sources.keys()
    const lost = result.lost.map((one) => ({ first: Math.max(one.first, this.known.tail), next: one.next })).filter((one) => one.next > one.first)
    for (const { first, next } of lost) this.context.log.warn(`${next - first} records (${first} to ${next - 1}) in the spool file ${path} are damaged and cannot be delivered`)
    return lost.map(({ first, next }) => lossOf(source, first, next, `damaged in ${path}`))
  }

  private async seal(file: File, segment: SegmentFile, tally: Tally, targets: Readonly<Record<string, string>> | undefined, former?: Seal): Promise<void> {
    const { context } = this
    // Only for sinks that its header names, at the target named there; one without any takes on those of today.
    const named = Object.keys(targets ?? {})
    const policies = named.length === 0 ? context.policies : context.policies.filter(({ sink, policy }) => targets?.[sink] === policy.target)
    const own = { ...context, policies }
    const framing = former?.framing ?? framingOf(context)
    const object = segment.count === 0 || (policies.length === 0 && Object.keys(former?.sinks ?? {}).length === 0) ? { sha256: '', length: 0 } : await digest(context, segment, framing)
    try {
      await writeSeal(context, file, { ...makeSeal(own, segment, tally, object, former?.sinks), framing })
    } catch (error) { throw new DiskFailed(`the spool file ${segment.path} cannot be sealed: ${lineOf(error)}`, { cause: error }) }
  }

  /** Reads a sealed segment once. What is damaged is set aside, and the seal made anew for the rest. Returns what was lost. */
  async verify(segment: SegmentFile): Promise<readonly Loss[]> {
    const { context } = this
    const file = await context.fs.open(segment.path, 'update')
    try {
      const page = Buffer.alloc(DATA_AT)
      await file.read(page, 0)
      const seal = decodeSeal(page.subarray(SEAL_AT, SEAL_AT + SEAL_BYTES), context.seed)
      const header = decodeHeader(page.subarray(0, HEADER_BYTES))
      const targets = header === undefined || 'newer' in header ? undefined : header.targets
      const size = await file.size()
      const result = await examine(file, this.asSealed(segment, size))
      const before = segment.holes
      const sound = seal !== undefined && result.tally.count === segment.count && result.end === segment.end && result.damaged.length === before.filter((hole) => hole.to > hole.from).length
      const orphan = context.policies.length > 0 && Object.keys(seal?.sinks ?? {}).length === 0 && Object.keys(targets ?? {}).length === 0
      const lost = result.lost.filter((one) => !before.some((hole) => hole.first === one.first && hole.next === one.next))
      if (!sound) {
        if (result.damaged.length > 0) await this.aside(file, { path: segment.path, size }, result.damaged, `damaged at byte ${result.damaged.map((range) => range.from).join(', ')}`)
        segment.count = result.tally.count
        segment.end = result.end
        segment.holes = result.holes
      }
      if (!sound || orphan) await this.seal(file, segment, result.tally, targets, orphan ? undefined : seal)
      segment.verified = true
      return sound ? [] : this.losses(segment.path, { lost, tally: result.tally })
    } finally { await file.close() }
  }

  /** Copies byte ranges beside the file. Best effort: on a full disk the original of what is damaged stays where it is anyway. */
  private async aside(file: File, one: { readonly path: string; readonly size: number }, ranges: readonly Range[], why: string): Promise<void> {
    const { fs, log } = this.context
    const base = one.path.replace(/\.seg$/, '')
    for (let copy = 0; ; copy++) {
      const path = `${base}.${copy}.quarantine`
      try {
        const to = await fs.open(path, 'create')
        try {
          let at = 0
          for (const range of ranges) {
            for (let from = range.from; from < range.to;) {
              const chunk = Buffer.allocUnsafe(Math.min(1024 * 1024, range.to - from))
              const filled = await file.read(chunk, from)
              if (filled === 0) break
              await to.write([chunk.subarray(0, filled)], at)
              at += filled
              from += filled
            }
          }
          await to.datasync()
        } finally { await to.close() }
        this.quarantined.push({ path, why })
        log.warn(`parts of the spool file ${one.path} are set aside in ${path}: ${why}`)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue
        log.warn(`parts of the spool file ${one.path} could not be set aside in ${path}: ${why}; ${lineOf(error)}`)
      }
      return
    }
  }

  /** Records that are missing between files, and after the last one. Returns the sequence after the newest record. */
  private async betweenSegments(segments: readonly SegmentFile[]): Promise<number> {
    const { known } = this
    let expected = known.tail
    for (const segment of segments) {
      // A tail of 0 may stand for a sink that begins at the oldest kept.
      const noted = segment.holes.some((hole) => hole.next === segment.first && hole.first < hole.next)
      if (expected > 0 && segment.first > expected && segment.first % TWO32 !== 0 && !noted) {
        this.missing(expected, segment.first)
        await this.note(segment, expected)
      }
      expected = Math.max(expected, segment.next)
    }
    const through = known.acceptedThrough
    if (!known.clean && through > expected && through % TWO32 !== 0) this.missing(Math.max(expected, Math.floor((through - 1) / TWO32) * TWO32), through)
    return known.clean ? Math.max(expected, through) : expected
  }
  /** Into the seal of the segment that follows: what is missing is reported once. */
  private async note(segment: SegmentFile, first: number): Promise<void> {
    const hole = { from: DATA_AT, to: DATA_AT, first, next: segment.first }
    try {
      const seal = await readSeal(this.context, segment.path)
      if (seal === undefined) return
      const file = await this.context.fs.open(segment.path, 'update')
      try { await writeSeal(this.context, file, { ...seal, holes: [hole, ...seal.holes] }) } finally { await file.close() }
      segment.holes = [hole, ...segment.holes]
    } catch (error) { this.context.log.warn(`what is missing before ${segment.path} cannot be noted there and will be reported again: ${lineOf(error)}`) }
  }
  private missing(first: number, next: number): void {
    this.context.log.warn(`${next - first} records (${first} to ${next - 1}) are missing from the spool in ${this.context.directory}: a file is gone or was cut short`)
    this.gaps.push(lossOf('', first, next, `missing from the spool in ${this.context.directory}`))
  }

  private nextSequence(head: number, files: number): number {
    const { known } = this
    const largest = Math.max(known.sequence, known.acceptedThrough, known.tail, head, this.highest)
    const next = (known.clean && known.sequence >= largest) || (largest === 0 && files === 0) ? known.sequence : Math.ceil((largest + TWO32) / TWO32) * TWO32
    if (next + TWO32 > Number.MAX_SAFE_INTEGER) throw new Fatal(`the spool in ${this.context.directory} has used up its sequence numbers: deliver what it holds (manifold spool drain) and begin with an empty one`)
    return next
  }

  private newest(): Pick<Recovered, 'places' | 'received'> {
    const places: Place[] = []
    const received: (readonly [string, number])[] = []
    for (const [, { sources }] of this.tallies.toSorted(([a], [b]) => a.first - b.first)) {
      for (const source of sources) {
        if (source.received > 0) received.push([source.id, source.received])
        for (const [partition, last] of source.partitions) places.push({ source: source.id, partition, last })
      }
    }
    return { places, received }
  }
}

function sourcesOf(tally: Tally): Pick<Seal, 'sources' | 'gaps'> {
  return { sources: [...tally.sources].map(([id, { received, partitions }]) => ({ id, received, partitions: [...partitions] })), gaps: tally.gaps }
}
function lossOf(source: string, first: number, next: number, why: string): Loss {
  const gap: Gap = { partition: '', from: String(first), to: String(next - 1), why, records: next - first }
  return { ...gap, source, sequence: first, lost: true }
}
