/**
 * RabbitMQ: queues and streams as sources, queues and exchanges as sinks (AMQP 0-9-1).
 *
 * - A message is one record. Value, key, timestamp and headers are what `properties.ts` says; nothing of a message is
 *   lost on its way through.
 * - A queue keeps what was read until it is acknowledged: `basic.ack multiple`, on the channel that brought it. Behind
 *   a spool that is at the fsync, for neither prefetch nor the broker's consumer_timeout can wait for a commit file;
 *   else when the sink has confirmed.
 * - A stream forgets nothing: its position is kept here.
 * - A message that was published is delivered when the broker has confirmed it and has not returned it. What comes back
 *   is rejected.
 * - Nothing is retried here; a connection, a channel or a consumer that ends is told to the core, which opens anew, on
 *   the next host where there are several.
 * - Memory is bounded: twice `prefetch-bytes` wait unread, then the socket is not read.
 */
import { defineEndpoint } from '../../options/define'
import { faultsOf, isStream } from './check'
import { feeds, canonicalForm } from './canonical-form'
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
  feeds,
  source: {
    position: ({ options: given }) => (isStream(given) ? 'here' : 'upstream'),
    sharesWork: ({ options: given }) => !isStream(given),
    releasedAtAccept: true,
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
