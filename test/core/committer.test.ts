/** Positions whose writes nobody confirms: they are held until what was written has been read, or is believed to be. */
import { Committer } from '../../src/core/delivery/committer'
import type { Position } from '../../src/core/contract'
import { type ReadWatermark, readWatermarkOf } from '../../src/core/delivery/read-watermark'
import { systemClock } from '../../src/kit/clock'
import { quiet, ScriptedSink } from './support'

class Reading implements ReadWatermark {
  readonly step = 10
  readonly certain = true
  written = 0
  seen = 0
  asked = 0
  mark(): number {
    return this.written
  }
  passed(): Promise<number> {
    this.asked++
    return Promise.resolve(this.seen)
  }
}

function made(
  trail: ReadWatermark,
  everyMs = 20,
): { readonly committer: Committer; readonly commits: Position[]; readonly warnings: string[] } {
  const commits: Position[] = []
  const warnings: string[] = []
  const log = {
    ...quiet,
    warn: (text: string) => {
      warnings.push(text)
    },
  }
  const committer = new Committer({
    label: 'source',
    clock: systemClock,
    log,
    watermark: trail,
    everyMs,
    commit: (_, position) => {
      commits.push(position)
      return Promise.resolve()
    },
  })
  return { committer, commits, warnings }
}
const P = { name: 'p', epoch: 1 }
async function until(met: () => boolean): Promise<void> {
  for (const latest = Date.now() + 4000; !met(); ) {
    if (Date.now() > latest) throw new Error('it did not come')
    await new Promise((resolve) => {
      setTimeout(resolve, 2)
    })
  }
}
/** Two positions of 100 bytes each. */
function two(trail: Reading, committer: Committer): void {
  for (const position of ['1', '2']) {
    trail.written += 100
    committer.offer(P, position)
  }
}

test('a position is committed once what was written with it has been read, and not before', async () => {
  const trail = new Reading()
  const { committer, commits } = made(trail)
  for (const position of ['1', '2', '3']) {
    trail.written += 100
    committer.offer(P, position)
  }
  trail.seen = 199
  await until(() => commits.length > 0)
  expect(commits).toEqual(['1'])
  const { asked } = trail
  await until(() => trail.asked > asked + 3)
  expect(commits).toEqual(['1'])
  trail.seen = 300
  await until(() => commits.length > 1)
  expect(commits).toEqual(['1', '3'])
  committer.stop()
})

test('positions close to each other are held as one, and a steady stream of them is not put off for ever', async () => {
  const trail = new Reading()
  const { committer, commits } = made(trail)
  for (let n = 1; n <= 25; n++) {
    trail.written = n
    committer.offer(P, String(n))
  }
  trail.seen = 9
  const { asked } = trail
  await until(() => trail.asked > asked + 2)
  expect(commits).toEqual([])
  trail.seen = 10
  await until(() => commits.length > 0)
  expect(commits).toEqual(['10'])
  committer.stop()
})

test('a reader that rests is asked for seldom, and what it reads then is committed', async () => {
  const trail = new Reading()
  const { committer, commits } = made(trail, 1)
  two(trail, committer)
  // Nothing tells that something is not done.
  await new Promise((resolve) => {
    setTimeout(resolve, 500)
  })
  // After 1, 2, 4 … and then every 100 ms.
  expect(trail.asked).toBeLessThan(15)
  trail.seen = 200
  await until(() => commits.length > 0)
  expect(commits).toEqual(['2'])
  committer.stop()
})

test('a commit that fails is tried again, not at once', async () => {
  const tries: number[] = []
  const commit = async (): Promise<void> => {
    tries.push(performance.now())
    await Promise.resolve()
    if (tries.length < 3) throw new Error('not connected')
  }
  const committer = new Committer({
    label: 'source',
    clock: systemClock,
    log: quiet,
    watermark: undefined,
    everyMs: 1,
    commit,
  })
  committer.offer(P, '1')
  await until(() => tries.length === 3)
  expect(tries[2]! - tries[0]!).toBeGreaterThan(190)
  await new Promise((resolve) => {
    setTimeout(resolve, 150)
  })
  expect(tries).toHaveLength(3)
  committer.stop()
})

test('at the end a reader may yet read on; what it is known to have left is not committed, and said', async () => {
  const trail = new Reading()
  const { committer, commits, warnings } = made(trail, 60_000)
  two(trail, committer)
  setTimeout(() => {
    trail.seen = 100
  }, 30)
  await committer.flush(100)
  expect(commits).toEqual(['1'])
  expect(warnings).toEqual([
    'source: the reader of the output left the last of it unread: that is not committed and comes again',
  ])
  committer.stop()
})

test('a reader that outlives us has all of it committed', async () => {
  const trail = new Reading()
  const { committer, commits, warnings } = made(trail, 60_000)
  two(trail, committer)
  await committer.flush(Infinity)
  expect({ commits, warnings }).toEqual({ commits: ['2'], warnings: [] })
  committer.stop()
})

test('where nothing tells how far the reader is, a second without a fault counts', async () => {
  let now = 5000
  const clock = { ...systemClock, now: () => now, monotonic: () => now }
  const trail = readWatermarkOf(new ScriptedSink(undefined, { confirms: 'none' }), clock)
  if (trail === undefined) throw new Error('such a sink leaves a trail')
  const mark = trail.mark()
  now += 999
  expect(await trail.passed()).toBeLessThan(mark)
  now += 1
  expect(await trail.passed()).toBe(mark)
  expect(readWatermarkOf(new ScriptedSink(), clock)).toBeUndefined()
})
