/**
 * Checks the queues and exchanges at the broker before the first message, or creates them if options say so. To create
 * one that exists with the same arguments is no error.
 */
import type { Channel } from 'amqplib'
import type { OptionsOf } from '../../options/define'
import type { AmqpOptions } from './options'

export interface Binding {
  readonly exchange: string
  readonly key: string
}
/** Parses `EXCHANGE:KEY`. Without a colon the key is empty, which suffices for fanout and headers exchanges. */
export function parseBinding(raw: string): Binding {
  const colon = raw.indexOf(':')
  return colon === -1 ? { exchange: raw, key: '' } : { exchange: raw.slice(0, colon), key: raw.slice(colon + 1) }
}

type Argument = string | number | boolean
/** Numbers, true and false are sent as such, because RabbitMQ refuses `x-max-length` as text. */
export function argumentOf(text: string): Argument {
  if (/^-?\d{1,15}$/.test(text)) return Number(text)
  return text === 'true' ? true : text === 'false' ? false : text
}

type Options = OptionsOf<AmqpOptions>
export function queueArguments(
  options: Pick<Options, 'declare' | 'argument' | 'singleActiveConsumer'>,
): Readonly<Record<string, Argument>> {
  return {
    ...(options.declare === 'classic' || options.declare === 'false' ? {} : { 'x-queue-type': options.declare }),
    ...(options.singleActiveConsumer ? { 'x-single-active-consumer': true } : {}),
    ...Object.fromEntries(options.argument.map(([name, text]) => [name, argumentOf(text)])),
  }
}

/** Tells whether the broker serves only one consumer at a time. Either option says so. */
export function isSingleActive(options: Pick<Options, 'argument' | 'singleActiveConsumer'>): boolean {
  return (
    options.singleActiveConsumer ||
    options.argument.some(([name, text]) => name === 'x-single-active-consumer' && argumentOf(text) === true)
  )
}

/** Returns the number of messages in the queue. It rejects with errors of the library. */
export async function prepareQueue(channel: Channel, queue: string, options: Options): Promise<number> {
  const { declare, durable, autoDelete, bind } = options
  const { messageCount } =
    declare === 'false'
      ? await channel.checkQueue(queue)
      : await channel.assertQueue(queue, { durable, autoDelete, arguments: queueArguments(options) })
  for (const { exchange, key } of bind.map(parseBinding)) await channel.bindQueue(queue, exchange, key)
  return messageCount
}

/** The default exchange always exists and cannot be checked. */
export async function prepareExchange(channel: Channel, exchange: string, type: string | undefined): Promise<void> {
  if (exchange === '') return
  if (type === undefined) await channel.checkExchange(exchange)
  else await channel.assertExchange(exchange, type, { durable: true })
}
