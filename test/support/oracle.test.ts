/** The oracle must find what it is there to find. */
import { record } from './feed'
import { faultsOf, missing, read } from './oracle'

const numbers = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i)
const object = (texts: readonly string[]): { readonly key: string; readonly bytes: Buffer } => ({
  key: 'a.ndjson',
  bytes: Buffer.from(texts.map((text) => `${text}\n`).join('')),
})
/** Two connections: 1 to 100, then from 151 on. */
const connections = [
  { first: 1, last: 100, closed: true },
  { first: 151, last: 300, closed: true },
]

test('what is there once, in order, with its bytes, is faultless', () => {
  expect(read([object(numbers(1, 9).map((n) => record(n)))])).toEqual({
    numbers: numbers(1, 9),
    doubles: [],
    altered: [],
  })
  expect(faultsOf(numbers(1, 100), connections.slice(0, 1), 100)).toEqual([])
})

test("one range before a new connection is nobody's fault, however far it reaches back into the old one", () => {
  expect(faultsOf([...numbers(1, 90), ...numbers(151, 200)], connections, 200)).toEqual([])
  expect(faultsOf(numbers(151, 200), connections, 200)).toEqual([])
})

test.each([
  ['a hole within a connection', [...numbers(1, 49), ...numbers(51, 100)], 100],
  ['a hole before the range that is allowed', [...numbers(1, 49), ...numbers(51, 90), ...numbers(151, 200)], 200],
  ["a range that reaches beyond the new connection's first record", [...numbers(1, 100), ...numbers(152, 200)], 200],
  ['an end that did not arrive', numbers(1, 99), 100],
  ['records out of order', [2, 1, ...numbers(3, 100)], 100],
] as const)('%s is found', (_, found, until) => {
  expect(faultsOf([...found], connections, until)).not.toEqual([])
})

test('doubles, altered bytes and a missing final newline are found', () => {
  expect(read([object([record(1), record(2), record(1)])]).doubles).toEqual([1])
  expect(read([object([record(1).replace('x', 'y')])]).altered).toHaveLength(1)
  expect(read([{ key: 'b', bytes: Buffer.from(record(1)) }]).altered).toEqual(['b does not end with a newline'])
  expect(missing([1, 2, 5, 9], 10)).toEqual([
    { from: 3, to: 4 },
    { from: 6, to: 8 },
    { from: 10, to: 10 },
  ])
})
