/**
 * Makes frames of an append that are ready to be written. It does so at the call, while the disk is busy with the group
 * before.
 */
import { entrySize } from '../core/batch'
import type { Entry, Gap } from '../core/contract'
import type { SpoolRecords } from '../core/flow/ports'
import { encodeEntries } from './entries'
import { CONTINUED, draft, encodeFramePosition, ENTRIES, GAP, LINES, type Draft, type FramePosition } from './format'
import { framingOf, objectBytes, type SpoolContext } from './segment'

const NEWLINE = 0x0a

/**
 * All of an append or none survives a crash: its frames lie in one segment and all but the last say that more follows.
 */
export interface AppendItem {
  readonly first: number
  readonly next: number
  readonly count: number
  readonly receivedAt: number
  readonly place: FramePosition
  readonly gap?: Gap
  readonly frames: readonly Draft[]
  /** Bytes on disk. */
  readonly bytes: number
  /** The bytes of the records in an object; empty without segment sinks. */
  readonly object: readonly Buffer[]
  readonly objectLength: number
  resolve(): void
  reject(error: Error): void
}
export type Settle = Pick<AppendItem, 'resolve' | 'reject'>

interface ItemPart {
  readonly count: number
  readonly payload: readonly Buffer[]
  readonly last: string
}

export function recordsItem(context: SpoolContext, records: SpoolRecords, first: number, settle: Settle): AppendItem {
  const { source, batch, last, receivedAt } = records
  const partition = records.partition.name
  const encoding = batch.form === 'lines' ? LINES : ENTRIES
  const parts =
    encoding === LINES
      ? lineParts(batch.lines().chunks, batch.count, records, context.frameBytes)
      : entryParts(batch.entries(), records, context.frameBytes)
  const frames: Draft[] = []
  const object: Buffer[] = []
  let at = first
  parts.forEach((part, index) => {
    const final = index === parts.length - 1
    const place = { source, partition, last: final ? last : part.last }
    const frame = draft(
      {
        encoding,
        flags: final ? 0 : CONTINUED,
        first: at,
        count: part.count,
        receivedAt,
        positions: encodeFramePosition(place),
        payload: part.payload,
      },
      context.seed,
    )
    frames.push(frame)
    if (context.policies.length > 0 && part.count > 0) object.push(...objectOf(context, frame, place))
    at += part.count
  })
  return finished(
    { first, next: at, count: at - first, receivedAt, place: { source, partition, last }, frames, object },
    settle,
  )
}

export function gapItem(
  context: SpoolContext,
  source: string,
  gap: Gap,
  first: number,
  receivedAt: number,
  settle: Settle,
): AppendItem {
  const place = { source, partition: gap.partition, last: '' }
  const frame = draft(
    {
      encoding: GAP,
      flags: 0,
      first,
      count: 0,
      receivedAt,
      positions: encodeFramePosition(place),
      payload: [Buffer.from(JSON.stringify(gap))],
    },
    context.seed,
  )
  return finished({ first, next: first, count: 0, receivedAt, place, gap, frames: [frame], object: [] }, settle)
}

/** Makes the item of a position that moved without records. */
export function progressItem(
  context: SpoolContext,
  place: FramePosition,
  first: number,
  receivedAt: number,
  settle: Settle,
): AppendItem {
  const frame = draft(
    { encoding: LINES, flags: 0, first, count: 0, receivedAt, positions: encodeFramePosition(place), payload: [] },
    context.seed,
  )
  return finished({ first, next: first, count: 0, receivedAt, place, frames: [frame], object: [] }, settle)
}

function finished(item: Omit<AppendItem, 'bytes' | 'objectLength' | 'resolve' | 'reject'>, settle: Settle): AppendItem {
  let bytes = 0
  for (const frame of item.frames) bytes += frame.length
  let objectLength = 0
  for (const chunk of item.object) objectLength += chunk.length
  return { ...item, bytes, objectLength, resolve: settle.resolve, reject: settle.reject }
}

function objectOf(context: SpoolContext, frame: Draft, place: FramePosition): readonly Buffer[] {
  if (frame.encoding === LINES && framingOf(context) === 'lines') return frame.payload
  // Rendered from the bytes that go to disk, so that it cannot differ from what is rendered when they are read again.
  const payload = frame.payload.length === 1 ? (frame.payload[0] ?? Buffer.alloc(0)) : Buffer.concat(frame.payload)
  return objectBytes(context, framingOf(context), {
    head: { ...frame, crc: 0, durable: 0, positionsLength: frame.positions.length },
    place,
    payload,
  })
}

function lineParts(chunks: readonly Buffer[], count: number, records: SpoolRecords, most: number): readonly ItemPart[] {
  let bytes = 0
  for (const chunk of chunks) bytes += chunk.length
  if (bytes <= most || count <= 1) return [{ count, payload: chunks, last: records.last }]
  const parts: ItemPart[] = []
  let payload: Buffer[] = []
  let size = 0
  let done = 0
  const cut = (): void => {
    let lines = 0
    for (const chunk of payload)
      for (let at = chunk.indexOf(NEWLINE); at !== -1; at = chunk.indexOf(NEWLINE, at + 1)) lines++
    done += lines
    parts.push({ count: lines, payload, last: records.at(done - 1) })
    payload = []
    size = 0
  }
  for (const chunk of chunks) {
    for (let from = 0; from < chunk.length; ) {
      const room = most - size
      // Up to the last newline that fits, or, where one record alone is larger, to its end.
      let end = chunk.length - from <= room ? chunk.length : chunk.lastIndexOf(NEWLINE, from + room - 1) + 1
      if (end <= from) {
        if (size > 0) {
          cut()
          continue
        }
        end = chunk.indexOf(NEWLINE, from) + 1
        if (end === 0) end = chunk.length
      }
      payload.push(chunk.subarray(from, end))
      size += end - from
      from = end
      if (size >= most) cut()
    }
  }
  if (size > 0) cut()
  return parts
}

function entryParts(entries: readonly Entry[], records: SpoolRecords, most: number): readonly ItemPart[] {
  if (entries.length === 0) return [{ count: 0, payload: [], last: records.last }]
  const parts: ItemPart[] = []
  for (let from = 0; from < entries.length; ) {
    let to = from
    let size = 0
    while (to < entries.length && (to === from || size < most)) size += entrySize(entries[to++] ?? { value: null })
    const offset = from
    parts.push({
      count: to - from,
      payload: [encodeEntries(entries.slice(from, to), (index) => records.at(index + offset), size)],
      last: records.at(to - 1),
    })
    from = to
  }
  return parts
}
