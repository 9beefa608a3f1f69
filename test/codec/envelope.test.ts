import * as fc from 'fast-check'
import { createHash } from 'node:crypto'
import { decodeEnvelope, encodeDeadLetter, encodeEnvelope, envelopeBytes } from '../../src/codec/envelope'
import { createFramer, render, type Framed } from '../../src/codec/framing'
import { EntryBatch, LineBatch } from '../../src/core/batch'
import type { Entry } from '../../src/core/contract'

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 60 }).map((array) => Buffer.from(array)),
  fc.string({ unit: 'binary' }).map((text) => Buffer.from(text)),
  fc.constantFrom('', '\n', '\0', 'a\nb\n', '\u2028', '\uFEFFx').map((text) => Buffer.from(text)),
  fc.constantFrom('ff', 'eda080', 'c0af', '00ff0a').map((hex) => Buffer.from(hex, 'hex')),
)
const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('\ud800', 'a\udc00b', '\n', '\0', '__proto__', 'utf8'),
)
const header = fc.oneof(
  bytes,
  text,
  fc.double(),
  fc.integer(),
  fc.bigInt(),
  fc.boolean(),
  fc.constant(null),
  fc.constantFrom(NaN, -0, Infinity, -Infinity, 2 ** 60),
)
const entry: fc.Arbitrary<Entry> = fc.record(
  {
    value: fc.option(bytes),
    key: bytes,
    headers: fc.array(fc.tuple(text, header), { maxLength: 4 }),
    timestamp: fc.oneof(
      fc.integer(),
      fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => number + 0),
    ),
  },
  { requiredKeys: ['value'] },
)

function decoded(line: Buffer): Entry {
  expect(line.indexOf(10)).toBe(line.length - 1)
  const made = decodeEnvelope(line.subarray(0, -1))
  if ('why' in made) throw new Error(made.why)
  return made.entry
}

test('an entry comes back as it was, whatever its bytes and header types', () => {
  fc.assert(
    fc.property(entry, text, (original, name) => {
      const line = Buffer.from(encodeEnvelope(original, { source: name, partition: name, position: name }))
      expect(decoded(line)).toEqual(original)
    }),
    { numRuns: 2000 },
  )
})

test('an envelope says where its record came from, in names anyone can read', () => {
  expect(
    JSON.parse(
      encodeEnvelope(
        {
          value: Buffer.from('v'),
          key: Buffer.from([255]),
          headers: [
            ['h', 'x'],
            ['b', Buffer.from('y')],
            ['n', 5n],
          ],
          timestamp: 7,
        },
        { source: 's', partition: 'p', position: '9' },
      ),
    ),
  ).toEqual({
    value: 'v',
    key_base64: '/w==',
    headers: [
      ['h', 'x'],
      ['b', { utf8: 'y' }],
      ['n', { bigint: '5' }],
    ],
    timestamp: 7,
    source: 's',
    partition: 'p',
    position: '9',
  })
})

test('an envelope never outgrows the line that a reader allows for its value', () => {
  for (const byte of [0, 1, 0x0a, 0x22, 0x5c, 0x61, 0x7f, 0xff]) {
    for (const length of [0, 1, 100, 1_000_000])
      expect(encodeEnvelope({ value: Buffer.alloc(length, byte) }).length).toBeLessThan(envelopeBytes(length))
  }
})

test('a dead letter is an ordinary entry when it is read again', () => {
  fc.assert(
    fc.property(entry, (original) => {
      const line = encodeDeadLetter({
        source: 's',
        partition: 'p',
        position: '1',
        sink: 'k',
        why: 'a "reason"\n',
        attempts: 3,
        receivedAt: 0,
        record: { entry: original },
      })
      expect(decoded(line)).toEqual(original)
      expect(JSON.parse(line.toString())).toMatchObject({
        source: 's',
        partition: 'p',
        position: '1',
        sink: 'k',
        why: 'a "reason"\n',
        attempts: 3,
      })
    }),
  )
})

test('a dead letter that holds only the head of its record says so and is not taken for the record', () => {
  const whole = Buffer.alloc(100_000, 'x')
  const invalid = {
    why: 'too large',
    position: '1',
    head: whole.subarray(0, 65_536),
    length: whole.length,
    sha256: createHash('sha256').update(whole).digest('hex'),
  }
  const line = encodeDeadLetter({
    source: 's',
    partition: 'p',
    position: '1',
    why: 'too large',
    attempts: 0,
    receivedAt: 0,
    record: { invalid },
  })
  expect(JSON.parse(line.toString())).toMatchObject({
    truncated: true,
    length: 100_000,
    sha256: invalid.sha256,
    attempts: 0,
    value: 'x'.repeat(65_536),
  })
  expect(decodeEnvelope(line.subarray(0, -1))).toEqual({
    why: expect.stringContaining('larger than what was kept') as string,
  })
})

test('an odd line that was refused whole is not truncated and is delivered again as it was', () => {
  const head = Buffer.from('not json')
  const line = encodeDeadLetter({
    source: 's',
    partition: 'p',
    position: '1',
    why: 'w',
    attempts: 0,
    receivedAt: 0,
    record: { invalid: { why: 'w', position: '1', head, length: head.length, sha256: 'aa' } },
  })
  expect(decoded(line)).toEqual({ value: head })
})

test.each([
  ['', 'not JSON'],
  ['{"value":"a"', 'not JSON'],
  ['[]', 'not a JSON object'],
  ['"text"', 'not a JSON object'],
  ['{}', 'neither'],
  ['{"key":"a"}', 'neither'],
  ['{"value":1}', 'not a string'],
  ['{"value":"a","value_base64":"YQ=="}', 'both'],
  ['{"value_base64":"YQ"}', 'not base64'],
  ['{"value_base64":"!!"}', 'not base64'],
  ['{"value":"\\ud800"}', 'surrogate'],
  ['{"value":"a","headers":{}}', 'pairs'],
  ['{"value":"a","headers":[["a"]]}', 'pairs'],
  ['{"value":"a","headers":[["a",{"odd":"x"}]]}', 'no known kind'],
  ['{"value":"a","headers":[["a",{"bigint":"x"}]]}', 'no known kind'],
  ['{"value":"a","headers":[["a",{}]]}', 'no known kind'],
  ['{"value":"a","timestamp":"now"}', 'timestamp'],
])('%j is no envelope', (line, why) => {
  expect(decodeEnvelope(Buffer.from(line))).toEqual({ why: expect.stringContaining(why) as string })
})

test('a line whose bytes are not UTF-8 is no envelope', () => {
  expect(decodeEnvelope(Buffer.concat([Buffer.from('{"value":"'), Buffer.from([0xff]), Buffer.from('"}')]))).toEqual({
    why: expect.stringContaining('UTF-8') as string,
  })
})

test('members that nobody knows yet are passed over', () => {
  expect(decodeEnvelope(Buffer.from('{"value":"a","later":1}'))).toEqual({ entry: { value: Buffer.from('a') } })
})

test('a stream of envelopes becomes entries; each odd line ends a delivery and is kept as an invalid record', () => {
  const stream = Buffer.from(
    '{"value":"a","key":"k"}\n{"value":null}\nodd\nodder\n{"value":"toolarge"}\n{"value":"b"}\n{"value":"c"}',
  )
  const framer = createFramer('envelope', { maxRecord: 4, offset: 100 })
  framer.push(stream)
  const all: Framed[] = []
  for (let framed = framer.take(); framed !== undefined; framed = framer.take()) all.push(framed)
  expect(framer.pending).toBe(0)
  for (let framed = framer.end(); framed !== undefined; framed = framer.end()) all.push(framed)
  expect(all.map((framed) => framed.batch.entries().map(({ value }) => value?.toString() ?? null))).toEqual([
    ['a', null],
    ['b'],
    ['c'],
  ])
  expect(all.map((framed) => framed.invalid.map(({ head, offset }) => [head.toString(), offset]))).toEqual([
    [
      ['odd', 143],
      ['odder', 149],
      ['{"value":"toolarge"}', 170],
    ],
    [],
    [],
  ])
  expect(all.map((framed) => [framed.to, framed.batch.count > 0 ? framed.at(framed.batch.count - 1) : 0])).toEqual([
    [170, 139],
    [184, 184],
    [197, 197],
  ])
})

const origin = (): { source: string; partition: string; position: string } => ({
  source: 's',
  partition: 'p',
  position: '0',
})
const values = (...list: (string | null)[]): EntryBatch =>
  new EntryBatch(
    list.map((value) => ({ value: value === null ? null : Buffer.from(value) })),
    0,
  )
const joined = (chunks: readonly Buffer[]): string => Buffer.concat(chunks).toString()

test('as lines, inner newlines and nulls are refused; one newline at the end is the terminator', () => {
  const made = render(values('a', 'b\n', 'c\nd', null, '', 'e\n\n'), 'lines', 'reject', origin)
  expect(joined(made.chunks)).toBe('a\nb\n\n')
  expect([made.count, made.bytes, made.refused.map(({ index }) => index)]).toEqual([3, 5, [2, 3, 5]])
})

test('newline=space keeps a record on its line', () => {
  const made = render(values('a', 'b\n', 'c\nd\n', null, '\n\n'), 'lines', 'space', origin)
  expect(joined(made.chunks)).toBe('a\nb\nc d\n \n')
  expect([made.count, made.refused.map(({ index }) => index)]).toEqual([4, [3]])
})

test('lines pass untouched, in the very same buffers', () => {
  const chunk = Buffer.from('a\n\nb\n')
  expect(render(new LineBatch([chunk], 3), 'lines', 'reject', origin).chunks[0]).toBe(chunk)
})

test('as envelopes nothing is refused, and what is read back is what was written', () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 10 }), (entries) => {
      const made = render(new EntryBatch(entries, 0), 'envelope', 'reject', origin)
      const framer = createFramer('envelope', { maxRecord: 1000 })
      for (const chunk of made.chunks) framer.push(chunk)
      expect(framer.take()?.batch.entries() ?? []).toEqual(entries)
      expect([made.count, made.refused]).toEqual([entries.length, []])
    }),
  )
})
