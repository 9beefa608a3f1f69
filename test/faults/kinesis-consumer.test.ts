/**
 * A consumer's life as a program lives it: registered, used, left, deregistered; killed and started anew; shared by two
 * processes with leases.
 */
import {
  DeregisterStreamConsumerCommand,
  DescribeStreamConsumerCommand,
  DescribeStreamSummaryCommand,
  RegisterStreamConsumerCommand,
  type KinesisClient,
} from '@aws-sdk/client-kinesis'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeWith } from '../services/describe-with'
import { type AwsServer, kinesisClient, makeStream, put, startDynamodb, startKinesis } from '../services/kinesis'
import { KinesisPushProxy } from '../support/kinesis-push-proxy'
import { type Finished, manifold, type Running, start } from '../support/manifold'

describeWith('kinesis-fanout', 'a consumer', () => {
  let server: AwsServer
  let client: KinesisClient
  let proxy: KinesisPushProxy
  let stream: string
  let folder: string
  const running: Running[] = []
  beforeAll(async () => {
    server = await startKinesis({ kind: 'kinesis-local' })
    client = kinesisClient(server)
  }, 60_000)
  afterAll(async () => {
    client.destroy()
    await server.stop()
  })
  beforeEach(async () => {
    proxy = await KinesisPushProxy.start(server.endpoint)
    folder = mkdtempSync(join(tmpdir(), 'manifold-consumer-'))
    stream = await makeStream(client)
  })
  afterEach(async () => {
    for (const each of running) each.kill('SIGKILL')
    await Promise.all(running.splice(0).map(({ done }) => done))
    await proxy.stop()
    rmSync(folder, { recursive: true })
  })

  const credentials = (): NodeJS.ProcessEnv => ({
    AWS_ACCESS_KEY_ID: server.accessKey,
    AWS_SECRET_ACCESS_KEY: server.secretKey,
  })
  const line = (words: readonly string[], name = 'out'): readonly string[] => [
    '--from',
    `kinesis:${stream}`,
    `endpoint=${proxy.endpoint}`,
    `region=${server.region}`,
    ...words,
    '--to',
    join(folder, name),
    '--state',
    join(folder, `${name}.state`),
  ]
  const toEnd = (...words: string[]): Promise<Finished> =>
    manifold([...line(words), '--until', 'end'], { env: credentials() })
  function launch(words: readonly string[], name = 'out'): Running {
    const one = start(line(words, name), { env: credentials() })
    running.push(one)
    return one
  }
  const written = (name = 'out'): readonly string[] => {
    try {
      return readFileSync(join(folder, name), 'utf8')
        .split('\n')
        .filter((each) => each !== '')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    }
  }
  const values = (count: number, from = 0): readonly string[] =>
    Array.from({ length: count }, (_, n) => `record ${from + n}`)
  const write = (count: number, from = 0): Promise<void> =>
    put(
      client,
      stream,
      values(count, from).map((data) => ({ key: data, data })),
    )
  const arn = async (): Promise<string> =>
    (await client.send(new DescribeStreamSummaryCommand({ StreamName: stream }))).StreamDescriptionSummary!.StreamARN!
  const register = async (name = 'reader'): Promise<string> =>
    (await client.send(new RegisterStreamConsumerCommand({ StreamARN: await arn(), ConsumerName: name }))).Consumer!
      .ConsumerARN!
  async function status(name = 'reader'): Promise<string> {
    try {
      return (await client.send(new DescribeStreamConsumerCommand({ StreamARN: await arn(), ConsumerName: name })))
        .ConsumerDescription!.ConsumerStatus!
    } catch (error) {
      if ((error as Error).name === 'ResourceNotFoundException') return 'none'
      throw error
    }
  }
  const isGone = async (): Promise<boolean> => ['none', 'DELETING'].includes(await status())
  async function until(holds: () => Promise<boolean> | boolean, what: string): Promise<void> {
    for (const from = Date.now(); !(await holds()); await new Promise((resolve) => setTimeout(resolve, 50)))
      if (Date.now() - from > 60_000)
        throw new Error(`${what}: not within a minute\n${running.map((one) => one.stderr()).join('\n')}`)
  }

  it('that is missing is registered, and deregistered at the end and on SIGTERM; a name that is being deleted is waited for', async () => {
    await write(50)
    expect((await toEnd('consumer-name=reader')).code).toBe(0)
    expect(written()).toHaveLength(50)
    expect([proxy.of('RegisterStreamConsumer').length, proxy.of('DeregisterStreamConsumer').length]).toEqual([1, 1])
    expect(await isGone()).toBe(true)
    // At once, while the name is still being deleted.
    await register('other')
    await client.send(new DeregisterStreamConsumerCommand({ StreamARN: await arn(), ConsumerName: 'other' }))
    const second = launch(['ConsumerName=other'])
    await write(50, 50)
    await until(() => written().length === 100, 'read')
    expect(await status('other')).toBe('ACTIVE')
    second.kill('SIGTERM')
    const { code, stderr } = await second.done
    expect(code).toBe(0)
    expect(stderr).toContain('registered the consumer other: it is deregistered at the end')
    expect(stderr).toContain('deregistered the consumer other')
    expect(['none', 'DELETING']).toContain(await status('other'))
    expect([...written()].sort()).toEqual([...values(100)].sort())
  }, 120_000)

  it('that somebody else registered is used and left, by name and by ARN', async () => {
    const consumer = await register()
    await write(20)
    expect((await toEnd('consumer-name=reader')).code).toBe(0)
    await write(20, 20)
    expect((await toEnd(`consumer-arn=${consumer}`)).code).toBe(0)
    expect(written()).toHaveLength(40)
    expect(await status()).toBe('ACTIVE')
    expect([...proxy.of('RegisterStreamConsumer'), ...proxy.of('DeregisterStreamConsumer')]).toEqual([])
    // Whoever may not look at it may read through it.
    proxy.refuse = ({ operation }) =>
      operation === 'DescribeStreamConsumer'
        ? {
            status: 400,
            code: 'AccessDeniedException',
            message: 'User is not authorized to perform: kinesis:DescribeStreamConsumer',
          }
        : undefined
    await write(20, 40)
    expect((await toEnd(`consumer-arn=${consumer}`)).code).toBe(0)
    expect(written()).toHaveLength(60)
  }, 120_000)

  it('of a run that was killed is found, used and left by the next; nothing is missing', async () => {
    await write(100)
    const killed = launch(['consumer-name=reader'])
    await until(() => written().length === 100, 'read')
    killed.kill('SIGKILL')
    await killed.done
    expect(await status()).toBe('ACTIVE')
    await write(100, 100)
    const next = launch(['consumer-name=reader'])
    await until(() => new Set(written()).size === 200, 'read on')
    next.kill('SIGTERM')
    const { code, stderr } = await next.done
    expect(code).toBe(0)
    expect(stderr).toContain('the consumer reader is there: it is used, and left at the end')
    expect(await status()).toBe('ACTIVE')
  }, 120_000)

  it('stays over faults after which the source opens again, and goes at the end, also where that comes while it is away', async () => {
    await write(50)
    let failing = false
    proxy.refuse = ({ operation }) => (failing && !/StreamConsumer/.test(operation) ? 'reset' : undefined)
    const one = launch(['consumer-name=reader', 'shards-every=1s'])
    await until(() => written().length === 50, 'read')
    failing = true
    await until(() => one.stderr().includes('trying again'), 'a fault')
    failing = false
    await write(50, 50)
    await until(() => written().length === 100, 'read on')
    expect([proxy.of('RegisterStreamConsumer').length, proxy.of('DeregisterStreamConsumer').length]).toEqual([1, 0])
    failing = true
    const faults = (): number => one.stderr().split('trying again').length
    const before = faults()
    await until(() => faults() > before, 'another fault')
    failing = false
    one.kill('SIGTERM')
    expect((await one.done).code).toBe(0)
    expect(await isGone()).toBe(true)
    expect([...written()].sort()).toEqual([...values(100)].sort())
  }, 120_000)

  it('that cannot be had is told in one line, and ends the run', async () => {
    const other = await makeStream(client)
    const theirs = (
      await client.send(
        new RegisterStreamConsumerCommand({ StreamARN: (await arn()).replace(stream, other), ConsumerName: 'reader' }),
      )
    ).Consumer!.ConsumerARN!
    const mistaken = await toEnd(`consumer-arn=${theirs}`)
    expect({ code: mistaken.code, stderr: mistaken.stderr }).toEqual({
      code: 2,
      stderr: expect.stringContaining(`consumer-arn= is a consumer of the stream ${other}, not of ${stream}`) as string,
    })
    const missing = await toEnd(`consumer-arn=${await arn()}/consumer/nobody:1700000000`)
    expect(missing.code).toBe(3)
    expect(missing.stderr).toContain(
      `stream ${stream} has no consumer ${await arn()}/consumer/nobody:1700000000: correct consumer-arn=, or name one with consumer-name=, which registers it`,
    )
    proxy.refuse = ({ operation }) =>
      operation === 'RegisterStreamConsumer'
        ? {
            status: 400,
            code: 'AccessDeniedException',
            message: 'User is not authorized to perform: kinesis:RegisterStreamConsumer',
          }
        : undefined
    const denied = await toEnd('consumer-name=reader')
    expect(denied.code).toBe(3)
    expect(denied.stderr).toMatch(
      /denies it to register the consumer reader \(.*\): the credentials need kinesis:RegisterStreamConsumer on /,
    )
    proxy.refuse = () => undefined
    for (let n = 0; n < 20; n++) await register(`consumer-${n}`)
    const many = await toEnd('consumer-name=reader')
    expect(many.code).toBe(3)
    expect(many.stderr).toContain(
      `the stream ${stream} takes no more consumers (Only 20 consumers can be registered to a stream at once): deregister one, or name one of them`,
    )
  }, 120_000)

  describeWith('dynamodb', 'with leases', () => {
    it('is shared by two processes, and stays when one of them ends: the other reads on through it', async () => {
      const tables = await startDynamodb()
      try {
        stream = await makeStream(client, 4)
        const words = [
          'consumer-name=reader',
          `leases=dynamodb:table-${Date.now().toString(36)}`,
          `leases-endpoint=${tables.endpoint}`,
          'lease-duration=3s',
        ]
        await write(40)
        const one = launch([...words, 'worker-id=one'], 'one')
        await until(() => written('one').length === 40, 'one reads')
        launch([...words, 'worker-id=two'], 'two')
        let n = 40
        await until(async () => {
          await write(20, n)
          n += 20
          return written('two').length >= 20
        }, 'two reads')
        one.kill('SIGTERM')
        const ended = await one.done
        expect(ended.code).toBe(0)
        expect(ended.stderr).toContain('with leases= others read through it, too, so it stays at the end')
        expect(await status()).toBe('ACTIVE')
        await write(20, n)
        n += 20
        const all = (): ReadonlySet<string> => new Set([...written('one'), ...written('two')])
        await until(() => all().size === n, 'two reads all')
        expect(written('one').length + written('two').length).toBe(n)
        expect(proxy.of('DeregisterStreamConsumer')).toEqual([])
      } finally {
        await tables.stop()
      }
    }, 180_000)
  })
})
