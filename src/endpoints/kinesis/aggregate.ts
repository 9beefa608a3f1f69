/**
 * Many user records in one of Kinesis, as the Kinesis Producer Library writes them ("KPL Aggregated Record Format",
 * aggregation-format.md of awslabs/amazon-kinesis-producer): the magic number F3 89 9A C2, a protobuf message, and the
 * message's MD5.
 *
 *     AggregatedRecord { repeated string partition_key_table = 1; repeated string explicit_hash_key_table = 2;
 *                        repeated Record records = 3 }
 *     Record { required uint64 partition_key_index = 1; optional uint64 explicit_hash_key_index = 2;
 *              required bytes data = 3; repeated Tag tags = 4 }
 */
import { createHash } from 'node:crypto'
import { Reader, Writer } from 'protobufjs/minimal'

const MAGIC = Buffer.from([0xf3, 0x89, 0x9a, 0xc2])
const DIGEST_BYTES = 16
/** Field numbers and wire types, as they stand before a field. */
const PARTITION_KEY = (1 << 3) | 2
const HASH_KEY = (2 << 3) | 2
const RECORD = (3 << 3) | 2
const KEY_INDEX = 1 << 3
const HASH_INDEX = 2 << 3
const DATA = (3 << 3) | 2

export interface UserRecord {
  readonly partitionKey: string
  readonly explicitHashKey?: string /** A view into the aggregate, where it was taken out of one. */
  readonly data: Buffer
}

/** The user records in their order. undefined: it is no aggregate, also where it only looks like one. */
export function disaggregate(data: Buffer): readonly UserRecord[] | undefined {
  if (data.length < MAGIC.length + DIGEST_BYTES || data.compare(MAGIC, 0, MAGIC.length, 0, MAGIC.length) !== 0)
    return undefined
  const message = data.subarray(MAGIC.length, data.length - DIGEST_BYTES)
  if (
    !createHash('md5')
      .update(message)
      .digest()
      .equals(data.subarray(data.length - DIGEST_BYTES))
  )
    return undefined
  try {
    return decodeMessage(message)
  } catch {
    // The reader throws at what is no protobuf: with the right digest, but not a message of this kind.
    return undefined
  }
}

function decodeMessage(message: Buffer): readonly UserRecord[] | undefined {
  const reader = Reader.create(message)
  const keys: string[] = []
  const hashes: string[] = []
  const found: { readonly key: number; readonly hash: number | undefined; readonly data: Buffer }[] = []
  while (reader.pos < reader.len) {
    const tag = reader.uint32()
    if (tag === PARTITION_KEY) keys.push(reader.string())
    else if (tag === HASH_KEY) hashes.push(reader.string())
    else if (tag === RECORD) {
      const length = reader.uint32()
      const end = reader.pos + length
      if (end > reader.len) return undefined
      let key: number | undefined
      let hash: number | undefined
      let data: Buffer | undefined
      while (reader.pos < end) {
        const field = reader.uint32()
        if (field === KEY_INDEX) key = reader.uint32()
        else if (field === HASH_INDEX) hash = reader.uint32()
        else if (field === DATA) data = reader.bytes() as Buffer
        else reader.skipType(field & 7)
      }
      if (reader.pos !== end || key === undefined || data === undefined) return undefined
      found.push({ key, hash, data })
    } else reader.skipType(tag & 7)
  }
  const records: UserRecord[] = []
  for (const { key, hash, data } of found) {
    const partitionKey = keys[key]
    const explicitHashKey = hash === undefined ? undefined : hashes[hash]
    if (partitionKey === undefined || (hash !== undefined && explicitHashKey === undefined)) return undefined
    records.push({ partitionKey, data, ...(explicitHashKey === undefined ? {} : { explicitHashKey }) })
  }
  return records
}

/** Gathers user records; `size` is what they come to as one record, at most a few bytes more than `encode` gives. */
export class Aggregate {
  private readonly keys = new Map<string, number>()
  private readonly hashes = new Map<string, number>()
  private readonly records: { readonly key: number; readonly hash: number | undefined; readonly data: Buffer }[] = []
  private bytes = MAGIC.length + DIGEST_BYTES

  get size(): number {
    return this.bytes
  }
  get count(): number {
    return this.records.length
  }

  /** Bytes that it would have more with this record. */
  cost({ partitionKey, explicitHashKey, data }: UserRecord): number {
    return (
      fieldSize(data.length) +
      MAX_OVERHEAD +
      (this.keys.has(partitionKey) ? 0 : fieldSize(Buffer.byteLength(partitionKey))) +
      (explicitHashKey === undefined || this.hashes.has(explicitHashKey)
        ? 0
        : fieldSize(Buffer.byteLength(explicitHashKey)))
    )
  }

  add(record: UserRecord): void {
    this.bytes += this.cost(record)
    const { partitionKey, explicitHashKey, data } = record
    this.records.push({
      key: indexIn(this.keys, partitionKey),
      hash: explicitHashKey === undefined ? undefined : indexIn(this.hashes, explicitHashKey),
      data,
    })
  }

  encode(): Buffer {
    const writer = Writer.create()
    for (const key of this.keys.keys()) writer.uint32(PARTITION_KEY).string(key)
    for (const hash of this.hashes.keys()) writer.uint32(HASH_KEY).string(hash)
    for (const { key, hash, data } of this.records) {
      writer.uint32(RECORD).fork().uint32(KEY_INDEX).uint32(key)
      if (hash !== undefined) writer.uint32(HASH_INDEX).uint32(hash)
      writer.uint32(DATA).bytes(data).ldelim()
    }
    const message = writer.finish()
    return Buffer.concat([MAGIC, message, createHash('md5').update(message).digest()])
  }
}

/** Of a record without its data: tag and length, two indices with their tags. */
const MAX_OVERHEAD = 6 + 2 * 6
/** A field of so many bytes, with tag and length. */
function fieldSize(bytes: number): number {
  return 6 + bytes
}

function indexIn(table: Map<string, number>, text: string): number {
  const known = table.get(text)
  if (known !== undefined) return known
  table.set(text, table.size)
  return table.size - 1
}
