/**
 * The source as a registered consumer, over kinesis-local: everything once and in order, however its subscriptions end.
 * Pauses are a tenth as long as in earnest.
 */
import {
  DescribeStreamConsumerCommand,
  DescribeStreamSummaryCommand,
  type KinesisClient,
  MergeShardsCommand,
  SplitShardCommand,
} from '@aws-sdk/client-kinesis'
import type { Clock, Delivery, Source } from '../../../src/core/contract'
import endpoint from '../../../src/endpoints/kinesis'
import { create } from '../../../src/endpoints/kinesis/source'
import { systemClock } from '../../../src/kit/clock'
import { describeWith } from '../../services/describe-with'
import {
  type AwsServer,
  kinesisClient,
  makeStream,
  put,
  shards,
  startKinesis,
  untilActive,
} from '../../services/kinesis'
import { type ContextOptions, makeSourceContext, makeTarget, type Told } from '../../support/context'
import { KinesisPushProxy, type Fate } from '../../support/kinesis-push-proxy'
import { until } from '../../support/until'

const forever = new AbortController().signal
const SHORTER = 10
/** Records of 200 kB. The emulator needs about a second for each, and more the more there are. */
const LARGE = 16
/** So many of them are written, and pushed, at a time. */
const PART = 4
const hasty: Clock = {
  now: systemClock.now,
  monotonic: systemClock.monotonic,
  sleep: (ms, signal) => systemClock.sleep(ms / SHORTER, signal),
  every: (ms, run) => systemClock.every(ms / SHORTER, run),
}
/** The emulator is silent for seconds where the machine is busy: here nobody takes that for the end. */
const lenient: Clock = {
  ...hasty,
  sleep: (ms, signal) => systemClock.sleep(ms >= 35_000 ? ms : ms / SHORTER, signal),
}
const upTo = (count: number, from = 0): readonly number[] => Array.from({ length: count }, (_, n) => from + n)
/**
 * No two streams have a consumer of the same name: kinesis-local takes one that is deregistered away from the first
 * stream that has one of its name, and another stream's own is left DELETING for good.
 */
const readerOf = (stream: string): string => `reader-${stream}`
const id = (number: number): string => `shardId-${String(number).padStart(12, '0')}`

interface Read {
  readonly values: number[]
  readonly deliveries: Delivery[]
  readonly positions: Record<string, string>
}
async function readTo(
  source: Source,
  count: number,
  into: Read = { values: [], deliveries: [], positions: {} },
  signal: AbortSignal = forever,
): Promise<Read> {
  while (into.values.length < count) {
    const delivery = await source.read(signal)
    if (delivery === null) break
    into.deliveries.push(delivery)
    into.positions[delivery.partition.name] = delivery.last
    into.values.push(...delivery.batch.entries().map(({ value }) => parseInt(String(value), 10)))
  }
  return into
}
function expectOnce(read: Read, count: number, from = 0): void {
  expect([...read.values].sort((a, b) => a - b)).toEqual(upTo(count, from))
  // The order of each key is that of its numbers.
  for (let key = 0; key < 20; key++)
    expect(read.values.filter((n) => n % 20 === key)).toEqual(upTo(count, from).filter((n) => n % 20 === key))
}

describeWith('kinesis-fanout', 'a stream as a source, pushed to a consumer', () => {
  let server: AwsServer
  let client: KinesisClient
  let proxy: KinesisPushProxy
  let stream: string
  const open: Source[] = []

  beforeAll(async () => {
    server = await startKinesis({ kind: 'kinesis-local' })
    client = kinesisClient(server)
  }, 60_000)
  afterAll(async () => {
    client.destroy()
    await server.stop()
  })
  beforeEach(async () => {
    proxy = await KinesisPushProxy.start(server.endpoint)
  })
  afterEach(async () => {
    await Promise.all(open.splice(0).map((source) => source.close()))
    await proxy.stop()
  })
  /** The last calls, for who waits in vain. */
  const seen = (): unknown =>
    proxy.calls.slice(-20).map(({ operation, status, events, records }) => [operation, status, events, records])

  async function begin(
    options: Record<string, unknown> = {},
    context: ContextOptions = {},
    clock = lenient,
    name = stream,
  ): Promise<{ readonly source: Source; readonly told: Told /** Of any shard, so far. */; pages(): number }> {
    const source = create(
      makeTarget(endpoint, `kinesis:${name}`, {
        endpoint: proxy.endpoint,
        region: server.region,
        accessKeyId: server.accessKey,
        secretAccessKey: server.secretKey,
        shardsEvery: '10s',
        consumerName: readerOf(name),
        ...options,
      }) as never,
    )
    open.push(source)
    // The emulator needs its time, also where pauses are shorter: what is registered is to be taken away.
    let closing = false
    const close = source.close.bind(source)
    source.close = (last) => {
      closing = true
      return close(last)
    }
    const sleep: Clock['sleep'] = (ms, signal) => (closing ? systemClock : clock).sleep(ms, signal)
    const { ctx, told } = makeSourceContext(context)
    let pages = 0
    const gauge = (of: string, value: number): void => {
      if (of.startsWith('behind-ms')) pages++
      ctx.gauge(of, value)
    }
    await source.open({ ...ctx, clock: { ...clock, sleep }, gauge })
    return { source, told, pages: () => pages }
  }
  const write = (from: number, count: number, name = stream): Promise<void> =>
    put(
      client,
      name,
      upTo(count, from).map((n) => ({ key: `key ${n % 20}`, data: String(n) })),
    )
  async function split(shard: string, name: string): Promise<void> {
    const { HashKeyRange } = (await shards(client, name)).find(({ ShardId }) => ShardId === shard)!
    await client.send(
      new SplitShardCommand({
        StreamName: name,
        ShardToSplit: shard,
        NewStartingHashKey: String(
          (BigInt(HashKeyRange!.StartingHashKey!) + BigInt(HashKeyRange!.EndingHashKey!)) / 2n + 1n,
        ),
      }),
    )
    await untilActive(client, name)
  }
  async function statusOf(name = readerOf(stream)): Promise<string | undefined> {
    const { StreamDescriptionSummary } = await client.send(new DescribeStreamSummaryCommand({ StreamName: stream }))
    try {
      return (
        await client.send(
          new DescribeStreamConsumerCommand({ StreamARN: StreamDescriptionSummary!.StreamARN, ConsumerName: name }),
        )
      ).ConsumerDescription?.ConsumerStatus
    } catch (error) {
      if ((error as Error).name === 'ResourceNotFoundException') return undefined
      throw error
    }
  }

  test('renewed again and again, however subscriptions end: every record once, in order, one call in five seconds', async () => {
    stream = await makeStream(client, 2)
    const ends: readonly Fate[] = [
      'end',
      'half',
      'cut',
      { exception: 'InternalFailureException' },
      'damage',
      { exception: 'ResourceInUseException' },
    ]
    // Each subscription ends at its second event.
    proxy.fate = (_, index, __, count) => (index === 0 ? 'pass' : ends[count % ends.length]!)
    const { source, told } = await begin()
    const read: Read = { values: [], deliveries: [], positions: {} }
    let n = 0
    const enough = (): boolean => [0, 1].every((shard) => proxy.subscriptions(id(shard)).length > ends.length)
    let over = false
    const latest = Date.now() + 60_000
    const writing = (async () => {
      for (; !enough() && !over; n += 40) {
        if (Date.now() > latest) throw new Error(`too few subscriptions: ${JSON.stringify(seen())}`)
        await write(n, 40)
        await new Promise((resolve) => {
          setTimeout(resolve, 150)
        })
      }
    })()
    const reading = (async () => {
      while (!enough()) await readTo(source, read.values.length + 1, read)
    })()
    await Promise.all([
      writing,
      reading.finally(() => {
        over = true
      }),
    ])
    proxy.fate = () => 'pass'
    await readTo(source, n, read)
    expectOnce(read, n)
    for (const shard of [id(0), id(1)]) {
      const stood = proxy.subscriptions(shard)
      expect(
        stood.slice(1).every(({ body: { StartingPosition } }) => StartingPosition?.Type === 'AFTER_SEQUENCE_NUMBER'),
      ).toBe(true)
      // What the proxy sees is up to a few ms off what the clock of the source saw.
      const pauses = stood.slice(1).map(({ at }, index) => at - stood[index]!.at)
      expect(Math.min(...pauses)).toBeGreaterThanOrEqual(5000 / SHORTER - 50)
    }
    expect(told.gaps).toEqual([])
    expect(proxy.of('RegisterStreamConsumer')).toHaveLength(1)
    expect(await statusOf()).toBe('ACTIVE')
    await source.close()
    expect(await statusOf()).not.toBe('ACTIVE')
  }, 90_000)

  test('start=latest: what comes before the first event of a subscription that is cut is not passed over', async () => {
    stream = await makeStream(client)
    await write(0, 20)
    let wrote: Promise<void> | undefined
    proxy.fate = async (_, __, ___, count) => {
      if (count > 1) return 'pass'
      await (wrote ??= write(20, 20))
      return 'cut'
    }
    const { source } = await begin({ start: 'latest' })
    expectOnce(await readTo(source, 20), 20, 20)
    expect(proxy.subscriptions().map(({ body: { StartingPosition } }) => StartingPosition?.Type)).toEqual([
      'LATEST',
      'AT_TIMESTAMP',
    ])
  }, 30_000)

  test('a split and a merge: children after their parents, wherever the end of a shard is told, among the events or by a question alone', async () => {
    const told = await makeStream(client, 2)
    proxy.fate = async ({ Records }, _, { body: { ShardId, ConsumerARN } }) => {
      if (!ConsumerARN!.includes(told) || Records.length > 0) return 'pass'
      const children = (await shards(client, told)).filter(({ ParentShardId, AdjacentParentShardId }) =>
        [ParentShardId, AdjacentParentShardId].includes(ShardId),
      )
      if (children.length === 0) return 'pass'
      const ChildShards = children.map(({ ShardId: child, HashKeyRange, ParentShardId, AdjacentParentShardId }) => ({
        ShardId: child,
        HashKeyRange,
        ParentShards: [ParentShardId, AdjacentParentShardId].filter((each) => each !== undefined),
      }))
      return { last: { Records: [], MillisBehindLatest: 0, ChildShards } }
    }
    const through = async (name: string): Promise<Read> => {
      await write(0, 100, name)
      const {
        source,
        told: { gaps },
      } = await begin({}, {}, lenient, name)
      const read = await readTo(source, 100)
      await split(id(0), name)
      await write(100, 100, name)
      await client.send(new MergeShardsCommand({ StreamName: name, ShardToMerge: id(3), AdjacentShardToMerge: id(1) }))
      await untilActive(client, name)
      await write(200, 100, name)
      await readTo(source, 300, read)
      expectOnce(read, 300)
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
      expect(gaps).toEqual([])
      await source.close()
      return read
    }
    await through(told)
    // A question for it is asked only where the events do not tell.
    expect(proxy.of('GetRecords')).toEqual([])
    stream = await makeStream(client, 2)
    const read = await through(stream)
    expect(proxy.of('GetRecords').length).toBeGreaterThanOrEqual(3)
    // What is stored decides where it goes on; to the end, and null for good.
    const half = read.deliveries.slice(0, Math.floor(read.deliveries.length / 2))
    const before = half.flatMap(({ batch }) => batch.entries().map(({ value }) => Number(value)))
    const again = await begin(
      {},
      { positions: Object.fromEntries(half.map(({ partition, last }) => [partition.name, last])) },
    )
    await again.source.ends!()
    const rest = await readTo(again.source, Infinity)
    expect([...before, ...rest.values].sort((a, b) => a - b)).toEqual(upTo(300))
    expect(again.told.gaps).toEqual([])
  }, 90_000)

  test('a subscription that falls silent is begun anew', async () => {
    stream = await makeStream(client)
    await write(0, 20)
    proxy.fate = (_, index, __, count) => (count === 1 && index > 0 ? 'silence' : 'pass')
    const { source } = await begin({}, {}, hasty)
    const read = await readTo(source, 20)
    await write(20, 20)
    expectOnce(await readTo(source, 40, read), 40)
    const [first, second] = proxy.subscriptions()
    expect(second!.at - first!.at).toBeGreaterThanOrEqual(35_000 / SHORTER)
  }, 30_000)

  test('whoever reads slowly holds it back: nothing is taken off the wire meanwhile, and what expires is renewed without a gap or a repeat', async () => {
    stream = await makeStream(client)
    const filler = 'x'.repeat(200_000)
    const putPart = (from: number): Promise<void> =>
      put(
        client,
        stream,
        upTo(PART, from).map((each) => ({ key: 'k', data: `${each} ${filler}` })),
      )
    await putPart(0)
    // So much takes the emulator seconds.
    const { source, pages } = await begin({}, {}, systemClock)
    const read = await readTo(source, 1)
    const [first] = proxy.subscriptions()
    // The emulator pushes each part by itself into what networks keep; here no more than what is at hand is taken.
    for (let pushed = PART; pushed < LARGE; pushed += PART) {
      await putPart(pushed)
      await until(() => first!.records >= pushed + PART, 'a part is pushed', { limitMs: 60_000, everyMs: 20, seen })
    }
    expect(first!.events).toBeGreaterThanOrEqual(LARGE / PART)
    const taken = pages()
    expect(taken).toBeLessThan(first!.events)
    await new Promise((resolve) => {
      setTimeout(resolve, 1000)
    })
    expect(pages()).toBe(taken)
    // It expires while nobody reads.
    proxy.fate = (_, __, call) => (call === first ? 'cut' : 'pass')
    expect((await readTo(source, LARGE, read)).values).toEqual(upTo(LARGE))
    for (const { batch } of read.deliveries) expect(batch.bytes).toBeLessThan(1.3 * 1024 * 1024)
  }, 120_000)

  test('positions whose record is gone are gaps, as where it is polled; --until end of an empty stream ends at once', async () => {
    stream = await makeStream(client)
    const empty = await begin()
    await empty.source.ends!()
    expect((await readTo(empty.source, Infinity)).values).toEqual([])
    await empty.source.close()
    await write(0, 20)
    const gone = (await shards(client, stream))[0]!.SequenceNumberRange!.StartingSequenceNumber!
    const { source, told } = await begin({}, { positions: { [id(0)]: gone } })
    expectOnce(await readTo(source, 20), 20)
    expect(told.gaps).toEqual([
      {
        partition: id(0),
        from: expect.stringContaining(gone) as string,
        to: expect.stringMatching(/^\d{56}:-1@/) as string,
        why: 'records were deleted before they were read (retention)',
      },
    ])
    await source.close()
    // As the service refuses a number that is none of this shard's.
    proxy.refuse = ({ operation, body: { StartingPosition } }) =>
      operation === 'SubscribeToShard' && StartingPosition?.Type === 'AT_SEQUENCE_NUMBER'
        ? { status: 400, code: 'InvalidArgumentException', message: 'StartingSequenceNumber is invalid' }
        : undefined
    const refused = await begin(
      {},
      { positions: { [id(0)]: '49590338271490256608559692538361571095921575989136588898' } },
    )
    expectOnce(await readTo(refused.source, 20), 20)
    expect(refused.told.gaps).toHaveLength(1)
  }, 60_000)

  test('what is registered goes with the last close: while it is being made, and where a fault came that nobody was told of', async () => {
    stream = await makeStream(client)
    // As the service answers while the consumer is being made.
    proxy.refuse = ({ operation }, count) =>
      operation === 'DeregisterStreamConsumer' && count === 1
        ? { status: 400, code: 'ResourceInUseException', message: 'Consumer reader is not in an ACTIVE state' }
        : undefined
    const source = create(
      makeTarget(endpoint, `kinesis:${stream}`, {
        endpoint: proxy.endpoint,
        region: server.region,
        accessKeyId: server.accessKey,
        secretAccessKey: server.secretKey,
        consumerName: readerOf(stream),
      }) as never,
    )
    open.push(source)
    const opening = source.open(makeSourceContext().ctx).then(
      () => 'open',
      (error: unknown) => (error as Error).message,
    )
    const registered = (): boolean => proxy.of('RegisterStreamConsumer').some(({ status }) => status === 200)
    await Promise.race([
      until(registered, 'registered', { everyMs: 5, seen }),
      opening.then((how) => {
        if (!registered()) throw new Error(`opened without it: ${how}`)
      }),
    ])
    await source.close()
    expect(await opening).toBe('closed here')
    expect(
      proxy
        .of('DeregisterStreamConsumer')
        .map(({ status }) => status)
        .slice(-2),
    ).toEqual([400, 200])
    await until(async () => (await statusOf()) === undefined, 'the consumer is gone', { seen })

    const other = await begin()
    expect(await statusOf()).toBe('ACTIVE')
    // Reading has stopped; what was read is still on its way.
    proxy.refuse = ({ operation }) =>
      operation === 'SubscribeToShard' ? { status: 400, code: 'AccessDeniedException' } : undefined
    proxy.fate = () => 'cut'
    await write(0, 1)
    const failing = other.source as unknown as { readonly failure: unknown }
    await until(() => failing.failure !== undefined, 'reading has failed', { everyMs: 5, seen })
    const before = proxy.of('DeregisterStreamConsumer').length
    await other.source.close()
    expect(
      proxy
        .of('DeregisterStreamConsumer')
        .slice(before)
        .map(({ status }) => status),
    ).toEqual([200])
  }, 60_000)

  test('what asks for patience is waited for; what persists, and what is refused, is told', async () => {
    stream = await makeStream(client)
    await write(0, 20)
    proxy.refuse = ({ operation }, count) =>
      operation !== 'SubscribeToShard' || count > 6
        ? undefined
        : count % 2 === 0
          ? { status: 400, code: 'LimitExceededException', message: 'Rate exceeded' }
          : {
              status: 400,
              code: 'ResourceInUseException',
              message: 'Another active subscription exists for this consumer',
            }
    const { source, told } = await begin()
    expectOnce(await readTo(source, 20), 20)
    expect(told.gauges.get(`throttled ${id(0)}`)).toBe(0)
    const calls = proxy.of('SubscribeToShard').map(({ at }) => at)
    expect(Math.min(...calls.slice(1).map((at, index) => at - calls[index]!))).toBeGreaterThanOrEqual(
      1000 / SHORTER - 20,
    )
    proxy.fate = () => ({ exception: 'KMSAccessDeniedException' })
    await expect(readTo(source, 21)).rejects.toThrow(
      /^Kinesis at .* could not push the events of shardId-000000000000: KMS denies it: the credentials need kms:Decrypt/,
    )
    await source.close()
    const fates = [
      ['drop', /^Kinesis has told nothing of shardId-000000000000 for 35 s$/],
      [
        { exception: 'InternalFailureException' },
        /could not subscribe to shardId-000000000000: InternalFailureException/,
      ],
      ['end', /ended before its first event/],
    ] as const
    const streams = await Promise.all(fates.map(() => makeStream(client)))
    const of = (arn: string | undefined): number => streams.findIndex((each) => arn?.includes(each))
    proxy.fate = (_, __, { body: { ConsumerARN } }) => fates[of(ConsumerARN)]?.[0] ?? 'pass'
    await Promise.all(
      fates.map(async ([, message], index) => {
        const failing = await begin({}, {}, hasty, streams[index])
        await expect(readTo(failing.source, 1)).rejects.toThrow(message)
        expect(proxy.subscriptions().filter(({ body: { ConsumerARN } }) => of(ConsumerARN) === index)).toHaveLength(3)
      }),
    )
  }, 90_000)
})
