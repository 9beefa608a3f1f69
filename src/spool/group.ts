/** A group of appends as what one write takes, and in the hash of the object. */
import type { Hash } from 'node:crypto'
import { FRAME_HEAD, writeHead, type Draft } from './format'
import type { Item } from './items'

/** Frames below this are copied together, so that a group of small ones is not thousands of buffers. */
const SMALL = 16 * 1024
const SLAB = 256 * 1024

/** A copy that has the group's object bytes in it too: where the group does not become durable, the hash is as before. */
export function hashed(hash: Hash | undefined, group: readonly Item[]): Hash | undefined {
  const next = hash?.copy()
  if (next !== undefined) for (const item of group) for (const chunk of item.object) next.update(chunk)
  return next
}

/** The frames of a group as few buffers: heads and small frames copied together, large payloads as they are. */
export function assemble(group: readonly Item[], durable: number): Buffer[] {
  const copied = (frame: Draft): number => frame.length < SMALL ? frame.length : FRAME_HEAD + frame.positions.length
  let left = 0
  for (const item of group) for (const frame of item.frames) left += copied(frame)
  const buffers: Buffer[] = []
  let slab = Buffer.allocUnsafe(0)
  let from = 0
  let at = 0
  const flush = (): void => {
    if (at > from) buffers.push(slab.subarray(from, at))
    from = at
  }
  for (const item of group) {
    for (const frame of item.frames) {
      const size = copied(frame)
      if (at + size > slab.length) {
        flush()
        slab = Buffer.allocUnsafe(Math.max(Math.min(SLAB, left), size))
        from = at = 0
      }
      left -= size
      writeHead(slab, at, frame, durable)
      at += FRAME_HEAD
      at += frame.positions.copy(slab, at)
      if (frame.length < SMALL) for (const chunk of frame.payload) at += chunk.copy(slab, at)
      else {
        flush()
        for (const chunk of frame.payload) if (chunk.length > 0) buffers.push(chunk)
      }
    }
  }
  flush()
  return buffers
}
