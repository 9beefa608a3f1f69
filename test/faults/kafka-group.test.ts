/**
 * Kafka into S3 with the processes killed at random: in a group nothing is missing, and only what was not committed
 * comes again; alone nothing comes twice.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { describeWith } from '../services/describe-with'
import { committed, ends, groupName, makeTopic, put, startKafka, type KafkaServer } from '../services/kafka'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { manifold, start, type Running } from '../support/manifold'
import { plain } from '../support/oracle'

/** MANIFOLD_LONG makes it the million. */
const LONG = process.env['MANIFOLD_LONG'] === '1'
const RECORDS = LONG ? 1_000_000 : 120_000
const SECONDS = LONG ? 60 : 14
const KILLS = LONG ? 20 : 5
const PARTITIONS = 12
const MEMBERS = 3

const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
const record = (n: number): string => `{"n":${n},"pad":"${'x'.repeat(80)}"}`

interface Stored {
  readonly n: number
  readonly partition: number
  readonly offset: number
  readonly receivedAt: number
}
/** What the group had committed by then: nobody who begins to read afterwards may read anything before it. */
interface Mark {
  readonly at: number
  readonly offsets: ReadonlyMap<number, number>
}

describeWith('kafka', 'kafka to s3', () => {
  let kafka: KafkaServer
  let s3: S3Server
  let bucket: Bucket
  let folder: string
  let topic: string
  const running: Running[] = []

  beforeAll(async () => {
    ;[kafka, s3] = await Promise.all([
      startKafka({ own: true, properties: { 'group.min.session.timeout.ms': 1000 } }),
      startS3(),
    ])
  }, 120_000)
  afterAll(async () => {
    await Promise.all([kafka.stop(), s3.stop()])
  })
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'manifold-kafka-s3-'))
    bucket = await Bucket.make(s3)
    topic = await makeTopic(kafka, { partitions: PARTITIONS })
  })
  afterEach(async () => {
    for (const one of running.splice(0)) {
      one.kill('SIGKILL')
      await one.done
    }
    bucket.close()
    rmSync(folder, { recursive: true, force: true })
  })

  function run(source: readonly string[]): Running {
    const one = start(
      [
        '--from',
        `kafka://${kafka.bootstrap}/${topic}`,
        ...source,
        '--to',
        `s3://${bucket.name}/lake`,
        'region=us-east-1',
        `endpoint=${s3.endpoint}`,
        'path-style',
        'access-key-id={env:KEY}',
        'secret-access-key={env:SECRET}',
        'framing=envelope',
        'commit-file-size=4MiB',
        'commit-duration=1s',
        'upload-every=1s',
        '--state',
        join(folder, 'state'),
        '--receipt',
        join(folder, 'receipts.ndjson'),
      ],
      { env: { KEY: s3.accessKey, SECRET: s3.secretKey } },
    )
    running.push(one)
    return one
  }

  /** Spread over the partitions and over the time. */
  async function feed(): Promise<void> {
    const begun = Date.now()
    const size = 2000
    for (let from = 0; from < RECORDS; from += size) {
      await put(
        kafka,
        topic,
        Array.from({ length: Math.min(size, RECORDS - from) }, (_, index) => ({
          value: record(from + index),
          partition: (from + index) % PARTITIONS,
        })),
      )
      await sleep(Math.max(0, begun + (SECONDS * 1000 * (from + size)) / RECORDS - Date.now()))
    }
  }

  /** kill -9 of one after the other, each replaced at once. */
  async function havoc(processes: Running[], again: () => Running, before: () => Promise<void>): Promise<void> {
    for (let kill = 0; kill < KILLS; kill++) {
      await sleep(((SECONDS * 1000) / (KILLS + 1)) * (0.5 + Math.random()))
      const victim = Math.floor(Math.random() * processes.length)
      await before()
      processes[victim]?.kill('SIGKILL')
      expect((await processes[victim]?.done)?.signal).toBe('SIGKILL')
      processes[victim] = again()
    }
  }

  async function stored(): Promise<Stored[]> {
    const found: Stored[] = []
    for (const object of await bucket.all()) {
      for (const line of plain(object).toString().split('\n').slice(0, -1)) {
        const { value, partition, position } = JSON.parse(line) as {
          value: string
          partition: string
          position: string
        }
        const n = Number(/^\{"n":(\d+)/.exec(value)?.[1])
        if (value !== record(n)) throw new Error(`altered: ${value}`)
        found.push({
          n,
          partition: Number(partition.slice(topic.length + 1)),
          offset: Number.parseInt(position, 10),
          receivedAt: Date.parse(object.metadata['manifold-received-first'] ?? ''),
        })
      }
    }
    return found
  }

  async function stop(processes: readonly Running[]): Promise<void> {
    for (const one of processes) one.kill('SIGTERM')
    for (const one of processes) {
      const { code, stderr } = await one.done
      expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
    }
    for (const [, receipt] of new Map(
      readFileSync(join(folder, 'receipts.ndjson'), 'utf8')
        .trim()
        .split('\n')
        .map((text) => JSON.parse(text) as Receipt)
        .map((each) => [each.run, each] as const),
    )) {
      for (const sink of receipt.sinks)
        expect({ run: receipt.run, off: imbalance(sink) }).toEqual({ run: receipt.run, off: 0 })
    }
  }

  test(
    `${MEMBERS} processes in a group, ${KILLS} times kill -9: nothing is missing, and nothing that was committed comes again`,
    async () => {
      const group = groupName()
      const member = (): Running => run([`group=${group}`, 'session-timeout=4s', 'heartbeat-every=300ms'])
      const processes = Array.from({ length: MEMBERS }, member)
      const marks: Mark[] = []
      const mark = async (): Promise<void> => {
        const offsets = await committed(kafka, group)
        marks.push({ at: Date.now(), offsets: new Map(offsets.map(({ partition, offset }) => [partition, offset])) })
      }
      const fed = feed()
      await havoc(processes, member, mark)
      await fed
      const wanted = await ends(kafka, topic)
      for (const giveUpAt = Date.now() + 60_000; ; ) {
        await mark()
        const { offsets } = marks.at(-1)!
        if (wanted.every((end, partition) => offsets.get(partition) === end)) break
        if (Date.now() > giveUpAt)
          throw new Error(
            `not all is committed: ${JSON.stringify([...offsets])} of ${JSON.stringify(wanted)}; ${processes.map((one) => one.stderr()).join('\n')}`,
          )
        await sleep(250)
      }
      await stop(processes)

      const found = await stored()
      const seen = new Map<number, Stored[]>()
      for (const each of found) seen.set(each.n, [...(seen.get(each.n) ?? []), each])
      expect(seen.size).toBe(RECORDS)
      const again = found.length - RECORDS
      process.stderr.write(
        `kafka group to s3: ${RECORDS} records, ${KILLS} kills, ${again} came again (${(again / KILLS).toFixed(0)} a kill)\n`,
      )
      // An object whose first record was received after a moment holds nothing that was committed by then.
      const wrong = marks.flatMap(({ at, offsets }) =>
        found
          .filter((each) => each.receivedAt > at && each.offset < (offsets.get(each.partition) ?? 0))
          .map((each) => ({ ...each, committed: offsets.get(each.partition), at })),
      )
      expect(wrong.slice(0, 3)).toEqual([])
      expect(found.every(({ receivedAt }) => receivedAt > 0)).toBe(true)
      // What one of them has stored and not yet committed is a second or two of what it reads; whatever is more was
      // read again for nothing. On a machine that starves a process for longer than its session that is another matter:
      // what it had read since its last commit comes again, too.
      const starved = running.some((one) => one.stderr().includes('no member any more'))
      const share = starved ? Infinity : (KILLS * 2 * RECORDS) / SECONDS
      if (again > share)
        throw new Error(
          `${again} came again, more than ${share}:\n${running.map((one) => `--- ${one.pid}\n${one.stderr()}`).join('\n')}\n${marks
            .map(
              ({ at, offsets }) =>
                `${at} ${[...offsets]
                  .sort(([a], [b]) => a - b)
                  .map(([, offset]) => offset)
                  .join()}`,
            )
            .join('\n')}`,
        )
    },
    (SECONDS + 150) * 1000,
  )

  test(
    `one process without a group, ${KILLS} times kill -9: nothing is missing, nothing twice`,
    async () => {
      const alone = (): Running => run([])
      const processes = [alone()]
      const fed = feed()
      await havoc(processes, alone, () => Promise.resolve())
      await fed
      for (const giveUpAt = Date.now() + 60_000; ; ) {
        const count = (await bucket.all()).reduce((sum, { metadata }) => sum + Number(metadata['manifold-count']), 0)
        if (count >= RECORDS) break
        if (Date.now() > giveUpAt)
          throw new Error(`${count} of ${RECORDS} records are there; ${processes[0]?.stderr()}`)
        await sleep(500)
      }
      await stop(processes)
      const found = await stored()
      expect(new Set(found.map(({ n }) => n)).size).toBe(RECORDS)
      expect(found).toHaveLength(RECORDS)
      const drained = await manifold(['ls', '--state', join(folder, 'state')])
      expect(drained.code).toBe(0)
    },
    (SECONDS + 150) * 1000,
  )
})
