/** Tells which queue or exchange of which broker a line names. */
import type { Given, CanonicalForm, Role } from '../../options/define'
import { canonicalServers } from '../../options/canonical-form'
import { parseRecordTemplate } from '../../options/record-template'
import type { AmqpOptions } from './options'
import { GUEST, PORTS, vhostOf } from './settings'
import { parseBinding } from './topology'

export function canonicalForm(
  { uri, options: { queue, exchange = '', key = '{key}' } }: Given<AmqpOptions>,
  role: Role,
): CanonicalForm {
  // The routing keys of the default exchange are names of queues.
  const target = role === 'source' ? (queue ?? '') : (queue ?? (exchange === '' && isFixedKey(key) ? key : undefined))
  const anonymous = uri.user === undefined && uri.password === undefined
  return {
    servers: canonicalServers(uri, PORTS[uri.scheme === 'amqps' ? 'amqps' : 'amqp']),
    resources: [`${vhostOrPath(uri.path)} ${target === undefined ? `exchange ${exchange}` : `queue ${target}`}`],
    options: {
      queue: undefined,
      exchange: undefined,
      key: target === undefined ? key : undefined,
      user: anonymous ? GUEST : uri.user,
    },
  }
}

function vhostOrPath(path: string): string {
  try {
    return vhostOf(path.replace(/(?<=.)\/+$/, ''))
  } catch {
    return path
  }
}

function isFixedKey(key: string): boolean {
  try {
    return parseRecordTemplate(key).every((part) => 'text' in part)
  } catch {
    return false
  }
}

/**
 * Tells whether a sink writes to the queue that a source of the same broker reads, or to an exchange and key to which
 * that source binds its queue.
 */
export function loops(
  from: Given<AmqpOptions>,
  { uri, options: { exchange = '', key } }: Given<AmqpOptions>,
  same: boolean,
): boolean {
  if (same) return true
  const bound = from.options.bind
    .map(parseBinding)
    .some((binding) => binding.exchange === exchange && (binding.key === '#' || binding.key === key))
  return exchange !== '' && bound && vhostOrPath(from.uri.path) === vhostOrPath(uri.path)
}
