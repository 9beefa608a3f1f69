import * as fc from 'fast-check'
import { EntryBatch } from '../../../../src/core/batch'
import type { Entry, HeaderValue } from '../../../../src/core/contract'
import { BlockBatch } from '../../../../src/endpoints/kafka/consume/block'
import { checksum } from '../../../../src/endpoints/kafka/protocol/checksum'
import { BufferPool } from '../../../../src/endpoints/kafka/protocol/buffer-pool'
import { CODECS, CRC_AT, Damaged, Unreadable, type Codec } from '../../../../src/endpoints/kafka/protocol/record-batch'
import { decodeRecordSet, type RecordSet, type DecodeOptions } from '../../../../src/endpoints/kafka/consume/record-set'
import { RecordWriter, stampBatch } from '../../../../src/endpoints/kafka/produce/record-writer'
import { putVarint, VarintReader, varintSize } from '../../../../src/endpoints/kafka/protocol/varint'

const nobody = { id: -1n, epoch: -1 }
const all = (ask: Partial<DecodeOptions> = {}): DecodeOptions => ({
  from: 0,
  before: Number.MAX_SAFE_INTEGER,
  committedOnly: false,
  aborted: [],
  blockBytes: 1024 * 1024,
  ...ask,
})

interface Shape {
  readonly codec?: Codec
  readonly base?: number
  readonly producer?: bigint
  readonly transactional?: boolean
  readonly control?: boolean /** Offsets that compaction has left, less the base. */
  readonly kept?: readonly number[]
}

/** A batch as a broker stores it: at its offset, and with the marks that our producer never sets. */
async function batch(entries: readonly Entry[], shape: Shape = {}): Promise<Buffer> {
  const writer = new RecordWriter(64)
  for (const entry of entries) writer.add(entry, 1_700_000_000_000)
  const encoded = await writer.seal(shape.codec ?? 'none')
  stampBatch(encoded, { id: shape.producer ?? -1n, epoch: 0 }, 0)
  const bytes = Buffer.concat(encoded)
  bytes.writeBigInt64BE(BigInt(shape.base ?? 0), 0)
  if (shape.transactional === true) bytes[22] = (bytes[22] ?? 0) | 16
  if (shape.control === true) bytes[22] = (bytes[22] ?? 0) | 32
  return sealed(bytes)
}
function sealed(bytes: Buffer): Buffer {
  bytes.writeUInt32BE(checksum([bytes.subarray(21)]), CRC_AT)
  return bytes
}

const texts = (from: number, count: number): Entry[] =>
  Array.from({ length: count }, (_, index) => ({ value: Buffer.from(`record ${from + index}`) }))
function marker(type: 'abort' | 'commit'): Entry {
  const key = Buffer.alloc(4)
  key.writeInt16BE(type === 'abort' ? 0 : 1, 2)
  return { key, value: Buffer.alloc(6) }
}
const entriesOf = (set: RecordSet): readonly Entry[] => new BlockBatch(set.blocks).entries()
const textsOf = (set: RecordSet): string[] => entriesOf(set).map(({ value }) => String(value))
const offsetsOf = (set: RecordSet): number[] => {
  const made = new BlockBatch(set.blocks)
  return made.entries().map((_, index) => made.offset(index))
}

describe('numbers of variable length', () => {
  it.each([
    [0, '00'],
    [-1, '01'],
    [1, '02'],
    [63, '7e'],
    [-64, '7f'],
    [64, '8001'],
    [300, 'd804'],
    [2147483647, 'feffffff0f'],
    [-2147483648, 'ffffffff0f'],
  ])('%d is %s', (value, hex) => {
    const bytes = Buffer.alloc(10)
    expect(bytes.toString('hex', 0, putVarint(bytes, 0, value))).toBe(hex)
    expect(new VarintReader(bytes, 0, 10).int()).toBe(value)
  })
  it('come back as they went, up to 2^52 either way', () => {
    fc.assert(
      fc.property(fc.integer({ min: -(2 ** 52), max: 2 ** 52 }), (value) => {
        const bytes = Buffer.alloc(10)
        const size = putVarint(bytes, 0, value)
        expect(size).toBe(varintSize(value))
        expect(new VarintReader(bytes, 0, size).long()).toBe(value)
      }),
    )
  })
})

/** As the RFC has it, bit by bit. */
function slowly(bytes: Buffer): number {
  let sum = -1
  for (const byte of bytes) {
    sum ^= byte
    for (let bit = 0; bit < 8; bit++) sum = (sum & 1) === 1 ? (sum >>> 1) ^ 0x82f63b78 : sum >>> 1
  }
  return ~sum >>> 0
}

describe('the checksum', () => {
  it('is CRC-32C: the examples of RFC 3720', () => {
    expect(checksum([Buffer.alloc(32)])).toBe(0x8a9136aa)
    expect(checksum([Buffer.alloc(32, 0xff)])).toBe(0x62a8ab43)
    expect(checksum([Buffer.from(Array.from({ length: 32 }, (_, index) => index))])).toBe(0x46dd794e)
    expect(checksum([Buffer.from('123456789')])).toBe(0xe3069283)
  })
  it.each([0, 1, 15, 16, 17, 4095, 4096, 8191, 8192, 8193, 12_287, 12_288, 20_500])(
    'of %d bytes is that of the definition',
    (length) => {
      const bytes = Buffer.from(Array.from({ length }, (_, index) => Math.imul(index + 1, 2654435761) >>> 24))
      expect(checksum([bytes])).toBe(slowly(bytes))
    },
  )
  it("is the same however the bytes are divided, beyond the module's memory too", () => {
    const bytes = Buffer.alloc(5 * 1024 * 1024, 'checksum me, please')
    expect(checksum([bytes.subarray(0, 7), bytes.subarray(7, 3_000_001), bytes.subarray(3_000_001)])).toBe(
      checksum([bytes]),
    )
  })
})

const header = fc.tuple(fc.string(), fc.option(fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes))))
const entry: fc.Arbitrary<Entry> = fc
  .record({
    value: fc.option(fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes))),
    key: fc.option(
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
      { nil: undefined },
    ),
    headers: fc.option(fc.array(header, { minLength: 1, maxLength: 4 }), { nil: undefined }),
    timestamp: fc.integer({ min: 0, max: Date.parse('9999-12-31') }),
  })
  .map(({ value, key, headers, timestamp }) => ({
    value,
    timestamp,
    ...(key === undefined ? {} : { key }),
    ...(headers === undefined ? {} : { headers }),
  }))

describe('a record batch', () => {
  it.each(CODECS)('gives back what was put in, with %s', async (codec) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(entry, { minLength: 1, maxLength: 60 }),
        fc.integer({ min: 0, max: 2 ** 50 }),
        async (entries, base) => {
          const set = await decodeRecordSet(await batch(entries, { codec, base }), all())
          expect(entriesOf(set)).toEqual(entries)
          expect(offsetsOf(set)).toEqual(entries.map((_, index) => base + index))
          expect(set.next).toBe(base + entries.length)
        },
      ),
      { numRuns: 40 },
    )
  })
  it.each(CODECS)('of lines is the batch of the same values as entries, with %s', async (codec) => {
    const values = Array.from({ length: 5000 }, (_, index) => `{"seq":${index},"pad":"${'x'.repeat(index % 300)}"}`)
    const writer = new RecordWriter(1024)
    const chunk = Buffer.from(values.map((value) => `${value}\n`).join(''))
    expect(writer.addLines(chunk, 0, 1_700_000_000_000, Infinity)).toBe(chunk.length)
    const encoded = await writer.seal(codec)
    stampBatch(encoded, nobody, -1)
    const set = await decodeRecordSet(Buffer.concat(encoded), all())
    expect(textsOf(set).join('\n')).toBe(values.join('\n'))
    expect(new Set(entriesOf(set).map(({ timestamp }) => timestamp))).toEqual(new Set([1_700_000_000_000]))
    expect(Buffer.concat(new BlockBatch(set.blocks).lines().chunks).equals(chunk)).toBe(true)
  })
  it('takes lines up to its size and says where the next one begins; one larger than that goes alone', async () => {
    const chunk = Buffer.from(`${'a'.repeat(500)}\n${'b'.repeat(10)}\n${'c'.repeat(10)}\n`)
    const first = new RecordWriter(64)
    const at = first.addLines(chunk, 0, 0, 200)
    expect([at, first.count]).toEqual([501, 1])
    const second = new RecordWriter(64)
    expect(second.addLines(chunk, at, 0, 200)).toBe(chunk.length)
    expect(second.count).toBe(2)
  })
  it('can be stamped again for another identity', async () => {
    const writer = new RecordWriter(64)
    writer.add({ value: Buffer.from('v') }, 1)
    const encoded = await writer.seal('lz4')
    stampBatch(encoded, { id: 7n, epoch: 1 }, 100)
    const before = Buffer.concat(encoded)
    stampBatch(encoded, { id: 8n, epoch: 0 }, 0)
    const after = Buffer.concat(encoded)
    expect(textsOf(await decodeRecordSet(before, all()))).toEqual(textsOf(await decodeRecordSet(after, all())))
    expect([
      before.readBigInt64BE(43),
      before.readInt16BE(51),
      before.readInt32BE(53),
      after.readBigInt64BE(43),
    ]).toEqual([7n, 1, 100, 8n])
  })
  it('carries headers of other protocols as text', async () => {
    const headers: (readonly [string, HeaderValue])[] = [
      ['s', 'text'],
      ['n', 1.5],
      ['b', true],
      ['i', 12345678901234567890n],
      ['z', null],
      ['r', Buffer.from([0, 255])],
    ]
    const set = await decodeRecordSet(await batch([{ value: null, headers }]), all())
    expect(
      entriesOf(set)[0]?.headers?.map(([name, value]) => [
        name,
        value === null ? null : (value as Buffer).toString('latin1'),
      ]),
    ).toEqual([
      ['s', 'text'],
      ['n', '1.5'],
      ['b', 'true'],
      ['i', '12345678901234567890'],
      ['z', null],
      ['r', '\u0000\u00ff'],
    ])
  })
  it('tells an empty key from none and an empty value from null', async () => {
    const entries = [
      { value: Buffer.alloc(0), timestamp: 5 },
      { value: null, key: Buffer.alloc(0), timestamp: 5 },
    ]
    expect(entriesOf(await decodeRecordSet(await batch(entries), all()))).toEqual(entries)
  })
  it("has the log's time in every record where that is what counts, and none where there is none", async () => {
    const bytes = await batch([
      { value: Buffer.from('a'), timestamp: 1000 },
      { value: Buffer.from('b'), timestamp: 2000 },
    ])
    bytes[22] = (bytes[22] ?? 0) | 8
    bytes.writeBigInt64BE(1_700_000_000_123n, 35)
    expect(entriesOf(await decodeRecordSet(sealed(bytes), all())).map(({ timestamp }) => timestamp)).toEqual([
      1_700_000_000_123, 1_700_000_000_123,
    ])
    const none = await batch([{ value: Buffer.from('a'), timestamp: 0 }])
    none.writeBigInt64BE(-1n, 27)
    expect(entriesOf(await decodeRecordSet(sealed(none), all()))[0]).toEqual({ value: Buffer.from('a') })
  })
})

describe('damage', () => {
  const entries = [
    ...texts(0, 3),
    { value: null, key: Buffer.from('key'), headers: [['h', Buffer.from('x')]] } as Entry,
  ]
  it.each(CODECS)('in any byte is refused, with %s', async (codec) => {
    const sound = await batch(entries, { codec, base: 1000 })
    for (let at = 0; at < sound.length; at++) {
      // The leader epoch is nobody's business, and base offsets are looked at below.
      if (at < 8 || (at >= 12 && at < 16)) continue
      for (const bit of [1, 0x80]) {
        const bytes = Buffer.from(sound)
        bytes[at] = (bytes[at] ?? 0) ^ bit
        const outcome = await decodeRecordSet(bytes, all({ from: 1000 })).then(
          (set) => ({ blocks: set.blocks.length, truncatedBytes: set.truncatedBytes > 0 }),
          (error: unknown) => error,
        )
        // A length that reaches beyond what is there looks like a batch that is cut off: asked for again, never taken.
        if (!(outcome instanceof Damaged || outcome instanceof Unreadable))
          expect({ at, outcome }).toEqual({ at, outcome: { blocks: 0, truncatedBytes: true } })
      }
    }
  })
  it('of a base offset shows where the offsets do not fit', async () => {
    const first = await batch(texts(0, 3), { base: 1000 })
    await expect(
      decodeRecordSet(Buffer.concat([first, await batch(texts(3, 3), { base: 1002 })]), all()),
    ).rejects.toThrow('not in order (1002 after 1002)')
    await expect(decodeRecordSet(first, all({ before: 1002 }))).rejects.toThrow('beyond the end of its partition')
    const negative = Buffer.from(first)
    negative[0] = 0x80
    await expect(decodeRecordSet(negative, all())).rejects.toThrow(Damaged)
  })
  it('inside records is found although the checksum fits', async () => {
    const sound = await batch(texts(0, 5))
    for (let at = 61; at < sound.length; at++) {
      for (const value of [0x00, 0x01, 0x7f, 0x80, 0xff]) {
        const bytes = Buffer.from(sound)
        bytes[at] = value
        const set = await decodeRecordSet(sealed(bytes), all()).catch((error: unknown) => error)
        if (set instanceof Error) {
          expect(set).toBeInstanceOf(Damaged)
          continue
        }
        const made = new BlockBatch((set as RecordSet).blocks)
        expect(made.entries()).toHaveLength(made.count)
        expect(made.lines().count + made.lines().refused.length).toBe(made.count)
      }
    }
  })
  it('random bytes are never taken for records', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), async (bytes) => {
        const outcome = await decodeRecordSet(Buffer.from(bytes), all()).catch((error: unknown) => error)
        if (!(outcome instanceof Damaged || outcome instanceof Unreadable))
          expect((outcome as RecordSet).blocks).toEqual([])
      }),
    )
  })
  it.each([0, 1])('messages of format %d are refused by name', async (magic) => {
    const bytes = Buffer.alloc(100)
    bytes.writeInt32BE(60, 8)
    bytes[16] = magic
    await expect(decodeRecordSet(bytes, all())).rejects.toThrow(`format ${magic}, of before Kafka 0.11`)
  })
})

describe('a record set', () => {
  it('is read up to a last batch that is cut off, which is asked for again', async () => {
    const first = await batch(texts(0, 3), { base: 10 })
    const second = await batch(texts(3, 3), { base: 13 })
    for (const cut of [1, 11, 12, 60, second.length - 1]) {
      const set = await decodeRecordSet(Buffer.concat([first, second.subarray(0, cut)]), all())
      expect([textsOf(set), set.next, set.truncatedBytes]).toEqual([['record 0', 'record 1', 'record 2'], 13, 0])
    }
    expect(await decodeRecordSet(second.subarray(0, 100), all({ from: 13 }))).toEqual({
      blocks: [],
      next: 13,
      truncatedBytes: second.length,
    })
    expect(await decodeRecordSet(Buffer.alloc(0), all({ from: 13 }))).toEqual({
      blocks: [],
      next: 13,
      truncatedBytes: 0,
    })
  })
  it('leaves out records below the asked offset, in plain and in compressed batches', async () => {
    for (const codec of CODECS) {
      const set = await decodeRecordSet(
        Buffer.concat([await batch(texts(0, 5), { base: 100, codec }), await batch(texts(5, 5), { base: 105, codec })]),
        all({ from: 103 }),
      )
      expect([textsOf(set), offsetsOf(set), set.next]).toEqual([
        ['record 3', 'record 4', 'record 5', 'record 6', 'record 7', 'record 8', 'record 9'],
        [103, 104, 105, 106, 107, 108, 109],
        110,
      ])
    }
  })
  it('is cut where reading is to end', async () => {
    const { blocks } = await decodeRecordSet(
      await batch(
        texts(0, 5).map((one) => ({ ...one, key: Buffer.from('k') })),
        { base: 100 },
      ),
      all({ from: 101 }),
    )
    const made = new BlockBatch(blocks.map((block) => block.below(103)).filter((block) => block !== undefined))
    expect([made.entries().map(({ value }) => String(value)), made.offset(1), made.bytes, made.lines().count]).toEqual([
      ['record 1', 'record 2'],
      102,
      18,
      2,
    ])
    expect(blocks[0]?.below(101)).toBeUndefined()
  })
  it('keeps the offsets of what compaction has left, and goes on beyond what it took', async () => {
    // Offsets 0, 4, 7 of a batch that once had ten records.
    const writer = new RecordWriter(64)
    for (const text of ['a', 'b', 'c']) writer.add({ value: Buffer.from(text) }, 1)
    const bytes = Buffer.concat(await writer.seal('none'))
    let at = 61
    for (const delta of [0, 4, 7]) {
      bytes[at + 3] = delta * 2
      at += 1 + (bytes[at] ?? 0) / 2
    }
    bytes.writeInt32BE(9, 23)
    bytes.writeBigInt64BE(50n, 0)
    const set = await decodeRecordSet(sealed(bytes), all())
    expect([textsOf(set), offsetsOf(set), set.next]).toEqual([['a', 'b', 'c'], [50, 54, 57], 60])
    expect(offsetsOf(await decodeRecordSet(bytes, all({ from: 51 })))).toEqual([54, 57])
    const empty = Buffer.from(bytes.subarray(0, 61))
    empty.writeInt32BE(0, 57)
    empty.writeInt32BE(49, 8)
    expect(await decodeRecordSet(sealed(empty), all({ from: 50 }))).toEqual({ blocks: [], next: 60, truncatedBytes: 0 })
  })
  it('leaves out what was aborted, and control batches, where only committed records are asked for', async () => {
    const at = (base: number, producer: bigint, from: number) =>
      batch(texts(from, 2), { base, producer, transactional: true })
    const mark = (base: number, producer: bigint, type: 'abort' | 'commit') =>
      batch([marker(type)], { base, producer, transactional: true, control: true })
    const records = Buffer.concat(
      await Promise.all([
        at(0, 1n, 0),
        at(2, 2n, 10),
        mark(4, 1n, 'commit'),
        at(5, 1n, 20),
        batch(texts(30, 1), { base: 7, producer: 1n }),
        mark(8, 2n, 'commit'),
        mark(9, 1n, 'abort'),
        at(10, 1n, 40),
        mark(12, 1n, 'commit'),
      ]),
    )
    const aborted = [{ producerId: 1n, firstOffset: 5 }]
    const committed = await decodeRecordSet(records, all({ committedOnly: true, aborted }))
    expect(textsOf(committed)).toEqual([
      'record 0',
      'record 1',
      'record 10',
      'record 11',
      'record 30',
      'record 40',
      'record 41',
    ])
    expect(committed.next).toBe(13)
    expect(textsOf(await decodeRecordSet(records, all()))).toHaveLength(9)
    // From within the aborted transaction: the list may lack it, and its marker is of no matter.
    const unlisted = Buffer.concat(await Promise.all([mark(9, 1n, 'abort'), at(10, 1n, 40)]))
    expect(textsOf(await decodeRecordSet(unlisted, all({ from: 9, committedOnly: true })))).toEqual([
      'record 40',
      'record 41',
    ])
  })
  it('takes the list of aborted transactions in any order', async () => {
    const records = Buffer.concat(
      await Promise.all([
        batch(texts(0, 1), { base: 0, producer: 1n, transactional: true }),
        batch(texts(1, 1), { base: 1, producer: 2n, transactional: true }),
        batch(texts(2, 1), { base: 2, producer: 3n, transactional: true }),
      ]),
    )
    expect(
      textsOf(
        await decodeRecordSet(
          records,
          all({
            committedOnly: true,
            aborted: [
              { producerId: 2n, firstOffset: 1 },
              { producerId: 1n, firstOffset: 0 },
            ],
          }),
        ),
      ),
    ).toEqual(['record 2'])
  })
  it('is cut into blocks of about the asked size, with the right offsets in each', async () => {
    const set = await decodeRecordSet(
      await batch(texts(0, 1000), { base: 7, codec: 'gzip' }),
      all({ blockBytes: 1000 }),
    )
    expect(set.blocks.length).toBeGreaterThan(5)
    expect(offsetsOf(set)).toEqual(Array.from({ length: 1000 }, (_, index) => 7 + index))
    expect(textsOf(set)).toEqual(texts(0, 1000).map(({ value }) => String(value)))
    expect(new BlockBatch(set.blocks.slice(1, 2)).entries()[0]?.value?.toString()).toBe(
      `record ${set.blocks[0]?.count ?? 0}`,
    )
  })
})

describe('lines of blocks', () => {
  it('are made in memory that is used again only when it was given back', async () => {
    const memory = new BufferPool()
    const made = async (from: number) =>
      new BlockBatch((await decodeRecordSet(await batch(texts(from, 3)), all())).blocks, memory)
    const [one, two] = [await made(0), await made(10)]
    const text = (of: BlockBatch): string => Buffer.concat(of.lines().chunks).toString()
    expect([text(one), text(two), text(one)]).toEqual([
      'record 0\nrecord 1\nrecord 2\n',
      'record 10\nrecord 11\nrecord 12\n',
      'record 0\nrecord 1\nrecord 2\n',
    ])
    const where = one.lines().chunks[0]?.buffer
    one.release()
    one.release()
    const [three, four] = [await made(20), await made(30)]
    expect([three.lines().chunks[0]?.buffer === where, four.lines().chunks[0]?.buffer === where]).toEqual([true, false])
    expect([text(two), text(three)]).toEqual(['record 10\nrecord 11\nrecord 12\n', 'record 20\nrecord 21\nrecord 22\n'])
  })
  const value = fc.option(
    fc.oneof(
      fc.string().map((text) => Buffer.from(text)),
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
      fc.constantFrom('', '\n', '\n\n', 'a\n', '\na', 'a\nb\n').map((text) => Buffer.from(text)),
    ),
  )
  it('are those of the same entries: newlines inside and nulls refused, one newline at the end taken as the terminator', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(value, { minLength: 1, maxLength: 50 }), async (values) => {
        const entries = values.map((each): Entry => ({ value: each, timestamp: 1 }))
        const made = new BlockBatch((await decodeRecordSet(await batch(entries), all({ blockBytes: 50 }))).blocks)
        const expected = new EntryBatch(entries, 0)
        const { chunks, ...facts } = made.lines()
        const { chunks: theirs, ...theirFacts } = expected.lines()
        expect([Buffer.concat(chunks), facts]).toEqual([Buffer.concat(theirs), theirFacts])
        expect([made.count, made.bytes]).toEqual([expected.count, expected.bytes])
      }),
    )
  })
})
