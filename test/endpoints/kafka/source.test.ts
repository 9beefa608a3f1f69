/**
 * The source on a real broker, without a group: where it begins, where it goes on, where it ends, and what it says of
 * what is gone.
 */
import type { Delivery, Entry, Source, SourceContext } from '../../../src/core/contract'
import { Disconnected } from '../../../src/core/errors'
import { create } from '../../../src/endpoints/kafka/source'
import { decodePosition } from '../../../src/endpoints/kafka/consume/position'
import { makeTopic, put, startKafka, type KafkaServer } from '../../services/kafka'
import { makeSourceContext, type ContextOptions } from '../../support/context'
import { describeWith } from '../../services/describe-with'
import { kafkaTarget } from '../../support/kafka-target'

const forever = new AbortController().signal

interface Reader {
  readonly source: Source
  readonly told: ReturnType<typeof makeSourceContext>['told']
  readonly positions: Record<string, string>
  readonly deliveries: Delivery[]
  /** Records as text with partition and offset, until so many are there, or the end. */
  take(count: number): Promise<string[]>
  entries(count: number): Promise<Entry[]>
}

describeWith('kafka', 'a topic as a source', () => {
  let server: KafkaServer
  const open: Source[] = []
  beforeAll(async () => {
    server = await startKafka()
  }, 90_000)
  afterAll(async () => {
    await server.stop()
  })
  afterEach(async () => {
    for (const source of open.splice(0)) await source.close()
  })

  function make(topic: string, given: Record<string, unknown> = {}): Source {
    const source = create(kafkaTarget(`kafka://${server.bootstrap}/${topic}`, { fetchWait: 100, ...given }))
    open.push(source)
    return source
  }
  async function reader(
    topic: string,
    given: Record<string, unknown> = {},
    context: ContextOptions = {},
    before?: (source: Source) => Promise<unknown>,
  ): Promise<Reader> {
    const source = make(topic, given)
    const { ctx, told } = makeSourceContext(context)
    await opened(source, ctx)
    await before?.(source)
    const positions: Record<string, string> = {}
    const deliveries: Delivery[] = []
    const entries = async (count: number): Promise<Entry[]> => {
      const found: Entry[] = []
      while (found.length < count) {
        const delivery = await source.read(AbortSignal.timeout(15_000))
        if (delivery === null) break
        deliveries.push(delivery)
        positions[delivery.partition.name] = delivery.last
        found.push(...delivery.batch.entries())
      }
      return found
    }
    return {
      source,
      told,
      positions,
      deliveries,
      entries,
      take: async (count) => (await entries(count)).map(({ value }) => String(value)),
    }
  }
  /** As the core does it: a topic that was made just now may not be led yet. */
  async function opened(source: Source, ctx: SourceContext): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        await source.open(ctx)
        return
      } catch (error) {
        if (!(error instanceof Disconnected) || tries > 20) throw error
        await source.close()
        await ctx.clock.sleep(100, forever)
      }
    }
  }
  const numbered = (from: number, count: number, partition = 0) =>
    Array.from({ length: count }, (_, index) => ({ value: `record ${from + index}`, partition }))
  const texts = (from: number, count: number): string[] =>
    Array.from({ length: count }, (_, index) => `record ${from + index}`)
  const id = (position: string | undefined): string => decodePosition(position ?? '')?.topicId ?? ''

  it.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const)(
    'keys, headers, timestamps, NUL bytes and tombstones come as they were sent, with %s',
    async (compression) => {
      const topic = await makeTopic(server)
      await put(
        server,
        topic,
        [
          {
            value: Buffer.from([0, 1, 255, 10, 0]),
            key: Buffer.from([0, 255]),
            headers: [
              ['h', 'x'],
              ['h', ''],
              ['ü', 'ö'],
            ],
            timestamp: 1_700_000_000_123,
          },
          { value: null, key: 'gone', timestamp: 1_700_000_000_124 },
          { value: '', timestamp: 1_700_000_000_125 },
        ],
        compression,
      )
      const read = await reader(topic)
      const [first, second, third] = await read.entries(3)
      expect(first).toEqual({
        value: Buffer.from([0, 1, 255, 10, 0]),
        key: Buffer.from([0, 255]),
        headers: [
          ['h', Buffer.from('x')],
          ['h', Buffer.alloc(0)],
          ['ü', Buffer.from('ö')],
        ],
        timestamp: 1_700_000_000_123,
      })
      expect(second).toMatchObject({ value: null, key: Buffer.from('gone') })
      expect(third).toMatchObject({ value: Buffer.alloc(0), timestamp: 1_700_000_000_125 })
      expect(third).not.toHaveProperty('key')
    },
  )

  it('begins with an empty delivery per partition that carries the position, then goes on after any record of any delivery', async () => {
    const topic = await makeTopic(server, { partitions: 2 })
    await put(server, topic, [...numbered(0, 500, 0), ...numbered(1000, 500, 1)])
    const first = await reader(topic)
    await first.take(1)
    const begun = first.deliveries.filter(({ batch }) => batch.count === 0)
    expect(
      new Set(begun.map(({ partition, last }) => `${partition.name} ${decodePosition(last)?.offset ?? -1}`)),
    ).toEqual(new Set([`${topic}-0 0`, `${topic}-1 0`]))
    const some = first.deliveries.at(-1)
    expect(some?.batch.count).toBeGreaterThan(10)
    const middle = some?.at(6) ?? ''
    expect(decodePosition(middle)?.offset).toBe(7)
    const partition = some?.partition.name ?? ''
    const rest = await reader(topic, { partition: partition.at(-1) }, { positions: { [partition]: middle } })
    expect(await rest.take(493)).toEqual(texts(partition.endsWith('-1') ? 1007 : 7, 493))
  })

  it.each([
    ['oldest', 0],
    ['latest', 100],
    ['-30', 70],
    ['-1000', 0],
    ['42', 42],
    ['5000', 100],
    ['2023-11-14T22:13:50Z', 30],
    ['2200-01-01T00:00:00Z', 100],
    ['2001-01-01T00:00:00Z', 0],
  ])('start=%s', async (start, from) => {
    const topic = await makeTopic(server)
    // One record a second from 2023-11-14T22:13:20Z on.
    await put(
      server,
      topic,
      numbered(0, 100).map((record, index) => ({ ...record, timestamp: 1_700_000_000_000 + index * 1000 })),
    )
    const read = await reader(topic, { start })
    if (from === 100) {
      await read.source.read(forever)
      await put(server, topic, [{ value: 'afterwards' }])
      expect(await read.take(1)).toEqual(['afterwards'])
    } else expect(await read.take(100 - from)).toEqual(texts(from, 100 - from))
  })

  it('start=-1h begins with what is younger than an hour', async () => {
    const topic = await makeTopic(server)
    const minutes = (count: number): number => Date.now() - count * 60_000
    await put(
      server,
      topic,
      [
        [0, 120],
        [1, 61],
        [2, 59],
        [3, 1],
      ].map(([n = 0, age = 0]) => ({ value: `record ${n}`, timestamp: minutes(age) })),
    )
    const read = await reader(topic, { start: '-1h' })
    expect(await read.take(2)).toEqual(texts(2, 2))
  })

  it('partition= reads only those, each from where it says', async () => {
    const topic = await makeTopic(server, { partitions: 4 })
    for (let partition = 0; partition < 4; partition++)
      await put(server, topic, numbered(partition * 100, 10, partition))
    const read = await reader(topic, { partition: '1:8,3' })
    expect((await read.take(12)).sort()).toEqual([...texts(108, 2), ...texts(300, 10)].sort())
    await expect(reader(topic, { partition: '9' })).rejects.toThrow(
      `topic ${topic} has no partition 9: it has 4, the first of which is 0`,
    )
  })

  it('a topic that is not there is told by name', async () => {
    await expect(reader('nowhere')).rejects.toThrow('there is no topic nowhere: create it, correct its name')
  })

  it('a read that waits rejects promptly when its signal aborts, and loses nothing', async () => {
    const topic = await makeTopic(server)
    const read = await reader(topic, { fetchWait: 5000 })
    await read.source.read(forever)
    const aborted = new AbortController()
    const waiting = read.source.read(aborted.signal)
    const since = Date.now()
    aborted.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    expect(Date.now() - since).toBeLessThan(500)
    await put(server, topic, numbered(0, 3))
    expect(await read.take(3)).toEqual(texts(0, 3))
  })

  it('opened again after close it goes on after what was read, not after what was fetched', async () => {
    const topic = await makeTopic(server, { partitions: 3 })
    for (let partition = 0; partition < 3; partition++)
      for (let at = 0; at < 1000; at += 50) await put(server, topic, numbered(partition * 1000 + at, 50, partition))
    const { source, positions, ...read } = await reader(topic, { partitionMaxBytes: 2000, fetchMaxBytes: 4000 })
    const seen = await read.take(200)
    for (let round = 0; round < 5; round++) {
      await source.close()
      await source.open(makeSourceContext({ positions }).ctx)
      seen.push(...(await read.take(200)))
    }
    seen.push(...(await read.take(3000 - seen.length)))
    expect(seen.sort()).toEqual([...texts(0, 1000), ...texts(1000, 1000), ...texts(2000, 1000)].sort())
  })

  describe('--until end', () => {
    const toEnd = (topic: string, given: Record<string, unknown> = {}) =>
      reader(topic, given, {}, (source) => source.ends!())
    it('stops at what was there at the start', async () => {
      const topic = await makeTopic(server, { partitions: 3 })
      await put(server, topic, [...numbered(0, 100, 0), ...numbered(100, 1, 1)])
      const read = await toEnd(topic)
      await put(server, topic, numbered(500, 50, 0))
      expect((await read.take(Infinity)).sort()).toEqual(texts(0, 101).sort())
      expect(await read.source.read(forever)).toBeNull()
    })
    it('tells the ends, null where there is nothing', async () => {
      const topic = await makeTopic(server, { partitions: 2 })
      await put(server, topic, numbered(0, 10, 1))
      const source = make(topic)
      await opened(source, makeSourceContext().ctx)
      const ends = await source.ends!()
      expect([ends.get(`${topic}-0`), decodePosition(ends.get(`${topic}-1`) ?? '')?.offset]).toEqual([null, 10])
    })
    it('of an empty topic is at once', async () => {
      const read = await toEnd(await makeTopic(server, { partitions: 2 }))
      expect(await read.take(Infinity)).toEqual([])
    })
    it('as of a time stops before what came then', async () => {
      const topic = await makeTopic(server)
      await put(
        server,
        topic,
        numbered(0, 100).map((record, index) => ({ ...record, timestamp: 1_700_000_000_000 + index * 1000 })),
      )
      const read = await reader(topic, {}, {}, (source) => source.endsAt!(1_700_000_030_000))
      expect(await read.take(Infinity)).toEqual(texts(0, 30))
    })
  })

  describe('records that are gone', () => {
    it('by retention are a gap, then it goes on at the oldest', async () => {
      const topic = await makeTopic(server)
      await put(server, topic, numbered(0, 100))
      const before = await reader(topic)
      await before.take(100)
      await before.source.close()
      await deleteRecords(server, topic, 60)
      const read = await reader(
        topic,
        {},
        { positions: { [`${topic}-0`]: (before.positions[`${topic}-0`] ?? '').replace(/^\d+/, '20') } },
      )
      expect(await read.take(40)).toEqual(texts(60, 40))
      const here = id(read.positions[`${topic}-0`])
      expect(read.told.gaps).toEqual([
        {
          partition: `${topic}-0`,
          from: `20@${here}`,
          to: `60@${here}`,
          records: 40,
          why: 'they were deleted before they were read (retention)',
        },
      ])
    })
    it('with on-gap=latest it goes on at the end, with fail not at all', async () => {
      const topic = await makeTopic(server)
      await put(server, topic, numbered(0, 100))
      await deleteRecords(server, topic, 60)
      const read = await reader(topic, { onGap: 'latest' }, { positions: { [`${topic}-0`]: '20' } })
      expect(decodePosition((await read.source.read(forever))?.last ?? '')?.offset).toBe(100)
      const failing = await reader(topic, { onGap: 'fail' }, { positions: { [`${topic}-0`]: '20' } })
      await expect(failing.take(1)).rejects.toThrow('the records from offset 20 on are gone, and on-gap=fail')
    })
    it('a position beyond the end is a gap, too', async () => {
      const topic = await makeTopic(server)
      await put(server, topic, numbered(0, 10))
      const read = await reader(topic, {}, { positions: { [`${topic}-0`]: '500' } })
      expect(await read.take(10)).toEqual(texts(0, 10))
      expect(read.deliveries.map(({ last }) => decodePosition(last)?.offset)).toEqual([0, 10])
      expect(read.told.gaps).toMatchObject([
        { to: 'the end of what was cut off', why: 'the partition ends at 10: its log was cut back' },
      ])
      expect(decodePosition(read.told.gaps[0]?.from ?? '')?.offset).toBe(500)
    })
    it('a topic that was made anew while we were away is read from its start, with a gap', async () => {
      const topic = await makeTopic(server)
      await put(server, topic, numbered(0, 100))
      const before = await reader(topic)
      await before.take(100)
      await server.deleteTopics([topic])
      await createWhenGone(server, topic)
      await put(server, topic, numbered(500, 200))
      const read = await reader(topic, {}, { positions: before.positions })
      expect(await read.take(200)).toEqual(texts(500, 200))
      expect(read.told.gaps).toEqual([
        expect.objectContaining({
          partition: `${topic}-0`,
          from: before.positions[`${topic}-0`],
          why: `topic ${topic} was deleted and made anew`,
        }),
      ])
      expect(id(read.positions[`${topic}-0`])).not.toBe(id(before.positions[`${topic}-0`]))
    })
    it('a topic that is made anew while it is read is read from its start, with a gap', async () => {
      const topic = await makeTopic(server)
      await put(server, topic, numbered(0, 10))
      const read = await reader(topic)
      expect(await read.take(10)).toEqual(texts(0, 10))
      const next = read.take(5)
      await server.deleteTopics([topic])
      await createWhenGone(server, topic)
      await put(server, topic, numbered(500, 5))
      expect(await next).toEqual(texts(500, 5))
      expect(read.told.gaps).toEqual([
        expect.objectContaining({ partition: `${topic}-0`, why: `topic ${topic} was deleted and made anew` }),
      ])
    })
    it('a topic that is deleted for good ends reading with its name', async () => {
      const topic = await makeTopic(server)
      const read = await reader(topic)
      await read.source.read(forever)
      const next = read.take(1)
      await server.deleteTopics([topic])
      await expect(next).rejects.toThrow(`there is no topic ${topic}`)
    })
  })

  it('partitions that are added while it runs are read from their oldest record, whatever start says', async () => {
    const topic = await makeTopic(server)
    const read = await reader(topic, { start: 'latest', metadataEvery: 1000 })
    await read.source.read(forever)
    await server.addPartitions(topic, 3)
    await put(server, topic, numbered(0, 10, 2))
    expect(await read.take(10)).toEqual(texts(0, 10))
  })
  it('~REGEX reads all topics that fit, those that appear later from their oldest record', async () => {
    const first = await makeTopic(server, { prefix: 'regex-a-' })
    await put(server, first, numbered(0, 5))
    const read = await reader('~regex-[ab]-.*', { metadataEvery: 1000 })
    expect(await read.take(5)).toEqual(texts(0, 5))
    const second = await makeTopic(server, { prefix: 'regex-b-' })
    const other = await makeTopic(server, { prefix: 'regex-c-' })
    await put(server, other, numbered(900, 5))
    await put(server, second, numbered(100, 5))
    expect(await read.take(5)).toEqual(texts(100, 5))
  })
  it('tells how many records each partition is behind', async () => {
    const topic = await makeTopic(server, { partitions: 2 })
    for (let at = 0; at < 500; at += 50) await put(server, topic, numbered(at, 50))
    const read = await reader(topic, { partitionMaxBytes: 1024, fetchMaxBytes: 1024 })
    const first = await read.take(1)
    const lag = read.told.gauges.get(`lag ${topic}-0`) ?? 0
    expect([first.length < 500, lag]).toEqual([true, 500 - first.length])
    await read.take(lag)
    expect(read.told.gauges.get(`lag ${topic}-0`)).toBe(0)
  })
})

async function deleteRecords(server: KafkaServer, topic: string, before: number): Promise<void> {
  const { Admin } = await import('@platformatic/kafka')
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: server.bootstrap.split(',') })
  try {
    await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: BigInt(before) }] }] })
  } finally {
    await admin.close()
  }
}
/** A deletion is over a moment after it is answered. */
async function createWhenGone(server: KafkaServer, topic: string): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await server.createTopics([topic])
      return
    } catch (error) {
      if (tries > 50) throw error
    }
    await new Promise((resolve) => {
      setTimeout(resolve, 50)
    })
  }
}
