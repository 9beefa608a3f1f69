/**
 * Under load: a broker that runs out of memory again and again, and queues that are deleted and declared again while
 * records pass through them.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { Broker } from '../endpoints/amqp/broker'
import { until } from '../endpoints/amqp/support'
import { describeWith } from '../services/describe-with'
import { record } from '../support/feed'
import { httpGet } from '../support/http'
import { start, type Finished, type Running } from '../support/manifold'
import { missing } from '../support/oracle'

/** Records, alarms, and records a second meanwhile; MANIFOLD_LONG makes it half a million, and ten alarms. */
const LONG = process.env['MANIFOLD_LONG'] === '1'
const RECORDS = LONG ? 500_000 : 30_000
const ALARMS = LONG ? 10 : 2
const RATE = LONG ? 20_000 : 5000

/** Of the sink, in records: what is on its way into a queue that is deleted goes with it, and is confirmed. */
const ON_ITS_WAY = 4 * 2048

const numberOf = (text: string): number => Number(/^\{"n":(\d+)/.exec(text)?.[1])

describeWith('rabbitmq', 'under load', () => {
  let broker: Broker
  let folder: string
  beforeAll(async () => {
    broker = await Broker.start()
    folder = mkdtempSync(join(tmpdir(), 'manifold-amqp-load-'))
    writeFileSync(
      join(folder, 'in.ndjson'),
      Array.from({ length: RECORDS }, (_, index) => `${record(index + 1)}\n`).join(''),
    )
  }, 90_000)
  afterAll(async () => {
    // Those of a test that failed.
    for (const running of all.splice(0)) running.kill('SIGKILL')
    await broker.stop()
    rmSync(folder, { recursive: true, force: true })
  }, 120_000)

  /**
   * Everything that comes to a queue, until it is stopped: read away at once, so that a queue that is deleted takes
   * little with it.
   */
  async function listen(queue: string): Promise<{ readonly numbers: readonly number[]; stop(): Promise<void> }> {
    const channel = await broker.channel()
    const numbers: number[] = []
    // The broker may end it together with a queue.
    let closed = false
    channel.once('close', () => {
      closed = true
    })
    await channel.consume(
      queue,
      (message) => {
        const text = message?.content.toString() ?? ''
        if (message !== null && text !== record(numberOf(text)))
          throw new Error(`an altered message: ${text.slice(0, 100)}`)
        if (message !== null) numbers.push(numberOf(text))
      },
      { noAck: true },
    )
    return {
      numbers,
      stop: async () => {
        if (!closed) await channel.close()
      },
    }
  }
  /** @returns how many messages were deleted with it */
  async function deleteQueue(queue: string): Promise<number> {
    const channel = await broker.channel()
    const { messageCount } = await channel.deleteQueue(queue)
    await channel.close()
    return messageCount
  }
  const all: Running[] = []
  const run = (args: readonly string[]): Running => {
    const running = start(args)
    all.push(running)
    return running
  }
  const ended = ({ code, stderr }: Finished): void => {
    expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
  }
  const missed = (numbers: readonly number[]): number =>
    missing(numbers, RECORDS).reduce((sum, { from, to }) => sum + to - from + 1, 0)
  const receiptsOf = (file: string): readonly Receipt[] =>
    readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text) as Receipt)

  test(
    `memory runs out ${ALARMS} times: blocked, told of with the reason, no stall, resumed each time, every record there once`,
    async () => {
      const queue = await broker.declare('alarms', { arguments: { 'x-queue-type': 'quorum' } })
      const socket = join(folder, 'status.sock')
      const alarm = async (on: boolean): Promise<void> => {
        await broker.server.evaluate(
          `vm_memory_monitor:set_vm_memory_high_watermark(${on ? '0' : '{absolute,"1GB"}'}).`,
        )
      }
      const receipts = join(folder, 'alarms.ndjson')
      // The stall timeout is shorter than each of the alarms.
      const running = run([
        '--from',
        'generate:',
        `rate=${RATE}`,
        '--to',
        broker.uri(),
        `queue=${queue}`,
        '--metrics',
        `unix:${socket}`,
        '--stall-timeout',
        '2s',
        '--grace',
        '2m',
        '--state',
        join(folder, 'alarms'),
        '--receipt',
        receipts,
      ])
      const status = async (): Promise<string> => (await httpGet(socket, '/status'))?.body ?? ''
      const told = (text: RegExp): number => running.stderr().match(text)?.length ?? 0
      try {
        await until(async () => (await broker.count(queue)) > 0)
        for (let round = 1; round <= ALARMS; round++) {
          await alarm(true)
          await until(async () => /"blocked: low on memory":[1-9]/.test(await status()))
          // For longer than it may stall; what was on its way has come in by then.
          await until(async () => /"blocked":[2-9]/.test(await status()))
          const held = await broker.count(queue)
          await until(async () => /"blocked":[3-9]/.test(await status()))
          expect(await broker.count(queue)).toBe(held)
          await alarm(false)
          await until(async () => (await broker.count(queue)) > held)
          expect(await status()).toMatch(/"blocked":0,.*"blocked: low on memory":0/)
        }
      } finally {
        await alarm(false)
      }
      running.kill('SIGTERM')
      const finished = await running.done
      ended(finished)
      expect(finished.stderr).not.toMatch(/did not answer/)
      expect(told(/blocks publishers for now: low on memory/g)).toBeGreaterThan(0)
      const [receipt] = receiptsOf(receipts)
      const { read, delivered } = receipt!.sinks[0]!
      expect(delivered).toBe(read)
      const values = (await broker.collect(queue, await broker.count(queue))).map(({ content }) => content.toString())
      expect(values).toHaveLength(delivered)
      expect(new Set(values).size).toBe(delivered)
    },
    240_000 + ALARMS * 10_000,
  )

  // Each of these waits for most of its time, for what a broker leaves without an answer: they run side by side.
  test.concurrent('a queue deleted in the middle and declared again by somebody: what came meanwhile are dead letters, all else is delivered', async () => {
    const queue = await broker.declare('deleted')
    const dead = join(folder, 'dead.ndjson')
    const receipts = join(folder, 'receipts.ndjson')
    const first = await listen(queue)
    const running = run([
      '--from',
      `file:${folder}/in.ndjson`,
      '--to',
      broker.uri(),
      `queue=${queue}`,
      '--dead-letter',
      `file:${dead}`,
      '--state',
      join(folder, 'deleted'),
      '--receipt',
      receipts,
    ])
    await until(() => first.numbers.length > RECORDS / 10)
    const lost = await deleteQueue(queue)
    await until(() => existsSync(dead))
    await broker.declare(queue)
    const second = await listen(queue)
    const finished = await running.done
    // Records that were rejected: the run is incomplete, and says so.
    expect(finished.code).toBe(5)
    const [receipt] = receiptsOf(receipts)
    const [sink] = receipt!.sinks
    expect(imbalance(sink!)).toBe(0)
    const letters = readFileSync(dead, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { readonly value: string; readonly why: string })
    expect(letters.length).toBe(sink!.rejected)
    expect(letters.every(({ why }) => why.includes('NO_ROUTE'))).toBe(true)
    const rejected = letters.map(({ value }) => numberOf(value))
    await until(
      async () =>
        (await broker.count(queue)) === 0 &&
        missed([...first.numbers, ...second.numbers, ...rejected]) <= lost + ON_ITS_WAY,
    )
    await Promise.all([first.stop(), second.stop()])
    // None of them was delivered as well.
    const delivered = new Set([...first.numbers, ...second.numbers])
    expect(rejected.filter((n) => delivered.has(n))).toEqual([])
  }, 120_000)

  test.concurrent.each(['classic', 'quorum'])(
    'a queue deleted in the middle that declare= makes again: nothing is rejected, %s',
    async (type) => {
      const queue = `remade-${type}`
      const receipts = join(folder, `${queue}.ndjson`)
      const seen: { readonly numbers: readonly number[]; stop(): Promise<void> }[] = []
      const came = (): readonly number[] => seen.flatMap(({ numbers }) => numbers)
      await broker.declare(queue, { arguments: type === 'quorum' ? { 'x-queue-type': type } : {} })
      seen.push(await listen(queue))
      const running = run([
        '--from',
        `file:${folder}/in.ndjson`,
        '--to',
        broker.uri(),
        `queue=${queue}`,
        `declare=${type}`,
        '--state',
        join(folder, queue),
        '--receipt',
        receipts,
        '--log-level',
        'info',
      ])
      await until(() => came().length > RECORDS / 10)
      const lost = await deleteQueue(queue)
      await until(async () => {
        // It is there once it was made again.
        try {
          seen.push(await listen(queue))
          return true
        } catch {
          return false
        }
      })
      const finished = await running.done
      expect(finished).toMatchObject({ code: 0 })
      // A return, a refusal, a channel that the broker ends with INTERNAL_ERROR, or silence: that is the moment's luck.
      expect(finished.stderr).toMatch(/trying again/)
      const [receipt] = receiptsOf(receipts)
      expect(receipt!.sinks[0]).toMatchObject({ delivered: RECORDS, rejected: 0 })
      await until(async () => (await broker.count(queue)) === 0 && missed(came()) <= lost + ON_ITS_WAY)
      for (const each of seen) await each.stop()
    },
    120_000,
  )

  test.concurrent.each(['classic', 'quorum'])(
    'a queue deleted and declared again while it is read: told of, and the new one is read on, %s',
    async (type) => {
      const [queue, out] = [`read-${type}`, join(folder, `read-${type}.ndjson`)]
      const declared = { arguments: type === 'quorum' ? { 'x-queue-type': type } : {} }
      await broker.declare(queue, declared)
      const running = run(['--from', broker.uri(), `queue=${queue}`, '--to', `file:${out}`])
      const found = (): readonly string[] => (existsSync(out) ? readFileSync(out, 'utf8').split('\n').slice(0, -1) : [])
      const part = RECORDS / 10
      function* numbered(from: number): Generator<string> {
        for (let n = from; n < from + part; n++) yield record(n)
      }
      await broker.put(queue, numbered(1))
      await until(() => found().length > 0)
      await deleteQueue(queue)
      await until(
        () => running.stderr().includes('the queue was deleted') && running.stderr().includes(`no queue '${queue}'`),
      )
      await broker.declare(queue, declared)
      await broker.put(queue, numbered(part + 1))
      // What lay in the deleted one went with it; of the new one nothing is missing.
      await until(
        () =>
          new Set(
            found()
              .map(numberOf)
              .filter((n) => n > part),
          ).size === part,
      )
      running.kill('SIGTERM')
      ended(await running.done)
      await until(async () => (await broker.count(queue)) === 0)
    },
    120_000,
  )
})
