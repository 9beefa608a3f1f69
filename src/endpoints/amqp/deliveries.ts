/**
 * Deliveries taken straight off the bytes of a connection: what amqplib makes of them loses bytes (text that is no UTF-8, integers beyond 2^53) and costs
 * objects that nobody needs. Frames of any other kind are left where they are, for the library.
 *
 * AMQP 0-9-1, 2.3.5 (frames) and 4.2: type, channel, size, payload, 0xCE; a message is a method frame (basic.deliver), a header frame and body frames.
 */

/** One message as it came: views into the bytes that were read. */
export interface Message {
  /** Of its channel, counting up by one. */
  readonly tag: number
  readonly redelivered: boolean
  readonly exchange: Buffer
  readonly routingKey: Buffer
  /** Property flags and property list of the header frame. */
  readonly properties: Buffer
  readonly body: Buffer
  /** On the wire. */
  readonly bytes: number
}

const METHOD = 1, HEADER = 2, BODY = 3, FRAME_END = 0xce
const FRAME_HEAD = 7, FRAME_OVERHEAD = 8
const BASIC_DELIVER = (60 << 16) | 60
/** Class, weight and body size before the flags of a header frame. */
const HEADER_FIXED = 12

interface Begun { readonly tag: number; readonly redelivered: boolean; readonly exchange: Buffer; readonly routingKey: Buffer; bytes: number; properties?: Buffer; left: number; parts: Buffer[] }

export class DeliveryReader {
  private begun: Begun | undefined

  constructor(private readonly channel: number, private readonly deliver: (message: Message) => void) {}

  /** Takes whole frames of deliveries off the front of the bytes, as long as they come. Returns how many bytes were taken. */
  take(bytes: Buffer): number {
    let at = 0
    while (bytes.length - at >= FRAME_OVERHEAD) {
      if (bytes.readUInt16BE(at + 1) !== this.channel) break
      const size = bytes.readUInt32BE(at + 3)
      const end = at + FRAME_HEAD + size
      if (end >= bytes.length || bytes[end] !== FRAME_END || !this.frame(bytes, bytes[at] ?? 0, at + FRAME_HEAD, end)) break
      at = end + 1
    }
    return at
  }

  /** Whether it was one of a delivery. */
  private frame(bytes: Buffer, type: number, start: number, end: number): boolean {
    const { begun } = this
    if (type === METHOD) {
      if (begun !== undefined || bytes.readUInt32BE(start) !== BASIC_DELIVER) return false
      const tag = start + 5 + (bytes[start + 4] ?? 0)
      const exchange = tag + 10
      const exchangeEnd = exchange + (bytes[exchange - 1] ?? 0)
      const key = exchangeEnd + 1
      this.begun = {
        tag: bytes.readUInt32BE(tag) * 0x1_0000_0000 + bytes.readUInt32BE(tag + 4), redelivered: ((bytes[tag + 8] ?? 0) & 1) === 1,
        exchange: bytes.subarray(exchange, exchangeEnd), routingKey: bytes.subarray(key, key + (bytes[exchangeEnd] ?? 0)), bytes: end - start, left: 0, parts: [],
      }
      return true
    }
    if (begun === undefined) return false
    if (type === HEADER && begun.properties === undefined) {
      begun.left = bytes.readUInt32BE(start + 4) * 0x1_0000_0000 + bytes.readUInt32BE(start + 8)
      begun.properties = bytes.subarray(start + HEADER_FIXED, end)
      begun.bytes += end - start
      if (begun.left === 0) this.finish(begun, begun.properties)
      return true
    }
    if (type !== BODY || begun.properties === undefined) return false
    begun.parts.push(bytes.subarray(start, end))
    begun.left -= end - start
    begun.bytes += end - start
    if (begun.left <= 0) this.finish(begun, begun.properties)
    return true
  }

  private finish({ tag, redelivered, exchange, routingKey, bytes, parts }: Begun, properties: Buffer): void {
    this.begun = undefined
    const [only] = parts
    this.deliver({ tag, redelivered, exchange, routingKey, properties, bytes, body: parts.length === 1 && only !== undefined ? only : Buffer.concat(parts) })
  }
}
