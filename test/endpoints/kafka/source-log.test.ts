/**
 * What lies in a partition beside records: markers of transactions, aborted and open ones, holes that compaction left;
 * and Kafka's own console tools on the other side.
 */
import type { Producer as AnyProducer } from '@platformatic/kafka'
import type { Source, SourceContext } from '../../../src/core/contract'
import { Disconnected } from '../../../src/core/errors'
import { decodePosition } from '../../../src/endpoints/kafka/consume/position'
import { create } from '../../../src/endpoints/kafka/source'
import { describeWith } from '../../services/describe-with'
import { ends, makeTopic, put, runKcat, startKafka, type KafkaServer } from '../../services/kafka'
import { makeSourceContext } from '../../support/context'
import { kafkaTarget } from '../../support/kafka-target'

type Producer = AnyProducer
const forever = new AbortController().signal

describeWith('kafka', 'a log that holds more than records', () => {
  let server: KafkaServer
  const open: Source[] = []
  const producers: Producer[] = []
  beforeAll(async () => {
    server = await startKafka({ properties: { 'log.cleaner.backoff.ms': 100, 'log.retention.check.interval.ms': 100 } })
  }, 90_000)
  afterAll(async () => {
    await server.stop()
  })
  afterEach(async () => {
    for (const source of open.splice(0)) await source.close()
    for (const producer of producers.splice(0)) await producer.close()
  })

  async function opened(topic: string, given: Record<string, unknown> = {}): Promise<Source> {
    const source = create(kafkaTarget(`kafka://${server.bootstrap}/${topic}`, { fetchWait: 100, ...given }))
    open.push(source)
    const { ctx }: { readonly ctx: SourceContext } = makeSourceContext()
    for (let tries = 1; ; tries++) {
      try {
        await source.open(ctx)
        return source
      } catch (error) {
        if (!(error instanceof Disconnected) || tries > 20) throw error
        await source.close()
        await ctx.clock.sleep(100, forever)
      }
    }
  }
  /** All of it up to the end as of now, and the last position. */
  async function toEnd(
    topic: string,
    given: Record<string, unknown> = {},
  ): Promise<{ readonly values: string[]; readonly offset: number }> {
    const source = await opened(topic, given)
    await source.ends!()
    const values: string[] = []
    let offset = -1
    for (
      let delivery = await source.read(AbortSignal.timeout(20_000));
      delivery !== null;
      delivery = await source.read(AbortSignal.timeout(20_000))
    ) {
      values.push(...delivery.batch.entries().map(({ value }) => String(value)))
      offset = decodePosition(delivery.last)?.offset ?? -1
    }
    return { values, offset }
  }
  async function producer(transactionalId: string): Promise<Producer> {
    const { Producer: Library } = await import('@platformatic/kafka')
    const made = new Library({
      clientId: 'test',
      bootstrapBrokers: server.bootstrap.split(','),
      idempotent: true,
      transactionalId,
    })
    producers.push(made)
    return made
  }
  const messages = (topic: string, from: number, count: number) =>
    Array.from({ length: count }, (_, index) => ({ topic, partition: 0, value: Buffer.from(`record ${from + index}`) }))
  const texts = (from: number, count: number): string[] =>
    Array.from({ length: count }, (_, index) => `record ${from + index}`)
  async function transaction(
    by: Producer,
    topic: string,
    from: number,
    count: number,
    end: 'commit' | 'abort' | 'leave open',
  ): Promise<void> {
    const begun = await by.beginTransaction()
    await begun.send({ messages: messages(topic, from, count) })
    if (end !== 'leave open') await begun[end]()
  }

  it('aborted transactions are left out, and the end lies behind the last marker', async () => {
    const topic = await makeTopic(server)
    const by = await producer(`t-${topic}`)
    await transaction(by, topic, 0, 10, 'commit')
    await transaction(by, topic, 100, 10, 'abort')
    await put(server, topic, [{ value: 'plain' }])
    await transaction(by, topic, 200, 5, 'commit')
    await transaction(by, topic, 300, 5, 'abort')
    expect(await toEnd(topic)).toEqual({
      values: [...texts(0, 10), 'plain', ...texts(200, 5)],
      offset: (await ends(server, topic))[0],
    })
    expect((await toEnd(topic, { isolation: 'uncommitted' })).values).toHaveLength(31)
    // From within an aborted transaction, and from a marker on.
    expect((await toEnd(topic, { start: '15' })).values).toEqual(['plain', ...texts(200, 5)])
    expect((await toEnd(topic, { start: '21' })).values).toEqual(['plain', ...texts(200, 5)])
  })

  it('an open transaction holds up what comes after it, and the end lies before it', async () => {
    const topic = await makeTopic(server)
    await put(server, topic, [{ value: 'before' }])
    const by = await producer(`t-${topic}`)
    await transaction(by, topic, 0, 3, 'leave open')
    await put(server, topic, [{ value: 'after' }])
    expect(await toEnd(topic)).toEqual({ values: ['before'], offset: 1 })
    expect((await toEnd(topic, { isolation: 'uncommitted' })).values).toEqual(['before', ...texts(0, 3), 'after'])
    const source = await opened(topic, { start: '1' })
    const waiting = (async (): Promise<string[]> => {
      const seen: string[] = []
      while (seen.length < 4)
        seen.push(
          ...((await source.read(AbortSignal.timeout(10_000)))?.batch.entries().map(({ value }) => String(value)) ??
            []),
        )
      return seen
    })()
    await by.transaction?.commit()
    expect(await waiting).toEqual([...texts(0, 3), 'after'])
  })

  it('a partition whose tail is only aborted records and markers has an end that is reached', async () => {
    const topic = await makeTopic(server)
    await put(server, topic, [{ value: 'first' }])
    await transaction(await producer(`t-${topic}`), topic, 0, 5, 'abort')
    expect(await toEnd(topic)).toEqual({ values: ['first'], offset: 7 })
  })

  it('a compacted topic is read to its end over its holes, and goes on from any of them', async () => {
    const topic = await makeTopic(server, {
      configs: {
        'cleanup.policy': 'compact',
        'segment.ms': 100,
        'min.cleanable.dirty.ratio': 0.01,
        'min.compaction.lag.ms': 0,
        'max.compaction.lag.ms': 100,
        'delete.retention.ms': 0,
      },
    })
    for (let round = 0; round < 5; round++) {
      await put(
        server,
        topic,
        Array.from({ length: 20 }, (_, index) => ({ key: `k${index}`, value: `${round} ${index}` })),
      )
      await new Promise((resolve) => {
        setTimeout(resolve, 120)
      })
    }
    let seen = await toEnd(topic)
    for (const until = Date.now() + 20_000; seen.values.length > 60 && Date.now() < until; seen = await toEnd(topic)) {
      // A segment is closed, and so can be compacted, when something comes after it.
      await put(server, topic, [{ key: 'stir', value: 'x' }])
      await new Promise((resolve) => {
        setTimeout(resolve, 200)
      })
    }
    expect(seen.values.length).toBeLessThanOrEqual(60)
    expect(seen.values).toEqual(expect.arrayContaining(Array.from({ length: 20 }, (_, index) => `4 ${index}`)))
    expect(seen.offset).toBe((await ends(server, topic))[0])
    // In the midst of what is gone.
    expect((await toEnd(topic, { start: '30' })).values).toEqual(
      expect.arrayContaining(Array.from({ length: 20 }, (_, index) => `4 ${index}`)),
    )
  }, 60_000)

  it.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const)(
    'what the Java console producer wrote with %s is read byte for byte',
    async (codec) => {
      const topic = await makeTopic(server)
      const lines = Array.from({ length: 2000 }, (_, index) => `{"seq":${index},"pad":"${'äöü'.repeat(index % 50)}"}`)
      await server.tool(
        'org.apache.kafka.tools.ConsoleProducer',
        ['--bootstrap-server', '{bootstrap}', '--topic', topic, '--compression-codec', codec, '--batch-size', '65536'],
        { input: lines.map((line) => `${line}\n`).join('') },
      )
      expect((await toEnd(topic)).values).toEqual(lines)
    },
    60_000,
  )

  describeWith('kcat', 'written by kcat', () => {
    it.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'])('with %s is read with keys and headers', async (codec) => {
      const topic = await makeTopic(server)
      const lines = Array.from({ length: 500 }, (_, index) => `k${index};value ${index} ${'x'.repeat(index % 100)}`)
      await runKcat(
        ['-P', '-b', server.bootstrap, '-t', topic, '-p', '0', '-K', ';', '-z', codec, '-H', 'origin=kcat'],
        lines.map((line) => `${line}\n`).join(''),
      )
      const source = await opened(topic)
      const seen: string[] = []
      while (seen.length < 500) {
        for (const { key, value, headers } of (await source.read(AbortSignal.timeout(10_000)))?.batch.entries() ?? []) {
          seen.push(`${String(key)};${String(value)}`)
          expect(headers).toEqual([['origin', Buffer.from('kcat')]])
        }
      }
      expect(seen).toEqual(lines)
    })
  })
})
