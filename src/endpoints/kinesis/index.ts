/**
 * Kinesis data streams, both ways.
 *
 * - Every shard is read: a child from its beginning, and only once its parents are drained; what is found late is read
 *   from its oldest.
 * - A position is a sequence number and, within an aggregate, a sub-sequence. It is kept here, or, where processes
 *   share the shards (`leases`), in DynamoDB.
 * - A record that was written is delivered when its entry was answered with a sequence number; an entry that failed
 *   goes again, and no other.
 * - `order=key`: never two entries of one partition key under way, and none after one that failed.
 * - Nothing is retried here; calls are paced to what a shard takes.
 */
import { defineEndpoint } from '../../options/define'
import { faultsOf } from './check'
import { loops, canonicalForm } from './canonical-form'
import { options } from './options'

export default defineEndpoint({
  schemes: ['kinesis'],
  summary: 'Amazon Kinesis data streams',
  forms: ['kinesis:STREAM', 'kinesis:arn:aws:kinesis:REGION:ACCOUNT:stream/NAME'],
  examples: [
    'manifold --from kinesis:clicks region=eu-west-1 --to s3://lake/clicks region=eu-west-1',
    'manifold --from kinesis:clicks leases=dynamodb:archiver --to s3://lake/clicks',
    'manifold --from wss://feed.example/v1?streams=btc --to kinesis:trades partition-key={json:symbol} order=key aggregate',
  ],
  form: 'opaque',
  options,
  check: faultsOf,
  canonicalForm,
  loops: loops,
  source: {
    position: ({ options: { leases } }) => (leases === undefined ? 'here' : 'upstream'),
    sharesWork: ({ options: { leases } }) => leases !== undefined,
    load: async () => (await import('./source.js')).create,
  },
  sink: { load: async () => (await import('./sink.js')).create },
})
