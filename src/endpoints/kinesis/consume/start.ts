/**
 * Where each shard begins. `start` is resolved once, for the shards that exist then: with `latest` the open ones begin
 * at their tip and closed ones are not read at all. A stored position wins beside it, and what appears later begins at
 * its oldest.
 */
import type { Gap } from '../../../core/contract'
import { Fatal } from '../../../core/errors'
import { parseTime } from '../../../options/times'
import { decodePosition, encodePosition, isSameStream, type ShardPosition } from '../position'
import type { Checkpoint, Shard } from '../stream-client'

export type Start =
  | { readonly kind: 'oldest' | 'latest' }
  | { readonly kind: 'time'; readonly time: number }
  | { readonly kind: 'at' | 'after'; readonly sequence: string }

/**
 * Also as the service's iterator types: TRIM_HORIZON, AFTER_SEQUENCE_NUMBER:NUMBER. @param now epoch milliseconds.
 * Throws an Error that says what is allowed.
 */
export function parseStart(text: string, now: number): Start {
  const raw = text.trim()
  if (/^(oldest|earliest|trim_horizon)$/i.test(raw)) return { kind: 'oldest' }
  if (/^latest$/i.test(raw)) return { kind: 'latest' }
  const [, type, digits] = /^(?:(at|after)_sequence_number:)?0*(\d{20,80})$/i.exec(raw) ?? []
  if (digits !== undefined) return { kind: type?.toLowerCase() === 'after' ? 'after' : 'at', sequence: digits }
  return { kind: 'time', time: parseTime(raw.replace(/^at_timestamp:/i, ''), now) }
}

/** A shard that is to be read, once its parents were. */
export interface ShardStart {
  readonly shard: string
  readonly at: Checkpoint
  readonly seenAt?: number
  /**
   * To be noted by an empty delivery, so that it is known before the first record; with `at` of another kind than what
   * is noted.
   */
  readonly note?: string
}
export interface StartPlan {
  readonly shards: readonly ShardStart[]
  /** With the position that ends each: it is told once. */
  readonly gaps: readonly (Gap & { readonly note?: string })[]
}
export interface PlanInput {
  readonly listed: readonly Pick<Shard, 'id' | 'endingSequence'>[]
  readonly createdAt: number
  readonly now: number
  readonly start: Start
  readonly onGap: 'oldest' | 'latest' | 'fail'
  readonly stored: ReadonlyMap<string, string>
  /** Tells whether a shard is among those that are to be read. */
  inScope(shard: string): boolean
}

export function planStart(parts: PlanInput): StartPlan {
  const { listed, createdAt, now, start, onGap, inScope } = parts
  const stored = new Map(
    [...parts.stored]
      .filter(([shard]) => inScope(shard))
      .flatMap(([shard, text]) => {
        const position = decodePosition(text)
        return position === undefined ? [] : [[shard, { text, position }] as const]
      }),
  )
  const inScopeShards = listed.filter(({ id }) => inScope(id))
  // Positions of a deleted stream's ended shards say nothing any more once one of this stream is known.
  const isStreamKnown = [...stored.values()].some(({ position }) => isSameStream(position.createdAt, createdAt))
  const gaps: (Gap & { readonly note?: string })[] = []
  for (const [shard, { text, position }] of stored) {
    const same = isSameStream(position.createdAt, createdAt)
    const there = inScopeShards.some(({ id }) => id === shard)
    if (position.at.kind === 'end' || (same && there)) continue
    const why = same ? 'the shard is not kept any more (retention)' : 'the stream was deleted and made anew'
    gaps.push({
      partition: shard,
      from: text,
      to: same ? 'the end of the shard' : 'the end of the deleted stream',
      why,
      ...(there ? {} : { note: encodePosition({ at: { kind: 'end' }, createdAt }) }),
    })
  }
  const afterGap: Start = { kind: onGap === 'latest' ? 'latest' : 'oldest' }
  const first: Start = stored.size === 0 ? start : isStreamKnown ? { kind: 'oldest' } : afterGap
  if ((first.kind === 'at' || first.kind === 'after') && inScopeShards.length > 1)
    throw new Fatal(`a sequence number is one shard's, and there are ${inScopeShards.length}: shard= says which`)
  const shards = inScopeShards.map((shard): ShardStart => {
    const position = stored.get(shard.id)?.position
    if (position !== undefined && isSameStream(position.createdAt, createdAt))
      return { shard: shard.id, at: position.at, ...(position.seenAt === undefined ? {} : { seenAt: position.seenAt }) }
    const begun = checkpointFor(position === undefined ? first : afterGap, shard.endingSequence !== undefined)
    // A tip has no name but the time.
    const noted: ShardPosition = { at: begun.kind === 'latest' ? { kind: 'time', time: now } : begun, createdAt }
    return { shard: shard.id, at: begun, note: encodePosition(noted) }
  })
  return { shards, gaps }
}

function checkpointFor(start: Start, closed: boolean): Checkpoint {
  switch (start.kind) {
    case 'oldest':
      return { kind: 'oldest' }
    case 'latest':
      return { kind: closed ? 'end' : 'latest' }
    case 'time':
      return start
    case 'at':
      return { kind: 'sequence', sequence: start.sequence, sub: -1 }
    case 'after':
      return { kind: 'sequence', sequence: start.sequence }
  }
}
