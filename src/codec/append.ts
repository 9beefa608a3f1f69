/**
 * Adds members to JSON records (`--append`). A member with the same name is replaced, and all other bytes stay the
 * same. A record that is no JSON object is refused and keeps its place.
 */
import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { EntryBatch, LineBatch } from '../core/batch'
import type { Batch, Refusal } from '../core/contract'
import { memberName, scanDocument, type MemberName, type ObjectScan } from '../kit/json-scan'

export interface AppendSpec {
  readonly name: string
  /**
   * With text the value becomes a JSON string, with json it is JSON already. {now}, {now:unix}, {hostname}, {uuid} and
   * {source} are replaced in both.
   */
  readonly kind: 'text' | 'json'
  readonly value: string
}
export interface Appended {
  /** The batch has as many records as before. Those that were refused are unchanged. */
  readonly batch: Batch
  readonly refused: readonly Refusal[]
}
export type Appender = (batch: Batch, facts: { readonly source: string }) => Appended

const NEWLINE = 0x0a
const VARIABLE = /\{(now|now:unix|hostname|uuid|source)\}/g
const NOT_AN_OBJECT = 'it is not a JSON object, so nothing can be appended to it'

/** A member ready to be written: `,"name":value`. If the value contains {uuid}, it is made anew for each record. */
interface Member {
  readonly prefix: string
  readonly perRecord: boolean
  value(): string
}
/** `maxBytes` is how much they can add to one record. `fixed` is their text, if it is the same for all records. */
interface Members {
  readonly all: readonly Member[]
  readonly maxBytes: number
  readonly fixed: Buffer | undefined
  /** Is called where a record had a byte-order mark. */
  dropMark(): void
}

/**
 * The last of several specs with one name counts. {now} is the time at which the batch is processed.
 * @param onMark is called at the first record of a source that had a byte-order mark, which is left out
 */
export function makeAppender(
  specs: readonly AppendSpec[],
  onMark: (source: string) => void = () => undefined,
): Appender {
  const marked = new Set<string>()
  const chosen = [...new Map(specs.map((spec) => [spec.name, spec])).values()]
  const names = chosen.map(({ name }) => memberName(name))
  const host = hostname()
  return (batch, { source }) => {
    const now = new Date()
    const all = chosen.map((spec) =>
      memberOf(spec, (variable) => {
        switch (variable) {
          case 'now':
            return now.toISOString()
          case 'now:unix':
            return String(Math.floor(now.getTime() / 1000))
          case 'hostname':
            return host
          case 'uuid':
            return randomUUID()
          default:
            return source
        }
      }),
    )
    const bytes = all.map((member) => Buffer.from(member.prefix + member.value()))
    const members: Members = {
      all,
      maxBytes: bytes.reduce((sum, { length }) => sum + length, 0),
      fixed: all.some(({ perRecord }) => perRecord) ? undefined : Buffer.concat(bytes),
      dropMark: () => {
        if (!marked.has(source)) onMark(source)
        marked.add(source)
      },
    }
    return batch.form === 'lines' ? appendToLines(batch, names, members) : appendToEntries(batch, names, members)
  }
}

function memberOf({ name, kind, value }: AppendSpec, valueOf: (variable: string) => string): Member {
  const make =
    kind === 'text'
      ? (): string => JSON.stringify(value.replace(VARIABLE, (_, variable: string) => valueOf(variable)))
      : // Within JSON a variable is a number, or part of a string, in which quotes and backslashes have to be escaped.
        (): string => value.replace(VARIABLE, (_, variable: string) => JSON.stringify(valueOf(variable)).slice(1, -1))
  const each = value.includes('{uuid}')
  const fixed = each ? '' : make()
  return { prefix: `,${JSON.stringify(name)}:`, perRecord: each, value: each ? make : () => fixed }
}

function appendToLines(batch: Batch, names: readonly MemberName[], members: Members): Appended {
  const lines = batch.lines()
  const out = Buffer.allocUnsafe(lines.bytes + lines.count * members.maxBytes)
  const refused: Refusal[] = []
  let index = 0
  let length = 0
  for (const chunk of lines.chunks) {
    for (let from = 0; from < chunk.length; ) {
      const end = chunk.indexOf(NEWLINE, from)
      const line = chunk.subarray(from, end)
      const scan = scanDocument(line, names)
      if (scan === undefined) {
        refused.push({ index, why: NOT_AN_OBJECT })
        length += line.copy(out, length)
      } else length += write(out, length, line, scan, members)
      out[length++] = NEWLINE
      from = end + 1
      index++
    }
  }
  return { batch: new LineBatch(length === 0 ? [] : [out.subarray(0, length)], lines.count, out.length), refused }
}

function appendToEntries(batch: Batch, names: readonly MemberName[], members: Members): Appended {
  const refused: Refusal[] = []
  let retained = batch.retained
  const entries = batch.entries().map((entry, index) => {
    const scan = entry.value === null ? undefined : scanDocument(entry.value, names)
    if (entry.value === null || scan === undefined) {
      refused.push({ index, why: NOT_AN_OBJECT })
      return entry
    }
    const out = Buffer.allocUnsafe(entry.value.length + members.maxBytes)
    retained += out.length
    return { ...entry, value: out.subarray(0, write(out, 0, entry.value, scan, members)) }
  })
  return { batch: new EntryBatch(entries, retained), refused }
}

/** Returns how many bytes were written. A byte-order mark is left out. */
function write(out: Buffer, start: number, record: Buffer, scan: ObjectScan, members: Members): number {
  const first = record[0] === 0xef ? 3 : 0
  if (first > 0) members.dropMark()
  const { all, fixed } = members
  if (fixed !== undefined && !scan.empty && scan.found.every((found) => found === undefined)) {
    let at = start + record.copy(out, start, first, scan.last)
    at = copyFrom(out, at, fixed, 0)
    return copyFrom(out, at, record, scan.last) - start
  }
  const edits: { readonly from: number; readonly to: number; readonly text: string }[] = []
  let added = ''
  all.forEach((member, index) => {
    const found = scan.found[index]
    if (found !== undefined) edits.push({ from: found.start, to: found.end, text: member.value() })
    else added += (added === '' && scan.empty ? member.prefix.slice(1) : member.prefix) + member.value()
  })
  if (edits.length > 1) edits.sort((a, b) => a.from - b.from)
  if (added !== '') edits.push({ from: scan.last, to: scan.last, text: added })
  let at = start
  let read = first
  for (const { from, to, text } of edits) {
    at += record.copy(out, at, read, from)
    at += out.write(text, at)
    read = to
  }
  return at + record.copy(out, at, read) - start
}

/** Copies the bytes from an index on. A loop copies a few bytes faster than a call of the engine does. */
function copyFrom(out: Buffer, start: number, bytes: Buffer, from: number): number {
  const length = bytes.length - from
  if (length > 64) bytes.copy(out, start, from)
  else for (let i = 0; i < length; i++) out[start + i] = bytes[from + i] ?? 0
  return start + length
}
