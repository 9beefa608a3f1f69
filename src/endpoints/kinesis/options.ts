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
    doc: 'Names the stream if the URI names none.',
    identity: true,
    argument: 'NAME',
    aliases: ['stream'],
  }),
  streamArn: opt.string({
    doc: 'Names the stream by its ARN if the URI names none. A stream of another account needs its ARN.',
    identity: true,
    argument: 'ARN',
  }),
  region: opt.string({
    doc: 'Names the AWS region of the stream.',
    defaultText: 'that of the ARN, then MANIFOLD_AWS_REGION, then that of the AWS configuration',
    identity: true,
  }),
  endpoint: opt.string({
    doc: "Sets the URL of a Kinesis server that is not Amazon's public one, such as http://127.0.0.1:4567. Over http it must speak HTTP/1.1, over https HTTP/2.",
    identity: true,
    argument: 'URL',
  }),
}

const source = {
  start: opt.string({
    doc: 'Says where to begin without a stored position: oldest, latest, a time, or an age such as -1h. With shard= it may be a sequence number, whose record is the first. Names of iterator types work as well, such as TRIM_HORIZON or AFTER_SEQUENCE_NUMBER:NUMBER.',
    default: 'oldest',
    roles: ['source'],
    argument: 'oldest|latest|TIME|SEQUENCE',
    aliases: ['shard-iterator', 'shard-iterator-type'],
  }),
  shard: {
    ...opt.list({
      doc: 'Names a shard to read, such as shardId-000000000003 or 3. No other shard is read, not even one that a split or merge makes of it.',
      roles: ['source'],
      identity: true,
      argument: 'ID',
      defaultText: 'all, and those that come of them',
      aliases: ['shard-id'],
    }),
    parse: parseShard,
  },
  onGap: opt.oneOf(['oldest', 'latest', 'fail'], {
    doc: 'Says where to go on when the records at the stored position are gone (retention, or a recreated stream). oldest: at the oldest record. latest: at the end. fail: the run ends. The gap is logged, counted and listed in the receipt.',
    default: 'oldest',
    roles: ['source'],
  }),
  pollEvery: opt.duration({
    doc: 'Sets the pause between two reads of a shard that has no more records. A shard takes five reads a second from all its readers together.',
    default: 1000,
    defaultText: '1s',
    min: 200,
    max: 60_000,
    roles: ['source'],
  }),
  maxRecords: opt.integer({
    doc: 'Limits the records in one answer. An answer never exceeds 10 MiB.',
    default: MAX_GET_RECORDS,
    defaultText: '10000',
    min: 1,
    max: MAX_GET_RECORDS,
    roles: ['source'],
  }),
  shardsEvery: opt.duration({
    doc: 'Sets how often the shards are listed. New shards are also found at the end of the shards that they come from.',
    default: 60_000,
    defaultText: '60s',
    min: 1000,
    roles: ['source'],
  }),
  consumerName: opt.string({
    doc: 'Reads by enhanced fan-out as the registered consumer of this name: each shard pushes up to 2 MB a second that no other reader shares. A missing consumer is registered, and deregistered when this process ends normally, but not with leases=. An existing consumer is used and kept. Amazon charges by the hour, and each flow needs a consumer of its own.',
    roles: ['source'],
    argument: 'NAME',
    defaultText: 'shards are polled',
  }),
  consumerArn: opt.string({
    doc: 'Reads by enhanced fan-out as the consumer with this ARN. It is neither registered nor deregistered.',
    roles: ['source'],
    argument: 'ARN',
  }),
}

const leases = {
  leases: {
    ...opt.string({
      doc: 'Shares the shards with other processes through this DynamoDB table, which also keeps the positions. The table has the layout of the Kinesis Client Library and is created if it is missing. Workers of that library (2.x, 3.x) may share it. Workers of 3.x take shards only from each other, so start them before manifold.',
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
    doc: "Sets the URL of a DynamoDB server that is not Amazon's public one.",
    roles: ['source'],
    identity: true,
    argument: 'URL',
  }),
  leasesRegion: opt.string({
    doc: 'Names the AWS region of the table.',
    roles: ['source'],
    identity: true,
    defaultText: 'that of the stream',
  }),
  leaseDuration: opt.duration({
    doc: 'Sets the time without renewal after which a process loses its leases. It must be the same in all processes.',
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
    doc: 'Names this process in the table, differently for each process.',
    roles: ['source'],
    argument: 'NAME',
    defaultText: 'host, process id and a random part',
  }),
  maxLeases: opt.integer({
    doc: 'Limits the shards that this process takes.',
    roles: ['source'],
    defaultText: 'no bound',
    min: 1,
    aliases: ['max-leases-for-worker'],
  }),
  maxSteals: opt.integer({
    doc: 'Limits the shards that are taken at once from a process that has more.',
    roles: ['source'],
    default: 1,
    defaultText: '1',
    min: 1,
    aliases: ['max-leases-to-steal-at-one-time'],
  }),
}

const sink = {
  partitionKey: opt.string({
    doc: "Sets the partition key of each record: random, or a text in which {key} stands for the record's own key and {json:PATH} for a member of its value. With {key} alone, a record without key gets a random one.",
    roles: ['sink'],
    argument: 'random|TEXT',
    defaultText: "the record's own key, else random",
  }),
  explicitHashKey: opt.string({
    doc: "Sets the hash that chooses the shard, instead of the partition key's MD5: a decimal number below 2^128, or {json:PATH} to take it from the record.",
    roles: ['sink'],
    argument: 'NUMBER|{json:PATH}',
  }),
  order: opt.oneOf(['none', 'key'], {
    doc: 'Says which order is kept. key: records with the same partition key stay in order, because only one of them is sent at a time. none: PutRecords may change the order.',
    default: 'none',
    roles: ['sink'],
  }),
  aggregate: opt.flag({
    doc: 'Packs many records into one Kinesis record, as the Kinesis Producer Library does. Readers must unpack them, as manifold and the Kinesis Client Library do.',
    default: false,
    defaultText: 'false',
    roles: ['sink'],
  }),
  aggregateSize: opt.size({
    doc: 'Sets the size at which an aggregate is sent.',
    default: AGGREGATE_BYTES,
    defaultText: '50KiB',
    min: 1,
    max: MAX_RECORD_BYTES,
    roles: ['sink'],
    aliases: ['aggregation-max-size'],
  }),
  maxRecord: opt.size({
    doc: 'Sets the largest record size, with its partition key. A larger record becomes a dead letter.',
    defaultText: 'what the stream is set to, 1MiB where it does not tell',
    min: 1,
    max: MAX_RECORD_BYTES,
    roles: ['sink'],
  }),
  requestRecords: opt.integer({
    doc: 'Limits the records of one request.',
    default: MAX_PUT_ENTRIES,
    defaultText: '500',
    min: 1,
    max: MAX_PUT_ENTRIES,
    roles: ['sink'],
  }),
  requestSize: opt.size({
    doc: 'Limits the bytes of one request, with its partition keys. Amazon takes 10MiB, emulators take less.',
    default: SAFE_PUT_BYTES,
    defaultText: '5MiB',
    min: 1,
    max: MAX_PUT_BYTES,
    roles: ['sink'],
  }),
  inFlight: opt.integer({
    doc: 'Sets the number of requests that are sent at once.',
    default: 4,
    defaultText: '4',
    min: 1,
    max: 64,
    roles: ['sink'],
  }),
}

export const options = { ...stream, ...source, ...leases, ...sink, ...loginOptions, timeout: timeoutOption } as const
export type KinesisOptions = typeof options
