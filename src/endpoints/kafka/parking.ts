/**
 * Produce requests go out as they lie in memory. The library gathers every request in fresh memory before it writes it,
 * which for megabytes of records costs as much as encoding them. So it is given a ticket instead of the request, and
 * where the ticket is written to the socket, the request takes its place.
 */
import type { Socket } from 'node:net'

/** Key of the only request that is parked. */
export const PRODUCE = 0
/** Request's size, then its key (KIP-482, and the protocol's guide). */
const SIZE_BYTES = 4
const KEY_AT = 4
/** Pieces below it are gathered: fields between the records. */
const SMALL = 4096

/** Keeps the parts of a request's body. @returns what the library is to send in their place */
export type Park = (parts: readonly Buffer[]) => Buffer

export class Parking {
  private readonly parked = new Map<number, readonly Buffer[]>()
  private serial = 0

  readonly park: Park = (parts) => {
    this.serial = (this.serial + 1) >>> 0
    this.parked.set(this.serial, parts)
    const ticket = Buffer.alloc(4)
    ticket.writeUInt32BE(this.serial)
    return ticket
  }

  /** To be called once the socket is connected. */
  watch(socket: Socket): void {
    const write = socket.write.bind(socket) as (bytes: Buffer, ...rest: unknown[]) => boolean
    socket.write = (bytes: Buffer | string | Uint8Array, ...rest: unknown[]): boolean => {
      const parts = Buffer.isBuffer(bytes) ? this.takes(bytes) : undefined
      if (parts === undefined) return write(bytes as Buffer, ...rest)
      socket.cork()
      let goesOn = true
      for (const part of parts) goesOn = write(part)
      socket.uncork()
      return goesOn
    }
  }

  /** The request that a ticket stands for, its header before it. */
  private takes(bytes: Buffer): readonly Buffer[] | undefined {
    if (bytes.length < KEY_AT + 2 + 4 || bytes.readInt16BE(KEY_AT) !== PRODUCE) return undefined
    const at = bytes.length - 4
    const serial = bytes.readUInt32BE(at)
    const parts = this.parked.get(serial)
    if (parts === undefined) return undefined
    this.parked.delete(serial)
    const header = Buffer.from(bytes.subarray(0, at))
    header.writeInt32BE(header.length - SIZE_BYTES + parts.reduce((sum, { length }) => sum + length, 0))
    return gathered([header, ...parts])
  }
}

function gathered(parts: readonly Buffer[]): readonly Buffer[] {
  const out: Buffer[] = []
  let small: Buffer[] = []
  const flush = (): void => {
    if (small.length > 0) out.push(Buffer.concat(small))
    small = []
  }
  for (const part of parts) {
    if (part.length < SMALL) small.push(part)
    else {
      flush()
      out.push(part)
    }
  }
  flush()
  return out
}
