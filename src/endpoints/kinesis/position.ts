/**
 * A position within a shard, as text: where reading goes on, the stream's creation time, which tells a stream from one
 * that was made anew under its name, and how far in time the shard is known to hold nothing that was not read:
 * `SEQUENCE:SUB@CREATED~SEEN`.
 *
 * SEEN is what tells a shard in which nothing came for longer than the stream keeps its records from one that was not
 * read for so long.
 */
import type { Checkpoint } from './stream-client'

export interface ShardPosition {
  /** `sub` of -1: none of that record is done, reading begins with it. */
  readonly at: Checkpoint
  /** Epoch milliseconds; absent in a position that was written by hand. */
  readonly createdAt?: number
  /** Epoch milliseconds. */
  readonly seenAt?: number
}

/** Digits of a sequence number: 56 are usual, up to 129 bits are spoken of. */
const FORM = /^(?:(oldest|latest|end)|time:(\d{1,16})|(\d{1,80})(?::(-1|\d{1,9}))?)(?:@(\d{1,16}))?(?:~(\d{1,16}))?$/

export function encodePosition({ at, createdAt, seenAt }: ShardPosition): string {
  const place =
    at.kind === 'sequence'
      ? at.sub === undefined
        ? at.sequence
        : `${at.sequence}:${at.sub}`
      : at.kind === 'time'
        ? `time:${Math.floor(at.time)}`
        : at.kind
  return `${place}${createdAt === undefined ? '' : `@${Math.floor(createdAt)}`}${seenAt === undefined ? '' : `~${Math.floor(seenAt)}`}`
}

/** undefined: it is none of ours. */
export function decodePosition(text: string): ShardPosition | undefined {
  const [whole, word, time, sequence, sub, createdAt, seenAt] = FORM.exec(text) ?? []
  if (whole === undefined) return undefined
  const at: Checkpoint =
    sequence !== undefined
      ? {
          kind: 'sequence',
          sequence: sequence.replace(/^0+(?=\d)/, ''),
          ...(sub === undefined ? {} : { sub: Number(sub) }),
        }
      : time !== undefined
        ? { kind: 'time', time: Number(time) }
        : { kind: word as 'oldest' | 'latest' | 'end' }
  return {
    at,
    ...(createdAt === undefined ? {} : { createdAt: Number(createdAt) }),
    ...(seenAt === undefined ? {} : { seenAt: Number(seenAt) }),
  }
}

/** Tells whether the two may be of one stream: a time that is not known is no reason to think otherwise. */
export function isSameStream(a: number | undefined, b: number | undefined): boolean {
  return a === undefined || b === undefined || Math.floor(a) === Math.floor(b)
}

/** As numbers: decimals without leading zeros. */
export function compareSequences(a: string, b: string): number {
  return a.length !== b.length ? a.length - b.length : a < b ? -1 : a > b ? 1 : 0
}

/** Tells whether a commit at `upTo` covers a record at `position`; it does not where the streams differ. */
export function covers(upTo: string, position: string): boolean {
  const committed = decodePosition(upTo)
  const of = decodePosition(position)
  if (committed === undefined || of === undefined || !isSameStream(committed.createdAt, of.createdAt)) return false
  if (committed.at.kind === 'end') return true
  if (of.at.kind === 'oldest') return true
  if (committed.at.kind !== 'sequence' || of.at.kind !== 'sequence')
    return (
      committed.at.kind === of.at.kind &&
      (committed.at.kind !== 'time' || of.at.kind !== 'time' || committed.at.time >= of.at.time)
    )
  const order = compareSequences(committed.at.sequence, of.at.sequence)
  return order !== 0 ? order > 0 : (committed.at.sub ?? Infinity) >= (of.at.sub ?? Infinity)
}
