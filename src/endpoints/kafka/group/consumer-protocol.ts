/**
 * Encodes and decodes what members of a consumer group tell each other inside JoinGroup and SyncGroup; the broker
 * passes it on unread. Layout: ConsumerProtocolSubscription.json and ConsumerProtocolAssignment.json of Apache Kafka. A
 * newer version only adds fields at the end, so every version can be read as far as it is known.
 */
export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}

export interface Subscription {
  readonly topics: readonly string[]
  /**
   * Partitions that the member owned when it joined. It is empty for members that give everything up before each
   * rebalance (eager).
   */
  readonly owned: readonly TopicPartition[]
  /**
   * Of the member's last assignment; -1: none, or it cannot tell. Of two members that claim a partition the newer one
   * has it.
   */
  readonly generation: number
  readonly rack?: string
}

/** Names a partition in maps. A topic's name holds no space. */
export function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic} ${partition}`
}

const SUBSCRIPTION_VERSION = 3
/** Its fields have not changed since; any reader takes it. */
const ASSIGNMENT_VERSION = 0

/**
 * The same members, topics and partitions give the same bytes: a broker answers a join that changes nothing without a
 * rebalance.
 */
export function encodeSubscription({ topics, owned, generation, rack }: Subscription): Buffer {
  // Before version 2 had the field, CooperativeStickyAssignor put the generation into the user data; its older versions
  // look for it there.
  const userData = Buffer.alloc(4)
  userData.writeInt32BE(generation)
  return Buffer.concat([
    int16(SUBSCRIPTION_VERSION),
    int32(topics.length),
    ...[...topics].sort().map(encodeText),
    int32(userData.length),
    userData,
    encodePartitions(owned),
    int32(generation),
    rack === undefined ? int16(-1) : encodeText(rack),
  ])
}

export function decodeSubscription(bytes: Buffer): Subscription {
  const reader = new Reader(bytes)
  const version = reader.int16()
  const topics = reader.list(() => reader.text())
  const userData = reader.bytes()
  const owned = version >= 1 ? reader.partitions() : []
  const told = userData?.length === 4 ? userData.readInt32BE() : -1
  const generation = version >= 2 ? reader.int32() : told
  const rack = version >= 3 ? reader.nullableText() : undefined
  return { topics, owned, generation, ...(rack === undefined ? {} : { rack }) }
}

export function encodeAssignment(assigned: readonly TopicPartition[]): Buffer {
  return Buffer.concat([int16(ASSIGNMENT_VERSION), encodePartitions(assigned), int32(-1)])
}

/** No bytes at all: the leader has left the member out. */
export function decodeAssignment(bytes: Buffer): readonly TopicPartition[] {
  if (bytes.length === 0) return []
  const reader = new Reader(bytes)
  reader.int16()
  return reader.partitions()
}

function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeInt16BE(value)
  return bytes
}
function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}
function encodeText(value: string): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([int16(bytes.length), bytes])
}

function encodePartitions(all: readonly TopicPartition[]): Buffer {
  const byTopic = new Map<string, number[]>()
  for (const { topic, partition } of all) byTopic.set(topic, [...(byTopic.get(topic) ?? []), partition])
  const topics = [...byTopic].sort(([a], [b]) => (a < b ? -1 : 1))
  return Buffer.concat([
    int32(topics.length),
    ...topics.flatMap(([topic, numbers]) => [
      encodeText(topic),
      int32(numbers.length),
      ...numbers.sort((a, b) => a - b).map(int32),
    ]),
  ])
}

/** Throws RangeError where the bytes end early or a length makes no sense. */
class Reader {
  private at = 0

  constructor(private readonly buffer: Buffer) {}

  int16(): number {
    this.at += 2
    return this.buffer.readInt16BE(this.at - 2)
  }
  int32(): number {
    this.at += 4
    return this.buffer.readInt32BE(this.at - 4)
  }

  bytes(): Buffer | undefined {
    const length = this.int32()
    return length < 0 ? undefined : this.take(length)
  }

  text(): string {
    return this.nullableText() ?? ''
  }

  nullableText(): string | undefined {
    const length = this.int16()
    return length < 0 ? undefined : this.take(length).toString()
  }

  list<T>(read: () => T): T[] {
    const length = this.int32()
    // Every element has two bytes at the least: a length that cannot be true must not become an array of that size.
    if (length * 2 > this.buffer.length - this.at)
      throw new RangeError(`a list of ${length} in ${this.buffer.length - this.at} bytes`)
    return Array.from({ length: Math.max(0, length) }, read)
  }

  partitions(): TopicPartition[] {
    return this.list(() => {
      const topic = this.text()
      return this.list(() => ({ topic, partition: this.int32() }))
    }).flat()
  }

  private take(length: number): Buffer {
    if (this.at + length > this.buffer.length)
      throw new RangeError(`${length} bytes where ${this.buffer.length - this.at} are left`)
    this.at += length
    return this.buffer.subarray(this.at - length, this.at)
  }
}
