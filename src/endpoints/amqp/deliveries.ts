/**
 * Parses deliveries from the bytes of a connection. amqplib would lose bytes (text that is no UTF-8, integers beyond
 * 2^53) and create many objects. All other frames are left to the library.
 *
 * AMQP 0-9-1, 2.3.5 (frames) and 4.2: a frame is type, channel, size, payload and 0xCE. A message is a method frame
 * (basic.deliver), a header frame and body frames.
 */

/**
 * A message as it arrived. Its parts are views into the bytes that were read. A view is made on demand, because mostly
 * only the body is needed, and a view costs more than the bytes of a small message.
 */
export class Message {
  /** The size on the wire. */
  bytes = 0
  private header: Buffer = EMPTY_BYTES
  private propertiesAt = 0
  private headerEnd = 0
  /** The bytes of the body that have not arrived yet. */
  missing = 0
  private first: Buffer = EMPTY_BYTES
  private furtherParts: Buffer[] | undefined

  /**
   * @param method the bytes that contain the payload of the method frame
   * @param at the index of the length of the exchange's name
   * @param tag the delivery tag, which increases by one within a channel
   */
  constructor(
    private readonly method: Buffer,
    private readonly at: number,
    readonly tag: number,
    readonly redelivered: boolean,
  ) {}

  get hasHeader(): boolean {
    return this.header !== EMPTY_BYTES
  }
  setHeader(bytes: Buffer, start: number, end: number): void {
    this.header = bytes
    this.propertiesAt = start
    this.headerEnd = end
  }
  add(body: Buffer): void {
    if (this.first.length === 0) this.first = body
    else (this.furtherParts ??= []).push(body)
    this.missing -= body.length
  }

  get exchange(): Buffer {
    return this.method.subarray(this.at + 1, this.keyAt)
  }
  get routingKey(): Buffer {
    return this.method.subarray(this.keyAt + 1, this.keyAt + 1 + (this.method[this.keyAt] ?? 0))
  }
  /** Returns property flags and property list of the header frame. */
  get properties(): Buffer {
    return this.header.subarray(this.propertiesAt, this.headerEnd)
  }
  get body(): Buffer {
    if (this.furtherParts !== undefined) {
      this.first = Buffer.concat([this.first, ...this.furtherParts])
      this.furtherParts = undefined
    }
    return this.first
  }
  /**
   * Tells whether the message came to the queue of this name through the default exchange, as most messages do. It
   * makes no view for that.
   */
  isAddressedTo(queue: Buffer): boolean {
    const { method, at } = this
    if (method[at] !== 0 || method[at + 1] !== queue.length) return false
    for (let index = 0; index < queue.length; index++) if (method[at + 2 + index] !== queue[index]) return false
    return true
  }
  private get keyAt(): number {
    return this.at + 1 + (this.method[this.at] ?? 0)
  }
}

const EMPTY_BYTES = Buffer.alloc(0)
const METHOD = 1,
  HEADER = 2,
  BODY = 3,
  FRAME_END = 0xce
const FRAME_HEAD = 7,
  FRAME_OVERHEAD = 8
const BASIC_DELIVER = (60 << 16) | 60
/** RabbitMQ accepts no larger `max_message_size`. */
const MAX_BODY = 512 * 1024 * 1024
/** Class, weight and body size stand before the flags of a header frame. */
const HEADER_FIXED = 12

export class DeliveryReader {
  private unfinished: Message | undefined

  constructor(
    private readonly channel: number,
    private readonly deliver: (message: Message) => void,
  ) {}

  /** Takes whole frames of deliveries from the front of the bytes, and returns how many bytes it took. */
  take(bytes: Buffer): number {
    let at = 0
    while (bytes.length - at >= FRAME_OVERHEAD) {
      if (bytes.readUInt16BE(at + 1) !== this.channel) break
      const size = bytes.readUInt32BE(at + 3)
      const end = at + FRAME_HEAD + size
      if (end >= bytes.length || bytes[end] !== FRAME_END || !this.frame(bytes, bytes[at] ?? 0, at + FRAME_HEAD, end))
        break
      at = end + 1
    }
    return at
  }

  /** Takes a frame, and tells whether it belongs to a delivery. */
  private frame(bytes: Buffer, type: number, start: number, end: number): boolean {
    let message = this.unfinished
    if (type === METHOD) {
      if (message !== undefined || bytes.readUInt32BE(start) !== BASIC_DELIVER) return false
      const tag = start + 5 + (bytes[start + 4] ?? 0)
      this.unfinished = message = new Message(
        bytes,
        tag + 9,
        bytes.readUInt32BE(tag) * 0x1_0000_0000 + bytes.readUInt32BE(tag + 4),
        ((bytes[tag + 8] ?? 0) & 1) === 1,
      )
    } else if (message === undefined) return false
    else if (type === HEADER && !message.hasHeader) {
      message.missing = bytes.readUInt32BE(start + 4) * 0x1_0000_0000 + bytes.readUInt32BE(start + 8)
      if (message.missing > MAX_BODY)
        throw new Error(`a message of ${message.missing} bytes, more than the ${MAX_BODY} that a broker can hold`)
      message.setHeader(bytes, start + HEADER_FIXED, end)
    } else if (type === BODY && message.hasHeader) message.add(bytes.subarray(start, end))
    else return false
    message.bytes += end - start
    if (message.hasHeader && message.missing <= 0) {
      this.unfinished = undefined
      this.deliver(message)
    }
    return true
  }
}
