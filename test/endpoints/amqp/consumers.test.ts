/**
 * Tests several consumers of one queue: which one is served, which one takes over, and what a consumer that ends leaves
 * behind.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Entry } from '../../../src/core/contract'
import { describeWith } from '../../services/describe-with'
import { start, type Running } from '../../support/manifold'
import { AnonymousPipe } from '../../support/pipe'
import { Broker } from './broker'
import { openSource, positionAfter, take, until } from './support'

const bodies = (n: number, from = 1): string[] => Array.from({ length: n }, (_, i) => `{"n":${from + i}}`)
const values = (entries: readonly Entry[]): string[] => entries.map(({ value }) => String(value))

describeWith('rabbitmq', 'consumers', () => {
  let broker: Broker
  let folder: string
  /** Tells whether a nack is no failed delivery for this server. */
  let mild: boolean
  let serial = 0
  beforeAll(async () => {
    broker = await Broker.start()
    folder = mkdtempSync(join(tmpdir(), 'manifold-consumers-'))
    const [major = 0, minor = 0] = (await broker.server.evaluate('rabbit_misc:version().'))
      .replace(/["\s]/g, '')
      .split('.')
      .map(Number)
    mild = major > 4 || (major === 4 && minor >= 3)
  }, 90_000)
  afterAll(async () => {
    await broker.stop()
    rmSync(folder, { recursive: true, force: true })
  }, 30_000)
  const all: Running[] = []
  const keep = (running: Running): Running => {
    all.push(running)
    return running
  }
  // Those of a test that failed.
  afterEach(() => {
    for (const running of all.splice(0)) running.kill('SIGKILL')
  })
  const name = (): string => `consumers-${++serial}`

  test.each(['classic', 'quorum'] as const)(
    'a clean stop: what was not acknowledged lies in its old place, told as redelivered, and has failed once at most, %s',
    async (type) => {
      const queue = await broker.declare(name(), { arguments: { 'x-queue-type': type } })
      await broker.put(queue, bodies(2000))
      for (const round of [1, 2]) {
        // Small at first: the consumer is replaced on the way, which gives nothing back.
        const { source, told } = await openSource(broker.uri(), { queue })
        const { deliveries } = await take(source, 1500)
        const [first] = deliveries
        await source.commit(first!.partition, positionAfter(deliveries, 100))
        await until(() => told.gauges.get('prefetch')! > 512)
        await source.close()
        await until(async () => (await broker.count(queue)) === 2000 - 100 * round)
      }
      const left = await broker.drain(queue)
      expect(left.map(({ content }) => content.toString())).toEqual(bodies(1800, 201))
      // 3.10 counts each way of giving back as a failure; once for each stop, never more.
      const failed = new Set(
        left
          .slice(0, 1000)
          .map(
            ({ properties }) =>
              (properties.headers as { readonly 'x-delivery-count'?: number } | undefined)?.['x-delivery-count'] ?? 0,
          ),
      )
      expect(failed).toEqual(new Set([type === 'classic' || mild ? 0 : 2]))
      expect(new Set(left.slice(0, 1000).map(({ fields }) => fields.redelivered))).toEqual(new Set([true]))
    },
    60_000,
  )

  test('into a pipe: acknowledged once read; what the reader of an interrupted pipeline left unread lies in the queue again', async () => {
    const queue = await broker.declare(name())
    await broker.put(queue, bodies(200))
    const text = bodies(200)
      .map((body) => `${body}\n`)
      .join('')
    const into = async (): Promise<{
      readonly pipe: AnonymousPipe
      readonly running: Running
      read(bytes: number): Promise<string>
    }> => {
      const pipe = await AnonymousPipe.make()
      const running = keep(
        start(['--from', broker.uri(), `queue=${queue}`, '--to', '-', '--state', join(folder, 'piped')], {
          stdout: pipe.writingEnd,
        }),
      )
      pipe.closeWriting()
      let got = ''
      const read = async (bytes: number): Promise<string> => {
        await until(() => {
          got += pipe.read(bytes - got.length).toString()
          return got.length >= bytes
        })
        return got
      }
      return { pipe, running, read }
    }
    const first = await into()
    expect(await first.read(text.length / 2)).toBe(text.slice(0, text.length / 2))
    first.pipe.close()
    first.running.kill('SIGINT')
    expect((await first.running.done).code).toBe(0)
    await until(async () => (await broker.count(queue)) === 200)
    const second = await into()
    expect(await second.read(text.length)).toBe(text)
    await until(async () => (await broker.held(queue)) === 0)
    second.running.kill('SIGKILL')
    await second.running.done
    expect(await broker.count(queue)).toBe(0)
    second.pipe.close()
  }, 60_000)

  test('a consumer of a higher priority is served first, and after it the other one', async () => {
    const queue = await broker.declare(name())
    const { source: low } = await openSource(broker.uri(), { queue, prefetch: 100 })
    const { source: high } = await openSource(broker.uri(), { queue, prefetch: 100, consumerPriority: 5 })
    await broker.put(queue, bodies(150))
    const first = await take(high, 100)
    const rest = await take(low, 50)
    expect(values(first.entries)).toEqual(bodies(100))
    expect(values(rest.entries)).toEqual(bodies(50, 101))
    await high.close()
    // The other consumer now gets the requeued messages.
    expect(values((await take(low, 50)).entries)).toEqual(bodies(50))
    await low.close()
  })

  test.each([
    ['an option', ['single-active-consumer']],
    ['an argument', ['argument.x-single-active-consumer=true']],
  ])(
    'a single active consumer, by %s: the other process waits, also while many wait for their acknowledgement, and takes over when the first is killed',
    async (_, words) => {
      const queue = name()
      const COUNT = 16_000
      const out = [1, 2, 3].map((each) => join(folder, `${queue}-${each}.ndjson`))
      const run = (file: string): Running =>
        keep(start(['--from', broker.uri(), `queue=${queue}`, 'declare=quorum', ...words, '--to', `file:${file}`]))
      const found = (file: string): readonly string[] =>
        existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(0, -1) : []
      const first = run(out[0]!)
      await until(async () => (await broker.consumers(queue)) === 1)
      const second = run(out[1]!)
      await until(async () => (await broker.consumers(queue)) === 2)
      await broker.put(queue, bodies(COUNT / 2))
      await until(() => found(out[0]!).length >= COUNT / 2)
      expect(found(out[1]!)).toEqual([])
      await broker.put(queue, bodies(COUNT / 4, COUNT / 2 + 1))
      first.kill('SIGKILL')
      await first.done
      const third = run(out[2]!)
      // However far the first came.
      await broker.put(queue, bodies(COUNT / 4, (COUNT * 3) / 4 + 1))
      const both = (): ReadonlySet<string> => new Set([...found(out[0]!), ...found(out[1]!)])
      await until(() => both().size >= COUNT)
      expect(found(out[1]!).length).toBeGreaterThan(0)
      expect([...found(out[1]!)]).toEqual(
        [...found(out[1]!)].sort((a, b) => Number(a.slice(5, -1)) - Number(b.slice(5, -1))),
      )
      expect([...both()].sort()).toEqual(bodies(COUNT).sort())
      // A clean stop hands over as well.
      second.kill('SIGTERM')
      expect((await second.done).code).toBe(0)
      await broker.put(queue, bodies(10))
      await until(() => found(out[2]!).length >= 10)
      expect(found(out[2]!).slice(-10)).toEqual(bodies(10))
      third.kill('SIGTERM')
      expect((await third.done).code).toBe(0)
    },
    60_000,
  )
})
