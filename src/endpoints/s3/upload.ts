/**
 * Makes one object of one segment.
 *
 * The parts of a multipart upload that arrived are remembered until the object is there, over close and open: the next
 * attempt sends only what is missing. After a kill nothing remembers them, so the first writes of a process look for
 * uploads of their own key and end them.
 */
import { compress } from '../../codec/compression'
import { CONFIRMED, type Log, type Outcome, type Segment } from '../../core/contract'
import { Disconnected, Fatal, lineOf, Refused } from '../../core/errors'
import { base64Of, compareChecksums, md5Of, type SentChecksums, checksumsOfParts } from './checksums'
import type { UploadedPart, Bucket, StoredObject } from './client'
import { contentOf, partsOf, type PartBytes } from './content'
import { AlteredObject, UploadGone } from './errors'
import { LocalCopy } from './local-copy'
import type { BufferPool } from './buffer-pool'
import { isMarked, isSame, metadataOf } from './metadata'
import { MAX_PARTS, SINGLE_PUT } from './options'
import { fullKey, alternativeKey } from './policy'

const MIB = 1024 * 1024
/** An upload that is given up is not worth waiting for. */
const ABORT_MS = 10_000

export interface UploadSettings {
  readonly folder: string
  readonly partSize: number
  readonly compressionLevel: number | undefined
  readonly keepLocal: string | undefined
  /** So many of a process's first writes may have been under way in one that was killed. */
  readonly recheckedWrites: number
}
/** A multipart upload that was begun: what of it is there, by part number. */
interface MultipartUpload {
  readonly id: string
  readonly parts: Map<number, UploadedPart>
}

export class Uploader {
  private readonly unfinished = new Map<string, MultipartUpload>()
  /** Keys of objects that were stored with another checksum than was sent. */
  private readonly alteredKeys = new Set<string>()
  private recheckedWrites: number

  constructor(
    private readonly settings: UploadSettings,
    private readonly pool: BufferPool,
    private readonly onUploaded: (bytes: number) => void,
  ) {
    this.recheckedWrites = settings.recheckedWrites
  }

  async upload(segment: Segment, attempt: number, bucket: Bucket, log: Log, signal: AbortSignal): Promise<Outcome> {
    const mayExist = this.recheckedWrites > 0 || attempt > 1
    if (this.recheckedWrites > 0) this.recheckedWrites--
    const key = fullKey(this.settings.folder, segment.key)
    const first = await this.create(key, segment, mayExist, bucket, log, signal)
    if (first === 'there') return CONFIRMED
    if (first === 'vanished')
      return { retry: [{ index: 0, why: `an object ${key} was there and is not any more` }], rejected: [] }
    const other = alternativeKey(key, segment.sha256)
    log.warn(
      first === 'unknown'
        ? `s3://${bucket.context.bucket}/${key} is as long as this object, and nothing tells whether it is this one: it becomes ${other}, a possible duplicate`
        : `s3://${bucket.context.bucket}/${key} holds something else: this object becomes ${other}`,
    )
    const second = await this.create(other, segment, mayExist, bucket, log, signal)
    if (second === 'there') return first === 'unknown' ? { ...CONFIRMED, doubtful: segment.count } : CONFIRMED
    if (second === 'vanished')
      return { retry: [{ index: 0, why: `an object ${other} was there and is not any more` }], rejected: [] }
    throw new Refused(
      `s3://${bucket.context.bucket}/${key} and ${other} hold something else: remove or rename one of them`,
    )
  }

  /**
   * there: with this content, by this attempt or an earlier one. unknown: an earlier attempt may have made what is
   * there, which nothing proves.
   */
  private async create(
    key: string,
    segment: Segment,
    mayExist: boolean,
    bucket: Bucket,
    log: Log,
    signal: AbortSignal,
  ): Promise<'there' | 'other' | 'unknown' | 'vanished'> {
    if (
      mayExist &&
      segment.length > SINGLE_PUT &&
      this.settings.keepLocal === undefined &&
      !this.unfinished.has(key) &&
      (await this.isThere(key, segment, bucket, signal))
    )
      return 'there'
    const local =
      this.settings.keepLocal === undefined ? undefined : await LocalCopy.begin(this.settings.keepLocal, key)
    let committed = false
    try {
      const result = await this.send(key, segment, mayExist, local, bucket, log, signal)
      if (result !== 'created') {
        const found = await this.compareWithStored(key, segment, mayExist, result, bucket, signal)
        if (found !== 'there') return found
        log.debug(`${key} was there already, with this content`)
      }
      await local?.commit()
      committed = true
      return 'there'
    } catch (error) {
      if (error instanceof AlteredObject) this.alteredKeys.add(key)
      throw error
    } finally {
      if (!committed) await local?.discard()
    }
  }

  /**
   * Whose object it is that was there. What it says of itself is believed, unless the server answered with another
   * checksum when it was made.
   */
  private async compareWithStored(
    key: string,
    segment: Segment,
    mayExist: boolean,
    sent: SentChecksums,
    bucket: Bucket,
    signal: AbortSignal,
  ): Promise<'there' | 'other' | 'unknown' | 'vanished'> {
    const stored = await bucket.head(key, signal)
    if (stored === undefined) return 'vanished'
    const altered = this.alteredKeys.has(key)
    if (isSame(stored, segment) && !altered) return 'there'
    if ((isMarked(stored) && !altered) || stored.bytes !== sent.bytes) return 'other'
    const verdict = compareChecksums(sent, (await this.headWithChecksums(key, bucket, signal)) ?? stored)
    return verdict === 'same' ? 'there' : verdict === 'unknown' && mayExist ? 'unknown' : 'other'
  }

  private async headWithChecksums(key: string, bucket: Bucket, signal: AbortSignal): Promise<StoredObject | undefined> {
    try {
      return await bucket.head(key, signal, true)
    } catch (error) {
      // Checksums may need a permission more than the rest.
      if (error instanceof Refused) return undefined
      throw error
    }
  }

  /**
   * An earlier attempt may have got further than anyone was told: one question saves sending it all to be told so at
   * the end.
   */
  private async isThere(key: string, segment: Segment, bucket: Bucket, signal: AbortSignal): Promise<boolean> {
    if (this.alteredKeys.has(key)) return false
    try {
      const stored = await bucket.head(key, signal)
      return stored !== undefined && isSame(stored, segment)
    } catch (error) {
      if (error instanceof Refused) return false
      throw error
    }
  }

  /** Where the key is taken: what was sent, to be compared with what is there. */
  private async send(
    key: string,
    segment: Segment,
    mayExist: boolean,
    local: LocalCopy | undefined,
    bucket: Bucket,
    log: Log,
    signal: AbortSignal,
  ): Promise<'created' | SentChecksums> {
    const whole = segment.compression === 'none' && segment.length <= SINGLE_PUT
    const size = whole ? Math.max(1, segment.length) : this.partSizeOf(segment)
    const unfinished = this.unfinished.get(key)
    if (unfinished === undefined && mayExist && !whole) await this.abortOrphans(key, bucket, log, signal)
    // Parts at the beginning that arrived need not even be read, unless the copy or the compressor does.
    const skipped =
      unfinished === undefined || local !== undefined || segment.compression !== 'none'
        ? 0
        : leadingParts(unfinished.parts, Math.ceil(segment.length / size) - 1)
    const content = copyTo(
      segment.compression === 'none'
        ? contentOf(segment, skipped * size)
        : compress(segment.compression, this.settings.compressionLevel)(contentOf(segment, 0)),
      local,
    )
    const parts = partsOf(content, size, skipped + 1, this.pool, signal)
    const metadata = metadataOf(segment)
    // There is always one: the last, if it be empty.
    const first = (await parts.next()).value as PartBytes
    if (first.last && unfinished === undefined) {
      try {
        const sent: SentChecksums = {
          bytes: first.body.length,
          crc32: base64Of(first.crc32),
          ...(whole ? { sha256: Buffer.from(segment.sha256, 'hex').toString('base64') } : {}),
        }
        const result = await bucket.put(key, first.body, sent, metadata, signal)
        this.onUploaded(first.body.length)
        return result === 'created' ? result : { ...sent, md5: md5Of(first.body) }
      } finally {
        first.release()
        await parts.return(undefined)
      }
    }
    let upload = unfinished
    try {
      if (upload === undefined) {
        upload = { id: await bucket.begin(key, metadata, signal), parts: new Map() }
        this.unfinished.set(key, upload)
      }
    } catch (error) {
      first.release()
      await parts.return(undefined)
      throw error
    }
    return this.finish(key, upload, first, parts, bucket, signal)
  }

  private async finish(
    key: string,
    upload: MultipartUpload,
    first: PartBytes,
    rest: AsyncGenerator<PartBytes>,
    bucket: Bucket,
    signal: AbortSignal,
  ): Promise<'created' | SentChecksums> {
    try {
      await this.sendParts(key, upload, first, rest, bucket, signal)
      const parts = [...upload.parts.values()].sort((a, b) => a.number - b.number)
      const result = await bucket.complete(key, upload.id, parts, signal)
      this.unfinished.delete(key)
      if (result === 'created') return result
      await this.abortQuietly(key, upload, bucket)
      return checksumsOfParts(parts)
    } catch (error) {
      if (error instanceof AlteredObject) this.unfinished.delete(key)
      if (error instanceof UploadGone || error instanceof Refused || error instanceof Fatal) {
        this.unfinished.delete(key)
        await this.abortQuietly(key, upload, bucket)
      }
      // It may be gone because it was completed, and the answer was lost: the next attempt finds the object then.
      throw error instanceof UploadGone
        ? new Disconnected(`${lineOf(error)}: the upload begins again`, { cause: error })
        : error
    }
  }

  /**
   * As many at once as the pool has buffers for. After a failure those under way end first: what arrives need not be
   * sent again.
   */
  private async sendParts(
    key: string,
    upload: MultipartUpload,
    first: PartBytes,
    rest: AsyncGenerator<PartBytes>,
    bucket: Bucket,
    signal: AbortSignal,
  ): Promise<void> {
    const requests = new Set<Promise<void>>()
    let failure: { readonly error: unknown } | undefined
    const send = (part: PartBytes): void => {
      const { number, body, crc32 } = part
      const known = upload.parts.get(number)
      if (known !== undefined && known.crc32 === crc32) {
        part.release()
        return
      }
      const request = bucket
        .part(key, upload.id, number, body, crc32, signal)
        .then(
          (stored) => {
            upload.parts.set(number, stored)
            this.onUploaded(body.length)
          },
          (error: unknown) => {
            failure ??= { error }
          },
        )
        .finally(() => {
          part.release()
          requests.delete(request)
        })
      requests.add(request)
    }
    try {
      send(first)
      for await (const part of rest) {
        if (failure !== undefined) {
          part.release()
          break
        }
        send(part)
      }
    } catch (error) {
      failure ??= { error }
    }
    await Promise.all(requests)
    if (failure !== undefined) throw failure.error
  }

  private async abortOrphans(key: string, bucket: Bucket, log: Log, signal: AbortSignal): Promise<void> {
    try {
      for (const id of await bucket.uploadsOf(key, signal)) {
        await bucket.abort(key, id, signal)
        log.info(`ended an upload of ${key} that an earlier run had begun`)
      }
    } catch (error) {
      if (!(error instanceof Refused || error instanceof UploadGone)) throw error
      // Some may write but not list, some servers cannot list: what is left costs money until a lifecycle rule removes
      // it, but no record.
      log.debug(`unfinished uploads of ${key} cannot be looked for: ${lineOf(error)}`)
    }
  }

  /**
   * Where it cannot be ended, the fault that led here is the one that counts, and the next start looks for it again.
   */
  private async abortQuietly(key: string, upload: MultipartUpload, bucket: Bucket): Promise<void> {
    await bucket.abort(key, upload.id, AbortSignal.timeout(ABORT_MS)).catch(() => undefined)
  }

  /** The same on every attempt, however far the content shrinks. */
  private partSizeOf({ length, compression }: Segment): number {
    // Bytes that cannot be compressed grow by less than this (deflate: 5 bytes for each 16 KiB).
    const most = compression === 'none' ? length : length + Math.max(MIB, Math.ceil(length / 100))
    return Math.min(most, Math.max(this.settings.partSize, Math.ceil(most / MAX_PARTS / MIB) * MIB))
  }
}

function leadingParts(parts: ReadonlyMap<number, UploadedPart>, maxParts: number): number {
  let count = 0
  while (count < maxParts && parts.has(count + 1)) count++
  return count
}

async function* copyTo(content: AsyncIterable<Buffer>, local: LocalCopy | undefined): AsyncGenerator<Buffer> {
  for await (const chunk of content) {
    await local?.write(chunk)
    yield chunk
  }
}
