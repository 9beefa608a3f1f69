/**
 * Encodes a record as a JSON object in one line, without loss. Bytes are text if they are UTF-8, and base64 otherwise.
 *
 *     {"value":"text","key_base64":"gA==","headers":[["h","typed text"],["b",{"utf8":"bytes"}],["c",{"base64":"/w=="}],
 *      ["d",{"bigint":"1"}],["e",1.5],["f",true],["g",null]],
 *      "timestamp":1700000000000,"source":"…","partition":"…","position":"…"}
 *
 * A header that is text in its protocol is a string, and one that is bytes is an object with `utf8` or `base64`. A dead
 * letter also has `attempts`, `sink` and `why`, and is an ordinary record when it is read again. If it is `truncated`,
 * only its head is left, with `length` and `sha256` of the whole.
 */
import { isUtf8 } from 'node:buffer'
import { createHash } from 'node:crypto'
import { entrySize } from '../core/batch'
import type { Entry, HeaderValue, InvalidRecord } from '../core/contract'
import type { DeadLetter } from '../core/flow/ports'

export interface EnvelopeFacts {
  readonly source?: string
  readonly partition?: string
  readonly position?: string
}
type Header = readonly [name: string, value: HeaderValue]

/**
 * An envelope can hold this many bytes of value, key and headers. In base64 they are a string, and strings of the
 * engine end at 512 Mi characters.
 */
export const ENVELOPE_LIMIT = 256 * 1024 * 1024
const HEAD = 64 * 1024

/** Returns the largest size of an envelope with a value of `maxRecord` bytes. It adds 1 MiB for all the rest. */
export function envelopeBytes(maxRecord: number): number {
  return 2 * maxRecord + 1024 * 1024
}

/** Encodes a record as an envelope with its newline. */
export function encodeEnvelope(entry: Entry, facts: EnvelopeFacts = {}): string {
  return `{${bodyOf(entry)}${tailOf(facts)}}\n`
}

/** Encodes many records, each with its newline. Text that they have in common is quoted once. */
export function envelopeEncoder(): (entry: Entry, facts: Required<EnvelopeFacts>) => string {
  let source: string | undefined
  let partition: string | undefined
  let common = ''
  return (entry, facts) => {
    if (facts.source !== source || facts.partition !== partition) {
      source = facts.source
      partition = facts.partition
      common = tailOf({ source, partition })
    }
    return `{${bodyOf(entry)}${common},"position":${JSON.stringify(facts.position)}}\n`
  }
}

/** Encodes a dead letter as a line with its newline. */
export function encodeDeadLetter(letter: DeadLetter): Buffer {
  const record =
    'invalid' in letter.record
      ? letter.record
      : entrySize(letter.record.entry) > ENVELOPE_LIMIT
        ? { invalid: headOf(letter.record.entry) }
        : letter.record
  const sink = letter.sink === undefined ? '' : `,"sink":${JSON.stringify(letter.sink)}`
  const fate = `,"attempts":${letter.attempts}${sink},"why":${JSON.stringify(letter.why)}`
  return Buffer.from(
    'entry' in record
      ? `{${bodyOf(record.entry)}${tailOf(letter)}${fate}}\n`
      : `{${bytesOf('value', record.invalid.head)}${tailOf(letter)}${fate}${invalidMembers(record.invalid)}}\n`,
  )
}

function headOf({ value }: Entry): Pick<InvalidRecord, 'head' | 'length' | 'sha256'> {
  const bytes = value ?? Buffer.alloc(0)
  return {
    head: bytes.subarray(0, HEAD),
    length: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
  }
}

/** A record that was refused as a whole (a malformed line, for example) is complete and so not `truncated`. */
function invalidMembers(invalid: Pick<InvalidRecord, 'head' | 'length' | 'sha256'>): string {
  return `${invalid.head.length < invalid.length ? ',"truncated":true' : ''},"length":${invalid.length},"sha256":"${invalid.sha256}"`
}

function bodyOf(entry: Entry): string {
  const key = entry.key === undefined ? '' : `,${bytesOf('key', entry.key)}`
  const headers =
    entry.headers === undefined
      ? ''
      : `,"headers":[${entry.headers.map(([name, value]) => `[${JSON.stringify(name)},${headerOf(value)}]`).join(',')}]`
  const timestamp =
    entry.timestamp === undefined || !Number.isFinite(entry.timestamp) ? '' : `,"timestamp":${entry.timestamp}`
  return (entry.value === null ? '"value":null' : bytesOf('value', entry.value)) + key + headers + timestamp
}

function tailOf(facts: EnvelopeFacts): string {
  return (
    (facts.source === undefined ? '' : `,"source":${JSON.stringify(facts.source)}`) +
    (facts.partition === undefined ? '' : `,"partition":${JSON.stringify(facts.partition)}`) +
    (facts.position === undefined ? '' : `,"position":${JSON.stringify(facts.position)}`)
  )
}

function bytesOf(name: string, bytes: Buffer): string {
  const text = textOf(bytes)
  return text === undefined ? `"${name}_base64":"${bytes.toString('base64')}"` : `"${name}":${text}`
}

/**
 * Returns a JSON string, or undefined if base64 has to be used: the bytes are no UTF-8, or have so many escapes that
 * the line could exceed `envelopeBytes`.
 */
function textOf(bytes: Buffer): string | undefined {
  if (!isUtf8(bytes)) return undefined
  const text = bytes.toString('utf8')
  const quoted = JSON.stringify(text)
  return quoted.length - text.length > 64 + bytes.length / 2 ? undefined : quoted
}

function headerOf(value: HeaderValue): string {
  if (Buffer.isBuffer(value)) {
    const text = textOf(value)
    return text === undefined ? `{"base64":"${value.toString('base64')}"}` : `{"utf8":${text}}`
  }
  if (typeof value === 'bigint') return `{"bigint":"${value}"}`
  // JSON has no NaN, no infinities and no negative zero.
  if (typeof value === 'number' && (!Number.isFinite(value) || Object.is(value, -0)))
    return `{"number":"${Object.is(value, -0) ? '-0' : value}"}`
  return JSON.stringify(value)
}

export interface Decoded {
  readonly entry: Entry
}
export interface NotAnEnvelope {
  readonly why: string
}

/** @param line has no terminator */
export function decodeEnvelope(line: Buffer): Decoded | NotAnEnvelope {
  try {
    if (!isUtf8(line)) throw new Error('its bytes are not UTF-8')
    const parsed: unknown = JSON.parse(line.toString('utf8').replace(/^\uFEFF/, ''))
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
      throw new Error('it is not a JSON object')
    return { entry: entryOf(parsed as Record<string, unknown>) }
  } catch (error) {
    return { why: `not an envelope: ${error instanceof SyntaxError ? 'it is not JSON' : (error as Error).message}` }
  }
}

function entryOf(parsed: Readonly<Record<string, unknown>>): Entry {
  if (parsed['truncated'] === true)
    throw new Error('it is the dead letter of a record that is larger than what was kept of it')
  const value = parsed['value'] === null && parsed['value_base64'] === undefined ? null : bytesFrom(parsed, 'value')
  if (value === undefined) throw new Error('it has neither value nor value_base64')
  const key = parsed['key'] === null ? undefined : bytesFrom(parsed, 'key')
  const headers = parsed['headers'] ?? undefined
  const timestamp = parsed['timestamp'] ?? undefined
  if (headers !== undefined && !Array.isArray(headers)) throw new Error('its headers are not a list of pairs')
  if (timestamp !== undefined && typeof timestamp !== 'number') throw new Error('its timestamp is not a number')
  return {
    value,
    ...(key === undefined ? {} : { key }),
    ...(headers === undefined ? {} : { headers: (headers as readonly unknown[]).map(headerFrom) }),
    ...(timestamp === undefined ? {} : { timestamp }),
  }
}

function bytesFrom(parsed: Readonly<Record<string, unknown>>, name: 'value' | 'key'): Buffer | undefined {
  const text = parsed[name]
  const base64 = parsed[`${name}_base64`]
  if (base64 === undefined) return text === undefined ? undefined : utf8From(text, `its ${name}`)
  if (text !== undefined) throw new Error(`it has both ${name} and ${name}_base64`)
  return base64From(base64, `its ${name}_base64`)
}

function utf8From(text: unknown, what: string): Buffer {
  if (typeof text !== 'string') throw new Error(`${what} is not a string`)
  // A lone surrogate has no UTF-8 and would silently become another character.
  if (!text.isWellFormed()) throw new Error(`${what} holds half a surrogate pair`)
  return Buffer.from(text)
}

function base64From(text: unknown, what: string): Buffer {
  const bytes = typeof text === 'string' ? Buffer.from(text, 'base64') : undefined
  // Buffer.from silently stops at the first character that is not base64.
  if (bytes === undefined || bytes.toString('base64') !== text) throw new Error(`${what} is not base64`)
  return bytes
}

function headerFrom(pair: unknown): Header {
  if (!Array.isArray(pair) || pair.length !== 2 || typeof pair[0] !== 'string')
    throw new Error('its headers are not pairs of name and value')
  const [name, value] = pair as [string, unknown]
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean')
    return [name, value]
  const [[kind, content] = ['', undefined], ...more] = Object.entries(value as object)
  if (more.length > 0) throw new Error(`its header ${JSON.stringify(name)} has a value of several kinds`)
  switch (kind) {
    case 'utf8':
      return [name, utf8From(content, 'a header')]
    case 'base64':
      return [name, base64From(content, 'a header')]
    case 'bigint':
      if (typeof content === 'string' && /^-?\d+$/.test(content)) return [name, BigInt(content)]
      break
    case 'number':
      if (typeof content === 'string' && content !== '' && /^(NaN|-?Infinity|-0)$/.test(content))
        return [name, Number(content)]
      break
  }
  throw new Error(`its header ${JSON.stringify(name)} has a value of no known kind`)
}
