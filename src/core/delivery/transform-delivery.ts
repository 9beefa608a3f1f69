/**
 * Takes a delivery from the source to the spool (or the sink): transform, framing, dead letters.
 * Afterwards every record of it is either in the batch that goes on or a dead letter that is confirmed; the order of
 * the source is kept.
 */
import { only, LineBatch, without } from '../batch'
import type { Batch, Delivery, Lines, Position, Refusal } from '../contract'
import type { DeadLetter, DeadLetters } from '../flow/ports'

export interface TransformParts {
  /** The name of the source in letters and transforms. */
  readonly label: string
  /** It adds the members of `--append`. */
  readonly transform:
    | ((
        batch: Batch,
        facts: { readonly source: string },
      ) => { readonly batch: Batch; readonly refused: readonly Refusal[] })
    | undefined
  /** It is there if all sinks want lines, so that nothing else is kept on the way. */
  readonly toLines: ((batch: Batch) => Lines) | undefined
  /** It is there if only some sinks want lines: it names records that cannot be lines, and keeps the entries. */
  readonly refuseInner: ((batch: Batch) => Lines) | undefined
  readonly deadLetters: DeadLetters
}
export interface TransformedDelivery {
  readonly batch: Batch
  readonly last: Position
  at(index: number): Position
  /** So many records are dead letters now. */
  readonly refused: number
  /**
   * Says why there is nowhere to put a refused record. The batch ends before it, and nothing beyond may be committed.
   */
  readonly stop?: string
}

export async function transformDelivery(
  delivery: Delivery,
  receivedAt: number,
  parts: TransformParts,
  signal: AbortSignal,
): Promise<TransformedDelivery> {
  const { transform, toLines, refuseInner, deadLetters, label } = parts
  let batch = delivery.batch
  const refused = new Map<number, string>()
  if (transform !== undefined && batch.count > 0) {
    const transformed = transform(batch, { source: label })
    for (const { index, why } of transformed.refused) refused.set(index, why)
    batch = transformed.batch
  }
  let lines: Lines | undefined
  if (toLines !== undefined && batch.form === 'entries') {
    lines = toLines(batch)
    for (const { index, why } of lines.refused) refused.set(index, why)
  } else if (refuseInner !== undefined && batch.form === 'entries') {
    for (const { index, why } of refuseInner(batch).refused) refused.set(index, why)
  }
  const invalid = delivery.invalid ?? []
  if (refused.size === 0 && invalid.length === 0) {
    return {
      batch: lines === undefined ? batch : new LineBatch(lines.chunks, lines.count),
      last: delivery.last,
      at: (index) => delivery.at(index),
      refused: 0,
    }
  }

  const indexes = [...refused.keys()].sort((a, b) => a - b)
  if (deadLetters.policy === 'stop') {
    const first = indexes[0]
    // Invalid records follow the batch, because a source ends a delivery at one.
    if (first === undefined)
      return {
        batch: asLines(batch, toLines),
        last: batch.count > 0 ? delivery.at(batch.count - 1) : delivery.last,
        at: (index) => delivery.at(index),
        refused: 1,
        stop: invalid[0]?.why ?? '',
      }
    const kept = only(
      batch,
      Array.from({ length: first }, (_, index) => index),
    )
    return {
      batch: asLines(kept, toLines),
      last: first > 0 ? delivery.at(first - 1) : delivery.last,
      at: (index) => delivery.at(index),
      refused: 1,
      stop: refused.get(first) ?? '',
    }
  }

  const entries = batch.entries()
  const letters: DeadLetter[] = []
  for (const index of indexes) {
    const entry = entries[index]
    if (entry !== undefined)
      letters.push({
        source: label,
        partition: delivery.partition.name,
        position: delivery.at(index),
        why: refused.get(index) ?? '',
        attempts: 0,
        receivedAt,
        record: { entry },
      })
  }
  for (const record of invalid)
    letters.push({
      source: label,
      partition: delivery.partition.name,
      position: record.position,
      why: record.why,
      attempts: 0,
      receivedAt,
      record: { invalid: record },
    })
  await deadLetters.put(letters, signal)
  const kept: number[] = []
  for (let index = 0; index < batch.count; index++) if (!refused.has(index)) kept.push(index)
  const left = lines !== undefined ? new LineBatch(lines.chunks, lines.count) : without(batch, new Set(indexes))
  // Records that toLines refused are out of `lines`; those the transform refused are still in it.
  const clean =
    lines !== undefined && lines.refused.length < indexes.length
      ? asLines(without(batch, new Set(indexes)), toLines)
      : left
  return {
    batch: clean,
    last: delivery.last,
    at: (index) => delivery.at(kept[index] ?? index),
    refused: letters.length,
  }
}

function asLines(batch: Batch, toLines: ((batch: Batch) => Lines) | undefined): Batch {
  if (toLines === undefined || batch.form === 'lines') return batch
  const lines = toLines(batch)
  return new LineBatch(lines.chunks, lines.count)
}
