/** Aggregates against an independent encoder and de-aggregator (aws-kinesis-agg), and against whatever is none. */
import fc from 'fast-check'
import { Aggregate, disaggregate, type UserRecord } from '../../../src/endpoints/kinesis/aggregate'
import { aggregate as foreignAggregate, deaggregate as foreignRead } from './foreign'

function ours(records: readonly UserRecord[]): Buffer {
  const aggregate = new Aggregate()
  for (const record of records) aggregate.add(record)
  return aggregate.encode()
}

const key = fc.string({ minLength: 1, maxLength: 40, unit: 'binary' }).filter((text) => !/[\ud800-\udfff]/.test(text))
const record = fc
  .record({
    partitionKey: key,
    data: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    explicitHashKey: fc.option(fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }).map(String), { nil: undefined }),
  })
  .map(
    ({ explicitHashKey, ...rest }): UserRecord => (explicitHashKey === undefined ? rest : { ...rest, explicitHashKey }),
  )

/** No hash that is an array index: the independent encoder gives such ones the wrong place in its table. */
const some: readonly UserRecord[] = [
  { partitionKey: 'one', data: Buffer.from('first') },
  {
    partitionKey: 'two',
    explicitHashKey: '340282366920938463463374607431768211455',
    data: Buffer.from([0, 1, 0, 255, 10, 0]),
  },
  { partitionKey: 'one', data: Buffer.alloc(0) },
  {
    partitionKey: 'ünïcode ☃',
    explicitHashKey: '170141183460469231731687303715884105728',
    data: Buffer.alloc(70_000, 7),
  },
]

test('what an independent encoder made is read exactly: keys, hashes, NULs, empty data', () => {
  expect(disaggregate(foreignAggregate(some))).toEqual(some)
})

test('what was made here is read exactly by an independent de-aggregator', () => {
  expect(foreignRead(ours(some)).map(({ partitionKey, data }) => [partitionKey, data])).toEqual(
    some.map(({ partitionKey, data }) => [partitionKey, data]),
  )
})

test('thousands of records under few keys come out in their order, from either side', () => {
  const many = Array.from({ length: 5000 }, (_, index) => ({
    partitionKey: `key ${index % 7}`,
    data: Buffer.from(`record ${index}`),
  }))
  expect(disaggregate(foreignAggregate(many))).toEqual(many)
  expect(foreignRead(ours(many)).map(({ data }) => String(data))).toEqual(many.map(({ data }) => String(data)))
})

test('any records come back as they were, and the size that was told is enough', () => {
  fc.assert(
    fc.property(fc.array(record, { minLength: 1, maxLength: 50 }), (records) => {
      const aggregate = new Aggregate()
      for (const each of records) aggregate.add(each)
      const encoded = aggregate.encode()
      expect(encoded.length).toBeLessThanOrEqual(aggregate.size)
      expect(disaggregate(encoded)).toEqual(records)
    }),
  )
})

test('an aggregate with any one bit changed is passed as it is', () => {
  const whole = ours(some.slice(0, 3))
  fc.assert(
    fc.property(fc.nat(whole.length * 8 - 1), (bit) => {
      const changed = Buffer.from(whole)
      changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
      expect(disaggregate(changed)).toBeUndefined()
    }),
  )
})

test('nothing that only looks like one makes it throw', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, signed) => {
      const { createHash } = jest.requireActual<typeof import('node:crypto')>('node:crypto')
      const body = Buffer.from(bytes)
      const data = Buffer.concat([
        Buffer.from([0xf3, 0x89, 0x9a, 0xc2]),
        body,
        signed ? createHash('md5').update(body).digest() : Buffer.alloc(16),
      ])
      const found = disaggregate(data)
      if (!signed) expect(found).toBeUndefined()
    }),
    { numRuns: 2000 },
  )
})

test('data are views into the aggregate, not copies', () => {
  const encoded = ours([{ partitionKey: 'k', data: Buffer.from('as it lies') }])
  expect(disaggregate(encoded)?.[0]?.data.buffer).toBe(encoded.buffer)
})
