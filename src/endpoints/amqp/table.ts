/**
 * Maps field tables (AMQP 0-9-1, 4.2.5.5, with RabbitMQ's type letters: https://www.rabbitmq.com/amqp-0-9-1-errata) to
 * headers of records and back, without loss.
 *
 * Text, bytes, numbers, booleans and null are header values. Lists and tables become JSON text. The letter of any type
 * except text and bytes is kept beside the value, so that a header comes back unchanged, even through Kafka or a file.
 * In JSON a long integer is a number. Values that JSON cannot hold are `{"!":LETTER,"value":…}` or
 * `{"!":LETTER,"base64":…}`.
 */
import { isUtf8 } from 'node:buffer'
import type { HeaderValue } from '../../core/contract'

export interface Field {
  readonly name: string
  readonly value: HeaderValue
  /** The letter of its type, or undefined for text and bytes. */
  readonly type?: string
}

type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json }
interface FieldValue {
  readonly letter: string
  readonly value: bigint | number | boolean | null | Buffer
  readonly end: number
}

const LENGTHS: Readonly<Record<string, number>> = {
  b: 1,
  B: 1,
  s: 2,
  u: 2,
  I: 4,
  i: 4,
  l: 8,
  T: 8,
  f: 4,
  d: 8,
  t: 1,
  V: 0,
  D: 5,
}
const INT32 = 0x8000_0000
const INT64 = 1n << 63n

/**
 * @param table has no length before it
 * @throws an Error if it is no table
 */
export function decodeTable(table: Buffer): readonly Field[] {
  const fields: Field[] = []
  for (let at = 0; at < table.length; ) {
    const { name, read } = member(table, at)
    const text = (read.letter === 'S' || read.letter === 'x') && isUtf8(read.value as Buffer)
    if (read.letter === 'S' && text) fields.push({ name, value: (read.value as Buffer).toString() })
    else if (read.letter === 'x' && !text) fields.push({ name, value: read.value })
    else fields.push({ name, value: headerOf(read), type: read.letter })
    at = read.end
  }
  return fields
}

function member(table: Buffer, at: number): { readonly name: string; readonly read: FieldValue } {
  const start = at + 1
  const end = start + table.readUInt8(at)
  return { name: table.toString('utf8', start, end), read: readValue(table, end) }
}

function readValue(bytes: Buffer, at: number): FieldValue {
  const letter = String.fromCharCode(bytes.readUInt8(at))
  const start = at + 1
  if (letter === 'S' || letter === 'x' || letter === 'A' || letter === 'F') {
    const end = start + 4 + bytes.readUInt32BE(start)
    if (end > bytes.length) throw new RangeError('a field is longer than its table')
    return { letter, value: bytes.subarray(start + 4, end), end }
  }
  const length = LENGTHS[letter]
  if (length === undefined) throw new RangeError('a field has a type that is not known')
  return { letter, value: scalar(bytes, letter, start), end: start + length }
}

function scalar(bytes: Buffer, letter: string, at: number): FieldValue['value'] {
  switch (letter) {
    case 'b':
      return bytes.readInt8(at)
    case 'B':
      return bytes.readUInt8(at)
    case 's':
      return bytes.readInt16BE(at)
    case 'u':
      return bytes.readUInt16BE(at)
    case 'I':
      return bytes.readInt32BE(at)
    case 'i':
      return bytes.readUInt32BE(at)
    case 'l':
      return asSafeNumber(bytes.readBigInt64BE(at))
    case 'T':
      return asSafeNumber(bytes.readBigUInt64BE(at))
    case 'f':
      return bytes.readFloatBE(at)
    case 'd':
      return bytes.readDoubleBE(at)
    case 't':
      return bytes.readUInt8(at) !== 0
    case 'D':
      return bytes.subarray(at, at + 5)
    default:
      return null
  }
}
function asSafeNumber(value: bigint): bigint | number {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
}

function headerOf({ letter, value }: FieldValue): HeaderValue {
  if (letter === 'D') return decimal(value as Buffer)
  return letter === 'A' || letter === 'F' ? JSON.stringify(jsonOf({ letter, value, end: 0 })) : value
}
/** Renders a decimal as PLACES:DIGITS. */
function decimal(bytes: Buffer): string {
  return `${bytes.readUInt8(0)}:${bytes.readUInt32BE(1)}`
}

function jsonOf({ letter, value }: FieldValue): Json {
  switch (letter) {
    case 'S':
      return isUtf8(value as Buffer)
        ? (value as Buffer).toString()
        : { '!': 'S', base64: (value as Buffer).toString('base64') }
    case 'x':
      return { '!': 'x', base64: (value as Buffer).toString('base64') }
    case 't':
      return value as boolean
    case 'V':
      return null
    case 'l':
      return typeof value === 'number' ? value : { '!': 'l', value: String(value) }
    case 'D':
      return { '!': 'D', value: decimal(value as Buffer) }
    case 'A': {
      const list: Json[] = []
      for (let at = 0; at < (value as Buffer).length; ) {
        const read = readValue(value as Buffer, at)
        list.push(jsonOf(read))
        at = read.end
      }
      return list
    }
    case 'F': {
      const table = Object.create(null) as Record<string, Json>
      for (let at = 0; at < (value as Buffer).length; ) {
        const { name, read } = member(value as Buffer, at)
        table[name] = jsonOf(read)
        at = read.end
      }
      return Object.hasOwn(table, '!') ? { '!': 'F', value: table } : table
    }
    default:
      return { '!': letter, value: Object.is(value, -0) ? '-0' : String(value) }
  }
}

/**
 * Encodes a table without its length.
 * @throws a RangeError that says which name is too long
 */
export function encodeTable(fields: readonly Field[]): Buffer {
  const parts: Buffer[] = []
  for (const { name, value, type } of fields)
    parts.push(nameBytes(name), (type === undefined ? undefined : encodeAs(value, type)) ?? encodeByValue(value))
  return Buffer.concat(parts)
}

function nameBytes(name: string): Buffer {
  const length = Buffer.byteLength(name)
  if (length > 255)
    throw new RangeError(`the header name ${JSON.stringify(name.slice(0, 40))}… is longer than 255 bytes`)
  const bytes = Buffer.allocUnsafe(length + 1)
  bytes[0] = length
  bytes.write(name, 1)
  return bytes
}

function encodeLong(letter: string, bytes: Buffer): Buffer {
  const head = Buffer.allocUnsafe(5 + bytes.length)
  head.write(letter, 'latin1')
  head.writeUInt32BE(bytes.length, 1)
  bytes.copy(head, 5)
  return head
}

function encodeByValue(value: HeaderValue): Buffer {
  if (typeof value === 'string') return encodeLong('S', Buffer.from(value))
  if (Buffer.isBuffer(value)) return encodeLong(isUtf8(value) ? 'S' : 'x', value)
  if (value === null) return Buffer.from('V')
  if (typeof value === 'boolean') return Buffer.from(value ? 't\x01' : 't\0', 'latin1')
  if (typeof value === 'bigint')
    return value >= -INT64 && value < INT64 ? encodeFixed('l', value) : encodeLong('S', Buffer.from(String(value)))
  if (!Number.isSafeInteger(value) || Object.is(value, -0)) return encodeFixed('d', value)
  return value >= -INT32 && value < INT32 ? encodeFixed('I', value) : encodeFixed('l', BigInt(value))
}

function encodeFixed(letter: string, value: number | bigint): Buffer {
  const out = Buffer.allocUnsafe(1 + (LENGTHS[letter] ?? 0))
  out.write(letter, 'latin1')
  switch (letter) {
    case 'b':
      out.writeInt8(Number(value), 1)
      break
    case 'B':
      out.writeUInt8(Number(value), 1)
      break
    case 's':
      out.writeInt16BE(Number(value), 1)
      break
    case 'u':
      out.writeUInt16BE(Number(value), 1)
      break
    case 'I':
      out.writeInt32BE(Number(value), 1)
      break
    case 'i':
      out.writeUInt32BE(Number(value), 1)
      break
    case 'l':
      out.writeBigInt64BE(BigInt(value), 1)
      break
    case 'T':
      out.writeBigUInt64BE(BigInt(value), 1)
      break
    case 'f':
      out.writeFloatBE(Number(value), 1)
      break
    default:
      out.writeDoubleBE(Number(value), 1)
  }
  return out
}

/** Returns undefined if the value no longer has that type, because it was changed on the way. */
function encodeAs(value: HeaderValue, letter: string): Buffer | undefined {
  const text = Buffer.isBuffer(value) ? value.toString() : String(value)
  try {
    switch (letter) {
      case 'S':
      case 'x':
        return encodeLong(letter, Buffer.isBuffer(value) ? value : Buffer.from(text))
      case 'V':
        return value === null || text === '' || text === 'null' ? Buffer.from('V') : undefined
      case 't':
        return text === 'true' || text === 'false' ? encodeByValue(text === 'true') : undefined
      case 'D':
        return decimalBytes(text)
      case 'A':
      case 'F':
        return fromJson(JSON.parse(text) as Json, letter)
      case 'f':
      case 'd':
        return text.trim() === '' || (text !== 'NaN' && Number.isNaN(Number(text)))
          ? undefined
          : encodeFixed(letter, typeof value === 'number' ? value : Number(text))
      default:
        return letter in LENGTHS ? encodeFixed(letter, BigInt(text)) : undefined
    }
  } catch {
    // The value is no number, no JSON or out of range. It is encoded by its present type.
    return undefined
  }
}

function decimalBytes(text: string): Buffer | undefined {
  const [places = '', digits = ''] = text.split(':')
  const out = Buffer.alloc(6)
  out.write('D', 'latin1')
  if (!/^\d+$/.test(places) || !/^\d+$/.test(digits)) return undefined
  out.writeUInt8(Number(places), 1)
  out.writeUInt32BE(Number(digits), 2)
  return out
}

/**
 * Encodes a JSON value with its letter.
 * @param wanted the letter that it has to have, A or F
 */
function fromJson(value: Json, wanted?: string): Buffer | undefined {
  if (
    wanted !== undefined &&
    (typeof value !== 'object' || value === null || Array.isArray(value) !== (wanted === 'A'))
  )
    return undefined
  if (typeof value === 'number' && Number.isSafeInteger(value)) return encodeFixed('l', value)
  if (typeof value !== 'object' || value === null) return encodeByValue(value)
  if (isList(value)) return encodeLong('A', Buffer.concat(value.map((each) => fromJson(each) ?? encodeByValue(null))))
  const { '!': letter, base64, value: inner } = value
  if (typeof letter === 'string' && typeof base64 === 'string') return encodeLong(letter, Buffer.from(base64, 'base64'))
  if (typeof letter === 'string' && letter !== 'F' && typeof inner === 'string') return encodeAs(inner, letter)
  const table = (letter === 'F' ? inner : value) as Readonly<Record<string, Json>>
  return encodeLong(
    'F',
    Buffer.concat(
      Object.entries(table).flatMap(([name, each]) => [nameBytes(name), fromJson(each) ?? encodeByValue(null)]),
    ),
  )
}
function isList(value: Json): value is readonly Json[] {
  return Array.isArray(value)
}
