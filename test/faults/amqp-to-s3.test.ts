/**
 * A queue to archive: its broker stops and starts, cuts everybody off, the process is killed at random; and two
 * processes that share a queue.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { Broker } from '../endpoints/amqp/broker'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { describeWith } from '../services/describe-with'
import { record } from '../support/feed'
import { manifold, start, type Running } from '../support/manifold'
import { missing } from '../support/oracle'

/** Messages, and how often each fault; MANIFOLD_LONG makes it half a million and ten times. */
const LONG = process.env['MANIFOLD_LONG'] === '1'
const MESSAGES = LONG ? 500_000 : 100_000
const TIMES = LONG ? 10 : 3
/** Bounds what a fault makes come again, and, for it is given back once a second, how quickly all is over. */
const PREFETCH = LONG ? 6000 : 4000

const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
function* numbered(from: number, to: number): Generator<string> {
  for (let n = from; n <= to; n++) yield record(n)
}

interface Stored {
  readonly n: number
  readonly id: string
}

describeWith('s3', 'with s3', () => {
  describeWith('rabbitmq', 'queues to s3', () => {
    let server: S3Server
    let bucket: Bucket
    let broker: Broker
    let folder: string

    beforeAll(async () => {
      ;[server, broker] = await Promise.all([startS3(), Broker.start()])
    }, 90_000)
    afterAll(async () => {
      await Promise.all([server.stop(), broker.stop()])
    }, 60_000)
    beforeEach(async () => {
      folder = mkdtempSync(join(tmpdir(), 'manifold-amqp-s3-'))
      bucket = await Bucket.make(server)
    })
    afterEach(() => {
      bucket.close()
      rmSync(folder, { recursive: true, force: true })
    })

    const env = (): NodeJS.ProcessEnv => ({ KEY: server.accessKey, SECRET: server.secretKey })
    const run = (
      queue: string,
      words: readonly string[] = [`prefetch=${PREFETCH}`],
      flags: readonly string[] = [],
      commitDuration = '2s',
    ): Running =>
      start(
        [
          '--from',
          broker.uri(),
          `queue=${queue}`,
          ...words,
          '--to',
          `s3://${bucket.name}/jobs`,
          'region=us-east-1',
          `endpoint=${server.endpoint}`,
          'path-style',
          'access-key-id={env:KEY}',
          'secret-access-key={env:SECRET}',
          'framing=envelope',
          'commit-file-size=8MiB',
          `commit-duration=${commitDuration}`,
          'upload-every=1s',
          '--state',
          join(folder, 'state'),
          '--receipt',
          join(folder, 'receipts.ndjson'),
          ...flags,
        ],
        { env: env() },
      )

    async function stored(): Promise<readonly Stored[]> {
      const found: Stored[] = []
      for (const { bytes } of await bucket.all()) {
        for (const line of bytes.toString().split('\n').slice(0, -1)) {
          const { value, headers } = JSON.parse(line) as {
            readonly value: string
            readonly headers: readonly (readonly [string, string])[]
          }
          const n = Number(/^\{"n":(\d+)/.exec(value)?.[1])
          if (value !== record(n)) throw new Error(`an altered record: ${value.slice(0, 100)}`)
          found.push({ n, id: headers.find(([name]) => name === 'amqp.message-id')?.[1] ?? '' })
        }
      }
      return found
    }
    /** The queue's own count leaves out what is with a consumer: empty is what stays empty with nobody there. */
    async function drained(queue: string, running: readonly Running[]): Promise<void> {
      for (;;) {
        while ((await broker.count(queue)) > 0) await sleep(200)
        // A signal that comes before they listen to it would end them as it ends everything.
        for (const each of running) await begun(each)
        for (const each of running) each.kill('SIGTERM')
        for (const each of running) {
          const { code, stderr } = await each.done
          expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
        }
        if ((await broker.count(queue)) === 0) break
        running = [run(queue)]
      }
      const receipts = readFileSync(join(folder, 'receipts.ndjson'), 'utf8')
        .trim()
        .split('\n')
        .map((text) => JSON.parse(text) as Receipt)
      const drain = await manifold(['spool', 'drain', receipts[0]?.flow ?? '', '--state', join(folder, 'state')], {
        env: env(),
      })
      expect({ code: drain.code, stderr: drain.stderr }).toEqual({ code: 0, stderr: '' })
      for (const receipt of receipts)
        for (const sink of receipt.sinks)
          expect({ run: receipt.run, off: imbalance(sink) }).toEqual({ run: receipt.run, off: 0 })
    }
    async function begun(each: Running): Promise<void> {
      let over = false
      void each.done.then(() => {
        over = true
      })
      while (!over && !each.stderr().includes('flow ')) await sleep(50)
    }
    async function check(faults: number): Promise<void> {
      const found = await stored()
      const numbers = found.map(({ n }) => n)
      expect(missing(numbers, MESSAGES)).toEqual([])
      // A message that is there twice is recognised by its id.
      for (const { n, id } of found) if (id !== `m-${n}`) throw new Error(`record ${n} has the id ${id}`)
      const doubles = numbers.length - new Set(numbers).size
      expect(doubles).toBeLessThanOrEqual(faults * PREFETCH)
      process.stderr.write(`queue to s3: ${numbers.length} stored, ${doubles} of them twice, ${faults} faults\n`)
    }

    test(
      `${MESSAGES} messages, the broker's application stopped and started, all connections closed and the process killed ${TIMES} times each: nothing missing, what is there twice has one id`,
      async () => {
        const queue = await broker.declare('jobs')
        // A part for each round, and one for after the last: every fault comes while there is something to do.
        const part = Math.ceil(MESSAGES / (TIMES + 1))
        let there = 0
        const put = async (): Promise<void> => {
          const from = there + 1
          there = Math.min(MESSAGES, there + part)
          await broker.put(queue, numbered(from, there), (index) => ({ messageId: `m-${from + index}` }))
        }
        await put()
        let running = run(queue)
        for (let round = 0; round < TIMES; round++) {
          await sleep(500 + Math.random() * 1000)
          running.kill('SIGKILL')
          expect((await running.done).signal).toBe('SIGKILL')
          running = run(queue)
          await sleep(1000 + Math.random() * 1000)
          await broker.ctl('close_all_connections', 'a test')
          await sleep(500 + Math.random() * 1000)
          await broker.ctl('stop_app')
          await broker.ctl('start_app')
          await put()
        }
        await drained(queue, [running])
        await check(3 * TIMES)
      },
      LONG ? 900_000 : 300_000,
    )

    test(
      'two processes share a queue, one is killed and later started again: the other goes on, the restarted one delivers what it held, nothing missing',
      async () => {
        const queue = await broker.declare('shared')
        const half = MESSAGES / 2
        const put = (from: number, to: number): Promise<void> =>
          broker.put(queue, numbered(from, to), (index) => ({ messageId: `m-${from + index}` }))
        await put(1, half)
        // Nothing of the first is uploaded while it lives.
        const first = run(queue, undefined, [], '1h')
        const second = run(queue)
        const consumers = async (): Promise<number> => await broker.consumers(queue)
        while ((await consumers()) < 2) await sleep(50)
        await put(half + 1, MESSAGES)
        first.kill('SIGKILL')
        await first.done
        // The other goes on with the queue.
        while ((await broker.count(queue)) > 0) await sleep(50)
        expect(await consumers()).toBe(1)
        const again = run(queue)
        while ((await consumers()) < 2) await sleep(50)
        await drained(queue, [second, again])
        await check(1)
        expect((await again.done).stderr).not.toMatch(/instance 2/)
        const carried = readFileSync(join(folder, 'receipts.ndjson'), 'utf8')
          .trim()
          .split('\n')
          .map((text) => JSON.parse(text) as Receipt)
          .filter(({ outcome }) => outcome !== 'killed')
          .map(({ sinks }) => sinks[0]?.carriedIn ?? 0)
        // What the first held when it was killed.
        expect(Math.max(...carried)).toBeGreaterThan(0)
      },
      LONG ? 900_000 : 300_000,
    )

    test(
      `a stream of ${MESSAGES} messages, the process killed ${TIMES} times and all connections closed: nothing missing, nothing twice`,
      async () => {
        const queue = await broker.declare('stream', { arguments: { 'x-queue-type': 'stream' } })
        await broker.put(queue, numbered(1, MESSAGES), (index) => ({ messageId: `m-${index + 1}` }))
        const words = ['stream', `prefetch=${PREFETCH / 20}`]
        for (let round = 0; round < TIMES; round++) {
          const running = run(queue, words)
          await sleep(600 + Math.random() * 900)
          if (round === 1) await broker.ctl('close_all_connections', 'a test')
          running.kill('SIGKILL')
          await running.done
        }
        const last = await run(queue, words, ['--until', 'end']).done
        expect({ code: last.code, stderr: last.code === 0 ? '' : last.stderr }).toEqual({ code: 0, stderr: '' })
        expect((await stored()).map(({ n, id }) => ({ n, id }))).toEqual(
          Array.from({ length: MESSAGES }, (_, index) => ({ n: index + 1, id: `m-${index + 1}` })),
        )
      },
      LONG ? 900_000 : 150_000,
    )
  })
})
