/**
 * Splits a delivery that is large beside the objects that are made of it, because a segment is sealed between
 * deliveries. It is pure.
 */
import { EntryBatch, entrySize, LineBatch } from '../batch'
import type { Batch, Delivery, Sink } from '../contract'

const NEWLINE = 0x0a
/** An object is larger than it was asked to be by less than this part of it, and one record. */
const PARTS = 8

/** Returns how many bytes a piece has, for these sinks. */
export function splitBytes(sinks: readonly { readonly sink: Pick<Sink, 'segments'> }[]): number {
  const sizes = sinks.map(({ sink }) => sink.segments?.sealBytes ?? 0).filter((bytes) => bytes > 0)
  return Math.max(1, Math.min(...sizes) / PARTS)
}

/**
 * Returns the pieces in order. Each has `most` bytes, or more by less than a record. Invalid records follow the last
 * one.
 */
export function splitDelivery(delivery: Delivery, most: number): readonly Delivery[] {
  const { batch } = delivery
  if (batch.bytes <= most || batch.count <= 1) return [delivery]
  const cut = batch.form === 'lines' ? ofLines(batch.lines().chunks, most) : ofEntries(batch, most)
  const { invalid: _invalid, filtered: _filtered, release: _release, ...each } = delivery
  let from = 0
  return cut.map((part, index) => {
    const offset = from
    from += part.count
    // They are the first ones.
    const doubtful =
      delivery.doubtful === undefined ? {} : { doubtful: Math.min(part.count, Math.max(0, delivery.doubtful - offset)) }
    if (index === cut.length - 1) return { ...delivery, ...doubtful, batch: part, at: (i) => delivery.at(offset + i) }
    return { ...each, ...doubtful, batch: part, last: delivery.at(from - 1), at: (i) => delivery.at(offset + i) }
  })
}

function ofLines(chunks: readonly Buffer[], most: number): readonly Batch[] {
  const found: Batch[] = []
  let held: Buffer[] = []
  let bytes = 0
  let count = 0
  const cut = (): void => {
    found.push(new LineBatch(held, count))
    held = []
    bytes = count = 0
  }
  for (const chunk of chunks) {
    let from = 0
    for (let at = chunk.indexOf(NEWLINE); at !== -1; at = chunk.indexOf(NEWLINE, at + 1)) {
      count++
      if (bytes + at + 1 - from < most) continue
      held.push(chunk.subarray(from, at + 1))
      from = at + 1
      cut()
    }
    if (from < chunk.length) {
      held.push(chunk.subarray(from))
      bytes += chunk.length - from
    }
  }
  if (count > 0) cut()
  return found
}

function ofEntries(batch: Batch, most: number): readonly Batch[] {
  const entries = batch.entries()
  const found: Batch[] = []
  let from = 0
  let bytes = 0
  entries.forEach((entry, index) => {
    bytes += entrySize(entry)
    if (bytes < most && index < entries.length - 1) return
    found.push(new EntryBatch(entries.slice(from, index + 1), (batch.retained * (index + 1 - from)) / entries.length))
    from = index + 1
    bytes = 0
  })
  return found
}
