/**
 * Leases over a real table: several processes' worth of them in this one, each with a source of its own that keeps what
 * it is told.
 */
import {
  CreateTableCommand,
  DynamoDBClient,
  type AttributeValue,
  PutItemCommand,
  ScanCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb'
import { Disconnected } from '../../../src/core/errors'
import { systemClock } from '../../../src/kit/clock'
import { connectTable } from '../../../src/endpoints/kinesis/lease-client'
import type { LeaseTable } from '../../../src/endpoints/kinesis/leases/table'
import { createLeases } from '../../../src/endpoints/kinesis/leases/coordinator'
import type { KinesisOptions } from '../../../src/endpoints/kinesis/options'
import { encodePosition, decodePosition } from '../../../src/endpoints/kinesis/position'
import type { Checkpoint, LeaseListener, Leases, Shard } from '../../../src/endpoints/kinesis/stream-client'
import type { OptionsOf } from '../../../src/options/define'
import { type AwsServer, startDynamodb } from '../../services/kinesis'
import { describeWith } from '../../services/describe-with'
import { makeSourceContext, type Told } from '../../support/context'

const LEASE_MS = 1500
const id = (number: number): string => `shardId-${String(number).padStart(12, '0')}`
const shard = (number: number, parents: readonly number[] = []): Shard => ({
  id: id(number),
  parents: parents.map(id),
  hashes: { from: BigInt(number), to: BigInt(number) },
  startingSequence: String(100 + number),
})
const at = (sequence: string, sub = 0): Checkpoint => ({ kind: 'sequence', sequence, sub })

interface Worker {
  readonly name: string
  readonly leases: Leases
  readonly told: Told
  /** Shards that it reads, and since when under which epoch, from where. */
  readonly reads: Map<string, { readonly epoch: number; readonly from: Checkpoint }>
  readonly errors: unknown[]
  readonly revoked: string[]
  readonly tables: LeaseTable[]
  stop(keep?: boolean): Promise<void>
  start(): Promise<void>
}

describeWith('dynamodb', 'leases', () => {
  let server: AwsServer
  let client: DynamoDBClient
  const workers: Worker[] = []
  beforeAll(async () => {
    server = await startDynamodb()
    client = new DynamoDBClient({
      endpoint: server.endpoint,
      region: server.region,
      credentials: { accessKeyId: server.accessKey, secretAccessKey: server.secretKey },
    })
  }, 60_000)
  afterEach(async () => {
    await Promise.all(workers.splice(0).map((one) => one.stop()))
  }, 30_000)
  afterAll(async () => {
    client.destroy()
    await server.stop()
  }, 30_000)

  function tableName(): string {
    return `leases-${Math.random().toString(36).slice(2, 10)}`
  }

  function worker(
    table: string,
    name: string,
    shards: () => readonly Shard[],
    given: {
      readonly start?: Checkpoint
      readonly maxSteals?: number
      readonly held?: readonly string[]
      readonly endpoint?: string
      revoke?(): Promise<void>
      readonly through?: (made: LeaseTable) => LeaseTable
    } = {},
  ): Worker {
    const options = {
      leases: `dynamodb:${table}`,
      leasesEndpoint: given.endpoint ?? server.endpoint,
      accessKeyId: server.accessKey,
      secretAccessKey: server.secretKey,
    } as unknown as OptionsOf<KinesisOptions>
    const reads: Worker['reads'] = new Map()
    const errors: unknown[] = []
    const revoked: string[] = []
    const tables: LeaseTable[] = []
    const { ctx, told } = makeSourceContext({
      ...(given.held === undefined ? {} : { held: given.held }),
      revoke: async ({ name: partition }) => {
        revoked.push(partition)
        await given.revoke?.()
      },
    })
    const leases = createLeases({
      table,
      workerId: name,
      leaseMs: LEASE_MS,
      maxLeases: Infinity,
      maxSteals: given.maxSteals ?? 1,
      connect: async () => {
        const made = await connectTable(
          { options, region: server.region, since: undefined, withinMs: LEASE_MS / 2, clock: systemClock },
          {},
        )
        tables.push(made)
        return given.through?.(made) ?? made
      },
    })
    const life = new AbortController()
    const host: LeaseListener = {
      ctx,
      signal: life.signal,
      shards,
      beginning: () => given.start ?? { kind: 'oldest' },
      begin: (key, epoch, from) => {
        reads.set(key, { epoch, from })
      },
      stopReading: (key) => {
        reads.delete(key)
        return Promise.resolve()
      },
      position: (checkpoint) => encodePosition({ at: checkpoint }),
      checkpoint: (position) => decodePosition(position)?.at,
      run: (work) => {
        work.catch((error: unknown) => {
          errors.push(error)
        })
      },
    }
    const made: Worker = {
      name,
      leases,
      told,
      reads,
      errors,
      revoked,
      tables,
      start: () => leases.start(host),
      stop: async (keep = false) => {
        await leases.stop(keep)
        if (!keep) reads.clear()
      },
    }
    workers.push(made)
    return made
  }

  async function until(holds: () => boolean | Promise<boolean>, what: string, ms = 40_000): Promise<void> {
    const end = Date.now() + ms
    while (!(await holds())) {
      if (Date.now() > end)
        throw new Error(
          `not within ${ms} ms: ${what}; ${workers.map(({ name, reads, errors, told }) => `${name} ${reads.size} ${errors.map(String).join()} ${told.logs.map(({ message }) => message).join('; ')}`).join(' | ')}`,
        )
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  async function rows(table: string): Promise<Map<string, Record<string, AttributeValue>>> {
    const { Items = [] } = await client.send(new ScanCommand({ TableName: table, ConsistentRead: true }))
    return new Map(Items.map((item) => [item['leaseKey']?.S ?? '', item]))
  }
  /** As the library's HASH key and nothing else. */
  async function makeTable(table: string, key = 'leaseKey'): Promise<void> {
    await client.send(
      new CreateTableCommand({
        TableName: table,
        BillingMode: 'PAY_PER_REQUEST',
        KeySchema: [{ AttributeName: key, KeyType: 'HASH' }],
        AttributeDefinitions: [{ AttributeName: key, AttributeType: 'S' }],
      }),
    )
    await until(async () => {
      try {
        await client.send(new ScanCommand({ TableName: table }))
        return true
      } catch {
        return false
      }
    }, 'the table is there')
  }
  const total = (...some: readonly Worker[]): number => some.reduce((sum, { reads }) => sum + reads.size, 0)
  const twelve = Array.from({ length: 12 }, (_, number) => shard(number))

  test('whoever is alone reads all, and what it gives back others take at once, where it was committed', async () => {
    const table = tableName()
    const a = worker(table, 'a', () => twelve)
    await a.start()
    expect(a.reads.size).toBe(12)
    await until(() => a.leases.isSettled, 'settled')
    const epoch = a.reads.get(id(3))?.epoch ?? 0
    await a.leases.commit({ name: id(3), epoch }, at('4711', 5))
    await a.stop()
    expect([...(await rows(table)).values()].every((row) => row['leaseOwner'] === undefined)).toBe(true)
    const b = worker(table, 'b', () => twelve)
    await b.start()
    expect(b.reads.size).toBe(12)
    expect(b.reads.get(id(3))?.from).toEqual(at('4711', 5))
  }, 60_000)

  test('a second one is handed its share, each shard only when the first has drained it', async () => {
    const table = tableName()
    let drained: () => void = () => undefined
    const wait = new Promise<void>((resolve) => {
      drained = resolve
    })
    const a = worker(table, 'a', () => twelve, { revoke: () => wait })
    await a.start()
    const b = worker(table, 'b', () => twelve)
    await b.start()
    await until(() => a.revoked.length > 0, 'asked')
    const first = a.revoked[0] ?? ''
    expect(a.reads.has(first)).toBe(false)
    // What is drained is committed under the old epoch still.
    await a.leases.commit({ name: first, epoch: 1 + twelve.findIndex(({ id: key }) => key === first) }, at('99'))
    expect(b.reads.has(first)).toBe(false)
    drained()
    await until(() => a.reads.size === 6 && b.reads.size === 6, 'six each')
    expect([...b.reads.keys()].filter((key) => a.reads.has(key))).toEqual([])
    expect([...a.told.lost, ...b.told.lost]).toEqual([])
    expect([...a.errors, ...b.errors]).toEqual([])
  }, 120_000)

  test('what one that was killed had is with others within two lease durations, whenever it was killed', async () => {
    const took: number[] = []
    for (let round = 0; round < 3; round++) {
      const table = tableName()
      const all = ['dead', 'b', 'c'].map((name) => worker(table, name, () => twelve, { maxSteals: 4 }))
      const [dead, ...others] = all
      for (const one of all) await one.start()
      await until(() => all.every(({ reads }) => reads.size === 4), 'four each')
      // Renewals come every third of a lease duration.
      await new Promise((resolve) => setTimeout(resolve, ((LEASE_MS / 3) * (round + Math.random())) / 3))
      // As a kill: nothing is given back, nothing renewed.
      await dead?.stop(true)
      const since = Date.now()
      await until(() => total(...others) === 12, 'all at the others')
      took.push(Date.now() - since)
      expect(others.map(({ reads }) => reads.size)).toEqual([6, 6])
      expect(others.flatMap(({ errors }) => errors)).toEqual([])
      await Promise.all(others.map((one) => one.stop()))
    }
    process.stderr.write(`taken after ${took.join(', ')} ms, a lease lasts ${LEASE_MS} ms\n`)
    expect(Math.max(...took)).toBeLessThan(2 * LEASE_MS)
  }, 120_000)

  test('nothing under an old epoch reaches the table, and whoever was overtaken hears of it', async () => {
    const table = tableName()
    const a = worker(table, 'a', () => [shard(0)])
    await a.start()
    const epoch = a.reads.get(id(0))?.epoch ?? 0
    await a.leases.commit({ name: id(0), epoch }, at('10'))
    const row = (await rows(table)).get(id(0))
    // As a Kinesis Client Library 2.x steals: by the counter alone.
    await client.send(
      new UpdateItemCommand({
        TableName: table,
        Key: { leaseKey: { S: id(0) } },
        UpdateExpression: 'SET leaseOwner = :o, leaseCounter = leaseCounter + :one',
        ExpressionAttributeValues: { ':o': { S: 'thief' }, ':one': { N: '1' } },
      }),
    )
    await a.leases.commit({ name: id(0), epoch }, at('20'))
    const now = (await rows(table)).get(id(0))
    expect([row?.['checkpoint'], now?.['checkpoint'], now?.['leaseOwner']]).toEqual([
      { S: '10' },
      { S: '10' },
      { S: 'thief' },
    ])
    await until(() => a.told.lost.length === 1 && a.reads.size === 0, 'lost')
    // It never moves again: after a lease duration it is ours once more, under a new epoch, from what was committed.
    await until(() => a.reads.size === 1, 'taken again')
    expect(a.reads.get(id(0))?.epoch).toBeGreaterThan(epoch)
    expect(a.reads.get(id(0))?.from).toEqual(at('10'))
  }, 60_000)

  test('a hand-over as library 3.x asks for it is completed by removing its mark', async () => {
    const table = tableName()
    const a = worker(table, 'a', () => [shard(0)])
    await a.start()
    await client.send(
      new UpdateItemCommand({
        TableName: table,
        Key: { leaseKey: { S: id(0) } },
        UpdateExpression: 'SET leaseOwner = :o, checkpointOwner = :a',
        ExpressionAttributeValues: { ':o': { S: 'kcl3' }, ':a': { S: 'a' } },
      }),
    )
    await until(async () => (await rows(table)).get(id(0))?.['checkpointOwner'] === undefined, 'completed')
    expect(a.revoked).toEqual([id(0)])
    expect((await rows(table)).get(id(0))?.['leaseOwner']).toEqual({ S: 'kcl3' })
  }, 60_000)

  test('a child begins when all its parents are at their end, by whomever, and finished leases go', async () => {
    const table = tableName()
    let listed = [shard(0), shard(1)]
    const a = worker(table, 'a', () => listed)
    const b = worker(table, 'b', () => listed)
    await a.start()
    await b.start()
    await until(() => a.reads.size === 1 && b.reads.size === 1, 'one each')
    listed = [shard(0), shard(1), shard(2, [0, 1])]
    for (const one of [a, b]) one.leases.shardsChanged()
    const end = async (one: Worker): Promise<void> => {
      const [key = '', { epoch = 0 } = {}] = [...one.reads][0] ?? []
      one.leases.ended({ name: key, epoch })
      one.reads.delete(key)
      await one.leases.commit({ name: key, epoch }, { kind: 'end' })
    }
    await end(a)
    expect((await rows(table)).get(id(2))).toMatchObject({
      checkpoint: { S: 'TRIM_HORIZON' },
      leaseCounter: { N: '0' },
    })
    expect(total(a)).toBe(0)
    await end(b)
    await until(() => total(a, b) === 1, 'the child begins')
    expect((await rows(table)).get(id(0))).toMatchObject({
      checkpoint: { S: 'SHARD_END' },
      childShardIds: { SS: [id(2)] },
    })
    const reader = a.reads.size === 1 ? a : b
    await reader.leases.commit({ name: id(2), epoch: reader.reads.get(id(2))?.epoch ?? 0 }, at('300'))
    await until(async () => (await rows(table)).size === 1, 'finished ones are removed')
  }, 60_000)

  test('of a table of the Kinesis Client Library everything goes on where it stands, and what is unknown in it stays', async () => {
    const table = tableName()
    await makeTable(table)
    const lease = (number: number, given: Record<string, AttributeValue>): Record<string, AttributeValue> => ({
      leaseKey: { S: id(number) },
      leaseCounter: { N: '815' },
      leaseOwner: { S: 'kcl-worker' },
      ownerSwitchesSinceCheckpoint: { N: '2' },
      checkpointSubSequenceNumber: { N: '0' },
      startingHashKey: { S: '0' },
      endingHashKey: { S: '9' },
      throughputKBps: { N: '12.5' },
      ...given,
    })
    for (const item of [
      lease(0, { checkpoint: { S: 'SHARD_END' }, childShardIds: { SS: [id(1), id(2)] } }),
      lease(1, {
        checkpoint: { S: '49590338271490256608559692538361571095921575989136588898' },
        checkpointSubSequenceNumber: { N: '7' },
        parentShardId: { SS: [id(0)] },
        pendingCheckpoint: { S: '5' },
        pendingCheckpointSubSequenceNumber: { N: '0' },
      }),
      lease(2, { checkpoint: { S: 'TRIM_HORIZON' }, parentShardId: { SS: [id(0)] } }),
      {
        leaseKey: { S: 'Migration3.0' },
        entityType: { S: 'CLIENT_VERSION_MIGRATION' },
        cv: { S: 'CLIENT_VERSION_3X' },
      },
    ])
      await client.send(new PutItemCommand({ TableName: table, Item: item }))
    const a = worker(table, 'a', () => [shard(0), shard(1, [0]), shard(2, [0])], {
      start: { kind: 'latest' },
      held: [id(0), id(1)],
    })
    await a.start()
    // Its holder may be alive.
    expect([a.reads.size, a.leases.isSettled]).toEqual([0, false])
    await until(() => a.leases.isSettled, 'taken over')
    expect([...a.reads].map(([key, { from }]) => [key, from]).sort()).toEqual([
      [id(1), at('49590338271490256608559692538361571095921575989136588898', 7)],
      [id(2), { kind: 'oldest' }],
    ])
    expect(a.told.committed).toEqual(
      expect.arrayContaining([
        { partition: id(0), upTo: 'end' },
        { partition: id(1), upTo: '49590338271490256608559692538361571095921575989136588898:7' },
      ]),
    )
    await a.leases.commit(
      { name: id(1), epoch: a.reads.get(id(1))?.epoch ?? 0 },
      at('49590338271490256608559692538361571095921575989136588899', 3),
    )
    const now = await rows(table)
    expect(now.get(id(1))).toMatchObject({
      checkpoint: { S: '49590338271490256608559692538361571095921575989136588899' },
      checkpointSubSequenceNumber: { N: '3' },
      ownerSwitchesSinceCheckpoint: { N: '0' },
      leaseOwner: { S: 'a' },
      throughputKBps: { N: '12.5' },
      startingHashKey: { S: '0' },
    })
    expect(now.get(id(1))?.['pendingCheckpoint']).toBeUndefined()
    expect(now.get('Migration3.0')).toEqual({
      leaseKey: { S: 'Migration3.0' },
      entityType: { S: 'CLIENT_VERSION_MIGRATION' },
      cv: { S: 'CLIENT_VERSION_3X' },
    })
  }, 60_000)

  test('a shard that is older than the stream keeps is a gap, and its children begin', async () => {
    const table = tableName()
    await makeTable(table)
    await client.send(
      new PutItemCommand({
        TableName: table,
        Item: {
          leaseKey: { S: id(0) },
          leaseCounter: { N: '1' },
          checkpoint: { S: '10' },
          checkpointSubSequenceNumber: { N: '0' },
        },
      }),
    )
    const a = worker(table, 'a', () => [shard(1, [0])])
    await a.start()
    await until(() => a.reads.size === 1, 'the child begins')
    expect(a.reads.get(id(1))?.from).toEqual({ kind: 'oldest' })
    expect(a.told.gaps).toMatchObject([{ partition: id(0), from: '10:0', to: 'end' }])
  }, 60_000)

  test('where the table is away leases run out by our own clock; back again they are taken anew, and what waits is committed as long as they last', async () => {
    const table = tableName()
    let away = false
    const a = worker(table, 'a', () => [shard(0)], {
      through: (made) => {
        const unlessAway =
          <A extends readonly unknown[], T>(call: (...args: A) => Promise<T>) =>
          (...args: A): Promise<T> =>
            away ? Promise.reject(new Disconnected('away')) : call(...args)
        return {
          ready: (signal) => made.ready(signal),
          list: unlessAway((signal) => made.list(signal)),
          create: unlessAway((...args) => made.create(...args)),
          take: unlessAway((...args) => made.take(...args)),
          request: unlessAway((...args) => made.request(...args)),
          write: unlessAway((...args) => made.write(...args)),
          remove: unlessAway((...args) => made.remove(...args)),
          close: () => {
            made.close()
          },
        }
      },
    })
    await a.start()
    const epoch = a.reads.get(id(0))?.epoch ?? 0
    away = true
    const waiting = a.leases.commit({ name: id(0), epoch }, at('5'))
    away = false
    await waiting
    expect((await rows(table)).get(id(0))?.['checkpoint']).toEqual({ S: '5' })
    away = true
    await until(() => a.told.lost.length === 1, 'run out')
    expect(a.reads.size).toBe(0)
    away = false
    await until(() => a.reads.size === 1, 'taken again')
    expect(a.reads.get(id(0))).toMatchObject({ from: at('5') })
    expect(a.errors).toEqual([])
  }, 60_000)

  test('over a fault that is followed by opening again leases stay, under their epochs', async () => {
    const table = tableName()
    const a = worker(table, 'a', () => twelve)
    await a.start()
    const before = new Map(a.reads)
    await a.stop(true)
    a.reads.clear()
    await a.start()
    expect([...a.reads].map(([key, { epoch }]) => [key, epoch]).sort()).toEqual(
      [...before].map(([key, { epoch }]) => [key, epoch]).sort(),
    )
    expect(a.told.lost).toEqual([])
  }, 60_000)

  test('a table with another layout is refused in one line, and left as it is; a server that is away is named', async () => {
    const table = tableName()
    await makeTable(table, 'id')
    await expect(worker(table, 'a', () => [shard(0)]).start()).rejects.toThrow(
      /is not one of leases: its key is id \(HASH\)/,
    )
    expect((await client.send(new ScanCommand({ TableName: table }))).Count).toBe(0)
    const away = worker(tableName(), 'b', () => [shard(0)], { endpoint: 'http://127.0.0.1:1' })
    await expect(away.start()).rejects.toThrow(
      /DynamoDB at http:\/\/127.0.0.1:1 could not look at the table: .*ECONNREFUSED/,
    )
  }, 60_000)
})
