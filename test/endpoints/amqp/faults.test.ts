/** Tests what a broker may do to its clients: each fault is handled and named. */
import { only } from '../../../src/core/batch'
import type { Batch } from '../../../src/core/contract'
import { Disconnected, Refused } from '../../../src/core/errors'
import { describeWith } from '../../services/describe-with'
import { makeEndpointContext, makeSourceContext } from '../../support/context'
import { Broker } from './broker'
import { overtaking } from './overtaking'
import { forever, makeSink, makeSource, openSink, openSource, take, until, writeOf } from './support'

const MIB = 1024 * 1024
const bodies = (n: number, from = 1): string[] => Array.from({ length: n }, (_, i) => `{"n":${from + i}}`)
const values = ({ entries }: Awaited<ReturnType<typeof take>>): string[] => entries.map(({ value }) => String(value))

describeWith('rabbitmq', "a broker under one's feet", () => {
  let broker: Broker
  beforeAll(async () => {
    broker = await Broker.start({ consumerTimeoutMs: 3000, conf: ['max_message_size = 1000000'] })
  }, 90_000)
  afterAll(async () => {
    await broker.stop()
  }, 30_000)
  let serial = 0
  const name = (): string => `queue-${++serial}`
  const deleteQueue = async (queue: string): Promise<void> => {
    const channel = await broker.channel()
    await channel.deleteQueue(queue)
    await channel.close()
  }

  test('a queue deleted while it is read: told of; without declare refused until somebody makes it, with declare made anew and read on', async () => {
    const queue = await broker.declare(name())
    await broker.put(queue, bodies(3))
    for (const given of [{ queue }, { queue, declare: 'true' }]) {
      const source = await makeSource(broker.uri(), given)
      await source.open(makeSourceContext().ctx)
      await take(source, 3)
      await deleteQueue(queue)
      await expect(source.read(forever)).rejects.toThrow(/the queue was deleted/)
      await source.close()
      if (!('declare' in given)) {
        await expect(source.open(makeSourceContext().ctx)).rejects.toThrow(Refused)
        await source.close()
        await broker.declare(queue)
      }
      await source.open(makeSourceContext().ctx)
      await broker.put(queue, bodies(3))
      expect(values(await take(source, 3))).toEqual(bodies(3))
      await source.close()
    }
  })

  test('a queue deleted while it is written to: messages come back as unroutable, and go again once it is there', async () => {
    const queue = await broker.declare(name())
    const { sink } = await openSink(broker.uri(), { queue })
    expect(await sink.write(writeOf(bodies(2)), forever)).toEqual({ retry: [], rejected: [] })
    await deleteQueue(queue)
    const { rejected } = await sink.write(writeOf(bodies(2)), forever)
    expect(rejected.map(({ index }) => index)).toEqual([0, 1])
    await broker.declare(queue)
    expect(await sink.write(writeOf(bodies(2)), forever)).toEqual({ retry: [], rejected: [] })
    await sink.close()
    expect(await broker.count(queue)).toBe(2)
  })

  test('an exchange deleted while it is written to is refused by name', async () => {
    const { sink } = await openSink(broker.uri(), { exchange: 'gone', exchangeType: 'fanout', mandatory: false })
    expect(await sink.write(writeOf(bodies(1)), forever)).toEqual({ retry: [], rejected: [] })
    const channel = await broker.channel()
    await channel.deleteExchange('gone')
    await channel.close()
    await expect(sink.write(writeOf(bodies(1)), forever)).rejects.toMatchObject({
      name: 'Refused',
      message: "publishing to exchange 'gone': no exchange 'gone' in vhost '/'",
    })
    await sink.close()
  })

  test("what is not acknowledged in the broker's time is taken back: told of, and read again", async () => {
    const queue = await broker.declare(name())
    await broker.put(queue, bodies(2))
    const source = await makeSource(broker.uri(), { queue })
    await source.open(makeSourceContext().ctx)
    const { deliveries } = await take(source, 2)
    await expect(source.read(forever)).rejects.toThrow(/not acknowledged within its consumer_timeout/)
    await source.close()
    await source.open(makeSourceContext().ctx)
    expect(values(await take(source, 2))).toEqual(bodies(2))
    await source.commit(deliveries[0]!.partition, deliveries[0]!.last)
    await source.close()
    expect(await broker.count(queue)).toBe(2)
  })

  test('connections closed by hand are Disconnected, with what the broker said', async () => {
    const queue = await broker.declare(name())
    const { source } = await openSource(broker.uri(), { queue })
    const { sink } = await openSink(broker.uri(), { queue })
    const reading = expect(source.read(forever)).rejects.toMatchObject({
      name: 'Disconnected',
      message: 'the broker closed the connection: enough',
    })
    await broker.ctl('close_all_connections', 'enough')
    await reading
    await expect(sink.write(writeOf(bodies(1)), forever)).rejects.toThrow(Disconnected)
    await Promise.all([source.close(), sink.close()])
  })

  test('a full queue that rejects: its messages are to be tried again, the others are there', async () => {
    const queue = await broker.declare(name(), { arguments: { 'x-max-length': 3, 'x-overflow': 'reject-publish' } })
    const { sink } = await openSink(broker.uri(), { queue })
    const { retry, rejected } = await sink.write(writeOf(bodies(5)), forever)
    expect(rejected).toEqual([])
    expect(retry.length).toBeGreaterThan(0)
    expect(retry[0]).toMatchObject({ why: expect.stringMatching(/nack/) as string, afterMs: 500 })
    expect(await broker.count(queue)).toBe(5 - retry.length)
    await sink.close()
  })

  test('a full queue that rejects beside one that does not: what the other has, and will have again, is told of', async () => {
    const full = await broker.declare(name(), { arguments: { 'x-max-length': 3, 'x-overflow': 'reject-publish' } })
    const other = await broker.declare(name())
    const { sink } = await openSink(broker.uri(), { exchange: 'both', exchangeType: 'fanout' })
    const channel = await broker.channel()
    for (const queue of [full, other]) await channel.bindQueue(queue, 'both', '')
    await channel.close()
    const write = writeOf(bodies(5))
    const { retry, doubtful } = await sink.write(write, forever)
    expect(retry.length).toBeGreaterThan(0)
    expect(doubtful).toBe(retry.length)
    await broker.drain(full)
    expect(
      await sink.write(
        {
          ...write,
          attempt: 2,
          payload: only(
            write.payload as Batch,
            retry.map(({ index }) => index),
          ),
        },
        forever,
      ),
    ).toEqual({ retry: [], rejected: [] })
    await sink.close()
    expect(await broker.count(other)).toBe(5 + retry.length)
  })

  test('a message larger than the broker takes: nothing is known of its write, then it is rejected alone', async () => {
    const queue = await broker.declare(name())
    const sink = await makeSink(broker.uri(), { queue })
    await sink.open(makeEndpointContext().ctx)
    const write = writeOf(['small', 'x'.repeat(1_000_001), 'small too'])
    await expect(sink.write(write, forever)).rejects.toThrow(Disconnected)
    await sink.close()
    await sink.open(makeEndpointContext().ctx)
    const { rejected } = await sink.write({ ...write, attempt: 2 }, forever)
    expect(rejected).toEqual([{ index: 1, why: expect.stringMatching(/than the .* that the broker takes/) as string }])
    await sink.close()
  })

  test('messages of no byte, of one frame exactly, and of many, in both directions', async () => {
    const queue = await broker.declare(name())
    const sizes = [0, 1, 131_072 - 8, 131_072 - 7, 999_999]
    const { sink } = await openSink(broker.uri(), { queue })
    const entries = sizes.map((size) => ({ value: Buffer.alloc(size, 'x') }))
    expect(await sink.write(writeOf(entries), forever)).toEqual({ retry: [], rejected: [] })
    await sink.close()
    const { source } = await openSource(broker.uri(), { queue })
    expect((await take(source, sizes.length)).entries.map(({ value }) => value?.length)).toEqual(sizes)
    await source.close()
  })

  test('what is sent ahead follows the size of messages, and a jump of sizes does not fill the memory', async () => {
    const queue = await broker.declare(name())
    await broker.put(queue, bodies(3000))
    const { source, told } = await openSource(broker.uri(), { queue, prefetchBytes: MIB })
    expect(told.gauges.get('prefetch')).toBe(512)
    let read = 0
    while (read < 3000) {
      const delivery = await source.read(forever)
      read += delivery!.batch.count
      await source.commit(delivery!.partition, delivery!.last)
    }
    await until(() => told.gauges.get('prefetch')! > 10_000)
    await broker.put(
      queue,
      Array.from({ length: 60 }, () => Buffer.alloc(500_000)),
    )
    // Some wait here, the rest in the socket: all of it comes once it is read.
    let large = 0
    while (large < 60) {
      const delivery = await source.read(forever)
      large += delivery!.batch.count
      await source.commit(delivery!.partition, delivery!.last)
    }
    expect(told.gauges.get('prefetch')).toBeGreaterThan(0)
    await source.close()
    expect(await broker.count(queue)).toBe(0)
  })

  test('properties and headers survive two queues', async () => {
    const [from, to] = [await broker.declare(name()), await broker.declare(name())]
    const properties = {
      contentType: 'a/b',
      contentEncoding: 'gzip',
      priority: 3,
      correlationId: 'c',
      replyTo: 'r',
      expiration: '3600000',
      messageId: 'm',
      timestamp: 1_700_000_000,
      type: 't',
      userId: 'guest',
      appId: 'app',
      headers: {
        text: 'é',
        n: 1,
        big: { '!': 'int64', value: 2n ** 60n },
        list: [1, 'a', { x: true }],
        bytes: Buffer.from([0xff, 0]),
      },
    }
    await broker.put(from, ['body'], properties)
    const { source } = await openSource(broker.uri(), { queue: from })
    const { entries, deliveries } = await take(source, 1)
    const { sink } = await openSink(broker.uri(), { queue: to })
    expect(await sink.write(writeOf(entries), forever)).toEqual({ retry: [], rejected: [] })
    await source.commit(deliveries[0]!.partition, deliveries[0]!.last)
    await Promise.all([source.close(), sink.close()])
    const [got] = await broker.drain(to)
    const expected = { ...properties, deliveryMode: 2, headers: { ...properties.headers, big: Number(2n ** 60n) } }
    expect(got!.properties).toMatchObject(expected)
    expect(got!.content.toString()).toBe('body')
  })

  test('--until end stops at what was there, also where another consumer has taken some of it', async () => {
    const queue = await broker.declare(name())
    await broker.put(queue, bodies(50))
    const { source } = await openSource(broker.uri(), { queue })
    await source.ends!()
    await broker.put(queue, bodies(10, 51))
    expect(values(await take(source, Infinity))).toEqual(bodies(50))
    await source.close()
    await until(async () => (await broker.count(queue)) === 60)
    const { source: again } = await openSource(broker.uri(), { queue, prefetch: 5 })
    await again.ends!()
    expect(values(await take(again, 5))).toEqual(bodies(5))
    // Ten are left to others.
    expect(await broker.drain(queue)).toHaveLength(55)
    expect(await again.read(forever)).toBeNull()
    await again.close()
  })

  test('--until end: a broker that counts a queue as empty may have its messages still to send', async () => {
    const queue = await broker.declare(name())
    await broker.put(queue, bodies(50))
    const between = await overtaking(broker.port)
    try {
      const { source } = await openSource(`amqp://127.0.0.1:${between.port}`, { queue })
      await source.ends!()
      expect(values(await take(source, Infinity))).toEqual(bodies(50))
      await source.close()
    } finally {
      await between.stop()
    }
  })
})
