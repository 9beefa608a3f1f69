/** Reads members of JSON records exactly, and checks that they count up. */
import type { Batch, Gap } from '../../core/contract'

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

export function jsonMemberPicker(raw: string): MemberPicker {
  const path = parseJsonPath(raw)
  return (record) => {
    // This recognises most messages that are no objects (such as heartbeats) without the cost of an exception.
    if (
      record[0] !== 0x7b &&
      record[0] !== 0x5b &&
      record[0] !== 0x20 &&
      record[0] !== 0x0a &&
      record[0] !== 0x0d &&
      record[0] !== 0x09 &&
      record[0] !== 0xef
    )
      return undefined
    const text = record.toString('utf8').replace(/^\uFEFF/, '')
    try {
      const found = memberAt(JSON.parse(text), path)
      if (typeof found === 'string') return `"${found}"`
      if (typeof found !== 'number') return undefined
      // Beyond 2^53 two different numbers may read as one, and a record would count as a copy of another. So the digits
      // are compared.
      if (Number.isSafeInteger(found)) return found
      const digits = memberAt(JSON.parse(text, keepDigits as (key: string, value: unknown) => unknown), path)
      return digits instanceof NumberText ? digits.text : undefined
    } catch {
      return undefined
    }
  }
}

class NumberText {
  constructor(readonly text: string) {}
}
function keepDigits(_key: string, value: unknown, context: { readonly source?: string }): unknown {
  return typeof value === 'number' && context.source !== undefined ? new NumberText(context.source) : value
}

function memberAt(value: unknown, path: readonly string[]): unknown {
  let at = value
  for (const name of path) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, name)) return undefined
    at = (at as Record<string, unknown>)[name]
  }
  return at
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
