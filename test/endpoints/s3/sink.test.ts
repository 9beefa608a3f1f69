/** The sink against real servers that verify what they are sent. */
import '../../support/node-errors'
import { AbortMultipartUploadCommand, CreateMultipartUploadCommand, GetObjectTaggingCommand } from '@aws-sdk/client-s3'
import { createHash, randomBytes } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { CONFIRMED } from '../../../src/core/contract'
import { Disconnected, Refused } from '../../../src/core/errors'
import { describeWith } from '../../services/describe-with'
import { Bucket, type S3Server, startS3 } from '../../services/s3'
import {
  contextFor,
  opened,
  type Opened,
  type S3Options,
  segmentFrom,
  segmentOf,
  target,
  writeOf,
} from '../../support/s3-sink'
import { create } from '../../../src/endpoints/s3/sink'

const MIB = 1024 * 1024
const KEY = '2026-01-02/030405.000000000-0-1.ndjson'
/** Compresses to about half. */
const text = (bytes: number): Buffer =>
  Buffer.from(
    randomBytes(Math.ceil(bytes / 2))
      .toString('hex')
      .slice(0, bytes),
  )

for (const kind of ['versitygw', 'minio'] as const) {
  describeWith(kind, `the S3 sink on ${kind}`, () => {
    let server: S3Server
    let bucket: Bucket
    const sinks: Opened[] = []
    const folders: string[] = []
    const sink = async (words: Partial<S3Options> = {}, folder?: string): Promise<Opened> => {
      const made = await opened(
        { endpoint: server.endpoint, accessKeyId: server.accessKey, secretAccessKey: server.secretKey, ...words },
        bucket.name,
        folder,
      )
      sinks.push(made)
      return made
    }
    const refusal = async (words: Partial<S3Options>, name = bucket.name): Promise<Error> => {
      const closed = create(
        target(
          { endpoint: server.endpoint, accessKeyId: server.accessKey, secretAccessKey: server.secretKey, ...words },
          name,
        ),
      )
      try {
        await closed.open(contextFor([]))
      } catch (error) {
        return error as Error
      } finally {
        await closed.close()
      }
      throw new Error('it opened')
    }
    beforeAll(async () => {
      server = await startS3(kind)
    })
    afterAll(async () => {
      await server.stop()
    })
    beforeEach(async () => {
      bucket = await Bucket.make(server)
    })
    afterEach(async () => {
      for (const { sink: each } of sinks.splice(0)) await each.close()
      for (const folder of folders.splice(0)) fs.rmSync(folder, { recursive: true, force: true })
      bucket.close()
    })

    it('makes one object of a segment, with its bytes and what is known of it', async () => {
      const content = Buffer.from('one\ntwo\n')
      const segment = segmentOf(content, {
        count: 2,
        facts: { 'first-sequence': '10', 'last-sequence': '11', positions: 'stdin:8' },
      })
      expect(await (await sink()).write(segment)).toEqual(CONFIRMED)
      const [object, ...more] = await bucket.all()
      expect(more).toEqual([])
      expect(object).toMatchObject({ key: `trades/${KEY}`, bytes: content, contentType: 'application/x-ndjson' })
      expect(object?.metadata).toEqual({
        'manifold-sha256': segment.sha256,
        'manifold-length': '8',
        'manifold-count': '2',
        'manifold-first-sequence': '10',
        'manifold-last-sequence': '11',
        'manifold-positions': 'stdin:8',
      })
    })

    it.each([16 * MIB - 1, 16 * MIB, 16 * MIB + 1, 24 * MIB, 40 * MIB + 12_345])(
      'keeps every byte of %d, in one request or in parts',
      async (length) => {
        const content = text(length)
        expect(await (await sink()).write(segmentOf(content))).toEqual(CONFIRMED)
        const [object] = await bucket.all()
        expect(object?.bytes.equals(content)).toBe(true)
        expect(await bucket.uploads(`trades/${KEY}`)).toEqual([])
      },
    )

    it.each([
      ['gzip', gunzipSync, 1000],
      ['gzip', gunzipSync, 33 * MIB],
      ['zstd', zstdDecompressSync, 1000],
      ['zstd', zstdDecompressSync, 33 * MIB],
    ] as const)(
      'compresses with %s what the segment says, and tells the uncompressed length',
      async (compression, undo, length) => {
        const content = text(length)
        const segment = segmentOf(content, { compression })
        expect(await (await sink({ compressionLevel: 1, compression: 'none' })).write(segment)).toEqual(CONFIRMED)
        const [object] = await bucket.all()
        expect(undo(object!.bytes).equals(content)).toBe(true)
        expect(object!.bytes.length).toBeLessThan(length)
        expect(object!.contentEncoding).toBeUndefined()
        expect(object!.metadata['manifold-length']).toBe(String(length))
      },
    )

    it('sends content that does not compress in parts that are large enough', async () => {
      const content = randomBytes(17 * MIB)
      await (await sink({ partSize: 5 * MIB })).write(segmentOf(content, { compression: 'gzip' }))
      expect(gunzipSync((await bucket.all())[0]!.bytes).equals(content)).toBe(true)
    })

    it.each([100, 20 * MIB])(
      'takes an object of %d bytes that is there, with this content, for its own',
      async (length) => {
        const segment = segmentOf(text(length))
        expect(await (await sink()).write(segment)).toEqual(CONFIRMED)
        expect(await (await sink()).write(segment)).toEqual(CONFIRMED)
        expect(await (await sink()).write(segment, 2)).toEqual(CONFIRMED)
        expect(await bucket.keys()).toEqual([`trades/${KEY}`])
        expect(await bucket.uploads(`trades/${KEY}`)).toEqual([])
      },
    )

    it.each([100, 20 * MIB])(
      'never replaces an object of another content: its %d bytes go beside it, loudly, and a retry finds them there',
      async (length) => {
        await bucket.put(`trades/${KEY}`, Buffer.from("somebody else's"))
        const segment = segmentOf(text(length))
        const { write, logged } = await sink()
        expect(await write(segment)).toEqual(CONFIRMED)
        expect(await write(segment, 2)).toEqual(CONFIRMED)
        const objects = await bucket.all()
        expect(objects.map(({ key }) => key).sort()).toEqual([
          `trades/2026-01-02/030405.000000000-0-1-${segment.sha256.slice(0, 16)}.ndjson`,
          `trades/${KEY}`,
        ])
        expect(objects.find(({ key }) => key === `trades/${KEY}`)?.bytes.toString()).toBe("somebody else's")
        expect(logged.filter((line) => line.startsWith('warn'))[0]).toMatch(/holds something else/)
      },
    )

    it('lets one of twenty racers with one content make the object, and all of them succeed', async () => {
      const segment = segmentOf(text(1000))
      const racers = await Promise.all(Array.from({ length: 20 }, () => sink()))
      expect(await Promise.all(racers.map(({ write }) => write(segment)))).toEqual(racers.map(() => CONFIRMED))
      expect(await bucket.keys()).toEqual([`trades/${KEY}`])
    })

    it('keeps the contents of all of twenty racers with one key', async () => {
      const contents = Array.from({ length: 20 }, (_, i) => Buffer.from(`racer ${i}\n`))
      const { write } = await sink()
      await Promise.all(contents.map((content) => write(segmentOf(content))))
      expect((await bucket.all()).map(({ bytes }) => bytes.toString()).sort()).toEqual(contents.map(String).sort())
    })

    it('ends uploads of its own key that a killed run had begun, and no others', async () => {
      const begin = async (key: string): Promise<string> =>
        (await bucket.client.send(new CreateMultipartUploadCommand({ Bucket: bucket.name, Key: key }))).UploadId!
      await begin(`trades/${KEY}`)
      await begin(`trades/${KEY}`)
      const other = await begin(`trades/${KEY}.other`)
      const content = text(17 * MIB)
      const { write, logged } = await sink()
      expect(await write(segmentOf(content))).toEqual(CONFIRMED)
      expect(await bucket.uploads(`trades/${KEY}`)).not.toContain(`trades/${KEY}`)
      expect(await bucket.uploads(`trades/${KEY}.other`)).toHaveLength(1)
      expect(logged.filter((line) => line.includes('ended an upload'))).toHaveLength(2)
      await bucket.client.send(
        new AbortMultipartUploadCommand({ Bucket: bucket.name, Key: `trades/${KEY}.other`, UploadId: other }),
      )
    })

    it('is refused with one line that says what to do, and no secret in it', async () => {
      const noBucket = await refusal({}, 'no-such-bucket')
      expect(noBucket).toBeInstanceOf(Refused)
      expect(noBucket.message).toBe(
        `there is no bucket no-such-bucket at ${server.endpoint}: create it, or correct the URI`,
      )
      const wrongSecret = await refusal({ secretAccessKey: 'canary-secret' })
      expect(wrongSecret).toBeInstanceOf(Refused)
      expect(wrongSecret.message).toMatch(/secret does not belong to the access key; correct secret-access-key=/)
      const wrongKey = await refusal({ accessKeyId: 'nobody' })
      expect(wrongKey).toBeInstanceOf(Refused)
      expect(wrongKey.message).toMatch(/does not know the access key: correct access-key-id=/)
      for (const { message } of [noBucket, wrongSecret, wrongKey]) expect(message).not.toMatch(/canary-secret|\n/)
    })

    it('is refused at writing where the bucket went away', async () => {
      const { write } = await opened(
        { endpoint: server.endpoint, accessKeyId: server.accessKey, secretAccessKey: server.secretKey },
        bucket.name,
      ).then((made) => {
        sinks.push(made)
        return made
      })
      await bucket.client.send(new (await import('@aws-sdk/client-s3')).DeleteBucketCommand({ Bucket: bucket.name }))
      await expect(write(segmentOf(text(10)))).rejects.toThrow(Refused)
      await expect(write(segmentOf(text(17 * MIB)))).rejects.toThrow(/there is no bucket/)
    })

    it('sets tags', async () => {
      await (
        await sink({
          tag: [
            ['team', 'trading: a+b @ 1'],
            ['kind', 'u=1'],
          ],
        })
      ).write(segmentOf(text(10)))
      const { TagSet } = await bucket.client.send(
        new GetObjectTaggingCommand({ Bucket: bucket.name, Key: `trades/${KEY}` }),
      )
      expect(TagSet?.map(({ Key, Value }) => [Key, Value]).sort()).toEqual([
        ['kind', 'u=1'],
        ['team', 'trading: a+b @ 1'],
      ])
    })

    it.each(['none', 'gzip'] as const)(
      'keeps a copy of each object on this disk, under its key (compression %s)',
      async (compression) => {
        const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-keep-'))
        folders.push(folder)
        const content = text(20 * MIB)
        const { write } = await sink({ keepLocal: path.join(folder, 'deep', 'er'), compressionLevel: 1 })
        expect(await write(segmentOf(content, { compression }))).toEqual(CONFIRMED)
        const directory = path.join(folder, 'deep', 'er', 'trades', '2026-01-02')
        expect(fs.readdirSync(directory)).toEqual([path.basename(KEY)])
        expect(fs.readFileSync(path.join(directory, path.basename(KEY))).equals((await bucket.all())[0]!.bytes)).toBe(
          true,
        )
        // A second attempt, whose first was lost on its way back, leaves one again.
        fs.rmSync(path.join(directory, path.basename(KEY)))
        expect(await write(segmentOf(content, { compression }), 2)).toEqual(CONFIRMED)
        expect(fs.readdirSync(directory)).toEqual([path.basename(KEY)])
      },
    )

    it('refuses a directory for copies that cannot be one, before anything is sent', async () => {
      const error = await refusal({ keepLocal: '/dev/null/copies' })
      expect(error).toBeInstanceOf(Refused)
      expect(error.message).toMatch(/keep-local=\/dev\/null\/copies: .*ENOTDIR/)
    })

    it('goes on where the server was killed and started again', async () => {
      const content = text(40 * MIB)
      const segment = segmentOf(content)
      const { sink: it, write } = await sink()
      await server.kill()
      const failed = await write(segment).then(
        () => undefined,
        (error: unknown) => error,
      )
      expect(failed).toBeInstanceOf(Disconnected)
      expect((failed as Error).message).toMatch(/ECONNRE/)
      await it.close()
      await expect(it.open(contextFor([]))).rejects.toThrow(Disconnected)
      await it.close()
      await server.restart()
      await it.open(contextFor([]))
      expect(await write(segment, 2)).toEqual(CONFIRMED)
      expect((await bucket.all())[0]!.bytes.equals(content)).toBe(true)
    })

    it('gives up a server that stands still after the timeout, and goes on when it moves', async () => {
      const content = text(20 * MIB)
      const { write } = await sink({ timeout: 700 })
      server.freeze()
      try {
        const started = performance.now()
        await expect(write(segmentOf(content))).rejects.toThrow(Disconnected)
        expect(performance.now() - started).toBeLessThan(5000)
      } finally {
        server.thaw()
      }
      expect(await write(segmentOf(content), 2)).toEqual(CONFIRMED)
      expect((await bucket.all())[0]!.bytes.equals(content)).toBe(true)
    })

    it("ends at once with the signal's reason while the server stands still", async () => {
      const { sink: it } = await sink()
      const abort = new AbortController()
      server.freeze()
      try {
        const writes = [text(100), text(20 * MIB)].map((content) =>
          it.write(writeOf(segmentOf(content)), abort.signal).then(
            () => undefined,
            (error: unknown) => error,
          ),
        )
        await new Promise((resolve) => setTimeout(resolve, 100))
        const started = performance.now()
        const reason = new Disconnected('the run ended')
        abort.abort(reason)
        expect(await Promise.all(writes)).toEqual([reason, reason])
        expect(performance.now() - started).toBeLessThan(500)
      } finally {
        server.thaw()
      }
    })

    it('fails where a segment is not as long as it was sealed, and makes no object', async () => {
      const { write } = await sink()
      for (const length of [100, 20 * MIB]) {
        const content = text(length)
        const short = segmentFrom(length, createHash('sha256').update(content).digest('hex'), async function* () {
          yield content.subarray(0, length - 1)
        })
        await expect(write(short)).rejects.toThrow(/has \d+ bytes, where \d+ were sealed/)
      }
      expect(await bucket.keys()).toEqual([])
    })

    it('makes no object of bytes that are not those that were sealed', async () => {
      const content = text(100)
      const { write } = await sink()
      await expect(
        write(
          segmentFrom(100, createHash('sha256').update('other').digest('hex'), async function* () {
            yield content
          }),
        ),
      ).rejects.toThrow(/did not arrive as they were sent/)
      expect(await bucket.keys()).toEqual([])
    })

    it('holds no more than its buffers in memory, whatever the size of objects and the number of uploads', async () => {
      const block = randomBytes(MIB)
      const total = 100
      const hash = createHash('sha256')
      for (let i = 0; i < total; i++) hash.update(block)
      const sha256 = hash.digest('hex')
      const { write, gauges } = await sink({ uploads: 4, compressionLevel: 1 })
      let peak = 0
      const before = process.memoryUsage().arrayBuffers
      const watch = setInterval(() => {
        peak = Math.max(peak, process.memoryUsage().arrayBuffers - before)
      }, 5)
      try {
        await Promise.all(
          [0, 1, 2, 3].map((i) =>
            write(
              segmentFrom(
                total * MIB,
                sha256,
                async function* (offset) {
                  for (let at = offset / MIB; at < total; at++) yield block
                },
                { key: `a/${i}.ndjson`, compression: i < 2 ? 'zstd' : 'none' },
              ),
            ),
          ),
        )
      } finally {
        clearInterval(watch)
      }
      expect(await bucket.keys()).toHaveLength(4)
      expect(gauges.get('bytes uploaded')).toBeGreaterThan(3.9 * total * MIB)
      expect(peak / MIB).toBeLessThan(100)
    })
  })
}

describeWith('minio', 'a bucket in a region that was not named', () => {
  let server: S3Server
  let bucket: Bucket
  beforeAll(async () => {
    server = await startS3('minio', 'eu-central-1')
    bucket = await Bucket.make(server, 'somewhere', 'eu-central-1')
  })
  afterAll(async () => {
    bucket.close()
    await server.stop()
  })

  it('is found where the region was left open', async () => {
    const { sink, write, logged } = await opened(
      { endpoint: server.endpoint, accessKeyId: server.accessKey, secretAccessKey: server.secretKey },
      'somewhere',
    )
    try {
      expect(logged).toEqual(['info the bucket somewhere is in eu-central-1; region=eu-central-1 saves asking'])
      expect(await write(segmentOf(text(10)))).toEqual(CONFIRMED)
    } finally {
      await sink.close()
    }
  })
  it('is refused where another one was named, with the right one', async () => {
    await expect(
      opened(
        {
          region: 'us-west-2',
          endpoint: server.endpoint,
          accessKeyId: server.accessKey,
          secretAccessKey: server.secretKey,
        },
        'somewhere',
      ),
    ).rejects.toThrow('the bucket somewhere is not in region us-west-2: give region=eu-central-1')
  })
})
