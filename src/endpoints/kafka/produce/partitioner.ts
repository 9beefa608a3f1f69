/**
 * Chooses the partition of a record as the producer of the Java client does, so that both put a key into the same
 * partition.
 */

/** MurmurHash2 by Austin Appleby as org.apache.kafka.common.utils.Utils.murmur2 has it: 32 bits, its seed, signed. */
export function murmur2(key: Uint8Array): number {
  const length = key.length
  let hash = 0x9747b28c ^ length
  let at = 0
  for (; at + 4 <= length; at += 4) {
    let k = (key[at] ?? 0) | ((key[at + 1] ?? 0) << 8) | ((key[at + 2] ?? 0) << 16) | ((key[at + 3] ?? 0) << 24)
    k = Math.imul(k, 0x5bd1e995)
    k ^= k >>> 24
    hash = Math.imul(hash, 0x5bd1e995) ^ Math.imul(k, 0x5bd1e995)
  }
  const rest = length - at
  if (rest > 2) hash ^= (key[at + 2] ?? 0) << 16
  if (rest > 1) hash ^= (key[at + 1] ?? 0) << 8
  if (rest > 0) hash = Math.imul(hash ^ (key[at] ?? 0), 0x5bd1e995)
  hash ^= hash >>> 13
  hash = Math.imul(hash, 0x5bd1e995)
  return hash ^ (hash >>> 15)
}

/**
 * @param partitions all of the topic, those without a leader too: a key's place does not change while a broker is away
 */
export function partitionOf(key: Uint8Array, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions
}

/** Records without a key fill one partition for a while, then another, so that batches are few and large. */
export class StickyPartitioner {
  private current: number | undefined
  private bytes = 0

  /** @param switchAfterBytes bytes after which another partition is chosen */
  constructor(
    private readonly switchAfterBytes: number,
    private readonly random: () => number = Math.random,
  ) {}

  /** @param available those that have a leader; all of them where none has @param size bytes that will go there */
  choose(available: readonly number[], size: number): number {
    if (this.current === undefined || this.bytes >= this.switchAfterBytes || !available.includes(this.current)) {
      const others = available.length > 1 ? available.filter((partition) => partition !== this.current) : available
      this.current = others[Math.floor(this.random() * others.length)] ?? 0
      this.bytes = 0
    }
    this.bytes += size
    return this.current
  }
}
