/**
 * Lists every endpoint, in the order of help. No client library is loaded here, because endpoints load theirs on first
 * use.
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

/** Finds an endpoint by its scheme, in lower case and without the colon. */
export function endpointFor(scheme: string): AnyEndpoint | undefined {
  return registry.find((endpoint) => endpoint.schemes.includes(scheme))
}
