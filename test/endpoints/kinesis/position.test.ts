import {
  compareSequences,
  covers,
  decodePosition,
  encodePosition,
  type ShardPosition,
} from '../../../src/endpoints/kinesis/position'

const A = '49590338271490256608559692538361571095921575989136588898'
const B = '49590338271490256608559692540925702759324208523137515618'

describe('a position within a shard', () => {
  const positions: readonly ShardPosition[] = [
    { at: { kind: 'oldest' } },
    { at: { kind: 'latest' }, createdAt: 1_700_000_000_000 },
    { at: { kind: 'end' }, createdAt: 1_700_000_000_000, seenAt: 1_700_000_000_123 },
    { at: { kind: 'time', time: 1_700_000_000_500 }, createdAt: 1_700_000_000_000 },
    { at: { kind: 'sequence', sequence: A } },
    { at: { kind: 'sequence', sequence: A, sub: 0 }, createdAt: 1_700_000_000_000 },
    { at: { kind: 'sequence', sequence: A, sub: -1 } },
    { at: { kind: 'sequence', sequence: A, sub: 4711 }, createdAt: 1_700_000_000_000, seenAt: 1_700_000_000_123 },
  ]
  test.each(positions.map((position) => [encodePosition(position), position] as const))(
    '%s is read back as it was written',
    (text, position) => {
      expect(decodePosition(text)).toEqual(position)
    },
  )

  test('what a position is not is none of ours', () => {
    for (const text of ['', 'newest', `${A}:`, `${A}:x`, '-5', `${A}@`, `${A}@1~`, 'time:', ` ${A}`, '1'.repeat(81)])
      expect([text, decodePosition(text)]).toEqual([text, undefined])
  })

  test('times lose their fractions, and sequence numbers their leading zeros', () => {
    expect(
      encodePosition({ at: { kind: 'sequence', sequence: A }, createdAt: 1700000000000.75, seenAt: 1700000000001.25 }),
    ).toBe(`${A}@1700000000000~1700000000001`)
    expect(decodePosition(`000${A}`)).toEqual({ at: { kind: 'sequence', sequence: A } })
  })

  test('sequence numbers are compared as numbers', () => {
    expect(compareSequences('9', '10')).toBeLessThan(0)
    expect(compareSequences(A, B)).toBeLessThan(0)
    expect(compareSequences(B, A)).toBeGreaterThan(0)
    expect(compareSequences(A, A)).toBe(0)
  })

  test('a commit covers what lies before it, in the same stream', () => {
    expect(covers(A, A)).toBe(true)
    expect(covers(B, A)).toBe(true)
    expect(covers(A, B)).toBe(false)
    expect(covers(`${A}@1`, `${A}@2`)).toBe(false)
    expect(covers(`${A}@1`, A)).toBe(true)
    expect(covers('end@1', `${B}@1`)).toBe(true)
    expect(covers('end@1', 'end@1')).toBe(true)
    expect(covers(A, 'end')).toBe(false)
    expect(covers('oldest', A)).toBe(false)
    expect(covers(A, 'oldest')).toBe(true)
    expect(covers('nonsense', A)).toBe(false)
  })

  test('of an aggregate a commit covers the records up to its own', () => {
    expect(covers(`${A}:3`, `${A}:3`)).toBe(true)
    expect(covers(`${A}:3`, `${A}:4`)).toBe(false)
    expect(covers(`${A}:3`, A)).toBe(false)
    expect(covers(A, `${A}:4`)).toBe(true)
    expect(covers(`${B}:0`, A)).toBe(true)
  })
})
