/**
 * Deliveries taken straight off the bytes of a connection: what amqplib makes of them loses bytes (text that is no
 * UTF-8, integers beyond 2^53) and costs objects that nobody needs. Frames of any other kind are left where they are,
 * for the library.
 *
 * AMQP 0-9-1, 2.3.5 (frames) and 4.2: type, channel, size, payload, 0xCE; a message is a method frame (basic.deliver),
 * a header frame and body frames.
 */

/**
 * One message as it came: views into the bytes that were read. They are made when they are asked for: most messages are
 * asked for their body alone, and a view costs more than the bytes of a small one.
 */
export class Message {
  /** On the wire. */
  bytes = 0
  private header: Buffer = EMPTY_BYTES
  private propertiesAt = 0
  private headerEnd = 0
  /** Of the body, not here yet. */
  missing = 0
  private first: Buffer = EMPTY_BYTES
  private furtherParts: Buffer[] | undefined

  /**
   * @param method bytes that hold the method frame's payload @param at where its exchange's length is @param tag of its
   *   channel, counting up by one
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
  /** Property flags and property list of the header frame. */
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
  /** Whether it came to the queue of this name under the default exchange, as most messages do: no view is made. */
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
/** What `max_message_size` of RabbitMQ is at the most. */
const MAX_BODY = 512 * 1024 * 1024
/** Class, weight and body size before the flags of a header frame. */
const HEADER_FIXED = 12

export class DeliveryReader {
  private unfinished: Message | undefined

  constructor(
    private readonly channel: number,
    private readonly deliver: (message: Message) => void,
  ) {}

  /**
   * Takes whole frames of deliveries off the front of the bytes, as long as they come. Returns how many bytes were
   * taken.
   */
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

  /** Whether it was one of a delivery. */
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
