import { opt } from '../../options/define'
import { tlsOptions } from '../../options/tls'
import { parseTime } from '../../options/times'

const MIB = 1024 * 1024

/** Ports that are used where the URI names none: those of Kafka's sample configurations (PLAINTEXT, SSL). */
export const PORTS = { kafka: 9092, 'kafka+tls': 9093 } as const
/**
 * Largest request that a broker accepts (`socket.request.max.bytes` of its configuration, 100 MiB by default). At a
 * larger one it closes the connection.
 */
export const BROKER_REQUEST_MAX = 100 * MIB
/**
 * Largest record batch that a broker accepts by default (`message.max.bytes`), less some bytes for headers.
 */
export const BATCH_BYTES = MIB - 8 * 1024

export const MECHANISMS = ['none', 'plain', 'scram-sha-256', 'scram-sha-512', 'oauthbearer', 'aws-msk-iam'] as const
export const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const

/** Accepts oldest, latest, an offset (1200), a count of records before the end (-100), or a time. Throws an Error. */
function parseStart(raw: string): string {
  if (/^(oldest|latest|earliest|[+-]?\d+)$/i.test(raw.trim())) return raw.trim()
  try {
    parseTime(raw)
  } catch (error) {
    throw new Error(
      `oldest, latest, an offset, -100 (so many before the end), -1h or a time is expected; ${(error as Error).message}`,
      { cause: error },
    )
  }
  return raw.trim()
}

/** Reads `0:1200,3`: partitions, each with its first offset or `undefined` for that of `start`. Throws an Error. */
export function parsePartitions(raw: string): ReadonlyMap<number, number | undefined> {
  const found = new Map<number, number | undefined>()
  for (const part of raw.split(',')) {
    const [, number, offset] = /^\s*(\d+)(?::(\d+))?\s*$/.exec(part) ?? []
    if (number === undefined || !Number.isSafeInteger(Number(offset ?? 0)) || Number(number) > 0x7fffffff)
      throw new Error('partitions are expected, each with an offset if need be, such as 0:1200,3')
    if (found.has(Number(number))) throw new Error(`partition ${number} is named twice`)
    found.set(Number(number), offset === undefined ? undefined : Number(offset))
  }
  return found
}

/** Accepts the spelling of Java's clients as well, so that values of their properties can be used as they are. */
function withJavaSpelling<O extends { parse(raw: string): unknown }>(option: O, spell: (raw: string) => string): O {
  return { ...option, parse: (raw: string) => option.parse(spell(raw)) }
}

const source = {
  group: opt.string({
    doc: 'Joins this consumer group. Its members share the partitions, and the brokers keep the positions. Without a group this process reads all partitions.',
    roles: ['source'],
    identity: true,
    argument: 'NAME',
    aliases: ['group.id'],
  }),
  instanceId: opt.string({
    doc: 'Names this process within the group, differently for each process. A restart within session-timeout= then moves no partition.',
    roles: ['source'],
    argument: 'NAME',
    aliases: ['group.instance.id'],
  }),
  assignor: withJavaSpelling(
    opt.oneOf(['cooperative-sticky', 'range'], {
      doc: 'Chooses how the group distributes its partitions. All members must use the same. With range, all partitions are revoked before each rebalance.',
      default: 'cooperative-sticky',
      roles: ['source'],
      aliases: ['partition.assignment.strategy'],
    }),
    (raw) =>
      raw.replace(
        /^(?:org\.apache\.kafka\.clients\.consumer\.)?(CooperativeSticky|Range)Assignor$/,
        (_, name: string) => (name === 'Range' ? 'range' : 'cooperative-sticky'),
      ),
  ),
  rack: opt.string({
    doc: 'Names the rack or zone of this process. It then reads from replicas there, if the brokers are configured for that.',
    roles: ['source'],
    aliases: ['client.rack'],
  }),
  isolation: withJavaSpelling(
    opt.oneOf(['committed', 'uncommitted'], {
      doc: 'Says which records of transactions are read. committed: only those of committed transactions, and records wait while a transaction is open. uncommitted: all records.',
      default: 'committed',
      roles: ['source'],
      aliases: ['isolation.level'],
    }),
    (raw) => raw.replace(/^read_/i, ''),
  ),
  start: {
    ...opt.string({
      doc: 'Says where to begin without a stored position: oldest, latest, an offset, -100 for the last hundred records of each partition, an age such as -1h, or a time.',
      default: 'oldest',
      roles: ['source'],
      argument: 'oldest|latest|OFFSET|-COUNT|TIME',
      aliases: ['auto.offset.reset'],
    }),
    parse: parseStart,
  },
  partition: {
    ...opt.string({
      doc: 'Names the partitions to read, without a group. 0:1200,3 reads partition 0 from offset 1200, and partition 3 from where start= says.',
      roles: ['source'],
      identity: true,
      argument: 'NUMBER[:OFFSET],...',
    }),
    parse: (raw: string): string => {
      parsePartitions(raw)
      return raw
    },
  },
  onGap: opt.oneOf(['oldest', 'latest', 'fail'], {
    doc: 'Says where to go on when the records at the stored position are gone (retention, or a recreated topic). oldest: at the oldest record. latest: at the end. fail: the run ends. The gap is logged, counted and listed in the receipt.',
    default: 'oldest',
    roles: ['source'],
  }),
  sessionTimeout: opt.duration({
    doc: 'Sets the time without a heartbeat after which the group removes this process and reassigns its partitions.',
    default: 45_000,
    defaultText: '45s',
    min: 1000,
    roles: ['source'],
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['session.timeout.ms'],
  }),
  heartbeatEvery: opt.duration({
    doc: 'Sets how often the group is told that this process is alive.',
    default: 3000,
    defaultText: '3s',
    min: 100,
    roles: ['source'],
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['heartbeat.interval.ms'],
  }),
  rebalanceTimeout: opt.duration({
    doc: 'Sets the longest time to deliver and commit the records of a partition before another process gets it.',
    default: 60_000,
    defaultText: '60s',
    min: 1000,
    roles: ['source'],
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['max.poll.interval.ms'],
  }),
  fetchMaxBytes: opt.size({
    doc: 'Limits the bytes of one answer of a broker, over all partitions.',
    default: 8 * MIB,
    defaultText: '8MiB',
    min: 1024,
    max: 256 * MIB,
    roles: ['source'],
    aliases: ['fetch.max.bytes'],
  }),
  partitionMaxBytes: opt.size({
    doc: 'Limits the bytes of one partition in one answer of a broker. A single larger record batch is sent whole.',
    default: MIB,
    defaultText: '1MiB',
    min: 1024,
    max: 256 * MIB,
    roles: ['source'],
    aliases: ['max.partition.fetch.bytes'],
  }),
  fetchMinBytes: opt.size({
    doc: 'Makes a broker wait for this many bytes before it answers, but no longer than fetch-wait=.',
    default: 1,
    defaultText: '1',
    min: 1,
    max: 256 * MIB,
    roles: ['source'],
    aliases: ['fetch.min.bytes'],
  }),
  fetchWait: opt.duration({
    doc: 'Sets the longest time that a broker waits for new records before it answers without any.',
    default: 500,
    defaultText: '500ms',
    min: 1,
    max: 60_000,
    roles: ['source'],
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['fetch.max.wait.ms', 'fetch.wait.max.ms'],
  }),
} as const

const sink = {
  topic: opt.string({
    doc: 'Names the topic of each record if the URI names none. {json:PATH} takes it from the record, and then needs allow-topic=.',
    roles: ['sink'],
    identity: true,
    argument: 'NAME|{json:PATH}',
  }),
  allowTopic: opt.list({
    doc: 'Allows a topic that records name themselves (topic={json:PATH}): a name, or ~REGEX for all topics that match it completely. Records for any other topic become dead letters.',
    roles: ['sink'],
    argument: 'NAME|~REGEX',
  }),
  key: opt.string({
    doc: 'Sets the key of each record. {json:PATH} takes it from the record, any other text is the key of all.',
    roles: ['sink'],
    argument: 'TEXT|{json:PATH}',
    defaultText: "the record's own, where its source gave it one",
  }),
  keySeparator: opt.string({
    doc: 'Splits each record at the first occurrence of this text, as kcat -K does. The key stands before it, the value after it. A record without the text has no key.',
    roles: ['sink'],
    argument: 'TEXT',
  }),
  compression: opt.oneOf(CODECS, {
    doc: 'Names the compression of record batches.',
    default: 'none',
    roles: ['sink'],
    aliases: ['compression.type', 'compression.codec'],
  }),
  batchSize: opt.size({
    doc: 'Sets the size at which a record batch is sent, before compression.',
    default: BATCH_BYTES,
    defaultText: '1016KiB',
    min: 1024,
    max: 64 * MIB,
    roles: ['sink'],
    aliases: ['batch.size'],
  }),
  maxRecord: opt.size({
    doc: 'Sets the largest record size. A larger record becomes a dead letter, as does one that the broker refuses as too large.',
    default: 64 * MIB,
    defaultText: '64MiB',
    min: 1,
    max: 90 * MIB,
    roles: ['sink'],
    aliases: ['max.request.size', 'message.max.bytes'],
  }),
} as const

const connection = {
  sasl: withJavaSpelling(
    opt.oneOf(MECHANISMS, {
      doc: "Chooses how to log in. aws-msk-iam uses AWS credentials: profile=, access-key-id=, or the AWS SDK's default chain.",
      defaultText: 'plain where a user is given, oauthbearer where a token is, else none',
      aliases: ['sasl.mechanism', 'sasl.mechanisms'],
    }),
    (raw) => raw.replaceAll('_', '-'),
  ),
  user: opt.string({ doc: 'Names the user if the URI names none.', aliases: ['sasl.username'] }),
  password: opt.string({
    doc: 'Sets the password of the user. Write it as {env:NAME}, {file:PATH} or {exec:COMMAND}.',
    secret: true,
    aliases: ['sasl.password'],
  }),
  token: opt.string({
    doc: 'Sets the token of sasl=oauthbearer, which is read anew for each login. Write it as {exec:COMMAND} or {file:PATH}.',
    secret: true,
  }),
  tokenExtension: opt.map({ doc: 'Adds an extension to the token: token-extension.NAME=VALUE.' }),
  ...tlsOptions('broker', {
    ca: ['ssl.ca.location'],
    cert: ['ssl.certificate.location'],
    certKey: ['ssl.key.location'],
    certPassword: ['ssl.key.password'],
  }),
  region: opt.string({
    doc: 'Names the AWS region for sasl=aws-msk-iam.',
    defaultText: "the one in the brokers' names, then that of the AWS configuration",
  }),
  profile: opt.string({ doc: 'Names the profile of the AWS configuration files for sasl=aws-msk-iam.' }),
  roleArn: opt.string({ doc: 'Names the role to assume for sasl=aws-msk-iam.' }),
  accessKeyId: opt.string({
    doc: 'Sets the AWS access key for sasl=aws-msk-iam. It needs its secret as well (secret-access-key=).',
    aliases: ['access-key'],
  }),
  secretAccessKey: opt.string({
    doc: 'Sets the secret of the AWS access key. Write it as {env:NAME}, {file:PATH} or {exec:COMMAND}.',
    secret: true,
    aliases: ['secret-key'],
  }),
  sessionToken: opt.string({ doc: 'Sets the session token of temporary AWS credentials.', secret: true }),
  clientId: opt.string({
    doc: 'Sets the name by which brokers know this client in logs and quotas.',
    default: 'manifold',
    aliases: ['client.id'],
  }),
  connectTimeout: opt.duration({
    doc: 'Sets the longest time for name resolution, TCP, TLS and login together.',
    default: 10_000,
    defaultText: '10s',
    min: 100,
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['socket.connection.setup.timeout.ms'],
  }),
  requestTimeout: opt.duration({
    doc: 'Sets the longest time that a request may stay unanswered. Its connection is then closed.',
    default: 30_000,
    defaultText: '30s',
    min: 1000,
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['request.timeout.ms', 'socket.timeout.ms'],
  }),
  metadataEvery: opt.duration({
    doc: 'Sets how often brokers are asked for new topics and partitions.',
    default: 60_000,
    defaultText: '60s',
    min: 1000,
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['metadata.max.age.ms', 'topic.metadata.refresh.interval.ms'],
  }),
} as const

export const options = { ...source, ...sink, ...connection }
export type KafkaOptions = typeof options
