/** Partition keys of records that have no key of their own, such as those of a RabbitMQ queue. */
import { keyFunction } from '../../../src/endpoints/kinesis/produce/partition-keys'

const value = Buffer.from('{"a":1}')

test.each([[undefined], ['{key}']])(
  "partition-key=%s: the record's own key, and for one without any a random one",
  (partitionKey) => {
    const keyed = keyFunction({ partitionKey, explicitHashKey: undefined })
    expect(keyed({ value, key: Buffer.from('mine') })).toEqual({ partitionKey: 'mine' })
    const [one, other] = [keyed({ value }), keyed({ value, key: Buffer.alloc(0) })]
    for (const { partitionKey: made } of [one, other]) expect(made).toMatch(/^[0-9a-f]{16}$/)
    expect(one).not.toEqual(other)
  },
)

test('a key that is part of another text is asked for', () => {
  const keyed = keyFunction({ partitionKey: 'x-{key}', explicitHashKey: undefined })
  expect(keyed({ value, key: Buffer.from('1') })).toEqual({ partitionKey: 'x-1' })
  expect(() => keyed({ value })).toThrow('it has no key, which the partition key asks for')
  const hashed = keyFunction({ partitionKey: '{key}', explicitHashKey: '{key}' })
  expect(() => hashed({ value })).toThrow('it has no key, which the explicit hash key asks for')
})
