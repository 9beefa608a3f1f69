/**
 * Kafka: topics as sources and sinks, over connections of @platformatic/kafka and a codec of our own for the records.
 *
 * Files: client*.ts touch the client library, and implement the `Cluster` of protocol/cluster.ts. protocol/ holds
 * requests, error codes, record batches and their compression. group/ holds the membership of a consumer group.
 * consume/ holds what the source reads with: fetching, partition states, positions, topics. produce/ holds what the
 * sink writes with: routing, encoding, sequence numbers. options.ts and check.ts declare and check options, settings.ts
 * resolves them, errors.ts classifies faults.
 *
 * - In a group the brokers keep the position and assign the partitions. Without a group all partitions are read here,
 *   and the flow keeps the position.
 * - Keys, headers, timestamps and tombstones pass from topic to topic.
 * - A written record counts as delivered once all in-sync replicas have it. While this process lives the record is
 *   there once, over lost connections and restarts of brokers. After a kill, records that were in flight may be there
 *   twice.
 * - Nothing is retried here. A lost connection, a partition without leader and a broker short of replicas are reported
 *   to the core, which opens again.
 * - Everything that a peer sends is bounded. No password, token or record is in an error or a log line.
 */
import { defineEndpoint } from '../../options/define'
import { optionFaults } from './check'
import { loops, canonicalForm } from './canonical-form'
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
  loops: loops,
  source: {
    position: ({ options: { group } }) => (group === undefined ? 'here' : 'upstream'),
    sharesWork: ({ options: { group } }) => group !== undefined,
    load: async () => (await import('./source.js')).create,
  },
  sink: { load: async () => (await import('./sink.js')).create },
})
