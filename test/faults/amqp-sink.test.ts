/**
 * A queue to fill: its broker stops, cuts everybody off, is killed, has no memory left; the process is killed; messages
 * that reach no queue.
 */
import { appendFileSync, createReadStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Broker } from '../endpoints/amqp/broker'
import { describeWith } from '../services/describe-with'
import { record } from '../support/feed'
import { manifold, start, type Running } from '../support/manifold'
import { missing } from '../support/oracle'

/** Messages, and how often each fault; MANIFOLD_LONG makes it half a million and ten times. */
const LONG = process.env['MANIFOLD_LONG'] === '1'
const MESSAGES = LONG ? 500_000 : 100_000
const TIMES = LONG ? 10 : 3

const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
async function seen(running: Running, text: RegExp): Promise<void> {
  let ended = false
  void running.done.then(() => {
    ended = true
  })
  while (!text.test(running.stderr())) {
    if (ended) throw new Error(`it ended without ${String(text)}: ${running.stderr().slice(-1000)}`)
    await sleep(50)
  }
}
const numberOf = (text: string): number => Number(/^\{"n":(\d+)/.exec(text)?.[1])

describeWith('rabbitmq', 'into queues', () => {
  let broker: Broker
  let folder: string
  beforeAll(async () => {
    broker = await Broker.start()
    folder = mkdtempSync(join(tmpdir(), 'manifold-amqp-sink-'))
    let text = ''
    for (let n = 1; n <= MESSAGES; n++) text += `${record(n)}\n`
    writeFileSync(join(folder, 'in.ndjson'), text)
  }, 90_000)
  afterAll(async () => {
    await broker.stop()
    rmSync(folder, { recursive: true, force: true })
  }, 60_000)

  async function stored(queue: string): Promise<readonly { readonly n: number; readonly id: string | undefined }[]> {
    const messages = await broker.collect(queue, await broker.count(queue))
    return messages.map(({ content, properties }) => {
      const n = numberOf(content.toString())
      if (content.toString() !== record(n)) throw new Error(`an altered message: ${content.toString().slice(0, 100)}`)
      return { n, id: properties.messageId as string | undefined }
    })
  }

  test(
    `${MESSAGES} records of a file, the broker's application stopped and started, all connections closed and the process killed ${TIMES} times each: nothing missing, what is there twice has one id`,
    async () => {
      const queue = await broker.declare('from-file')
      const file = join(folder, 'growing.ndjson')
      const run = (...words: readonly string[]): Running =>
        start([
          '--from',
          `file:${file}`,
          ...words,
          '--to',
          broker.uri(),
          `queue=${queue}`,
          '--state',
          join(folder, 'state'),
          '--memory',
          '64MiB',
        ])
      // A part for each round, and one for after the last: every fault comes while there is something to do.
      const part = Math.ceil(MESSAGES / (TIMES + 1))
      let there = 0
      const append = (): void => {
        let text = ''
        for (const until = Math.min(MESSAGES, there + part); there < until; ) text += `${record(++there)}\n`
        appendFileSync(file, text)
      }
      let idle = 0
      const atWork = async (running: Running): Promise<void> => {
        let ended = false
        void running.done.then(() => {
          ended = true
        })
        const before = await broker.count(queue)
        for (;;) {
          const count = await broker.count(queue)
          if (count > before) return
          if (count >= there) {
            idle++
            return
          }
          if (ended) throw new Error(`it ended: ${running.stderr().slice(-1000)}`)
          await sleep(20)
        }
      }
      append()
      let running = run('follow')
      for (let round = 0; round < TIMES; round++) {
        await atWork(running)
        running.kill('SIGKILL')
        expect((await running.done).signal).toBe('SIGKILL')
        running = run('follow')
        await atWork(running)
        await broker.ctl('close_all_connections', 'a test')
        await atWork(running)
        await broker.ctl('stop_app')
        await broker.ctl('start_app')
        append()
      }
      await atWork(running)
      running.kill('SIGTERM')
      for (const { code, stderr } of [await running.done, await run().done])
        expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
      const found = await stored(queue)
      expect(
        missing(
          found.map(({ n }) => n),
          MESSAGES,
        ),
      ).toEqual([])
      const ids = new Map<number, string | undefined>()
      for (const { n, id } of found) {
        if (ids.has(n) && ids.get(n) !== id) throw new Error(`record ${n} was sent as ${ids.get(n)} and as ${id}`)
        ids.set(n, id)
      }
      expect(new Set(ids.values()).size).toBe(MESSAGES)
      expect(idle).toBeLessThan(TIMES)
      process.stderr.write(
        `file to queue: ${found.length} stored, ${found.length - ids.size} of them twice, ${TIMES} kills, ${2 * TIMES} faults of the broker, ${idle} of all while nothing was to do\n`,
      )
    },
    LONG ? 900_000 : 150_000,
  )

  test('stdin through a broker that is stopped, cut off and killed: nothing missing, in order but for what came again', async () => {
    const queue = await broker.declare('from-stdin')
    const running = start(['--from', '-', '--to', broker.uri(), `queue=${queue}`], { input: 'open' })
    createReadStream(join(folder, 'in.ndjson')).pipe(running.child.stdin!)
    await sleep(1000)
    await broker.ctl('close_all_connections', 'a test')
    await sleep(500)
    await broker.ctl('stop_app')
    await broker.ctl('start_app')
    await sleep(1000)
    await broker.kill()
    await broker.restart()
    const { code, stderr } = await running.done
    expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
    const numbers = (await stored(queue)).map(({ n }) => n)
    expect(missing(numbers, MESSAGES)).toEqual([])
    const seen = new Set<number>()
    const fresh = numbers.filter((n) => !seen.has(n) && seen.add(n) !== undefined)
    expect(fresh).toEqual([...fresh].sort((a, b) => a - b))
  }, 150_000)

  test('a broker without memory blocks: that is no stall, is told of, and nothing is lost when it goes on', async () => {
    const queue = await broker.declare('blocked')
    await broker.ctl('set_vm_memory_high_watermark', '0')
    const running = start([
      '--from',
      `file:${folder}/in.ndjson`,
      'follow',
      '--to',
      broker.uri(),
      `queue=${queue}`,
      '--stall-timeout',
      '2s',
      '--state',
      join(folder, 'blocked'),
    ])
    try {
      await seen(running, /blocks publishers for now/)
      const before = await broker.count(queue)
      await sleep(4000)
      expect(await broker.count(queue)).toBe(before)
    } finally {
      await broker.ctl('set_vm_memory_high_watermark', 'absolute', '1GB')
    }
    await seen(running, /takes messages again after \d+ s/)
    while ((await broker.count(queue)) < MESSAGES) await sleep(100)
    running.kill('SIGTERM')
    const { code, stderr } = await running.done
    expect(code).toBe(0)
    expect(stderr).not.toMatch(/did not answer/)
    expect((await stored(queue)).map(({ n }) => n)).toEqual(Array.from({ length: MESSAGES }, (_, index) => index + 1))
  }, 90_000)

  test('messages that reach no queue are dead letters, and an ordinary run delivers them once there is one', async () => {
    await broker.declare('even')
    const records = Array.from(
      { length: 1000 },
      (_, index) => `{"n":${index},"to":"${index % 2 === 0 ? 'even' : 'odd'}"}`,
    )
    const dead = `file:${folder}/dead.ndjson`
    const first = await manifold(['--from', '-', '--to', broker.uri(), 'key={json:to}', '--dead-letter', dead], {
      input: records.map((each) => `${each}\n`).join(''),
    })
    expect({ code: first.code, stderr: first.stderr.split('\n').length }).toEqual({
      code: 5,
      stderr: expect.any(Number) as number,
    })
    expect((await broker.collect('even', await broker.count('even'))).map(({ content }) => content.toString())).toEqual(
      records.filter((_, index) => index % 2 === 0),
    )
    const letters = readFileSync(join(folder, 'dead.ndjson'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { readonly value: string; readonly why: string })
    expect(letters.map(({ value }) => value)).toEqual(records.filter((_, index) => index % 2 === 1))
    expect(letters[0]?.why).toMatch(/the broker returned it: NO_ROUTE \(exchange '', key 'odd'\)/)
    await broker.declare('odd')
    const again = await manifold([
      '--from',
      dead,
      'framing=envelope',
      '--to',
      broker.uri(),
      'key={json:to}',
      '--state',
      join(folder, 'again'),
    ])
    expect({ code: again.code, stderr: again.stderr }).toEqual({ code: 0, stderr: '' })
    expect((await broker.collect('odd', await broker.count('odd'))).map(({ content }) => content.toString())).toEqual(
      records.filter((_, index) => index % 2 === 1),
    )
  }, 60_000)
})
