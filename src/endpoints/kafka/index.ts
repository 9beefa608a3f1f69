/**
 * Kafka: topics as sources and sinks, over connections of @platformatic/kafka and a codec of ours for the records
 * themselves.
 *
 * - In a group the brokers keep the position and share the partitions out; without one all partitions are read here,
 *   and the position is kept where the flow keeps any.
 * - Keys, headers, timestamps and tombstones pass from topic to topic.
 * - A record that was written counts as delivered once all replicas in sync have it. It is there once, over lost
 *   connections and restarts of brokers, while this process lives; a kill may leave what was under way there twice.
 * - Nothing is retried here: a lost connection, a partition without leader or a broker short of replicas is told to the
 *   core, which opens anew.
 * - What a peer sends is bounded; no password, token or record is in any error or log line.
 */
import { defineEndpoint } from '../../options/define'
import { optionFaults } from './check'
import { feeds, canonicalForm } from './canonical-form'
import { options } from './options'

export default defineEndpoint({
  schemes: ['kafka', 'kafka+tls'],
  summary: 'Apache Kafka and what speaks its protocol (2.1 to 4.x)',
  forms: ['kafka://HOST:PORT,HOST:PORT/TOPIC', 'kafka+tls://HOST:PORT/TOPIC,TOPIC,~REGEX'],
  examples: [
    'manifold --from kafka://h1:9092,h2:9092/orders group=archiver --to s3://lake/orders',
    'seq 1000 | manifold --from - --to kafka://127.0.0.1:9092/numbers compression=zstd',
    'manifold --from kafka+tls://alice@h1:9093/orders password={env:PASSWORD} sasl=scram-sha-512 start=-1h --to -',
    'manifold --from file:events.ndjson --to kafka://h1:9092/events key={json:user.id}',
  ],
  form: 'hierarchical',
  options,
  check: optionFaults,
  canonicalForm,
  feeds,
  source: {
    position: ({ options: { group } }) => (group === undefined ? 'here' : 'upstream'),
    sharesWork: ({ options: { group } }) => group !== undefined,
    load: async () => (await import('./source.js')).create,
  },
  sink: { load: async () => (await import('./sink.js')).create },
})
