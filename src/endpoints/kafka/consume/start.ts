/**
 * Resolves `start`: the offset at which partitions without a position begin, among those that exist when reading
 * begins.
 */
import { Disconnected, type ManifoldError } from '../../../core/errors'
import { parseTime } from '../../../options/times'
import type { Cluster, OffsetRequest } from '../protocol/cluster'

export type Start =
  | { readonly kind: 'oldest' | 'latest' }
  | { readonly kind: 'offset'; readonly offset: number }
  | { readonly kind: 'back'; readonly records: number }
  | { readonly kind: 'time'; readonly at: number }

/** @param now epoch milliseconds, what relative times count from. Throws an Error that says what is allowed. */
export function parseStart(text: string, now: number): Start {
  const raw = text.trim()
  if (/^(oldest|earliest)$/i.test(raw)) return { kind: 'oldest' }
  if (/^latest$/i.test(raw)) return { kind: 'latest' }
  if (/^\d+$/.test(raw)) return { kind: 'offset', offset: Number(raw) }
  if (/^-\d+$/.test(raw)) return { kind: 'back', records: Number(raw.slice(1)) }
  return { kind: 'time', at: parseTime(raw, now) }
}

/** A partition to begin with: where, if something is known. */
export interface PartitionStart {
  readonly topic: string
  readonly partition: number
  readonly epoch: number
  /** Where to go on; absent: at `start`. */
  readonly at?: number | 'oldest'
  /** `at` stands on the command line. */
  readonly explicit?: true
  /**
   * The position that is known belongs to a topic that was deleted since. Where `at` does not say where to start,
   * `on-gap` does.
   */
  readonly deleted?: string
  /** It is ours again and goes on where we were: what was read before counts under this epoch, too. */
  readonly reassigned?: true
}

/** A partition with who leads it. */
export interface LedPartition {
  readonly topic: string
  readonly partition: number
  readonly leader: number
  readonly leaderEpoch: number
}

/**
 * Offsets of partitions, in their order; -1 where no record is that young. @param faultOf what an error code of a
 * partition becomes
 */
export async function offsetsAt(
  cluster: Cluster,
  partitions: readonly LedPartition[],
  at: OffsetRequest['at'],
  committedOnly: boolean,
  faultOf: (code: number, led: LedPartition) => ManifoldError,
  signal: AbortSignal,
): Promise<readonly number[]> {
  const found = new Map<LedPartition, number>()
  const brokers = Map.groupBy(partitions, ({ leader }) => leader)
  await Promise.all(
    [...brokers].map(async ([broker, led]) => {
      const answers = await cluster.offsets(
        broker,
        led.map(({ topic, partition, leaderEpoch }) => ({ topic, partition, leaderEpoch, at })),
        committedOnly,
        signal,
      )
      for (const one of led) {
        const answer = answers.find(({ topic, partition }) => topic === one.topic && partition === one.partition)
        if (answer === undefined)
          throw new Disconnected(`the broker did not tell an offset of ${one.topic}-${one.partition}`)
        if (answer.error !== 0) throw faultOf(answer.error, one)
        found.set(one, answer.offset)
      }
    }),
  )
  return partitions.map((one) => found.get(one) ?? -1)
}

/** Where each partition begins, and what lies around it. */
export interface ResolvedStart {
  readonly offset: number
  readonly oldest: number
  readonly latest: number
}

/** `committedOnly`: the end is that of what is decided, so that `latest` and `-100` count only what can be read. */
export async function resolveStart(
  start: Start,
  cluster: Cluster,
  partitions: readonly LedPartition[],
  committedOnly: boolean,
  faultOf: (code: number, led: LedPartition) => ManifoldError,
  signal: AbortSignal,
): Promise<readonly ResolvedStart[]> {
  if (partitions.length === 0) return []
  const at = (when: OffsetRequest['at']): Promise<readonly number[]> =>
    offsetsAt(cluster, partitions, when, committedOnly, faultOf, signal)
  const [oldest, latest, timed] = await Promise.all([
    at('earliest'),
    at('latest'),
    start.kind === 'time' ? at(start.at) : undefined,
  ])
  return partitions.map((_, index) => {
    const first = oldest[index] ?? 0
    const last = Math.max(first, latest[index] ?? 0)
    const wanted =
      start.kind === 'oldest'
        ? first
        : start.kind === 'latest'
          ? last
          : start.kind === 'offset'
            ? start.offset
            : start.kind === 'back'
              ? last - start.records
              : (timed?.[index] ?? -1)
    return {
      offset: start.kind === 'time' && wanted < 0 ? last : Math.min(last, Math.max(first, wanted)),
      oldest: first,
      latest: last,
    }
  })
}
