/** Targets of the Kafka endpoint as the command line would make them. */
import { options, type KafkaOptions } from '../../src/endpoints/kafka/options'
import type { AnyEndpoint, Target } from '../../src/options/define'
import { makeTarget } from './context'

const endpoint = { schemes: ['kafka', 'kafka+tls'], form: 'hierarchical', options } as unknown as AnyEndpoint

export function kafkaTarget(uri: string, given: Readonly<Record<string, unknown>> = {}): Target<KafkaOptions> {
  return makeTarget(endpoint, uri, given) as Target<KafkaOptions>
}
