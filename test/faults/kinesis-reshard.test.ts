/**
 * Shards split and merge over generations while one manifold writes and another, killed again and again, archives: each
 * record is stored once, a key's records stay in their order, a shard's come after those of its parents, and what was
 * made while nobody looked is read from its beginning.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { describeWith } from '../services/describe-with'
import { type AwsServer, get, kinesisClient, makeStream, merge, shards, split, startKinesis } from '../services/kinesis'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { KinesisProxy } from '../support/kinesis-proxy'
import { start, type Finished, type Running } from '../support/manifold'

const LONG = process.env['MANIFOLD_LONG'] === '1'
const PER_SECOND = 2000
const KEYS = 40
/**
 * Five answers a second of so many records are what a shard gets written, or less: parents are far from drained when
 * their children are there.
 */
const PAGE = 150
/** What becomes of the shards: 0 and 1 are there at first. `away`: the archiver is down meanwhile. */
const CHANGES: readonly {
  readonly split?: number
  readonly merge?: readonly [number, number]
  readonly away?: true
}[] = [
  { split: 0 }, // 2, 3
  { split: 1, away: true }, // 4, 5
  { merge: [3, 4] }, // 6, of two parents that were split from different shards
  { split: 6, away: true }, // 7, 8
  { merge: [2, 7], away: true }, // 9
  ...(LONG
    ? [{ split: 9 }, { merge: [8, 5] as const }, { split: 12, away: true as const }, { merge: [10, 11] as const }]
    : []),
]

interface Stored {
  readonly shard: string
  readonly sequence: string
  readonly key: string
  readonly n: number
}
const id = (number: number): string => `shardId-${String(number).padStart(12, '0')}`
const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
const nOf = (value: string): number => (JSON.parse(value) as { readonly n: number }).n

describeWith('s3', 'with s3', () => {
  describeWith('kinesis', 'a stream that is resharded', () => {
    let server: AwsServer
    let client: ReturnType<typeof kinesisClient>
    let proxy: KinesisProxy
    let store: S3Server
    let bucket: Bucket
    let folder: string
    const running: Running[] = []

    beforeAll(async () => {
      ;[server, store] = await Promise.all([startKinesis({ kind: 'kinesalite' }), startS3()])
      client = kinesisClient(server)
      proxy = await KinesisProxy.start(server.endpoint)
      bucket = await Bucket.make(store)
      folder = mkdtempSync(join(tmpdir(), 'manifold-reshard-'))
    }, 90_000)
    afterAll(async () => {
      for (const each of running) each.kill('SIGKILL')
      client.destroy()
      bucket.close()
      await proxy.stop()
      await Promise.all([server.stop(), store.stop()])
      rmSync(folder, { recursive: true, force: true })
    })

    const env = (): NodeJS.ProcessEnv => ({
      KEY: store.accessKey,
      SECRET: store.secretKey,
      AWS_ACCESS_KEY_ID: server.accessKey,
      AWS_SECRET_ACCESS_KEY: server.secretKey,
    })
    function launch(args: readonly string[], input?: 'open'): Running {
      const one = start(args, { env: env(), ...(input === undefined ? {} : { input }) })
      running.push(one)
      return one
    }
    const archive = (stream: string, flags: readonly string[] = []): Running =>
      launch([
        '--from',
        `kinesis:${stream}`,
        `endpoint=${proxy.endpoint}`,
        `region=${server.region}`,
        'start=latest',
        'poll-every=200ms',
        `max-records=${PAGE}`,
        '--to',
        `s3://${bucket.name}/lake`,
        'region=us-east-1',
        `endpoint=${store.endpoint}`,
        'path-style',
        'access-key-id={env:KEY}',
        'secret-access-key={env:SECRET}',
        'framing=envelope',
        'commit-file-size=1MiB',
        'commit-duration=1s',
        'upload-every=1s',
        '--state',
        join(folder, 'state'),
        '--receipt',
        join(folder, 'receipts.ndjson'),
        ...flags,
      ])

    /** Numbered records of some keys, as fast as they are due, until it is stopped. */
    function feed(into: Running): { readonly sent: number; stop(): Promise<Finished> } {
      const began = Date.now()
      let sent = 0
      const timer = setInterval(() => {
        let text = ''
        for (const due = ((Date.now() - began) / 1000) * PER_SECOND; sent < due; sent++)
          text += `${JSON.stringify({ key: `k${sent % KEYS}`, n: sent, pad: 'x'.repeat(100) })}\n`
        into.child.stdin?.write(text)
      }, 20)
      return {
        get sent() {
          return sent
        },
        stop: () => {
          clearInterval(timer)
          into.child.stdin?.end()
          return into.done
        },
      }
    }
    async function stored(): Promise<readonly Stored[]> {
      return (await bucket.all()).flatMap(({ bytes }) =>
        bytes
          .toString()
          .split('\n')
          .slice(0, -1)
          .map((line) => {
            const { partition, position, key, value } = JSON.parse(line) as {
              readonly partition: string
              readonly position: string
              readonly key: string
              readonly value: string
            }
            return { shard: partition, sequence: /^\d+/.exec(position)?.[0] ?? '', key, n: nOf(value) }
          }),
      )
    }
    function outOfOrder(all: readonly Pick<Stored, 'key' | 'n'>[]): readonly string[] {
      const last = new Map<string, number>()
      return all
        .filter(({ key, n }) => {
          const before = last.get(key) ?? -1
          last.set(key, n)
          return n <= before
        })
        .map(({ key, n }) => `${key}: ${n}`)
    }

    test(
      `${CHANGES.length} splits and merges over three generations and more under ${PER_SECOND} records a second, kill -9 at each: every record once, per key in order, children after their parents, from their beginning`,
      async () => {
        const stream = await makeStream(client, 2)
        let reader = archive(stream)
        // Where `latest` is has been settled.
        while (proxy.of('GetRecords').length < 4) await sleep(20)
        const writer = launch(
          [
            '--from',
            '-',
            '--to',
            `kinesis:${stream}`,
            `endpoint=${server.endpoint}`,
            `region=${server.region}`,
            'partition-key={json:key}',
            'order=key',
            '--receipt',
            join(folder, 'written.ndjson'),
          ],
          'open',
        )
        const load = feed(writer)
        while ((await bucket.keys()).length === 0) await sleep(50)
        let kills = 0
        const kill = async (): Promise<void> => {
          reader.kill('SIGKILL')
          expect((await reader.done).signal).toBe('SIGKILL')
          kills++
        }
        const change = ({ split: one, merge: both }: (typeof CHANGES)[number]): Promise<void> =>
          both === undefined ? split(client, stream, id(one ?? 0)) : merge(client, stream, id(both[0]), id(both[1]))
        for (const each of CHANGES) {
          if (each.away === true) {
            await kill()
            await change(each)
            await sleep(700)
          } else {
            await change(each)
            // While the end of the parents is found, while the children begin, or after.
            await sleep(Math.random() * 1500)
            await kill()
          }
          reader = archive(stream)
          await sleep(700 + Math.random() * 800)
        }
        const { code: written, stderr } = await load.stop()
        expect({ code: written, stderr: written === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
        await kill()
        const last = await archive(stream, ['--until', 'end']).done
        expect({ code: last.code, stderr: last.code === 0 ? '' : last.stderr }).toEqual({ code: 0, stderr: '' })

        const there = await get(client, stream)
        const found = await stored()
        process.stderr.write(
          `resharding: ${load.sent} records in ${new Set(there.map(({ shard }) => shard)).size} shards, ${found.length} stored, ${kills} kills, ${(await bucket.keys()).length} objects\n`,
        )
        // The writer, which nobody killed, has written each once and in order.
        expect(there.map(({ data }) => nOf(data.toString())).toSorted((a, b) => a - b)).toEqual(
          Array.from({ length: load.sent }, (_, n) => n),
        )
        const place = ({ shard, sequence }: { readonly shard: string; readonly sequence: string }): string =>
          `${shard} ${sequence}`
        const places = new Set(found.map(place))
        expect(found.length - places.size).toBe(0)
        expect(there.map(place).filter((each) => !places.has(each))).toEqual([])
        expect(found).toHaveLength(there.length)
        expect(outOfOrder(found)).toEqual([])
        const listed = await shards(client, stream)
        expect(listed).toHaveLength(2 + CHANGES.reduce((sum, each) => sum + (each.merge === undefined ? 2 : 1), 0))
        for (const { ShardId = '', ParentShardId, AdjacentParentShardId } of listed) {
          const first = found.findIndex(({ shard }) => shard === ShardId)
          expect(first).not.toBe(-1)
          for (const parent of [ParentShardId, AdjacentParentShardId])
            expect({
              ShardId,
              parent,
              before: parent === undefined || found.findLastIndex(({ shard }) => shard === parent) < first,
            }).toEqual({ ShardId, parent, before: true })
        }
        const receipts = [
          ...new Map(
            readFileSync(join(folder, 'receipts.ndjson'), 'utf8')
              .trim()
              .split('\n')
              .map((text) => JSON.parse(text) as Receipt)
              .map((receipt) => [receipt.run, receipt] as const),
          ).values(),
        ]
        for (const receipt of receipts)
          for (const sink of receipt.sinks)
            expect({ run: receipt.run, off: imbalance(sink), twice: sink.possibleDuplicates }).toEqual({
              run: receipt.run,
              off: 0,
              twice: 0,
            })
        expect(receipts.reduce((sum, receipt) => sum + (receipt.sinks[0]?.delivered ?? 0), 0)).toBe(found.length)
        expect(receipts.flatMap(({ gaps }) => gaps)).toEqual([])
      },
      LONG ? 180_000 : 120_000,
    )
  })
})
