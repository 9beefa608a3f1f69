/** Objects as the line asks for them: their size and their compression, by whole processes and a real server. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { describeWith } from '../services/describe-with'
import { available, Bucket, startS3, type S3Server, type StoredObject } from '../services/s3'
import { manifold } from '../support/manifold'

const KIB = 1024
const content = Array.from(
  { length: 20_000 },
  (_, i) => `record ${String(i).padStart(12, '0')} ${'x'.repeat(79)}\n`,
).join('')

describeWith('s3', 'objects', () => {
  let server: S3Server
  let bucket: Bucket
  let folder: string
  beforeAll(async () => {
    server = await startS3(available().find((kind) => kind !== 'moto'))
    folder = mkdtempSync(join(tmpdir(), 'manifold-sizes-'))
    writeFileSync(join(folder, 'in'), content)
  })
  afterAll(async () => {
    rmSync(folder, { recursive: true, force: true })
    await server.stop()
  })
  beforeEach(async () => {
    bucket = await Bucket.make(server)
  })
  afterEach(() => {
    bucket.close()
  })
  const stored = async (...words: readonly string[]): Promise<readonly StoredObject[]> => {
    const done = await manifold(
      [
        '--from',
        `file:${join(folder, 'in')}`,
        '--to',
        `s3://${bucket.name}`,
        `endpoint=${server.endpoint}`,
        'region=us-east-1',
        'key={id}.ndjson',
        ...words,
        '--state',
        join(folder, bucket.name),
      ],
      { env: { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey } },
    )
    expect(done).toMatchObject({ code: 0, stderr: '' })
    const order = ({ metadata }: StoredObject): number => Number(metadata['manifold-first-sequence'])
    return (await bucket.all()).sort((a, b) => order(a) - order(b))
  }

  it('are as large as commit-file-size says, however much is read at once', async () => {
    const objects = await stored('commit-file-size=100KiB')
    expect(Buffer.concat(objects.map(({ bytes }) => bytes)).toString()).toBe(content)
    const sizes = objects.map(({ bytes }) => bytes.length)
    // By less than an eighth, and a record.
    expect(Math.max(...sizes)).toBeLessThan((100 * KIB * 9) / 8 + 100)
    expect(Math.min(...sizes.slice(0, -1))).toBeGreaterThanOrEqual(100 * KIB)
  })

  it('are compressed where the key ends in .gz', async () => {
    const done = await manifold(
      [
        '--from',
        '-',
        '--to',
        `s3://${bucket.name}`,
        `endpoint=${server.endpoint}`,
        'region=us-east-1',
        'key=x.gz',
        '--state',
        join(folder, bucket.name),
      ],
      { input: 'a\nb\n', env: { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey } },
    )
    expect(done).toMatchObject({ code: 0, stderr: '' })
    const [object] = await bucket.all()
    expect(object?.key).toMatch(/^x-.*\.gz$/)
    expect(gunzipSync(object?.bytes ?? Buffer.alloc(0)).toString()).toBe('a\nb\n')
  })
})
