/** Tests whole runs against a queue that refuses messages when it is full (`x-overflow=reject-publish`). */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeWith } from '../../services/describe-with'
import { start } from '../../support/manifold'
import { Broker } from './broker'
import { until } from './support'

interface Sum {
  readonly carriedIn: number
  readonly read: number
  readonly delivered: number
  readonly spooled: number
  readonly possibleDuplicates: number
}

describeWith('rabbitmq', 'a queue that is full', () => {
  let broker: Broker
  let folder: string
  beforeAll(async () => {
    broker = await Broker.start()
  }, 90_000)
  afterAll(async () => {
    await broker.stop()
  }, 30_000)
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'manifold-full-queue-'))
  })
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true })
  })

  const line = (queue: string, ...more: string[]): string[] => [
    '--from',
    'generate:',
    'count=100',
    'size=100',
    '--to',
    broker.uri(),
    `queue=${queue}`,
    '--state',
    join(folder, 'state'),
    '--receipt',
    join(folder, 'receipt'),
    '--log-level',
    'info',
    ...more,
  ]
  const sums = (): Sum[] =>
    readFileSync(join(folder, 'receipt'), 'utf8')
      .trimEnd()
      .split('\n')
      .flatMap((text) => (JSON.parse(text) as { sinks: Sum[] }).sinks)

  test('is told of, a stop does not wait for it, and the next start sends what was not confirmed, once', async () => {
    const queue = await broker.declare('full-1', { arguments: { 'x-overflow': 'reject-publish', 'x-max-length': 10 } })
    const first = start(line(queue, '--spool', join(folder, 'spool')))
    await until(
      () =>
        first.stderr().includes('its queue is full, or not available (2 times); trying again') ||
        first.child.exitCode !== null,
    )
    const from = Date.now()
    first.kill('SIGTERM')
    expect((await first.done).signal).toBe('SIGTERM')
    expect(Date.now() - from).toBeLessThan(20_000)
    const had = await broker.count(queue)
    const [run] = sums()
    expect(run).toMatchObject({ read: 100, delivered: had, spooled: 100 - had })
    expect(had).toBeGreaterThanOrEqual(10)

    const second = start(line(queue, '--spool', join(folder, 'spool')))
    const got: string[] = []
    const channel = await broker.channel()
    await channel.consume(queue, (message) => {
      if (message !== null) {
        got.push(message.content.toString())
        channel.ack(message)
      }
    })
    expect((await second.done).code).toBe(0)
    await until(() => got.length >= 100)
    expect(new Set(got).size).toBe(100)
    expect(got).toHaveLength(100)
    expect(sums()[1]).toMatchObject({ carriedIn: 100 - had, delivered: 100 - had, possibleDuplicates: 0 })
  }, 120_000)

  test('that stays full is given up as any sink is, with what was confirmed in the receipt', async () => {
    const queue = await broker.declare('full-2', { arguments: { 'x-overflow': 'reject-publish', 'x-max-length': 10 } })
    // One delivery, of which a part is confirmed: the source sends the whole of it again.
    writeFileSync(join(folder, 'source'), Array.from({ length: 100 }, (_, index) => `${index}\n`).join(''))
    const { code, stderr } = await start([
      '--from',
      `file:${join(folder, 'source')}`,
      ...line(queue, '--give-up-after', '4s').slice(4),
    ]).done
    expect(code).toBe(4)
    expect(stderr).toMatch(
      /its queue is full, or not available \(failing for \d s, \d+ tries; --give-up-after says how long\)/,
    )
    const had = await broker.count(queue)
    expect(sums()[0]).toMatchObject({ read: 100, delivered: had, possibleDuplicates: had })
  }, 120_000)
})
