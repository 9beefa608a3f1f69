/**
 * The head of a record batch, format v2 ("magic 2"), as brokers store and send it (Kafka protocol guide, "Record
 * Batch"). Big-endian.
 *
 * The checksum covers everything from the attributes on. What stands before it is the broker's own and unguarded: base
 * offset, length, leader epoch.
 */
export const HEADER_BYTES = 61
export const MAGIC_AT = 16
export const CRC_AT = 17
export const ATTRIBUTES_AT = 21
export const LAST_DELTA_AT = 23
export const BASE_TIMESTAMP_AT = 27
export const PRODUCER_ID_AT = 43
export const PRODUCER_EPOCH_AT = 51
export const BASE_SEQUENCE_AT = 53
/** Base offset and length: the length counts what follows them. */
export const PREFIX_BYTES = 12

/** By their number in the attributes. */
export const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const
export type Codec = (typeof CODECS)[number]

const LOG_APPEND_TIME = 8
const TRANSACTIONAL = 16
const CONTROL = 32

/** Bytes that are no record batch, or not the one that was written: `message` is a clause about them. */
export class Damaged extends Error {}
/** A record batch that is sound and yet not for us; no waiting helps. `message` is a clause. */
export class Unreadable extends Error {}

export interface BatchHead {
  /** Bytes of the whole batch. */
  readonly size: number
  readonly baseOffset: number
  /** Of the last record there was when it was written: compaction may have taken it. */
  readonly lastOffset: number
  readonly codec: Codec
  readonly count: number
  /** Epoch milliseconds; -1: none. */
  readonly baseTimestamp: number
  /** Where the log's own time counts, it is that of every record. */
  readonly appendTime: number | undefined
  readonly producerId: bigint
  readonly transactional: boolean
  readonly control: boolean
}

/** Bytes of the batch that begins at `at`; 0 where not even that can be seen yet. */
export function batchSize(bytes: Buffer, at: number): number {
  if (bytes.length - at < PREFIX_BYTES) return 0
  return PREFIX_BYTES + bytes.readInt32BE(at + 8)
}

/** Of a batch that is there as a whole; its checksum is not looked at. */
export function readHead(bytes: Buffer, at: number): BatchHead {
  const size = batchSize(bytes, at)
  const magic = size > MAGIC_AT ? (bytes[at + MAGIC_AT] ?? 0) : -1
  if (magic === 0 || magic === 1)
    throw new Unreadable(
      `its messages are in format ${magic}, of before Kafka 0.11, which is not read; a topic that is rewritten (by a compaction, or by copying it) has the present one`,
    )
  if (magic !== 2 || size < HEADER_BYTES) throw new Damaged('what is there is no record batch')
  const attributes = bytes.readInt16BE(at + ATTRIBUTES_AT)
  const codec = CODECS[attributes & 7]
  if (codec === undefined)
    throw new Unreadable(`it is compressed by a method (${attributes & 7}) that is not known here`)
  const baseOffset = long(bytes, at)
  const lastDelta = bytes.readInt32BE(at + LAST_DELTA_AT)
  const count = bytes.readInt32BE(at + BASE_SEQUENCE_AT + 4)
  if (lastDelta < 0 || count < 0 || count > lastDelta + 1 || baseOffset < 0)
    throw new Damaged('the head of a record batch contradicts itself')
  return {
    size,
    baseOffset,
    lastOffset: baseOffset + lastDelta,
    codec,
    count,
    baseTimestamp: long(bytes, at + BASE_TIMESTAMP_AT),
    appendTime: (attributes & LOG_APPEND_TIME) === 0 ? undefined : long(bytes, at + BASE_TIMESTAMP_AT + 8),
    producerId: bytes.readBigInt64BE(at + PRODUCER_ID_AT),
    transactional: (attributes & TRANSACTIONAL) !== 0,
    control: (attributes & CONTROL) !== 0,
  }
}

/** 64 bits, exact up to 2^53. */
function long(bytes: Buffer, at: number): number {
  return bytes.readInt32BE(at) * 0x1_0000_0000 + bytes.readUInt32BE(at + 4)
}

/**
 * Offset after the last whole batch of a record set; `from` where there is none. Nothing is checked: what is asked for
 * next is seen before it is decoded.
 */
export function nextOffset(records: Buffer, from: number): number {
  let next = from
  let at = 0
  for (
    let size = batchSize(records, at);
    size >= HEADER_BYTES && size <= records.length - at;
    size = batchSize(records, at)
  ) {
    next = Math.max(next, long(records, at) + records.readInt32BE(at + LAST_DELTA_AT) + 1)
    at += size
  }
  return next
}
