/**
 * Bytes of a segment file: header page, seal block, frames. The layout is drawn in `index.ts`. Everything
 * little-endian.
 */
import { crc32 } from 'node:zlib'
import type { Compression, Gap } from '../core/contract'

export const FORMAT = 1
const FILE_MAGIC = Buffer.from('MNFSPOOL', 'latin1')
const SEAL_MAGIC = Buffer.from('SEAL', 'latin1')
export const FRAME_MAGIC = Buffer.from('MFR1', 'latin1')
const FRAME_MAGIC_NUMBER = FRAME_MAGIC.readUInt32LE(0)

export const HEADER_BYTES = 4096
export const SEAL_AT = HEADER_BYTES
export const SEAL_BYTES = 12 * 1024
/** Where the first frame begins. */
export const DATA_AT = SEAL_AT + SEAL_BYTES
export const FRAME_HEAD = 48
const TWO32 = 2 ** 32

export const GAP = 0
export const LINES = 1
export const ENTRIES = 2
/** The append goes on in the next frame: its position is reached only with the last one. */
export const CONTINUED = 1

/** The id of a spool is part of every checksum, so bytes of another spool never pass for ours. */
export function seedOf(id: string): number {
  return crc32(Buffer.from(id, 'hex'))
}

export interface Header {
  readonly id: string
  readonly first: number
  readonly createdAt: number
  /** Segment sink to the target its objects go to. */
  readonly targets: Readonly<Record<string, string>>
}

/** A page that every later format keeps in this outer shape: magic, version, crc32, JSON. */
export function encodeHeader(header: Header): Buffer {
  const page = Buffer.alloc(HEADER_BYTES)
  const json = Buffer.from(JSON.stringify(header))
  if (json.length > HEADER_BYTES - 20)
    throw new Error('too many segment sinks for one spool: their targets do not fit into the header of a segment')
  FILE_MAGIC.copy(page)
  page.writeUInt32LE(FORMAT, 8)
  page.writeUInt32LE(json.length, 16)
  json.copy(page, 20)
  page.writeUInt32LE(crc32(page.subarray(16), crc32(page.subarray(0, 12))), 12)
  return page
}

export function decodeHeader(page: Buffer): Header | { readonly newer: number } | undefined {
  if (page.length < HEADER_BYTES || !page.subarray(0, 8).equals(FILE_MAGIC)) return undefined
  if (page.readUInt32LE(12) !== crc32(page.subarray(16, HEADER_BYTES), crc32(page.subarray(0, 12)))) return undefined
  const version = page.readUInt32LE(8)
  if (version > FORMAT) return { newer: version }
  try {
    return JSON.parse(page.toString('utf8', 20, 20 + page.readUInt32LE(16))) as Header
  } catch {
    return undefined /* no better than a wrong checksum */
  }
}

export interface RecordedGap extends Gap {
  readonly source: string
  /** Sequence of the next record at that time. */
  readonly sequence: number
}
/**
 * Bytes of a segment that are passed over, and the records that were lost with them (none where `first` equals `next`).
 */
export interface Hole {
  readonly from: number
  readonly to: number
  readonly first: number
  readonly next: number
}

export interface Seal {
  /** Empty where no segment sink was there at sealing. */
  readonly sinks: Readonly<
    Record<string, { readonly key: string; readonly target: string; readonly compression: Compression }>
  >
  readonly framing: 'lines' | 'envelope'
  /** Of the uncompressed object bytes; '' and 0 without segment sinks. */
  readonly sha256: string
  readonly length: number
  readonly count: number
  readonly first: number
  readonly next: number
  /** End of the last frame in the file. */
  readonly end: number
  readonly receivedFirst: number
  readonly receivedLast: number
  readonly sealedAt: number
  readonly sources: readonly {
    readonly id: string
    readonly received: number
    readonly partitions: readonly (readonly [name: string, last: string])[]
  }[]
  readonly gaps: readonly RecordedGap[]
  readonly holes: readonly Hole[]
  /** Present where not all sources, positions or gaps fitted: how many were left out. The frames have them. */
  readonly omitted?: number
}

/** At most SEAL_BYTES; what does not fit is left out, the longest lists first. */
export function encodeSeal(seal: Seal, seed: number): Buffer {
  for (let fit = seal, dropped = 0; ; ) {
    const json = Buffer.from(JSON.stringify(fit))
    if (json.length <= SEAL_BYTES - 12) {
      const block = Buffer.alloc(SEAL_BYTES)
      SEAL_MAGIC.copy(block)
      block.writeUInt32LE(json.length, 4)
      json.copy(block, 12)
      block.writeUInt32LE(crc32(block.subarray(12, 12 + json.length), crc32(block.subarray(0, 8), seed)), 8)
      return block
    }
    const positions = fit.sources.reduce((sum, source) => sum + source.partitions.length, 0)
    if (positions + fit.gaps.length === 0)
      throw new Error('the keys of the segment sinks do not fit into the seal block of a segment')
    dropped += positions - Math.floor(positions / 2) + fit.gaps.length - Math.floor(fit.gaps.length / 2)
    fit = {
      ...fit,
      sources: fit.sources
        .map((source) => ({
          ...source,
          partitions: source.partitions.slice(0, Math.floor(source.partitions.length / 2)),
        }))
        .filter((source) => source.partitions.length > 0),
      gaps: fit.gaps.slice(0, Math.floor(fit.gaps.length / 2)),
      omitted: dropped,
    }
  }
}

export function decodeSeal(block: Buffer, seed: number): Seal | undefined {
  if (block.length < SEAL_BYTES || !block.subarray(0, 4).equals(SEAL_MAGIC)) return undefined
  const length = block.readUInt32LE(4)
  if (length > SEAL_BYTES - 12) return undefined
  if (block.readUInt32LE(8) !== crc32(block.subarray(12, 12 + length), crc32(block.subarray(0, 8), seed)))
    return undefined
  try {
    return JSON.parse(block.toString('utf8', 12, 12 + length)) as Seal
  } catch {
    return undefined /* no better than a wrong checksum */
  }
}

/** A frame but for what is known only at writing: how much of its segment is durable. */
export interface Draft {
  readonly encoding: number
  readonly flags: number
  readonly first: number
  readonly count: number
  readonly receivedAt: number
  readonly positions: Buffer
  readonly payload: readonly Buffer[]
  /** Of positions and payload. */
  readonly bodyCrc: number
  /** Bytes of the whole frame. */
  readonly length: number
}

export function draft(frame: Omit<Draft, 'bodyCrc' | 'length'>, seed: number): Draft {
  let crc = crc32(frame.positions, seed)
  let length = FRAME_HEAD + frame.positions.length
  for (const chunk of frame.payload) {
    crc = crc32(chunk, crc)
    length += chunk.length
  }
  if (length >= TWO32) throw new Error('a record above 4 GiB cannot be spooled')
  return { ...frame, bodyCrc: crc, length }
}

/**
 * Writes the 48 bytes of a frame's head at `at`. The checksum covers positions, payload and the head but for itself, in
 * this order.
 */
export function writeHead(into: Buffer, at: number, frame: Draft, durable: number): void {
  into.writeUInt32LE(FRAME_MAGIC_NUMBER, at)
  into.writeUInt32LE(frame.length, at + 4)
  into.writeUInt32LE(frame.encoding | (frame.flags << 8), at + 12)
  writeU64(into, frame.first, at + 16)
  into.writeUInt32LE(frame.count, at + 24)
  into.writeUInt32LE(frame.positions.length, at + 28)
  into.writeDoubleLE(frame.receivedAt, at + 32)
  writeU64(into, durable, at + 40)
  into.writeUInt32LE(
    crc32(into.subarray(at + 12, at + FRAME_HEAD), crc32(into.subarray(at, at + 8), frame.bodyCrc)),
    at + 8,
  )
}

export interface Head {
  readonly length: number
  readonly crc: number
  readonly encoding: number
  readonly flags: number
  readonly first: number
  readonly count: number
  readonly positionsLength: number
  readonly receivedAt: number
  readonly durable: number
}

/** The head at `at`, of which 48 bytes must be there; undefined where it cannot be one. */
export function readHead(from: Buffer, at: number): Head | undefined {
  if (from.readUInt32LE(at) !== FRAME_MAGIC_NUMBER) return undefined
  const length = from.readUInt32LE(at + 4)
  const kind = from.readUInt32LE(at + 12)
  const positionsLength = from.readUInt32LE(at + 28)
  const first = readU64(from, at + 16)
  const encoding = kind & 0xff
  if (encoding > ENTRIES || kind > 0xffff || FRAME_HEAD + positionsLength > length || !Number.isSafeInteger(first))
    return undefined
  return {
    length,
    crc: from.readUInt32LE(at + 8),
    encoding,
    flags: kind >>> 8,
    first,
    count: from.readUInt32LE(at + 24),
    positionsLength,
    receivedAt: from.readDoubleLE(at + 32),
    durable: readU64(from, at + 40),
  }
}

/** Tells whether the bytes of a whole frame are those that were written. */
export function sound(frame: Buffer, head: Head, seed: number): boolean {
  return (
    head.crc ===
    crc32(
      frame.subarray(12, FRAME_HEAD),
      crc32(frame.subarray(0, 8), crc32(frame.subarray(FRAME_HEAD, head.length), seed)),
    )
  )
}

/** Where a frame's records came from, and the position after its last one. */
export interface FramePosition {
  readonly source: string
  readonly partition: string
  readonly last: string
}

export function encodeFramePosition(place: FramePosition): Buffer {
  const source = Buffer.byteLength(place.source)
  const partition = Buffer.byteLength(place.partition)
  const last = Buffer.byteLength(place.last)
  const block = Buffer.allocUnsafe(12 + source + partition + last)
  block.writeUInt32LE(source, 0)
  block.writeUInt32LE(partition, 4)
  block.writeUInt32LE(last, 8)
  block.write(place.source, 12)
  block.write(place.partition, 12 + source)
  block.write(place.last, 12 + source + partition)
  return block
}

export function decodeFramePosition(block: Buffer): FramePosition {
  const partitionAt = 12 + block.readUInt32LE(0)
  const lastAt = partitionAt + block.readUInt32LE(4)
  return {
    source: block.toString('utf8', 12, partitionAt),
    partition: block.toString('utf8', partitionAt, lastAt),
    last: block.toString('utf8', lastAt, lastAt + block.readUInt32LE(8)),
  }
}

function writeU64(into: Buffer, value: number, at: number): void {
  into.writeUInt32LE(value % TWO32, at)
  into.writeUInt32LE(Math.floor(value / TWO32), at + 4)
}
function readU64(from: Buffer, at: number): number {
  return from.readUInt32LE(at) + from.readUInt32LE(at + 4) * TWO32
}
