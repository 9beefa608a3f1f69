/**
 * Maps messages to records and back. The value is the body, the key is the routing key, and the timestamp is the
 * property of that name. Headers are those of the message, and every other property as `amqp.NAME`, so that it survives
 * a file, a spool or Kafka. `amqp.exchange` tells where a message was published, and `amqp.types` which headers are not
 * text (`table.ts`).
 *
 * In the default exchange a routing key is the name of a queue and not the record's key. It becomes the header
 * `amqp.routing-key` of the record. A record's key that is not the routing key travels in the message's header
 * `manifold-key`, and becomes the key again where it is read.
 *
 * A record whose value is null (Kafka's tombstone) becomes a message without body that has the header `manifold-null`,
 * and is read as null. The property timestamp has no milliseconds, so they are in the header `timestamp_in_ms`, as in
 * RabbitMQ itself (https://www.rabbitmq.com/docs/message-interceptors).
 *
 * Headers that the broker adds on delivery (`x-stream-offset`, `x-delivery-count`, `x-acquired-count`) are not
 * published again.
 */
import { isUtf8 } from 'node:buffer'
import type { Entry, HeaderValue } from '../../core/contract'
import type { Message } from './deliveries'
import {
  EXCHANGE as EXCHANGE_HEADER,
  KEY as KEY_HEADER,
  MILLISECONDS as MILLISECONDS_HEADER,
  NULL as NULL_HEADER,
  PREFIX as PROPERTY_PREFIX,
  ROUTING_KEY as ROUTING_KEY_HEADER,
  TYPES as TYPES_HEADER,
} from './headers'
import { MAX_EXPIRATION } from './options'
import { SHORT_STRING } from './publishing'
import { decodeTable, encodeTable, type Field } from './table'

/** The properties in the order of a header frame (AMQP 0-9-1, 1.8.3.1). Their flags begin at the highest bit. */
const NAMES = [
  'content-type',
  'content-encoding',
  'headers',
  'delivery-mode',
  'priority',
  'correlation-id',
  'reply-to',
  'expiration',
  'message-id',
  'timestamp',
  'type',
  'user-id',
  'app-id',
  'cluster-id',
] as const
type Name = (typeof NAMES)[number]
export const STREAM_OFFSET = 'x-stream-offset'
const HEADER_OF = new Map<string, Name>(NAMES.map((name) => [PROPERTY_PREFIX + name, name]))
/** The broker or the source has added these headers. */
const NOT_PUBLISHED = new Set([
  STREAM_OFFSET,
  'x-delivery-count',
  'x-acquired-count',
  TYPES_HEADER,
  EXCHANGE_HEADER,
  ROUTING_KEY_HEADER,
])
const MAX_UINT64 = 2n ** 64n - 1n
const PERSISTENT = 2
/**
 * The lowest bit of a flags word means that another word follows. The class `basic` has never had so many properties.
 */
const CONTINUATION_FLAG = 1

type Header = readonly [name: string, value: HeaderValue]

type Read = Pick<Message, 'body' | 'routingKey' | 'exchange' | 'properties'>

/** Makes the header that says that a message came to the queue of this name through the default exchange. */
export function addressHeader(queue: string): Header {
  return [ROUTING_KEY_HEADER, queue]
}

/**
 * @param omittedHeader a header that the broker added
 * @param address the header of a message that certainly came through the default exchange
 */
export function entryOf(message: Read, omittedHeader?: string, address?: Header): Entry {
  const { body, properties } = message
  const headers: Header[] = []
  let timestamp: number | undefined
  let precise: HeaderValue | undefined
  let isNull = false
  let mode = 1
  let key: Buffer | undefined
  try {
    readProperties(properties, (name, value) => {
      if (name === 'headers') {
        const fields = decodeTable(value as Buffer)
        addFields(headers, fields, omittedHeader)
        for (const each of fields) {
          if (each.name === MILLISECONDS_HEADER) precise = each.value
          else if (each.name === NULL_HEADER) isNull = body.length === 0
          else if (each.name === KEY_HEADER) key = carriedKey(each)
        }
      } else if (name === 'delivery-mode') mode = Number(value)
      else if (name === 'timestamp' && isKeptAsTime(value)) timestamp = signed(value) * 1000
      else headers.push([PROPERTY_PREFIX + name, Buffer.isBuffer(value) && isUtf8(value) ? value.toString() : value])
    })
  } catch {
    // Bytes that cannot be decoded are kept as they are.
    headers.splice(0, headers.length, [`${PROPERTY_PREFIX}properties`, properties])
  }
  if (mode !== PERSISTENT) headers.push([`${PROPERTY_PREFIX}delivery-mode`, mode])
  if (address !== undefined) headers.push(address)
  else key = addRouting(headers, message, key)
  // The milliseconds do not count if the timestamp was changed since.
  if (typeof precise === 'number' && Math.floor(precise / 1000) * 1000 === timestamp) timestamp = precise
  return {
    value: isNull ? null : body,
    ...(key === undefined ? {} : { key }),
    ...(headers.length === 0 ? {} : { headers }),
    ...(timestamp === undefined ? {} : { timestamp }),
  }
}

/**
 * Returns the record's key: the carried one, or else the routing key. A routing key of the default exchange is no key.
 */
function addRouting(
  headers: Header[],
  { exchange, routingKey }: Read,
  carried: Buffer | undefined,
): Buffer | undefined {
  if (exchange.length > 0) {
    headers.push([EXCHANGE_HEADER, exchange.toString()])
    return carried ?? (routingKey.length === 0 ? undefined : routingKey)
  }
  if (routingKey.length > 0) headers.push([ROUTING_KEY_HEADER, isUtf8(routingKey) ? routingKey.toString() : routingKey])
  return carried
}

/** Returns undefined if the value is neither text nor bytes, because the header is then not ours. */
function carriedKey({ value, type }: Field): Buffer | undefined {
  if (Buffer.isBuffer(value)) return value
  return typeof value === 'string' && type === undefined ? Buffer.from(value) : undefined
}

/**
 * Returns seconds since 1970. Common clients write earlier times as two's complement, although the property is
 * unsigned.
 */
function signed(seconds: HeaderValue): number {
  return Number(BigInt.asIntN(64, BigInt(textOf(seconds))))
}
function isKeptAsTime(seconds: HeaderValue): boolean {
  return Number.isSafeInteger(signed(seconds) * 1000)
}

function addFields(headers: Header[], fields: readonly Field[], omittedHeader: string | undefined): void {
  // An object would not do, because it has members such as constructor from the start.
  const types = new Map<string, string>()
  for (const field of fields) {
    const { name, value, type } = field
    if (name === omittedHeader || name === NULL_HEADER) continue
    if (name === KEY_HEADER && carriedKey(field) !== undefined) continue
    headers.push([name, value])
    if (type !== undefined) types.set(name, type)
  }
  if (types.size > 0) headers.push([TYPES_HEADER, JSON.stringify(Object.fromEntries(types))])
}

/** Returns the offset of a message in its stream from the broker's header, or undefined if there is none. */
export function streamOffset(properties: Buffer): number | undefined {
  let offset: number | undefined
  readProperties(properties, (name, value) => {
    if (name !== 'headers') return
    for (const field of decodeTable(value as Buffer)) if (field.name === STREAM_OFFSET) offset = Number(field.value)
  })
  return offset
}

function readProperties(bytes: Buffer, onProperty: (name: Name, value: HeaderValue) => void): void {
  const flags = bytes.readUInt16BE(0)
  if ((flags & CONTINUATION_FLAG) !== 0) throw new RangeError('more properties than are known')
  let at = 2
  for (const [index, name] of NAMES.entries()) {
    if ((flags & (0x8000 >> index)) === 0) continue
    if (name === 'headers') {
      const end = at + 4 + bytes.readUInt32BE(at)
      onProperty(name, bytes.subarray(at + 4, end))
      at = end
    } else if (name === 'delivery-mode' || name === 'priority') onProperty(name, bytes.readUInt8(at++))
    else if (name === 'timestamp') {
      onProperty(name, bytes.readBigUInt64BE(at))
      at += 8
    } else {
      const end = at + 1 + bytes.readUInt8(at)
      onProperty(name, bytes.subarray(at + 1, end))
      at = end
    }
  }
}

/** These properties are set by options of the sink for every message. */
export interface FixedProperties {
  readonly persistent: 'true' | 'false' | 'keep'
  readonly contentType?: string
  /** The expiration in milliseconds. */
  readonly expiration?: number
  readonly priority?: number
  /**
   * The user who is logged in. The broker refuses messages with another user-id
   * (https://www.rabbitmq.com/docs/validated-user-id).
   */
  readonly user?: string
}

/**
 * Returns property flags and property list.
 * @param id the message id, unless the record has one
 * @param key the key of the record, if the routing key is another or the name of a queue
 * @throws a RangeError that says what a message cannot hold
 */
export function propertiesOf(entry: Entry, fixed: FixedProperties, id: string | undefined, key?: Buffer): Buffer {
  const values: Partial<Record<Name, HeaderValue>> = {}
  const fields: Field[] = []
  let types: ReadonlyMap<string, string> = new Map()
  for (const [name, value] of entry.headers ?? []) if (name === TYPES_HEADER) types = typesOf(value)
  for (const [name, value] of entry.headers ?? []) {
    const property = HEADER_OF.get(name)
    if (property === 'user-id' && textOf(value) !== fixed.user) fields.push({ name, value })
    else if (property !== undefined && property !== 'headers') values[property] = value
    else if (!NOT_PUBLISHED.has(name) && (name !== KEY_HEADER || entry.key === undefined)) {
      const type = types.get(name)
      fields.push(type === undefined ? { name, value } : { name, value, type })
    }
  }
  const { timestamp } = entry
  if (entry.value === null) fields.push({ name: NULL_HEADER, value: true })
  if (key !== undefined) fields.push({ name: KEY_HEADER, value: isUtf8(key) ? key.toString() : key })
  values['delivery-mode'] =
    fixed.persistent === 'keep'
      ? Number(textOf(values['delivery-mode'] ?? PERSISTENT))
      : fixed.persistent === 'true'
        ? PERSISTENT
        : 1
  if (fixed.contentType !== undefined) values['content-type'] = fixed.contentType
  if (fixed.expiration !== undefined) values.expiration = String(fixed.expiration)
  if (fixed.priority !== undefined) values.priority = fixed.priority
  if (values['message-id'] === undefined && id !== undefined) values['message-id'] = id
  if (timestamp !== undefined && values.timestamp === undefined) {
    if (!Number.isSafeInteger(Math.floor(timestamp)))
      throw new RangeError(`its timestamp, ${timestamp}, is no time in milliseconds`)
    values.timestamp = String(BigInt.asUintN(64, BigInt(Math.floor(timestamp / 1000))))
    if (timestamp % 1000 !== 0 && !fields.some(({ name }) => name === MILLISECONDS_HEADER))
      fields.push({ name: MILLISECONDS_HEADER, value: Math.floor(timestamp), type: 'l' })
  }
  return encodeProperties(values, fields)
}

function typesOf(value: HeaderValue): ReadonlyMap<string, string> {
  try {
    const parsed: unknown = JSON.parse(textOf(value))
    return new Map(
      typeof parsed === 'object' && parsed !== null ? Object.entries(parsed as Record<string, string>) : [],
    )
  } catch {
    // The header is not ours, so the types of the other headers are unknown.
    return new Map()
  }
}
function textOf(value: HeaderValue): string {
  return Buffer.isBuffer(value) ? value.toString() : String(value)
}

function encodeProperties(values: Readonly<Partial<Record<Name, HeaderValue>>>, fields: readonly Field[]): Buffer {
  const parts: Buffer[] = [Buffer.alloc(2)]
  let flags = 0
  for (const [index, name] of NAMES.entries()) {
    if (name === 'headers' ? fields.length === 0 : values[name] === undefined) continue
    flags |= 0x8000 >> index
    if (name === 'headers') {
      const table = encodeTable(fields)
      const length = Buffer.allocUnsafe(4)
      length.writeUInt32BE(table.length)
      parts.push(length, table)
    } else parts.push(encodeProperty(name, values[name] ?? ''))
  }
  parts[0]?.writeUInt16BE(flags)
  return Buffer.concat(parts)
}

function encodeProperty(name: Name, value: HeaderValue): Buffer {
  if (name === 'delivery-mode' || name === 'priority') {
    const number = Number(textOf(value))
    if (!Number.isInteger(number) || number < 0 || number > 255)
      throw new RangeError(`its ${name} is no number from 0 to 255`)
    return Buffer.from([number])
  }
  // The broker closes the channel for any other value.
  if (name === 'expiration' && !(/^\d{1,10}$/.test(textOf(value)) && Number(textOf(value)) <= MAX_EXPIRATION))
    throw new RangeError('its expiration is no number of milliseconds')
  if (name === 'timestamp') {
    const out = Buffer.allocUnsafe(8)
    // Times before 1970 have twenty digits here.
    const seconds = /^\d{1,20}$/.test(textOf(value)) ? BigInt(textOf(value)) : undefined
    if (seconds === undefined || seconds > MAX_UINT64) throw new RangeError('its timestamp is no number of seconds')
    out.writeBigUInt64BE(seconds)
    return out
  }
  return shortString(value, `its ${name}`)
}

/** Returns the string with its length. */
export function shortString(value: HeaderValue, what: string): Buffer {
  const bytes = Buffer.isBuffer(value) ? value : Buffer.from(textOf(value))
  if (bytes.length > SHORT_STRING) throw new RangeError(`${what} is longer than ${SHORT_STRING} bytes`)
  const out = Buffer.allocUnsafe(bytes.length + 1)
  out[0] = bytes.length
  bytes.copy(out, 1)
  return out
}
