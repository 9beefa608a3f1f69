/** What both connections of an overlap bring is there twice without `dedupe`: the receipt counts it. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Receipt } from '../../src/core/receipt'
import { startFeed } from '../support/feed'
import { manifold } from '../support/manifold'

test.each([
  ['behind a spool', []],
  ['without one', ['--no-spool']],
])(
  'doubles of overlaps are possible duplicates in the receipt: %s',
  async (_, more) => {
    const folder = mkdtempSync(join(tmpdir(), 'manifold-doubles-'))
    const feed = await startFeed({ perSecond: 500 })
    try {
      const { code, stderr } = await manifold([
        '--from',
        feed.url,
        'reconnect-every=1200ms',
        'overlap=300ms',
        '--to',
        join(folder, 'out'),
        '--state',
        join(folder, 'state'),
        '--receipt',
        join(folder, 'receipt'),
        '--count',
        '2000',
        ...more,
      ])
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      const lines = readFileSync(join(folder, 'out'), 'utf8').trimEnd().split('\n')
      const doubles = lines.length - new Set(lines).size
      expect(doubles).toBeGreaterThan(100)
      const [sink] = (JSON.parse(readFileSync(join(folder, 'receipt'), 'utf8')) as Receipt).sinks
      // What the new one brought that the old one's closing handshake was quicker than is counted as well.
      expect(sink?.possibleDuplicates).toBeGreaterThanOrEqual(doubles)
      expect(sink?.possibleDuplicates).toBeLessThan(doubles + 200)
    } finally {
      await feed.stop()
      rmSync(folder, { recursive: true, force: true })
    }
  },
  30_000,
)
