/**
 * Kafka through the built program: what the whole of it makes of gaps, lag, dead letters, envelopes and properties
 * under their Java names.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FlowStatus } from '../../../src/core/flow/status'
import type { Receipt } from '../../../src/core/accounting/receipt'
import { describeWith } from '../../services/describe-with'
import { committed, get, groupName, type KafkaServer, makeTopic, put, type Put, startKafka } from '../../services/kafka'
import { httpGet } from '../../support/http'
import { manifold, start } from '../../support/manifold'

describeWith('kafka', 'the built program', () => {
  let server: KafkaServer
  const folder = mkdtempSync(join(tmpdir(), 'manifold-kafka-'))
  beforeAll(async () => {
    server = await startKafka()
  }, 90_000)
  afterAll(async () => {
    await server?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  const uri = (topic: string): string => `kafka://${server.bootstrap}/${topic}`
  const numbered = (from: number, count: number): readonly Put[] =>
    Array.from({ length: count }, (_, index) => ({ value: `record ${from + index}` }))
  const lines = (from: number, count: number): string =>
    numbered(from, count)
      .map(({ value }) => `${String(value)}\n`)
      .join('')
  const errors = (stderr: string): readonly string[] => stderr.split('\n').filter((line) => line.includes('error: '))
  function receiptIn(file: string): Receipt {
    return JSON.parse(readFileSync(file, 'utf8')) as Receipt
  }

  it.each([
    ['oldest', 5, lines(60, 40), { from: 20, to: 60, records: 40 }],
    ['latest', 5, '', { from: 20, to: 100, records: 80 }],
    ['fail', 3, '', { from: 20, to: 60, records: 40 }],
  ] as const)(
    'records that were deleted before they were read, with on-gap=%s: exit %d, and the gap is in the receipt',
    async (onGap, exit, out, gap) => {
      const topic = await makeTopic(server)
      const run = (receipt: string) =>
        manifold([
          '--from',
          uri(topic),
          `on-gap=${onGap}`,
          '--to',
          '-',
          '--until',
          'end',
          '--name',
          `gap-${onGap}`,
          '--state',
          join(folder, 'gaps'),
          '--receipt',
          receipt,
        ])
      await put(server, topic, numbered(0, 20))
      expect(await run(join(folder, 'before.json'))).toMatchObject({ code: 0, stderr: '' })
      await put(server, topic, numbered(20, 80))
      await deleteRecords(server, topic, 60)
      const file = join(folder, `${onGap}.json`)
      const { code, stdout, stderr } = await run(file)
      expect([code, stdout.toString()]).toEqual([exit, out])
      const { gaps, gapCount } = receiptIn(file)
      expect(
        gaps.map(({ partition, from, to, records }) => ({
          partition,
          from: parseInt(from, 10),
          to: parseInt(to, 10),
          records,
        })),
      ).toEqual([{ partition: `${topic}-0`, ...gap }])
      expect(gapCount).toBe(1)
      expect(stderr).toMatch(/1 gap/)
      expect(errors(stderr).filter((line) => line.includes('on-gap=fail'))).toEqual(
        onGap === 'fail'
          ? [
              expect.stringMatching(
                /-0: the records from offset 20 on are gone, and on-gap=fail: with on-gap=oldest or latest reading goes on there$/,
              ) as string,
            ]
          : [],
      )
    },
    60_000,
  )

  it('several topics at once, by way of whichever broker answers', async () => {
    const [one, two] = [await makeTopic(server), await makeTopic(server)]
    await put(server, one, numbered(0, 10))
    await put(server, two, numbered(10, 10))
    // Nobody listens at the first.
    const { code, stdout, stderr } = await manifold([
      '--until',
      'end',
      '--from',
      `kafka://127.0.0.1:1,${server.bootstrap}/${one},${two}`,
      '--to',
      '-',
    ])
    expect([code, errors(stderr), stdout.toString().split('\n').sort()]).toEqual([
      0,
      [],
      lines(0, 20).split('\n').sort(),
    ])
  }, 60_000)

  it('keys, headers, timestamps and tombstones survive from topic to topic, and by way of a file of envelopes', async () => {
    const records: readonly Put[] = [
      { value: 'plain', timestamp: 1_700_000_000_001 },
      {
        value: 'a\nb\u0000',
        key: Buffer.from([0, 255, 10]),
        headers: [
          ['h', '1'],
          ['h', '2'],
          ['ü', ''],
        ],
        timestamp: 1_700_000_000_002,
      },
      { value: null, key: 'gone', timestamp: 1_700_000_000_003 },
      { value: '', key: '', headers: [['empty', '']], timestamp: 1_700_000_000_004 },
      { value: Buffer.from([0xff, 0xfe]), timestamp: 1_700_000_000_000 },
    ]
    const [from, direct, through] = [await makeTopic(server), await makeTopic(server), await makeTopic(server)]
    await put(server, from, records)
    const facts = async (topic: string) =>
      (await get(server, topic)).map(({ value, key, headers, timestamp }) => ({
        value: value?.toString('latin1') ?? null,
        key: key?.toString('latin1') ?? null,
        headers,
        timestamp,
      }))
    const sent = await facts(from)
    expect(sent).toHaveLength(records.length)
    const file = join(folder, 'envelopes.ndjson')
    expect(await manifold(['--from', uri(from), '--until', 'end', '--to', uri(direct)])).toMatchObject({ code: 0 })
    expect(
      await manifold(['--from', uri(from), '--until', 'end', '--to', `file:${file}`, 'framing=envelope']),
    ).toMatchObject({ code: 0 })
    expect(await manifold(['--from', `file:${file}`, 'framing=envelope', '--to', uri(through)])).toMatchObject({
      code: 0,
    })
    expect(await facts(direct)).toEqual(sent)
    expect(await facts(through)).toEqual(sent)
  }, 60_000)

  it('a record that the topic does not take is a dead letter, the others arrive, and the exit code is 5', async () => {
    const topic = await makeTopic(server, { configs: { 'max.message.bytes': 20_000 } })
    const dead = join(folder, 'dead.ndjson')
    const file = join(folder, 'dead.json')
    const { code, stderr } = await manifold(
      ['--from', '-', '--to', uri(topic), '--dead-letter', `file:${dead}`, '--receipt', file],
      { input: `one\n${'x'.repeat(30_000)}\ntwo\n` },
    )
    expect(code).toBe(5)
    expect((await get(server, topic)).map(({ value }) => String(value))).toEqual(['one', 'two'])
    const letters = readFileSync(dead, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { readonly value: string; readonly why: string })
    expect(letters.map(({ value, why }) => [value.length, why])).toEqual([
      [30_000, expect.stringMatching(new RegExp(`^${topic}: MESSAGE_TOO_LARGE`)) as string],
    ])
    expect(receiptIn(file).sinks).toMatchObject([{ read: 3, delivered: 2, rejected: 1 }])
    expect(stderr).toMatch(/1 rejected/)
  }, 60_000)

  it("properties of Java's clients mean here what they mean there", async () => {
    const [from, to] = [await makeTopic(server), await makeTopic(server)]
    const group = groupName()
    await put(server, from, numbered(0, 100))
    const { code, stderr } = await manifold([
      '--until',
      'end',
      '--from',
      uri(from),
      `group.id=${group}`,
      'group.instance.id=one',
      'client.id=java',
      'auto.offset.reset=earliest',
      'isolation.level=read_committed',
      'session.timeout.ms=10000',
      'heartbeat.interval.ms=1000',
      'max.poll.interval.ms=30000',
      'partition.assignment.strategy=org.apache.kafka.clients.consumer.CooperativeStickyAssignor',
      'fetch.min.bytes=1',
      'fetch.max.wait.ms=100',
      'fetch.max.bytes=1048576',
      'max.partition.fetch.bytes=65536',
      'request.timeout.ms=20000',
      'metadata.max.age.ms=5000',
      '--to',
      uri(to),
      'client.id=java',
      'compression.type=lz4',
      'batch.size=16384',
      'max.request.size=1048576',
    ])
    expect([code, errors(stderr)]).toEqual([0, []])
    expect((await get(server, to)).map(({ value }) => `${String(value)}\n`).join('')).toBe(lines(0, 100))
    expect(await committed(server, group)).toEqual([{ topic: from, partition: 0, offset: 100 }])
  }, 60_000)

  it('what each partition is behind is in the status, the metrics and the live line', async () => {
    const topic = await makeTopic(server, { partitions: 2 })
    const filler = 'x'.repeat(1000)
    for (const partition of [0, 1])
      await put(
        server,
        topic,
        Array.from({ length: 4000 }, () => ({ value: filler, partition })),
      )
    const socket = join(folder, 'metrics')
    const running = start([
      '--from',
      uri(topic),
      'fetch-max-bytes=64KiB',
      'partition-max-bytes=64KiB',
      '--to',
      '-',
      '--memory',
      '1MiB',
      '--metrics',
      `unix:${socket}`,
      '--progress',
      'on',
    ])
    const lags = async (): Promise<readonly number[]> => {
      const answer = await httpGet(socket, '/status')
      const [source] = answer === undefined ? [] : (JSON.parse(answer.body) as FlowStatus).sources
      return [0, 1].map((partition) => source?.gauges[`lag ${topic}-${partition}`] ?? -1)
    }
    const until = async (is: (lags: readonly number[]) => boolean): Promise<void> => {
      while (!is(await lags())) {
        expect(running.child.exitCode).toBeNull()
        await new Promise((resolve) => {
          setTimeout(resolve, 20)
        })
      }
    }
    try {
      // Nobody reads: what does not fit into the pipe and the memory stays in the topic.
      running.child.stdout?.pause()
      await until(([first = 0, second = 0]) => first > 0 && second > 0)
      // The rest of the line may not fit.
      while (!/ out, .* [1-9][\d,]* behind/.test(running.stderr()))
        await new Promise((resolve) => {
          setTimeout(resolve, 20)
        })
      running.child.stdout?.resume()
      await until((now) => now.every((lag) => lag === 0))
      const metrics = (await httpGet(socket, '/metrics'))?.body ?? ''
      for (const partition of [0, 1])
        expect(metrics).toMatch(new RegExp(`^manifold_endpoint\\{.*name="lag ${topic}-${partition}"\\} 0$`, 'm'))
    } finally {
      running.child.stdout?.resume()
      running.kill('SIGTERM')
      await running.done
    }
  }, 60_000)
})

async function deleteRecords(server: KafkaServer, topic: string, before: number): Promise<void> {
  const { Admin } = await import('@platformatic/kafka')
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: server.bootstrap.split(',') })
  try {
    await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: BigInt(before) }] }] })
  } finally {
    await admin.close()
  }
}
