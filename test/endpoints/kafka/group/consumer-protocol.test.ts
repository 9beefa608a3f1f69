/** What members of a group tell each other, byte for byte. */
import fc from 'fast-check'
import {
  decodeAssignment,
  decodeSubscription,
  encodeAssignment,
  encodeSubscription,
  keyOf,
} from '../../../../src/endpoints/kafka/group/consumer-protocol'

const topic = fc.stringMatching(/^[a-z._-]{1,20}$/)
const partitions = fc.uniqueArray(fc.record({ topic, partition: fc.nat({ max: 1000 }) }), {
  selector: keyOf,
  maxLength: 20,
})
const subscription = fc.record(
  {
    topics: fc.uniqueArray(topic),
    owned: partitions,
    generation: fc.integer({ min: -1, max: 2 ** 31 - 1 }),
    rack: fc.string({ minLength: 1 }),
  },
  { requiredKeys: ['topics', 'owned', 'generation'] },
)

describe('the consumer protocol', () => {
  test('a subscription reads back as it was written', () => {
    fc.assert(
      fc.property(subscription, (given) => {
        const read = decodeSubscription(encodeSubscription(given))
        expect({ ...read, owned: read.owned.map(keyOf).sort() }).toEqual({
          ...given,
          topics: [...given.topics].sort(),
          owned: given.owned.map(keyOf).sort(),
        })
      }),
    )
  })

  test('an assignment reads back as it was written; none at all is an empty one', () => {
    fc.assert(
      fc.property(partitions, (given) => {
        expect(decodeAssignment(encodeAssignment(given)).map(keyOf).sort()).toEqual(given.map(keyOf).sort())
      }),
    )
    expect(decodeAssignment(Buffer.alloc(0))).toEqual([])
  })

  test('the same subscription has the same bytes, in whatever order it is given', () => {
    fc.assert(
      fc.property(subscription, (given) => {
        expect(
          encodeSubscription({ ...given, topics: given.topics.toReversed(), owned: given.owned.toReversed() }),
        ).toEqual(encodeSubscription(given))
      }),
    )
  })

  test('has the layout of ConsumerProtocolSubscription version 3, with the generation in the user data as well', () => {
    expect(
      encodeSubscription({
        topics: ['t'],
        owned: [
          { topic: 't', partition: 2 },
          { topic: 't', partition: 1 },
        ],
        generation: 7,
        rack: 'r',
      }).toString('hex'),
    ).toBe(
      [
        '0003',
        '00000001',
        '000174',
        '00000004',
        '00000007',
        '00000001',
        '000174',
        '00000002',
        '00000001',
        '00000002',
        '00000007',
        '000172',
      ].join(''),
    )
    expect(encodeSubscription({ topics: [], owned: [], generation: -1 }).toString('hex')).toBe(
      ['0003', '00000000', '00000004', 'ffffffff', '00000000', 'ffffffff', 'ffff'].join(''),
    )
  })

  test.each([
    ['version 0', '0000 00000001 000174 ffffffff', { topics: ['t'], owned: [], generation: -1 }],
    [
      'version 1, the generation in the user data',
      '0001 00000001 000174 00000004 00000009 00000001 000174 00000001 00000003',
      { topics: ['t'], owned: [{ topic: 't', partition: 3 }], generation: 9 },
    ],
    [
      'version 1, with user data of another assignor',
      '0001 00000000 00000002 0909 00000000',
      { topics: [], owned: [], generation: -1 },
    ],
    ['version 2', '0002 00000001 000174 ffffffff 00000000 00000004', { topics: ['t'], owned: [], generation: 4 }],
    [
      'a version to come',
      '0009 00000001 000174 ffffffff 00000000 00000004 ffff 0102030405',
      { topics: ['t'], owned: [], generation: 4 },
    ],
  ])('reads %s', (_, hex, expected) => {
    expect(decodeSubscription(Buffer.from(hex.replaceAll(' ', ''), 'hex'))).toEqual(expected)
  })

  test('bytes that end early or lie about their length are refused at once', () => {
    const whole = encodeSubscription({ topics: ['topic'], owned: [{ topic: 'topic', partition: 1 }], generation: 1 })
    for (let length = 0; length < whole.length; length++)
      expect(() => decodeSubscription(whole.subarray(0, length))).toThrow(
        /^Attempt to access memory|^The value of "offset" is out of range|^a list of|^\d+ bytes where/,
      )
    expect(() => decodeSubscription(Buffer.from('00037fffffff', 'hex'))).toThrow(
      /^Attempt to access memory|^The value of "offset" is out of range|^a list of|^\d+ bytes where/,
    )
  })
})
