/**
 * What the S3 sink makes of answers: checksums, conditions and redirections that are not as Amazon has them. The oracle
 * is the real server behind the proxy.
 */
import '../../support/node-errors'
import { randomBytes } from 'node:crypto'
import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http'
import { CONFIRMED, type Outcome } from '../../../src/core/contract'
import { Disconnected, Refused } from '../../../src/core/errors'
import { describeWith } from '../../services/describe-with'
import { available, Bucket, type S3Server, startS3 } from '../../services/s3'
import { opened, type Opened, segmentOf } from '../../support/s3-sink'
import { type Fault, type Operation, S3Proxy } from '../../support/s3-proxy'

const MIB = 1024 * 1024
const KEY = 'trades/2026-01-02/030405.000000000-0-1.ndjson'
const OTHER_SHA256 = Buffer.alloc(32, 7).toString('base64')
const OTHER_CRC32 = Buffer.alloc(4, 7).toString('base64')
const small = (): Buffer => randomBytes(1000)
/** Three parts of 8 MiB. */
const large = (): Buffer => randomBytes(20 * MIB)
const without =
  (...patterns: readonly RegExp[]) =>
  (headers: IncomingHttpHeaders): OutgoingHttpHeaders =>
    Object.fromEntries(Object.entries(headers).filter(([name]) => !patterns.some((pattern) => pattern.test(name))))
const META = /^x-amz-meta-/
const SUMS = /^x-amz-checksum-/

describeWith('s3', 'the S3 sink and what it is answered', () => {
  let server: S3Server
  let bucket: Bucket
  let proxy: S3Proxy
  let made: Opened
  // MinIO heeds the condition at the end of an upload in parts as well.
  beforeAll(async () => {
    server = await startS3(available().includes('minio') ? 'minio' : available().find((kind) => kind !== 'moto'))
  })
  afterAll(async () => {
    await server.stop()
  })
  beforeEach(async () => {
    bucket = await Bucket.make(server)
    proxy = await S3Proxy.start(server.endpoint)
    made = await opened(
      { endpoint: proxy.endpoint, accessKeyId: server.accessKey, secretAccessKey: server.secretKey, timeout: 5000 },
      bucket.name,
    )
  })
  afterEach(async () => {
    await made.sink.close()
    await proxy.stop()
    bucket.close()
  })
  const first = (operation: Operation, fault: Fault): void => {
    proxy.fault = (seen, count) => (seen === operation && count === 1 ? fault : undefined)
  }
  const failure = async (outcome: Promise<Outcome>): Promise<Error> => {
    try {
      await outcome
    } catch (error) {
      return error as Error
    }
    throw new Error('it succeeded')
  }
  const warnings = (): readonly string[] => made.logged.filter((line) => line.startsWith('warn'))
  const inCompletion = (text: string): string =>
    text
      .replace(/<ChecksumCRC32>[^<]*<\/ChecksumCRC32>/, '')
      .replace(
        '</CompleteMultipartUploadResult>',
        `<ChecksumCRC32>${OTHER_CRC32}-3</ChecksumCRC32></CompleteMultipartUploadResult>`,
      )

  describe('a checksum that is not that of what was sent', () => {
    it.each<[string, Operation, () => Buffer, Fault]>([
      [
        'sha256 of an object',
        'PutObject',
        small,
        { kind: 'rewrite', headers: (headers) => ({ ...headers, 'x-amz-checksum-sha256': OTHER_SHA256 }) },
      ],
      [
        'crc32 of an object',
        'PutObject',
        small,
        { kind: 'rewrite', headers: (headers) => ({ ...without(SUMS)(headers), 'x-amz-checksum-crc32': OTHER_CRC32 }) },
      ],
      [
        'crc32 of a part',
        'UploadPart',
        large,
        { kind: 'rewrite', headers: (headers) => ({ ...headers, 'x-amz-checksum-crc32': OTHER_CRC32 }) },
      ],
      ['crc32 of all parts', 'CompleteUpload', large, { kind: 'rewrite', body: inCompletion }],
    ])('is no delivery (%s); what is found to be there as it was sent is one', async (_, operation, content, fault) => {
      first(operation, fault)
      const segment = segmentOf(content())
      const error = await failure(made.write(segment))
      expect(error).toBeInstanceOf(Disconnected)
      expect(error.message).toMatch(/as it was sent: its answer has the checksum Bw/)
      let outcome: Outcome | undefined
      for (let attempt = 2; outcome === undefined && attempt < 5; attempt++)
        outcome = await made.write(segment, attempt).catch(() => undefined)
      expect(outcome).toEqual(CONFIRMED)
      expect(await bucket.keys()).toEqual([KEY])
    })

    it('is never taken for delivered where the server has other bytes, whatever the object says of itself', async () => {
      const altered: Fault = {
        kind: 'rewrite',
        headers: (headers) => ({ ...without(SUMS)(headers), 'x-amz-checksum-sha256': OTHER_SHA256 }),
      }
      proxy.fault = (operation) => (operation === 'PutObject' || operation === 'HeadObject' ? altered : undefined)
      const segment = segmentOf(small())
      const errors = []
      for (let attempt = 1; attempt < 5; attempt++) errors.push(await failure(made.write(segment, attempt)))
      expect(errors.map(({ name }) => name)).toEqual(['AlteredObject', 'AlteredObject', 'Refused', 'Refused'])
      expect(await bucket.keys()).toHaveLength(2)
      expect(warnings()[0]).toMatch(/holds something else/)
    })

    it('is told by the ETag where no checksum comes back and ETags were MD5s before', async () => {
      proxy.fault = (operation, count) =>
        operation === 'PutObject'
          ? {
              kind: 'rewrite',
              headers: (headers) => ({
                ...without(SUMS)(headers),
                ...(count === 2 ? { etag: `"${'0'.repeat(32)}"` } : {}),
              }),
            }
          : undefined
      expect(await made.write(segmentOf(small(), { key: 'a' }))).toEqual(CONFIRMED)
      expect((await failure(made.write(segmentOf(small(), { key: 'b' })))).message).toMatch(/as it was sent/)
    })

    it('is none where ETags never were MD5s', async () => {
      let n = 0
      proxy.fault = (operation) =>
        operation === 'PutObject'
          ? {
              kind: 'rewrite',
              headers: (headers) => ({ ...without(SUMS)(headers), etag: `"${String(n++).padStart(32, '0')}"` }),
            }
          : undefined
      for (const key of ['a', 'b', 'c']) expect(await made.write(segmentOf(small(), { key }))).toEqual(CONFIRMED)
    })
  })

  describe('an object whose making was not answered, and that tells nothing of itself', () => {
    const lost = async (
      operation: Operation,
      content: Buffer,
      head: (headers: IncomingHttpHeaders) => OutgoingHttpHeaders,
    ): Promise<Outcome> => {
      proxy.fault = (seen, count) =>
        seen === operation && count === 1
          ? { kind: 'lose-answer' }
          : seen === 'HeadObject'
            ? { kind: 'rewrite', headers: head }
            : undefined
      const segment = segmentOf(content, { count: 42 })
      expect(await failure(made.write(segment))).toBeInstanceOf(Disconnected)
      for (let attempt = 2; ; attempt++) {
        try {
          return await made.write(segment, attempt)
        } catch (error) {
          if (!(error instanceof Disconnected) || attempt > 5) throw error
        }
      }
    }
    it.each<[string, Operation, () => Buffer, RegExp[]]>([
      ['its checksum', 'PutObject', small, [META, /^etag$/]],
      ['its ETag', 'PutObject', small, [META, SUMS]],
      ['the checksum of its parts', 'CompleteUpload', large, [META, /^etag$/]],
      ['the ETag of its parts', 'CompleteUpload', large, [META, SUMS]],
    ])('is known again by %s', async (_, operation, content, hidden) => {
      expect(await lost(operation, content(), without(...hidden))).toEqual(CONFIRMED)
      expect(await bucket.keys()).toEqual([KEY])
      expect(warnings()).toEqual([])
    })

    it('stays where it is and counts as a possible duplicate where nothing proves it', async () => {
      expect(
        await lost('PutObject', small(), (headers) => ({ ...without(META, SUMS)(headers), etag: '"1-2-3"' })),
      ).toEqual({ ...CONFIRMED, doubtful: 42 })
      expect(await bucket.keys()).toHaveLength(2)
      expect(warnings()[0]).toMatch(/nothing tells whether it is this one: it becomes .*, a possible duplicate/)
    })

    it("is somebody else's where its bytes are others, and no duplicate", async () => {
      await bucket.put(KEY, Buffer.alloc(1000))
      expect(await made.write(segmentOf(small()), 2)).toEqual(CONFIRMED)
      expect(await bucket.keys()).toHaveLength(2)
    })
  })

  describe('a server that does not know If-None-Match', () => {
    beforeEach(() => {
      proxy.fault = (operation) =>
        ['PutObject', 'CompleteUpload'].includes(operation) && proxy.seen.at(-1)?.headers['if-none-match'] !== undefined
          ? { kind: 'status', status: 501, code: 'NotImplemented' }
          : undefined
    })
    const asked = (): readonly string[] =>
      proxy.seen
        .filter(({ method }) => method !== 'GET')
        .map(({ operation, headers }) => `${operation}${headers['if-none-match'] === undefined ? '' : ' if none'}`)

    it('is asked once, told of once, and looked at before each object then', async () => {
      proxy.seen.length = 0
      expect(await made.write(segmentOf(small(), { key: 'a' }))).toEqual(CONFIRMED)
      expect(await made.write(segmentOf(small(), { key: 'b' }))).toEqual(CONFIRMED)
      expect(asked()).toEqual(['PutObject if none', 'HeadObject', 'PutObject', 'HeadObject', 'PutObject'])
      expect(warnings()).toHaveLength(1)
      expect(warnings()[0]).toMatch(
        /does not know If-None-Match \(501\): each key is looked at \(HEAD\) before it is written/,
      )
    })
    it('keeps its objects: one that is there is not written over', async () => {
      await bucket.put(KEY, Buffer.from("somebody else's"))
      const content = small()
      expect(await made.write(segmentOf(content))).toEqual(CONFIRMED)
      expect((await bucket.all()).map(({ bytes }) => bytes.toString('hex')).sort()).toEqual(
        [Buffer.from("somebody else's"), content].map((bytes) => bytes.toString('hex')).sort(),
      )
    })
    it('gets large objects, and the same one once', async () => {
      const segment = segmentOf(large())
      expect(await made.write(segment)).toEqual(CONFIRMED)
      expect(await made.write(segment, 2)).toEqual(CONFIRMED)
      expect(await bucket.keys()).toEqual([KEY])
      expect(warnings()).toHaveLength(1)
    })
    it('is refused where it is something else that it does not know', async () => {
      proxy.fault = (operation) =>
        operation === 'PutObject' ? { kind: 'status', status: 501, code: 'NotImplemented' } : undefined
      const error = await failure(made.write(segmentOf(small())))
      expect(error).toBeInstanceOf(Refused)
      expect(error.message).toMatch(/does not implement that/)
      expect(warnings()).toEqual([])
    })
  })

  describe('an answer that points elsewhere', () => {
    const points = (to: (url: string) => string): void => {
      proxy.fault = (operation) =>
        ['PutObject', 'CreateUpload'].includes(operation)
          ? {
              kind: 'status',
              status: 307,
              code: 'TemporaryRedirect',
              headers: { location: to(proxy.seen.at(-1)?.url ?? '') },
            }
          : undefined
    }

    it.each([
      ['an object', small],
      ['a large one', large],
    ])('is followed for now, signed anew for the other host (%s)', async (_, content) => {
      points((url) => `${server.endpoint}${url}`)
      expect(await made.write(segmentOf(content()))).toEqual(CONFIRMED)
      expect(await bucket.keys()).toEqual([KEY])
    })
    it.each([
      [
        'round and round',
        (url: string) => `${proxy.endpoint}${url}${url.includes('?') ? '&' : '?'}rk=${proxy.seen.length}`,
      ],
      ['to another object', () => `${server.endpoint}/elsewhere/x`],
      ['nowhere', () => 'http://'],
    ])('is tried again later where it leads %s', async (_, to) => {
      points(to)
      const error = await failure(made.write(segmentOf(small())))
      expect(error).toBeInstanceOf(Disconnected)
      expect(error.message).toMatch(/it points elsewhere \(307\)/)
      expect(error.message).not.toMatch(/region/)
      expect(await bucket.keys()).toEqual([])
      expect(proxy.count('PutObject')).toBeLessThan(6)
    })
    it('names the region where the answer does', async () => {
      proxy.fault = (operation) =>
        operation === 'PutObject'
          ? { kind: 'status', status: 301, code: 'PermanentRedirect', headers: { 'x-amz-bucket-region': 'ap-south-1' } }
          : undefined
      expect((await failure(made.write(segmentOf(small())))).message).toMatch(
        /is not in region us-east-1: give region=ap-south-1/,
      )
    })
    it('blames the address where the region is right', async () => {
      proxy.fault = (operation) =>
        operation === 'PutObject'
          ? { kind: 'status', status: 301, code: 'PermanentRedirect', headers: { 'x-amz-bucket-region': 'us-east-1' } }
          : undefined
      expect((await failure(made.write(segmentOf(small())))).message).toMatch(
        /though in region us-east-1 .*: correct endpoint=/,
      )
    })
  })
})
