import { opt } from '../../options/define'
import { tlsOptions } from '../../options/tls'
import { parseRecordTemplate } from '../../options/record-template'

const MIB = 1024 * 1024
const SECOND = 1000

/** basic.qos takes no larger count, because it is a short integer (AMQP 0-9-1, 1.8.3.3). */
export const MAX_PREFETCH = 65_535
/** A broker accepts no longer expiration than 2^32 - 1 ms (rabbit_misc, MAX_EXPIRY_TIMER). */
export const MAX_EXPIRATION = 4_294_967_295
/**
 * RabbitMQ 3.x accepts messages up to this size by default, 4.x up to 16 MiB. The sink learns a broker's limit from the
 * first message that is refused.
 */
export const MAX_MESSAGE = 128 * MIB

export const options = {
  queue: opt.string({
    doc: "Names the queue or stream to read, or the queue to write to. A sink writes through the default exchange and sends the record's key in the header manifold-key.",
    identity: true,
  }),
  consumer: opt.string({
    doc: 'Sets the consumer tag.',
    roles: ['source'],
    defaultText: 'made by the broker',
    aliases: ['consumer-tag'],
  }),
  exchange: opt.string({
    doc: 'Names the exchange to publish to.',
    roles: ['sink'],
    defaultText: 'the default exchange, whose keys are names of queues',
    identity: true,
  }),
  key: {
    ...opt.string({
      doc: "Sets the routing key. In it {key} stands for the record's own key and {json:PATH} for a member of its value.",
      roles: ['sink'],
      defaultText: "queue, else the record's key",
      aliases: ['routing-key'],
      identity: true,
    }),
    parse: (raw: string): string => {
      parseRecordTemplate(raw)
      return raw
    },
  },
  declare: {
    ...opt.oneOf(['false', 'classic', 'quorum', 'stream'], {
      doc: 'Creates the queue with this type if it is missing. declare alone creates a classic queue.',
      default: 'false',
      defaultText: 'it has to be there',
    }),
    parse: (raw: string): 'false' | 'classic' | 'quorum' | 'stream' =>
      raw.toLowerCase() === 'true'
        ? 'classic'
        : opt.oneOf(['false', 'classic', 'quorum', 'stream'], { doc: '' }).parse(raw),
  },
  durable: opt.flag({
    doc: 'Makes a queue that declare= creates survive a restart of the broker.',
    default: true,
    defaultText: 'true',
  }),
  autoDelete: opt.flag({
    doc: 'Makes a queue that declare= creates disappear with its last consumer.',
    default: false,
    defaultText: 'false',
  }),
  argument: opt.map({
    doc: 'Sets an argument of the queue that declare= creates, such as argument.x-max-length=1000. Numbers, true and false are sent as such.',
  }),
  bind: opt.list({ doc: 'Binds the queue to an exchange: EXCHANGE:KEY.', argument: 'EXCHANGE:KEY' }),
  exchangeType: opt.string({
    doc: 'Creates the exchange if it is missing: durable, and of this type. The type is direct, topic, fanout, headers or one of a plugin.',
    roles: ['sink'],
    defaultText: 'it has to be there',
  }),
  prefetch: opt.integer({
    doc: 'Limits the unacknowledged messages that the broker sends. 0 chooses the number from prefetch-bytes=.',
    default: 0,
    defaultText: '0',
    min: 0,
    max: MAX_PREFETCH,
    roles: ['source'],
  }),
  prefetchBytes: opt.size({
    doc: 'Limits the bytes of unacknowledged messages, by their mean size. The consumer is replaced when the number of messages has to change.',
    default: 64 * MIB,
    defaultText: '64MiB',
    min: 1,
    roles: ['source'],
  }),
  exclusive: opt.flag({
    doc: 'Reads the queue only if it has no other consumer, and keeps other consumers away.',
    default: false,
    defaultText: 'false',
    roles: ['source'],
  }),
  consumerPriority: opt.integer({
    doc: 'Sets the priority of the consumer. The broker serves consumers of higher priority first.',
    roles: ['source'],
    defaultText: '0',
    aliases: ['x-priority'],
  }),
  singleActiveConsumer: opt.flag({
    doc: 'Tells that the broker serves only one consumer at a time, and the next when that one is gone. With declare= the queue is created so. The number of messages sent ahead then stays the same.',
    default: false,
    defaultText: 'false',
  }),
  stream: opt.flag({
    doc: 'Reads the queue as a stream and keeps the position in the state of the flow. declare=stream implies it.',
    default: false,
    defaultText: 'false',
    roles: ['source'],
  }),
  start: opt.string({
    doc: 'Says where to begin in a stream without a stored position: oldest, latest, an offset, -100 for the last hundred messages, a time, or an age such as -1h.',
    default: 'oldest',
    roles: ['source'],
  }),
  mandatory: opt.flag({
    doc: 'Makes a message that reaches no queue a dead letter. Without it the broker drops the message silently.',
    default: true,
    defaultText: 'true',
    roles: ['sink'],
  }),
  persistent: opt.oneOf(['true', 'false', 'keep'], {
    doc: 'Makes messages survive a restart of the broker in durable queues. keep: each message is as persistent as its source had it.',
    default: 'true',
    roles: ['sink'],
  }),
  contentType: opt.string({
    doc: 'Sets the content type of every message.',
    roles: ['sink'],
    defaultText: 'as the source had it',
  }),
  expiration: opt.duration({
    doc: 'Sets the time after which the broker may drop a message from its queue.',
    roles: ['sink'],
    defaultText: 'as the source had it',
    max: MAX_EXPIRATION,
  }),
  priority: opt.integer({
    doc: 'Sets the priority of every message.',
    roles: ['sink'],
    defaultText: 'as the source had it',
    min: 0,
    max: 255,
  }),
  inFlight: opt.integer({
    doc: 'Sets the number of writes that wait for confirmation at once. A write has up to 2048 messages or 1MiB.',
    default: 8,
    defaultText: '8',
    min: 1,
    max: 64,
    roles: ['sink'],
  }),
  authMechanism: opt.oneOf(['plain', 'external'], {
    doc: 'Chooses how to log in. plain: with user and password. external: as the name in the client certificate.',
    default: 'plain',
  }),
  ...tlsOptions('broker', {
    ca: ['cacertfile'],
    cert: ['certfile'],
    certKey: ['keyfile'],
    certPassword: ['password', 'passphrase'],
  }),
  verify: opt.oneOf(['verify_peer', 'verify_none'], {
    doc: 'Chooses whether the server certificate is checked, as in the URIs of RabbitMQ. verify_none means the same as tls-insecure.',
    default: 'verify_peer',
  }),
  failIfNoPeerCert: opt.flag({
    doc: 'Has no effect. The URIs of RabbitMQ have this option, for servers.',
    default: true,
    defaultText: 'true',
  }),
  tlsInsecure: opt.flag({
    doc: 'Accepts any server certificate. Anyone between can then read and change everything.',
    default: false,
    defaultText: 'false',
  }),
  serverName: opt.string({
    doc: "Sets the name to ask for in the TLS handshake and to find in the server's certificate.",
    defaultText: 'the host of the URI',
    aliases: ['server-name-indication'],
  }),
  heartbeat: opt.duration({
    doc: 'Sets how often each side signals that it is alive. A connection that is silent for twice this long is closed. 0 sends no heartbeats.',
    defaultText: "the broker's, mostly 60s",
    bareMs: SECOND,
    bare: 'seconds',
    max: 65_535 * SECOND,
  }),
  connectionTimeout: opt.duration({
    doc: 'Sets the longest time for name resolution, TCP, TLS and login together, for each host.',
    default: 30 * SECOND,
    defaultText: '30s',
    bareMs: 1,
    bare: 'milliseconds',
    min: 1,
  }),
  connectionName: opt.string({
    doc: 'Sets the name of the connection on the management page.',
    defaultText: 'manifold, what it does and where',
  }),
  frameMax: opt.size({
    doc: 'Sets the largest frame size to negotiate.',
    default: 131_072,
    defaultText: '128KiB',
    min: 4096,
    max: 64 * MIB,
  }),
  channelMax: opt.integer({
    doc: 'Sets the largest number of channels to negotiate. At most two are used.',
    default: 0,
    defaultText: "the broker's",
    min: 0,
    max: 65_535,
  }),
}
export type AmqpOptions = typeof options
