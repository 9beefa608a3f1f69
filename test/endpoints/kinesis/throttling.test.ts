/**
 * Whatever goes on failing for good, as a program: it is asked again a few times, further and further apart, and never
 * in a loop.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeWith } from '../../services/describe-with'
import { type AwsServer, kinesisClient, makeStream, put, startKinesis } from '../../services/kinesis'
import { KinesisProxy, type Fault } from '../../support/kinesis-proxy'
import { start, type Running } from '../../support/manifold'

/**
 * How long is looked on from the first fault, and what may be asked meanwhile: pauses are drawn between 250 ms and a
 * bound that doubles, which makes about six.
 */
const WINDOW_MS = 4000
const CALLS = 12
/** Many writes' worth, of which four are under way at once. */
const RECORDS = 20_000
const SINK_CALLS = 4 * CALLS

interface Case {
  readonly what: string
  readonly operation: string
  readonly fault: Fault /** Calls that pass before. */
  readonly after?: number
  readonly calls?: number
}
const error = (status: number, code: string): Fault => ({ kind: 'error', status, code })
const RESET: Fault = { kind: 'reset', done: false }
const THROTTLED = 'ProvisionedThroughputExceededException'

describeWith('kinesis', 'faults without end', () => {
  let server: AwsServer
  let client: ReturnType<typeof kinesisClient>
  let folder: string
  const proxies: KinesisProxy[] = []
  const running: Running[] = []
  beforeAll(async () => {
    server = await startKinesis({ kind: 'kinesalite' })
    client = kinesisClient(server)
  }, 60_000)
  afterAll(async () => {
    client.destroy()
    await server.stop()
  })
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'manifold-kinesis-patience-'))
  })
  afterEach(async () => {
    for (const each of running) each.kill('SIGKILL')
    await Promise.all(running.splice(0).map(({ done }) => done))
    await Promise.all(proxies.splice(0).map((proxy) => proxy.stop()))
    rmSync(folder, { recursive: true })
  })

  /** Calls of the operation from its first fault on, within the window. */
  async function watch(
    stream: string,
    role: 'source' | 'sink',
    { what, operation, fault, after = 0 }: Case,
  ): Promise<{ readonly what: string; readonly calls: number; readonly stderr: string }> {
    const proxy = await KinesisProxy.start(server.endpoint)
    proxies.push(proxy)
    proxy.fault = (asked, count) => (asked === operation && count > after ? fault : undefined)
    const words = [`kinesis:${stream}`, `endpoint=${proxy.endpoint}`, `region=${server.region}`]
    const one = start(
      role === 'source'
        ? [
            '--from',
            ...words,
            'poll-every=200ms',
            'shards-every=1s',
            '--to',
            join(folder, what),
            '--state',
            join(folder, `${what} state`),
          ]
        : ['--from', '-', '--to', ...words],
      {
        env: { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey },
        ...(role === 'sink' ? { input: 'a record\n'.repeat(RECORDS) } : {}),
      },
    )
    running.push(one)
    let over = false
    void one.done.then(() => {
      over = true
    })
    const met = (): readonly { readonly at: number }[] => proxy.of(operation).filter((call) => call.fault !== undefined)
    while (met().length === 0 && !over) await new Promise((resolve) => setTimeout(resolve, 20))
    await new Promise((resolve) => setTimeout(resolve, WINDOW_MS))
    const from = met()[0]?.at ?? Infinity
    return { what, calls: over ? -1 : met().filter(({ at }) => at < from + WINDOW_MS).length, stderr: one.stderr() }
  }
  function check(found: readonly Awaited<ReturnType<typeof watch>>[], cases: readonly Case[], few: number): void {
    process.stderr.write(
      `calls within ${WINDOW_MS} ms: ${found.map(({ what, calls }) => `${what} ${calls}`).join(', ')}\n`,
    )
    // Again at least once, and not much oftener.
    for (const { what, calls, stderr } of found) {
      const most = cases.find((each) => each.what === what)?.calls ?? few
      expect({ what, calls: calls >= 2 && calls <= most ? 'few' : calls, stderr }).toEqual({
        what,
        calls: 'few',
        stderr,
      })
    }
  }

  it('of a source', async () => {
    const stream = await makeStream(client)
    await put(client, stream, [{ key: 'k', data: 'a record' }])
    const cases: readonly Case[] = [
      {
        what: 'the stream cannot be looked at',
        operation: 'DescribeStreamSummary',
        fault: error(500, 'InternalFailure'),
      },
      { what: 'shards cannot be listed', operation: 'ListShards', fault: error(400, 'LimitExceededException') },
      {
        what: 'shards cannot be listed again',
        operation: 'ListShards',
        fault: error(500, 'InternalFailure'),
        after: 1,
      },
      { what: 'no iterator for the throttling', operation: 'GetShardIterator', fault: error(400, THROTTLED) },
      { what: 'no records', operation: 'GetRecords', fault: error(500, 'InternalFailure') },
      { what: 'no records for the throttling', operation: 'GetRecords', fault: error(400, THROTTLED) },
      // Each opening tries once more, with another iterator.
      {
        what: 'no iterator lasts',
        operation: 'GetRecords',
        fault: error(400, 'ExpiredIteratorException'),
        calls: 2 * CALLS,
      },
      { what: 'no more permission', operation: 'GetRecords', fault: error(400, 'AccessDeniedException'), after: 2 },
      { what: 'connections are reset', operation: 'GetRecords', fault: RESET },
    ]
    check(await Promise.all(cases.map((each) => watch(stream, 'source', each))), cases, CALLS)
  }, 60_000)

  it('of a sink', async () => {
    const stream = await makeStream(client)
    const cases: readonly Case[] = [
      { what: 'a call fails', operation: 'PutRecords', fault: error(500, 'InternalFailure') },
      { what: 'a call is throttled', operation: 'PutRecords', fault: error(400, THROTTLED) },
      { what: 'a call is one too many', operation: 'PutRecords', fault: error(400, 'LimitExceededException') },
      { what: 'entries fail', operation: 'PutRecords', fault: { kind: 'entries', fails: () => 'InternalFailure' } },
      { what: 'entries are throttled', operation: 'PutRecords', fault: { kind: 'entries', fails: () => THROTTLED } },
      { what: 'connections are reset', operation: 'PutRecords', fault: RESET },
    ]
    check(await Promise.all(cases.map((each) => watch(stream, 'sink', each))), cases, SINK_CALLS)
  }, 60_000)
})
