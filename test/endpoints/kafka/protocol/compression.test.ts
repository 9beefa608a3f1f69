import { compressRecords, decompressRecords } from '../../../../src/endpoints/kafka/protocol/compression'
import { CODECS, Damaged, Unreadable, type Codec } from '../../../../src/endpoints/kafka/protocol/record-batch'

const MOST = 8 * 1024 * 1024
const codecs = CODECS.filter((codec): codec is Exclude<Codec, 'none'> => codec !== 'none')
const text = Buffer.from(Array.from({ length: 20_000 }, (_, index) => `{"seq":${index}}\n`).join(''))

describe.each(codecs)('%s', (codec) => {
  it.each([
    ['nothing', Buffer.alloc(0)],
    ['a byte', Buffer.from('x')],
    ['text', text],
    [
      'what does not get smaller',
      Buffer.from(Array.from({ length: 70_000 }, (_, index) => Math.imul(index, 2654435761) >>> 24)),
    ],
  ])('gives %s back', async (_, bytes) => {
    expect((await decompressRecords(codec, await compressRecords(codec, bytes), MOST)).equals(bytes)).toBe(true)
  })
  it('is smaller where it can be', async () => {
    expect((await compressRecords(codec, text)).length).toBeLessThan(text.length / 2)
  })
  it('does not grow beyond what is allowed', async () => {
    const packed = await compressRecords(codec, Buffer.alloc(MOST + 1))
    await expect(decompressRecords(codec, packed, MOST)).rejects.toThrow(Unreadable)
    await expect(decompressRecords(codec, packed, MOST)).rejects.toThrow('larger than 8MiB once it is decompressed')
  })
  it('that is cut off or none at all is damage, and what comes after it is still read', async () => {
    const packed = await compressRecords(codec, text)
    for (const bytes of [
      packed.subarray(0, packed.length - 5),
      packed.subarray(0, 3),
      Buffer.alloc(0),
      Buffer.from('no such data at all'),
      Buffer.alloc(50, 0xff),
    ]) {
      await expect(decompressRecords(codec, bytes, MOST)).rejects.toThrow(Damaged)
    }
    expect((await decompressRecords(codec, packed, MOST)).equals(text)).toBe(true)
  })
})

describe('snappy', () => {
  it('is in the framing of snappy-java, and is read without it too', async () => {
    const framed = await compressRecords('snappy', text)
    expect(framed.subarray(0, 16).toString('hex')).toBe('82534e41505059000000000100000001')
    const small = await compressRecords('snappy', Buffer.from('raw snappy, as librdkafka may have written it'))
    expect(small.readInt32BE(16)).toBe(small.length - 20)
    expect((await decompressRecords('snappy', small.subarray(20), MOST)).toString()).toBe(
      'raw snappy, as librdkafka may have written it',
    )
  })
})

describe('lz4', () => {
  it('is a frame of independent blocks: Java reads no others', async () => {
    const framed = await compressRecords('lz4', text)
    expect(framed.readUInt32LE(0)).toBe(0x184d2204)
    expect((framed[4] ?? 0) & 0xe0).toBe(0x60)
  })
})
