/**
 * Records of one batch as they were sent: a buffer and where its values lie. Lines and entries are made of it on
 * demand.
 *
 * Everything is checked once, when the block is made; what is made of it later cannot fail.
 */
import type { Batch, Entry, Lines, Refusal } from '../../../core/contract'
import { countNewlines } from '../../../kit/lines'
import { BufferPool } from '../protocol/buffer-pool'
import { Damaged, type BatchHead } from '../protocol/record-batch'
import { VarintReader } from '../protocol/varint'

const NEWLINE = 0x0a
/** Length, attributes, timestamp, offset, key, value, headers: a byte each at the least. */
const MIN_RECORD_BYTES = 7

/** Where the records of a batch are, and what they have in common. */
export interface Section {
  readonly bytes: Buffer /** Of the first record. */
  readonly start: number
  readonly head: BatchHead
}

export class Block {
  /**
   * @param start byte of the first record
   * @param values start and length of each value, one after the other; length -1: null
   * @param valueBytes of all values @param bytes of values, keys and headers
   * @param deltas offset of each record less the batch's base, where they are not one after the other
   */
  constructor(
    private readonly section: Section,
    private readonly start: number,
    readonly values: Int32Array,
    readonly count: number,
    readonly valueBytes: number,
    readonly bytes: number,
    private readonly firstDelta: number,
    private readonly deltas: Int32Array | undefined,
  ) {}

  get source(): Buffer {
    return this.section.bytes
  }
  get size(): number {
    return this.section.bytes.length
  }

  offset(index: number): number {
    return this.section.head.baseOffset + (this.deltas?.[index] ?? this.firstDelta + index)
  }

  /** The records below an offset; undefined where there are none. */
  below(offset: number): Block | undefined {
    let count = 0
    let valueBytes = 0
    for (; count < this.count && this.offset(count) < offset; count++)
      valueBytes += Math.max(0, this.values[2 * count + 1] as number)
    if (count === this.count) return this
    // Bytes of keys and headers in proportion: they are only counted.
    return count === 0
      ? undefined
      : new Block(
          this.section,
          this.start,
          this.values.subarray(0, 2 * count),
          count,
          valueBytes,
          valueBytes + Math.round(((this.bytes - this.valueBytes) * count) / this.count),
          this.firstDelta,
          this.deltas,
        )
  }

  /** Appends the records as entries, views into the buffer. */
  entries(into: Entry[]): void {
    const { bytes, head } = this.section
    const reader = new VarintReader(bytes, this.start, bytes.length)
    for (let index = 0; index < this.count; index++) {
      reader.int()
      reader.byte()
      const timestamp = head.appendTime ?? head.baseTimestamp + reader.long()
      if (head.appendTime !== undefined) reader.long()
      reader.int()
      const key = field(reader)
      const value = field(reader)
      const headers = headersOf(reader)
      into.push({
        value,
        ...(key === null ? {} : { key }),
        ...(headers === undefined ? {} : { headers }),
        ...(timestamp < 0 ? {} : { timestamp }),
      })
    }
  }
}

function field(reader: VarintReader): Buffer | null {
  const length = reader.int()
  if (length < 0) return null
  const from = reader.skip(length)
  return reader.bytes.subarray(from, from + length)
}

function headersOf(reader: VarintReader): (readonly [string, Buffer | null])[] | undefined {
  const count = reader.int()
  if (count === 0) return undefined
  const headers: (readonly [string, Buffer | null])[] = []
  for (let left = count; left > 0; left--) {
    const length = reader.int()
    const from = reader.skip(length)
    headers.push([reader.bytes.toString('utf8', from, from + length), field(reader)])
  }
  return headers
}

/**
 * Cuts the records of a batch into blocks of about `most` bytes of values, keys and headers.
 * @param from offset below which records are left out
 * @throws Damaged
 */
export function blocksOf(section: Section, from: number, maxBytes: number): readonly Block[] {
  const { head, bytes } = section
  if (head.count > (bytes.length - section.start) / MIN_RECORD_BYTES)
    throw new Damaged('a record batch says that it holds more records than its bytes can be')
  try {
    return scan(section, from - head.baseOffset, maxBytes)
  } catch (error) {
    if (error instanceof RangeError) throw new Damaged(error.message, { cause: error })
    throw error
  }
}

function scan(section: Section, least: number, maxBytes: number): readonly Block[] {
  const { bytes, head } = section
  const reader = new VarintReader(bytes, section.start, bytes.length)
  const blocks: Block[] = []
  const maxDelta = head.lastOffset - head.baseOffset
  let values = new Int32Array(2 * head.count)
  let start = reader.at
  let kept = 0
  let valueBytes = 0
  let size = 0
  let first = 0
  let before = -1
  let deltas: number[] | undefined
  const cut = (): void => {
    if (kept > 0)
      blocks.push(
        new Block(
          section,
          start,
          values.subarray(0, 2 * kept),
          kept,
          valueBytes,
          size,
          first,
          deltas === undefined ? undefined : Int32Array.from(deltas),
        ),
      )
    values = values.subarray(2 * kept)
    kept = valueBytes = size = 0
    deltas = undefined
  }
  for (let index = 0; index < head.count; index++) {
    const begin = reader.at
    const length = reader.int()
    const end = reader.at + length
    if (length < 0 || end > bytes.length) throw new Damaged('a record is longer than its batch')
    reader.byte()
    reader.long()
    const delta = reader.int()
    if (delta <= before || delta > maxDelta) throw new Damaged('the offsets of a record batch are not in order')
    before = delta
    const keyLength = reader.int()
    if (keyLength > 0) reader.skip(keyLength)
    const valueLength = reader.int()
    const value = valueLength > 0 ? reader.skip(valueLength) : reader.at
    const headersAt = reader.at
    const headers = reader.int()
    if (headers !== 0) skipHeaders(reader, headers)
    if (reader.at !== end) throw new Damaged('a record is not as long as it says')
    if (delta < least) continue
    if (kept === 0) {
      start = begin
      first = delta
    }
    if (deltas !== undefined) deltas.push(delta)
    else if (delta !== first + kept) {
      deltas = Array.from({ length: kept }, (_, at) => first + at)
      deltas.push(delta)
    }
    values[2 * kept] = value
    values[2 * kept + 1] = valueLength < 0 ? -1 : valueLength
    kept++
    valueBytes += valueLength > 0 ? valueLength : 0
    size += (valueLength > 0 ? valueLength : 0) + (keyLength > 0 ? keyLength : 0) + reader.at - headersAt - 1
    if (size >= maxBytes) cut()
  }
  if (reader.at !== bytes.length) throw new Damaged('after the last record of a batch something else follows')
  cut()
  return blocks
}

function skipHeaders(reader: VarintReader, count: number): void {
  if (count < 0) throw new Damaged('a record has a negative number of headers')
  for (let left = count; left > 0; left--) {
    reader.skip(reader.int())
    const length = reader.int()
    if (length > 0) reader.skip(length)
  }
}

/** Blocks one after the other as one batch. */
export class BlockBatch implements Batch {
  readonly form = 'entries'
  readonly count: number
  readonly bytes: number
  readonly retained: number
  private readonly valueBytes: number
  private madeLines: Lines | undefined
  private madeEntries: readonly Entry[] | undefined
  /** Of the memory that is used again. */
  private pooledBuffer: Buffer | undefined

  constructor(
    readonly blocks: readonly Block[],
    private readonly pool = new BufferPool(),
  ) {
    let count = 0
    let bytes = 0
    let valueBytes = 0
    let retained = 0
    let last: Buffer | undefined
    for (const block of blocks) {
      count += block.count
      bytes += block.bytes
      valueBytes += block.valueBytes
      // A large batch is cut into blocks that share its buffer, each of which keeps all of it alive: counted in shares.
      retained +=
        block.source === last || blocks.length > 1 ? Math.min(block.size, block.bytes + 32 * block.count) : block.size
      last = block.source
    }
    this.count = count
    this.bytes = bytes
    this.valueBytes = valueBytes
    // Lines, once they are made, are a copy.
    this.retained = retained + valueBytes + count
  }

  /** Offset of a record. */
  offset(index: number): number {
    let rest = index
    for (const block of this.blocks) {
      if (rest < block.count) return block.offset(rest)
      rest -= block.count
    }
    throw new RangeError(`no record ${index} in a batch of ${this.count}`)
  }

  entries(): readonly Entry[] {
    if (this.madeEntries === undefined) {
      const made: Entry[] = []
      for (const block of this.blocks) block.entries(made)
      this.madeEntries = made
    }
    return this.madeEntries
  }

  lines(): Lines {
    return (this.madeLines ??= this.joinValues() ?? this.joinCheckedValues())
  }

  /** Nobody looks at the lines any more. */
  release(): void {
    if (this.pooledBuffer !== undefined) this.pool.release(this.pooledBuffer)
    this.pooledBuffer = undefined
  }

  /** Undefined where some value has a newline inside, which is seen by counting them all at once. */
  private joinValues(): Lines | undefined {
    const lines = this.joinInto((this.pooledBuffer = this.pool.acquire(this.valueBytes + this.count)), false)
    return lines.chunks.reduce((sum, chunk) => sum + countNewlines(chunk), 0) === lines.count ? lines : undefined
  }

  private joinCheckedValues(): Lines {
    return this.joinInto(Buffer.allocUnsafeSlow(this.valueBytes + this.count), true)
  }

  /** All values behind one another. @param look into each, and name those that have a newline inside */
  private joinInto(out: Buffer, checkNewlines: boolean): Lines {
    const refused: Refusal[] = []
    let to = 0
    let index = 0
    for (const { source, values, count } of this.blocks) {
      for (let at = 0; at < 2 * count; at += 2, index++) {
        const from = values[at] as number
        const length = values[at + 1] as number
        if (length < 0) {
          refused.push({ index, why: 'a null value has no line' })
          continue
        }
        if (checkNewlines && length > 1 && source.subarray(from, from + length - 1).includes(NEWLINE)) {
          refused.push({ index, why: 'a newline inside the value' })
          continue
        }
        source.copy(out, to, from, from + length)
        to += length
        // One newline at the end of a value is taken as the terminator that lines need anyway.
        if (length === 0 || out[to - 1] !== NEWLINE) out[to++] = NEWLINE
      }
    }
    return { chunks: to === 0 ? [] : [out.subarray(0, to)], bytes: to, count: this.count - refused.length, refused }
  }
}
