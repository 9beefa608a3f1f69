/** The README's lines, run as they are pasted; only ports and the folder of their files are others. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { describeWith } from '../services/describe-with'
import { startFeed, type Feed } from '../support/feed'
import { cleanEnv, LAUNCHER } from '../support/manifold'
import { spawn } from 'node:child_process'

const README = readFileSync(join(__dirname, '../../README.md'), 'utf8')
const BLOCK = /<!-- one-liners:begin -->\s*```sh\n([\s\S]*?)```\s*<!-- one-liners:end -->/.exec(README)?.[1] ?? ''
const LINES = BLOCK.split('\n').filter((line) => line !== '' && !line.startsWith('#'))

/** What each is to do, in order: exit code and what it prints. */
const EXPECTED: readonly { readonly code: number; readonly prints: RegExp }[] = [
  { code: 0, prints: /^one\ntwo\n$/ },
  { code: 0, prints: /^(\{"n":\d+.*\n){3}$/ },
  { code: 0, prints: /^$/ },
  { code: 0, prints: /^$/ },
  { code: 0, prints: /^$/ },
  { code: 0, prints: /^\{"level":"info"\}\n$/ },
  { code: 0, prints: /^$/ },
  { code: 0, prints: /^\{"price":1,"host":".+","at":\d+(\.\d+)?\}\n$/ },
  { code: 5, prints: /^\{"price":1,"source":"feed"\}\n$/ },
  { code: 0, prints: /^no json\n$/ },
]

describeWith('s3', 'the lines of the README', () => {
  let server: S3Server
  let bucket: Bucket
  let feed: Feed
  let folder: string
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'manifold-readme-'))
    mkdirSync(join(folder, 'bin'))
    spawnSync('ln', ['-s', LAUNCHER, join(folder, 'bin', 'manifold')])
    server = await startS3()
    bucket = await Bucket.make(server, 'lake')
    feed = await startFeed({ perSecond: 5000 })
  })
  afterAll(async () => {
    await feed.stop()
    bucket.close()
    await server.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  test('there are ten', () => { expect(LINES).toHaveLength(10) })

  test.each(LINES.map((line, index) => [line, index] as const))('%s', async (line, index) => {
    const script = line.replaceAll('http://127.0.0.1:9000', server.endpoint).replaceAll('ws://127.0.0.1:8080/', feed.url).replaceAll('/tmp/manifold-', `${folder}/`)
    const child = spawn('bash', ['-c', script], {
      env: cleanEnv({ PATH: `${join(folder, 'bin')}:${process.env['PATH'] ?? ''}`, AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey, AWS_REGION: 'us-east-1', XDG_STATE_HOME: join(folder, 'state') }),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let out = ''
    let err = ''
    child.stdout.on('data', (text: Buffer) => { out += text.toString() })
    child.stderr.on('data', (text: Buffer) => { err += text.toString() })
    const code = await new Promise((resolve) => { child.once('close', resolve) })
    expect({ code, err: code === EXPECTED[index]?.code ? '' : err }).toEqual({ code: EXPECTED[index]?.code, err: '' })
    expect(out).toMatch(EXPECTED[index]?.prints ?? /^never$/)
  }, 60_000)
})
