import { opt } from '../../options/define'
import { parseTime } from '../../options/times'

const MIB = 1024 * 1024

/** Ports where none is given: those of the brokers' own samples (PLAINTEXT, SSL). */
export const PORTS = { kafka: 9092, 'kafka+tls': 9093 } as const
/**
 * What a broker takes as one request, all records of it together (`socket.request.max.bytes`, Kafka's broker
 * configuration, default 100 MiB): larger ones make it hang up.
 */
export const BROKER_REQUEST_MAX = 100 * MIB
/**
 * What a broker takes as one record batch where it was not told otherwise (`message.max.bytes`), less room for headers.
 */
export const BATCH_BYTES = MIB - 8 * 1024

export const MECHANISMS = ['none', 'plain', 'scram-sha-256', 'scram-sha-512', 'oauthbearer', 'aws-msk-iam'] as const
export const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const

/** oldest, latest, an offset (1200), so many before the end (-100), a time. Throws. */
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

/** `0:1200,3`: partitions, each with the offset to begin at where it is not `start`. Throws. */
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

/** Takes values as Java's clients spell them, too: a line of their properties means the same here. */
function withJavaSpelling<O extends { parse(raw: string): unknown }>(option: O, spell: (raw: string) => string): O {
  return { ...option, parse: (raw: string) => option.parse(spell(raw)) }
}

const source = {
  group: opt.string({
    doc: 'Consumer group: processes of one group share the partitions, and positions are kept by the brokers. Without it this process reads all partitions.',
    roles: ['source'],
    identity: true,
    argument: 'NAME',
    aliases: ['group.id'],
  }),
  instanceId: opt.string({
    doc: 'Name of this process in the group, different for each: with it a restart within session-timeout moves no partition.',
    roles: ['source'],
    argument: 'NAME',
    aliases: ['group.instance.id'],
  }),
  assignor: withJavaSpelling(
    opt.oneOf(['cooperative-sticky', 'range'], {
      doc: 'How the group shares partitions out: the one that its other members use. With range all partitions are given up before each rebalance.',
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
    doc: 'Rack or zone of this process: it reads from replicas there, where the brokers are set up for that.',
    roles: ['source'],
    aliases: ['client.rack'],
  }),
  isolation: withJavaSpelling(
    opt.oneOf(['committed', 'uncommitted'], {
      doc: 'committed: records of transactions that were aborted are left out, those of open ones wait; uncommitted: all, as written.',
      default: 'committed',
      roles: ['source'],
      aliases: ['isolation.level'],
    }),
    (raw) => raw.replace(/^read_/i, ''),
  ),
  start: {
    ...opt.string({
      doc: 'Where to begin where no position is kept: oldest, latest, an offset, -100 (so many before the end), -1h or a time.',
      default: 'oldest',
      roles: ['source'],
      argument: 'oldest|latest|OFFSET|-COUNT|TIME',
      aliases: ['auto.offset.reset'],
    }),
    parse: parseStart,
  },
  partition: {
    ...opt.string({
      doc: 'Partitions to read, without a group: 0:1200,3 is partition 0 from offset 1200 on, and 3 from where start says.',
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
    doc: 'Where to go on when the records at the position are gone (retention, a topic made anew): at the oldest there are, at the latest, or not at all. The gap is logged, counted and in the receipt.',
    default: 'oldest',
    roles: ['source'],
  }),
  sessionTimeout: opt.duration({
    doc: 'A process of the group that is not heard of for this long loses its partitions.',
    default: 45_000,
    defaultText: '45s',
    min: 1000,
    roles: ['source'],
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['session.timeout.ms'],
  }),
  heartbeatEvery: opt.duration({
    doc: 'How often the group is told that this process is alive.',
    default: 3000,
    defaultText: '3s',
    min: 100,
    roles: ['source'],
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['heartbeat.interval.ms'],
  }),
  rebalanceTimeout: opt.duration({
    doc: 'Longest time to deliver and commit what was read of a partition before it is given to another process.',
    default: 60_000,
    defaultText: '60s',
    min: 1000,
    roles: ['source'],
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['max.poll.interval.ms'],
  }),
  fetchMaxBytes: opt.size({
    doc: 'Bytes that one answer of a broker may hold, all partitions together.',
    default: 8 * MIB,
    defaultText: '8MiB',
    min: 1024,
    max: 256 * MIB,
    roles: ['source'],
    aliases: ['fetch.max.bytes'],
  }),
  partitionMaxBytes: opt.size({
    doc: 'Bytes of one partition in one answer; a single larger record batch comes whole.',
    default: MIB,
    defaultText: '1MiB',
    min: 1024,
    max: 256 * MIB,
    roles: ['source'],
    aliases: ['max.partition.fetch.bytes'],
  }),
  fetchMinBytes: opt.size({
    doc: 'A broker waits for so many bytes before it answers, up to fetch-wait.',
    default: 1,
    defaultText: '1',
    min: 1,
    max: 256 * MIB,
    roles: ['source'],
    aliases: ['fetch.min.bytes'],
  }),
  fetchWait: opt.duration({
    doc: 'Longest time that a broker waits for new records before it answers with none.',
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
    doc: 'Topic for each record, where the URI does not name it: a name, or {json:PATH} for what stands there in the record; names from records need allow-topic.',
    roles: ['sink'],
    identity: true,
    argument: 'NAME|{json:PATH}',
  }),
  allowTopic: opt.list({
    doc: 'A topic that records may name with topic={json:PATH}: a name, or ~REGEX for all that match it as a whole; others are dead letters.',
    roles: ['sink'],
    argument: 'NAME|~REGEX',
  }),
  key: opt.string({
    doc: 'Key of each record: {json:PATH} for what stands there in the record, or the same text for all. Records from Kafka keep theirs without it.',
    roles: ['sink'],
    argument: 'TEXT|{json:PATH}',
    defaultText: "the record's own, where its source gave it one",
  }),
  keySeparator: opt.string({
    doc: 'What stands before the first of these in a line is the key, what follows is the value; a line without it has no key. As kcat -K.',
    roles: ['sink'],
    argument: 'TEXT',
  }),
  compression: opt.oneOf(CODECS, {
    doc: 'Compression of record batches.',
    default: 'none',
    roles: ['sink'],
    aliases: ['compression.type', 'compression.codec'],
  }),
  batchSize: opt.size({
    doc: 'Bytes at which a record batch is closed, before compression.',
    default: BATCH_BYTES,
    defaultText: '1016KiB',
    min: 1024,
    max: 64 * MIB,
    roles: ['sink'],
    aliases: ['batch.size'],
  }),
  maxRecord: opt.size({
    doc: 'Largest record; a larger one becomes a dead letter, as does one that the broker finds too large (message.max.bytes, max.message.bytes).',
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
      doc: "How to log in; aws-msk-iam: with AWS credentials (profile=, access-key-id=, or the AWS SDK's chain).",
      defaultText: 'plain where a user is given, oauthbearer where a token is, else none',
      aliases: ['sasl.mechanism', 'sasl.mechanisms'],
    }),
    (raw) => raw.replaceAll('_', '-'),
  ),
  user: opt.string({ doc: 'User, where the URI does not name it.', aliases: ['sasl.username'] }),
  password: opt.string({
    doc: 'Password of the user: give it as {env:NAME}, {file:PATH} or {exec:COMMAND}.',
    secret: true,
    aliases: ['sasl.password'],
  }),
  token: opt.string({
    doc: 'Token for sasl=oauthbearer, read anew for every login: give it as {exec:COMMAND} or {file:PATH}.',
    secret: true,
  }),
  tokenExtension: opt.map({ doc: 'Extension that goes with the token: token-extension.NAME=VALUE.' }),
  ca: opt.string({
    doc: "Certificates to trust instead of the system's: a PEM file, or its content.",
    aliases: ['ssl.ca.location'],
  }),
  cert: opt.string({
    doc: 'Client certificate: a PEM file, or its content; goes with cert-key.',
    aliases: ['ssl.certificate.location'],
  }),
  certKey: opt.string({
    doc: 'Private key of the client certificate: a PEM file, or its content.',
    aliases: ['ssl.key.location'],
  }),
  certPassword: opt.string({ doc: 'Password of the private key.', secret: true, aliases: ['ssl.key.password'] }),
  serverName: opt.string({
    doc: "Name to ask for and to find in the brokers' certificates.",
    defaultText: 'the host of each broker',
  }),
  tlsInsecure: opt.flag({
    doc: 'Takes any certificate: whoever sits between can read and change everything.',
    default: false,
    defaultText: 'false',
  }),
  region: opt.string({
    doc: 'AWS region, for sasl=aws-msk-iam.',
    defaultText: "the one in the brokers' names, then that of the AWS configuration",
  }),
  profile: opt.string({ doc: 'Profile of the AWS configuration files, for sasl=aws-msk-iam.' }),
  roleArn: opt.string({ doc: 'Role to assume, with the credentials found otherwise, for sasl=aws-msk-iam.' }),
  accessKeyId: opt.string({
    doc: 'Access key, for sasl=aws-msk-iam; goes with secret-access-key.',
    aliases: ['access-key'],
  }),
  secretAccessKey: opt.string({ doc: 'Secret of the access key.', secret: true, aliases: ['secret-key'] }),
  sessionToken: opt.string({ doc: 'Session token of temporary credentials.', secret: true }),
  clientId: opt.string({
    doc: 'Name by which brokers know this client in logs and quotas.',
    default: 'manifold',
    aliases: ['client.id'],
  }),
  connectTimeout: opt.duration({
    doc: 'Longest time for name, TCP, TLS and login together.',
    default: 10_000,
    defaultText: '10s',
    min: 100,
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['socket.connection.setup.timeout.ms'],
  }),
  requestTimeout: opt.duration({
    doc: 'A request that is not answered for this long is given up with its connection.',
    default: 30_000,
    defaultText: '30s',
    min: 1000,
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['request.timeout.ms', 'socket.timeout.ms'],
  }),
  metadataEvery: opt.duration({
    doc: 'How often brokers are asked for new partitions and topics.',
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
