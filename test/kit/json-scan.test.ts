import * as fc from 'fast-check'
import { findMember, jsonText, memberName, scanDocument } from '../../src/kit/json-scan'

const space = fc.constantFrom('', ' ', '\t', '\n', '\r\n ')
/** JSON text with odd spacing and escapes, from a value. */
function typed(value: unknown, spaces: readonly string[], escaped: boolean): string {
  let next = 0
  const gap = (): string => spaces[next++ % spaces.length] ?? ''
  const quote = (text: string): string =>
    escaped
      ? `"${[...Array(text.length).keys()].map((i) => `\\u${text.charCodeAt(i).toString(16).padStart(4, '0')}`).join('')}"`
      : JSON.stringify(text)
  const make = (part: unknown): string => {
    if (typeof part === 'string') return quote(part)
    if (Array.isArray(part)) return `[${gap()}${part.map((item) => make(item) + gap()).join(`,${gap()}`)}]`
    if (typeof part === 'object' && part !== null)
      return `{${gap()}${Object.entries(part)
        .map(([name, item]) => quote(name) + gap() + ':' + gap() + make(item) + gap())
        .join(`,${gap()}`)}}`
    return JSON.stringify(part)
  }
  return gap() + make(value) + gap()
}
function* paths(value: unknown, path: readonly string[] = []): Generator<readonly [readonly string[], unknown]> {
  yield [path, value]
  if (typeof value === 'object' && value !== null)
    for (const [name, item] of Object.entries(value)) yield* paths(item, [...path, name])
}

test('every path of any JSON value leads to what JSON.parse finds there, whatever the spacing and the escapes', () => {
  fc.assert(
    fc.property(
      fc.jsonValue({ maxDepth: 4 }),
      fc.array(space, { minLength: 1, maxLength: 7 }),
      fc.boolean(),
      (value, spaces, escaped) => {
        const bytes = Buffer.from(typed(value, spaces, escaped))
        for (const [path, expected] of paths(JSON.parse(bytes.toString()))) {
          const range = findMember(bytes, path)
          expect(range && JSON.parse(bytes.toString('utf8', range.start, range.end))).toEqual(expected)
          if (typeof expected === 'string') expect(jsonText(bytes, path)).toBe(expected)
          else if (typeof expected !== 'object') expect(jsonText(bytes, path)).toBe(JSON.stringify(expected))
          expect(findMember(bytes, [...path, 'no such name'])).toBeUndefined()
        }
      },
    ),
    { numRuns: 500 },
  )
})

test('no cut of a JSON object is taken for one', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 })), fc.nat(), (value, cut) => {
      const bytes = Buffer.from(JSON.stringify(value))
      expect(scanDocument(bytes.subarray(0, cut % bytes.length), [])).toBeUndefined()
      expect(scanDocument(bytes, [])).toBeDefined()
    }),
  )
})

test.each([
  '',
  '[]',
  '1',
  '"a"',
  'null',
  '{',
  '{}x',
  '{}{}',
  '{"a"}',
  '{"a":}',
  '{"a":1,}',
  '{,}',
  '{"a":01}',
  '{"a":1.}',
  '{"a":-}',
  '{"a":1e}',
  '{"a":tru}',
  '{"a":[}',
  '{"a":{]}',
  '{a:1}',
  "{'a':1}",
  '{"a":1 "b":2}',
  '{"a\n":1}',
])('%j is not taken for an object', (text) => {
  expect(scanDocument(Buffer.from(text), [memberName('a')])).toBeUndefined()
  expect(findMember(Buffer.from(text), ['a'])).toBeUndefined()
})

test('the last of two members with one name counts', () => {
  expect(jsonText(Buffer.from('{"a":1,"\\u0061":"two"}'), ['a'])).toBe('two')
})

test('text is what a person would read: strings unescaped, numbers as typed, null as nothing', () => {
  const bytes = Buffer.from('{"s":"a\\"b","n":1.50e3,"t":true,"z":null,"o":{"x":[10,20]},"big":12345678901234567890}')
  expect(['s', 'n', 't', 'z', 'o', 'big', 'none'].map((name) => jsonText(bytes, [name]))).toEqual([
    'a"b',
    '1.50e3',
    'true',
    undefined,
    '{"x":[10,20]}',
    '12345678901234567890',
    undefined,
  ])
  expect(jsonText(bytes, ['o', 'x', '1'])).toBe('20')
})

test('a mebibyte of brackets is refused, not a crash', () => {
  expect(findMember(Buffer.from(`{"a":${'['.repeat(1 << 20)}`), ['a'])).toBeUndefined()
})

test('long strings end at the first quote that is not escaped', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom('\\', '"', 'x', 'y'.repeat(20)), { maxLength: 40 }), (parts) => {
      const text = parts.join('')
      const bytes = Buffer.from(JSON.stringify({ a: text, b: 'end' }))
      expect(jsonText(bytes, ['a'])).toBe(text)
      expect(jsonText(bytes, ['b'])).toBe('end')
    }),
    { numRuns: 500 },
  )
})

test('a byte-order mark before a document is passed over', () => {
  const marked = Buffer.from('\uFEFF {"a":{"b":"x"}}')
  expect(jsonText(marked, ['a', 'b'])).toBe('x')
  expect(scanDocument(marked, [memberName('a')])?.found[0]).toMatchObject({ start: marked.indexOf('{"b"') })
  expect(jsonText(Buffer.from('{\uFEFF"a":1}'), ['a'])).toBeUndefined()
})
