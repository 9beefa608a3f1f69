/** Checks numbered records: nothing is missing without need, nothing is there twice, and the bytes are equal. */
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import type { StoredObject } from '../services/s3'
import { record, type FeedConnection } from './feed'

export interface Found {
  readonly numbers: readonly number[]
  readonly doubles: readonly number[]
  readonly altered: readonly string[]
}

export function plain({ key, bytes }: Pick<StoredObject, 'key' | 'bytes'>): Buffer {
  return key.endsWith('.gz') ? gunzipSync(bytes) : key.endsWith('.zst') ? zstdDecompressSync(bytes) : bytes
}

/** Numbers of all records, in the order in which they are stored. */
export function read(
  objects: readonly Pick<StoredObject, 'key' | 'bytes'>[],
  expected: (n: number) => string = record,
): Found {
  const numbers: number[] = []
  const doubles: number[] = []
  const altered: string[] = []
  const seen = new Set<number>()
  for (const object of objects) {
    const text = plain(object).toString('latin1')
    if (!text.endsWith('\n')) altered.push(`${object.key} does not end with a newline`)
    for (const line of text.split('\n').slice(0, -1)) {
      const n = Number(/^\{"n":(\d+)/.exec(line)?.[1])
      if (line !== expected(n)) altered.push(line.slice(0, 100))
      if (seen.has(n)) doubles.push(n)
      seen.add(n)
      numbers.push(n)
    }
  }
  return { numbers, doubles, altered }
}

export interface Range {
  readonly from: number
  readonly to: number
}

/** Ranges of numbers from 1 to `last` that are not there. */
export function missing(numbers: readonly number[], last: number): Range[] {
  const ranges: Range[] = []
  let expected = 1
  for (const n of [...numbers].sort((a, b) => a - b)) {
    if (n > expected) ranges.push({ from: expected, to: n - 1 })
    expected = Math.max(expected, n + 1)
  }
  if (expected <= last) ranges.push({ from: expected, to: last })
  return ranges
}

/**
 * Faults of what is missing: between two connections one contiguous range may be, that ends where the later connection
 * began, and begins where the earlier one was not yet durable; nothing else.
 * @param until the last number that had to arrive: what was sent before the last, orderly stop
 */
export function faultsOf(numbers: readonly number[], connections: readonly FeedConnection[], until: number): string[] {
  const faults: string[] = []
  for (const { from, to } of missing(numbers, until)) {
    if (to === until) {
      faults.push(`the end is missing: ${from} to ${to}`)
      continue
    }
    const next = connections.find(({ first }) => first === to + 1)
    if (next === undefined) {
      if (from === 1 && connections[0]?.first === to + 1) continue
      faults.push(`${from} to ${to} is missing, and no connection begins after it`)
      continue
    }
    const before = connections[connections.indexOf(next) - 1]
    // A connection that delivered nothing durable is passed over whole; its numbers belong to the same range.
    const begun = connections.filter(({ first }) => first <= to)
    if (before === undefined && from !== 1) faults.push(`${from} to ${to} is missing before the first connection`)
    else if (begun.length === 0 && from !== 1) faults.push(`${from} to ${to} is missing`)
  }
  for (let index = 1; index < numbers.length; index++) {
    if ((numbers[index] ?? 0) < (numbers[index - 1] ?? 0)) {
      faults.push(`out of order: ${numbers[index]} after ${numbers[index - 1]}`)
      break
    }
  }
  return faults
}
