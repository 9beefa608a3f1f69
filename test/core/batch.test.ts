import { EntryBatch, joined, LineBatch } from '../../src/core/batch'

const entry = (value: string | null): { readonly value: Buffer | null } => ({
  value: value === null ? null : Buffer.from(value),
})

test('batches joined keep their records in order, and name those that have no line by their place in the whole', () => {
  const batch = joined([
    new EntryBatch([entry('a'), entry(null)], 10),
    new LineBatch([Buffer.from('b\nc\n')], 2),
    new EntryBatch([entry('d\ne'), entry('f')], 20),
  ])
  expect(batch).toMatchObject({ form: 'entries', count: 6, retained: 34 })
  expect(batch.entries().map(({ value }) => value?.toString() ?? null)).toEqual(['a', null, 'b', 'c', 'd\ne', 'f'])
  const { chunks, bytes, count, refused } = batch.lines()
  expect(Buffer.concat(chunks).toString()).toBe('a\nb\nc\nf\n')
  expect({ bytes, count }).toEqual({ bytes: 8, count: 4 })
  expect(refused.map(({ index }) => index)).toEqual([1, 4])
})

test('lines joined stay lines', () => {
  const batch = joined([
    new LineBatch([Buffer.from('a\n')], 1),
    new LineBatch([Buffer.from('b\n'), Buffer.from('c\n')], 2),
  ])
  expect(batch).toMatchObject({ form: 'lines', count: 3, bytes: 6 })
  expect(Buffer.concat(batch.lines().chunks).toString()).toBe('a\nb\nc\n')
})
