import { loginOptions, timeoutOption } from '../../aws/options'
import { opt } from '../../options/define'
import { framedSink } from '../../options/shared'

const MIB = 1024 * 1024
const GIB = 1024 * MIB

/**
 * An object has at most 10,000 parts of 5 MiB to 5 GiB each, the last one may be smaller (Amazon S3 User Guide, "Amazon
 * S3 multipart upload limits").
 */
export const MAX_PARTS = 10_000
export const MIN_PART = 5 * MIB
/** Up to here an object goes in one request. */
export const SINGLE_PUT = 16 * MIB
/** A key is at most 1,024 bytes of UTF-8 ("Naming Amazon S3 objects"). */
export const MAX_KEY = 1024
/** Names and values of user-defined metadata together ("Working with object metadata"). */
export const MAX_METADATA = 2048
/** "Categorizing your objects using tags": at most 10, names to 128 characters, values to 256. */
export const MAX_TAGS = 10
export const MAX_TAG_NAME = 128
export const MAX_TAG_VALUE = 256

export const options = {
  commitFileSize: opt.size({
    doc: 'Closes and uploads an object when its uncompressed content has reached this size. 0 never does so by size.',
    default: 64 * MIB,
    defaultText: '64MiB',
    max: 5 * 1024 * GIB,
    bareBytes: 1024,
    bare: 'KB',
  }),
  commitDuration: opt.duration({
    doc: 'Closes and uploads an object when its first record is this old. 0 never does so by age.',
    default: 300_000,
    defaultText: '5m',
    bareMs: 60_000,
    bare: 'minutes',
  }),
  uploadEvery: opt.duration({
    doc: 'Sets the longest pause before a failed upload is tried again. The first try is made at once.',
    default: 10_000,
    defaultText: '10s',
    bareMs: 1000,
    bare: 'seconds',
  }),
  folder: opt.string({
    doc: 'Names the folder in the bucket if the URI names none.',
    identity: true,
    aliases: ['prefix'],
  }),
  bucketName: opt.string({ doc: 'Names the bucket if the URI names none.', identity: true, aliases: ['bucket'] }),
  key: opt.string({
    doc: 'Sets the template of the object key below the folder. {yyyy} {mm} {dd} {HH} {MM} {SS} {nano} are the receive time of the first record, {id} is unique. A missing {id} is added before the extension, and .gz or .zst at the end of the key of a compressed object.',
    defaultText: '{yyyy}-{mm}-{dd}/{HH}{MM}{SS}.{nano}-{id}.ndjson',
  }),
  layout: opt.oneOf(['standard', 'original'], {
    doc: 'Chooses the form of the keys. original: keys as the original library made them, such as 2006-01-02/150405.000000000 in the local time at which the object was closed.',
    default: 'standard',
  }),
  timeZone: opt.string({
    doc: 'Sets the time zone of the times in keys, such as Europe/Berlin.',
    defaultText: 'UTC; with layout=original the zone of this machine',
  }),
  compression: opt.oneOf(['auto', 'none', 'gzip', 'zstd'], {
    doc: 'Names the compression of the objects. Their keys end in .gz or .zst, and Content-Encoding is not set. auto: the end of key= decides, else none.',
    default: 'auto',
  }),
  compressionLevel: opt.integer({
    doc: 'Sets the compression level: gzip takes 1 to 9, zstd takes 1 to 22.',
    defaultText: '6 for gzip, 3 for zstd',
    min: 1,
    max: 22,
  }),
  ...framedSink,
  contentType: opt.string({ doc: 'Sets the Content-Type of the objects.', default: 'application/x-ndjson' }),
  sse: opt.oneOf(['none', 'AES256', 'aws:kms'], {
    doc: 'Requests server-side encryption. none: the bucket decides.',
    default: 'none',
  }),
  kmsKeyId: opt.string({ doc: 'Names the KMS key for sse=aws:kms.', defaultText: "the account's key for S3" }),
  storageClass: opt.string({
    doc: 'Sets the storage class, such as STANDARD_IA, INTELLIGENT_TIERING or GLACIER_IR.',
    defaultText: 'STANDARD',
  }),
  acl: opt.oneOf(
    [
      'private',
      'public-read',
      'public-read-write',
      'authenticated-read',
      'aws-exec-read',
      'bucket-owner-read',
      'bucket-owner-full-control',
    ],
    { doc: 'Sets a canned ACL on the objects.', defaultText: 'what the bucket is set to' },
  ),
  tag: opt.map({ doc: 'Adds a tag to the objects: tag.NAME=VALUE. At most 10 are allowed.' }),
  uploads: opt.integer({ doc: 'Sets the number of objects that are uploaded at once.', default: 4, min: 1, max: 64 }),
  partSize: opt.size({
    doc: 'Sets the part size of an object over 16 MiB. It grows where 10,000 parts would not suffice.',
    default: 8 * MIB,
    defaultText: '8MiB',
    min: MIN_PART,
    max: GIB,
  }),
  keepLocal: opt.string({
    doc: 'Names a directory that gets a copy of each object, under its key. The copy is durable before the object counts as delivered.',
  }),
  bufferPath: opt.string({
    doc: "Names the directory of the spool's files, if they are not to lie in the state of the flow.",
  }),
  region: opt.string({
    doc: 'Names the AWS region of the bucket.',
    defaultText: "MANIFOLD_AWS_REGION, then that of the AWS configuration, then the bucket's own",
    identity: true,
  }),
  endpoint: opt.string({
    doc: "Sets the URL of an S3 server that is not Amazon's, such as http://127.0.0.1:9000.",
    identity: true,
  }),
  pathStyle: opt.flag({
    doc: 'Puts the bucket name into the path instead of the host name.',
    defaultText: 'true with endpoint=, else false',
  }),
  ...loginOptions,
  timeout: timeoutOption,
}
