/** Finds the topics that a line names, and the metadata that the cluster has of them. */
import { Refused } from '../../../core/errors'
import { NONE } from '../protocol/error-codes'
import { protocolFault } from '../errors'
import type { Cluster, PartitionMetadata, TopicMetadata } from '../protocol/cluster'

export interface WantedTopics {
  readonly names: readonly string[]
  readonly pattern?: RegExp
}

/**
 * `orders,returns,~^audit-`: names, and a pattern last, for it may hold commas. A topic is meant where the pattern fits
 * its whole name. Throws an Error.
 */
export function parseTopics(path: string): WantedTopics {
  const tilde = path === '' ? -1 : path.startsWith('~') ? 0 : path.indexOf(',~') + 1
  const raw = tilde > 0 || path.startsWith('~') ? path.slice(tilde + 1) : undefined
  const listed = raw === undefined ? path : path.slice(0, Math.max(0, tilde - 1))
  const names = [
    ...new Set(
      listed
        .split(',')
        .map((name) => name.trim())
        .filter((name) => name !== ''),
    ),
  ]
  if (raw === undefined) return { names }
  return { names, pattern: new RegExp(`^(?:${raw})$`, 'u') }
}

/**
 * Topics that are meant and exist, by name, with all that is known of them. A named one that does not exist is left
 * out: `missing` says so.
 * @throws Refused no permission, and the like; Disconnected
 */
export async function findTopics(
  cluster: Cluster,
  wanted: WantedTopics,
  signal: AbortSignal,
): Promise<{ readonly found: ReadonlyMap<string, TopicMetadata>; readonly missing: readonly string[] }> {
  const { names, pattern } = wanted
  const { topics } = await cluster.metadata(pattern === undefined ? names : undefined, signal)
  const found = new Map<string, TopicMetadata>()
  for (const metadata of topics) {
    const named = names.includes(metadata.name)
    if (!named && (metadata.internal || pattern?.test(metadata.name) !== true)) continue
    if (metadata.error === NONE) found.set(metadata.name, metadata)
    else if (named && !isMissing(metadata.error))
      throw protocolFault(metadata.error, `reading topic ${metadata.name}`, metadata.name, 'READ')
  }
  return { found, missing: names.filter((name) => !found.has(name)) }
}

const isMissing = (code: number): boolean => code === 3 || code === 100

export function missingFault(names: readonly string[]): Refused {
  const [first = '', ...more] = names
  return new Refused(
    `there is no topic ${first}${more.length === 0 ? '' : ` (nor ${more.join(', ')})`}: create it, correct its name, or let the principal DESCRIBE it`,
  )
}

/** Error codes of a partition after which it has to be asked anew who leads it. */
export function isLeaderFault(code: number): boolean {
  return LEADER_FAULTS.has(code)
}
const LEADER_FAULTS: ReadonlySet<number> = new Set([3, 5, 6, 8, 9, 13, 56, 74, 75, 78, 100, 103])

export function partitionMetadata(
  topics: ReadonlyMap<string, TopicMetadata>,
  topic: string,
  partition: number,
): PartitionMetadata | undefined {
  return topics.get(topic)?.partitions.find((one) => one.partition === partition)
}
