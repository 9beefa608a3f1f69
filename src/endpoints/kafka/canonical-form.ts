/**
 * The canonical form of a line names its cluster and topics. The user is left out: it is a credential, as the option of
 * that name is.
 */
import type { Given, CanonicalForm, Role } from '../../options/define'
import { canonicalServers } from '../../options/canonical-form'
import { parsePartitions, PORTS, type KafkaOptions } from './options'
import { parseTopics } from './consume/topics'

export function canonicalForm({ uri, options }: Given<KafkaOptions>, role: Role): CanonicalForm {
  const path = uri.path.replace(/^\/|\/+$/g, '')
  const { topic, partition } = options
  return {
    servers: canonicalServers(uri, PORTS[uri.scheme === 'kafka+tls' ? 'kafka+tls' : 'kafka']),
    resources: role === 'sink' ? [path === '' ? (topic ?? '') : path] : topicsOf(path),
    options: {
      topic: undefined,
      ...(role === 'sink' ? {} : { partition: partition === undefined ? undefined : sortedPartitions(partition) }),
    },
  }
}

function topicsOf(path: string): readonly string[] {
  try {
    const { names, pattern } = parseTopics(path)
    return pattern === undefined ? names : [...names, path.slice(path.indexOf('~'))]
  } catch {
    return [path]
  }
}

function sortedPartitions(partition: string): string {
  try {
    return [...parsePartitions(partition)]
      .sort(([a], [b]) => a - b)
      .map(([number, offset]) => (offset === undefined ? `${number}` : `${number}:${offset}`))
      .join(',')
  } catch {
    return partition
  }
}

/** Of one cluster: the topic that is written is read by its name, or fits what is read. */
export function loops({ uri }: Given<KafkaOptions>, to: Given<KafkaOptions>, same: boolean): boolean {
  if (same) return true
  const topic = to.uri.path.replace(/^\/|\/+$/g, '') || (to.options.topic ?? '')
  try {
    return parseTopics(uri.path.replace(/^\/|\/+$/g, '')).pattern?.test(topic) === true
  } catch {
    return false
  }
}
