/** Holds what is known of one segment file, the counts that its seal is made of, and its content as an object. */
import { createHash } from 'node:crypto'
import type { Clock, Gap, Log, SegmentPolicy } from '../core/contract'
import { DiskFailed, Fatal, lineOf } from '../core/errors'
import type { SealedSegment, Spooled } from '../core/flow/ports'
import type { File, FileSystem } from '../kit/file-system'
import {
  CONTINUED,
  DATA_AT,
  decodeSeal,
  encodeSeal,
  GAP,
  LINES,
  SEAL_AT,
  SEAL_BYTES,
  type Head,
  type Hole,
  type FramePosition,
  type RecordedGap,
  type Seal,
} from './format'
import { spooled, Walker, type Frame } from './frames'

const WINDOW = 1024 * 1024
/** Pieces below SMALL come together, so that a segment of tiny frames is not as many chunks. */
const SMALL = 32 * 1024
const CHUNK = 256 * 1024
/** One remembered place per so many object bytes: a read from the middle begins near it. */
const MARK_EVERY = 1024 * 1024
/** S3 allows 2 KB of metadata for all names and values together. */
const POSITIONS_SHOWN = 600
const GAPS_SHOWN = 400

/** Every part of a spool knows this. */
export interface SpoolContext {
  readonly fs: FileSystem
  readonly directory: string
  readonly clock: Clock
  readonly log: Log
  readonly id: string
  readonly seed: number
  readonly policies: readonly { readonly sink: string; readonly policy: SegmentPolicy }[]
  readonly render: ((frame: Spooled, framing: 'lines' | 'envelope') => readonly Buffer[]) | undefined
  /** A frame holds at most this much payload and one record. */
  readonly frameBytes: number
}

/** The durable part of one file, open or sealed. */
export interface SegmentFile {
  readonly path: string
  readonly first: number
  next: number
  /** Records, those in holes not counted. */
  count: number
  /** End of the durable frames. */
  end: number
  sealed: boolean
  /** All frames have been read and found sound, or were written by this process. */
  verified: boolean
  holes: readonly Hole[]
  /** It has no seal on disk, for it is meant for sinks that are not there now. */
  foreign?: boolean
  /** Segment sinks that an earlier run made it for; none named: for whichever comes first. */
  madeFor?: readonly string[]
}

/** Counts frames as they become durable. */
export class SegmentCounts {
  count = 0
  next: number
  receivedFirst = 0
  receivedLast = 0
  readonly sources = new Map<string, { received: number; readonly partitions: Map<string, string> }>()
  readonly gaps: RecordedGap[] = []

  constructor(readonly first: number) {
    this.next = first
  }

  add(
    head: Pick<Head, 'encoding' | 'flags' | 'first' | 'count' | 'receivedAt'>,
    place: FramePosition,
    gap?: Gap,
  ): void {
    if (head.encoding === GAP) {
      if (gap !== undefined) this.gaps.push({ ...gap, source: place.source, sequence: head.first })
      return
    }
    let source = this.sources.get(place.source)
    if (source === undefined) this.sources.set(place.source, (source = { received: 0, partitions: new Map() }))
    if ((head.flags & CONTINUED) === 0) source.partitions.set(place.partition, place.last)
    if (head.count === 0) return
    if (this.count === 0) this.receivedFirst = head.receivedAt
    this.receivedLast = head.receivedAt
    source.received = head.receivedAt
    this.count += head.count
    this.next = head.first + head.count
  }
}

export function gapOf(frame: Frame): Gap | undefined {
  return frame.head.encoding === GAP ? (JSON.parse(frame.payload.toString('utf8')) as Gap) : undefined
}

/**
 * Unique over all spools, stable over attempts, sorts like the sequence: 12 hex digits of the spool's id, 11 digits of
 * base 36.
 */
export function keyId(id: string, first: number): string {
  return id.slice(0, 12) + first.toString(36).padStart(11, '0')
}

export function framingOf(context: SpoolContext): 'lines' | 'envelope' {
  return context.policies[0]?.policy.framing ?? 'lines'
}

/** Opens for reading; what the disk refuses ends the run. */
export async function openForReading(context: SpoolContext, path: string): Promise<File> {
  try {
    return await context.fs.open(path, 'read')
  } catch (error) {
    throw new DiskFailed(`the spool file ${path} cannot be read: ${lineOf(error)}`, { cause: error })
  }
}

/** The bytes a frame becomes in an object. */
export function objectBytes(
  context: SpoolContext,
  framing: 'lines' | 'envelope',
  frame: Pick<Frame, 'head' | 'place' | 'payload'>,
): readonly Buffer[] {
  if (frame.head.count === 0) return []
  if (frame.head.encoding === LINES && framing === 'lines') return [frame.payload]
  if (context.render === undefined)
    throw new Error('the spool holds entries for a segment sink and nothing to render them with')
  return context.render(spooled(frame), framing)
}

type Marks = { readonly file: number; readonly object: number }[]

/**
 * Object bytes of a segment from the offset on, each frame's checksum verified. A chunk is valid until the next one is
 * asked for.
 */
export async function* contentOf(
  context: SpoolContext,
  segment: Pick<SegmentFile, 'path' | 'end' | 'holes'>,
  framing: 'lines' | 'envelope',
  offset: number,
  marks: Marks = [],
): AsyncGenerator<Buffer> {
  const start = marks.findLast((mark) => mark.object <= offset) ?? { file: DATA_AT, object: 0 }
  const file = await openForReading(context, segment.path)
  try {
    const walker = new Walker(file, context.seed, start.file, segment.end, segment.holes, WINDOW, true)
    let object = start.object
    let slab: Buffer | undefined
    let filled = 0
    for (;;) {
      if (object >= (marks.at(-1)?.object ?? 0) + MARK_EVERY) marks.push({ file: walker.at, object })
      if (framing === 'lines') {
        const head = await walker.peek()
        const size = head?.encoding === LINES && head.count > 0 ? head.length - 48 - head.positionsLength : undefined
        if (head !== undefined && size !== undefined && object + size <= offset) {
          object += size
          walker.at += head.length
          continue
        }
      }
      const frame = await walker.next()
      if (frame === undefined) break
      if (frame.kind === 'bad')
        throw new DiskFailed(
          `the spool file ${segment.path} has changed on disk at byte ${frame.from}: end manifold and start it again, it sets the damage aside`,
        )
      for (const whole of objectBytes(context, framing, frame)) {
        const chunk = object >= offset ? whole : whole.subarray(Math.min(whole.length, offset - object))
        object += whole.length
        if (chunk.length === 0) continue
        if (slab !== undefined && filled > 0 && (chunk.length >= SMALL || filled + chunk.length > CHUNK)) {
          yield slab.subarray(0, filled)
          filled = 0
        }
        if (chunk.length >= SMALL) {
          yield chunk
          continue
        }
        slab ??= Buffer.allocUnsafeSlow(CHUNK)
        filled += chunk.copy(slab, filled)
      }
    }
    if (slab !== undefined && filled > 0) yield slab.subarray(0, filled)
  } finally {
    await file.close()
  }
}

export async function digest(
  context: SpoolContext,
  segment: SegmentFile,
  framing: 'lines' | 'envelope',
): Promise<{ readonly sha256: string; readonly length: number }> {
  const hash = createHash('sha256')
  let length = 0
  for await (const chunk of contentOf(context, segment, framing, 0)) {
    hash.update(chunk)
    length += chunk.length
  }
  return { sha256: hash.digest('hex'), length }
}

/** @param sinks  those of an earlier seal, whose keys stay as they are */
export function makeSeal(
  context: SpoolContext,
  segment: SegmentFile,
  counts: SegmentCounts,
  object: { readonly sha256: string; readonly length: number },
  sinks?: Seal['sinks'],
): Seal {
  const sealedAt = context.clock.now()
  const id = keyId(context.id, segment.first)
  return {
    sinks:
      sinks ??
      Object.fromEntries(
        context.policies.map(({ sink, policy }) => [
          sink,
          {
            key: policy.key({ receivedAt: counts.receivedFirst, sealedAt, id }),
            target: policy.target,
            compression: policy.compression,
          },
        ]),
      ),
    framing: framingOf(context),
    ...object,
    count: segment.count,
    first: segment.first,
    next: segment.next,
    end: segment.end,
    receivedFirst: counts.receivedFirst,
    receivedLast: counts.receivedLast,
    sealedAt,
    sources: [...counts.sources].map(([source, { received, partitions }]) => ({
      id: source,
      received,
      partitions: [...partitions],
    })),
    gaps: counts.gaps,
    holes: segment.holes,
  }
}

/** Tells whether a segment that was made for a target is this policy's. */
export function goesTo(policy: SegmentPolicy | undefined, target: string | undefined): boolean {
  return (
    policy !== undefined &&
    target !== undefined &&
    (policy.target === target || policy.normal?.(target) === policy.target)
  )
}

/** Resolves when the seal is durable. */
export async function writeSeal(context: SpoolContext, file: File, seal: Seal): Promise<void> {
  await file.write([encodeSeal(seal, context.seed)], SEAL_AT)
  await file.datasync()
}

export async function readSeal(context: SpoolContext, path: string): Promise<Seal | undefined> {
  const file = await openForReading(context, path)
  try {
    const block = Buffer.alloc(SEAL_BYTES)
    return decodeSeal(block.subarray(0, await file.read(block, SEAL_AT)), context.seed)
  } catch (error) {
    // An unreadable sector is like any other damage to the seal: it is made anew.
    if ((error as NodeJS.ErrnoException).code === 'EIO') return undefined
    throw error
  } finally {
    await file.close()
  }
}

/** The segment as the object of one sink; undefined where it is none of its. */
export function sealedSegment(
  context: SpoolContext,
  segment: SegmentFile,
  seal: Seal,
  sink: string,
): SealedSegment | undefined {
  const place = seal.sinks[sink]
  if (place === undefined || !goesTo(context.policies.find((one) => one.sink === sink)?.policy, place.target))
    return undefined
  const marks: Marks = []
  // Lines are guarded frame by frame. What is rendered could come out otherwise in another version of the program, and
  // would not be the object that was promised.
  async function* read(offset: number): AsyncGenerator<Buffer> {
    const hash = seal.framing === 'envelope' && offset === 0 ? createHash('sha256') : undefined
    let at = offset
    for await (const chunk of contentOf(context, segment, seal.framing, offset, marks)) {
      at += chunk.length
      hash?.update(chunk)
      yield chunk
    }
    if (at !== Math.max(offset, seal.length) || (hash !== undefined && hash.digest('hex') !== seal.sha256)) {
      throw new Fatal(
        `the spool file ${segment.path} no longer gives the object it was sealed as (${seal.sha256}): deliver it with the version of manifold that wrote it`,
      )
    }
  }
  return {
    kind: 'segment',
    key: place.key,
    count: seal.count,
    length: seal.length,
    sha256: seal.sha256,
    compression: place.compression,
    facts: factsOf(context, seal),
    first: seal.first,
    next: seal.next,
    ...(seal.omitted === undefined ? { positions: placesOf(seal) } : {}),
    read,
  }
}

function placesOf({ sources }: Seal): readonly FramePosition[] {
  return sources.flatMap(({ id, partitions }) =>
    partitions.map(([partition, last]) => ({ source: id, partition, last })),
  )
}

function factsOf(context: SpoolContext, seal: Seal): Readonly<Record<string, string>> {
  const positions = seal.sources.flatMap((source) => source.partitions.map(([name, last]) => `${name}=${last}`))
  const gaps = [
    ...seal.gaps.map((gap) => `${gap.from}/${gap.to} ${gap.why}`),
    ...seal.holes
      .filter((hole) => hole.next > hole.first)
      .map((hole) => `${hole.first}-${hole.next - 1} damaged on disk`),
  ]
  return {
    'first-sequence': String(seal.first),
    'last-sequence': String(seal.next - 1),
    count: String(seal.count),
    'received-first': new Date(seal.receivedFirst).toISOString(),
    'received-last': new Date(seal.receivedLast).toISOString(),
    ...(positions.length === 0 ? {} : { positions: shortened(positions, POSITIONS_SHOWN) }),
    ...(gaps.length === 0 ? {} : { gaps: shortened(gaps, GAPS_SHOWN) }),
    ...(seal.omitted === undefined ? {} : { omitted: String(seal.omitted) }),
    spool: context.id,
  }
}

function shortened(parts: readonly string[], most: number): string {
  let text = ''
  for (const [index, part] of parts.entries()) {
    const next = ascii(index === 0 ? part : `; ${part}`)
    if (text.length + next.length > most)
      return `${text === '' ? next.slice(0, most) : text}; +${parts.length - index} more`
    text += next
  }
  return text
}

/** Everything but printable ASCII, and the percent sign, as %XX of its UTF-8 bytes. */
export function ascii(text: string): string {
  return text.replace(/[^\x20-\x24\x26-\x7e]/gu, (character) =>
    [...Buffer.from(character)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
  )
}
