import { opt } from '../../options/define'
import { parseKey } from './routing-key'

const MIB = 1024 * 1024
const SECOND = 1000

/** Largest count of basic.qos: it is a short (AMQP 0-9-1, 1.8.3.3). */
export const MAX_PREFETCH = 65_535
/** Longest that a broker takes for a message to expire: 2^32 - 1 ms (rabbit_misc, MAX_EXPIRY_TIMER). */
export const MAX_EXPIRATION = 4_294_967_295
/**
 * What RabbitMQ 3.x takes at most for one message by default; 4.x takes 16 MiB. What a broker refuses is known after
 * the first one.
 */
export const MAX_MESSAGE = 128 * MIB

export const options = {
  queue: opt.string({
    doc: 'Queue or stream to read; as a sink, the queue to write to, by way of the default exchange. The key of a record then travels in the header manifold-key.',
    identity: true,
  }),
  consumer: opt.string({
    doc: 'Consumer tag.',
    roles: ['source'],
    defaultText: 'made by the broker',
    aliases: ['consumer-tag'],
  }),
  exchange: opt.string({
    doc: 'Exchange to publish to.',
    roles: ['sink'],
    defaultText: 'the default exchange, whose keys are names of queues',
    identity: true,
  }),
  key: {
    ...opt.string({
      doc: "Routing key, in which {key} is the record's own key and {json:PATH} a member of its value.",
      roles: ['sink'],
      defaultText: "queue, else the record's key",
      aliases: ['routing-key'],
      identity: true,
    }),
    parse: (raw: string): string => {
      parseKey(raw)
      return raw
    },
  },
  declare: {
    ...opt.oneOf(['false', 'classic', 'quorum', 'stream'], {
      doc: 'Makes the queue where it is missing, of this type; declare alone makes a classic one.',
      default: 'false',
      defaultText: 'it has to be there',
    }),
    parse: (raw: string): 'false' | 'classic' | 'quorum' | 'stream' =>
      raw.toLowerCase() === 'true'
        ? 'classic'
        : opt.oneOf(['false', 'classic', 'quorum', 'stream'], { doc: '' }).parse(raw),
  },
  durable: opt.flag({
    doc: 'With declare: the queue survives a restart of the broker.',
    default: true,
    defaultText: 'true',
  }),
  autoDelete: opt.flag({
    doc: 'With declare: the queue goes when its last consumer does.',
    default: false,
    defaultText: 'false',
  }),
  argument: opt.map({
    doc: 'With declare: argument of the queue, argument.x-max-length=1000; numbers, true and false are sent as such.',
  }),
  bind: opt.list({ doc: 'Binds the queue to an exchange: EXCHANGE:KEY.', argument: 'EXCHANGE:KEY' }),
  exchangeType: opt.string({
    doc: 'Makes the exchange where it is missing, durable and of this type: direct, topic, fanout, headers or one of a plugin.',
    roles: ['sink'],
    defaultText: 'it has to be there',
  }),
  prefetch: opt.integer({
    doc: 'Messages that the broker sends ahead of their acknowledgement; 0: as many as prefetch-bytes holds.',
    default: 0,
    defaultText: '0',
    min: 0,
    max: MAX_PREFETCH,
    roles: ['source'],
  }),
  prefetchBytes: opt.size({
    doc: 'What is sent ahead is steered towards so many bytes, by the running mean size of messages; each new count is a new consumer.',
    default: 64 * MIB,
    defaultText: '64MiB',
    min: 1,
    roles: ['source'],
  }),
  exclusive: opt.flag({
    doc: 'Reads only where nobody else does, and keeps others away.',
    default: false,
    defaultText: 'false',
    roles: ['source'],
  }),
  consumerPriority: opt.integer({
    doc: 'Consumers of a higher priority are served first.',
    roles: ['source'],
    defaultText: '0',
    aliases: ['x-priority'],
  }),
  singleActiveConsumer: opt.flag({
    doc: 'Of several consumers one is served, and another only after it has gone: with declare the queue is made so, without it it is said to be so. The count of prefetch is not steered then.',
    default: false,
    defaultText: 'false',
  }),
  stream: opt.flag({
    doc: 'The queue is a stream: its position is kept here. Understood from declare=stream.',
    default: false,
    defaultText: 'false',
    roles: ['source'],
  }),
  start: opt.string({
    doc: 'Where a stream is begun that has no position yet: oldest, latest, an offset, -100 for the last hundred, a time or an age such as -1h.',
    default: 'oldest',
    roles: ['source'],
  }),
  mandatory: opt.flag({
    doc: 'A message that reaches no queue comes back and is a dead letter; without it the broker drops it in silence.',
    default: true,
    defaultText: 'true',
    roles: ['sink'],
  }),
  persistent: opt.oneOf(['true', 'false', 'keep'], {
    doc: 'Messages survive a restart of the broker in durable queues; keep: as the source had them.',
    default: 'true',
    roles: ['sink'],
  }),
  contentType: opt.string({
    doc: 'Content type of every message.',
    roles: ['sink'],
    defaultText: 'as the source had it',
  }),
  expiration: opt.duration({
    doc: 'Time after which a message may be dropped from its queue.',
    roles: ['sink'],
    defaultText: 'as the source had it',
    max: MAX_EXPIRATION,
  }),
  priority: opt.integer({
    doc: 'Priority of every message.',
    roles: ['sink'],
    defaultText: 'as the source had it',
    min: 0,
    max: 255,
  }),
  inFlight: opt.integer({
    doc: 'Writes that wait for confirmation at once, of up to 2048 messages or 1MiB each.',
    default: 8,
    defaultText: '8',
    min: 1,
    max: 64,
    roles: ['sink'],
  }),
  authMechanism: opt.oneOf(['plain', 'external'], {
    doc: 'How to log in: with user and password, or as whom the client certificate says.',
    default: 'plain',
  }),
  ca: opt.string({
    doc: "Certificates to trust instead of the system's: a PEM file, or its content.",
    aliases: ['cacertfile'],
  }),
  cert: opt.string({
    doc: 'Client certificate: a PEM file, or its content; goes with certkey.',
    aliases: ['certfile'],
  }),
  certkey: opt.string({
    doc: 'Private key of the client certificate: a PEM file, or its content.',
    aliases: ['keyfile'],
    secret: true,
  }),
  password: opt.string({
    doc: "Passphrase of the private key, as RabbitMQ's URIs have it; the password of the login stands before the @.",
    aliases: ['passphrase'],
    secret: true,
  }),
  verify: opt.oneOf(['verify_peer', 'verify_none'], {
    doc: "As RabbitMQ's URIs have it: verify_none is tls-insecure.",
    default: 'verify_peer',
  }),
  failIfNoPeerCert: opt.flag({
    doc: "Part of RabbitMQ's URIs; for servers, and without effect here.",
    default: true,
    defaultText: 'true',
  }),
  tlsInsecure: opt.flag({
    doc: 'Takes any server certificate: whoever sits between can read and change everything.',
    default: false,
    defaultText: 'false',
  }),
  serverName: opt.string({
    doc: "Name to ask for and to find in the server's certificate.",
    defaultText: 'the host of the URI',
    aliases: ['server-name-indication'],
  }),
  heartbeat: opt.duration({
    doc: 'How often each side lets the other know that it is there; a connection silent for twice as long is dead. 0: never.',
    defaultText: "the broker's, mostly 60s",
    bareMs: SECOND,
    bare: 'seconds',
    max: 65_535 * SECOND,
  }),
  connectionTimeout: opt.duration({
    doc: 'Longest time for name, TCP, TLS and login together, per host.',
    default: 30 * SECOND,
    defaultText: '30s',
    bareMs: 1,
    bare: 'milliseconds',
    min: 1,
  }),
  connectionName: opt.string({
    doc: 'Name of the connection on the management page.',
    defaultText: 'manifold, what it does and where',
  }),
  frameMax: opt.size({
    doc: 'Largest frame to agree on.',
    default: 131_072,
    defaultText: '128KiB',
    min: 4096,
    max: 64 * MIB,
  }),
  channelMax: opt.integer({
    doc: 'Most channels to agree on; two are used at most.',
    default: 0,
    defaultText: "the broker's",
    min: 0,
    max: 65_535,
  }),
}
export type AmqpOptions = typeof options
