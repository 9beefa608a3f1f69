/**
 * One segment becoming one object.
 *
 * What arrived of a multipart upload is remembered until the object is there, over close and open: the next attempt
 * sends only what is missing. After a kill nothing remembers it; the first writes of a process therefore look for
 * uploads of their own key and end them.
 */
import { compress } from '../../codec/compression'
import { CONFIRMED, type Log, type Outcome, type Segment } from '../../core/contract'
import { Disconnected, Fatal, lineOf, Refused } from '../../core/errors'
import { base64Of, compare, md5Of, type Sent, sentParts } from './checksums'
import type { Part, Store, Stored } from './client'
import { contentOf, partsOf, type PartBytes } from './content'
import { Altered, UploadGone } from './errors'
import { LocalCopy } from './local-copy'
import type { BufferPool } from './memory'
import { isMarked, isSame, metadataOf } from './metadata'
import { MAX_PARTS, SINGLE_PUT } from './options'
import { fullKey, otherKey } from './policy'

const MIB = 1024 * 1024
/** An upload that is given up is not worth waiting for. */
const ABORT_MS = 10_000

export interface UploadSettings {
  readonly folder: string
  readonly partSize: number
  readonly compressionLevel: number | undefined
  readonly keepLocal: string | undefined
  /** So many of a process's first writes may have been under way in one that was killed. */
  readonly suspects: number
}
/** A multipart upload that was begun: what of it is there, by part number. */
interface Begun {
  readonly id: string
  readonly parts: Map<number, Part>
}

export class Uploader {
  private readonly begun = new Map<string, Begun>()
  /** Keys of objects that were stored with another checksum than was sent. */
  private readonly altered = new Set<string>()
  private suspects: number

  constructor(
    private readonly settings: UploadSettings,
    private readonly pool: BufferPool,
    private readonly moved: (bytes: number) => void,
  ) {
    this.suspects = settings.suspects
  }

  async upload(segment: Segment, attempt: number, store: Store, log: Log, signal: AbortSignal): Promise<Outcome> {
    const suspect = this.suspects > 0 || attempt > 1
    if (this.suspects > 0) this.suspects--
    const key = fullKey(this.settings.folder, segment.key)
    const first = await this.create(key, segment, suspect, store, log, signal)
    if (first === 'there') return CONFIRMED
    if (first === 'vanished')
      return { retry: [{ index: 0, why: `an object ${key} was there and is not any more` }], rejected: [] }
    const other = otherKey(key, segment.sha256)
    log.warn(
      first === 'unknown'
        ? `s3://${store.place.bucket}/${key} is as long as this object, and nothing tells whether it is this one: it becomes ${other}, a possible duplicate`
        : `s3://${store.place.bucket}/${key} holds something else: this object becomes ${other}`,
    )
    const second = await this.create(other, segment, suspect, store, log, signal)
    if (second === 'there') return first === 'unknown' ? { ...CONFIRMED, doubtful: segment.count } : CONFIRMED
    if (second === 'vanished')
      return { retry: [{ index: 0, why: `an object ${other} was there and is not any more` }], rejected: [] }
    throw new Refused(
      `s3://${store.place.bucket}/${key} and ${other} hold something else: remove or rename one of them`,
    )
  }

  /**
   * there: with this content, by this attempt or an earlier one. unknown: an earlier attempt may have made what is
   * there, which nothing proves.
   */
  private async create(
    key: string,
    segment: Segment,
    suspect: boolean,
    store: Store,
    log: Log,
    signal: AbortSignal,
  ): Promise<'there' | 'other' | 'unknown' | 'vanished'> {
    if (
      suspect &&
      segment.length > SINGLE_PUT &&
      this.settings.keepLocal === undefined &&
      !this.begun.has(key) &&
      (await this.isThere(key, segment, store, signal))
    )
      return 'there'
    const local =
      this.settings.keepLocal === undefined ? undefined : await LocalCopy.begin(this.settings.keepLocal, key)
    let kept = false
    try {
      const result = await this.send(key, segment, suspect, local, store, log, signal)
      if (result !== 'created') {
        const found = await this.judge(key, segment, suspect, result, store, signal)
        if (found !== 'there') return found
        log.debug(`${key} was there already, with this content`)
      }
      await local?.commit()
      kept = true
      return 'there'
    } catch (error) {
      if (error instanceof Altered) this.altered.add(key)
      throw error
    } finally {
      if (!kept) await local?.discard()
    }
  }

  /**
   * Whose object it is that was there. What it says of itself is believed, unless the server answered with another
   * checksum when it was made.
   */
  private async judge(
    key: string,
    segment: Segment,
    suspect: boolean,
    sent: Sent,
    store: Store,
    signal: AbortSignal,
  ): Promise<'there' | 'other' | 'unknown' | 'vanished'> {
    const stored = await store.head(key, signal)
    if (stored === undefined) return 'vanished'
    const altered = this.altered.has(key)
    if (isSame(stored, segment) && !altered) return 'there'
    if ((isMarked(stored) && !altered) || stored.bytes !== sent.bytes) return 'other'
    const verdict = compare(sent, (await this.proven(key, store, signal)) ?? stored)
    return verdict === 'same' ? 'there' : verdict === 'unknown' && suspect ? 'unknown' : 'other'
  }

  private async proven(key: string, store: Store, signal: AbortSignal): Promise<Stored | undefined> {
    try {
      return await store.head(key, signal, true)
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
  private async isThere(key: string, segment: Segment, store: Store, signal: AbortSignal): Promise<boolean> {
    if (this.altered.has(key)) return false
    try {
      const stored = await store.head(key, signal)
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
    suspect: boolean,
    local: LocalCopy | undefined,
    store: Store,
    log: Log,
    signal: AbortSignal,
  ): Promise<'created' | Sent> {
    const whole = segment.compression === 'none' && segment.length <= SINGLE_PUT
    const size = whole ? Math.max(1, segment.length) : this.partSizeOf(segment)
    const begun = this.begun.get(key)
    if (begun === undefined && suspect && !whole) await this.endOrphans(key, store, log, signal)
    // Parts at the beginning that arrived need not even be read, unless the copy or the compressor does.
    const skipped =
      begun === undefined || local !== undefined || segment.compression !== 'none'
        ? 0
        : leading(begun.parts, Math.ceil(segment.length / size) - 1)
    const content = tee(
      segment.compression === 'none'
        ? contentOf(segment, skipped * size)
        : compress(segment.compression, this.settings.compressionLevel)(contentOf(segment, 0)),
      local,
    )
    const parts = partsOf(content, size, skipped + 1, this.pool, signal)
    const metadata = metadataOf(segment)
    // There is always one: the last, if it be empty.
    const first = (await parts.next()).value as PartBytes
    if (first.last && begun === undefined) {
      try {
        const sent: Sent = {
          bytes: first.body.length,
          crc32: base64Of(first.crc32),
          ...(whole ? { sha256: Buffer.from(segment.sha256, 'hex').toString('base64') } : {}),
        }
        const result = await store.put(key, first.body, sent, metadata, signal)
        this.moved(first.body.length)
        return result === 'created' ? result : { ...sent, md5: md5Of(first.body) }
      } finally {
        first.release()
        await parts.return(undefined)
      }
    }
    let upload = begun
    try {
      if (upload === undefined) {
        upload = { id: await store.begin(key, metadata, signal), parts: new Map() }
        this.begun.set(key, upload)
      }
    } catch (error) {
      first.release()
      await parts.return(undefined)
      throw error
    }
    return this.finish(key, upload, first, parts, store, signal)
  }

  private async finish(
    key: string,
    upload: Begun,
    first: PartBytes,
    rest: AsyncGenerator<PartBytes>,
    store: Store,
    signal: AbortSignal,
  ): Promise<'created' | Sent> {
    try {
      await this.sendParts(key, upload, first, rest, store, signal)
      const parts = [...upload.parts.values()].sort((a, b) => a.number - b.number)
      const result = await store.complete(key, upload.id, parts, signal)
      this.begun.delete(key)
      if (result === 'created') return result
      await this.end(key, upload, store)
      return sentParts(parts)
    } catch (error) {
      if (error instanceof Altered) this.begun.delete(key)
      if (error instanceof UploadGone || error instanceof Refused || error instanceof Fatal) {
        this.begun.delete(key)
        await this.end(key, upload, store)
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
    upload: Begun,
    first: PartBytes,
    rest: AsyncGenerator<PartBytes>,
    store: Store,
    signal: AbortSignal,
  ): Promise<void> {
    const flights = new Set<Promise<void>>()
    let failure: { readonly error: unknown } | undefined
    const send = (part: PartBytes): void => {
      const { number, body, crc32 } = part
      const known = upload.parts.get(number)
      if (known !== undefined && known.crc32 === crc32) {
        part.release()
        return
      }
      const flight = store
        .part(key, upload.id, number, body, crc32, signal)
        .then(
          (stored) => {
            upload.parts.set(number, stored)
            this.moved(body.length)
          },
          (error: unknown) => {
            failure ??= { error }
          },
        )
        .finally(() => {
          part.release()
          flights.delete(flight)
        })
      flights.add(flight)
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
    await Promise.all(flights)
    if (failure !== undefined) throw failure.error
  }

  private async endOrphans(key: string, store: Store, log: Log, signal: AbortSignal): Promise<void> {
    try {
      for (const id of await store.uploadsOf(key, signal)) {
        await store.abort(key, id, signal)
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
  private async end(key: string, upload: Begun, store: Store): Promise<void> {
    await store.abort(key, upload.id, AbortSignal.timeout(ABORT_MS)).catch(() => undefined)
  }

  /** The same on every attempt, however far the content shrinks. */
  private partSizeOf({ length, compression }: Segment): number {
    // What cannot be compressed grows by less than this (deflate: 5 bytes for each 16 KiB).
    const most = compression === 'none' ? length : length + Math.max(MIB, Math.ceil(length / 100))
    return Math.min(most, Math.max(this.settings.partSize, Math.ceil(most / MAX_PARTS / MIB) * MIB))
  }
}

function leading(parts: ReadonlyMap<number, Part>, most: number): number {
  let count = 0
  while (count < most && parts.has(count + 1)) count++
  return count
}

async function* tee(content: AsyncIterable<Buffer>, local: LocalCopy | undefined): AsyncGenerator<Buffer> {
  for await (const chunk of content) {
    await local?.write(chunk)
    yield chunk
  }
}
