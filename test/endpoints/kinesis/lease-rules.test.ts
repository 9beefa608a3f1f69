import { Refused } from '../../../src/core/errors'
import { chooseLeases, type LeaseView } from '../../../src/endpoints/kinesis/leases/balance'
import { Lineage } from '../../../src/endpoints/kinesis/leases/lineage'
import {
  expressionsOf,
  itemOf,
  type LeaseRow,
  newItem,
  rowOf,
  takeUpdate,
  writeUpdate,
} from '../../../src/endpoints/kinesis/leases/table'
import { LeaseMonitor } from '../../../src/endpoints/kinesis/leases/monitor'
import type { Checkpoint, Shard } from '../../../src/endpoints/kinesis/stream-client'

const bounds = { workerId: 'me', maxLeases: Infinity, maxSteals: 1 }
const same = <T>(all: readonly T[]): readonly T[] => all
const row = (key: string, given: Partial<LeaseRow> = {}): LeaseRow => ({
  key,
  counter: 1,
  checkpoint: { kind: 'oldest' },
  parents: [],
  children: [],
  ...given,
})
const seen = (key: string, owner?: string, given: Partial<LeaseView> = {}): LeaseView => ({
  row: row(key, owner === undefined ? {} : { owner }),
  owned: owner === 'me',
  free: owner === undefined,
  longFree: false,
  overdue: false,
  ...given,
})
const keys = (rows: readonly LeaseRow[]): string[] => rows.map(({ key }) => key)
const many = (count: number, owner?: string, from = 0): LeaseView[] =>
  Array.from({ length: count }, (_, index) => seen(`${owner ?? 'free'}-${index + from}`, owner))

describe('who takes which lease', () => {
  test('whoever is alone takes all that nobody holds', () => {
    expect(chooseLeases(many(12), bounds, same)).toMatchObject({ take: { length: 12 }, request: [] })
  })

  test('one of three takes its share of what is free, rounded up, and no more', () => {
    expect(chooseLeases([...many(3, 'a'), ...many(3, 'b'), ...many(7)], bounds, same).take).toHaveLength(5)
  })

  test('where nothing is free the one that has most is asked, for one at a time', () => {
    expect(keys(chooseLeases([...many(7, 'a'), ...many(5, 'b')], bounds, same).request)).toEqual(['a-0'])
    expect(chooseLeases([...many(7, 'a'), ...many(5, 'b')], { ...bounds, maxSteals: 3 }, same).request).toHaveLength(3)
  })

  test('nobody asks once all have their share', () => {
    for (const counts of [
      [4, 4, 4],
      [4, 4, 3],
      [4, 3, 3],
    ] as const) {
      const [a, b, mine] = counts
      expect(chooseLeases([...many(a, 'a'), ...many(b, 'b'), ...many(mine, 'me')], bounds, same)).toEqual({
        take: [],
        request: [],
      })
    }
  })

  test('any number of processes comes to rest with shares that differ by one at most', () => {
    for (const [shards, processes] of [
      [12, 3],
      [13, 5],
      [7, 4],
      [3, 5],
      [100, 7],
    ] as const) {
      const owners = Array.from({ length: shards }, () => 'p0')
      let moved = true
      let rounds = 0
      for (; moved && rounds < 1000; rounds++) {
        moved = false
        for (let process = 0; process < processes; process++) {
          const me = `p${process}`
          const { take, request: ask } = chooseLeases(
            owners.map((owner, index) => seen(String(index), owner, { owned: owner === me })),
            { ...bounds, workerId: me },
          )
          for (const { key } of [...take, ...ask]) owners[Number(key)] = me
          moved ||= take.length + ask.length > 0
        }
      }
      const counts = Array.from(
        { length: processes },
        (_, process) => owners.filter((owner) => owner === `p${process}`).length,
      )
      expect(moved).toBe(false)
      expect(Math.max(...counts)).toBeLessThanOrEqual(Math.ceil(shards / processes))
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(
        Math.max(1, Math.ceil(shards / processes) - 1),
      )
    }
  })

  test('what a holder that is gone had is taken, and it counts as nobody', () => {
    expect(
      chooseLeases([...many(4, 'dead').map((one) => ({ ...one, free: true })), ...many(4, 'me')], bounds, same).take,
    ).toHaveLength(4)
  })

  test('what was handed over to us is taken beyond the share, what is being handed over is waited for until its time is over', () => {
    const handing: LeaseView = {
      ...seen('x', 'me', { owned: false }),
      row: row('x', { owner: 'me', checkpointOwner: 'a' }),
    }
    expect(chooseLeases([handing, ...many(1, 'a'), ...many(1, 'me')], bounds, same)).toEqual({ take: [], request: [] })
    expect(
      keys(chooseLeases([{ ...handing, overdue: true }, ...many(1, 'a'), ...many(1, 'me')], bounds, same).take),
    ).toEqual(['x'])
    expect(
      keys(
        chooseLeases([{ ...handing, row: row('x', { owner: 'me' }) }, ...many(1, 'a'), ...many(1, 'me')], bounds, same)
          .take,
      ),
    ).toEqual(['x'])
  })

  test('a bound is kept, and what nobody has taken for long is taken beyond the share', () => {
    expect(chooseLeases(many(12), { ...bounds, maxLeases: 5 }, same).take).toHaveLength(5)
    const old = many(6).map((one) => ({ ...one, longFree: true }))
    expect(chooseLeases([...many(6, 'a'), ...many(6, 'me'), ...old], bounds, same).take).toHaveLength(6)
    expect(
      chooseLeases([...many(6, 'a'), ...many(6, 'me'), ...old], { ...bounds, maxLeases: 8 }, same).take,
    ).toHaveLength(2)
  })
})

const shard = (number: number, parents: readonly number[] = [], closed = false): Shard => ({
  id: id(number),
  parents: parents.map(id),
  hashes: { from: 0n, to: 1n },
  startingSequence: String(100 + number),
  ...(closed ? { endingSequence: '999' } : {}),
})
function id(number: number): string {
  return `shardId-${String(number).padStart(12, '0')}`
}
const at = (sequence: string): Checkpoint => ({ kind: 'sequence', sequence, sub: 0 })
const wanted = (
  shards: readonly Shard[],
  rows: readonly LeaseRow[],
  start: Checkpoint = { kind: 'oldest' },
): string[] =>
  new Lineage(shards, rows, () => start)
    .missing()
    .map(({ shard: { id: key }, checkpoint }) => `${Number(key.slice(8))} ${checkpoint.kind}`)

describe('which leases there are to be', () => {
  const split = [shard(0, [], true), shard(1, [0]), shard(2, [0])]

  test('of an empty table: those without parents that are to be read', () => {
    expect(wanted(split, [])).toEqual(['0 oldest'])
    expect(wanted(split, [], { kind: 'latest' })).toEqual(['1 latest', '2 latest'])
  })

  test('children get theirs, from their oldest record on, once the parent is at its end, whatever start= says', () => {
    expect(wanted(split, [row(id(0), { checkpoint: at('5') })], { kind: 'latest' })).toEqual([])
    expect(wanted(split, [row(id(0), { checkpoint: { kind: 'end' } })], { kind: 'latest' })).toEqual([
      '1 oldest',
      '2 oldest',
    ])
    expect(wanted(split, [row(id(0), { checkpoint: { kind: 'end' } }), row(id(1))])).toEqual(['2 oldest'])
  })

  test('ancestors of a shard that has a lease were processed, or left out: they get none', () => {
    expect(wanted(split, [row(id(1)), row(id(2))])).toEqual([])
    expect(new Lineage(split, [row(id(1)), row(id(2))], () => ({ kind: 'oldest' })).mayBegin(row(id(1)))).toBe(true)
  })

  test('a child of a merge has its lease with the first parent that ends, and begins with the last', () => {
    const merge = [shard(0, [], true), shard(1, [], true), shard(2, [0, 1])]
    const rows = [row(id(0), { checkpoint: { kind: 'end' } }), row(id(1), { checkpoint: at('5') })]
    expect(wanted(merge, rows)).toEqual(['2 oldest'])
    expect(wanted(merge, rows.slice(0, 1))).toEqual(['1 oldest'])
    const child = row(id(2), { parents: [id(0), id(1)] })
    expect(new Lineage(merge, [...rows, child], () => ({ kind: 'oldest' })).mayBegin(child)).toBe(false)
    expect(
      new Lineage(
        merge,
        [row(id(0), { checkpoint: { kind: 'end' } }), row(id(1), { checkpoint: { kind: 'end' } }), child],
        () => ({ kind: 'oldest' }),
      ).mayBegin(child),
    ).toBe(true)
  })

  test('a finished lease is removed once its children have begun and its own parents are gone', () => {
    const end = row(id(0), { checkpoint: { kind: 'end' } })
    const removable = (rows: readonly LeaseRow[]): boolean =>
      new Lineage(split, rows, () => ({ kind: 'oldest' })).isRemovable(end)
    expect(removable([end])).toBe(false)
    expect(removable([end, row(id(1), { checkpoint: at('5') }), row(id(2))])).toBe(false)
    expect(removable([end, row(id(1), { checkpoint: at('5') }), row(id(2), { checkpoint: { kind: 'end' } })])).toBe(
      true,
    )
    expect(
      new Lineage([shard(1, [0]), shard(2, [0])], [end, row(id(1))], () => ({ kind: 'oldest' })).isRemovable(end),
    ).toBe(false)
  })

  test('an unfinished shard that is not listed any more is gone; one that is newer than all that are listed is not known yet', () => {
    const lineage = new Lineage([shard(1, [0]), shard(2, [0])], [row(id(0)), row(id(3))], () => ({ kind: 'oldest' }))
    expect([id(0), id(1), id(3)].map((key) => lineage.isGone(key))).toEqual([true, false, false])
    expect([id(0), id(3)].map((key) => lineage.mayBegin(row(key)))).toEqual([true, false])
    expect(lineage.missing()).toEqual([])
  })
})

describe('a lease as a row', () => {
  const lease = {
    leaseKey: { S: id(1) },
    leaseCounter: { N: '42' },
    leaseOwner: { S: 'w' },
    checkpoint: { S: '49590338271490256608559692538361571095921575989136588898' },
    checkpointSubSequenceNumber: { N: '3' },
    ownerSwitchesSinceCheckpoint: { N: '1' },
    parentShardId: { SS: [id(0)] },
  }

  test('of the Kinesis Client Library is read with its sub-sequence number', () => {
    expect(rowOf(lease, undefined, 't')).toEqual({
      key: id(1),
      counter: 42,
      owner: 'w',
      checkpoint: { kind: 'sequence', sequence: '49590338271490256608559692538361571095921575989136588898', sub: 3 },
      parents: [id(0)],
      children: [],
    })
  })

  test('of another kind is none; one of several streams is refused', () => {
    expect(rowOf({ ...lease, entityType: { S: 'LEADER' } }, undefined, 't')).toBeUndefined()
    expect(rowOf({ leaseKey: { S: 'x' } }, undefined, 't')).toBeUndefined()
    expect(rowOf({ ...lease, entityType: { S: 'LEASE' } }, undefined, 't')?.key).toBe(id(1))
    expect(() => rowOf({ ...lease, streamName: { S: '1:s:2' } }, undefined, 't')).toThrow(Refused)
    expect(() => rowOf({ ...lease, checkpoint: { S: 'nonsense' } }, undefined, 't')).toThrow(/correct it/)
  })

  test('has words for the ends, and a time of its own beside them', () => {
    for (const [kind, word] of [
      ['oldest', 'TRIM_HORIZON'],
      ['end', 'SHARD_END'],
    ] as const) {
      expect(itemOf({ kind }, 0)).toEqual({ checkpoint: { S: word }, checkpointSubSequenceNumber: { N: '0' } })
      expect(rowOf({ ...lease, checkpoint: { S: word } }, undefined, 't')?.checkpoint).toEqual({ kind })
    }
    expect(rowOf({ ...lease, checkpoint: { S: 'LATEST' } }, undefined, 't')?.checkpoint).toEqual({ kind: 'latest' })
    expect(rowOf({ ...lease, ...itemOf({ kind: 'latest' }, 1234) }, undefined, 't')?.checkpoint).toEqual({
      kind: 'time',
      time: 1234,
    })
    expect(rowOf({ ...lease, ...itemOf({ kind: 'time', time: 99 }, 1234) }, undefined, 't')?.checkpoint).toEqual({
      kind: 'time',
      time: 99,
    })
    expect(rowOf({ ...lease, checkpoint: { S: 'AT_TIMESTAMP' } }, 77, 't')?.checkpoint).toEqual({
      kind: 'time',
      time: 77,
    })
    expect(rowOf({ ...lease, checkpoint: { S: 'AT_TIMESTAMP' } }, undefined, 't')?.checkpoint).toEqual({
      kind: 'oldest',
    })
  })

  test('is new as the library makes it', () => {
    expect(newItem({ ...shard(1, [0]), hashes: { from: 0n, to: 7n } }, { kind: 'oldest' }, 0)).toEqual({
      leaseKey: { S: id(1) },
      leaseCounter: { N: '0' },
      ownerSwitchesSinceCheckpoint: { N: '0' },
      checkpoint: { S: 'TRIM_HORIZON' },
      checkpointSubSequenceNumber: { N: '0' },
      parentShardId: { SS: [id(0)] },
      startingHashKey: { S: '0' },
      endingHashKey: { S: '7' },
    })
  })

  test('is written only as it was seen', () => {
    expect(expressionsOf(takeUpdate(row('k', { owner: 'a', counter: 5 }), 'me', 0))).toMatchObject({
      ConditionExpression: '#leaseCounter = :wleaseCounter AND #leaseOwner = :wleaseOwner',
      UpdateExpression: expect.stringContaining('ADD #ownerSwitchesSinceCheckpoint') as string,
    })
    const { ConditionExpression, ExpressionAttributeValues } = expressionsOf(
      writeUpdate({ key: 'k', workerId: 'me', counter: 5, isRequested: false }, {}, 0),
    )
    expect(ConditionExpression).toBe(
      '#leaseCounter = :wleaseCounter AND #leaseOwner = :wleaseOwner AND attribute_not_exists(#checkpointOwner)',
    )
    expect(ExpressionAttributeValues).toEqual({
      ':sleaseCounter': { N: '6' },
      ':wleaseCounter': { N: '5' },
      ':wleaseOwner': { S: 'me' },
    })
  })
})

describe('a counter that is watched', () => {
  test('stands still from its first sight on by our clock alone; without owner it is free at once', () => {
    const watch = new LeaseMonitor('me', 1000, 5000)
    const look = (counter: number, now: number, owner: string | undefined = 'a') =>
      watch.observe([row('k', { counter, ...(owner === '' ? {} : { owner }) })], now, now + 1).get('k')
    expect(look(7, 0)).toMatchObject({ free: false, alive: false })
    expect(look(7, 1000)).toMatchObject({ free: false })
    expect(look(7, 1001)).toMatchObject({ free: true, longFree: false })
    expect(look(8, 1500)).toMatchObject({ free: false, alive: true })
    expect(look(8, 4501)).toMatchObject({ free: true, longFree: true, alive: false })
    expect(look(9, 4600, '')).toMatchObject({ free: true, longFree: false })
  })

  test('of one that was asked for, the holder has its time', () => {
    const watch = new LeaseMonitor('me', 1000, 5000)
    const look = (counter: number, now: number) =>
      watch.observe([row('k', { counter, owner: 'me', checkpointOwner: 'a' })], now, now).get('k')?.overdue
    expect([look(1, 0), look(2, 4000), look(3, 5000)]).toEqual([false, false, true])
  })

  test('it is known when the first of others runs out; ours, free ones and those that moved do not', () => {
    const watch = new LeaseMonitor('me', 1000, 5000)
    const look = (now: number, ...rows: readonly LeaseRow[]) => {
      watch.observe(rows, now, now)
      return watch.due
    }
    expect(
      look(0, row('a', { counter: 1, owner: 'a' }), row('b', { counter: 1 }), row('c', { counter: 1, owner: 'me' })),
    ).toBe(1000)
    expect(look(400, row('a', { counter: 2, owner: 'a' }), row('d', { counter: 1, owner: 'd' }))).toBe(1400)
    expect(look(700, row('a', { counter: 3, owner: 'a' }), row('d', { counter: 1, owner: 'd' }))).toBe(1400)
    expect(look(1400, row('a', { counter: 4, owner: 'a' }), row('d', { counter: 1, owner: 'd' }))).toBe(2400)
    expect(look(1500, row('d', { counter: 1, owner: 'd' }))).toBeUndefined()
  })
})
