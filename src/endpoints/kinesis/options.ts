import { loginOptions, timeoutOption } from '../../aws/options'
import { opt } from '../../options/define'

const KIB = 1024
const MIB = 1024 * KIB

/**
 * Entries of one PutRecords, and bytes of data and partition keys together (PutRecords, Amazon Kinesis Data Streams API
 * Reference; 5 MiB before October 2025, which emulators and older regions still have).
 */
export const MAX_PUT_ENTRIES = 500
export const MAX_PUT_BYTES = 10 * MIB
export const SAFE_PUT_BYTES = 5 * MIB
/**
 * Data and partition key of one record: what a stream takes by default, and what it can be set to take
 * (UpdateMaxRecordSize).
 */
export const DEFAULT_RECORD_BYTES = MIB
export const MAX_RECORD_BYTES = 10 * MIB
/** Characters of a partition key (PutRecordsRequestEntry). */
export const MAX_KEY_LENGTH = 256
/** The hash space: an MD5 as a number (PutRecordsRequestEntry, ExplicitHashKey). */
export const MAX_HASH = (1n << 128n) - 1n
/**
 * Records and bytes of one GetRecords; calls a second and shard, all readers together but those with enhanced fan-out
 * (GetRecords).
 */
export const MAX_GET_RECORDS = 10_000
export const MAX_GET_BYTES = 10 * MIB
export const GETS_PER_SECOND = 5
/**
 * A subscription ends after five minutes, and a shard takes one call for it in the five seconds after one that
 * succeeded (SubscribeToShard).
 */
export const SUBSCRIBE_EVERY_MS = 5000
/** Bytes of an aggregate at which the Kinesis Producer Library closes it (AggregationMaxSize). */
export const AGGREGATE_BYTES = 50 * KIB

/** DynamoDB's names of tables (CreateTable). */
const TABLE = /^dynamodb:([a-zA-Z0-9_.-]{3,255})$/

/** `3` is shardId-000000000003. */
function parseShard(raw: string): readonly string[] {
  if (/^\d{1,12}$/.test(raw)) return [`shardId-${raw.padStart(12, '0')}`]
  if (!/^[a-zA-Z0-9_.-]{1,128}$/.test(raw)) throw new Error('a shard is expected, such as shardId-000000000003 or 3')
  return [raw]
}

const stream = {
  streamName: opt.string({
    doc: 'The stream, where the URI does not name it.',
    identity: true,
    argument: 'NAME',
    aliases: ['stream'],
  }),
  streamArn: opt.string({
    doc: 'The stream by its ARN, where the URI does not name it; a stream of another account is always named so.',
    identity: true,
    argument: 'ARN',
  }),
  region: opt.string({
    doc: 'AWS region of the stream.',
    defaultText: 'that of the ARN, then MANIFOLD_AWS_REGION, then that of the AWS configuration',
    identity: true,
  }),
  endpoint: opt.string({
    doc: "URL of a Kinesis server other than Amazon's public one, such as http://127.0.0.1:4567; over http it speaks HTTP/1.1, over https HTTP/2.",
    identity: true,
    argument: 'URL',
  }),
}

const source = {
  start: opt.string({
    doc: 'Where to begin where no position is kept: oldest, latest, a time or an age such as -1h, or with shard= a sequence number, whose record is the first; the names of iterator types mean the same (TRIM_HORIZON, AFTER_SEQUENCE_NUMBER:NUMBER).',
    default: 'oldest',
    roles: ['source'],
    argument: 'oldest|latest|TIME|SEQUENCE',
    aliases: ['shard-iterator', 'shard-iterator-type'],
  }),
  shard: {
    ...opt.list({
      doc: 'A shard to read, such as shardId-000000000003 or 3; given several times, each of them. No others are read, also not those that come of it.',
      roles: ['source'],
      identity: true,
      argument: 'ID',
      defaultText: 'all, and those that come of them',
      aliases: ['shard-id'],
    }),
    parse: parseShard,
  },
  onGap: opt.oneOf(['oldest', 'latest', 'fail'], {
    doc: 'Where to go on when the records at the position are gone (retention, a stream made anew): at the oldest there are, at the latest, or not at all. The gap is logged, counted and in the receipt.',
    default: 'oldest',
    roles: ['source'],
  }),
  pollEvery: opt.duration({
    doc: 'Pause between two calls for a shard that has nothing more for the moment; a shard takes five calls a second from all its readers together.',
    default: 1000,
    defaultText: '1s',
    min: 200,
    max: 60_000,
    roles: ['source'],
  }),
  maxRecords: opt.integer({
    doc: 'Records that one answer may hold; of more than 10 MiB there are never any.',
    default: MAX_GET_RECORDS,
    defaultText: '10000',
    min: 1,
    max: MAX_GET_RECORDS,
    roles: ['source'],
  }),
  shardsEvery: opt.duration({
    doc: 'How often the shards are listed anew, beside what is told of new ones at the end of old ones.',
    default: 60_000,
    defaultText: '60s',
    min: 1000,
    roles: ['source'],
  }),
  consumerName: opt.string({
    doc: 'Enhanced fan-out: shards are pushed to the registered consumer of this name, at 2 MB a second each that no other reader takes from. One that is missing is registered, and deregistered when this process ends in order; one that was there is used and left, also one that a killed run has left. With leases= it stays, for the others read through it. It costs by the hour; each flow needs one of its own.',
    roles: ['source'],
    argument: 'NAME',
    defaultText: 'shards are polled',
  }),
  consumerArn: opt.string({
    doc: 'Enhanced fan-out as the consumer with this ARN, which is neither registered nor deregistered.',
    roles: ['source'],
    argument: 'ARN',
  }),
}

const leases = {
  leases: {
    ...opt.string({
      doc: 'Shares the shards with other processes, and keeps positions, in this DynamoDB table, which has the layout of the Kinesis Client Library: its application name. It is made where there is none. Workers of that library (2.x, 3.x) may share it or take turns; those of 3.x get shards from their own kind alone, so start them before manifold.',
      roles: ['source'],
      identity: true,
      argument: 'dynamodb:TABLE',
    }),
    parse: (raw: string): string => {
      if (!TABLE.test(raw)) throw new Error('dynamodb:TABLE is expected, TABLE of 3 to 255 letters, digits, _, - and .')
      return raw
    },
  },
  leasesEndpoint: opt.string({
    doc: "URL of the DynamoDB server, where it is not Amazon's public one.",
    roles: ['source'],
    identity: true,
    argument: 'URL',
  }),
  leasesRegion: opt.string({
    doc: 'AWS region of the table.',
    roles: ['source'],
    identity: true,
    defaultText: 'that of the stream',
  }),
  leaseDuration: opt.duration({
    doc: 'A process that has not renewed its leases for this long loses them; the same in all processes.',
    default: 10_000,
    defaultText: '10s',
    min: 1000,
    max: 3_600_000,
    roles: ['source'],
    bareMs: 1,
    bare: 'milliseconds',
    aliases: ['failover-time-millis'],
  }),
  workerId: opt.string({
    doc: 'Name of this process in the table, different for each.',
    roles: ['source'],
    argument: 'NAME',
    defaultText: 'host, process id and a random part',
  }),
  maxLeases: opt.integer({
    doc: 'Shards that this process takes at most.',
    roles: ['source'],
    defaultText: 'no bound',
    min: 1,
    aliases: ['max-leases-for-worker'],
  }),
  maxSteals: opt.integer({
    doc: 'Shards that are taken over at once from a process that has more.',
    roles: ['source'],
    default: 1,
    defaultText: '1',
    min: 1,
    aliases: ['max-leases-to-steal-at-one-time'],
  }),
}

const sink = {
  partitionKey: opt.string({
    doc: "Partition key of each record: random, the same text for all, or a text in which {key} is the record's own key and {json:PATH} a member of its value. With {key} alone a record that has no key gets a random one.",
    roles: ['sink'],
    argument: 'random|TEXT',
    defaultText: "the record's own key, else random",
  }),
  explicitHashKey: opt.string({
    doc: "Hash of each record, a decimal number below 2^128 that decides the shard instead of the partition key's MD5; as text or {json:PATH}.",
    roles: ['sink'],
    argument: 'NUMBER|{json:PATH}',
  }),
  order: opt.oneOf(['none', 'key'], {
    doc: 'key: records of one partition key are stored in their order, by never having two of them under way; none: as it comes, which PutRecords does not promise to be in order.',
    default: 'none',
    roles: ['sink'],
  }),
  aggregate: opt.flag({
    doc: 'Many records in one of Kinesis, as the Kinesis Producer Library packs them; whoever reads has to take them apart, as manifold and the Kinesis Client Library do.',
    default: false,
    defaultText: 'false',
    roles: ['sink'],
  }),
  aggregateSize: opt.size({
    doc: 'Bytes at which an aggregate is closed.',
    default: AGGREGATE_BYTES,
    defaultText: '50KiB',
    min: 1,
    max: MAX_RECORD_BYTES,
    roles: ['sink'],
    aliases: ['aggregation-max-size'],
  }),
  maxRecord: opt.size({
    doc: 'Largest record, partition key included; a larger one becomes a dead letter.',
    defaultText: 'what the stream is set to, 1MiB where it does not tell',
    min: 1,
    max: MAX_RECORD_BYTES,
    roles: ['sink'],
  }),
  requestRecords: opt.integer({
    doc: 'Records of one request.',
    default: MAX_PUT_ENTRIES,
    defaultText: '500',
    min: 1,
    max: MAX_PUT_ENTRIES,
    roles: ['sink'],
  }),
  requestSize: opt.size({
    doc: 'Bytes of one request, partition keys included; Amazon takes 10MiB today, its emulators do not.',
    default: SAFE_PUT_BYTES,
    defaultText: '5MiB',
    min: 1,
    max: MAX_PUT_BYTES,
    roles: ['sink'],
  }),
  inFlight: opt.integer({
    doc: 'Requests under way at once.',
    default: 4,
    defaultText: '4',
    min: 1,
    max: 64,
    roles: ['sink'],
  }),
}

export const options = { ...stream, ...source, ...leases, ...sink, ...loginOptions, timeout: timeoutOption } as const
export type KinesisOptions = typeof options
