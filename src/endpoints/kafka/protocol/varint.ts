/**
 * Variable-length integers of record batches: seven bits a byte, the lowest first, zigzag (Kafka protocol guide,
 * "Record Batch").
 */

/** Bytes that `putVarint` takes for a number of -2^52 … 2^52. */
export function varintSize(value: number): number {
  let rest = value < 0 ? -2 * value - 1 : 2 * value
  let size = 1
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) size++
  return size
}

/** Writes at `at` and returns where it ends. */
export function putVarint(bytes: Buffer, at: number, value: number): number {
  let rest = value < 0 ? -2 * value - 1 : 2 * value
  let end = at
  // Beyond 32 bits shifts would lose the upper ones.
  for (; rest > 0x7fffffff; rest = Math.floor(rest / 128)) bytes[end++] = (rest % 128) | 0x80
  for (; rest > 0x7f; rest >>>= 7) bytes[end++] = (rest & 0x7f) | 0x80
  bytes[end++] = rest
  return end
}

/** Reads one after the other; what goes beyond `end`, or is longer than a varint can be, throws a RangeError. */
export class VarintReader {
  constructor(
    readonly bytes: Buffer,
    public at: number,
    readonly end: number,
  ) {}

  /** 32 bits. */
  int(): number {
    const first = this.byte()
    if (first < 0x80) return (first >>> 1) ^ -(first & 1)
    let value = first & 0x7f
    for (let shift = 7; shift < 35; shift += 7) {
      const next = this.byte()
      value |= (next & 0x7f) << shift
      if (next < 0x80) return (value >>> 1) ^ -(value & 1)
    }
    throw new RangeError('a number is too long')
  }

  /** 64 bits; exact up to 2^53. */
  long(): number {
    let value = 0
    let scale = 1
    for (let count = 0; count < 10; count++) {
      const next = this.byte()
      value += (next & 0x7f) * scale
      if (next < 0x80) return value % 2 === 0 ? value / 2 : -(value + 1) / 2
      scale *= 128
    }
    throw new RangeError('a number is too long')
  }

  byte(): number {
    if (this.at >= this.end) throw new RangeError('a record ends too early')
    return this.bytes[this.at++] as number
  }

  /** So many bytes from here; passed over. */
  skip(length: number): number {
    const from = this.at
    if (length < 0 || length > this.end - from) throw new RangeError('a record is longer than its batch')
    this.at = from + length
    return from
  }
}
