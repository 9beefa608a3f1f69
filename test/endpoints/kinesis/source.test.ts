/** The source over kinesalite: everything once and in order, over splits and merges, restarts, gaps and ends. */
import type { KinesisClient } from '@aws-sdk/client-kinesis'
import type { Delivery, Source } from '../../../src/core/contract'
import endpoint from '../../../src/endpoints/kinesis'
import { create } from '../../../src/endpoints/kinesis/source'
import { describeWith } from '../../services/describe-with'
import {
  type AwsServer,
  kinesisClient,
  makeStream,
  merge as mergeIn,
  put,
  shards,
  split as splitIn,
  startKinesis,
} from '../../services/kinesis'
import { makeSourceContext, makeTarget, type ContextOptions, type Told } from '../../support/context'

const forever = new AbortController().signal
const numbers = (from: number, count: number): readonly { readonly key: string; readonly data: string }[] =>
  Array.from({ length: count }, (_, index) => ({ key: `key ${(from + index) % 20}`, data: String(from + index) }))

interface Read {
  readonly values: number[]
  readonly shards: string[]
  readonly positions: Record<string, string>
  readonly deliveries: Delivery[]
}
function nothing(): Read {
  return { values: [], shards: [], positions: {}, deliveries: [] }
}
/** Reads on until there are so many values; null ends it, too. */
async function readTo(source: Source, count: number, into = nothing(), signal: AbortSignal = forever): Promise<Read> {
  while (into.values.length < count) {
    const delivery = await source.read(signal)
    if (delivery === null) break
    into.deliveries.push(delivery)
    into.positions[delivery.partition.name] = delivery.last
    for (const { value } of delivery.batch.entries()) {
      into.values.push(Number(value))
      into.shards.push(delivery.partition.name)
    }
  }
  return into
}

describeWith('kinesis', 'a stream as a source', () => {
  let server: AwsServer
  let client: KinesisClient
  let stream: string
  const open: Source[] = []

  beforeAll(async () => {
    server = await startKinesis({ kind: 'kinesalite' })
    client = kinesisClient(server)
  }, 60_000)
  afterAll(async () => {
    client.destroy()
    await server.stop()
  })
  afterEach(async () => {
    for (const source of open.splice(0)) await source.close()
  })

  async function begin(
    options: Record<string, unknown> = {},
    context: ContextOptions = {},
  ): Promise<{ readonly source: Source; readonly told: Told }> {
    const source = create(
      makeTarget(endpoint, `kinesis:${stream}`, {
        endpoint: server.endpoint,
        region: server.region,
        accessKeyId: server.accessKey,
        secretAccessKey: server.secretKey,
        pollEvery: '200ms',
        shardsEvery: '1s',
        ...options,
      }) as never,
    )
    open.push(source)
    const { ctx, told } = makeSourceContext(context)
    await source.open(ctx)
    return { source, told }
  }
  const split = (shard: string): Promise<void> => splitIn(client, stream, shard)
  const merge = (one: string, other: string): Promise<void> => mergeIn(client, stream, one, other)
  const id = (number: number): string => `shardId-${String(number).padStart(12, '0')}`

  test('every record of every shard, with key, value, time and a position after each', async () => {
    stream = await makeStream(client, 3)
    await put(client, stream, numbers(0, 2500))
    const { source } = await begin()
    const { values, deliveries } = await readTo(source, 2500)
    expect([...values].sort((a, b) => a - b)).toEqual(Array.from({ length: 2500 }, (_, n) => n))
    for (const { batch, partition } of deliveries.filter(({ batch: { count } }) => count > 0)) {
      const entries = batch.entries()
      expect(partition).toEqual({ name: expect.stringMatching(/^shardId-00000000000[012]$/) as string, epoch: 1 })
      expect(String(entries[0]!.key)).toBe(`key ${Number(entries[0]!.value) % 20}`)
      expect(Math.abs(entries[0]!.timestamp! - Date.now())).toBeLessThan(300_000)
      // Lines and entries hold the same.
      expect(Buffer.concat(batch.lines().chunks).toString()).toBe(
        entries.map(({ value }) => `${String(value)}\n`).join(''),
      )
    }
    const middle = deliveries.find(({ batch: { count } }) => count > 100)!
    const again = await begin({}, { positions: { [middle.partition.name]: middle.at(49) } })
    const rest = middle.batch
      .entries()
      .slice(50)
      .map(({ value }) => Number(value))
    const read = nothing()
    while (read.values.length < 2500 - 50) await readTo(again.source, read.values.length + 1, read)
    expect(
      read.values.filter((_, index) => read.shards[index] === middle.partition.name).slice(0, rest.length),
    ).toEqual(rest)
    expect(new Set(read.values).size).toBe(2450)
    expect(again.told.gaps).toEqual([])
  }, 60_000)

  test('a child begins once its parents were handed on to their ends, from its beginning; what ended is known to have ended', async () => {
    stream = await makeStream(client, 2)
    await put(client, stream, numbers(0, 400))
    const { source, told } = await begin()
    const read = await readTo(source, 400)
    await split(id(0))
    await put(client, stream, numbers(400, 400))
    await merge(id(3), id(1))
    await put(client, stream, numbers(800, 400))
    await readTo(source, 1200, read)
    expect([...read.values].sort((a, b) => a - b)).toEqual(Array.from({ length: 1200 }, (_, n) => n))
    // The order of each key is that of its numbers, through three generations.
    for (let key = 0; key < 20; key++) {
      const own = read.values.filter((n) => n % 20 === key)
      expect(own).toEqual([...own].sort((a, b) => a - b))
    }
    expect(new Set(read.shards)).toEqual(new Set([id(0), id(1), id(2), id(3), id(4)]))
    const order = read.deliveries.map(
      ({ partition, last }) => `${partition.name} ${last.startsWith('end@') ? 'ends' : 'goes on'}`,
    )
    for (const [child, parent] of [
      [2, 0],
      [3, 0],
      [4, 1],
      [4, 3],
    ] as const)
      expect(order.indexOf(`${id(child)} goes on`)).toBeGreaterThan(order.indexOf(`${id(parent)} ends`))
    expect(read.positions[id(0)]).toMatch(/^end@\d+/)
    expect(told.gaps).toEqual([])

    // Opened again at any moment: what is stored decides, and nothing of what ended is read again.
    const half = read.deliveries.slice(0, Math.floor(read.deliveries.length / 2))
    const before = new Set(half.flatMap(({ batch }) => batch.entries().map(({ value }) => Number(value))))
    const again = await begin(
      { start: 'latest' },
      { positions: Object.fromEntries(half.map(({ partition, last }) => [partition.name, last])) },
    )
    const rest = await readTo(again.source, 1200 - before.size)
    expect([...before, ...rest.values].sort((a, b) => a - b)).toEqual(Array.from({ length: 1200 }, (_, n) => n))
    const all = await begin({}, { positions: read.positions })
    await put(client, stream, numbers(1200, 20))
    expect((await readTo(all.source, 20)).values.every((n) => n >= 1200)).toBe(true)
  }, 60_000)

  test('start=latest: of the shards that are there only what comes, of those that appear later everything', async () => {
    stream = await makeStream(client)
    await put(client, stream, numbers(0, 50))
    await split(id(0))
    await put(client, stream, numbers(50, 50))
    // kinesalite stamps what comes within a second of a split with a time to come.
    await new Promise((resolve) => {
      setTimeout(resolve, 1100)
    })
    const { source } = await begin({ start: 'latest', shardsEvery: '60s' })
    const noted = nothing()
    while (Object.keys(noted.positions).length < 3) {
      const { partition, last, batch } = (await source.read(forever))!
      expect(batch.count).toBe(0)
      noted.positions[partition.name] = last
    }
    expect(noted.positions[id(0)]).toMatch(/^end@/)
    expect(noted.positions[id(1)]).toMatch(/^time:\d+@/)
    // Its iterators are made with the first question; a record before that would be no fault.
    await new Promise((resolve) => {
      setTimeout(resolve, 1000)
    })
    await put(client, stream, numbers(100, 50))
    await merge(id(1), id(2))
    await put(client, stream, numbers(150, 50))
    const read = await readTo(source, 100)
    expect([...read.values].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, n) => 100 + n))
    expect(read.shards.slice(-50).every((shard) => shard === id(3))).toBe(true)
    // Opened again at what was noted, nothing that came since is passed over.
    const again = await begin({}, { positions: noted.positions })
    expect((await readTo(again.source, 100)).values.sort((a, b) => a - b)).toEqual(
      Array.from({ length: 100 }, (_, n) => 100 + n),
    )
  }, 60_000)

  test("start=TIME, a sequence number, and shard=, whose end is the source's", async () => {
    stream = await makeStream(client)
    await put(client, stream, numbers(0, 20))
    await new Promise((resolve) => {
      setTimeout(resolve, 1100)
    })
    const time = new Date().toISOString()
    await new Promise((resolve) => {
      setTimeout(resolve, 1100)
    })
    await put(client, stream, numbers(20, 20))
    const timed = await begin({ start: time })
    expect((await readTo(timed.source, 20)).values).toEqual(Array.from({ length: 20 }, (_, n) => 20 + n))
    await split(id(0))
    await put(client, stream, numbers(40, 20))
    const one = await begin({ shard: '0' })
    const { values, deliveries } = await readTo(one.source, Infinity)
    expect(values).toEqual(Array.from({ length: 40 }, (_, n) => n))
    const [sequence] = deliveries
      .find(({ batch }) => batch.count > 10)!
      .at(9)
      .split('@')
    expect((await readTo((await begin({ shard: id(0), start: sequence! })).source, Infinity)).values[0]).toBe(9)
    expect(
      (await readTo((await begin({ shard: id(0), start: `AFTER_SEQUENCE_NUMBER:${sequence!}` })).source, Infinity))
        .values[0],
    ).toBe(10)
    await expect(begin({ shard: '9' })).rejects.toThrow(
      `stream ${stream} has no shardId-000000000009: shardId-000000000000, shardId-000000000001, shardId-000000000002 are there`,
    )
  }, 60_000)

  test('--until end: what is there at the start, children included, then null for good; --until TIME: what had arrived by then', async () => {
    stream = await makeStream(client, 2)
    await put(client, stream, numbers(0, 100))
    await split(id(1))
    await put(client, stream, numbers(100, 100))
    const { source } = await begin()
    await source.ends!()
    const { values } = await readTo(source, Infinity)
    expect([...values].sort((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (_, n) => n))
    expect(await source.read(forever)).toBeNull()
    await new Promise((resolve) => {
      setTimeout(resolve, 1100)
    })
    const time = Date.now()
    await new Promise((resolve) => {
      setTimeout(resolve, 1100)
    })
    await put(client, stream, numbers(200, 100))
    const timed = await begin()
    await timed.source.endsAt!(time)
    expect((await readTo(timed.source, Infinity)).values).toHaveLength(200)
  }, 60_000)

  test('--until end of an empty stream ends at once', async () => {
    stream = await makeStream(client, 2)
    const { source } = await begin()
    await source.ends!()
    expect((await readTo(source, Infinity)).values).toEqual([])
  })

  describe('where what was to be read is gone', () => {
    const old = { createdAt: 1_500_000_000_000, sequence: '49590338271490256608559692538361571095921575989136588898' }

    test.each(['oldest', 'latest'])(
      'a stream that was made anew is a gap, told once, then on-gap=%s',
      async (onGap) => {
        stream = await makeStream(client)
        await put(client, stream, numbers(0, 10))
        const positions = {
          [id(0)]: `${old.sequence}@${old.createdAt}`,
          [id(5)]: `${old.sequence}@${old.createdAt}`,
          [id(6)]: `end@${old.createdAt}`,
        }
        const { source, told } = await begin({ onGap }, { positions })
        expect(told.gaps).toEqual(
          [0, 5].map((n) => ({
            partition: id(n),
            from: positions[id(n)],
            to: 'the end of the deleted stream',
            why: 'the stream was deleted and made anew',
          })),
        )
        const noted = nothing()
        while (Object.keys(noted.positions).length < 2) {
          const { partition, last, batch } = (await source.read(forever))!
          noted.values.push(...batch.entries().map(({ value }) => Number(value)))
          noted.positions[partition.name] = last
        }
        if (onGap === 'latest')
          await new Promise((resolve) => {
            setTimeout(resolve, 1000)
          })
        await put(client, stream, numbers(10, 10))
        const first = onGap === 'oldest' ? 0 : 10
        await readTo(source, 20 - first, noted)
        expect(noted.values).toEqual(Array.from({ length: 20 - first }, (_, n) => first + n))
        // With what it noted it is told no more.
        expect((await begin({ onGap }, { positions: { ...positions, ...noted.positions } })).told.gaps).toEqual([])
      },
      30_000,
    )

    test('on-gap=fail: it ends, and says what is gone', async () => {
      stream = await makeStream(client)
      await expect(
        begin({ onGap: 'fail' }, { positions: { [id(0)]: `${old.sequence}@${old.createdAt}` } }),
      ).rejects.toThrow(`${id(0)}: the stream was deleted and made anew, and on-gap=fail`)
    })

    test('a position whose record was trimmed is a gap, unless nothing was unread until lately', async () => {
      stream = await makeStream(client)
      await put(client, stream, numbers(0, 10))
      const [shard] = await shards(client, stream)
      // The number of the shard's beginning is none of a record.
      const gone = shard!.SequenceNumberRange!.StartingSequenceNumber!
      const { source, told } = await begin({}, { positions: { [id(0)]: gone } })
      expect((await readTo(source, 10)).values).toEqual(Array.from({ length: 10 }, (_, n) => n))
      expect(told.gaps).toEqual([
        {
          partition: id(0),
          from: expect.stringContaining(gone) as string,
          to: expect.stringMatching(/^\d{56}:-1@\d+~\d+$/) as string,
          why: 'records were deleted before they were read (retention)',
        },
      ])
      const idle = await begin({}, { positions: { [id(0)]: `${gone}~${Date.now() - 3_600_000}` } })
      expect((await readTo(idle.source, 10)).values).toHaveLength(10)
      expect(idle.told.gaps).toEqual([])
      const away = await begin({ onGap: 'latest' }, { positions: { [id(0)]: `${gone}~${Date.now() - 90_000_000}` } })
      expect((await away.source.read(forever))!.last).toMatch(/^time:/)
      expect(away.told.gaps).toHaveLength(1)
      const failing = await begin({ onGap: 'fail' }, { positions: { [id(0)]: gone } })
      await expect(readTo(failing.source, 1)).rejects.toThrow('on-gap=fail')
    }, 30_000)

    test('a sequence number that the service does not take is a gap, too', async () => {
      stream = await makeStream(client)
      await put(client, stream, numbers(0, 10))
      const { source, told } = await begin({}, { positions: { [id(0)]: old.sequence } })
      expect((await readTo(source, 10)).values).toHaveLength(10)
      expect(told.gaps).toHaveLength(1)
    }, 30_000)

    test('a shard that is not kept any more before it was read to its end is a gap, told once', async () => {
      stream = await makeStream(client)
      await put(client, stream, numbers(0, 10))
      const first = await begin()
      const { positions } = await readTo(first.source, 10)
      const createdAt = /@(\d+)/.exec(positions[id(0)]!)![1]!
      const { source, told } = await begin({}, { positions: { ...positions, [id(9)]: `${old.sequence}@${createdAt}` } })
      expect(told.gaps).toEqual([
        {
          partition: id(9),
          from: `${old.sequence}@${createdAt}`,
          to: 'the end of the shard',
          why: 'the shard is not kept any more (retention)',
        },
      ])
      expect(await source.read(forever)).toMatchObject({ partition: { name: id(9) }, last: `end@${createdAt}` })
    }, 30_000)
  })
})
