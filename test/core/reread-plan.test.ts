/** Which parts of a source are read again for what is missing from a spool. */
import { LineBatch } from '../../src/core/batch'
import type { FlowState } from '../../src/core/flow/flow-state'
import { rereadPlan, type RereadRequest } from '../../src/core/recovery/reread-plan'
import { DeliveredPositions } from '../../src/core/accounting/delivered-positions'
import type { Spool, Spooled } from '../../src/core/flow/ports'

const frame = (first: number, count: number, last: string, partition = 'p'): Spooled => ({
  batch: new LineBatch([Buffer.from('x\n'.repeat(count))], count),
  first,
  next: first + count,
  source: 's',
  partition,
  at: () => last,
  receivedAt: 0,
})
const spoolOf = (frames: readonly Spooled[]): Spool =>
  ({
    async *kept(from: number) {
      for (const one of frames) if (one.next > from) yield one
    },
    countFrom: (from: number) =>
      frames.reduce((sum, { first, next }) => sum + Math.max(0, next - Math.max(first, from)), 0),
    head: frames.at(-1)?.next ?? 0,
  }) as unknown as Spool
const ask = (frames: readonly Spooled[], more: Partial<RereadRequest> = {}): ReturnType<typeof rereadPlan> =>
  rereadPlan({
    spool: spoolOf(frames),
    low: 0,
    sinkPositions: new Map(),
    ahead: undefined,
    through: 100,
    newest: new Map([['s', new Map([['p', '100']])]]),
    seen: new Set(),
    number: 7,
    ...more,
  })

test('nothing is missing: nothing is read again', async () => {
  expect(await ask([frame(0, 50, '50'), frame(50, 50, '100')])).toEqual({ parts: [], seen: [] })
})

test('before the first frame, between two, behind the last one', async () => {
  expect((await ask([frame(10, 10, '20'), frame(20, 10, '30'), frame(50, 10, '60')])).parts).toEqual([
    { key: 's#7', source: 's', partition: 'p', to: '20', keep: 10 },
    { key: 's#8', source: 's', partition: 'p', from: '30', to: '60', keep: 10 },
    { key: 's#9e', source: 's', partition: 'p', from: '60', to: '100', keep: 0 },
  ])
})

test('a partition that has nothing left, and one that lies behind the hole', async () => {
  const newest = new Map([
    [
      's',
      new Map([
        ['p', '40'],
        ['q', '60'],
      ]),
    ],
  ])
  expect((await ask([frame(40, 60, '60', 'q')], { newest })).parts).toEqual([
    { key: 's#7', source: 's', partition: 'q', to: '60', keep: 60 },
    { key: 's#8e', source: 's', partition: 'p', to: '40', keep: 0 },
  ])
})

test('from a cursor within a frame that is gone: what was delivered of it is skipped', async () => {
  const places = new Map([['s', new Map([['p', '20']])]])
  expect(
    (
      await ask([frame(30, 70, '100')], {
        low: 25,
        sinkPositions: places,
        ahead: { source: 's', partition: 'p', count: 5 },
      })
    ).parts,
  ).toEqual([{ key: 's#7', source: 's', partition: 'p', from: '20', skip: 5, to: '100', keep: 70 }])
})

test('where the sinks stand is not known: nothing before the first frame, the rest as ever', async () => {
  expect((await ask([frame(10, 10, '20'), frame(50, 50, '100')], { sinkPositions: undefined })).parts).toEqual([
    { key: 's#7', source: 's', partition: 'p', from: '20', to: '100', keep: 50 },
  ])
})

test('a hole that was seen to before is none', async () => {
  expect(await ask([frame(10, 10, '20'), frame(50, 50, '100')], { seen: new Set([0, 20]) })).toEqual({
    parts: [],
    seen: [],
  })
})

test('a cursor within a frame is stored with its position, and known again', () => {
  const spool = spoolOf([frame(0, 50, '50'), frame(50, 50, '100')])
  const stored = (cursor: number, more: object): FlowState =>
    ({
      sources: { s: { label: '', positions: { p: '100' } } },
      sinks: { t: { label: '', cursor, ...more } },
    }) as unknown as FlowState
  const newest = new Map([['s', new Map([['p', '100']])]])
  const delivered = new DeliveredPositions(stored(0, { behind: { s: { p: null } } }), spool, 't', 0)
  delivered.moved([{ source: 's', partition: 'p', last: '50' }])
  delivered.within({ source: 's', partition: 'p', last: '100' }, 10)
  const state = delivered.state(newest, false)
  expect(state).toEqual({ behind: { s: { p: '50' } }, ahead: { source: 's', partition: 'p', count: 10 } })
  const again = new DeliveredPositions(stored(60, state), spool, 't', 60)
  again.within({ source: 's', partition: 'p', last: '100' }, 5)
  expect(again.state(newest, false)).toEqual({
    behind: { s: { p: '50' } },
    ahead: { source: 's', partition: 'p', count: 15 },
  })
  again.moved([{ source: 's', partition: 'p', last: '100' }])
  expect(again.state(newest, false)).toEqual({ behind: {} })
})
