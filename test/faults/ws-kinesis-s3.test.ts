/**
 * The picture that manifold was made for, in real processes: a feed that exists only once → Kinesis → an archive in S3,
 * and a program that reads stdout. One of the three is killed and started again: both ends hold every record that was
 * accepted.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { deaggregate } from '../endpoints/kinesis/foreign'
import { describeWith } from '../services/describe-with'
import { type AwsServer, get, kinesisClient, makeStream, startKinesis } from '../services/kinesis'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { record, startFeed, type Feed } from '../support/feed'
import { cleanEnv, LAUNCHER, start, type Finished, type Running } from '../support/manifold'
import { faultsOf, read } from '../support/oracle'

const PER_SECOND = 2000
/** Between the steps, milliseconds. */
const STEP = process.env['MANIFOLD_LONG'] === '1' ? 10_000 : 1500
const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

type Part = 'collector' | 'archiver' | 'printer'

describeWith('s3', 'with s3', () => {
  describeWith('kinesis', 'a feed to Kinesis, from there to S3 and to a program', () => {
    let server: AwsServer
    let client: ReturnType<typeof kinesisClient>
    let store: S3Server
    let bucket: Bucket
    let feed: Feed
    let folder: string
    const running: { kill(signal: NodeJS.Signals): void }[] = []

    beforeAll(async () => {
      ;[server, store] = await Promise.all([startKinesis({ kind: 'kinesalite' }), startS3()])
      client = kinesisClient(server)
    }, 90_000)
    afterAll(async () => {
      client.destroy()
      await Promise.all([server.stop(), store.stop()])
    }, 30_000)
    beforeEach(async () => {
      folder = mkdtempSync(join(tmpdir(), 'manifold-picture-'))
      writeFileSync(join(folder, 'printed'), '')
      bucket = await Bucket.make(store)
      feed = await startFeed({ perSecond: PER_SECOND })
    })
    afterEach(async () => {
      for (const each of running.splice(0)) each.kill('SIGKILL')
      await feed.stop()
      bucket.close()
      rmSync(folder, { recursive: true, force: true })
    })

    const env = (): NodeJS.ProcessEnv => ({
      KEY: store.accessKey,
      SECRET: store.secretKey,
      AWS_ACCESS_KEY_ID: server.accessKey,
      AWS_SECRET_ACCESS_KEY: server.secretKey,
    })
    const kept = (name: Part): readonly string[] => [
      '--state',
      join(folder, name),
      '--receipt',
      join(folder, `${name}.receipts`),
    ]
    const at = (stream: string): readonly string[] => [
      `kinesis:${stream}`,
      `endpoint=${server.endpoint}`,
      `region=${server.region}`,
    ]
    const launched = <T extends { kill(signal: NodeJS.Signals): void }>(one: T): T => {
      running.push(one)
      return one
    }
    const parts: Readonly<Record<Part, (stream: string, words?: readonly string[]) => Pick<Running, 'kill' | 'done'>>> =
      {
        collector: (stream) =>
          launched(
            start(
              [
                '--from',
                feed.url,
                '--to',
                ...at(stream),
                'partition-key={json:price}',
                'aggregate',
                ...kept('collector'),
              ],
              { env: env() },
            ),
          ),
        archiver: (stream, words = []) =>
          launched(
            start(
              [
                '--from',
                ...at(stream),
                'poll-every=200ms',
                '--to',
                `s3://${bucket.name}/lake`,
                'region=us-east-1',
                `endpoint=${store.endpoint}`,
                'path-style',
                'access-key-id={env:KEY}',
                'secret-access-key={env:SECRET}',
                'commit-file-size=1MiB',
                'commit-duration=1s',
                ...kept('archiver'),
                ...words,
              ],
              { env: env() },
            ),
          ),
        printer: (stream) =>
          launched(piped(['--from', ...at(stream), 'poll-every=200ms', '--to', '-', ...kept('printer')])),
      }
    /**
     * Into a program by way of a shell's pipe. The signal goes to manifold; the program, as it does, reads to the end.
     */
    function piped(args: readonly string[]): Pick<Running, 'kill' | 'done'> {
      const from = Date.now()
      const pids = join(folder, `pid-${from}`)
      const shell = spawn(
        'bash',
        [
          '-c',
          'set -o pipefail; bash -c \'echo $$ > "$0"; exec "$@"\' "$@" | cat >> "$0"',
          join(folder, 'printed'),
          pids,
          LAUNCHER,
          ...args,
        ],
        { env: cleanEnv(env()), stdio: ['ignore', 'ignore', 'pipe'] },
      )
      let err = ''
      shell.stderr.on('data', (chunk: Buffer) => {
        err += chunk.toString()
      })
      const done = once(shell, 'close').then(
        ([code, signal]): Finished => ({
          code: code as number | null,
          signal: signal as NodeJS.Signals | null,
          stdout: Buffer.alloc(0),
          stderr: err,
          ms: Date.now() - from,
        }),
      )
      let over = false
      void done.then(() => {
        over = true
      })
      return {
        done,
        kill: (signal) => {
          if (!over) process.kill(Number(readFileSync(pids, 'utf8')), signal)
        },
      }
    }
    const receipts = (name: Part): readonly Receipt[] => [
      ...new Map(
        readFileSync(join(folder, `${name}.receipts`), 'utf8')
          .trim()
          .split('\n')
          .map((text) => JSON.parse(text) as Receipt)
          .map((receipt) => [receipt.run, receipt] as const),
      ).values(),
    ]
    const printed = (): readonly number[] =>
      readFileSync(join(folder, 'printed'), 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line) => {
          const n = Number(/^\{"n":(\d+)/.exec(line)?.[1])
          if (line !== record(n)) throw new Error(`an altered line: ${line.slice(0, 100)}`)
          return n
        })
    async function stops(one: Pick<Running, 'kill' | 'done'>): Promise<void> {
      one.kill('SIGTERM')
      const { code, stderr } = await one.done
      expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
    }

    test.each<Part>(['collector', 'archiver', 'printer'])(
      'the %s is killed and started again: both ends hold every record that was accepted',
      async (victim) => {
        const stream = await makeStream(client, 2)
        const now = {
          collector: parts.collector(stream),
          archiver: parts.archiver(stream),
          printer: parts.printer(stream),
        }
        // All are at work.
        while (printed().length < PER_SECOND || (await bucket.keys()).length === 0) await sleep(50)
        await sleep(Math.random() * STEP)
        now[victim].kill('SIGKILL')
        await now[victim].done
        await sleep(STEP / 2)
        now[victim] = parts[victim](stream)
        const before = feed.connections.length
        await sleep(STEP)
        while (victim === 'collector' && feed.connections.length === before && before < 2) await sleep(20)
        const open = feed.connections.at(-1)
        while (open === undefined || open.last < open.first + PER_SECOND / 2) await sleep(20)
        const until = feed.next - 1
        await sleep(300)
        await stops(now.collector)

        const accepted = (await get(client, stream))
          .flatMap(({ data, sequence }) => deaggregate(data, sequence))
          .map(({ data }) => Number(/^\{"n":(\d+)/.exec(data.toString())?.[1]))
        const all = [...new Set(accepted)].sort((a, b) => a - b)
        expect(faultsOf(all, feed.connections, until)).toEqual([])
        for (const receipt of receipts('collector'))
          for (const sink of receipt.sinks)
            expect({
              run: receipt.run,
              off: imbalance(sink),
              spooled: receipt.outcome === 'killed' || sink.spooled === 0,
            }).toEqual({ run: receipt.run, off: 0, spooled: true })
        const delivered = receipts('collector').reduce((sum, { sinks }) => sum + (sinks[0]?.delivered ?? 0), 0)
        if (victim !== 'collector') expect([accepted.length, delivered]).toEqual([all.length, all.length])

        const isWhole = (): boolean => new Set(printed()).size === all.length
        while (!isWhole()) await sleep(50)
        await stops(now.printer)
        await stops(now.archiver)
        const rest = await parts.archiver(stream, ['--until', 'end']).done
        expect({ code: rest.code, stderr: rest.code === 0 ? '' : rest.stderr }).toEqual({ code: 0, stderr: '' })
        const archived = read(await bucket.all())
        expect(archived.altered).toEqual([])
        // What is in the stream twice, is so here; nothing else is.
        expect(archived.numbers.toSorted((a, b) => a - b)).toEqual(accepted.toSorted((a, b) => a - b))
        const lines = printed()
        expect([...new Set(lines)].sort((a, b) => a - b)).toEqual(all)
        if (victim !== 'printer') expect(lines).toHaveLength(accepted.length)
        process.stderr.write(
          `picture, the ${victim} killed: ${feed.next - 1} fed, ${accepted.length} in Kinesis (${accepted.length - all.length} of them twice), ${archived.numbers.length} in S3, ${lines.length} printed\n`,
        )
      },
      STEP * 4 + 60_000,
    )
  })
})
