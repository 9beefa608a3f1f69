/**
 * Tests that need a real server. Where it cannot be had they are skipped, loudly and counted, with the reason in their title; with
 * MANIFOLD_REQUIRE_SERVICES=1 they fail instead. What is there: scripts/services.
 */
import { available } from '../../scripts/services/s3'

export type Need = 's3' | 'versitygw' | 'minio'

function whyNot(need: Need): string | undefined {
  const kinds = available()
  if (need === 's3' ? kinds.length > 0 || process.env['MANIFOLD_TEST_S3'] !== undefined : kinds.includes(need)) return undefined
  return `no ${need === 's3' ? 'S3 server' : need} here: node scripts/services.js install --need s3`
}

export function describeWith(need: Need, title: string, body: () => void): void {
  const why = whyNot(need)
  if (why === undefined) { describe(title, body); return }
  if (process.env['MANIFOLD_REQUIRE_SERVICES'] === '1') {
    describe(title, () => { it('has the server it needs', () => { throw new Error(why) }) })
    return
  }
  process.stderr.write(`SKIPPED: ${title}: ${why}\n`)
  describe.skip(`${title} (skipped: ${why})`, body)
}
