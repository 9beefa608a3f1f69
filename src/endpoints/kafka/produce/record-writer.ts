/**
 * Record batches (v2) for producing: records are encoded straight into one buffer, without an object each.
 *
 *     const writer = new RecordWriter(1024 * 1024)
 *     from = writer.addLines(chunk, from, now, mostBytes)     // or writer.add(entry, now)
 *     // [header, records]; compressed in the thread pool where Node can
 *     const batch = await writer.seal('lz4')
 *     // identity and checksum; may be done again for another identity
 *     stampBatch(batch, { id, epoch }, sequence)
 */
import type { Entry, HeaderValue } from '../../../core/contract'
import { checksum } from '../protocol/checksum'
import { compressRecords, type Codec } from '../protocol/compression'
import type { BufferPool } from '../protocol/buffer-pool'
import {
  ATTRIBUTES_AT,
  BASE_SEQUENCE_AT,
  BASE_TIMESTAMP_AT,
  CODECS,
  CRC_AT,
  HEADER_BYTES,
  MAGIC_AT,
  PRODUCER_EPOCH_AT,
  PRODUCER_ID_AT,
} from '../protocol/record-batch'
import { putVarint, varintSize } from '../protocol/varint'
import type { ProducerSession } from '../protocol/cluster'

const NEWLINE = 0x0a
/** Length, attributes, timestamp, offset, key, value's length and header count of a record without key and headers. */
const LINE_OVERHEAD = 5 + 1 + 10 + 5 + 1 + 5 + 1

/** A whole record batch; the first buffer begins with its header. */
export type EncodedBatch = readonly Buffer[]

export class RecordWriter {
  count = 0
  private bytes: Buffer
  private at = HEADER_BYTES
  private base: number | undefined
  private newest = -1

  /**
   * @param capacity bytes to begin with; it grows as needed @param pool where they come from, in place of fresh ones
   */
  constructor(
    capacity: number,
    private readonly pool?: BufferPool,
  ) {
    this.bytes = this.allocate(Math.max(HEADER_BYTES + 64, capacity))
  }

  /** Once it is sealed: the memory that the batch lies in, to be given back when nobody looks at the batch any more. */
  pooledBuffer: Buffer | undefined

  /** Bytes of the batch so far, uncompressed, header included. */
  get size(): number {
    return this.at
  }

  /**
   * Adds lines from an offset of the chunk on, until the batch would be larger than `most` bytes; a first line larger
   * than that is taken all the same.
   * @param chunk whole newline-terminated lines @param timestamp epoch milliseconds, of all of them
   * @returns where the next line begins: the chunk's length when all are in
   */
  addLines(chunk: Buffer, from: number, timestamp: number, maxBytes: number): number {
    const delta = this.delta(timestamp)
    const deltaSize = varintSize(delta)
    let start = from
    while (start < chunk.length) {
      const end = chunk.indexOf(NEWLINE, start)
      const length = (end === -1 ? chunk.length : end) - start
      if (this.count > 0 && this.at + length + LINE_OVERHEAD > maxBytes) break
      this.ensureCapacity(length + LINE_OVERHEAD)
      const { bytes } = this
      let at = putVarint(bytes, this.at, 1 + deltaSize + varintSize(this.count) + 1 + varintSize(length) + length + 1)
      bytes[at++] = 0
      at = putVarint(bytes, at, delta)
      at = putVarint(bytes, at, this.count++)
      bytes[at++] = 1
      at = putVarint(bytes, at, length)
      at += chunk.copy(bytes, at, start, start + length)
      bytes[at++] = 0
      this.at = at
      start += length + 1
    }
    return Math.min(start, chunk.length)
  }

  /** @param now epoch milliseconds for an entry that has no time of its own */
  add(entry: Entry, now: number): void {
    this.put(entry.key, entry.value, entry.headers, entry.timestamp === undefined ? now : Math.floor(entry.timestamp))
  }

  /** One record: the same as `add`, without an entry. */
  put(key: Buffer | undefined, value: Buffer | null, headers: Entry['headers'], timestamp: number): void {
    const delta = this.delta(timestamp)
    const fields = (headers ?? []).map(([name, content]): readonly [Buffer, Buffer | null] => [
      Buffer.from(name),
      headerBytes(content),
    ])
    let size =
      1 + varintSize(delta) + varintSize(this.count) + sizeOf(key ?? null) + sizeOf(value) + varintSize(fields.length)
    for (const [name, content] of fields) size += sizeOf(name) + sizeOf(content)
    this.ensureCapacity(size + 5)
    const { bytes } = this
    let at = putVarint(bytes, this.at, size)
    bytes[at++] = 0
    at = putVarint(bytes, at, delta)
    at = putVarint(bytes, at, this.count++)
    at = putBytes(bytes, at, key ?? null)
    at = putBytes(bytes, at, value)
    at = putVarint(bytes, at, fields.length)
    for (const [name, content] of fields) at = putBytes(bytes, putBytes(bytes, at, name), content)
    this.at = at
  }

  /** The batch without identity and checksum: `stampBatch` gives it both. The writer is used up. */
  async seal(codec: Codec): Promise<EncodedBatch> {
    const plain = this.bytes.subarray(0, this.at)
    const packed = codec === 'none' ? undefined : await compressRecords(codec, plain.subarray(HEADER_BYTES))
    const header = packed === undefined ? plain : Buffer.from(plain.subarray(0, HEADER_BYTES))
    const records = packed ?? plain.subarray(HEADER_BYTES)
    header.fill(0, 0, HEADER_BYTES)
    header.writeInt32BE(HEADER_BYTES - 12 + records.length, 8)
    // No leader epoch: the broker writes its own.
    header.writeInt32BE(-1, 12)
    header[MAGIC_AT] = 2
    header.writeInt16BE(CODECS.indexOf(codec), ATTRIBUTES_AT)
    header.writeInt32BE(this.count - 1, ATTRIBUTES_AT + 2)
    header.writeBigInt64BE(BigInt(this.base ?? -1), BASE_TIMESTAMP_AT)
    header.writeBigInt64BE(BigInt(this.newest), BASE_TIMESTAMP_AT + 8)
    header.writeInt32BE(this.count, BASE_SEQUENCE_AT + 4)
    if (packed === undefined) this.pooledBuffer = this.pool === undefined ? undefined : this.bytes
    else this.pool?.release(this.bytes)
    return packed === undefined ? [plain] : [header, packed]
  }

  private delta(timestamp: number): number {
    if (this.base === undefined) this.base = this.newest = timestamp
    if (timestamp > this.newest) this.newest = timestamp
    return timestamp - this.base
  }

  private ensureCapacity(size: number): void {
    if (this.at + size <= this.bytes.length) return
    const larger = this.allocate(Math.max(this.bytes.length * 2, this.at + size))
    this.bytes.copy(larger, 0, 0, this.at)
    this.pool?.release(this.bytes)
    this.bytes = larger
  }

  private allocate(size: number): Buffer {
    return this.pool?.acquire(size) ?? Buffer.allocUnsafeSlow(size)
  }
}

/** Writes who produced it, the sequence of its first record (-1 both: nobody) and the checksum of all that. */
export function stampBatch(batch: EncodedBatch, identity: ProducerSession, sequence: number): void {
  const header = batch[0]
  if (header === undefined) return
  header.writeBigInt64BE(identity.id, PRODUCER_ID_AT)
  header.writeInt16BE(identity.epoch, PRODUCER_EPOCH_AT)
  header.writeInt32BE(sequence, BASE_SEQUENCE_AT)
  header.writeUInt32BE(checksum([header.subarray(ATTRIBUTES_AT), ...batch.slice(1)]), CRC_AT)
}

function headerBytes(value: HeaderValue): Buffer | null {
  return value === null || Buffer.isBuffer(value) ? value : Buffer.from(String(value))
}

function sizeOf(bytes: Buffer | null): number {
  return bytes === null ? 1 : varintSize(bytes.length) + bytes.length
}

function putBytes(bytes: Buffer, at: number, content: Buffer | null): number {
  if (content === null) return putVarint(bytes, at, -1)
  const from = putVarint(bytes, at, content.length)
  return from + content.copy(bytes, from)
}
