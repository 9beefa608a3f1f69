/**
 * A position within a partition: the offset to read next, and the topic's id, which tells a topic from one that was
 * made anew under its name.
 */

export interface KafkaPosition {
  /** Next to read. */
  readonly offset: number
  /** 32 hex digits; absent where the broker knows none, or in a position that was written by hand. */
  readonly topicId?: string
}

const NO_ID = /^0*$/

/** `1200`, or `1200@TOPICID`. */
export function encodePosition({ offset, topicId }: KafkaPosition): string {
  return topicId === undefined || NO_ID.test(topicId) ? String(offset) : `${offset}@${topicId}`
}

/** undefined: it is none of ours. */
export function decodePosition(text: string): KafkaPosition | undefined {
  const [, digits, topicId] = /^(\d{1,16})(?:@([0-9a-f]{32}))?$/.exec(text) ?? []
  const offset = Number(digits)
  if (digits === undefined || !Number.isSafeInteger(offset)) return undefined
  return topicId === undefined ? { offset } : { offset, topicId }
}

/** Tells if two ids may be of one topic. An unknown id counts as the same. */
export function isSameTopic(a: string | undefined, b: string | undefined): boolean {
  return a === undefined || b === undefined || NO_ID.test(a) || NO_ID.test(b) || a === b
}

/** Tells if a commit at `upTo` covers a record at `position`. It does not where the topics differ. */
export function covers(upTo: string, position: string): boolean {
  const committed = decodePosition(upTo)
  const at = decodePosition(position)
  return (
    committed !== undefined &&
    at !== undefined &&
    isSameTopic(committed.topicId, at.topicId) &&
    committed.offset >= at.offset
  )
}

export function partitionName(topic: string, partition: number): string {
  return `${topic}-${partition}`
}

/** undefined: it is none of ours. */
export function parsePartitionName(name: string): { readonly topic: string; readonly partition: number } | undefined {
  const [, topic, partition] = /^(.+)-(\d+)$/.exec(name) ?? []
  return topic === undefined ? undefined : { topic, partition: Number(partition) }
}
