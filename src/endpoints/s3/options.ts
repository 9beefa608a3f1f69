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
    doc: 'Bytes of uncompressed content at which an object is closed and uploaded; 0: never by size.',
    default: 64 * MIB,
    defaultText: '64MiB',
    max: 5 * 1024 * GIB,
    bareBytes: 1024,
    bare: 'KB',
  }),
  commitDuration: opt.duration({
    doc: "Age of an object's first record at which it is closed and uploaded; 0: never by age.",
    default: 300_000,
    defaultText: '5m',
    bareMs: 60_000,
    bare: 'minutes',
  }),
  uploadEvery: opt.duration({
    doc: 'Longest pause before an object that could not be uploaded is tried again; the first try is made at once.',
    default: 10_000,
    defaultText: '10s',
    bareMs: 1000,
    bare: 'seconds',
  }),
  folder: opt.string({
    doc: 'Folder in the bucket, where the URI does not name it.',
    identity: true,
    aliases: ['prefix'],
  }),
  bucketName: opt.string({ doc: 'The bucket, where the URI does not name it.', identity: true, aliases: ['bucket'] }),
  key: opt.string({
    doc: 'Template of the key below the folder, of {yyyy} {mm} {dd} {HH} {MM} {SS} {nano} (receive time of the first record) and {id}; -{id} is added before the extension where it is missing, .gz or .zst at the end where it is compressed.',
    defaultText: '{yyyy}-{mm}-{dd}/{HH}{MM}{SS}.{nano}-{id}.ndjson',
  }),
  layout: opt.oneOf(['standard', 'original'], {
    doc: 'original: keys as the library of the same name made them, 2006-01-02/150405.000000000 of the local time at which the object was closed.',
    default: 'standard',
  }),
  timeZone: opt.string({
    doc: 'Zone of the times in keys, such as Europe/Berlin.',
    defaultText: 'UTC; with layout=original the zone of this machine',
  }),
  compression: opt.oneOf(['auto', 'none', 'gzip', 'zstd'], {
    doc: 'Compression of the objects; the key ends in .gz or .zst, Content-Encoding is not set. auto: what key= ends in, else none.',
    default: 'auto',
  }),
  compressionLevel: opt.integer({
    doc: 'Level of the compression: 1 to 9 for gzip, 1 to 22 for zstd.',
    defaultText: '6 for gzip, 3 for zstd',
    min: 1,
    max: 22,
  }),
  ...framedSink,
  contentType: opt.string({ doc: 'Content-Type of the objects.', default: 'application/x-ndjson' }),
  sse: opt.oneOf(['none', 'AES256', 'aws:kms'], {
    doc: 'Server-side encryption to ask for; none: what the bucket is set to.',
    default: 'none',
  }),
  kmsKeyId: opt.string({ doc: 'KMS key for sse=aws:kms.', defaultText: "the account's key for S3" }),
  storageClass: opt.string({
    doc: 'Storage class, such as STANDARD_IA, INTELLIGENT_TIERING or GLACIER_IR.',
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
    { doc: 'Canned ACL of the objects.', defaultText: 'what the bucket is set to' },
  ),
  tag: opt.map({ doc: 'Tag of the objects: tag.NAME=VALUE, at most 10.' }),
  uploads: opt.integer({ doc: 'Objects uploaded at once.', default: 4, min: 1, max: 64 }),
  partSize: opt.size({
    doc: 'Size of the parts in which an object over 16 MiB is sent; grows where 10,000 would not do.',
    default: 8 * MIB,
    defaultText: '8MiB',
    min: MIN_PART,
    max: GIB,
  }),
  keepLocal: opt.string({
    doc: 'Directory that also gets a copy of each object, under its key; durable before the object counts as delivered.',
  }),
  bufferPath: opt.string({
    doc: "Directory for the spool's files, where they are to lie elsewhere than the flow's state.",
  }),
  region: opt.string({
    doc: 'AWS region of the bucket.',
    defaultText: "MANIFOLD_AWS_REGION, then that of the AWS configuration, then the bucket's own",
    identity: true,
  }),
  endpoint: opt.string({
    doc: "URL of an S3 server other than Amazon's, such as http://127.0.0.1:9000.",
    identity: true,
  }),
  pathStyle: opt.flag({
    doc: 'The bucket stands in the path, not in the host name.',
    defaultText: 'true with endpoint=, else false',
  }),
  ...loginOptions,
  timeout: timeoutOption,
}
