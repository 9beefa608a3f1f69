/**
 * Encodes messages as frames of basic.publish, many in one buffer. amqplib would make several objects and one write for
 * each.
 *
 * AMQP 0-9-1, 2.3.5 and 4.2: a message is a method frame, a header frame, and its body in frames of at most frame_max.
 * A header frame cannot be split, so the caller refuses headers that do not fit (`headerBytes`).
 */
export interface Publication {
  readonly exchange: Buffer
  readonly routingKey: Buffer
  readonly mandatory: boolean
  /** Returns property flags and property list of the header frame. */
  readonly properties: Buffer
  readonly body: Buffer
}

const METHOD = 1,
  HEADER = 2,
  BODY = 3,
  FRAME_END = 0xce
export const FRAME_OVERHEAD = 8
const BASIC = 60,
  PUBLISH = 40
/** Class, weight and body size stand before the flags of a header frame. */
const HEADER_FIXED = 12
/** A short string is at most this long, because its length is one byte. */
export const SHORT_STRING = 255

/** Returns the size of the header frame with its overhead. */
export function headerBytes(properties: Buffer): number {
  return FRAME_OVERHEAD + HEADER_FIXED + properties.length
}

function sizeOf({ exchange, routingKey, properties, body }: Publication, maxBody: number): number {
  return (
    FRAME_OVERHEAD +
    9 +
    exchange.length +
    routingKey.length +
    headerBytes(properties) +
    body.length +
    Math.ceil(body.length / maxBody) * FRAME_OVERHEAD
  )
}

/**
 * Encodes all publications in order.
 * @param frameMax the largest frame of the connection, with its overhead
 */
export function encodePublications(publications: readonly Publication[], channel: number, frameMax: number): Buffer {
  const maxBody = frameMax - FRAME_OVERHEAD
  let total = 0
  for (const publication of publications) total += sizeOf(publication, maxBody)
  const out = Buffer.allocUnsafeSlow(total)
  let at = 0
  const begin = (type: number, size: number): void => {
    out[at] = type
    out.writeUInt16BE(channel, at + 1)
    out.writeUInt32BE(size, at + 3)
    at += 7
  }
  for (const { exchange, routingKey, mandatory, properties, body } of publications) {
    begin(METHOD, 9 + exchange.length + routingKey.length)
    out.writeUInt16BE(BASIC, at)
    out.writeUInt16BE(PUBLISH, at + 2)
    // This field is reserved. It was once a ticket.
    out.writeUInt16BE(0, at + 4)
    out[at + 6] = exchange.length
    at += 7 + exchange.copy(out, at + 7)
    out[at] = routingKey.length
    at += 1 + routingKey.copy(out, at + 1)
    out[at] = mandatory ? 1 : 0
    out[at + 1] = FRAME_END
    at += 2
    begin(HEADER, HEADER_FIXED + properties.length)
    out.writeUInt16BE(BASIC, at)
    out.writeUInt16BE(0, at + 2)
    out.writeUInt32BE(Math.floor(body.length / 0x1_0000_0000), at + 4)
    out.writeUInt32BE(body.length % 0x1_0000_0000, at + 8)
    at += HEADER_FIXED + properties.copy(out, at + HEADER_FIXED)
    out[at++] = FRAME_END
    for (let from = 0; from < body.length; from += maxBody) {
      const to = Math.min(body.length, from + maxBody)
      begin(BODY, to - from)
      at += body.copy(out, at, from, to)
      out[at++] = FRAME_END
    }
  }
  return out
}
