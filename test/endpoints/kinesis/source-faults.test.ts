/**
 * The source through a proxy that fails as Kinesis does, before an emulator, as a program: nothing missing, nothing
 * twice, never faster than a shard allows.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeWith } from '../../services/describe-with'
import { kinesisClient, makeStream, put, startKinesis } from '../../services/kinesis'
import { KinesisProxy, type Fault } from '../../support/kinesis-proxy'
import { manifold } from '../../support/manifold'
import { aggregate } from './foreign'

/** Of one shard, GetRecords in any second ("GetRecords", Amazon Kinesis Data Streams API Reference). */
const CALLS_PER_SECOND = 5

describeWith('kinesis', 'a stream as a source, through faults', () => {
  let server: Awaited<ReturnType<typeof startKinesis>>
  let client: ReturnType<typeof kinesisClient>
  let proxy: KinesisProxy
  let folder: string
  beforeAll(async () => {
    server = await startKinesis({ kind: 'kinesalite' })
    client = kinesisClient(server)
  }, 60_000)
  afterAll(async () => {
    client.destroy()
    await server.stop()
  })
  beforeEach(async () => {
    proxy = await KinesisProxy.start(server.endpoint)
    folder = mkdtempSync(join(tmpdir(), 'manifold-kinesis-source-'))
  })
  afterEach(async () => {
    await proxy.stop()
    rmSync(folder, { recursive: true })
  })

  async function read(stream: string, fault: KinesisProxy['fault'], records = 500): Promise<readonly string[]> {
    proxy.fault = fault
    const { code, stderr } = await manifold(
      [
        '--from',
        `kinesis:${stream}`,
        `endpoint=${proxy.endpoint}`,
        `region=${server.region}`,
        `max-records=${records}`,
        '--to',
        join(folder, 'out'),
        '--until',
        'end',
        '--state',
        join(folder, 'state'),
      ],
      {
        env: { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey },
      },
    )
    expect({ code, stderr }).toMatchObject({ code: 0 })
    return readFileSync(join(folder, 'out'), 'utf8').trim().split('\n')
  }
  /** Most calls in any second. */
  function busiest(operation: string): number {
    const times = proxy.of(operation).map(({ at }) => at)
    return Math.max(0, ...times.map((from) => times.filter((at) => at >= from && at < from + 1000).length))
  }

  const EXPIRED: Fault = { kind: 'error', status: 400, code: 'ExpiredIteratorException', message: 'Iterator expired.' }
  const faults: readonly (readonly [what: string, fault: (count: number) => Fault | undefined])[] = [
    ['an iterator that has expired, again and again', (count) => (count % 3 === 0 ? EXPIRED : undefined)],
    [
      'throttles',
      (count) =>
        count % 2 === 0
          ? {
              kind: 'error',
              status: 400,
              code: 'ProvisionedThroughputExceededException',
              message: 'Rate exceeded for shard',
            }
          : undefined,
    ],
    [
      '500s and connections that are reset',
      (count) =>
        count === 2
          ? { kind: 'error', status: 500, code: 'InternalFailure' }
          : count === 4
            ? { kind: 'reset', done: true }
            : count === 6
              ? { kind: 'reset', done: false }
              : undefined,
    ],
    ['answers that come slowly', (count) => (count % 2 === 0 ? { kind: 'slow', ms: 200 } : undefined)],
  ]
  for (const [what, fault] of faults) {
    it(`${what}: nothing is missing, nothing twice, in order, and at most ${CALLS_PER_SECOND} calls a second`, async () => {
      const stream = await makeStream(client)
      const values = Array.from({ length: 3000 }, (_, n) => `record ${n}`)
      await put(
        client,
        stream,
        values.map((data) => ({ key: 'k', data })),
      )
      expect(await read(stream, (operation, count) => (operation === 'GetRecords' ? fault(count) : undefined))).toEqual(
        values,
      )
      expect(busiest('GetRecords')).toBeLessThanOrEqual(CALLS_PER_SECOND)
      expect(busiest('GetShardIterator')).toBeLessThanOrEqual(CALLS_PER_SECOND)
    }, 60_000)
  }

  it('no more bytes in any time than a shard gives: an answer of 10 MiB and 2 MB for each second', async () => {
    const stream = await makeStream(client)
    const values = Array.from({ length: 140 }, (_, n) => `${n} `.padEnd(100_000, 'x'))
    for (let from = 0; from < values.length; from += 40)
      await put(
        client,
        stream,
        values.slice(from, from + 40).map((data) => ({ key: 'k', data })),
      )
    expect(await read(stream, () => undefined, 15)).toEqual(values)
    const calls = proxy.of('GetRecords')
    // What was had between any two calls; arrivals here are a little nearer to each other than the calls were.
    const over = calls.flatMap((from, first) =>
      calls.slice(first + 1).flatMap((to, index) => {
        const bytes = calls.slice(first, first + 1 + index).reduce((sum, each) => sum + (each.bytes ?? 0), 0)
        const most = 10 * 1024 * 1024 + (to.at - from.at + 50) * 2000
        return bytes > most ? [{ bytes, most, ms: to.at - from.at }] : []
      }),
    )
    expect(over).toEqual([])
    expect(calls.reduce((sum, { bytes = 0 }) => sum + bytes, 0)).toBe(14_000_000)
    expect(busiest('GetRecords')).toBeLessThanOrEqual(CALLS_PER_SECOND)
  }, 60_000)

  it('aggregates of an independent encoder are taken apart, and what only looks like one passes as it is', async () => {
    const stream = await makeStream(client)
    const users = Array.from({ length: 300 }, (_, n) => ({
      partitionKey: `user ${n % 9}`,
      data: Buffer.from(`of an aggregate ${n}`),
    }))
    const whole = aggregate(users)
    const damaged = Buffer.from(whole.subarray(0, 24)).fill('x', 4)
    await put(client, stream, [
      { key: 'k', data: 'before' },
      { key: 'a', data: whole },
      { key: 'k', data: damaged.toString('latin1') },
      { key: 'k', data: 'after' },
    ])
    expect(await read(stream, () => undefined)).toEqual([
      'before',
      ...users.map(({ data }) => data.toString()),
      damaged.toString('latin1'),
      'after',
    ])
  }, 60_000)
})
