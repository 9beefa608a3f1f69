/**
 * Implements the two forms of a batch. Lines pass through without a look inside. Entries are views into the buffer that
 * a protocol delivered. Either form makes the other one when it is first asked for it, and keeps it.
 */
import type { Batch, Entry, Lines, Refusal } from './contract'

const NEWLINE = 0x0a
const TERMINATOR = Buffer.from('\n')

/** Holds whole newline-terminated records in one buffer, or in several whose boundaries fall between records. */
export class LineBatch implements Batch {
  readonly form = 'lines'
  readonly bytes: number
  readonly retained: number
  private made: readonly Entry[] | undefined

  /** @param retained bytes of the backing memory, if it is more than the chunks themselves */
  constructor(
    readonly chunks: readonly Buffer[],
    readonly count: number,
    retained?: number,
  ) {
    let bytes = 0
    for (const chunk of chunks) bytes += chunk.length
    this.bytes = bytes
    this.retained = retained ?? bytes
  }

  lines(): Lines {
    return { chunks: this.chunks, bytes: this.bytes, count: this.count, refused: [] }
  }

  entries(): readonly Entry[] {
    if (this.made === undefined) {
      const made: Entry[] = []
      for (const chunk of this.chunks) {
        for (let from = 0; from < chunk.length; ) {
          const end = chunk.indexOf(NEWLINE, from)
          made.push({ value: chunk.subarray(from, end) })
          from = end + 1
        }
      }
      this.made = made
    }
    return this.made
  }
}

export class EntryBatch implements Batch {
  readonly form = 'entries'
  readonly count: number
  readonly bytes: number
  private made: Lines | undefined

  /** @param retained bytes of the buffers that the entries are views into */
  constructor(
    private readonly held: readonly Entry[],
    readonly retained: number,
  ) {
    this.count = held.length
    let bytes = 0
    for (const entry of held) bytes += entrySize(entry)
    this.bytes = bytes
  }

  entries(): readonly Entry[] {
    return this.held
  }

  lines(): Lines {
    if (this.made === undefined) {
      const parts: Buffer[] = []
      const refused: Refusal[] = []
      this.held.forEach((entry, index) => {
        if (entry.value === null) {
          refused.push({ index, why: 'a null value has no line' })
          return
        }
        const inner = entry.value.indexOf(NEWLINE)
        // One newline at the end of a value is the terminator that lines need anyway.
        if (inner === -1) parts.push(entry.value, TERMINATOR)
        else if (inner === entry.value.length - 1) parts.push(entry.value)
        else refused.push({ index, why: 'a newline inside the value' })
      })
      const bytes = Buffer.concat(parts)
      this.made = {
        chunks: bytes.length === 0 ? [] : [bytes],
        bytes: bytes.length,
        count: this.held.length - refused.length,
        refused,
      }
    }
    return this.made
  }
}

export const EMPTY: Batch = new LineBatch([], 0)

/**
 * Makes the function for `Delivery.at`. It throws for an index without a record, because that position would be stored
 * as the one of records that nobody took.
 */
export function within<T>(count: number, at: (index: number) => T): (index: number) => T {
  return (index) => {
    if (!Number.isInteger(index) || index < 0 || index >= count)
      throw new RangeError(`of ${count} records none is number ${index}`)
    return at(index)
  }
}

/** Returns the bytes of an entry that limits of destinations count: value, key and headers. */
export function entrySize(entry: Entry): number {
  let size = (entry.value?.length ?? 0) + (entry.key?.length ?? 0)
  if (entry.headers !== undefined) {
    for (const [name, value] of entry.headers)
      size += name.length + (Buffer.isBuffer(value) || typeof value === 'string' ? value.length : 8)
  }
  return size
}

/** Returns the batch without the records at these indexes, which are ascending. */
export function without(batch: Batch, indexes: ReadonlySet<number>): Batch {
  if (indexes.size === 0) return batch
  return only(
    batch,
    Array.from({ length: batch.count }, (_, index) => index).filter((index) => !indexes.has(index)),
  )
}

/** Returns a batch of only these records, in their order. */
export function only(batch: Batch, indexes: readonly number[]): Batch {
  const entries = batch.entries()
  const kept = new EntryBatch(
    indexes.map((index) => entries[index]).filter((entry) => entry !== undefined),
    batch.retained,
  )
  if (batch.form !== 'lines') return kept
  // Records that came as lines stay lines, so that they are stored and framed as the rest of their stream.
  const { chunks, count } = kept.lines()
  return new LineBatch(chunks, count)
}

/** Joins several batches to one. It stays in lines if all of them are lines. */
export function joined(batches: readonly Batch[]): Batch {
  if (batches.length === 1 && batches[0] !== undefined) return batches[0]
  if (batches.some((batch) => batch.form !== 'lines')) return new JoinedBatch(batches)
  return new LineBatch(
    batches.flatMap((batch) => batch.lines().chunks),
    sum(batches, 'count'),
    sum(batches, 'retained'),
  )
}

function sum(batches: readonly Batch[], what: 'count' | 'bytes' | 'retained'): number {
  return batches.reduce((total, batch) => total + batch[what], 0)
}

/** Asks each of its parts, because some of them make lines without an object for each record. */
class JoinedBatch implements Batch {
  readonly form = 'entries'
  readonly count: number
  readonly bytes: number
  readonly retained: number
  private made: readonly Entry[] | undefined

  constructor(private readonly parts: readonly Batch[]) {
    this.count = sum(parts, 'count')
    this.bytes = sum(parts, 'bytes')
    this.retained = sum(parts, 'retained')
  }

  entries(): readonly Entry[] {
    return (this.made ??= this.parts.flatMap((part) => part.entries()))
  }

  lines(): Lines {
    const chunks: Buffer[] = []
    const refused: Refusal[] = []
    let bytes = 0
    let before = 0
    for (const part of this.parts) {
      const lines = part.lines()
      chunks.push(...lines.chunks)
      for (const { index, why } of lines.refused) refused.push({ index: before + index, why })
      bytes += lines.bytes
      before += part.count
    }
    return { chunks, bytes, count: this.count - refused.length, refused }
  }
}
