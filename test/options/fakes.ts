/** Declares small endpoints, against which the options layer is tested. */
import { defineEndpoint, opt, type AnyEndpoint } from '../../src/options/define'

const nothing = { position: 'none' as const, load: () => Promise.reject(new Error('not opened here')) }
const drain = { load: () => Promise.reject(new Error('not opened here')) }
const BUCKET_FORMS = ['s3://BUCKET/FOLDER']

export const s3 = defineEndpoint({
  schemes: ['s3'],
  summary: 'Objects',
  forms: BUCKET_FORMS,
  examples: ['manifold --from - --to s3://lake/x'],
  form: 'hierarchical',
  hostOptional: true,
  options: {
    commitFileSize: opt.size({
      doc: 'Bytes of an object.',
      default: 64 * 1024 * 1024,
      defaultText: '64MiB',
      bareBytes: 1024,
      bare: 'KB',
    }),
    commitDuration: opt.duration({
      doc: 'Age of an object.',
      default: 300_000,
      defaultText: '5m',
      bareMs: 60_000,
      bare: 'minutes',
    }),
    uploadEvery: opt.duration({ doc: 'Pause between tries.', default: 10_000, bareMs: 1000, bare: 'seconds' }),
    key: opt.string({ doc: 'Template of the key.' }),
    region: opt.string({ doc: 'Region.', identity: true }),
    compression: opt.oneOf(['none', 'gzip', 'zstd'], { doc: 'Compression.', default: 'none' }),
    bucketName: opt.string({ doc: 'Bucket.', identity: true, aliases: ['bucket'] }),
    secretAccessKey: opt.string({ doc: 'Secret.', secret: true, aliases: ['secret-key'] }),
    tag: opt.map({ doc: 'Tags.' }),
    pathStyle: opt.flag({ doc: 'Path style.', default: false }),
  },
  check: ({ options, uri }) => [
    ...(uri.hosts.length === 0 && options.bucketName === undefined ? ['no bucket is named'] : []),
    ...(options.region === 'nowhere' ? ['there is no such region'] : []),
  ],
  sink: drain,
})
export const ws = defineEndpoint({
  schemes: ['ws', 'wss'],
  summary: 'Feeds',
  forms: ['ws://HOST/PATH', 'wss://HOST/PATH'],
  examples: ['manifold --from wss://feed.example/v1 --to -'],
  form: 'hierarchical',
  query: 'peer',
  options: {
    reconnectEvery: opt.duration({
      doc: 'Swaps the connection.',
      default: 0,
      bareMs: 1e-6,
      bare: 'nanoseconds',
      roles: ['source'],
    }),
    header: opt.map({ doc: 'Headers.', secret: true }),
    send: opt.list({ doc: 'Sent at every open.', identity: true }),
    cert: opt.string({ doc: 'A PEM file, or its content.' }),
    silence: opt.duration({ doc: 'Silence that is a fault.', roles: ['source'] }),
    token: opt.string({ doc: 'Token.', secret: true }),
    proxy: opt.string({ doc: 'Proxy.', secret: true }),
    barrier: opt.flag({ doc: 'Ping after each write.', default: false, roles: ['sink'] }),
  },
  source: { ...nothing, live: true },
  sink: drain,
})
export const kafka = defineEndpoint({
  schemes: ['kafka', 'kafka+tls'],
  summary: 'Topics',
  forms: ['kafka://HOST:PORT/TOPIC'],
  examples: ['manifold --from kafka://h/t --to -'],
  form: 'hierarchical',
  options: {
    group: opt.string({ doc: 'Group.', identity: true, roles: ['source'] }),
    acks: opt.oneOf(['all', '1'], { doc: 'Acks.', default: 'all', identity: true, roles: ['sink'] }),
    start: opt.string({ doc: 'Start.', default: 'oldest', roles: ['source'] }),
  },
  source: nothing,
  sink: drain,
})
export const amqp = defineEndpoint({
  schemes: ['amqp', 'amqps'],
  summary: 'Queues',
  forms: ['amqp://HOST/VHOST'],
  examples: ['manifold --from amqp://mq/ queue=jobs --to -'],
  form: 'hierarchical',
  options: {
    queue: opt.string({ doc: 'Queue.', required: true, roles: ['source'], identity: true }),
    exchange: opt.string({ doc: 'Exchange.', required: true, roles: ['sink'], identity: true }),
    partitionKey: opt.string({ doc: 'Key.' }),
    prefetch: opt.integer({ doc: 'Prefetch.', default: 100, min: 1, max: 65_535, roles: ['source'] }),
  },
  source: nothing,
  sink: drain,
})
export const file = defineEndpoint({
  schemes: ['file'],
  summary: 'Files',
  forms: ['file:PATH'],
  examples: ["manifold --from 'file:/var/log/*.log' --to -"],
  form: 'path',
  options: {
    follow: opt.flag({ doc: 'Waits for more.', default: false, roles: ['source'] }),
    compression: opt.oneOf(['none', 'gzip'], { doc: 'Compression.', default: 'none', roles: ['sink'] }),
    framing: opt.oneOf(['lines', 'envelope'], { doc: 'Framing.', default: 'lines' }),
  },
  source: { ...nothing, position: 'here' },
  sink: drain,
})
export const kinesis = defineEndpoint({
  schemes: ['kinesis'],
  summary: 'Streams',
  forms: ['kinesis:STREAM', 'kinesis:ARN'],
  examples: ['manifold --from kinesis:orders --to -'],
  form: 'opaque',
  options: {
    region: opt.string({ doc: 'Region.', identity: true }),
    partitionKey: opt.string({ doc: 'Key.', roles: ['sink'] }),
  },
  source: nothing,
  sink: drain,
})
export const stdio = defineEndpoint({
  schemes: ['stdio'],
  summary: 'Pipes',
  forms: ['-', 'stdio:'],
  examples: ['seq 3 | manifold --from - --to -'],
  form: 'opaque',
  shorthand: '-',
  labels: { source: 'stdin', sink: 'stdout' },
  options: { framing: opt.oneOf(['lines', 'envelope'], { doc: 'Framing.', default: 'lines' }) },
  source: nothing,
  sink: drain,
})
export const discard = defineEndpoint({
  schemes: ['discard'],
  summary: 'Nowhere',
  forms: ['discard:'],
  examples: ['seq 3 | manifold --from - --to discard:'],
  form: 'opaque',
  options: {},
  sink: drain,
})
export const generate = defineEndpoint({
  schemes: ['generate'],
  summary: 'Made records',
  forms: ['generate:'],
  examples: ['manifold --from generate: count=3 --to -'],
  form: 'opaque',
  options: { rate: opt.number({ doc: 'Records a second.', default: 0 }), count: opt.integer({ doc: 'Records.' }) },
  source: { ...nothing, bounded: true },
})
export const fakes: readonly AnyEndpoint[] = [stdio, file, ws, s3, kafka, amqp, kinesis, generate, discard]
