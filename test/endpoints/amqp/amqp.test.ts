import type { Entry } from '../../../src/core/contract'
import { Disconnected } from '../../../src/core/errors'
import { makeSourceContext } from '../../support/context'
import { describeWith } from '../../services/describe-with'
import { Broker } from './broker'
import { forever, makeSource, openSink, openSource, positionAfter, take, until, writeOf } from './support'

const bodies = (n: number, from = 1): string[] => Array.from({ length: n }, (_, i) => `{"n":${from + i}}`)
const values = (entries: readonly Entry[]): string[] => entries.map(({ value }) => String(value))

describeWith('rabbitmq', 'queues', () => {
  let broker: Broker
  beforeAll(async () => {
    broker = await Broker.start()
  }, 90_000)
  afterAll(async () => {
    await broker.stop()
  }, 30_000)
  let serial = 0
  const name = (): string => `queue-${++serial}`

  describe.each(['classic', 'quorum'] as const)('a %s queue', (type) => {
    test('is read in order, and empty once all is acknowledged', async () => {
      const queue = await broker.declare(name(), { arguments: { 'x-queue-type': type } })
      await broker.put(queue, bodies(3000))
      const { source } = await openSource(broker.uri(), { queue })
      const { entries, deliveries } = await take(source, 3000)
      expect(values(entries)).toEqual(bodies(3000))
      const last = deliveries.at(-1)!
      await source.commit(last.partition, last.last)
      await source.close()
      expect(await broker.count(queue)).toBe(0)
    })

    test('gets back what was read and not acknowledged, in its old place', async () => {
      const queue = await broker.declare(name(), { arguments: { 'x-queue-type': type } })
      await broker.put(queue, bodies(100))
      const { source } = await openSource(broker.uri(), { queue })
      const { deliveries } = await take(source, 100)
      await source.commit(deliveries[0]!.partition, positionAfter(deliveries, 30))
      await source.close()
      await until(async () => (await broker.count(queue)) === 70)
      expect((await broker.drain(queue)).map(({ content }) => content.toString())).toEqual(bodies(70, 31))
    })

    test('is written to: confirmed is there, in order, persistent', async () => {
      const queue = await broker.declare(name(), { arguments: { 'x-queue-type': type } })
      const { sink } = await openSink(broker.uri(), { queue })
      expect(
        await Promise.all([
          sink.write(writeOf(bodies(2000)), forever),
          sink.write(writeOf(bodies(2000, 2001)), forever),
        ]),
      ).toEqual([
        { retry: [], rejected: [] },
        { retry: [], rejected: [] },
      ])
      await sink.close()
      const messages = await broker.collect(queue, 4000)
      expect(messages.map(({ content }) => content.toString())).toEqual(bodies(4000))
      expect(new Set(messages.map(({ properties }) => properties.deliveryMode as number))).toEqual(new Set([2]))
    })

    test('more small messages than one consumer may have wait for their acknowledgement, in order', async () => {
      const queue = await broker.declare(name(), { arguments: { 'x-queue-type': type } })
      await broker.put(queue, bodies(80_000))
      const { source } = await openSource(broker.uri(), { queue })
      const { entries, deliveries } = await take(source, 80_000)
      entries.forEach(({ value }, index) => {
        if (String(value) !== `{"n":${index + 1}}`) throw new Error(`${String(value)} at ${index}`)
      })
      const last = deliveries.at(-1)!
      await source.commit(last.partition, last.last)
      await source.close()
      expect(await broker.count(queue)).toBe(0)
    }, 60_000)
  })

  test('tags of an old channel are not acknowledged on a new one', async () => {
    const queue = await broker.declare(name())
    await broker.put(queue, bodies(10))
    const source = await makeSource(broker.uri(), { queue })
    await source.open(makeSourceContext().ctx)
    const { deliveries } = await take(source, 10)
    await source.close()
    await source.open(makeSourceContext().ctx)
    expect(values((await take(source, 10)).entries)).toEqual(bodies(10))
    for (const { partition, last } of deliveries) await source.commit(partition, last)
    await source.close()
    await until(async () => (await broker.count(queue)) === 10)
  })

  test('a broker that is killed: reading fails with Disconnected, and an open after its restart goes on with all that was not acknowledged', async () => {
    const queue = await broker.declare(name())
    await broker.put(queue, bodies(50))
    const { source, told } = await openSource(broker.uri(), { queue })
    expect(told.logs).toEqual([])
    const { deliveries } = await take(source, 50)
    await broker.kill()
    await expect(source.read(forever)).rejects.toThrow(Disconnected)
    await source.close()
    await broker.restart()
    const { source: again } = await openSource(broker.uri(), { queue })
    const { entries } = await take(again, 50)
    expect(values(entries)).toEqual(bodies(50))
    expect(deliveries.length).toBeGreaterThan(0)
    await again.close()
  }, 60_000)

  test('unroutable messages are rejected, each and only they, and nothing of them is delivered', async () => {
    const queue = await broker.declare(name())
    const { sink } = await openSink(broker.uri(), { key: '{json:to}' })
    const outcome = await sink.write(
      writeOf([`{"to":"${queue}"}`, '{"to":"nowhere"}', `{"to":"${queue}","x":1}`, '{"to":"nowhere"}', '{"no":1}']),
      forever,
    )
    await sink.close()
    expect(outcome.retry).toEqual([])
    expect(outcome.rejected.map(({ index }) => index).sort()).toEqual([1, 3, 4])
    expect(outcome.rejected.find(({ index }) => index === 1)?.why).toMatch(/NO_ROUTE/)
    expect(outcome.rejected.find(({ index }) => index === 4)?.why).toMatch(/it has no to in JSON/)
    expect((await broker.drain(queue)).map(({ content }) => content.toString())).toEqual([
      `{"to":"${queue}"}`,
      `{"to":"${queue}","x":1}`,
    ])
  })
})
