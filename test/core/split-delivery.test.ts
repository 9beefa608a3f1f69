import { EntryBatch, LineBatch } from '../../src/core/batch'
import type { Batch, Delivery } from '../../src/core/contract'
import { splitBytes, splitDelivery } from '../../src/core/delivery/split-delivery'

const lines = (count: number): string[] => Array.from({ length: count }, (_, i) => `${String(i).padStart(9, '0')}\n`)
function delivery(batch: Batch): Delivery {
  return {
    batch,
    partition: { name: 'p', epoch: 1 },
    last: 'after',
    at: (i: number) => `at ${i}`,
    filtered: 3,
    doubtful: 25,
    invalid: [{ position: 'u', why: 'w', head: Buffer.alloc(0), length: 1, sha256: '' }],
    release: () => undefined,
  }
}
const text = (batch: Batch): string => Buffer.concat([...batch.lines().chunks]).toString()

const forms: readonly (readonly [string, Batch])[] = [
  ['lines of one buffer', new LineBatch([Buffer.from(lines(100).join(''))], 100)],
  [
    'lines of many',
    new LineBatch(
      lines(100).map((line) => Buffer.from(line)),
      100,
    ),
  ],
  [
    'entries',
    new EntryBatch(
      lines(100).map((line) => ({ value: Buffer.from(line) })),
      1000,
    ),
  ],
]
test.each(forms)('%s become pieces that hold all of it in order, with their own positions', (_, batch) => {
  const whole = delivery(batch)
  const cut = splitDelivery(whole, 95)
  expect(cut).toHaveLength(10)
  expect(cut.every(({ batch: { bytes, form } }) => bytes === 100 && form === batch.form)).toBe(true)
  expect(cut.map((piece) => text(piece.batch)).join('')).toBe(lines(100).join(''))
  expect(cut.flatMap((piece) => Array.from({ length: piece.batch.count }, (_each, i) => piece.at(i)))).toEqual(
    Array.from({ length: 100 }, (_each, i) => `at ${i}`),
  )
  expect(cut.map(({ last }) => last)).toEqual([...Array.from({ length: 9 }, (_each, i) => `at ${10 * i + 9}`), 'after'])
  expect(cut.map(({ doubtful }) => doubtful)).toEqual([10, 10, 5, 0, 0, 0, 0, 0, 0, 0])
  expect(cut.map(({ invalid, filtered, release }) => [invalid?.length, filtered, release === undefined])).toEqual([
    ...Array.from({ length: 9 }, () => [undefined, undefined, true]),
    [1, 3, false],
  ])
})

test('what is no larger, or one record, stays as it is', () => {
  for (const batch of [
    new LineBatch([Buffer.from('a\nb\n')], 2),
    new LineBatch([Buffer.alloc(1000, 'x\n')], 1),
    new LineBatch([], 0),
  ]) {
    const whole = delivery(batch)
    expect(splitDelivery(whole, 4)).toEqual([whole])
  }
})

test('objects of 64 MiB are made of deliveries as they come, smaller ones of parts', () => {
  const sink = (sealBytes: number) =>
    ({ sink: { segments: { sealBytes } } }) as unknown as Parameters<typeof splitBytes>[0][number]
  expect(splitBytes([sink(64 * 1024 * 1024)])).toBe(8 * 1024 * 1024)
  expect(splitBytes([sink(0), sink(8000)])).toBe(1000)
  expect(splitBytes([])).toBe(Infinity)
})
