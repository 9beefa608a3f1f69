/**
 * The wire: the few requests the sink needs, with the SDK's errors turned into the core's. The only file that touches
 * the SDK, which loads on first use.
 *
 * The SDK neither retries (the core does) nor hashes bodies: what is sent carries a checksum that is known already: the
 * server verifies it, and what it answers is compared with it.
 */
import type { S3Client } from '@aws-sdk/client-s3'
import { credentialsOf, type Environment, regionOf } from '../../aws/credentials'
import { createRequestHandler } from '../../aws/handler'
import type { Log } from '../../core/contract'
import { Disconnected, lineOf, Refused } from '../../core/errors'
import type { OptionsOf } from '../../options/define'
import {
  base64Of,
  compareChecksums,
  etagOf,
  md5Of,
  type SentChecksums,
  checksumsOfParts,
  type ServerChecksums,
} from './checksums'
import {
  AlteredObject,
  classify,
  isDenied,
  isNotImplemented,
  keyExists,
  type FaultContext,
  redirectionIn,
  regionIn,
  statusOf,
} from './errors'
import type { options } from './options'
import { MAX_REDIRECTIONS, redirectedRequest, type SdkRequest } from './redirect'

type Options = OptionsOf<typeof options>
type Sdk = typeof import('@aws-sdk/client-s3')

/** An establishing of a connection longer than this has failed. */
const CONNECT_MS = 10_000
const MD5_LENGTH = 32
/** A thousand unfinished uploads, with their keys, are the longest answer that is asked for. */
const MAX_RESPONSE_BYTES = 8 * 1024 * 1024
/**
 * Where no region is known: the one in which a request is told the bucket's own (and which servers other than Amazon's
 * take).
 */
const ANY_REGION = 'us-east-1'

export interface UploadedPart {
  readonly number: number
  readonly etag: string
  readonly crc32: number
  readonly bytes: number
}
/** created: the object is there. taken: an object with this key was there before. */
export type CreateResult = 'created' | 'taken'
export interface StoredObject extends ServerChecksums {
  readonly bytes: number
  readonly metadata: Readonly<Record<string, string>>
}
/** Keeps what was found out about a server, over close and open. */
export interface ServerQuirks {
  /** It does not know `If-None-Match`. */
  ignoresConditions: boolean
  /** An ETag of it was the MD5 of what was sent. */
  etagIsMd5: boolean
}

export class Bucket {
  private readonly settings

  constructor(
    private readonly sdk: Sdk,
    private readonly client: S3Client,
    options: Options,
    readonly context: FaultContext,
    private readonly quirks: ServerQuirks,
    private readonly log: Log,
  ) {
    const { sse, kmsKeyId, storageClass, acl, tag, contentType } = options
    this.settings = {
      ContentType: contentType,
      ...(sse === 'none' ? {} : { ServerSideEncryption: sse }),
      ...(kmsKeyId === undefined ? {} : { SSEKMSKeyId: kmsKeyId }),
      ...(storageClass === undefined ? {} : { StorageClass: storageClass as 'STANDARD' }),
      ...(acl === undefined ? {} : { ACL: acl }),
      ...(tag.length === 0
        ? {}
        : {
            Tagging: tag.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join('&'),
          }),
    }
  }

  /**
   * That the bucket is there and the credentials are good. A policy that forbids to look, but not to write, is no
   * fault.
   */
  async check(folder: string, signal: AbortSignal): Promise<void> {
    const bucket = { Bucket: this.context.bucket }
    try {
      await this.client.send(new this.sdk.HeadBucketCommand(bucket), { abortSignal: signal })
      return
    } catch (error) {
      if (signal.aborted) throw signal.reason
      const status = statusOf(error)
      if (status < 300 || status >= 500) throw classify(error, 'look at the bucket', this.context)
      if (regionIn(error) !== undefined) throw error
    }
    // An answer to HEAD has no body, so it cannot tell a wrong key from a missing permission; this one can.
    try {
      await this.client.send(
        new this.sdk.ListObjectsV2Command({ ...bucket, Prefix: folder === '' ? '' : `${folder}/`, MaxKeys: 1 }),
        { abortSignal: signal },
      )
    } catch (error) {
      if (isDenied(error)) return
      if (!signal.aborted && regionIn(error) !== undefined) throw error
      throw this.fault(error, 'look at the bucket', signal)
    }
  }

  /** One request, refused where the key is taken. Throws `Altered` where the answer tells of other bytes. */
  async put(
    key: string,
    body: Buffer,
    sent: SentChecksums,
    metadata: Record<string, string>,
    signal: AbortSignal,
  ): Promise<CreateResult> {
    const doing = `store ${key}`
    const input = {
      Bucket: this.context.bucket,
      Key: key,
      Body: body,
      ContentLength: body.length,
      Metadata: metadata,
      ...this.settings,
      ...(sent.sha256 === undefined ? { ChecksumCRC32: sent.crc32 } : { ChecksumSHA256: sent.sha256 }),
    }
    return this.create(key, doing, signal, async (condition) => {
      const answer = await this.client.send(new this.sdk.PutObjectCommand({ ...input, ...condition }), {
        abortSignal: signal,
      })
      this.required(answer.ETag, doing)
      if (this.isAltered(sent, answer, body)) throw new AlteredObject(alteredText(doing, sent, answer))
    })
  }

  /**
   * undefined: there is none. @param proof with the checksums that the server keeps; where keys of KMS protect them,
   * one needs a permission more
   */
  async head(key: string, signal: AbortSignal, proof = false): Promise<StoredObject | undefined> {
    try {
      const answer = await this.client.send(
        new this.sdk.HeadObjectCommand({
          Bucket: this.context.bucket,
          Key: key,
          ...(proof ? { ChecksumMode: 'ENABLED' } : {}),
        }),
        { abortSignal: signal },
      )
      return { ...answer, bytes: answer.ContentLength ?? 0, metadata: answer.Metadata ?? {} }
    } catch (error) {
      if (signal.aborted) throw signal.reason
      if (statusOf(error) === 404) return undefined
      if (statusOf(error) === 403)
        throw new Refused(
          `S3 denies to look at ${key}, which was there before: the credentials need s3:GetObject on ${this.context.bucket} to tell an earlier upload from a foreign object`,
          { cause: error },
        )
      throw classify(error, `look at ${key}`, this.context)
    }
  }

  /** The id of a new multipart upload. */
  async begin(key: string, metadata: Record<string, string>, signal: AbortSignal): Promise<string> {
    return this.call(`begin the upload of ${key}`, signal, async () => {
      // versitygw refuses checksums of parts whose algorithm was not announced here.
      const { UploadId } = await this.client.send(
        new this.sdk.CreateMultipartUploadCommand({
          Bucket: this.context.bucket,
          Key: key,
          ChecksumAlgorithm: 'CRC32',
          Metadata: metadata,
          ...this.settings,
        }),
        { abortSignal: signal },
      )
      return this.required(UploadId, `begin the upload of ${key}`)
    })
  }

  async part(
    key: string,
    upload: string,
    number: number,
    body: Buffer,
    crc32: number,
    signal: AbortSignal,
  ): Promise<UploadedPart> {
    const doing = `store part ${number} of ${key}`
    const command = new this.sdk.UploadPartCommand({
      Bucket: this.context.bucket,
      Key: key,
      UploadId: upload,
      PartNumber: number,
      Body: body,
      ContentLength: body.length,
      ChecksumCRC32: base64Of(crc32),
    })
    return this.call(doing, signal, async () => {
      const answer = await this.client.send(command, { abortSignal: signal })
      const sent: SentChecksums = { bytes: body.length, crc32: base64Of(crc32) }
      const etag = this.required(answer.ETag, doing)
      if (this.isAltered(sent, answer, body)) throw new Disconnected(alteredText(doing, sent, answer))
      return { number, etag, crc32, bytes: body.length }
    })
  }

  async complete(
    key: string,
    upload: string,
    parts: readonly UploadedPart[],
    signal: AbortSignal,
  ): Promise<CreateResult> {
    const doing = `complete ${key}`
    const sent = checksumsOfParts(parts)
    const input = {
      Bucket: this.context.bucket,
      Key: key,
      UploadId: upload,
      MultipartUpload: {
        Parts: parts.map(({ number, etag, crc32 }) => ({
          PartNumber: number,
          ETag: etag,
          ChecksumCRC32: base64Of(crc32),
        })),
      },
    }
    return this.create(key, doing, signal, async (condition) => {
      const answer = await this.client.send(new this.sdk.CompleteMultipartUploadCommand({ ...input, ...condition }), {
        abortSignal: signal,
      })
      this.required(answer.ETag, doing)
      if (compareChecksums(sent, answer) === 'differs') throw new AlteredObject(alteredText(doing, sent, answer))
    })
  }

  async abort(key: string, upload: string, signal: AbortSignal): Promise<void> {
    await this.call(`abort the upload of ${key}`, signal, () =>
      this.client.send(
        new this.sdk.AbortMultipartUploadCommand({ Bucket: this.context.bucket, Key: key, UploadId: upload }),
        { abortSignal: signal },
      ),
    )
  }

  /**
   * Ids of the multipart uploads of exactly this key that were begun and not ended. MinIO knows of them only where the
   * whole key is asked for.
   */
  async uploadsOf(key: string, signal: AbortSignal): Promise<readonly string[]> {
    const { Uploads } = await this.call(`list the uploads of ${key}`, signal, () =>
      this.client.send(new this.sdk.ListMultipartUploadsCommand({ Bucket: this.context.bucket, Prefix: key }), {
        abortSignal: signal,
      }),
    )
    return (Uploads ?? []).flatMap((upload) =>
      upload.Key === key && upload.UploadId !== undefined ? [upload.UploadId] : [],
    )
  }

  close(): void {
    this.client.destroy()
  }

  /**
   * Where the server knows no condition, it is asked first what is there: only what another writer makes in between is
   * not seen then.
   */
  private async create(
    key: string,
    doing: string,
    signal: AbortSignal,
    send: (condition: { readonly IfNoneMatch?: '*' }) => Promise<void>,
  ): Promise<CreateResult> {
    if (!this.quirks.ignoresConditions) {
      try {
        await send({ IfNoneMatch: '*' })
        return 'created'
      } catch (error) {
        if (keyExists(error)) return 'taken'
        if (signal.aborted || !isNotImplemented(error)) throw this.fault(error, doing, signal)
      }
    }
    if ((await this.head(key, signal)) !== undefined) return 'taken'
    await this.call(doing, signal, () => send({}))
    if (!this.quirks.ignoresConditions)
      this.log.warn(
        `s3://${this.context.bucket}: this server does not know If-None-Match (501): each key is looked at (HEAD) before it is written, and another writer of the same key at that moment is not seen`,
      )
    this.quirks.ignoresConditions = true
    return 'created'
  }
  /** Only where no checksum comes back, for it costs: an ETag that was an MD5 once, and is another one now. */
  private isAltered(sent: SentChecksums, told: ServerChecksums, body: Buffer): boolean {
    const verdict = compareChecksums(sent, told)
    if (verdict !== 'unknown' || etagOf(told).length !== MD5_LENGTH) return verdict === 'differs'
    const isMd5 = etagOf(told) === md5Of(body)
    const other = !isMd5 && this.quirks.etagIsMd5
    this.quirks.etagIsMd5 ||= isMd5
    return other
  }
  private async call<T>(doing: string, signal: AbortSignal, run: () => Promise<T>): Promise<T> {
    try {
      return await run()
    } catch (error) {
      throw this.fault(error, doing, signal)
    }
  }
  private fault(error: unknown, doing: string, signal: AbortSignal): unknown {
    return signal.aborted ? signal.reason : classify(error, doing, this.context)
  }
  /** 200 alone proves nothing: its body may hold an error, which the SDK looks for in a few answers only. */
  private required(given: string | undefined, doing: string): string {
    if (given === undefined || given === '')
      throw new Disconnected(`S3 could not ${doing}: it answered success without saying of what`)
    return given
  }
}

/** @returns a store whose bucket was seen, as far as that is allowed */
export async function openBucket(
  options: Options,
  bucket: string,
  folder: string,
  environment: Environment,
  quirks: ServerQuirks,
  log: Log,
  signal: AbortSignal,
): Promise<Bucket> {
  const sdk = await import('@aws-sdk/client-s3')
  const store = await makeBucket(sdk, options, bucket, environment, quirks, log)
  try {
    await store.check(folder, signal)
    return store
  } catch (error) {
    store.close()
    const region = regionIn(error)
    if (region === undefined) throw error
    if (options.region !== undefined || region === store.context.region)
      throw classify(error, 'look at the bucket', store.context)
    log.info(`the bucket ${bucket} is in ${region}; region=${region} saves asking`)
    const moved = await makeBucket(sdk, { ...options, region }, bucket, environment, quirks, log)
    try {
      await moved.check(folder, signal)
    } catch (again) {
      moved.close()
      throw classify(again, 'look at the bucket', moved.context)
    }
    return moved
  }
}

async function makeBucket(
  sdk: Sdk,
  options: Options,
  bucket: string,
  environment: Environment,
  quirks: ServerQuirks,
  log: Log,
): Promise<Bucket> {
  const { endpoint, profile, pathStyle, timeout } = options
  const own = regionOf(options, environment)
  const make = async (named: string | undefined): Promise<S3Client> => {
    const requestHandler = await createRequestHandler({
      connectMs: CONNECT_MS,
      idleMs: timeout,
      maxSockets: 128,
      maxBytes: MAX_RESPONSE_BYTES,
    })
    const credentials = await credentialsOf(options, environment, named, requestHandler)
    return new sdk.S3Client({
      ...(named === undefined ? {} : { region: named }),
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(profile === undefined ? {} : { profile }),
      ...(credentials === undefined ? {} : { credentials }),
      forcePathStyle: pathStyle ?? endpoint !== undefined,
      maxAttempts: 1,
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      // With `Expect: 100-continue` the SDK opens a new connection for each request, and waits 6 s where a server does
      // not know it.
      expectContinueHeader: false,
      requestHandler,
    })
  }
  let client: S3Client
  let usedRegion: string
  try {
    client = await make(own)
    try {
      usedRegion = await client.config.region()
    } catch (error) {
      client.destroy()
      // The one thing to make up for; a region that is none is to be told.
      if (!/region is missing/i.test(lineOf(error))) throw error
      usedRegion = environment.MANIFOLD_AWS_REGION ?? ANY_REGION
      client = await make(usedRegion)
    }
  } catch (error) {
    throw new Refused(`the settings of S3 cannot be used: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    })
  }
  signWithKnownChecksums(client)
  followRedirections(client, bucket)
  return new Bucket(sdk, client, options, { bucket, endpoint: endpoint ?? '', region: usedRegion }, quirks, log)
}

/**
 * SigV4 takes a body's hash from this header where it stands there already. A CRC is signed with the other headers:
 * hashing the body too would cost a core and prove nothing more.
 */
function signWithKnownChecksums(client: S3Client): void {
  client.middlewareStack.add(
    (next) => (args) => {
      const { ChecksumSHA256: sha256, ChecksumCRC32: crc32 } = args.input as {
        ChecksumSHA256?: string
        ChecksumCRC32?: string
      }
      const hash =
        sha256 !== undefined
          ? Buffer.from(sha256, 'base64').toString('hex')
          : crc32 !== undefined
            ? 'UNSIGNED-PAYLOAD'
            : undefined
      if (hash !== undefined)
        (args.request as { headers: Record<string, string> }).headers['x-amz-content-sha256'] = hash
      return next(args)
    },
    { step: 'build', name: 'signWithKnownChecksums' },
  )
}

/** SigV4 signs the host: what goes elsewhere is signed anew, which is why this stands in an earlier step. */
function followRedirections(client: S3Client, bucket: string): void {
  client.middlewareStack.add(
    (next) => async (args) => {
      for (let request = args.request as SdkRequest, hops = 1; ; hops++) {
        try {
          return await next({ ...args, request: Object.assign(args.request as object, request) })
        } catch (error) {
          const redirection = redirectionIn(error)
          const to =
            redirection === undefined || hops > MAX_REDIRECTIONS
              ? undefined
              : redirectedRequest(request, redirection, bucket)
          if (to === undefined) throw error
          request = to
        }
      }
    },
    { step: 'build', name: 'followRedirections' },
  )
}

function alteredText(doing: string, sent: SentChecksums, answered: ServerChecksums): string {
  const actual = answered.ChecksumSHA256 ?? answered.ChecksumCRC32 ?? etagOf(answered)
  const expected =
    answered.ChecksumSHA256 !== undefined ? sent.sha256 : answered.ChecksumCRC32 !== undefined ? sent.crc32 : undefined
  return `S3 could not ${doing} as it was sent: its answer has the checksum ${lineOf(actual.slice(0, 100))}${expected === undefined ? '' : `, not ${expected}`}`
}
