/**
 * The main job under its worst day: a feed that exists only once, the process killed at random, the store away for a
 * third of the time.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { describeWith } from '../services/describe-with'
import { startFeed, type Feed } from '../support/feed'
import { manifold, start, type Running } from '../support/manifold'
import { faultsOf, missing, read } from '../support/oracle'

/** Seconds of feeding; MANIFOLD_LONG makes it the whole minute and more, with 20 kills. */
const LONG = process.env['MANIFOLD_LONG'] === '1'
const SECONDS = LONG ? 75 : 30
const KILLS = LONG ? 20 : 8
const PER_SECOND = 20_000

const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

describeWith('s3', 'ws to s3', () => {
  let server: S3Server
  let bucket: Bucket
  let feed: Feed
  let folder: string

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'manifold-ws-s3-'))
    server = await startS3()
    bucket = await Bucket.make(server)
    feed = await startFeed({ perSecond: PER_SECOND })
  })
  afterEach(async () => {
    await feed.stop()
    bucket.close()
    await server.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  const line = (): string[] => [
    '--from',
    feed.url,
    '--to',
    `s3://${bucket.name}/trades`,
    'region=us-east-1',
    `endpoint=${server.endpoint}`,
    'path-style',
    'access-key-id={env:KEY}',
    'secret-access-key={env:SECRET}',
    'commit-file-size=8MiB',
    'commit-duration=3s',
    'upload-every=1s',
    '--state',
    join(folder, 'state'),
    '--receipt',
    join(folder, 'receipts.ndjson'),
  ]
  const run = (): Running => start(line(), { env: { KEY: server.accessKey, SECRET: server.secretKey } })

  test(
    `${PER_SECOND} records a second, ${KILLS} times kill -9, the store away in between: one range missing per kill, nothing twice, every receipt adds up`,
    async () => {
      const begun = Date.now()
      const end = begun + SECONDS * 1000
      const storeAway = (async () => {
        await sleep((SECONDS * 1000) / 3)
        await server.kill()
        await sleep((SECONDS * 1000) / 3)
        await server.restart()
      })()
      let running = run()
      let kills = 0
      while (Date.now() < end) {
        const left = KILLS - kills
        const pause = left === 0 ? end - Date.now() : (Math.random() * 2 * (end - Date.now())) / (left + 1)
        await sleep(Math.max(300, Math.min(pause, end - Date.now())))
        if (left === 0 || Date.now() >= end) break
        running.kill('SIGKILL')
        expect((await running.done).signal).toBe('SIGKILL')
        kills++
        running = run()
      }
      await storeAway
      // The last run has to be reading before it is stopped in order.
      const before = feed.connections.length
      while (feed.connections.at(-1)?.closed !== false || feed.connections.length < before) await sleep(50)
      await sleep(500)
      const until = feed.next - 1
      await sleep(200)
      running.kill('SIGTERM')
      const finished = await running.done
      expect({ code: finished.code, stderr: finished.code === 0 ? '' : finished.stderr }).toEqual({
        code: 0,
        stderr: '',
      })

      // What a store that was away has not yet taken is safe in the spool; whoever waits no longer delivers it so.
      const first = JSON.parse(readFileSync(join(folder, 'receipts.ndjson'), 'utf8').split('\n')[0] ?? '') as Receipt
      const drained = await manifold(['spool', 'drain', first.flow, '--state', join(folder, 'state')], {
        env: { KEY: server.accessKey, SECRET: server.secretKey },
      })
      expect({ code: drained.code, stderr: drained.stderr }).toEqual({ code: 0, stderr: '' })

      const found = read(await bucket.all())
      expect(found.altered).toEqual([])
      expect(found.doubles).toEqual([])
      expect(faultsOf(found.numbers, feed.connections, until)).toEqual([])
      const gone = missing(found.numbers, until)
      expect(gone.length).toBeLessThanOrEqual(kills + 1)

      // A start that was killed after it had issued a receipt, and before its own run began, leaves it to be issued
      // once more.
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
          expect({ run: receipt.run, off: imbalance(sink) }).toEqual({ run: receipt.run, off: 0 })
      // Every run that reached the feed has its receipt; one that was killed before it began has none.
      const killed = receipts.filter(({ outcome }) => outcome === 'killed').length
      expect(killed).toBeLessThanOrEqual(kills)
      expect(killed).toBeGreaterThanOrEqual(feed.connections.length - 1)
      // What one run leaves in the spool is what the next one carries in.
      receipts.forEach((receipt, index) => {
        if (index > 0) expect(receipt.sinks[0]?.carriedIn).toBe(receipts[index - 1]?.sinks[0]?.spooled)
      })
      const delivered = receipts.reduce((sum, receipt) => sum + (receipt.sinks[0]?.delivered ?? 0), 0)
      expect(delivered).toBe(found.numbers.length)
      process.stderr.write(
        `ws to s3: ${feed.next - 1} sent, ${found.numbers.length} stored, ${kills} kills, ${gone.map(({ from, to }) => `${from}-${to}`).join(' ')} missing\n`,
      )
    },
    (SECONDS + 90) * 1000,
  )
})
