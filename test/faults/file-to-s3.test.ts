/** Files to ship tonight: all of them, once, also when the process is killed again and again; in bounded memory. */
import { createHash } from 'node:crypto'
import { createWriteStream, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { describeWith } from '../services/describe-with'
import { record } from '../support/feed'
import { start, type Running } from '../support/manifold'
import { plain } from '../support/oracle'

/** MiB of uncompressed records; MANIFOLD_LONG makes it the two gigabytes, killed ten times. */
const LONG = process.env['MANIFOLD_LONG'] === '1'
const MIB = LONG ? 2048 : 256
const KILLS = LONG ? 10 : 5
const FILES = 4
const MEMORY_KIB = 200 * 1024

/** Numbered records over several files, the last without a final newline. */
async function inputs(folder: string): Promise<{ readonly records: number; readonly sha256: string }> {
  const perFile = Math.floor((MIB * 1024 * 1024) / FILES / 201)
  const hash = createHash('sha256')
  let n = 0
  for (let file = 0; file < FILES; file++) {
    const last = (file + 1) * perFile
    function* blocks(): Generator<Buffer> {
      while (n < last) {
        let text = ''
        for (let i = 0; i < 4000 && n < last; i++) text += `${record(++n)}\n`
        hash.update(text)
        yield Buffer.from(n === perFile * FILES ? text.slice(0, -1) : text)
      }
    }
    await pipeline(
      Readable.from(blocks()),
      createGzip({ level: 1 }),
      createWriteStream(join(folder, `part-${file}.ndjson.gz`)),
    )
  }
  return { records: n, sha256: hash.digest('hex') }
}

/** Peak of resident memory in KiB, as far as it was seen; 0 where /proc is not there. */
function watchMemory(running: Running): () => number {
  let peak = 0
  const look = (): void => {
    try {
      peak = Math.max(
        peak,
        Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${running.pid}/status`, 'utf8'))?.[1] ?? 0),
      )
    } catch {
      /* gone */
    }
  }
  const timer = setInterval(look, 100)
  void running.done.then(() => {
    clearInterval(timer)
  })
  return () => peak
}

describeWith('s3', 'files to s3', () => {
  let server: S3Server
  let bucket: Bucket
  let folder: string
  let input: Awaited<ReturnType<typeof inputs>>

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'manifold-file-s3-'))
    server = await startS3()
    input = await inputs(folder)
  }, 300_000)
  afterAll(async () => {
    await server.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  beforeEach(async () => {
    bucket = await Bucket.make(server)
  })
  afterEach(() => {
    bucket.close()
  })

  const run = (state: string): Running =>
    start(
      [
        '--from',
        `file:${folder}/*.ndjson.gz`,
        '--to',
        `s3://${bucket.name}/lake`,
        'region=us-east-1',
        `endpoint=${server.endpoint}`,
        'path-style',
        'access-key-id={env:KEY}',
        'secret-access-key={env:SECRET}',
        'commit-file-size=16MiB',
        '--state',
        join(folder, state),
        '--receipt',
        join(folder, `${state}.receipts`),
      ],
      { env: { KEY: server.accessKey, SECRET: server.secretKey } },
    )

  async function stored(): Promise<{ readonly sha256: string; readonly records: number }> {
    const hash = createHash('sha256')
    let records = 0
    for (const key of await bucket.keys()) {
      const bytes = plain(await bucket.get(key))
      hash.update(bytes)
      for (let at = bytes.indexOf(10); at !== -1; at = bytes.indexOf(10, at + 1)) records++
    }
    return { sha256: hash.digest('hex'), records }
  }

  test(`${MIB} MiB in ${FILES} gzip files: exit 0, nothing printed, the objects are the input but for a final newline, in less than 200 MiB of memory; a rerun takes nothing`, async () => {
    const running = run('straight')
    const peak = watchMemory(running)
    const { code, stderr, ms } = await running.done
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(await stored()).toEqual(input)
    process.stderr.write(
      `files to s3: ${MIB} MiB in ${(ms / 1000).toFixed(1)} s, peak ${(peak() / 1024).toFixed(0)} MiB\n`,
    )
    expect(peak()).toBeLessThan(MEMORY_KIB)
    const before = await bucket.keys()
    const again = await run('straight').done
    expect({ code: again.code, stderr: again.stderr }).toEqual({ code: 0, stderr: '' })
    expect(await bucket.keys()).toEqual(before)
  }, 600_000)

  test(`killed ${KILLS} times and run again: nothing missing, nothing twice`, async () => {
    let kills = 0
    let finished
    for (;;) {
      const running = run('killed')
      const peak = watchMemory(running)
      // Early and late, so that opening, reading, sealing and uploading are all cut; all of it together shorter than
      // the whole takes.
      const timer =
        kills < KILLS
          ? setTimeout(
              () => {
                running.kill('SIGKILL')
              },
              250 + Math.random() * MIB * (LONG ? 0.4 : 0.8),
            )
          : undefined
      finished = await running.done
      clearTimeout(timer)
      expect(peak()).toBeLessThan(MEMORY_KIB)
      if (finished.signal !== 'SIGKILL') break
      kills++
    }
    expect({ kills, code: finished.code, stderr: finished.stderr }).toEqual({ kills: KILLS, code: 0, stderr: '' })
    expect(await stored()).toEqual(input)
    const receipts = readFileSync(join(folder, 'killed.receipts'), 'utf8')
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text) as Receipt)
    for (const receipt of receipts)
      for (const sink of receipt.sinks)
        expect({ run: receipt.run, off: imbalance(sink) }).toEqual({ run: receipt.run, off: 0 })
    expect(receipts.reduce((sum, { sinks }) => sum + (sinks[0]?.delivered ?? 0), 0)).toBe(input.records)
    process.stderr.write(`files to s3: killed ${kills} times\n`)
  }, 900_000)
})
