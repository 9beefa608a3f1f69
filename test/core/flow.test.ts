import { EntryBatch } from '../../src/core/batch'
import type { Delivery } from '../../src/core/contract'
import { CONFIRMED } from '../../src/core/contract'
import { Disconnected, Fatal, ReaderGone, Refused, Throttled } from '../../src/core/errors'
import type { DeadLetter } from '../../src/core/flow/ports'
import { imbalance } from '../../src/core/accounting/receipt'
import { flowOf, numbers, NumberSource, run, ScriptedSink } from './support'

test('all records of a source reach the sink once, in order, and the last position is committed', async () => {
  const source = new NumberSource(10_000, 37)
  const sink = new ScriptedSink()
  const { ending, receipt } = await run(source, sink)
  expect(ending).toEqual({ kind: 'complete' })
  expect(sink.confirmed).toEqual(numbers(10_000))
  expect(source.commits.at(-1)?.[1]).toBe('10000')
  expect(receipt.sinks[0]).toMatchObject({ read: 10_000, delivered: 10_000, rejected: 0, returned: 0 })
})

test('a write with an unknown outcome comes again with the same id and bytes, and counts as possible duplicates', async () => {
  const source = new NumberSource(500, 50)
  const sink = new ScriptedSink((n) => {
    if (n === 2) throw new Disconnected('cut')
    return CONFIRMED
  })
  const { receipt } = await run(source, sink)
  const second = sink.writes[1]
  const third = sink.writes[2]
  expect(third).toEqual({ ...second, attempt: 2 })
  expect(sink.opens).toBe(2)
  expect(sink.confirmed).toEqual(numbers(500))
  expect(receipt.sinks[0]?.possibleDuplicates).toBe(second?.values.length)
  expect(imbalance(receipt.sinks[0]!)).toBe(0)
})

test('only the entries that failed are sent again', async () => {
  const sink = new ScriptedSink(
    (n, values) =>
      n === 1
        ? {
            retry: [
              { index: 0, why: 'busy' },
              { index: values.length - 1, why: 'busy' },
            ],
            rejected: [],
          }
        : CONFIRMED,
    { ordered: false },
  )
  const { receipt } = await run(new NumberSource(100, 100), sink)
  expect(sink.writes[1]?.values).toEqual(['1', '100'])
  expect([...sink.confirmed].sort((a, b) => Number(a) - Number(b))).toEqual(numbers(100))
  expect(receipt.sinks[0]).toMatchObject({ delivered: 100, possibleDuplicates: 0 })
})

test('what failed and was then not answered counts as possible duplicates as far as it was sent again', async () => {
  const sink = new ScriptedSink(
    (n) => {
      if (n === 2) throw new Disconnected('cut')
      return n === 1
        ? {
            retry: [
              { index: 3, why: 'busy' },
              { index: 4, why: 'busy' },
            ],
            rejected: [],
          }
        : CONFIRMED
    },
    { ordered: false },
  )
  const { receipt } = await run(new NumberSource(100, 100), sink)
  expect(sink.writes[2]?.values).toEqual(['4', '5'])
  expect(receipt.sinks[0]).toMatchObject({ delivered: 100, possibleDuplicates: 2 })
})

test('with several ordered writes in flight a failure holds back the rest and all unconfirmed go again in order', async () => {
  let failed = false
  const gate: (() => void)[] = []
  const sink = new ScriptedSink(
    async (n) => {
      if (n <= 3)
        await new Promise<void>((resolve) => {
          gate.push(resolve)
          if (gate.length === 3) for (const open of gate) open()
        })
      if (n === 1 && !failed) {
        failed = true
        throw new Disconnected('cut')
      }
      if (n <= 3) throw new Disconnected('sequence refused')
      return CONFIRMED
    },
    { inFlight: 3, maxEntries: 10 },
  )
  await run(new NumberSource(200, 10), sink)
  expect(sink.confirmed).toEqual(numbers(200))
})

test('a throttled sink is not reopened', async () => {
  const sink = new ScriptedSink((n) => {
    if (n === 1) throw new Throttled('slow down', { afterMs: 5 })
    return CONFIRMED
  })
  await run(new NumberSource(10, 10), sink)
  expect(sink.opens).toBe(1)
  expect(sink.confirmed).toEqual(numbers(10))
})

test('a rejected record is a dead letter with its origin, the others are delivered and all is committed', async () => {
  const letters: DeadLetter[] = []
  const source = new NumberSource(100, 10)
  const sink = new ScriptedSink((_, values) => ({
    retry: [],
    rejected: values.flatMap((value, index) => (value === '42' ? [{ index, why: 'bad number' }] : [])),
  }))
  const { ending, receipt } = await run(source, sink, { letters })
  expect(letters).toHaveLength(1)
  expect(letters[0]).toMatchObject({ position: '42', why: 'bad number', sink: 'sink' })
  expect(sink.confirmed).toEqual(numbers(100).filter((n) => n !== '42'))
  expect(source.commits.at(-1)?.[1]).toBe('100')
  expect(receipt.sinks[0]).toMatchObject({ delivered: 99, rejected: 1 })
  expect(ending.kind).toBe('incomplete')
})

test('without a place for dead letters nothing beyond the rejected record is committed and the run is incomplete', async () => {
  const source = new NumberSource(1000, 10)
  const sink = new ScriptedSink((_, values) => ({
    retry: [],
    rejected: values.flatMap((value, index) => (value === '42' ? [{ index, why: 'bad number' }] : [])),
  }))
  const { ending, receipt } = await run(source, sink)
  expect(ending.kind).toBe('incomplete')
  for (const [, position] of source.commits) expect(Number(position)).toBeLessThan(42)
  expect(imbalance(receipt.sinks[0]!)).toBe(0)
  expect(receipt.sinks[0]!.returned).toBeGreaterThan(0)
})

test('a record larger than the sink takes is rejected and the others of its write are not', async () => {
  const letters: DeadLetter[] = []
  const big = Buffer.alloc(2000, 'x')
  let given = false
  const source = {
    open: async () => undefined,
    close: async () => undefined,
    commit: async () => undefined,
    read: async (): Promise<Delivery | null> => {
      if (given) return null
      given = true
      return {
        batch: new EntryBatch([{ value: Buffer.from('a') }, { value: big }, { value: Buffer.from('b') }], 3000),
        partition: { name: 'p', epoch: 1 },
        last: '3',
        at: (i) => String(i + 1),
      }
    },
  }
  const sink = new ScriptedSink(undefined, { maxEntryBytes: 1000 })
  const { receipt } = await run(source, sink, { letters })
  expect(sink.confirmed).toEqual(['a', 'b'])
  expect(letters.map((letter) => letter.position)).toEqual(['2'])
  expect(receipt.sinks[0]).toMatchObject({ delivered: 2, rejected: 1 })
})

test('a delivery beyond the limits of the sink is split and settles as one', async () => {
  const source = new NumberSource(1000, 1000)
  const sink = new ScriptedSink(undefined, { maxEntries: 64, inFlight: 4, ordered: false })
  await run(source, sink)
  expect(Math.max(...sink.writes.map(({ values }) => values.length))).toBeLessThanOrEqual(64)
  expect(sink.confirmed).toHaveLength(1000)
  expect(source.commits).toEqual([[{ name: 'p', epoch: 1 }, '1000']])
})

test('a source that loses its connection is opened again alone and goes on after what it had handed over', async () => {
  const cuts = new Set([100, 300])
  const source = new NumberSource(500, 10, (at) => (cuts.delete(at) ? new Disconnected('cut') : undefined))
  const sink = new ScriptedSink()
  await run(source, sink)
  expect(source.opens).toBe(3)
  expect(sink.opens).toBe(1)
  expect(sink.confirmed).toEqual(numbers(500))
})

test('a refusal before the first success is fatal and says whose it is', async () => {
  const source = new NumberSource(10, 10, () => new Refused('no such stream'))
  const { ending } = await run(source, new ScriptedSink())
  expect(ending).toEqual({ kind: 'source failed', why: 'source: no such stream' })
  const sink = new ScriptedSink(() => {
    throw new Refused('access denied')
  })
  expect((await run(new NumberSource(10, 10), sink)).ending).toEqual({
    kind: 'sink failed',
    why: 'sink: access denied',
  })
})

test('a refusal after a success is retried', async () => {
  const sink = new ScriptedSink(
    (n) => {
      if (n === 2) throw new Refused('token expired')
      return CONFIRMED
    },
    { maxEntries: 10 },
  )
  const { ending } = await run(new NumberSource(100, 10), sink)
  expect(ending.kind).toBe('complete')
  expect(sink.confirmed).toEqual(numbers(100))
})

test('what a failing sink did not confirm is returned to the source, not committed', async () => {
  const source = new NumberSource(1000, 10)
  const sink = new ScriptedSink(
    (n) => {
      if (n === 3) throw new Fatal('gone for good')
      return CONFIRMED
    },
    { maxEntries: 10 },
  )
  const { ending, receipt } = await run(source, sink)
  expect(ending.kind).toBe('sink failed')
  expect(receipt.sinks[0]!.delivered).toBe(20)
  expect(imbalance(receipt.sinks[0]!)).toBe(0)
  expect(Math.max(0, ...source.commits.map(([, position]) => Number(position)))).toBeLessThanOrEqual(20)
})

test('an error that nobody classified is a bug of ours', async () => {
  const { ending } = await run(new NumberSource(10, 10, () => new TypeError('x is undefined')), new ScriptedSink())
  expect(ending.kind).toBe('bug')
})

test('when the reader of stdout goes away nothing more is committed', async () => {
  const source = new NumberSource(1000, 10)
  const sink = new ScriptedSink(
    (n) => {
      if (n === 5) throw new ReaderGone('EPIPE')
      return CONFIRMED
    },
    { maxEntries: 10, confirms: 'none' },
  )
  const { ending } = await run(source, sink)
  expect(ending.kind).toBe('reader gone')
  expect(source.commits).toEqual([])
})

test('stop drains what was read, commits it and leaves the rest', async () => {
  const source = new NumberSource(1_000_000, 10)
  const sink = new ScriptedSink(async () => {
    await new Promise((resolve) => {
      setTimeout(resolve, 1)
    })
    return CONFIRMED
  })
  const flow = flowOf(source, sink)
  const done = flow.run()
  while (sink.confirmed.length < 100)
    await new Promise((resolve) => {
      setTimeout(resolve, 1)
    })
  flow.stop()
  const { ending, receipt } = await done
  expect(ending).toEqual({ kind: 'stopped', safe: true })
  expect(receipt.read).toBe(receipt.sinks[0]!.delivered)
  expect(source.commits.at(-1)?.[1]).toBe(String(receipt.read))
  expect(sink.confirmed).toEqual(numbers(receipt.read))
})

test('a stop ends within the grace when the sink hangs, and what is in flight counts as returned', async () => {
  const sink = new ScriptedSink(
    (_n, _values, _write, signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          reject(new Disconnected('aborted'))
        })
      }),
  )
  const flow = flowOf(new NumberSource(1000, 10), sink, { graceMs: 100 })
  const done = flow.run()
  while (sink.writes.length === 0)
    await new Promise((resolve) => {
      setTimeout(resolve, 1)
    })
  const from = Date.now()
  flow.stop()
  const { ending, receipt } = await done
  expect(Date.now() - from).toBeLessThan(1500)
  expect(ending).toEqual({ kind: 'stopped', safe: false })
  expect(imbalance(receipt.sinks[0]!)).toBe(0)
  expect(receipt.sinks[0]!.returned).toBe(receipt.read)
})

test('memory is bounded: reading waits while the window is full', async () => {
  let release: () => void = () => undefined
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const source = new NumberSource(100_000, 1000)
  const sink = new ScriptedSink(async () => {
    await held
    return CONFIRMED
  })
  const flow = flowOf(source, sink, { memory: 20_000 })
  const done = flow.run()
  while (sink.writes.length === 0)
    await new Promise((resolve) => {
      setTimeout(resolve, 1)
    })
  await new Promise((resolve) => {
    setTimeout(resolve, 50)
  })
  const readWhileHeld = flow.status().read
  expect(readWhileHeld).toBeLessThan(10_000)
  release()
  expect((await done).receipt.sinks[0]!.delivered).toBe(100_000)
})

test('count ends the run after so many records and commits just these', async () => {
  const source = new NumberSource(1000, 30)
  const sink = new ScriptedSink()
  const { receipt } = await run(source, sink, { until: { count: 100 } })
  expect(sink.confirmed).toEqual(numbers(100))
  expect(receipt.read).toBe(100)
  expect(source.commits.at(-1)?.[1]).toBe('100')
})

test('a newline that cannot be framed is refused at reading where the way keeps lines only', async () => {
  const letters: DeadLetter[] = []
  let given = false
  const source = {
    open: async () => undefined,
    close: async () => undefined,
    commit: async () => undefined,
    read: async (): Promise<Delivery | null> => {
      if (given) return null
      given = true
      return {
        batch: new EntryBatch(
          [{ value: Buffer.from('a') }, { value: Buffer.from('b\nc') }, { value: Buffer.from('d\n') }],
          10,
        ),
        partition: { name: 'p', epoch: 1 },
        last: '3',
        at: (i) => String(i + 1),
      }
    },
  }
  const sink = new ScriptedSink()
  const { receipt } = await run(source, sink, { letters, toLines: (batch) => batch.lines() })
  expect(sink.confirmed).toEqual(['a', 'd'])
  expect(letters).toMatchObject([{ position: '2' }])
  expect(receipt.sinks[0]).toMatchObject({ read: 3, delivered: 2, rejected: 1 })
})

test('a stop ends within the grace also when more waits for a hanging sink than one write takes', async () => {
  const sink = new ScriptedSink(
    (_n, _values, _write, signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          reject(new Disconnected('aborted'))
        })
      }),
    { maxBytes: 100 },
  )
  const flow = flowOf(new NumberSource(1000, 10), sink, { graceMs: 100 })
  const done = flow.run()
  while (sink.writes.length === 0 || flow.status().read < 1000)
    await new Promise((resolve) => {
      setTimeout(resolve, 1)
    })
  const from = Date.now()
  flow.stop()
  expect((await done).ending).toEqual({ kind: 'stopped', safe: false })
  expect(Date.now() - from).toBeLessThan(1500)
})

test('a stop is heard while a source always has something at hand', async () => {
  const source = new NumberSource(Infinity, 10)
  source.read = (
    (read) => async (_signal: AbortSignal) =>
      read.call(source, new AbortController().signal)
  )(source.read.bind(source))
  const flow = flowOf(source, new ScriptedSink())
  const done = flow.run()
  while (flow.status().read < 100)
    await new Promise((resolve) => {
      setTimeout(resolve, 1)
    })
  flow.stop()
  expect((await done).ending).toEqual({ kind: 'stopped', safe: true })
})

test('what comes again to a destination that recognises it is no possible duplicate, but for what the sink says', async () => {
  const sink = new ScriptedSink(
    (n) => {
      if (n === 2) throw new Disconnected('cut')
      return n === 3 ? { ...CONFIRMED, doubtful: 7 } : CONFIRMED
    },
    { recognises: true },
  )
  const { receipt } = await run(new NumberSource(500, 50), sink)
  expect(sink.writes.map(({ attempt }) => attempt)).toContain(2)
  expect(receipt.sinks[0]).toMatchObject({ delivered: 500, possibleDuplicates: 7 })
})

test('a sink on which nothing moves for the stall time is opened again, and its write comes again as it was', async () => {
  const sink = new ScriptedSink((n, _values, _write, signal) =>
    n > 1
      ? CONFIRMED
      : new Promise((_, reject) => {
          signal.addEventListener('abort', () => {
            reject(signal.reason as Error)
          })
        }),
  )
  const { ending, receipt } = await run(new NumberSource(10, 10), sink, { stallMs: 100 })
  expect(ending.kind).toBe('complete')
  expect(sink.opens).toBe(2)
  expect(sink.writes.map(({ id, attempt, values }) => ({ id, attempt, values }))).toEqual(
    [1, 2].map((attempt) => ({ id: sink.writes[0]?.id, attempt, values: numbers(10) })),
  )
  expect(receipt.sinks[0]).toMatchObject({ delivered: 10, possibleDuplicates: 10 })
})

test('a sink that cannot confirm may be slow for as long as it likes: a full pipe is no stall', async () => {
  const sink = new ScriptedSink(
    async () => {
      await new Promise((resolve) => {
        setTimeout(resolve, 1500)
      })
      return CONFIRMED
    },
    { confirms: 'none' },
  )
  const { ending } = await run(new NumberSource(10, 10), sink, { stallMs: 100 })
  expect(ending.kind).toBe('complete')
  expect({ opens: sink.opens, writes: sink.writes.length }).toEqual({ opens: 1, writes: 1 })
})

test('a write that fails while another is under way is tried again when that one ends, though nothing else arrives', async () => {
  const under = Promise.withResolvers<undefined>()
  const sink = new ScriptedSink(
    async (n) => {
      if (n === 1) {
        await under.promise
        throw new Disconnected('reset')
      }
      if (n === 2) {
        under.resolve(undefined)
        await new Promise((resolve) => {
          setImmediate(resolve)
        })
      }
      return CONFIRMED
    },
    { maxEntries: 10, inFlight: 2, ordered: false },
  )
  class Endless extends NumberSource {
    override async read(signal: AbortSignal): Promise<Delivery | null> {
      return (
        (await super.read(signal)) ??
        new Promise((_, reject) => {
          signal.addEventListener(
            'abort',
            () => {
              reject(signal.reason as Error)
            },
            { once: true },
          )
        })
      )
    }
  }
  const flow = flowOf(new Endless(20, 10), sink)
  const running = flow.run()
  while (sink.confirmed.length < 20)
    await new Promise((resolve) => {
      setTimeout(resolve, 5)
    })
  flow.stop()
  expect((await running).ending.kind).toBe('stopped')
}, 5000)
