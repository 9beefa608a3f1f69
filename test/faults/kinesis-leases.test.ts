/**
 * Three processes share twelve shards by leases in DynamoDB; one is killed, one is stopped. Shards move within two
 * lease periods, nothing is missing, and nothing that was committed is read again. A table in the layout of the Kinesis
 * Client Library is taken over where it stands.
 */
import { CreateTableCommand, DynamoDBClient, PutItemCommand, ScanCommand } from '@aws-sdk/client-dynamodb'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { compareSequences } from '../../src/endpoints/kinesis/position'
import { aggregate } from '../endpoints/kinesis/foreign'
import { describeWith } from '../services/describe-with'
import { type AwsServer, get, kinesisClient, makeStream, put, startDynamodb, startKinesis } from '../services/kinesis'
import { type Running, start } from '../support/manifold'

const SHARDS = 12
const LEASE_MS = 3000

interface Written {
  readonly value: string
  readonly partition: string
  readonly position: string
}

describeWith('kinesis', 'leases', () => {
  describeWith('dynamodb', 'in DynamoDB', () => {
    let server: AwsServer
    let tables: AwsServer
    let client: ReturnType<typeof kinesisClient>
    let dynamodb: DynamoDBClient
    let folder: string
    const running = new Map<string, Running>()
    beforeAll(async () => {
      server = await startKinesis({ kind: 'kinesalite' })
      tables = await startDynamodb()
      client = kinesisClient(server)
      dynamodb = new DynamoDBClient({
        endpoint: tables.endpoint,
        region: tables.region,
        credentials: { accessKeyId: tables.accessKey, secretAccessKey: tables.secretKey },
      })
    }, 120_000)
    afterAll(async () => {
      client.destroy()
      dynamodb.destroy()
      await server.stop()
      await tables.stop()
    })
    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), 'manifold-leases-'))
    })
    afterEach(async () => {
      for (const each of running.values()) each.kill('SIGKILL')
      await Promise.all([...running.values()].map(({ done }) => done))
      running.clear()
      rmSync(folder, { recursive: true })
    })

    function launch(name: string, stream: string, table: string, words: readonly string[] = []): Running {
      const one = start(
        [
          '--from',
          `kinesis:${stream}`,
          `endpoint=${server.endpoint}`,
          `region=${server.region}`,
          `leases=dynamodb:${table}`,
          `leases-endpoint=${tables.endpoint}`,
          `lease-duration=${LEASE_MS}ms`,
          `worker-id=${name}`,
          'poll-every=200ms',
          '--to',
          join(folder, `${name}.out`),
          'framing=envelope',
          '--state',
          join(folder, name),
          ...words,
        ],
        { env: { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey } },
      )
      running.set(name, one)
      return one
    }
    /** In its order; what a kill has cut is left out. */
    const written = (name: string): readonly Written[] => {
      try {
        return readFileSync(join(folder, `${name}.out`), 'utf8')
          .split('\n')
          .slice(0, -1)
          .map((line) => JSON.parse(line) as Written)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
        throw error
      }
    }
    /** `handing`: who still has it, while it is handed over to its owner. */
    interface Lease {
      readonly shard: string
      readonly owner: string
      readonly handing: string
      readonly checkpoint: string
    }
    async function leasesOf(table: string): Promise<readonly Lease[]> {
      try {
        const { Items = [] } = await dynamodb.send(new ScanCommand({ TableName: table, ConsistentRead: true }))
        return Items.map(({ leaseKey, leaseOwner, checkpointOwner, checkpoint }) => ({
          shard: leaseKey?.S ?? '',
          owner: leaseOwner?.S ?? '',
          handing: checkpointOwner?.S ?? '',
          checkpoint: checkpoint?.S ?? '',
        }))
      } catch (error) {
        if ((error as Error).name === 'ResourceNotFoundException') return []
        throw error
      }
    }
    /** Looks until it holds. @returns milliseconds that took */
    async function until(holds: () => Promise<boolean> | boolean, limitMs: number, what: string): Promise<number> {
      const from = Date.now()
      while (!(await holds())) {
        if (Date.now() - from > limitMs)
          throw new Error(
            `${what}: not within ${limitMs} ms\n${[...running].map(([name, one]) => `${name}: ${one.stderr()}`).join('\n')}`,
          )
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
      return Date.now() - from
    }
    const held = (table: string, names: readonly string[]) => async (): Promise<boolean> => {
      const now = await leasesOf(table)
      return now.length === SHARDS && now.every(({ owner }) => names.includes(owner))
    }
    const shared = (table: string, names: readonly string[]) => async (): Promise<boolean> => {
      const now = await leasesOf(table)
      // A hand-over under way is still being read by whoever has it.
      return (
        (await held(table, names)()) &&
        now.every(({ handing }) => handing === '') &&
        names.every((name) => now.filter(({ owner }) => owner === name).length === SHARDS / names.length)
      )
    }

    it(`3 processes on ${SHARDS} shards, one killed, one stopped: shards move within two lease periods, nothing is missing, only what was not committed comes again`, async () => {
      const stream = await makeStream(client, SHARDS)
      const table = `table-${Date.now().toString(36)}`
      const names = ['a', 'b', 'c']
      for (const name of names) launch(name, stream, table)
      await until(shared(table, names), 60_000, 'all shards shared out evenly')
      let n = 0
      let feeding = true
      const feeder = (async () => {
        while (feeding)
          await put(
            client,
            stream,
            Array.from({ length: 200 }, () => ({ key: `k${n % 97}`, data: `record ${n++}` })),
          )
      })()
      const seen = (name: string, more: number): (() => boolean) => {
        const before = written(name).length
        return () => written(name).length >= before + more
      }
      await until(seen('a', 1000), 60_000, 'a reads')
      running.get('a')?.kill('SIGKILL')
      const killedAt = Date.now()
      await running.get('a')?.done
      // As the table stands, before anybody can have noticed.
      const left = (await leasesOf(table)).filter(({ owner }) => owner === 'a')
      await until(held(table, ['b', 'c']), 60_000, 'shards of the killed one taken over')
      const movedMs = Date.now() - killedAt
      await until(shared(table, ['b', 'c']), 60_000, 'and shared out evenly')
      await until(seen('c', 1000), 60_000, 'c reads')
      running.get('b')?.kill('SIGTERM')
      const handedMs = await until(held(table, ['c']), 60_000, 'shards of the stopped one taken over')
      const stopped = await running.get('b')?.done
      await until(seen('c', 1000), 60_000, 'c reads all')
      feeding = false
      await feeder
      const union = (): ReadonlySet<string> => new Set(names.flatMap(written).map(({ value }) => value))
      await until(() => union().size === n, 60_000, 'everything read')
      running.get('c')?.kill('SIGTERM')
      const last = await running.get('c')?.done
      expect([stopped?.code, last?.code]).toEqual([0, 0])

      const own = written('a')
      const others = ['b', 'c'].flatMap(written)
      const ownValues = new Set(own.map(({ value }) => value))
      const twice = others.filter(({ value }) => ownValues.has(value))
      process.stderr.write(
        `leases: ${n} records, ${twice.length} of them twice, shards of the killed process moved after ${movedMs} ms, of the stopped one after ${handedMs} ms (lease ${LEASE_MS} ms)\n`,
      )
      // No process repeats itself, nor does the one that took over from the stopped one.
      for (const each of [own, others]) expect(each).toHaveLength(new Set(each.map(({ value }) => value)).size)
      expect(left).toHaveLength(SHARDS / 3)
      const checkpoints = new Map(left.map(({ shard, checkpoint }) => [shard, checkpoint]))
      const isCommitted = ({ partition, position }: Written): boolean => {
        const checkpoint = checkpoints.get(partition)
        return (
          checkpoint === undefined ||
          (/^\d+$/.test(checkpoint) && compareSequences(/^\d+/.exec(position)?.[0] ?? '', checkpoint) <= 0)
        )
      }
      expect(own.some(isCommitted)).toBe(true)
      expect(twice.filter(isCommitted)).toEqual([])
      expect(movedMs).toBeLessThan(2 * LEASE_MS)
      expect(handedMs).toBeLessThan(2 * LEASE_MS)
    }, 240_000)

    it("a table of the Kinesis Client Library is taken over where it stands: mid-stream, within an aggregate, at a shard's end", async () => {
      const stream = await makeStream(client, 2)
      const table = `kcl-${Date.now().toString(36)}`
      const users = Array.from({ length: 10 }, (_, index) => ({
        partitionKey: 'u',
        data: Buffer.from(`user ${index}`),
      }))
      // Hashes of either half: plain records in the first shard, an aggregate in the second.
      await put(
        client,
        stream,
        ['one', 'two', 'three'].map((data) => ({ key: 'k', data, hash: '0' })),
      )
      await put(client, stream, [
        { key: 'a', data: aggregate(users), hash: String((1n << 128n) - 1n) },
        { key: 'k', data: 'after', hash: String((1n << 128n) - 1n) },
      ])
      const stored = await get(client, stream)
      const [plain, packed] = ['shardId-000000000000', 'shardId-000000000001'].map((shard) =>
        stored.filter((each) => each.shard === shard),
      )
      await dynamodb.send(
        new CreateTableCommand({
          TableName: table,
          BillingMode: 'PAY_PER_REQUEST',
          AttributeDefinitions: [{ AttributeName: 'leaseKey', AttributeType: 'S' }],
          KeySchema: [{ AttributeName: 'leaseKey', KeyType: 'HASH' }],
        }),
      )
      const lease = async (key: string, checkpoint: string, sub: number): Promise<void> => {
        await until(
          () =>
            dynamodb
              .send(
                new PutItemCommand({
                  TableName: table,
                  Item: {
                    leaseKey: { S: key },
                    leaseOwner: { S: 'a worker of old' },
                    leaseCounter: { N: '42' },
                    checkpoint: { S: checkpoint },
                    checkpointSubSequenceNumber: { N: String(sub) },
                    ownerSwitchesSinceCheckpoint: { N: '0' },
                  },
                }),
              )
              .then(
                () => true,
                (error: unknown) => {
                  if ((error as Error).name === 'ResourceNotFoundException') return false
                  throw error
                },
              ),
          10_000,
          'the table',
        )
      }
      await lease('shardId-000000000000', plain?.[0]?.sequence ?? '', 0)
      await lease('shardId-000000000001', packed?.[0]?.sequence ?? '', 3)
      const one = launch('mine', stream, table)
      await until(() => written('mine').length >= 9, 60_000, 'the rest')
      one.kill('SIGTERM')
      expect((await one.done).code).toBe(0)
      expect(
        written('mine')
          .map(({ value }) => value)
          .sort(),
      ).toEqual(['after', 'three', 'two', ...[4, 5, 6, 7, 8, 9].map((index) => `user ${index}`)].sort())
      const { Items = [] } = await dynamodb.send(new ScanCommand({ TableName: table, ConsistentRead: true }))
      const row = (key: string): Record<string, unknown> => {
        const { checkpoint, leaseOwner } = Items.find(({ leaseKey }) => leaseKey?.S === key) ?? {}
        return { checkpoint: checkpoint?.S, owner: leaseOwner?.S }
      }
      expect(row('shardId-000000000000')).toEqual({ checkpoint: plain?.at(-1)?.sequence, owner: undefined })
      expect(row('shardId-000000000001')).toEqual({ checkpoint: packed?.at(-1)?.sequence, owner: undefined })
    }, 120_000)
  })
})
