/**
 * S3 as a sink: one sealed segment of the spool is one object.
 *
 * - A write that resolved is in the bucket: the PUT was answered with an ETag, or an object with this key and this
 *   content was already there.
 * - An object is never replaced: every way to create one carries `If-None-Match: *`. Where a server does not know that,
 *   each key is looked at first.
 * - An answer that tells of another checksum than was sent confirms nothing.
 * - The same segment goes to the same key with the same content on every attempt, in this process or a later one.
 * - Memory is bounded over all uploads together (`buffer-pool.ts`); nothing is written to disk but `keep-local`.
 * - Nothing is retried here: an attempt that failed throws what the core needs to know, and the next one goes on with
 *   the parts that arrived.
 */
import { defineEndpoint } from '../../options/define'
import { canonicalForm } from './canonical-form'
import { options } from './options'
import { faultsOf } from './policy'

export default defineEndpoint({
  schemes: ['s3'],
  summary: 'Amazon S3 and servers that speak its protocol',
  forms: ['s3://BUCKET/FOLDER'],
  examples: [
    'seq 1000 | manifold --from - --to s3://lake/numbers region=eu-west-1',
    'manifold --from wss://feed.example/v1?streams=btc --to s3://lake/trades commit-file-size=64MiB commit-duration=5m compression=zstd',
    "manifold --from 'file:/var/log/app/*.ndjson' --to s3://archive/logs endpoint=http://127.0.0.1:9000 access-key-id={env:KEY} secret-access-key={env:SECRET}",
  ],
  form: 'hierarchical',
  hostOptional: true,
  options,
  check: faultsOf,
  canonicalForm,
  sink: { load: async () => (await import('./sink.js')).create },
})
