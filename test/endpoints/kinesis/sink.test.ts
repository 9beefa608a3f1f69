/**
 * The sink through a proxy that fails entries, calls and connections, before an emulator: the core around it, what is
 * stored is looked at without it.
 */
import { writeFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EntryBatch } from '../../../src/core/batch'
import { imbalance, type Receipt } from '../../../src/core/accounting/receipt'
import endpoint from '../../../src/endpoints/kinesis'
import { create } from '../../../src/endpoints/kinesis/sink'
import { deaggregate } from './foreign'
import { describeWith } from '../../services/describe-with'
import { get, kinesisClient, makeStream, split, startKinesis } from '../../services/kinesis'
import { makeEndpointContext, makeTarget } from '../../support/context'
import { KinesisProxy, type Fault } from '../../support/kinesis-proxy'
import { manifold } from '../../support/manifold'

describeWith('kinesis', 'a stream as a sink', () => {
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
    folder = mkdtempSync(join(tmpdir(), 'manifold-kinesis-sink-'))
  })
  afterEach(async () => {
    await proxy.stop()
    rmSync(folder, { recursive: true })
  })

  /** `count` records of so many keys through the program. */
  async function feed(
    count: number,
    words: readonly string[],
    fault: KinesisProxy['fault'],
    keys = 50,
  ): Promise<{
    readonly values: readonly string[]
    readonly code: number | null
    readonly stderr: string
    readonly receipt: Receipt
    readonly stored: Awaited<ReturnType<typeof get>>
  }> {
    proxy.fault = fault
    const stream = await makeStream(client, 2)
    const values = Array.from({ length: count }, (_, n) => JSON.stringify({ key: `k${n % keys}`, n }))
    writeFileSync(join(folder, 'in'), `${values.join('\n')}\n`)
    const { code, stderr } = await manifold(
      [
        '--from',
        join(folder, 'in'),
        '--to',
        `kinesis:${stream}`,
        `endpoint=${proxy.endpoint}`,
        `region=${server.region}`,
        'partition-key={json:key}',
        ...words,
        '--state',
        join(folder, 'state'),
        '--receipt',
        join(folder, 'receipt'),
      ],
      {
        env: { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey },
      },
    )
    const receipt = JSON.parse(
      readFileSync(join(folder, 'receipt'), 'utf8').trim().split('\n').at(-1) ?? '{}',
    ) as Receipt
    return { values, code, stderr, receipt, stored: await get(client, stream) }
  }
  const text = (all: readonly { readonly data: Buffer }[]): readonly string[] => all.map(({ data }) => data.toString())
  /** Of each key, the numbers in the order in which they are stored. */
  function outOfOrder(all: readonly string[]): number {
    const last = new Map<string, number>()
    return all.filter((each) => {
      const { key, n } = JSON.parse(each) as { key: string; n: number }
      const before = last.get(key) ?? -1
      last.set(key, n)
      return n < before
    }).length
  }
  /** How often each record was sent. */
  function sent(): ReadonlyMap<string, number> {
    const times = new Map<string, number>()
    for (const { body } of proxy.of('PutRecords'))
      for (const { Data } of body.Records ?? []) times.set(Data, (times.get(Data) ?? 0) + 1)
    return times
  }

  const THROTTLED = 'ProvisionedThroughputExceededException'
  const patterns: readonly (readonly [string, number, (index: number) => boolean])[] = [
    ['499 of 500 entries', 499, (index) => index !== 250],
    ['1 of 500 entries', 1, (index) => index === 250],
    ['every second entry', 250, (index) => index % 2 === 1],
  ]
  for (const [what, count, isHit] of patterns) {
    for (const order of ['none', 'key']) {
      it(`${what} failing, order=${order}: only those are sent again, the receipt is right${order === 'key' ? ', each key keeps its order' : ''}`, async () => {
        const failed = new Map<string, number>()
        // Of 500 keys, one request holds one record of each; two of each follow.
        const { values, code, receipt, stored } = await feed(
          1500,
          [`order=${order}`],
          (operation, n): Fault | undefined =>
            operation === 'PutRecords' && n === 1
              ? {
                  kind: 'entries',
                  fails: (index, { Data }) => {
                    if (!isHit(index)) return undefined
                    failed.set(Data, (failed.get(Data) ?? 0) + 1)
                    return index % 3 === 0 ? 'InternalFailure' : THROTTLED
                  },
                }
              : undefined,
          500,
        )
        expect(code).toBe(0)
        expect([proxy.of('PutRecords')[0]?.body.Records?.length, failed.size]).toEqual([500, count])
        expect([...text(stored)].sort()).toEqual([...values].sort())
        for (const [data, times] of sent()) expect(times).toBe(1 + (failed.get(data) ?? 0))
        expect(receipt).toMatchObject({
          outcome: 'complete',
          read: 1500,
          sinks: [{ delivered: 1500, rejected: 0, possibleDuplicates: 0 }],
        })
        expect(receipt.sinks.map(imbalance)).toEqual([0])
        if (order === 'key') expect(outOfOrder(text(stored))).toBe(0)
      }, 60_000)
    }
  }

  it('each request failing in every second entry at random, order=key: nothing is missing or twice, each key keeps its order', async () => {
    const { values, code, stored } = await feed(2000, ['order=key'], (operation, count): Fault | undefined =>
      operation === 'PutRecords' && count < 20
        ? {
            kind: 'entries',
            fails: (index) => ((index * 7919 + count * 104_729) % 2 === 0 ? 'InternalFailure' : undefined),
          }
        : undefined,
    )
    expect(code).toBe(0)
    expect([...text(stored)].sort()).toEqual([...values].sort())
    expect(outOfOrder(text(stored))).toBe(0)
  }, 120_000)

  it('500s, throttled calls, resets and slow answers: nothing is missing, and no call follows a failed one at once but the first', async () => {
    const faults: readonly Fault[] = [
      { kind: 'error', status: 500, code: 'InternalFailure' },
      { kind: 'error', status: 400, code: THROTTLED },
      { kind: 'reset', done: false },
      { kind: 'slow', ms: 300 },
      { kind: 'error', status: 503, code: 'ServiceUnavailable' },
    ]
    const { values, code, receipt, stored } = await feed(3000, ['in-flight=1'], (operation, count) =>
      operation === 'PutRecords' ? faults[count - 1] : undefined,
    )
    expect(code).toBe(0)
    expect([...text(stored)].sort()).toEqual([...values].sort())
    // 3,000 records are 6 requests; each fault but the slow answer adds one.
    const calls = proxy.of('PutRecords')
    expect(calls.length).toBeLessThanOrEqual(6 + faults.length)
    // The first fault after health is tried again at once; from then on it is the core's shortest pause, less what a
    // timer may be early.
    expect(calls.slice(0, faults.length).map(({ fault }) => fault)).toEqual(faults.map(({ kind }) => kind))
    const pauses = calls.slice(1).map(({ at }, index) => at - (calls[index]?.at ?? 0))
    for (const index of [1, 2, 4]) expect(pauses[index]).toBeGreaterThanOrEqual(240)
    expect(receipt).toMatchObject({ outcome: 'complete', read: 3000, sinks: [{ delivered: 3000, rejected: 0 }] })
    expect(receipt.sinks.map(imbalance)).toEqual([0])
  }, 60_000)

  it('an answer that is lost after the records were stored: nothing is missing, what is there twice is counted', async () => {
    const { values, code, receipt, stored } = await feed(1000, ['in-flight=1'], (operation, count) =>
      operation === 'PutRecords' && count === 1 ? { kind: 'reset', done: true } : undefined,
    )
    expect(code).toBe(0)
    expect([...new Set(text(stored))].sort()).toEqual([...values].sort())
    const twice = stored.length - values.length
    expect(twice).toBeGreaterThan(0)
    expect(receipt.sinks[0]?.possibleDuplicates).toBeGreaterThanOrEqual(twice)
  }, 60_000)

  it('with the right to write alone, throttled: what the policy forbids is not needed, nothing is missing', async () => {
    const { values, code, stderr, stored } = await feed(
      2000,
      ['in-flight=1'],
      (operation, count): Fault | undefined => {
        if (operation !== 'PutRecords')
          return {
            kind: 'error',
            status: 400,
            code: 'AccessDeniedException',
            message: `not authorized to perform: kinesis:${operation}`,
          }
        return count < 3 ? { kind: 'entries', fails: () => THROTTLED } : undefined
      },
    )
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    // Each opening looks at the stream: there was one.
    expect(proxy.of('DescribeStreamSummary')).toHaveLength(1)
    expect([...text(stored)].sort()).toEqual([...values].sort())
  }, 60_000)

  it('a write of many requests that are all refused for a while is no stall: the service answers', async () => {
    const { values, code, receipt, stored } = await feed(
      4000,
      ['order=key', 'in-flight=1', '--stall-timeout', '3s'],
      (operation, count): Fault | undefined =>
        operation === 'PutRecords' && count <= 4 ? { kind: 'error', status: 400, code: THROTTLED } : undefined,
      4000,
    )
    expect(code).toBe(0)
    expect(text(stored).toSorted()).toEqual(values.toSorted())
    expect(receipt.sinks).toMatchObject([{ delivered: 4000, possibleDuplicates: 0 }])
  }, 60_000)

  for (const words of [['aggregate'], ['aggregate', 'order=key']]) {
    it(`with ${words.join(' ')} an independent de-aggregator reads every record, in a few of Kinesis`, async () => {
      const { values, code, stored } = await feed(5000, words, () => undefined)
      expect(code).toBe(0)
      expect(stored.length).toBeLessThan(100)
      const found = stored.flatMap(({ data, sequence }) => deaggregate(data, sequence))
      expect(text(found).toSorted()).toEqual(values.toSorted())
      for (const { partitionKey, data } of found)
        expect((JSON.parse(data.toString()) as { key: string }).key).toBe(partitionKey)
      if (words.length > 1) expect(outOfOrder(text(found))).toBe(0)
    }, 60_000)
  }

  it('an aggregate that a reshard takes to a shard where some of it does not belong: those are sent again, and told of as there twice', async () => {
    const stream = await makeStream(client)
    const sink = create(
      makeTarget(endpoint, `kinesis:${stream}`, {
        endpoint: server.endpoint,
        region: server.region,
        accessKeyId: server.accessKey,
        secretAccessKey: server.secretKey,
        partitionKey: '{json:key}',
        aggregate: true,
      }) as never,
    )
    await sink.open(makeEndpointContext().ctx)
    await split(client, stream, 'shardId-000000000000')
    const values = Array.from({ length: 100 }, (_, n) => JSON.stringify({ key: `k${n}` }))
    const payload = new EntryBatch(
      values.map((value) => ({ value: Buffer.from(value) })),
      0,
    )
    const { retry, rejected, doubtful } = await sink.write(
      { id: 'w', attempt: 1, payload, origin: () => ({ source: 's', partition: 'p', position: '0', receivedAt: 0 }) },
      new AbortController().signal,
    )
    await sink.close()
    expect(
      text((await get(client, stream)).flatMap(({ data, sequence }) => deaggregate(data, sequence))).toSorted(),
    ).toEqual(values.toSorted())
    expect(rejected).toEqual([])
    expect(retry.length).toBeGreaterThan(0)
    expect(doubtful).toBe(retry.length)
  }, 60_000)

  it('a record that is too large and one without the key that is asked for are dead letters; the others arrive', async () => {
    writeFileSync(
      join(folder, 'in'),
      [
        JSON.stringify({ key: 'a', big: 'x'.repeat(1024 * 1024) }),
        JSON.stringify({ other: 1 }),
        JSON.stringify({ key: 'a' }),
      ]
        .map((line) => `${line}\n`)
        .join(''),
    )
    const stream = await makeStream(client)
    const { code } = await manifold(
      [
        '--from',
        join(folder, 'in'),
        '--to',
        `kinesis:${stream}`,
        `endpoint=${proxy.endpoint}`,
        `region=${server.region}`,
        'partition-key={json:key}',
        '--state',
        join(folder, 'state'),
        '--dead-letter',
        `file:${folder}/dead.ndjson`,
      ],
      { env: { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey } },
    )
    expect(code).toBe(5)
    expect(text(await get(client, stream))).toEqual(['{"key":"a"}'])
    const whys = readFileSync(join(folder, 'dead.ndjson'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { why: string }).why)
    expect(whys).toEqual([
      expect.stringContaining('more than the 1MiB that the stream takes'),
      expect.stringContaining('it has no key in JSON'),
    ])
  }, 60_000)
})
