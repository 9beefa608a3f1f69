import { Disconnected, Refused } from '../../../src/core/errors'
import { makeSourceContext } from '../../support/context'
import { describeWith } from '../../services/describe-with'
import { manifold } from '../../support/manifold'
import { Broker } from './broker'
import { forever, makeSource, openSource, positionAfter, take } from './support'

const bodies = (n: number, from = 0): string[] => Array.from({ length: n }, (_, i) => `{"n":${from + i}}`)
const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
const values = ({ entries }: Awaited<ReturnType<typeof take>>): string[] => entries.map(({ value }) => String(value))

describeWith('rabbitmq', 'streams', () => {
  let broker: Broker
  beforeAll(async () => {
    broker = await Broker.start()
  }, 90_000)
  afterAll(async () => {
    await broker.stop()
  }, 30_000)
  let serial = 0
  const stream = (): Promise<string> =>
    broker.declare(`stream-${++serial}`, { arguments: { 'x-queue-type': 'stream' } })

  test("a stream is read from its start, without the broker's own header, and resumed right after a position", async () => {
    const queue = await stream()
    await broker.put(queue, bodies(5000), { headers: { mine: 'x' } })
    const { source } = await openSource(broker.uri(), { queue, stream: true })
    const first = await take(source, 5000)
    await source.close()
    expect(values(first)).toEqual(bodies(5000))
    expect(first.entries[0]!.headers).toEqual([
      ['mine', 'x'],
      ['amqp.routing-key', queue],
    ])
    const { source: again } = await openSource(
      broker.uri(),
      { queue, stream: true },
      { positions: { [queue]: positionAfter(first.deliveries, 1234) } },
    )
    expect(values(await take(again, 5000 - 1234))).toEqual(bodies(5000 - 1234, 1234))
    await again.close()
  })

  test('start says where it begins: latest, an offset, the last hundred', async () => {
    const queue = await stream()
    await broker.put(queue, bodies(300))
    for (const [start, from] of [
      ['250', 250],
      ['-100', 200],
    ] as const) {
      const { source } = await openSource(broker.uri(), { queue, stream: true, start })
      expect(values(await take(source, 300 - from))).toEqual(bodies(300 - from, from))
      await source.close()
    }
    const { source } = await openSource(broker.uri(), { queue, stream: true, start: 'latest' })
    // Where it begins is told before anything is read, so that what comes while nobody reads is not missed.
    const begun = await source.read(forever)
    expect(begun?.batch.count).toBe(0)
    await source.close()
    await broker.put(queue, bodies(5, 300))
    const { source: again } = await openSource(
      broker.uri(),
      { queue, stream: true, start: 'latest' },
      { positions: { [queue]: begun!.last } },
    )
    expect(values(await take(again, 5))).toEqual(bodies(5, 300))
    await again.close()
  })

  test.each(['latest', '300', '100000', '-0', '-1h'])(
    '--until end of a stream that is begun at its end with start=%s ends at once',
    async (start) => {
      const queue = await stream()
      await broker.put(queue, bodies(300))
      const line = [
        '--from',
        broker.uri(),
        `queue=${queue}`,
        'stream',
        `start=${start}`,
        '--to',
        '-',
        '--until',
        'end',
        '--log-level',
        'info',
      ]
      const { code, stdout, stderr } = await manifold(line)
      expect(code).toBe(0)
      expect(stdout.toString()).toBe(
        start === '-1h'
          ? bodies(300)
              .map((body) => `${body}\n`)
              .join('')
          : '',
      )
      expect(/lies beyond the end of stream '.*', which is 300/.test(stderr)).toBe(start === '100000')
    },
  )

  test('--until end: it ends with what was there, also where more comes meanwhile', async () => {
    const queue = await stream()
    await broker.put(queue, bodies(100))
    const { source } = await openSource(broker.uri(), { queue, stream: true })
    await source.ends!()
    await broker.put(queue, bodies(50, 100))
    expect(values(await take(source, Infinity))).toEqual(bodies(100))
    await source.close()
    const empty = await stream()
    const { source: nothing } = await openSource(broker.uri(), { queue: empty, stream: true })
    await nothing.ends!()
    expect(await nothing.read(forever)).toBeNull()
    await nothing.close()
  })

  test('a time: start=TIME begins and --until TIME ends with what was written then, also where a program is asked', async () => {
    const queue = await stream()
    await broker.put(queue, bodies(100))
    // The broker's clock is asked by the second.
    await sleep(1100)
    const between = new Date().toISOString()
    await sleep(1100)
    await broker.put(queue, bodies(50, 100))
    await sleep(1100)
    const after = new Date().toISOString()
    const { source: later, told } = await openSource(broker.uri(), { queue, stream: true, start: between })
    // Where it begins is told before anything is read.
    expect(await later.read(forever)).toMatchObject({ batch: { count: 0 }, last: '99:' })
    expect(values(await take(later, 50))).toEqual(bodies(50, 100))
    expect(told.gaps).toEqual([])
    await later.close()
    for (const [until, count] of [
      [between, 100],
      [after, 150],
      ['2001-01-01T00:00:00Z', 0],
    ] as const) {
      const { code, stdout, stderr } = await manifold([
        '--from',
        broker.uri(),
        `queue=${queue}`,
        'stream',
        '--to',
        '-',
        '--until',
        until,
      ])
      expect({ until, code, stderr, lines: stdout.toString() }).toEqual({
        until,
        code: 0,
        stderr: '',
        lines: bodies(count)
          .map((each) => `${each}\n`)
          .join(''),
      })
    }
    const { source: first } = await openSource(broker.uri(), { queue, stream: true, start: after })
    expect((await first.read(forever))?.last).toBe('149:')
    await first.close()
  }, 60_000)

  test('a stream that was deleted and made anew is read from its start: a longer one, a shorter one, an empty one', async () => {
    const queue = await stream()
    await broker.put(queue, bodies(100))
    const { source } = await openSource(broker.uri(), { queue, stream: true })
    const position = positionAfter((await take(source, 100)).deliveries, 100)
    await source.close()
    for (const count of [150, 40, 0]) {
      const channel = await broker.channel()
      await channel.deleteQueue(queue)
      await channel.close()
      await broker.declare(queue, { arguments: { 'x-queue-type': 'stream' } })
      await broker.put(queue, bodies(count, 1000))
      const again = await makeSource(broker.uri(), { queue, stream: true })
      const { ctx, told } = makeSourceContext({ positions: { [queue]: position } })
      await again.open(ctx)
      if (count === 150) {
        // Only its messages tell; the core opens it again.
        await expect(again.read(forever)).rejects.toThrow(Disconnected)
        await again.close()
        await again.open(ctx)
      }
      if (count === 0) await broker.put(queue, bodies(1, 1000))
      expect(values(await take(again, Math.max(1, count)))).toEqual(bodies(Math.max(1, count), 1000))
      expect(told.text()).toMatch(/made anew/)
      await again.close()
    }
  }, 30_000)

  test('a stream that is read as a queue is refused, with what to do', async () => {
    const queue = await stream()
    const { source } = await openSource(broker.uri(), { queue })
    await broker.put(queue, bodies(1))
    await expect(source.read(forever)).rejects.toThrow(
      new Refused(`${queue} is a stream, whose position is kept here: add the word stream`),
    )
    await source.close()
    const plain = await broker.declare('no-stream')
    await expect(openSource(broker.uri(), { queue: plain, stream: true })).rejects.toThrow(/x-stream-offset/)
    // The header alone says nothing: it may have come with the message.
    await broker.put(plain, bodies(1), { headers: { 'x-stream-offset': 5 } })
    const { source: queueSource } = await openSource(broker.uri(), { queue: plain })
    expect(values(await take(queueSource, 1))).toEqual(bodies(1))
    await queueSource.close()
  })
})
