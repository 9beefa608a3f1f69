/**
 * Reads and writes records in a stream of bytes: as lines, or as one JSON envelope a line.
 *
 * A record never becomes two, and two never become one. A record that a framing cannot hold is refused with a reason.
 * Data that cannot be read is kept as an invalid record.
 */
import { createHash } from 'node:crypto'
import { EMPTY, EntryBatch, entrySize, within } from '../core/batch'
import type { Batch, Delivery, Entry, Lines, Origin, Partition, Position, Refusal } from '../core/contract'
import { decodeEnvelope, envelopeBytes, envelopeEncoder, ENVELOPE_LIMIT } from './envelope'
import { HEAD, LineFramer, type Framed, type Framer, type FramerOptions, type InvalidLine } from './line-framer'

export type Framing = 'lines' | 'envelope'
export type Newline = 'reject' | 'space'
export { LineFramer }
export type { Framed, Framer, FramerOptions, InvalidLine }

const NEWLINE = 0x0a
const SPACE = 0x20
const TERMINATOR = Buffer.from('\n')
/** This many characters of envelopes become one buffer. */
const CHUNK_CHARACTERS = 4 * 1024 * 1024

/** Creates the framer of a source. */
export function createFramer(framing: Framing, options: FramerOptions): Framer {
  return framing === 'lines' ? new LineFramer(options) : new EnvelopeFramer(options)
}

/**
 * Makes a delivery of framed records.
 * @param positionOf turns an offset of the stream into a position
 */
export function deliveryOf(framed: Framed, partition: Partition, positionOf: (offset: number) => Position): Delivery {
  return {
    batch: framed.batch,
    partition,
    last: positionOf(framed.to),
    at: within(framed.batch.count, (index) => positionOf(framed.at(index))),
    release: () => {
      framed.release()
    },
    ...(framed.invalid.length === 0
      ? {}
      : { invalid: framed.invalid.map(({ offset, ...rest }) => ({ ...rest, position: positionOf(offset) })) }),
  }
}

class EnvelopeFramer implements Framer {
  private readonly lines: LineFramer
  private readonly maxRecord: number
  /** These records are decoded already, but follow an invalid record. */
  private readonly decoded: Framed[] = []

  constructor(options: FramerOptions) {
    this.maxRecord = options.maxRecord
    this.lines = new LineFramer({ ...options, maxRecord: envelopeBytes(options.maxRecord) })
  }
  get pending(): number {
    return this.lines.pending + this.decoded.length
  }
  get unfinished(): number {
    return this.lines.unfinished
  }
  space(): Buffer {
    return this.lines.space()
  }
  filled(length: number): void {
    this.lines.filled(length)
  }
  push(bytes: Uint8Array): void {
    this.lines.push(bytes)
  }
  take(): Framed | undefined {
    return this.decoded.shift() ?? this.decode(this.lines.take())
  }
  end(): Framed | undefined {
    return this.decoded.shift() ?? this.decode(this.lines.end())
  }

  private decode(framed: Framed | undefined): Framed | undefined {
    if (framed === undefined) return undefined
    let run = new EntryRun(0)
    framed.batch.entries().forEach(({ value: line }, index) => {
      if (line === null) return
      const decoded = decodeEnvelope(line)
      const why =
        'why' in decoded
          ? decoded.why
          : (decoded.entry.value?.length ?? 0) > this.maxRecord
            ? `a record of ${decoded.entry.value?.length ?? 0} bytes is larger than max-record`
            : undefined
      if ('entry' in decoded && why === undefined) {
        if (run.invalid.length > 0) {
          this.decoded.push(run.framed(framed, run.invalid.at(-1)?.offset ?? framed.to))
          run = new EntryRun(index)
        }
        run.add(decoded.entry, line.length)
      } else
        run.invalid.push({
          why: why ?? '',
          offset: framed.at(index),
          head: Buffer.from(line.subarray(0, HEAD)),
          length: line.length,
          sha256: createHash('sha256').update(line).digest('hex'),
        })
    })
    run.invalid.push(...framed.invalid)
    this.decoded.push(run.framed(framed, framed.to))
    return this.decoded.shift()
  }
}

/** Consecutive entries, and the invalid records that follow them. */
class EntryRun {
  readonly invalid: InvalidLine[] = []
  private readonly entries: Entry[] = []
  private retained = 0
  /** @param first is the index of the first entry among the lines */
  constructor(private readonly first: number) {}
  add(entry: Entry, bytes: number): void {
    this.entries.push(entry)
    this.retained += bytes
  }
  framed(lines: Framed, to: number): Framed {
    const { entries, invalid, first } = this
    return {
      batch: entries.length === 0 ? EMPTY : new EntryBatch(entries, this.retained),
      to,
      invalid,
      at: within(entries.length, (index) => lines.at(first + index)),
      release: () => undefined,
    }
  }
}

/**
 * Renders a batch as the bytes that a sink writes.
 * @param originOf is called only for envelopes
 */
export function render(
  batch: Batch,
  framing: Framing,
  newline: Newline,
  originOf: (index: number) => Pick<Origin, 'source' | 'partition' | 'position'>,
): Lines {
  if (framing === 'envelope') return envelopes(batch, originOf)
  const lines = batch.lines()
  return newline === 'space' && lines.refused.length > 0 ? replaceNewlines(batch) : lines
}

function envelopes(
  batch: Batch,
  originOf: (index: number) => Pick<Origin, 'source' | 'partition' | 'position'>,
): Lines {
  const chunks: Buffer[] = []
  const refused: Refusal[] = []
  const encode = envelopeEncoder()
  let text = ''
  let bytes = 0
  const flush = (): void => {
    if (text === '') return
    const chunk = Buffer.from(text)
    chunks.push(chunk)
    bytes += chunk.length
    text = ''
  }
  batch.entries().forEach((entry, index) => {
    if (entrySize(entry) > ENVELOPE_LIMIT) {
      refused.push({ index, why: `a record of ${entrySize(entry)} bytes is too large for an envelope` })
      return
    }
    text += encode(entry, originOf(index))
    if (text.length > CHUNK_CHARACTERS) flush()
  })
  flush()
  return { chunks, bytes, count: batch.count - refused.length, refused }
}

/** A newline at the end of a value stays, because it is the terminator. */
function replaceNewlines(batch: Batch): Lines {
  const parts: Buffer[] = []
  const refused: Refusal[] = []
  batch.entries().forEach(({ value }, index) => {
    if (value === null) {
      refused.push({ index, why: 'a null value has no line' })
      return
    }
    const inner = value.at(-1) === NEWLINE ? value.subarray(0, -1) : value
    const at = inner.indexOf(NEWLINE)
    if (at === -1) {
      parts.push(inner, TERMINATOR)
      return
    }
    const copy = Buffer.from(inner)
    for (let from = at; from !== -1; from = copy.indexOf(NEWLINE, from + 1)) copy[from] = SPACE
    parts.push(copy, TERMINATOR)
  })
  const bytes = Buffer.concat(parts)
  return {
    chunks: bytes.length === 0 ? [] : [bytes],
    bytes: bytes.length,
    count: batch.count - refused.length,
    refused,
  }
}
