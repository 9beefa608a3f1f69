/**
 * Encodes entries as bytes. Exactly what went in comes out (null apart from empty, absent apart from empty, types of
 * header values, bigints), because the object rendered from a frame on disk must equal the one rendered when it was
 * appended.
 *
 * Per entry: flags u8 | position | timestamp f64 ? | key ? | headers ? | value ?, where strings and bytes are a length
 * (LEB128) and their bytes.
 */
import type { Entry, HeaderValue } from '../core/contract'

const NO_VALUE = 1
const KEY = 2
const HEADERS = 4
const TIMESTAMP = 8

class Sink {
  private bytes: Buffer
  private at = 0
  constructor(size: number) {
    this.bytes = Buffer.allocUnsafeSlow(Math.max(64, size))
  }
  private reserve(size: number): void {
    if (this.at + size <= this.bytes.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(this.bytes.length * 2, this.at + size))
    this.bytes.copy(larger, 0, 0, this.at)
    this.bytes = larger
  }
  byte(value: number): void {
    this.reserve(1)
    this.bytes[this.at++] = value
  }
  length(value: number): void {
    this.reserve(6)
    let rest = value
    for (; rest > 0x7f; rest = Math.floor(rest / 128)) this.bytes[this.at++] = (rest & 0x7f) | 0x80
    this.bytes[this.at++] = rest
  }
  double(value: number): void {
    this.reserve(8)
    this.at = this.bytes.writeDoubleLE(value, this.at)
  }
  data(value: Buffer): void {
    this.length(value.length)
    this.reserve(value.length)
    this.at += value.copy(this.bytes, this.at)
  }
  text(value: string): void {
    const size = Buffer.byteLength(value)
    this.length(size)
    this.reserve(size)
    this.at += this.bytes.write(value, this.at)
  }
  done(): Buffer {
    return this.bytes.subarray(0, this.at)
  }
}

export function encodeEntries(entries: readonly Entry[], at: (index: number) => string, sizeHint: number): Buffer {
  const sink = new Sink(sizeHint + entries.length * 40)
  entries.forEach((entry, index) => {
    sink.byte(
      (entry.value === null ? NO_VALUE : 0) |
        (entry.key === undefined ? 0 : KEY) |
        (entry.headers === undefined ? 0 : HEADERS) |
        (entry.timestamp === undefined ? 0 : TIMESTAMP),
    )
    sink.text(at(index))
    if (entry.timestamp !== undefined) sink.double(entry.timestamp)
    if (entry.key !== undefined) sink.data(entry.key)
    if (entry.headers !== undefined) {
      sink.length(entry.headers.length)
      for (const [name, value] of entry.headers) {
        sink.text(name)
        encodeHeaderValue(sink, value)
      }
    }
    if (entry.value !== null) sink.data(entry.value)
  })
  return sink.done()
}

function encodeHeaderValue(sink: Sink, value: HeaderValue): void {
  if (value === null) sink.byte(0)
  else if (Buffer.isBuffer(value)) {
    sink.byte(1)
    sink.data(value)
  } else if (typeof value === 'string') {
    sink.byte(2)
    sink.text(value)
  } else if (typeof value === 'number') {
    sink.byte(3)
    sink.double(value)
  } else if (typeof value === 'boolean') sink.byte(value ? 5 : 4)
  else {
    sink.byte(6)
    sink.text(value.toString())
  }
}

/**
 * Values, keys and binary header values are views into `bytes`. Throws where the bytes are none that `encodeEntries`
 * made.
 */
export function decodeEntries(
  bytes: Buffer,
  count: number,
): { readonly entries: readonly Entry[]; readonly positions: readonly string[] } {
  let at = 0
  const byte = (): number => {
    const value = bytes[at++]
    if (value === undefined) throw new Error('entries end too early')
    return value
  }
  const length = (): number => {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const part = byte()
      value += (part & 0x7f) * scale
      if (part < 0x80) return value
    }
  }
  const data = (): Buffer => {
    const size = length()
    if (at + size > bytes.length) throw new Error('entries end too early')
    at += size
    return bytes.subarray(at - size, at)
  }
  const text = (): string => data().toString('utf8')
  const double = (): number => {
    at += 8
    return bytes.readDoubleLE(at - 8)
  }
  const headerValue = (): HeaderValue => {
    const type = byte()
    switch (type) {
      case 0:
        return null
      case 1:
        return data()
      case 2:
        return text()
      case 3:
        return double()
      case 4:
        return false
      case 5:
        return true
      case 6:
        return BigInt(text())
      default:
        throw new Error(`a header value of unknown type ${type}`)
    }
  }
  const entries: Entry[] = []
  const positions: string[] = []
  for (let index = 0; index < count; index++) {
    const flags = byte()
    positions.push(text())
    const timestamp = (flags & TIMESTAMP) === 0 ? undefined : double()
    const key = (flags & KEY) === 0 ? undefined : data()
    let headers: (readonly [string, HeaderValue])[] | undefined
    if ((flags & HEADERS) !== 0) {
      headers = []
      for (let left = length(); left > 0; left--) headers.push([text(), headerValue()])
    }
    const value = (flags & NO_VALUE) === 0 ? data() : null
    entries.push({
      value,
      ...(key === undefined ? {} : { key }),
      ...(headers === undefined ? {} : { headers }),
      ...(timestamp === undefined ? {} : { timestamp }),
    })
  }
  return { entries, positions }
}
