/** Finds faults of a line before anything is opened. */
import { tlsOptionFaults } from '../../options/tls'
import type { Given, Role } from '../../options/define'
import type { AmqpOptions } from './options'
import { vhostOf } from './settings'
import { parseBinding } from './topology'
import { parseStart } from './start'

/** These options are short strings in AMQP. */
const SHORT = ['queue', 'exchange', 'consumer'] as const

/** Returns faults of several options together, one line each and without secrets. */
export function faultsOf({ uri, options }: Given<AmqpOptions>, role: Role): readonly string[] {
  const faults: string[] = []
  if (uri.path.replace(/^\//, '').includes('/'))
    faults.push(`the path of ${uri.scheme} is one vhost, in which a '/' is written %2F`)
  try {
    if (Buffer.byteLength(vhostOf(uri.path)) > 255)
      faults.push('the vhost is longer than the 255 bytes that AMQP takes')
  } catch {
    faults.push(`the vhost has a '%' that is no percent-encoding: write %25`)
  }
  for (const name of SHORT)
    if (Buffer.byteLength(options[name] ?? '') > 255)
      faults.push(`${name}= is longer than the 255 bytes that AMQP takes`)
  if (role === 'source' && (options.queue ?? '') === '')
    faults.push(`${uri.scheme} as a source needs a queue: queue=NAME, and declare to make it`)
  if (role === 'sink') {
    if (options.queue !== undefined && options.exchange !== undefined)
      faults.push(
        'queue= writes to a queue by way of the default exchange: give either queue= or exchange= (and bind= for what lies between)',
      )
    if (options.queue !== undefined && options.key !== undefined)
      faults.push('queue= is the routing key already: give either queue= or key=')
    if (options.queue === undefined && options.exchange === undefined && options.key === undefined)
      faults.push(`${uri.scheme} as a sink needs to know where to: queue=NAME, or exchange=NAME and key=`)
    if (options.exchangeType !== undefined && (options.exchange ?? '') === '')
      faults.push('exchange-type= makes an exchange, and none is named: exchange=NAME')
  }
  const queueless = options.queue === undefined
  if (queueless && (options.declare !== 'false' || options.bind.length > 0) && role === 'sink')
    faults.push(`${options.declare !== 'false' ? 'declare' : 'bind'}= is about a queue: name it with queue=`)
  if (options.declare === 'false' && options.argument.length > 0) faults.push('argument. is for declare=')
  if (role === 'sink' && options.declare === 'false' && options.singleActiveConsumer)
    faults.push('single-active-consumer is for declare=, or for a source')
  for (const raw of options.bind)
    if (parseBinding(raw).exchange === '')
      faults.push('bind= needs an exchange: EXCHANGE:KEY; the default exchange has every queue already')
  if ((options.declare === 'quorum' || options.declare === 'stream') && (!options.durable || options.autoDelete))
    faults.push(`declare=${options.declare} is always durable and never auto-deleted`)
  if (role === 'source') {
    if (options.stream && options.declare !== 'false' && options.declare !== 'stream')
      faults.push(`stream and declare=${options.declare} contradict each other`)
    try {
      parseStart(options.start, 0)
    } catch (error) {
      faults.push(`start=: ${(error as Error).message}`)
    }
    if (options.start !== 'oldest' && !isStream(options))
      faults.push('start= is for streams: a queue is read from its front')
  }
  if (options.authMechanism === 'external' && (uri.scheme === 'amqp' || options.cert === undefined))
    faults.push('auth-mechanism=external logs in with a client certificate: amqps://, cert= and cert-key=')
  if (options.authMechanism === 'external' && (uri.user !== undefined || uri.password !== undefined))
    faults.push('auth-mechanism=external takes the user from the certificate: leave out what stands before the @')
  faults.push(...tlsOptionFaults(options, uri.scheme === 'amqp' ? { scheme: 'amqp', instead: 'amqps' } : undefined))
  return faults
}

export function isStream(options: { readonly stream: boolean; readonly declare: string }): boolean {
  return options.stream || options.declare === 'stream'
}
