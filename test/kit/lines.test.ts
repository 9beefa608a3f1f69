import * as fc from 'fast-check'
import { countBySearch, countNewlines, hasSimd, lastNewline } from '../../src/kit/lines'

const plain = (bytes: Uint8Array): number => bytes.reduce((sum, byte) => sum + (byte === 10 ? 1 : 0), 0)

test('newlines are counted alike by the module and by searching, for any bytes, length and alignment', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.integer({ min: 1, max: 2000 }),
      fc.nat(70),
      (seed, times, skip) => {
        const bytes = Buffer.concat([
          Buffer.alloc(skip, 10),
          ...Array.from({ length: Math.min(times, Math.ceil(300_000 / (seed.length + 1))) }, () => seed),
        ]).subarray(skip)
        const expected = plain(bytes)
        expect(countNewlines(bytes)).toBe(expected)
        expect(countBySearch(bytes)).toBe(expected)
      },
    ),
    { numRuns: 100 },
  )
})

test.each([0, 1, 63, 64, 65, 16_319, 16_320, 16_321, 65_536, 262_143, 262_144, 262_145, 1_048_577])(
  'a buffer of %d newlines counts all of them',
  (length) => {
    expect(countNewlines(Buffer.alloc(length, 10))).toBe(length)
    expect(countNewlines(Buffer.alloc(length, 0x8a))).toBe(0)
  },
)

test('the engine takes the module: what falls back to searching counts right as well, and nobody would notice', () => {
  expect(hasSimd()).toBe(true)
})

test('the last newline is found, or -1', () => {
  expect(lastNewline(Buffer.from('a\nb\nc'))).toBe(3)
  expect(lastNewline(Buffer.from('abc'))).toBe(-1)
})
