import * as fc from 'fast-check'
import { hostname } from 'node:os'
import { makeAppender, type AppendSpec } from '../../src/codec/append'
import { EntryBatch, LineBatch } from '../../src/core/batch'
import type { Batch } from '../../src/core/contract'

function lines(...records: string[]): Batch {
  return new LineBatch([Buffer.from(records.map((record) => `${record}\n`).join(''))], records.length)
}
function text(batch: Batch): string[] {
  return batch.entries().map(({ value }) => value?.toString() ?? 'null')
}
function append(batch: Batch, ...specs: AppendSpec[]): { texts: string[]; refused: readonly { index: number }[] } {
  const { batch: made, refused } = makeAppender(specs)(batch, { source: 'file:a "b"' })
  expect(made.count).toBe(batch.count)
  expect(text(made).length).toBe(made.count)
  return { texts: text(made), refused }
}
const plain = (name: string, value: string): AppendSpec => ({ name, kind: 'text', value })
const json = (name: string, value: string): AppendSpec => ({ name, kind: 'json', value })

test('a new member goes after the last one, an existing one is replaced where it stands, other bytes stay', () => {
  expect(
    append(
      lines('{}', '{ }', '{"a":1}', '{ "a" : 1.0 , "b":"\\u0041\\/" }\r', '{"env":{"x":[1,"}"]},"a":2}'),
      plain('env', 'prod "1"'),
    ).texts,
  ).toEqual([
    '{"env":"prod \\"1\\""}',
    '{"env":"prod \\"1\\"" }',
    '{"a":1,"env":"prod \\"1\\""}',
    '{ "a" : 1.0 , "b":"\\u0041\\/","env":"prod \\"1\\"" }\r',
    '{"env":"prod \\"1\\"","a":2}',
  ])
})

test('JSON values go in as they are, several members at once, the last of two with one name', () => {
  expect(append(lines('{"b":0,"x":1}'), json('a', '1'), json('b', '[1, 2]'), json('a', '{"n":null}')).texts).toEqual([
    '{"b":[1, 2],"x":1,"a":{"n":null}}',
  ])
})

test('what is no JSON object is refused and left as it was', () => {
  const { texts, refused } = append(lines('[1]', '{"a":1}', 'plain', ''), plain('e', 'v'))
  expect(texts).toEqual(['[1]', '{"a":1,"e":"v"}', 'plain', ''])
  expect(refused.map(({ index }) => index)).toEqual([0, 2, 3])
})

test('entries keep key, headers and timestamp; a tombstone is refused', () => {
  const batch = new EntryBatch([{ value: Buffer.from('{}'), key: Buffer.from('k'), timestamp: 5 }, { value: null }], 10)
  const { batch: made, refused } = makeAppender([plain('a', 'b')])(batch, { source: 's' })
  expect(made.entries()).toEqual([
    { value: Buffer.from('{"a":"b"}'), key: Buffer.from('k'), timestamp: 5 },
    { value: null },
  ])
  expect(refused.map(({ index }) => index)).toEqual([1])
})

test('variables become time, host, source and an id of each record', () => {
  const before = Date.now()
  const { texts } = append(
    lines('{}', '{}'),
    plain('now', '{now}'),
    json('unix', '{now:unix}'),
    plain('host', 'at {hostname}'),
    plain('id', '{uuid}'),
    json('from', '{"s":"{source}"}'),
  )
  const [first, second] = texts.map((line) => JSON.parse(line) as Record<string, unknown>)
  expect(Date.parse(String(first?.['now']))).toBeGreaterThanOrEqual(before)
  expect(first?.['unix']).toBe(Math.floor(Date.parse(String(first?.['now'])) / 1000))
  expect(first?.['host']).toBe(`at ${hostname()}`)
  expect(first?.['id']).toMatch(/^[0-9a-f]{8}-[0-9a-f-]{27}$/)
  expect(second?.['id']).not.toBe(first?.['id'])
  expect(first?.['from']).toEqual({ s: 'file:a "b"' })
})

test('any object with any member appended parses to the object with that member set', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue({ maxDepth: 2 })),
      fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('a', '')),
      fc.string({ unit: 'binary' }),
      (object, name, value) => {
        fc.pre(!value.includes('{') && name !== '__proto__' && !Object.hasOwn(object, '__proto__'))
        const [made] = append(lines(JSON.stringify(object)), plain(name, value)).texts
        expect(JSON.parse(made ?? '')).toEqual({ ...(JSON.parse(JSON.stringify(object)) as object), [name]: value })
      },
    ),
    { numRuns: 500 },
  )
})

test('a byte-order mark before a record is left out', () => {
  expect(append(lines('\uFEFF{"a":1}', '\uFEFF{}', '\uFEFF{"e":0}'), plain('e', 'v')).texts).toEqual([
    '{"a":1,"e":"v"}',
    '{"e":"v"}',
    '{"e":"v"}',
  ])
})

test('a byte-order mark that is left out is told once for each source', () => {
  const told: string[] = []
  const appender = makeAppender([plain('e', 'v')], (source) => told.push(source))
  for (const source of ['a', 'b', 'a']) appender(lines('{"n":1}', '\uFEFF{"n":2}', '\uFEFF{"n":3}'), { source })
  appender(lines('{"n":1}'), { source: 'c' })
  expect(told).toEqual(['a', 'b'])
})
