/** Proves that an object holds the bytes that were sent. It is pure. */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'

/** Hashes, as S3 writes them, of what was sent as one object, or as one part of it. */
export interface SentChecksums {
  readonly bytes: number
  readonly sha256?: string
  /** Of an object in parts that of its parts' checksums, with their number behind it (`ChecksumType` COMPOSITE). */
  readonly crc32: string
  readonly md5?: string
}
/** A server tells this of what it has. */
export interface ServerChecksums {
  readonly ChecksumSHA256?: string | undefined
  readonly ChecksumCRC32?: string | undefined
  readonly ETag?: string | undefined
}

const MD5 = /^[0-9a-f]{32}$/

export function base64Of(crc: number): string {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(crc)
  return bytes.toString('base64')
}
export function md5Of(body: Buffer): string {
  return createHash('md5').update(body).digest('hex')
}
/** Without its quotes. Only some are an MD5: with KMS keys, and on many servers, they are something else. */
export function etagOf({ ETag }: ServerChecksums): string {
  return (ETag ?? '').replace(/"/g, '').toLowerCase()
}

/** Of an object that is made of these parts, in their order. */
export function checksumsOfParts(
  parts: readonly { readonly bytes: number; readonly crc32: number; readonly etag: string }[],
): SentChecksums {
  const sums = Buffer.alloc(4 * parts.length)
  parts.forEach((part, index) => {
    sums.writeUInt32BE(part.crc32, 4 * index)
  })
  const etags = parts.map(({ etag }) => etagOf({ ETag: etag }))
  const md5 = etags.every((etag) => MD5.test(etag))
    ? `${md5Of(Buffer.from(etags.join(''), 'hex'))}-${parts.length}`
    : undefined
  return {
    bytes: parts.reduce((sum, { bytes }) => sum + bytes, 0),
    crc32: `${base64Of(crc32(sums))}-${parts.length}`,
    ...(md5 === undefined ? {} : { md5 }),
  }
}

/** same, differs: proven. unknown: nothing that both name can be compared. */
export function compareChecksums(sent: SentChecksums, answered: ServerChecksums): 'same' | 'differs' | 'unknown' {
  if (answered.ChecksumSHA256 !== undefined && sent.sha256 !== undefined && isWhole(answered.ChecksumSHA256))
    return answered.ChecksumSHA256 === sent.sha256 ? 'same' : 'differs'
  // A checksum over the whole of an object is another than that over its parts' checksums, and other parts have others.
  if (answered.ChecksumCRC32 !== undefined && partCountOf(answered.ChecksumCRC32) === partCountOf(sent.crc32))
    return answered.ChecksumCRC32 === sent.crc32 ? 'same' : 'differs'
  return sent.md5 !== undefined && etagOf(answered) === sent.md5 ? 'same' : 'unknown'
}

function isWhole(checksum: string): boolean {
  return !checksum.includes('-')
}
function partCountOf(checksum: string): string {
  return checksum.split('-')[1] ?? ''
}
