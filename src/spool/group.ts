/** A group of appends: which go together, what one write takes of them, and in the hash of the object. */
import type { Hash } from 'node:crypto'
import type { SegmentPolicy } from '../core/contract'
import { DATA_AT, FRAME_HEAD, writeHead, type Draft } from './format'
import type { AppendItem } from './append-items'
import type { Open } from './open-segment'

/** `sealBytes`: of an object, 0 for never. `segmentBytes`: of a file, where no sink stores objects. */
export interface GroupLimits {
  readonly sealBytes: number
  readonly segmentBytes: number
}

/** Frames below this are copied together, so that a group of small ones is not thousands of buffers. */
const SMALL = 16 * 1024
const SLAB = 256 * 1024

/**
 * From the head of the queue what goes into the open segment in one write; undefined where that has to be sealed first.
 * @param most  bytes, one append apart
 */
export function gather(
  queue: readonly AppendItem[],
  open: Open | undefined,
  most: number,
  policy: SegmentPolicy | undefined,
  limits: GroupLimits,
): readonly AppendItem[] | undefined {
  let period = open?.count === 0 ? undefined : open?.period
  let bytes = 0
  let size = limits.sealBytes > 0 ? (open?.objectLength ?? 0) : 0
  const group: AppendItem[] = []
  for (const item of queue) {
    if (group.length > 0 && bytes + item.bytes > most) break
    if (policy !== undefined && item.count > 0) {
      const own = policy.period(item.receivedAt)
      if (period !== undefined && own !== period) {
        if (group.length === 0) return undefined
        break
      }
      period = own
    }
    group.push(item)
    bytes += item.bytes
    size += item.objectLength
    if (isFull(size, (open?.end ?? DATA_AT) + bytes, policy !== undefined, limits)) break
  }
  return group
}

export function isFull(
  objectLength: number,
  end: number,
  storesObjects: boolean,
  { sealBytes, segmentBytes }: GroupLimits,
): boolean {
  return storesObjects ? sealBytes > 0 && objectLength >= sealBytes : end >= segmentBytes
}

/**
 * A copy that has the group's object bytes in it too: where the group does not become durable, the hash is as before.
 */
export function hashed(hash: Hash | undefined, group: readonly AppendItem[]): Hash | undefined {
  const next = hash?.copy()
  if (next !== undefined) for (const item of group) for (const chunk of item.object) next.update(chunk)
  return next
}

/** The frames of a group as few buffers: heads and small frames copied together, large payloads as they are. */
export function assemble(group: readonly AppendItem[], durable: number): Buffer[] {
  const copied = (frame: Draft): number => (frame.length < SMALL ? frame.length : FRAME_HEAD + frame.positions.length)
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
