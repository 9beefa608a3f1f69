/**
 * Produce requests are sent without a copy of their records. The library copies every request into fresh memory before
 * it writes it, which for megabytes of records costs as much as encoding them. It is given a placeholder instead, and
 * the request takes the place of the placeholder where that is written to the socket.
 */
import type { Socket } from 'node:net'

/** API key of the only request whose body is deferred. */
export const PRODUCE_KEY = 0
/** Request's size, then its key (KIP-482, and the protocol's guide). */
const SIZE_BYTES = 4
const KEY_AT = 4
/** Smaller parts are merged before they are written: they are the fields between the records. */
const SMALL_PART_BYTES = 4096

/** Keeps the parts of a request's body, and returns the placeholder that the library is to send. */
export type DeferBody = (parts: readonly Buffer[]) => Buffer

export class DeferredBodies {
  private readonly deferred = new Map<number, readonly Buffer[]>()
  private lastId = 0

  readonly defer: DeferBody = (parts) => {
    this.lastId = (this.lastId + 1) >>> 0
    this.deferred.set(this.lastId, parts)
    const placeholder = Buffer.alloc(4)
    placeholder.writeUInt32BE(this.lastId)
    return placeholder
  }

  /** To be called once the socket is connected. */
  interceptWrites(socket: Socket): void {
    const write = socket.write.bind(socket) as (bytes: Buffer, ...rest: unknown[]) => boolean
    socket.write = (bytes: Buffer | string | Uint8Array, ...rest: unknown[]): boolean => {
      const parts = Buffer.isBuffer(bytes) ? this.requestFor(bytes) : undefined
      if (parts === undefined) return write(bytes as Buffer, ...rest)
      socket.cork()
      let goesOn = true
      for (const part of parts) goesOn = write(part)
      socket.uncork()
      return goesOn
    }
  }

  /** Returns the request that a placeholder stands for, with its header first. */
  private requestFor(bytes: Buffer): readonly Buffer[] | undefined {
    if (bytes.length < KEY_AT + 2 + 4 || bytes.readInt16BE(KEY_AT) !== PRODUCE_KEY) return undefined
    const at = bytes.length - 4
    const id = bytes.readUInt32BE(at)
    const parts = this.deferred.get(id)
    if (parts === undefined) return undefined
    this.deferred.delete(id)
    const header = Buffer.from(bytes.subarray(0, at))
    header.writeInt32BE(header.length - SIZE_BYTES + parts.reduce((sum, { length }) => sum + length, 0))
    return mergeSmallParts([header, ...parts])
  }
}

function mergeSmallParts(parts: readonly Buffer[]): readonly Buffer[] {
  const out: Buffer[] = []
  let small: Buffer[] = []
  const flush = (): void => {
    if (small.length > 0) out.push(Buffer.concat(small))
    small = []
  }
  for (const part of parts) {
    if (part.length < SMALL_PART_BYTES) small.push(part)
    else {
      flush()
      out.push(part)
    }
  }
  flush()
  return out
}
