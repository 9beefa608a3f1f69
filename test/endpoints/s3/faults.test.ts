/** The sink in front of a server that fails as S3 and networks do. The oracle is the real server behind the proxy. */
import '../../support/node-errors'
import { randomBytes } from 'node:crypto'
import { CONFIRMED, type Outcome } from '../../../src/core/contract'
import { Disconnected, Fatal, Refused, Throttled } from '../../../src/core/errors'
import { describeWith } from '../../services/describe-with'
import { available, Bucket, type S3Server, startS3 } from '../../services/s3'
import { create } from '../../../src/endpoints/s3/sink'
import { contextFor, opened, type Opened, type S3Options, segmentOf, target } from '../../support/s3-sink'
import { type Fault, type Operation, S3Proxy } from '../../support/s3-proxy'

const MIB = 1024 * 1024
const KEY = 'trades/2026-01-02/030405.000000000-0-1.ndjson'
const small = (): Buffer => randomBytes(1000)
/** Three parts of 8 MiB. */
const large = (): Buffer => randomBytes(20 * MIB)

describeWith('s3', 'the S3 sink and faults', () => {
  let server: S3Server
  let bucket: Bucket
  let proxy: S3Proxy
  let made: Opened | undefined
  beforeAll(async () => {
    server = await startS3(available().find((kind) => kind !== 'moto'))
  })
  afterAll(async () => {
    await server.stop()
  })
  beforeEach(async () => {
    bucket = await Bucket.make(server)
    proxy = await S3Proxy.start(server.endpoint)
  })
  afterEach(async () => {
    await made?.sink.close()
    made = undefined
    await proxy.stop()
    bucket.close()
  })
  const sink = async (words: Partial<S3Options> = {}): Promise<Opened> => {
    made = await opened(
      {
        endpoint: proxy.endpoint,
        accessKeyId: server.accessKey,
        secretAccessKey: server.secretKey,
        timeout: 1000,
        ...words,
      },
      bucket.name,
    )
    return made
  }
  const fails = (operation: Operation, fault: Fault, times = 1): void => {
    proxy.fault = (seen, count) => (seen === operation && count <= times ? fault : undefined)
  }
  const failure = async (outcome: Promise<Outcome>): Promise<Error> => {
    try {
      await outcome
    } catch (error) {
      return error as Error
    }
    throw new Error('it succeeded')
  }
  /** As the core does, without its pauses. */
  const persist = async (content: Buffer, most = 200): Promise<number> => {
    for (let attempt = 1; attempt <= most; attempt++) {
      try {
        const outcome = await made!.write(segmentOf(content), attempt)
        if (outcome.retry.length === 0) return attempt
      } catch (error) {
        if (!(error instanceof Disconnected || error instanceof Throttled)) throw error
      }
    }
    throw new Error(`not stored in ${most} attempts`)
  }
  const holds = async (content: Buffer): Promise<void> => {
    const objects = await bucket.all()
    expect(objects.map(({ key }) => key)).toEqual([KEY])
    expect(objects[0]!.bytes.equals(content)).toBe(true)
    expect(await bucket.uploads(KEY)).toEqual([])
  }

  it.each<[Operation, () => Buffer]>([
    ['PutObject', small],
    ['CreateUpload', large],
    ['UploadPart', large],
    ['CompleteUpload', large],
  ])('passes on that %s is to slow down, with the time S3 names', async (operation, content) => {
    await sink()
    fails(operation, { kind: 'status', status: 503, code: 'SlowDown', headers: { 'retry-after': '7' } })
    const error = await failure(made!.write(segmentOf(content())))
    expect(error).toBeInstanceOf(Throttled)
    expect(error).toMatchObject({ afterMs: 7000 })
    expect(error.message).toMatch(/SlowDown/)
  })

  it("asks S3 once for each attempt: what is retried, and when, is the core's matter", async () => {
    await sink()
    fails('PutObject', { kind: 'status', status: 500, code: 'InternalError' }, 99)
    expect(await failure(made!.write(segmentOf(small())))).toBeInstanceOf(Disconnected)
    expect(proxy.count('PutObject')).toBe(1)
  })

  it.each<[string, Operation, () => Buffer, Fault]>([
    [
      'an error with status 200 for a whole object',
      'PutObject',
      small,
      { kind: 'ok-but-error', code: 'InternalError' },
    ],
    ['an error with status 200 for a part', 'UploadPart', large, { kind: 'ok-but-error', code: 'InternalError' }],
    [
      'an error with status 200 at the end of an upload',
      'CompleteUpload',
      large,
      { kind: 'ok-but-error', code: 'InternalError' },
    ],
    [
      'an error with status 200 at its beginning',
      'CreateUpload',
      large,
      { kind: 'ok-but-error', code: 'InternalError' },
    ],
    ['an empty success for a whole object', 'PutObject', small, { kind: 'ok-empty' }],
    ['an empty success for a part', 'UploadPart', large, { kind: 'ok-empty' }],
    ['an empty success at the end of an upload', 'CompleteUpload', large, { kind: 'ok-empty' }],
    ['a page of a hotel for a whole object', 'PutObject', small, { kind: 'garbage' }],
    ['a page of a hotel at the end of an upload', 'CompleteUpload', large, { kind: 'garbage' }],
    [
      'a reset in the middle of a body',
      'PutObject',
      () => randomBytes(8 * MIB),
      { kind: 'reset', afterBytes: 100_000 },
    ],
    ['a reset in the middle of a part', 'UploadPart', large, { kind: 'reset', afterBytes: 100_000 }],
    ['a reset before the body', 'UploadPart', large, { kind: 'reset', afterBytes: 0 }],
    ['no answer', 'PutObject', small, { kind: 'hang' }],
    ['no answer to a part', 'UploadPart', large, { kind: 'hang' }],
    ['a lost answer to a whole object', 'PutObject', small, { kind: 'lose-answer' }],
    ['a lost answer to a part', 'UploadPart', large, { kind: 'lose-answer' }],
    ['a lost answer at the end of an upload', 'CompleteUpload', large, { kind: 'lose-answer' }],
    ['a server error', 'UploadPart', large, { kind: 'status', status: 500, code: 'InternalError' }],
    ['a bad gateway', 'PutObject', small, { kind: 'status', status: 502, code: 'BadGateway' }],
    ['bytes that changed on their way', 'UploadPart', large, { kind: 'status', status: 400, code: 'BadDigest' }],
    [
      'a request that S3 waited for in vain',
      'UploadPart',
      large,
      { kind: 'status', status: 400, code: 'RequestTimeout' },
    ],
  ])('takes %s for a failure and stores the object once at the next attempt', async (_, operation, content, fault) => {
    await sink()
    fails(operation, fault)
    const bytes = content()
    expect(await failure(made!.write(segmentOf(bytes)))).toBeInstanceOf(Disconnected)
    expect(
      await made!.write(segmentOf(bytes), 2).catch((error: unknown) => {
        if (error instanceof Disconnected) return made!.write(segmentOf(bytes), 3)
        throw error
      }),
    ).toEqual(CONFIRMED)
    await holds(bytes)
  })

  it("takes a racer's answer, 409, for a request to wait", async () => {
    await sink()
    fails('PutObject', { kind: 'status', status: 409, code: 'ConditionalRequestConflict' })
    const bytes = small()
    expect(await failure(made!.write(segmentOf(bytes)))).toBeInstanceOf(Throttled)
    expect(await made!.write(segmentOf(bytes), 2)).toEqual(CONFIRMED)
  })

  it('sends again only the parts that did not arrive, also over close and open', async () => {
    const { sink: it, write } = await sink()
    proxy.fault = (operation, count) =>
      operation === 'UploadPart' && count === 2 ? { kind: 'status', status: 503, code: 'SlowDown' } : undefined
    const bytes = large()
    expect(await failure(write(segmentOf(bytes)))).toBeInstanceOf(Throttled)
    const sent = proxy.count('UploadPart')
    expect(sent).toBe(3)
    await it.close()
    await it.open({
      signal: new AbortController().signal,
      clock: {
        now: Date.now,
        monotonic: () => performance.now(),
        sleep: () => Promise.resolve(),
        every: () => ({ stop: () => undefined }),
      },
      log: { debug: () => undefined, info: () => undefined, warn: () => undefined },
      gauge: () => undefined,
    })
    expect(await write(segmentOf(bytes), 2)).toEqual(CONFIRMED)
    expect(proxy.count('UploadPart')).toBe(sent + 1)
    expect(proxy.count('CreateUpload')).toBe(1)
    await holds(bytes)
  })

  it('asks, before it sends a large object again, whether it is there', async () => {
    await sink()
    const segment = segmentOf(large())
    expect(await made!.write(segment)).toEqual(CONFIRMED)
    const sent = proxy.count('UploadPart')
    expect(await made!.write(segment, 2)).toEqual(CONFIRMED)
    expect(proxy.count('UploadPart')).toBe(sent)
  })

  it('gets through a storm in which two of three requests fail, each part sent until it arrived', async () => {
    await sink({ partSize: 5 * MIB, timeout: 300 })
    const faults: Fault[] = [
      { kind: 'status', status: 503, code: 'SlowDown' },
      { kind: 'status', status: 500, code: 'InternalError' },
      { kind: 'reset', afterBytes: 50_000 },
      { kind: 'lose-answer' },
      { kind: 'hang' },
      { kind: 'ok-but-error', code: 'InternalError' },
    ]
    let dice = 20_260_102
    const roll = (sides: number): number => {
      dice = (Math.imul(dice, 1_103_515_245) + 12_345) >>> 0
      return Math.floor((dice / 2 ** 32) * sides)
    }
    proxy.fault = () => (roll(3) === 0 ? undefined : faults[roll(faults.length)])
    const bytes = large()
    await persist(bytes)
    proxy.fault = () => undefined
    await holds(bytes)
  })

  it('begins again where the upload was removed behind its back', async () => {
    await sink()
    fails('UploadPart', { kind: 'status', status: 404, code: 'NoSuchUpload' })
    const bytes = large()
    expect((await failure(made!.write(segmentOf(bytes)))).message).toMatch(/NoSuchUpload.*begins again/)
    expect(await made!.write(segmentOf(bytes), 2)).toEqual(CONFIRMED)
    expect(proxy.count('CreateUpload')).toBe(2)
    await holds(bytes)
  })

  it('leaves no upload behind where S3 refuses for good', async () => {
    await sink()
    fails('CompleteUpload', { kind: 'status', status: 403, code: 'AccessDenied' })
    expect(await failure(made!.write(segmentOf(large())))).toBeInstanceOf(Refused)
    expect(await bucket.uploads(KEY)).toEqual([])
  })

  it('stores where it may not look: neither at the bucket nor at unfinished uploads', async () => {
    proxy.fault = (operation) =>
      operation === 'HeadBucket' || operation === 'ListObjects' || operation === 'ListUploads'
        ? { kind: 'status', status: 403, code: 'AccessDenied' }
        : undefined
    await sink()
    for (const bytes of [small(), large()])
      expect(await made!.write({ ...segmentOf(bytes), key: `${bytes.length}` })).toEqual(CONFIRMED)
    expect(await bucket.keys()).toHaveLength(2)
  })

  it('says which permission is missing where a taken key cannot be looked at', async () => {
    await bucket.put(KEY, Buffer.from('x'))
    await sink()
    fails('HeadObject', { kind: 'status', status: 403, code: 'AccessDenied' }, 99)
    const error = await failure(made!.write(segmentOf(small())))
    expect(error).toBeInstanceOf(Refused)
    expect(error.message).toMatch(/s3:GetObject/)
    expect(await bucket.keys()).toEqual([KEY])
  })

  it('tries again where the object that took the key is gone when it looks', async () => {
    await bucket.put(KEY, Buffer.from('x'))
    await sink()
    fails('HeadObject', { kind: 'status', status: 404, code: 'NotFound' })
    expect((await made!.write(segmentOf(small()))).retry).toEqual([
      { index: 0, why: expect.stringMatching(/is not any more/) as string },
    ])
  })

  it.each<[string, number, new (...given: never[]) => Error, RegExp]>([
    ['ExpiredToken', 400, Refused, /expired or not valid.*renew/],
    ['AccessDenied', 403, Refused, /denies it to store .*s3:PutObject/],
    ['InvalidAccessKeyId', 403, Refused, /does not know the access key/],
    ['SignatureDoesNotMatch', 403, Refused, /secret does not belong/],
    ['RequestTimeTooSkewed', 403, Refused, /clock of this machine/],
    ['NoSuchBucket', 404, Refused, /there is no bucket/],
    ['PermanentRedirect', 301, Refused, /not in region us-east-1/],
    ['InvalidStorageClass', 400, Refused, /refuses to store .*InvalidStorageClass/],
    ['EntityTooLarge', 400, Fatal, /smaller commit-file-size/],
    ['TooManyRequests', 429, Throttled, /patience/],
  ])('classifies %s', async (code, status, kind, message) => {
    await sink()
    fails('PutObject', { kind: 'status', status, code })
    const error = await failure(made!.write(segmentOf(small())))
    expect(error).toBeInstanceOf(kind)
    expect(error.message).toMatch(message)
    expect(error.message).not.toContain('\n')
    expect(error.message).not.toContain(server.secretKey)
  })

  it('asks anew at each opening for what placeholders stand for', async () => {
    const words = { endpoint: proxy.endpoint, accessKeyId: server.accessKey }
    const stale = target({ ...words, secretAccessKey: 'rotated away' }, bucket.name)
    const fresh = target({ ...words, secretAccessKey: server.secretKey }, bucket.name)
    let asked = 0
    const sink = create({ ...stale, resolve: () => (++asked === 1 ? stale : fresh).resolve() })
    try {
      await expect(sink.open(contextFor([]))).rejects.toThrow(Refused)
      await sink.close()
      await sink.open(contextFor([]))
      expect(asked).toBe(2)
    } finally {
      await sink.close()
    }
  })

  it('sends bodies once, without hashing them again, with a checksum that the server verifies', async () => {
    await sink()
    const segment = segmentOf(small())
    await made!.write(segment)
    await made!.write({ ...segmentOf(large()), key: 'large' })
    const put = proxy.seen.find(({ operation }) => operation === 'PutObject')
    expect(put?.headers).toMatchObject({
      'x-amz-content-sha256': segment.sha256,
      'x-amz-checksum-sha256': Buffer.from(segment.sha256, 'hex').toString('base64'),
      'if-none-match': '*',
    })
    expect(put?.headers['content-encoding']).toBeUndefined()
    const parts = proxy.seen.filter(({ operation }) => operation === 'UploadPart')
    expect(parts).toHaveLength(3)
    for (const { headers } of parts)
      expect(headers).toMatchObject({
        'x-amz-content-sha256': 'UNSIGNED-PAYLOAD',
        'x-amz-checksum-crc32': expect.any(String) as string,
      })
    expect(proxy.seen.find(({ operation }) => operation === 'CompleteUpload')?.headers['if-none-match']).toBe('*')
  })

  it('asks for encryption, storage class and ACL as it was told, for whole objects and for uploads', async () => {
    await sink({
      sse: 'aws:kms',
      kmsKeyId: 'key-1',
      storageClass: 'STANDARD_IA',
      acl: 'bucket-owner-full-control',
      contentType: 'text/plain',
      tag: [['a b', 'c']],
    })
    proxy.fault = (operation) =>
      operation === 'PutObject' || operation === 'CreateUpload'
        ? { kind: 'status', status: 500, code: 'InternalError' }
        : undefined
    await failure(made!.write(segmentOf(small())))
    await failure(made!.write(segmentOf(large())))
    const asked = proxy.seen.filter(({ operation }) => operation === 'PutObject' || operation === 'CreateUpload')
    expect(asked).toHaveLength(2)
    for (const { headers } of asked) {
      expect(headers).toMatchObject({
        'x-amz-server-side-encryption': 'aws:kms',
        'x-amz-server-side-encryption-aws-kms-key-id': 'key-1',
        'x-amz-storage-class': 'STANDARD_IA',
        'x-amz-acl': 'bucket-owner-full-control',
        'content-type': 'text/plain',
        'x-amz-tagging': 'a%20b=c',
      })
    }
  })
})
