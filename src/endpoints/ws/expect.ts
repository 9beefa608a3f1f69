/** Reads members of JSON records exactly, and checks that they count up. */
import type { Batch, Gap } from '../../core/contract'
import { findNamed, memberName } from '../../kit/json-scan'

/** The value at `{json:PATH}`: a string in quotes, a number if it is exact, or else the digits of the number. */
export type MemberValue = string | number
export type MemberPicker = (record: Buffer) => MemberValue | undefined

/**
 * Parses `{json:a.b.0}` into names and indexes.
 * @throws an Error that says what is expected
 */
export function parseJsonPath(raw: string): readonly string[] {
  const path = /^\{json:([^{}]+)\}$/.exec(raw.trim())?.[1]?.split('.')
  if (path === undefined || path.includes(''))
    throw new Error('{json:PATH} is expected, such as {json:seq} or {json:data.seq}')
  return path
}

/**
 * Makes the function that finds `{json:PATH}` in a record. It finds nothing in a record that is no JSON, and in a value
 * that is neither a string nor a number. Members beside the path are passed over, so a fault in them does not hide the
 * number of a message.
 */
export function jsonMemberPicker(raw: string): MemberPicker {
  const path = parseJsonPath(raw).map(memberName)
  return (record) => {
    const range = findNamed(record, path)
    if (range === undefined) return undefined
    const text = record.toString('utf8', range.start, range.end)
    if (text.startsWith('"')) return unescaped(text)
    if (!NUMBER.test(text)) return undefined
    const found = Number(text)
    // Beyond 2^53 two different numbers may read as one, and a record would count as a copy of another. So the digits
    // are compared.
    return Number.isSafeInteger(found) ? found : text
  }
}

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/
function unescaped(text: string): string | undefined {
  if (!text.includes('\\')) return text
  try {
    return `"${JSON.parse(text) as string}"`
  } catch {
    return undefined
  }
}

/**
 * Checks that numbers count up by one. Within a connection a number seen before is a repetition, and 0 or 1 starts
 * again. On a new connection the first number may be at or below the last one (a replay, an overlap, a count for each
 * connection) without a gap. If it is above the last one, the numbers between are missing.
 */
export class SequenceCheck {
  private last: bigint | undefined
  private epoch = 0
  /** Counts the records without a number. */
  unnumbered = 0

  constructor(private readonly pick: MemberPicker) {}

  /** Returns the gaps before and between these records, in order. */
  gaps(batch: Batch, partition: { readonly name: string; readonly epoch: number }): readonly Gap[] {
    const gaps: Gap[] = []
    for (const { value } of batch.entries()) {
      const number = value === null ? undefined : integerOf(this.pick(value))
      if (number === undefined) {
        this.unnumbered++
        continue
      }
      const first = partition.epoch !== this.epoch
      this.epoch = partition.epoch
      const last = this.last
      if (last === undefined || number === last + 1n) {
        this.last = number
        continue
      }
      if (number > last) {
        const records = number - last - 1n
        gaps.push({
          partition: partition.name,
          from: String(last + 1n),
          to: String(number - 1n),
          why: `numbers missing${first ? ' across connections' : ''}`,
          records: Number(records),
        })
        this.last = number
      } else if (first || number === 0n || number === 1n) this.last = number
    }
    return gaps
  }
}

function integerOf(picked: MemberValue | undefined): bigint | undefined {
  if (typeof picked === 'number') return BigInt(picked)
  const digits = picked === undefined ? undefined : /^"?(-?\d{1,40})"?$/.exec(picked)?.[1]
  return digits === undefined ? undefined : BigInt(digits)
}
