/**
 * A table of leases that the Kinesis Client Library itself and manifold take turns on, or share: whoever comes after
 * goes on where the other one's checkpoints are, within aggregates and over splits; both at once share the shards out,
 * and one takes over what the other left when it was killed.
 */
import { CreateTableCommand, DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { aggregate } from '../endpoints/kinesis/foreign'
import { describeWith } from '../services/describe-with'
import { type Kind, startWorker, type Worker, type WorkerOptions } from '../services/kcl'
import {
  type AwsServer,
  kinesisClient,
  makeStream,
  put,
  type Put,
  split,
  startDynamodb,
  startKinesis,
} from '../services/kinesis'
import { type Running, start } from '../support/manifold'

/** failoverTimeMillis. The library renews every third of it, and looks for what others left every second one. */
const LEASE_MS = 2000
const SHARDS = 8
const LOW = '0'
const HIGH = String((1n << 128n) - 1n)
const id = (number: number): string => `shardId-${String(number).padStart(12, '0')}`

interface Lease {
  /** Not while it is handed over. */ readonly owner: string | undefined
  readonly checkpoint: string
  readonly sub: number
}
interface Got {
  readonly shard: string
  readonly sequence: string
  readonly text: string
}

describeWith('kinesis-fanout', 'with kinesis', () => {
  describeWith('dynamodb', 'with DynamoDB', () => {
    let server: AwsServer
    let tables: AwsServer
    let client: ReturnType<typeof kinesisClient>
    let dynamodb: DynamoDBClient
    let folder: string
    let table: string
    let stream: string
    const workers: Worker[] = []
    const running = new Map<string, Running>()

    beforeAll(async () => {
      // It alone tells children's shards with a page at a shard's end, as the library wants.
      ;[server, tables] = await Promise.all([startKinesis({ kind: 'kinesis-local' }), startDynamodb()])
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
      await Promise.all([server.stop(), tables.stop()])
    })
    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), 'manifold-kcl-'))
      table = `table-${Date.now().toString(36)}`
    })
    afterEach(async () => {
      for (const each of running.values()) each.kill('SIGKILL')
      await Promise.all([...workers.map((each) => each.kill()), ...[...running.values()].map(({ done }) => done)])
      workers.length = 0
      running.clear()
      rmSync(folder, { recursive: true })
    })

    function worker(name: string, options: Partial<WorkerOptions> = {}): Worker {
      const one = startWorker({
        name,
        stream,
        table,
        kinesis: server,
        tables,
        failoverMs: LEASE_MS,
        checkpoint: 'each',
        ...options,
      })
      workers.push(one)
      return one
    }
    function manifold(name: string, words: readonly string[] = []): Running {
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
    const read = ({ told }: Worker): readonly Got[] =>
      told.filter(({ what }) => what === 'record').map(({ shard, sequence, text }) => ({ shard, sequence, text }))
    const written = (name: string): readonly Got[] => {
      try {
        return readFileSync(join(folder, `${name}.out`), 'utf8')
          .split('\n')
          .slice(0, -1)
          .map((line) => {
            const { partition, position, value } = JSON.parse(line) as {
              partition: string
              position: string
              value: string
            }
            return { shard: partition, sequence: /^\d+/.exec(position)?.[0] ?? '', text: value }
          })
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
        throw error
      }
    }
    const texts = (all: readonly Got[]): readonly string[] => all.map(({ text }) => text).sort()
    const numbered = (name: string, from: number, to: number): readonly string[] =>
      Array.from({ length: to - from }, (_, index) => `${name} ${from + index}`)
    const low = (all: readonly string[]): readonly Put[] => all.map((data) => ({ key: 'k', data, hash: LOW }))
    const high = (all: readonly string[]): readonly Put[] => all.map((data) => ({ key: 'k', data, hash: HIGH }))
    const packed = (all: readonly string[], hash: string): Put => ({
      key: 'a',
      hash,
      data: aggregate(all.map((text) => ({ partitionKey: 'u', explicitHashKey: hash, data: Buffer.from(text) }))),
    })

    async function leases(): Promise<ReadonlyMap<string, Lease>> {
      try {
        const { Items = [] } = await dynamodb.send(new ScanCommand({ TableName: table, ConsistentRead: true }))
        return new Map(
          Items.filter(({ checkpoint }) => checkpoint !== undefined).map(
            ({ leaseKey, leaseOwner, checkpointOwner, checkpoint, checkpointSubSequenceNumber }) => [
              leaseKey?.S ?? '',
              {
                owner: checkpointOwner === undefined ? leaseOwner?.S : undefined,
                checkpoint: checkpoint?.S ?? '',
                sub: Number(checkpointSubSequenceNumber?.N ?? 0),
              },
            ],
          ),
        )
      } catch (error) {
        if ((error as Error).name === 'ResourceNotFoundException') return new Map()
        throw error
      }
    }
    /** Looks until it holds. @returns milliseconds that took */
    async function until(holds: () => Promise<boolean> | boolean, what: string, limitMs = 60_000): Promise<number> {
      const from = Date.now()
      while (!(await holds())) {
        if (Date.now() - from > limitMs)
          throw new Error(
            `${what}: not within ${limitMs} ms\n${JSON.stringify([...(await leases())])}\n${[...[...running].map(([name, one]) => `${name}: ${one.stderr()}\n${JSON.stringify(texts(written(name)))}`), ...workers.map((one) => `${one.name}: ${one.stderr().slice(-3000)}\n${JSON.stringify(one.told)}`)].join('\n')}`,
          )
        await new Promise((resolve) => {
          setTimeout(resolve, 50)
        })
      }
      return Date.now() - from
    }
    /**
     * What comes after the checkpoints there are, in the shards there are: all that whoever comes next may read of what
     * was put.
     */
    async function after(all: readonly Got[]): Promise<readonly string[]> {
      const now = await leases()
      return texts(
        all.filter(({ shard, sequence }) => {
          const { checkpoint = '' } = now.get(shard) ?? {}
          return checkpoint === 'TRIM_HORIZON' || (/^\d+$/.test(checkpoint) && BigInt(sequence) > BigInt(checkpoint))
        }),
      )
    }
    /** As the library of 3.x looks its leases up by owner, for which the emulator cannot make an index later. */
    async function makeTable(): Promise<void> {
      await dynamodb.send(
        new CreateTableCommand({
          TableName: table,
          BillingMode: 'PAY_PER_REQUEST',
          KeySchema: [{ AttributeName: 'leaseKey', KeyType: 'HASH' }],
          AttributeDefinitions: [
            { AttributeName: 'leaseKey', AttributeType: 'S' },
            { AttributeName: 'leaseOwner', AttributeType: 'S' },
          ],
          GlobalSecondaryIndexes: [
            {
              IndexName: 'LeaseOwnerToLeaseKeyIndex',
              KeySchema: [
                { AttributeName: 'leaseOwner', KeyType: 'HASH' },
                { AttributeName: 'leaseKey', KeyType: 'RANGE' },
              ],
              Projection: { ProjectionType: 'KEYS_ONLY' },
            },
          ],
        }),
      )
    }

    const kinds: readonly Kind[] = process.env['MANIFOLD_LONG'] === '1' ? ['kcl-2', 'kcl-3'] : ['kcl-2']
    for (const kind of kinds) {
      describeWith(kind === 'kcl-2' ? 'kcl' : 'kcl-3', kind, () => {
        beforeEach(async () => {
          if (kind === 'kcl-3') await makeTable()
        })

        it('the library is killed within an aggregate, manifold goes on there; manifold stops within an aggregate, the library goes on there', async () => {
          stream = await makeStream(client, 2)
          // Plain records in the lower shard, an aggregate in the upper one; a checkpoint after the fifth of each.
          const [plain, users] = [numbered('plain', 0, 10), numbered('user', 0, 10)].map((all) =>
            all.map((text, index) => (index === 4 ? `${text}!` : text)),
          )
          await put(client, stream, low(plain!))
          await put(client, stream, [packed(users!, HIGH), ...high(['after'])])
          const first = worker('first', { kind, checkpoint: 'marked', make: kind === 'kcl-2' })
          await until(
            () => read(first).length === 21 && first.told.filter(({ what }) => what === 'checkpoint').length === 2,
            'the library reads',
          )
          await first.kill()
          const killed = Date.now()
          expect([...(await leases())].map(([, { sub }]) => sub).sort()).toEqual([0, 4])
          const second = manifold('second')
          const rest = [...plain!.slice(5), ...users!.slice(5), 'after'].sort()
          await until(() => written('second').length >= rest.length, 'manifold reads the rest')
          process.stderr.write(`${kind}: manifold had the rest ${Date.now() - killed} ms after the kill\n`)
          second.kill('SIGTERM')
          expect((await second.done).code).toBe(0)
          expect(texts(written('second'))).toEqual(rest)
          // Within an aggregate, by the number of records; each shard in its turn.
          const more = numbered('more', 0, 10)
          await put(client, stream, [packed(more, HIGH)])
          const third = manifold('third', ['--count', '4'])
          expect((await third.done).code).toBe(0)
          expect(texts(written('third'))).toEqual(more.slice(0, 4))
          expect((await leases()).get(id(1))?.sub).toBe(3)
          const fourth = worker('fourth', { kind })
          await until(() => read(fourth).length >= 6, 'the library reads the rest')
          await put(client, stream, [...low(['last']), ...high(['last'])])
          await until(() => read(fourth).length >= 8, 'the library reads what comes')
          await fourth.stop()
          expect(texts(read(fourth))).toEqual([...more.slice(4), 'last', 'last'].sort())
          // Nothing is left for whoever comes now, and nothing comes again.
          const fifth = manifold('fifth', ['--until', 'end'])
          expect((await fifth.done).code).toBe(0)
          expect(written('fifth')).toEqual([])
        }, 240_000)

        it('shards that split under either of the two are finished before their children begin, by whoever comes after', async () => {
          stream = await makeStream(client, 1)
          let n = 0
          const keys = 20
          const feed = (count: number): Promise<void> =>
            put(
              client,
              stream,
              Array.from({ length: count }, () => ({ key: `key ${n % keys}`, data: `key ${n % keys}: ${n++}` })),
            )
          const got: Got[] = []
          await feed(100)
          const first = worker('first', { kind, make: kind === 'kcl-2' })
          await until(() => read(first).length === 100, 'the library reads')
          // What is in the parent when its children are there is for manifold; the library saw nothing of it.
          await first.kill()
          got.push(...read(first))
          let due = await after(got)
          const twice = (now: readonly Got[]): readonly string[] => {
            const before = new Set(texts(got))
            return texts(now).filter((text) => before.has(text))
          }
          await feed(100)
          await split(client, stream, id(0))
          await feed(100)
          const second = manifold('second')
          await until(() => written('second').length >= 200, 'manifold reads over the split')
          // The library finds a parent finished by manifold, and another one that it has to finish.
          second.kill('SIGKILL')
          await second.done
          expect(twice(written('second'))).toEqual(due)
          got.push(...written('second'))
          due = await after(got)
          await feed(100)
          await split(client, stream, id(1))
          await feed(100)
          const third = worker('third', { kind })
          await until(() => new Set(texts([...got, ...read(third)])).size === n, 'the library reads over the split')
          await until(
            async () => (await leases()).get(id(1))?.checkpoint === 'SHARD_END' || !(await leases()).has(id(1)),
            'the end is in the table',
          )
          // Not in order: this library waits for ever for those of its shards that are finished.
          await third.kill()
          expect(twice(read(third))).toEqual(due)
          got.push(...read(third))
          due = await after(got)
          // And manifold what the library has finished.
          await feed(100)
          const fourth = manifold('fourth')
          await until(() => new Set(texts([...got, ...written('fourth')])).size === n, 'manifold reads what comes')
          fourth.kill('SIGTERM')
          expect((await fourth.done).code).toBe(0)
          process.stderr.write(
            `${kind}: ${n} records over two splits, ${got.length + written('fourth').length - n} of them twice; ${JSON.stringify([...(await leases())].map(([key, { checkpoint }]) => `${key.slice(-1)} ${checkpoint.slice(-9)}`))}\n`,
          )
          expect(twice(written('fourth'))).toEqual(due)
          got.push(...written('fourth'))
          // Of the first time that each was seen.
          const seen = new Set<string>()
          const last = new Map<string, number>()
          const outOfOrder = got
            .filter(({ text }) => !seen.has(text) && seen.add(text))
            .filter(({ text }) => {
              const [, key = '', number] = /^(.*): (\d+)$/.exec(text) ?? []
              const before = last.get(key) ?? -1
              last.set(key, Number(number))
              return Number(number) <= before
            })
          expect(outOfOrder).toEqual([])
        }, 240_000)

        // The leader of a 3.x application gives leases to its own workers alone: manifold has to come second.
        it(`both at once on ${SHARDS} shards: each is read by one of them, half by either; one is killed, the other one takes over`, async () => {
          stream = await makeStream(client, SHARDS)
          const all = Array.from({ length: SHARDS }, (_, shard) => ({
            shard: id(shard),
            hash: String(((1n << 128n) / BigInt(SHARDS)) * BigInt(shard) + 1000n),
          }))
          let n = 0
          /** One for each shard. */
          const round = async (): Promise<number> => {
            await put(
              client,
              stream,
              all.map(({ hash }) => ({ key: 'k', hash, data: `record ${n++}` })),
            )
            return n
          }
          const owned = async (name: string): Promise<number> =>
            [...(await leases()).values()].filter(({ owner }) => owner === name).length
          const shared = async (): Promise<boolean> =>
            (await owned('own')) === SHARDS / 2 && (await owned('foreign')) === SHARDS / 2
          const own = kind === 'kcl-2' ? manifold('own') : undefined
          if (own !== undefined) await until(async () => (await owned('own')) === SHARDS, 'manifold has all')
          const foreign = worker('foreign', { kind, steal: SHARDS / 2 })
          if (own === undefined) await until(async () => (await owned('foreign')) === SHARDS, 'the library has all')
          const first = own ?? manifold('own')
          const balancedMs = await until(shared, 'shared out evenly', 120_000)
          // The library of 2.x takes a lease without asking: its holder finds that out by its next renewal.
          if (kind === 'kcl-2')
            await until(() => first.stderr().match(/ is lost: /g)?.length === SHARDS / 2, 'manifold has found out')
          const everything = (...more: readonly Worker[]): readonly string[] =>
            texts([...written('own'), ...[foreign, ...more].flatMap(read)])
          // What comes now is read by one of them each.
          const before = n
          for (let rounds = 0; rounds < 20; rounds++) await round()
          await until(() => new Set(everything()).size === n, 'everything read')
          const since = (got: readonly Got[]): readonly Got[] =>
            got.filter(({ text }) => Number(text.slice('record '.length)) >= before)
          const [ours, theirs] = [since(written('own')), since(read(foreign))]
          expect(texts([...ours, ...theirs])).toEqual(
            Array.from({ length: n - before }, (_, index) => `record ${before + index}`).sort(),
          )
          expect([
            new Set(ours.map(({ shard }) => shard)).size,
            new Set(theirs.map(({ shard }) => shard)).size,
          ]).toEqual([SHARDS / 2, SHARDS / 2])
          await foreign.kill()
          await round()
          const afterForeignMs = await until(() => new Set(everything()).size === n, 'manifold takes over')
          expect(await owned('own')).toBe(SHARDS)
          const again = worker('again', { kind, steal: SHARDS / 2 })
          let afterOwnMs: number | undefined
          if (kind === 'kcl-2') {
            await until(async () => (await owned('again')) === SHARDS / 2, 'shared out evenly again')
            first.kill('SIGKILL')
            await first.done
            await round()
            afterOwnMs = await until(() => new Set(everything(again)).size === n, 'the library takes over')
          }
          process.stderr.write(
            `${kind}: shared out evenly after ${balancedMs} ms; read by the other one ${afterForeignMs} ms after the library, ${afterOwnMs ?? 'not tried'} ms after manifold was killed (lease ${LEASE_MS} ms)\n`,
          )
          // Three are for a machine that is busy with other tests.
          expect(afterForeignMs).toBeLessThan(3 * LEASE_MS)
        }, 240_000)
      })
    }
  })
})
