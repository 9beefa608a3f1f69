/**
 * Reads queues and streams of RabbitMQ, and writes to its queues and exchanges (AMQP 0-9-1).
 *
 * - A message is one record. `properties.ts` maps value, key, timestamp and headers, and loses nothing of a message
 *   that passes through.
 * - A queue keeps a message until it is acknowledged with `basic.ack multiple`, on the channel that delivered it.
 *   Behind a spool that happens at the fsync, because neither prefetch nor the broker's consumer_timeout can wait for
 *   an upload. Otherwise it happens when the sink has confirmed.
 * - A stream keeps its messages, so its position is kept in the state of the flow.
 * - A published message counts as delivered when the broker has confirmed it and has not returned it. A returned
 *   message is rejected.
 * - Nothing is retried here. The core learns that a connection, channel or consumer has ended, and opens the endpoint
 *   again, on the next host if there are several.
 * - Memory is bounded: the socket is not read while twice `prefetch-bytes` are waiting.
 * - `client.ts` and `vhost.ts` connect; `queue-source.ts`, `stream-source.ts` and `sink.ts` are the endpoints;
 *   `deliveries.ts` and `publishing.ts` are the wire format of messages; `properties.ts` and `table.ts` map records.
 */
import { defineEndpoint } from '../../options/define'
import { faultsOf, isStream } from './check'
import { loops, canonicalForm } from './canonical-form'
import { options } from './options'

export default defineEndpoint({
  schemes: ['amqp', 'amqps'],
  summary: 'RabbitMQ queues, streams and exchanges',
  forms: ['amqp://USER:PASSWORD@HOST:PORT,HOST:PORT/VHOST', 'amqps://HOST/VHOST'],
  examples: [
    'manifold --from amqp://mq/prod queue=jobs --to s3://lake/jobs',
    'tail -f events.ndjson | manifold --from - --to amqp://mq exchange=events key={json:type}',
    'manifold --from amqp://mq1 queue=jobs --to amqps://bridge:{env:PASSWORD}@mq2a,mq2b/prod queue=jobs declare=quorum',
  ],
  form: 'hierarchical',
  options,
  check: faultsOf,
  canonicalForm: canonicalForm,
  loops: loops,
  source: {
    position: ({ options: given }) => (isStream(given) ? 'here' : 'upstream'),
    sharesWork: ({ options: given }) => !isStream(given),
    commitOnceSpooled: true,
    load: async () => (await import('./source.js')).create,
  },
  sink: {
    drops: ({ options: { queue, key = '{key}' } }) =>
      queue === undefined && key.includes('{key}')
        ? undefined
        : `the key of a record travels in the header manifold-key, for ${queue === undefined ? 'key=' : 'queue='} is the routing key`,
    load: async () => (await import('./sink.js')).create,
  },
})
