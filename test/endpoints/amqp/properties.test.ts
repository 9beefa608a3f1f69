/**
 * Tests messages as records: nothing is lost between two brokers, through an envelope, or through a destination whose
 * headers are bytes.
 */
import fc from 'fast-check'
import { decodeEnvelope, encodeEnvelope } from '../../../src/codec/envelope'
import type { Entry } from '../../../src/core/contract'
import { entryOf, propertiesOf } from '../../../src/endpoints/amqp/properties'
import { Message } from '../../../src/endpoints/amqp/deliveries'
import { decodeTable, encodeTable } from '../../../src/endpoints/amqp/table'

const NONE = Buffer.alloc(0)
const short = (text: string): Buffer => Buffer.concat([Buffer.from([Buffer.byteLength(text)]), Buffer.from(text)])
const long = (letter: string, bytes: Buffer): Buffer => {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([Buffer.from(letter), length, bytes])
}
const field = (name: string, value: Buffer): Buffer => Buffer.concat([short(name), value])
const fixed = (letter: string, size: number, write: (out: Buffer) => void): Buffer => {
  const out = Buffer.alloc(1 + size)
  out.write(letter)
  write(out)
  return out
}

const VALUES: readonly (readonly [name: string, value: Buffer])[] = [
  ['text', long('S', Buffer.from('größe'))],
  ['text that is none', long('S', Buffer.from([0xff, 0x00, 0xc3]))],
  ['bytes', long('x', Buffer.from([0xff, 1, 2]))],
  ['bytes that are text', long('x', Buffer.from('abc'))],
  ['empty', long('S', NONE)],
  ['b', fixed('b', 1, (out) => out.writeInt8(-5, 1))],
  ['B', fixed('B', 1, (out) => out.writeUInt8(250, 1))],
  ['s', fixed('s', 2, (out) => out.writeInt16BE(-300, 1))],
  ['u', fixed('u', 2, (out) => out.writeUInt16BE(65_000, 1))],
  ['I', fixed('I', 4, (out) => out.writeInt32BE(7, 1))],
  ['i', fixed('i', 4, (out) => out.writeUInt32BE(4_000_000_000, 1))],
  ['l', fixed('l', 8, (out) => out.writeBigInt64BE(9_007_199_254_740_993n, 1))],
  ['small l', fixed('l', 8, (out) => out.writeBigInt64BE(1n, 1))],
  ['f', fixed('f', 4, (out) => out.writeFloatBE(1.1, 1))],
  ['d', fixed('d', 8, (out) => out.writeDoubleBE(3, 1))],
  ['nan', fixed('d', 8, (out) => out.writeDoubleBE(NaN, 1))],
  ['-0', fixed('d', 8, (out) => out.writeDoubleBE(-0, 1))],
  ['T', fixed('T', 8, (out) => out.writeBigUInt64BE(1_700_000_000n, 1))],
  [
    'D',
    fixed('D', 5, (out) => {
      out.writeUInt8(2, 1)
      out.writeUInt32BE(12_345, 2)
    }),
  ],
  ['yes', Buffer.from('t\x01')],
  ['no', Buffer.from('t\0')],
  ['nothing', Buffer.from('V')],
]
const NESTED = [
  field('list', long('A', Buffer.concat(VALUES.map(([, value]) => value)))),
  field('table', long('F', Buffer.concat(VALUES.map(([name, value]) => field(name, value))))),
  field(
    'x-death',
    long(
      'A',
      long(
        'F',
        Buffer.concat([
          field('count', VALUES.find(([name]) => name === 'small l')![1]),
          field('time', VALUES.find(([name]) => name === 'T')![1]),
          field('routing-keys', long('A', VALUES[0]![1])),
        ]),
      ),
    ),
  ),
  field('!', long('F', field('!', long('S', Buffer.from('l'))))),
]
const TABLE = Buffer.concat([...VALUES.map(([name, value]) => field(name, value)), ...NESTED])

/** All fourteen, as they lie on the wire. */
function properties(table: Buffer): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(table.length)
  const timestamp = Buffer.alloc(8)
  timestamp.writeBigUInt64BE(1_700_000_001n)
  return Buffer.concat([
    Buffer.from([0xff, 0xfc]),
    short('application/json'),
    short('gzip'),
    length,
    table,
    Buffer.from([2]),
    Buffer.from([9]),
    short('correlation'),
    short('reply.to'),
    short('60000'),
    short('id-1'),
    timestamp,
    short('order'),
    short('guest'),
    short('app'),
    short('cluster'),
  ])
}
const message = (table: Buffer): { body: Buffer; routingKey: Buffer; exchange: Buffer; properties: Buffer } => ({
  body: Buffer.from('value'),
  routingKey: Buffer.from('a.b'),
  exchange: Buffer.from('events'),
  properties: properties(table),
})
const again = (entry: Entry): Buffer => propertiesOf(entry, { persistent: 'keep', user: 'guest' }, 'not taken')
/** The headers as a destination returns them whose headers are bytes, such as Kafka. */
function asBytes(entry: Entry): Entry {
  return {
    ...entry,
    headers: entry.headers!.map(
      ([name, value]) =>
        [
          name,
          Buffer.isBuffer(value)
            ? value
            : Buffer.from(value === null ? '' : Object.is(value, -0) ? '-0' : String(value)),
        ] as const,
    ),
  }
}
function throughEnvelope(entry: Entry): Entry {
  const decoded = decodeEnvelope(Buffer.from(encodeEnvelope(entry).slice(0, -1)))
  if (!('entry' in decoded)) throw new Error(decoded.why)
  return decoded.entry
}

describe('a message as a record', () => {
  test('tells its properties by name, its key, its time and its headers as they are', () => {
    const { headers, ...rest } = entryOf(
      message(
        field(
          'n',
          fixed('I', 4, (out) => out.writeInt32BE(7, 1)),
        ),
      ),
    )
    expect(rest).toEqual({ value: Buffer.from('value'), key: Buffer.from('a.b'), timestamp: 1_700_000_001_000 })
    expect(headers).toEqual([
      ['amqp.content-type', 'application/json'],
      ['amqp.content-encoding', 'gzip'],
      ['n', 7],
      ['amqp.types', '{"n":"I"}'],
      ['amqp.priority', 9],
      ['amqp.correlation-id', 'correlation'],
      ['amqp.reply-to', 'reply.to'],
      ['amqp.expiration', '60000'],
      ['amqp.message-id', 'id-1'],
      ['amqp.type', 'order'],
      ['amqp.user-id', 'guest'],
      ['amqp.app-id', 'app'],
      ['amqp.cluster-id', 'cluster'],
      ['amqp.exchange', 'events'],
    ])
  })

  test.each([
    ['as it is', (entry: Entry) => entry],
    ['by way of an envelope', throughEnvelope],
    ['by way of headers that are bytes', asBytes],
    ['by way of both', (entry: Entry) => throughEnvelope(asBytes(entry))],
  ])('comes back with every property and every type of header: %s', (_way, way) => {
    expect(again(way(entryOf(message(TABLE)))).toString('hex')).toBe(properties(TABLE).toString('hex'))
  })

  test("a queue's name under the default exchange is no key; a key of its own travels beside it, byte by byte", () => {
    const addressed = {
      ...message(NONE),
      exchange: NONE,
      routingKey: Buffer.from('jobs'),
      properties: Buffer.from([0x10, 0, 2]),
    }
    expect(entryOf(addressed)).toEqual({ value: addressed.body, headers: [['amqp.routing-key', 'jobs']] })
    for (const key of [NONE, Buffer.from('ключ'), Buffer.from([0xff, 0, 1])]) {
      const sent = propertiesOf({ value: addressed.body, key }, { persistent: 'true' }, undefined, key)
      expect(entryOf({ ...addressed, properties: sent })).toEqual({
        value: addressed.body,
        key,
        headers: [['amqp.routing-key', 'jobs']],
      })
      expect(propertiesOf(entryOf({ ...addressed, properties: sent }), { persistent: 'true' }, undefined)).toEqual(
        addressed.properties,
      )
    }
  })

  test("a key wins over a header of its name that the record brings; one that is no text is the message's own", () => {
    const read = (entry: Entry, key?: Buffer): Entry =>
      entryOf({
        ...message(NONE),
        exchange: NONE,
        routingKey: NONE,
        properties: propertiesOf(entry, { persistent: 'true' }, undefined, key),
      })
    const value = Buffer.from('value')
    const key = Buffer.from('mine')
    expect(read({ value, key, headers: [['manifold-key', 'theirs']] }, key)).toEqual({ value, key })
    // The routing key is the record's key, which a header would take the place of.
    expect(read({ value, key, headers: [['manifold-key', 'theirs']] })).toEqual({ value })
    const number = { value, headers: [['manifold-key', 5]] } satisfies Entry
    expect(read(number)).toEqual({
      value,
      headers: [
        ['manifold-key', 5],
        ['amqp.types', '{"manifold-key":"I"}'],
      ],
    })
    expect(read(read(number))).toEqual(read(number))
  })

  test.each([
    ['', 'jobs', true],
    ['', 'jobs2', false],
    ['', 'job', false],
    ['', 'jobz', false],
    ['', '', false],
    ['events', 'jobs', false],
  ])(
    "through exchange '%s' with routing key '%s' a message came by the name of queue jobs: %s",
    (exchange, key, expected) => {
      const frame = Buffer.concat([Buffer.from('..'), short(exchange), short(key)])
      expect(new Message(frame, 2, 1, false).isAddressedTo(Buffer.from('jobs'))).toBe(expected)
    },
  )

  test('a header may be called what every object has', () => {
    const five = fixed('l', 8, (out) => out.writeBigInt64BE(5n, 1))
    const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty']
    for (const table of [
      ...names.map((each) => field(each, five)),
      ...names.map((each) => field(each, long('S', Buffer.from('text')))),
      ...names.map((each) => field('table', long('F', field(each, five)))),
    ]) {
      expect(again(asBytes(entryOf(message(table)))).toString('latin1')).toBe(properties(table).toString('latin1'))
    }
  })

  test('any text and any integer of 64 bits in a header comes back', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(
            fc.string({ unit: 'grapheme', maxLength: 20 }),
            fc.oneof(
              fc.string({ unit: 'grapheme' }).map((text) => long('S', Buffer.from(text))),
              fc
                .bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n })
                .map((n) => fixed('l', 8, (out) => out.writeBigInt64BE(n, 1))),
              fc.uint8Array().map((bytes) => long('x', Buffer.from(bytes))),
            ),
          ),
          { maxLength: 6 },
        ),
        (members) => {
          const names = new Set(members.map(([each]) => each))
          fc.pre(
            names.size === members.length &&
              ![...names].some((each) => each.startsWith('amqp.') || Buffer.byteLength(each) > 255),
          )
          const table = Buffer.concat(members.map(([each, value]) => field(each, value)))
          expect(encodeTable(decodeTable(table)).equals(table)).toBe(true)
          expect(
            again(asBytes(entryOf(message(table)))).equals(
              table.length === 0 ? again(entryOf(message(table))) : properties(table),
            ),
          ).toBe(true)
        },
      ),
    )
  })

  test('a header whose value was changed on the way is sent as what it is now', () => {
    const entry = entryOf(
      message(
        field(
          'n',
          fixed('I', 4, (out) => out.writeInt32BE(7, 1)),
        ),
      ),
    )
    const changed = {
      ...entry,
      headers: entry.headers!.map(([name, value]) => [name, name === 'n' ? 'seven' : value] as const),
    }
    expect(entryOf({ ...message(NONE), properties: again(changed) }).headers).toContainEqual(['n', 'seven'])
  })

  test('properties that nobody can read are kept as bytes, and the record goes on', () => {
    const entry = entryOf({
      ...message(NONE),
      properties: Buffer.from([0x20, 0x00, 0x00, 0x00, 0x00, 0x05, 1, 0x61, 0x3f, 0, 0]),
    })
    expect(entry.headers).toEqual([
      ['amqp.properties', Buffer.from([0x20, 0x00, 0x00, 0x00, 0x00, 0x05, 1, 0x61, 0x3f, 0, 0])],
      ['amqp.delivery-mode', 1],
      ['amqp.exchange', 'events'],
    ])
  })
})

describe('a record as a message', () => {
  const headersOf = (
    entry: Entry,
    fixedBy: Partial<Parameters<typeof propertiesOf>[1]> = {},
    id?: string,
  ): Entry['headers'] =>
    entryOf({
      ...message(NONE),
      exchange: NONE,
      routingKey: NONE,
      properties: propertiesOf(entry, { persistent: 'true', ...fixedBy }, id),
    }).headers
  const value = Buffer.from('v')

  test('has the id that it brings, else the one that is given', () => {
    expect(headersOf({ value }, {}, 'given')).toEqual([['amqp.message-id', 'given']])
    expect(headersOf({ value, headers: [['amqp.message-id', Buffer.from('brought')]] }, {}, 'given')).toEqual([
      ['amqp.message-id', 'brought'],
    ])
  })

  test('what the options say wins; persistent unless told otherwise', () => {
    expect(
      headersOf(
        {
          value,
          headers: [
            ['amqp.content-type', 'a/b'],
            ['amqp.delivery-mode', 1],
            ['amqp.priority', 1],
          ],
        },
        { contentType: 'text/plain', priority: 4, expiration: 1000 },
      ),
    ).toEqual([
      ['amqp.content-type', 'text/plain'],
      ['amqp.priority', 4],
      ['amqp.expiration', '1000'],
    ])
    expect(headersOf({ value, headers: [['amqp.delivery-mode', 1]] }, { persistent: 'keep' })).toEqual([
      ['amqp.delivery-mode', 1],
    ])
    expect(headersOf({ value }, { persistent: 'keep' })).toBeUndefined()
    expect(headersOf({ value }, { persistent: 'false' })).toEqual([['amqp.delivery-mode', 1]])
  })

  test("another user's id is kept as a header, for the broker refuses it as a property", () => {
    expect(headersOf({ value, headers: [['amqp.user-id', 'alice']] }, { user: 'bob' })).toEqual([
      ['amqp.user-id', 'alice'],
    ])
    const properties = propertiesOf(
      { value, headers: [['amqp.user-id', 'alice']] },
      { persistent: 'true', user: 'bob' },
      undefined,
    )
    // Headers and delivery mode are all there is.
    expect(properties.readUInt16BE(0)).toBe(0x3000)
  })

  test.each([
    ['a name of a header', { headers: [['n'.repeat(256), 'v']] }, /the header name "n+"… is longer than 255 bytes/],
    ['a property', { headers: [['amqp.type', 'x'.repeat(256)]] }, /its type is longer than 255 bytes/],
    ['an expiration', { headers: [['amqp.expiration', 'soon']] }, /its expiration is no number/],
    ['a priority', { headers: [['amqp.priority', 1000]] }, /its priority is no number from 0 to 255/],
  ] as const)('%s that no message can hold is told of', (_what, more, why) => {
    expect(() => propertiesOf({ value, ...more }, { persistent: 'true' }, undefined)).toThrow(why)
  })

  test('what the broker wrote into headers as it delivered is not published again', () => {
    expect(
      headersOf({
        value,
        headers: [
          ['x-delivery-count', 3],
          ['x-stream-offset', 17],
          ['mine', 1],
        ],
      }),
    ).toEqual([
      ['mine', 1],
      ['amqp.types', '{"mine":"I"}'],
    ])
  })

  test('a record without a value is a message without body that says so, and comes back as it was; an empty value stays one', () => {
    const back = (entry: Entry): Entry =>
      entryOf({
        ...message(NONE),
        exchange: NONE,
        routingKey: NONE,
        body: entry.value ?? NONE,
        properties: propertiesOf(entry, { persistent: 'true' }, undefined),
      })
    expect(back({ value: null, headers: [['mine', 'x']] })).toEqual({ value: null, headers: [['mine', 'x']] })
    expect(back({ value: NONE })).toEqual({ value: NONE })
    // The header of a message that has a body says nothing.
    expect(
      entryOf({ ...message(NONE), properties: propertiesOf({ value: null }, { persistent: 'true' }, undefined) }).value,
    ).toEqual(Buffer.from('value'))
  })

  test('milliseconds of a time are kept where the property has seconds, unless somebody has set another time since', () => {
    const properties = propertiesOf({ value, timestamp: 1_700_000_000_123 }, { persistent: 'true' }, undefined)
    expect(entryOf({ ...message(NONE), properties })).toMatchObject({
      timestamp: 1_700_000_000_123,
      headers: expect.arrayContaining([['timestamp_in_ms', 1_700_000_000_123]]) as unknown,
    })
    const sentOn = propertiesOf({ ...entryOf({ ...message(NONE), properties }) }, { persistent: 'true' }, undefined)
    expect(sentOn.equals(properties)).toBe(true)
    const changed = propertiesOf(
      { value, timestamp: 1_800_000_000_000, headers: [['timestamp_in_ms', 1_700_000_000_123]] },
      { persistent: 'true' },
      undefined,
    )
    expect(entryOf({ ...message(NONE), properties: changed }).timestamp).toBe(1_800_000_000_000)
    expect(headersOf({ value, timestamp: 1_700_000_000_000 })).toBeUndefined()
  })

  test.each([2n ** 64n - 1n, 2n ** 63n, 2n ** 64n - 86_400n, 2n ** 63n - 1n, 0n, 9_007_199_254_740n])(
    'a timestamp of %s seconds passes unchanged',
    (seconds) => {
      const bytes = Buffer.alloc(10)
      bytes.writeUInt16BE(0x40, 0)
      bytes.writeBigUInt64BE(seconds, 2)
      const entry = entryOf({ ...message(NONE), properties: bytes })
      for (const each of [entry, throughEnvelope(entry)]) {
        const written = propertiesOf(each, { persistent: 'keep' }, undefined)
        expect(entryOf({ ...message(NONE), properties: written })).toEqual(entry)
        expect(written.subarray(-8).readBigUInt64BE()).toBe(seconds)
      }
    },
  )

  test('a time before 1970 is kept, and one that is none is refused', () => {
    const earlier = propertiesOf({ value, timestamp: -1500 }, { persistent: 'true' }, undefined)
    expect(entryOf({ ...message(NONE), properties: earlier }).timestamp).toBe(-1500)
    for (const timestamp of [2 ** 63, Infinity, -1e300])
      expect(() => propertiesOf({ value, timestamp }, { persistent: 'true' }, undefined)).toThrow(RangeError)
  })
})
