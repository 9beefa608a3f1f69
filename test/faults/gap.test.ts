/**
 * What a feed could not give is told wherever somebody may look: log, receipt, `ls`, the object that follows; and no
 * secret with it.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Receipt } from '../../src/core/accounting/receipt'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { describeWith } from '../services/describe-with'
import { startFeed, type Feed } from '../support/feed'
import { manifold, start } from '../support/manifold'

describeWith('s3', 'a feed that breaks off', () => {
  let server: S3Server
  let bucket: Bucket
  let feed: Feed
  let folder: string
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'manifold-gap-'))
    server = await startS3()
    bucket = await Bucket.make(server)
    feed = await startFeed({ perSecond: 500 })
  })
  afterEach(async () => {
    await feed.stop()
    bucket.close()
    await server.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  test('leaves a gap in log, receipt, ls and metadata, and a bounded run ends with 5; no secret is in any of them', async () => {
    const canaries = ['canary-of-the-query', 'canary-of-the-header', 'canary-of-the-append', server.secretKey]
    const running = start(
      [
        '--from',
        `${feed.url}?token=${canaries[0]}`,
        'header.APIKEY={env:HEADER}',
        '--to',
        `s3://${bucket.name}/trades`,
        'region=us-east-1',
        `endpoint=${server.endpoint}`,
        'path-style',
        'access-key-id={env:KEY}',
        'secret-access-key={env:SECRET}',
        '--append',
        'secret={env:APPENDED}',
        '--name',
        'gap',
        '--state',
        join(folder, 'state'),
        '--receipt',
        join(folder, 'receipt'),
        '--count',
        '1500',
        '--log-level',
        'debug',
      ],
      { env: { HEADER: canaries[1], APPENDED: canaries[2], KEY: server.accessKey, SECRET: server.secretKey } },
    )
    while (feed.connections.length === 0 || (feed.connections[0]?.last ?? 0) < (feed.connections[0]?.first ?? 0) + 500)
      await new Promise((resolve) => {
        setTimeout(resolve, 10)
      })
    const argv = readFileSync(`/proc/${running.pid}/cmdline`, 'utf8')
    feed.cut()
    const { code, stderr } = await running.done
    expect(feed.connections.length).toBe(2)
    expect(code).toBe(5)

    expect(stderr).toMatch(/a gap from \d{4}-\S+Z to \d{4}-\S+Z \(\d+\.\d{3} s\): .*without a closing handshake/)
    const receipt = JSON.parse(readFileSync(join(folder, 'receipt'), 'utf8')) as Receipt
    expect(receipt).toMatchObject({
      gapCount: 1,
      gaps: [
        {
          partition: 'feed',
          why: expect.stringContaining('without a closing handshake') as string,
          seconds: expect.any(Number) as number,
        },
      ],
    })
    const [gap] = receipt.gaps
    const objects = await bucket.all()
    expect(Object.values(objects[0]?.metadata ?? {}).join()).toContain(gap?.from)
    const listed = await manifold(['ls', '--state', join(folder, 'state')])
    expect(listed.stdout.toString()).toContain(`last gap: ${gap?.from} to ${gap?.to}`)
    // The query is the server's and stands on the command line as typed; it is told nowhere else.
    for (const [place, text] of [
      ['argv', argv.replace(canaries[0] ?? '', '')],
      ['log', stderr],
      ['receipt', JSON.stringify(receipt)],
      ['ls', listed.stdout.toString()],
      ['metadata', JSON.stringify(objects.map(({ metadata }) => metadata))],
    ] as const) {
      for (const canary of canaries)
        expect({ place, found: text.includes(canary) ? canary : '' }).toEqual({ place, found: '' })
    }
  }, 60_000)
})
