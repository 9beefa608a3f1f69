/**
 * Tests that records which both connections of an overlap receive are there twice without `dedupe`, and that the
 * receipt counts them.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Receipt } from '../../src/core/accounting/receipt'
import { startFeed } from '../support/feed'
import { manifold } from '../support/manifold'

test.each([
  ['behind a spool', []],
  ['without one', ['--no-spool']],
])(
  'duplicates of overlaps are possible duplicates in the receipt: %s',
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
      const duplicates = lines.length - new Set(lines).size
      expect(duplicates).toBeGreaterThan(100)
      const [sink] = (JSON.parse(readFileSync(join(folder, 'receipt'), 'utf8')) as Receipt).sinks
      // Records of the new connection that arrived after the old one had closed are counted as well.
      expect(sink?.possibleDuplicates).toBeGreaterThanOrEqual(duplicates)
      expect(sink?.possibleDuplicates).toBeLessThan(duplicates + 200)
    } finally {
      await feed.stop()
      rmSync(folder, { recursive: true, force: true })
    }
  },
  30_000,
)
