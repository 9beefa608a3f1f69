/**
 * Every endpoint there is: one line each, in the order in which help lists them. Nothing here loads a client library:
 * endpoints load theirs on first use.
 */
import type { AnyEndpoint } from '../options/define'
import amqp from './amqp'
import discard from './discard'
import file from './file'
import generate from './generate'
import kafka from './kafka'
import kinesis from './kinesis'
import s3 from './s3'
import stdio from './stdio'
import ws from './ws'

export const registry: readonly AnyEndpoint[] = [stdio, file, generate, discard, s3, kinesis, kafka, amqp, ws]

/** By scheme, lower case, without the colon. */
export function endpointFor(scheme: string): AnyEndpoint | undefined {
  return registry.find((endpoint) => endpoint.schemes.includes(scheme))
}
