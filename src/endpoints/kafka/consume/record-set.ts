/**
 * Decodes the answer to a fetch: record batches one after the other. Each is checked once and then left as it is.
 *
 * - A batch that is cut off at the end is skipped: the next fetch brings it whole.
 * - Records below the requested offset are left out (a batch is always sent whole), and so are control batches. With
 *   `committedOnly` records of aborted transactions are left out, by the list that comes with the records and the abort
 *   markers among them.
 * - Offsets may have holes (compaction, markers). `next` lies beyond everything that was decoded.
 */
import { blocksOf, type Block } from './block'
import { checksum } from '../protocol/checksum'
import { decompressRecords } from '../protocol/compression'
import {
  ATTRIBUTES_AT,
  batchSize,
  CRC_AT,
  Damaged,
  HEADER_BYTES,
  readHead,
  type BatchHead,
} from '../protocol/record-batch'
import { VarintReader } from '../protocol/varint'
import type { FetchResult } from '../protocol/cluster'

/** Bytes that a batch may grow to: producers compress at most what they hold, which is megabytes. */
const MAX_DECOMPRESSED_BYTES = 512 * 1024 * 1024
const ABORT = 0

export interface DecodeOptions {
  /** Offset from which on records are wanted. */
  readonly from: number
  /** No record can be there or beyond. */
  readonly before: number
  readonly committedOnly: boolean
  readonly aborted: FetchResult['aborted']
  /** Bytes of records after which a block is cut. */
  readonly blockBytes: number
}
export interface RecordSet {
  readonly blocks: readonly Block[]
  /** Offset to ask for next. */
  readonly next: number
  /** Bytes of the first batch, where not even that is there as a whole: so many have to be asked for. 0: it is. */
  readonly truncatedBytes: number
}

/** @throws Damaged, Unreadable */
export async function decodeRecordSet(records: Buffer, options: DecodeOptions): Promise<RecordSet> {
  const wanted: { readonly head: BatchHead; readonly at: number }[] = []
  const transactions = options.committedOnly ? new AbortedTransactions(options.aborted) : undefined
  let next = options.from
  let after = 0
  let at = 0
  for (let size = batchSize(records, at); size > 0 && size <= records.length - at; size = batchSize(records, at)) {
    const head = readHead(records, at)
    if (checksum([records.subarray(at + ATTRIBUTES_AT, at + size)]) !== records.readUInt32BE(at + CRC_AT))
      throw new Damaged(`the record batch at offset ${head.baseOffset} has a wrong checksum`)
    // Base offsets are not under the checksum.
    if (head.baseOffset < after)
      throw new Damaged(`the offsets of record batches are not in order (${head.baseOffset} after ${after - 1})`)
    if (head.lastOffset >= options.before)
      throw new Damaged(
        `a record batch reaches to offset ${head.lastOffset}, beyond the end of its partition (${options.before})`,
      )
    const aborted = transactions?.isAborted(head, records, at) === true
    if (head.lastOffset >= options.from && !head.control && !aborted && head.count > 0) wanted.push({ head, at })
    after = head.lastOffset + 1
    next = Math.max(next, after)
    at += size
  }
  const blocks: Block[] = []
  const sections = await Promise.all(wanted.map(({ head, at: from }) => recordsOf(records, head, from)))
  wanted.forEach(({ head }, index) => {
    const bytes = sections[index]
    if (bytes !== undefined) blocks.push(...blocksOf({ bytes, start: 0, head }, options.from, options.blockBytes))
  })
  return {
    blocks,
    next,
    truncatedBytes: at === 0 && records.length > 0 ? Math.max(batchSize(records, 0), HEADER_BYTES) : 0,
  }
}

async function recordsOf(records: Buffer, head: BatchHead, at: number): Promise<Buffer> {
  const packed = records.subarray(at + HEADER_BYTES, at + head.size)
  return head.codec === 'none' ? packed : decompressRecords(head.codec, packed, MAX_DECOMPRESSED_BYTES)
}

/**
 * Tracks the producers that are within an aborted transaction while batches are decoded in order. The broker lists the
 * transactions that overlap its answer, in no order.
 */
class AbortedTransactions {
  private readonly upcoming: FetchResult['aborted'][number][]
  private readonly open = new Set<bigint>()

  constructor(aborted: FetchResult['aborted']) {
    this.upcoming = aborted.toSorted((a, b) => a.firstOffset - b.firstOffset)
  }

  isAborted(head: BatchHead, records: Buffer, at: number): boolean {
    for (
      let first = this.upcoming[0];
      first !== undefined && first.firstOffset <= head.lastOffset;
      first = this.upcoming[0]
    ) {
      this.open.add(first.producerId)
      this.upcoming.shift()
    }
    // A marker ends the producer's transaction; of one that began before what was asked for only the marker may be
    // here.
    if (head.control) {
      if (controlType(head, records, at) === ABORT) this.open.delete(head.producerId)
      return false
    }
    return head.transactional && this.open.has(head.producerId)
  }
}

/** Of a control batch's only record: its key is a version and a type, 16 bits each. undefined: none of a known form. */
function controlType(head: BatchHead, records: Buffer, at: number): number | undefined {
  if (head.codec !== 'none' || head.count === 0) return undefined
  const reader = new VarintReader(records, at + HEADER_BYTES, at + head.size)
  try {
    reader.int()
    reader.byte()
    reader.long()
    reader.int()
    if (reader.int() < 4) return undefined
    return records.readInt16BE(reader.skip(4) + 2)
  } catch (error) {
    if (error instanceof RangeError) throw new Damaged('a control record cannot be read', { cause: error })
    throw error
  }
}
