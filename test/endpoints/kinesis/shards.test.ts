import { Shards } from '../../../src/endpoints/kinesis/consume/shards'
import { parseStart, planStart, type PlanInput, type Start } from '../../../src/endpoints/kinesis/consume/start'
import type { Shard } from '../../../src/endpoints/kinesis/stream-client'

const all = (): boolean => true
const shard = (id: string, parents: readonly string[] = [], closed = false): Shard => ({
  id,
  parents,
  hashes: { from: 0n, to: 1n },
  startingSequence: '1',
  ...(closed ? { endingSequence: '9' } : {}),
})
const A = '49590338271490256608559692538361571095921575989136588898'

describe('the shards of a stream', () => {
  test('a child of a split waits for its parent, one of a merge for both', () => {
    const shards = new Shards()
    shards.list([shard('a', [], true), shard('b', ['a'], true), shard('c', ['a'], true), shard('d', ['b', 'c'])])
    const ready = (): string[] => ['a', 'b', 'c', 'd'].filter((id) => shards.mayBegin(id, all))
    expect(ready()).toEqual(['a'])
    shards.end('a')
    expect(ready()).toEqual(['a', 'b', 'c'])
    shards.end('c')
    expect(ready()).toEqual(['a', 'b', 'c'])
    shards.end('b')
    expect(ready()).toEqual(['a', 'b', 'c', 'd'])
  })

  test('a parent that is not kept any more, or not read at all, is not waited for', () => {
    const shards = new Shards()
    shards.list([shard('b', ['gone']), shard('c', ['other']), shard('other')])
    expect(shards.mayBegin('b', all)).toBe(true)
    expect(shards.mayBegin('c', all)).toBe(false)
    expect(shards.mayBegin('c', (id) => id !== 'other')).toBe(true)
  })

  test('what a page told of children holds until they are listed', () => {
    const shards = new Shards()
    shards.list([shard('a')])
    expect(shards.hasChildren('a')).toBe(false)
    shards.hint([{ id: 'b', parents: ['a'] }])
    expect(shards.hasChildren('a')).toBe(true)
    expect(shards.mayBegin('b', all)).toBe(false)
    shards.list([shard('a')])
    expect(shards.all.map(({ id }) => id)).toEqual(['a', 'b'])
    shards.list([shard('a', [], true), shard('b', ['a'])])
    shards.list([shard('a', [], true)])
    expect(shards.all.map(({ id }) => id)).toEqual(['a'])
  })
})

describe('start=', () => {
  test.each([
    ['oldest', { kind: 'oldest' }],
    ['TRIM_HORIZON', { kind: 'oldest' }],
    ['Latest', { kind: 'latest' }],
    ['-1h', { kind: 'time', time: 6_400_000 }],
    ['2026-01-31T12:00:00Z', { kind: 'time', time: Date.parse('2026-01-31T12:00:00Z') }],
    ['AT_TIMESTAMP:-1h', { kind: 'time', time: 6_400_000 }],
    [A, { kind: 'at', sequence: A }],
    [`AT_SEQUENCE_NUMBER:${A}`, { kind: 'at', sequence: A }],
    [`after_sequence_number:${A}`, { kind: 'after', sequence: A }],
  ] as const)('%s', (text, start) => {
    expect(parseStart(text, 10_000_000)).toEqual(start)
  })
  test('anything else says what is allowed', () => {
    expect(() => parseStart('newest', 0)).toThrow('a time is expected')
  })
})

describe('where shards begin', () => {
  const listed = [shard('a', [], true), shard('b', ['a']), shard('c', ['a'])]
  const plan = (start: Start, more: Partial<PlanInput> = {}) =>
    planStart({ listed, createdAt: 7, now: 1000, start, onGap: 'oldest', stored: new Map(), inScope: all, ...more })
  const places = (parts: ReturnType<typeof plan>): unknown =>
    Object.fromEntries(parts.shards.map(({ shard: id, at, note }) => [id, [at.kind, note]]))

  test('at first all begin where start says, and that is noted', () => {
    expect(places(plan({ kind: 'oldest' }))).toEqual({
      a: ['oldest', 'oldest@7'],
      b: ['oldest', 'oldest@7'],
      c: ['oldest', 'oldest@7'],
    })
    expect(places(plan({ kind: 'time', time: 500 }))).toEqual({
      a: ['time', 'time:500@7'],
      b: ['time', 'time:500@7'],
      c: ['time', 'time:500@7'],
    })
  })

  test('with latest closed shards are not read, and the open ones from the time of now on, also after a restart', () => {
    expect(places(plan({ kind: 'latest' }))).toEqual({
      a: ['end', 'end@7'],
      b: ['latest', 'time:1000@7'],
      c: ['latest', 'time:1000@7'],
    })
  })

  test('a stored position wins; what has appeared since begins at its oldest, whatever start says', () => {
    const stored = new Map([
      ['a', 'end@7'],
      ['b', `${A}:3@7~900`],
    ])
    expect(plan({ kind: 'latest' }, { stored }).shards).toEqual([
      { shard: 'a', at: { kind: 'end' } },
      { shard: 'b', at: { kind: 'sequence', sequence: A, sub: 3 }, seenAt: 900 },
      { shard: 'c', at: { kind: 'oldest' }, note: 'oldest@7' },
    ])
  })

  test("a sequence number is one shard's", () => {
    expect(() => plan({ kind: 'at', sequence: A })).toThrow('shard= says which')
    expect(plan({ kind: 'at', sequence: A }, { inScope: (id) => id === 'b' }).shards).toEqual([
      { shard: 'b', at: { kind: 'sequence', sequence: A, sub: -1 }, note: `${A}:-1@7` },
    ])
    expect(plan({ kind: 'after', sequence: A }, { inScope: (id) => id === 'b' }).shards).toEqual([
      { shard: 'b', at: { kind: 'sequence', sequence: A }, note: `${A}@7` },
    ])
  })

  test('a shard that is not kept any more before it was read to its end is a gap, told once: its note is an end', () => {
    const stored = new Map([
      ['z', `${A}@7`],
      ['y', 'end@7'],
      ['b', 'oldest@7'],
    ])
    const { gaps } = plan({ kind: 'oldest' }, { stored })
    expect(gaps).toEqual([
      {
        partition: 'z',
        from: `${A}@7`,
        to: 'the end of the shard',
        why: 'the shard is not kept any more (retention)',
        note: 'end@7',
      },
    ])
  })

  describe('of a stream that was made anew', () => {
    const stored = new Map([
      ['a', `${A}@6`],
      ['b', 'end@6'],
      ['z', `${A}@6`],
    ])
    test('everything begins as on-gap says, and what was not read of the old one is a gap', () => {
      const oldest = plan({ kind: 'latest' }, { stored })
      expect(oldest.gaps.map(({ partition, note }) => [partition, note])).toEqual([
        ['a', undefined],
        ['z', 'end@7'],
      ])
      expect(places(oldest)).toEqual({
        a: ['oldest', 'oldest@7'],
        b: ['oldest', 'oldest@7'],
        c: ['oldest', 'oldest@7'],
      })
      expect(places(plan({ kind: 'oldest' }, { stored, onGap: 'latest' }))).toEqual({
        a: ['end', 'end@7'],
        b: ['latest', 'time:1000@7'],
        c: ['latest', 'time:1000@7'],
      })
    })
    test('a start that was cut short goes on with it', () => {
      expect(
        places(plan({ kind: 'oldest' }, { stored: new Map([...stored, ['a', 'end@7']]), onGap: 'latest' })),
      ).toEqual({ a: ['end', undefined], b: ['latest', 'time:1000@7'], c: ['oldest', 'oldest@7'] })
    })
    test('what is left of it does not count once its successor is known', () => {
      const later = new Map([
        ['a', `${A}@7`],
        ['b', 'oldest@7'],
        ['z', 'end@6'],
      ])
      const { gaps, shards } = plan({ kind: 'oldest' }, { stored: later, onGap: 'latest' })
      expect(gaps).toEqual([])
      expect(shards.find(({ shard: id }) => id === 'c')?.at).toEqual({ kind: 'oldest' })
    })
  })
})
