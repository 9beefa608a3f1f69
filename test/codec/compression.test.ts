import * as fc from 'fast-check'
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { compress, compressionOf, decompress, type Buffers } from '../../src/codec/compression'

async function all(output: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of output) parts.push(part)
  return Buffer.concat(parts)
}
function* cutAt(bytes: Buffer, sizes: readonly number[]): Generator<Buffer> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] ?? 1
    yield bytes.subarray(at, at + size)
    at += size
  }
}
const kinds = [
  ['gzip', gzipSync, gunzipSync],
  ['zstd', zstdCompressSync, zstdDecompressSync],
] as const

describe.each(kinds)('%s', (kind, compressSync, decompressSync) => {
  test('pieces that were compressed apart and put together are read as one, however they are cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            fc.string(),
            fc.integer({ min: 0, max: 600_000 }).map((length) => 'xy'.repeat(length)),
          ),
        ),
        fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 100_000 })), { minLength: 1 }),
        async (parts, sizes) => {
          const compressed = Buffer.concat(parts.map((part) => compressSync(Buffer.from(part))))
          const fine = sizes.map((size) => Math.max(size, Math.ceil(compressed.length / 500)))
          expect((await all(decompress(kind)(cutAt(compressed, fine)))).equals(Buffer.from(parts.join('')))).toBe(true)
        },
      ),
      { numRuns: 60 },
    )
  })

  test('what is written can be read by others', async () => {
    const data = Buffer.from(Array.from({ length: 100_000 }, (_, i) => `line ${i}\n`).join(''))
    expect(decompressSync(await all(compress(kind, 1)(cutAt(data, [70_000])))).equals(data)).toBe(true)
    expect(decompressSync(await all(compress(kind)([])))).toEqual(Buffer.alloc(0))
  })

  test('every cut of the data is told as such, after what could be read', async () => {
    const data = compressSync(Buffer.from('some text that is long enough'.repeat(3)))
    for (let length = 1; length < data.length; length++)
      await expect(all(decompress(kind)([data.subarray(0, length)]))).rejects.toThrow('ends too early')
    await expect(all(decompress(kind)([Buffer.concat([data, data.subarray(0, 7)])]))).rejects.toThrow('ends too early')
  })

  test('no data, and garbage in front or behind', async () => {
    expect(await all(decompress(kind)([]))).toEqual(Buffer.alloc(0))
    await expect(all(decompress(kind)([Buffer.from('plain text, nothing else')]))).rejects.toThrow(`no ${kind} data`)
    for (const parts of [
      [compressSync('a'), Buffer.from('garbage')],
      [Buffer.concat([compressSync('a'), Buffer.from('garbage')])],
    ])
      await expect(all(decompress(kind)(parts))).rejects.toThrow(kind)
  })

  test('a fault of the input comes out as it is', async () => {
    const fault = Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO', syscall: 'read' })
    async function* failing(): Buffers & AsyncGenerator<Buffer> {
      yield compressSync('abc').subarray(0, 5)
      await Promise.resolve()
      throw fault
    }
    await expect(all(decompress(kind)(failing()))).rejects.toBe(fault)
    await expect(all(compress(kind)(failing()))).rejects.toBe(fault)
  })

  test('a small input that becomes 128 MiB is not held in memory, and reading can stop', async () => {
    const zeros = Buffer.alloc(1024 * 1024)
    function* input(): Generator<Buffer> {
      for (let i = 0; i < 128; i++) yield zeros
    }
    const packed = await all(compress(kind)(input()))
    let seen = 0
    const before = process.memoryUsage().rss
    for await (const part of decompress(kind)([packed])) {
      seen += part.length
      if (seen > 100 * 1024 * 1024) break
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(60 * 1024 * 1024)
  })
})

test('the suffix names the compression', () => {
  expect(['a.gz', 'A.GZ', 'b.ndjson.zst', 'c.gzip', 'd', 'gz'].map(compressionOf)).toEqual([
    'gzip',
    'gzip',
    'zstd',
    'none',
    'none',
    'none',
  ])
})

test('NULs behind gzip data are filling, anything else behind them is not', async () => {
  const data = gzipSync('abc')
  expect(String(await all(decompress('gzip')([data, Buffer.alloc(5), Buffer.alloc(5)])))).toBe('abc')
  expect(String(await all(decompress('gzip')([Buffer.concat([data, Buffer.alloc(5)]), Buffer.alloc(5)])))).toBe('abc')
  await expect(all(decompress('gzip')([Buffer.concat([data, Buffer.alloc(5)]), Buffer.from('x')]))).rejects.toThrow(
    'something else follows',
  )
})
