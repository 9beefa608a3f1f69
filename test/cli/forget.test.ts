/** Tests a mistyped sink, whose records can go nowhere. The message names the destination and a way out that works. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeWith } from '../services/describe-with'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { manifold, type Finished } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-forget-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

/** Nobody listens here. */
async function nowhere(): Promise<string> {
  const server = createServer()
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => {
    server.close(resolve)
  })
  return `http://127.0.0.1:${port}`
}

describeWith('s3', 'a mistyped endpoint=', () => {
  let server: S3Server
  let bucket: Bucket
  beforeEach(async () => {
    server = await startS3()
    bucket = await Bucket.make(server)
  })
  afterEach(async () => {
    bucket.close()
    await server.stop()
  })

  test('a second bucket is added while records wait for the first: it gets what comes from then on', async () => {
    const env = { KEY: server.accessKey, SECRET: server.secretKey }
    const options = ['region=us-east-1', 'path-style', 'access-key-id={env:KEY}', 'secret-access-key={env:SECRET}']
    const one = ['--to', `s3://${bucket.name}/one`, `endpoint=${server.endpoint}`, ...options]
    const two = ['--to', `s3://${bucket.name}/two`, `endpoint=${server.endpoint}`, ...options]
    const rest = [
      '--name',
      'flow',
      '--give-up-after',
      '1s',
      '--receipt',
      join(folder, 'receipts'),
      '--state',
      join(folder, 'state'),
    ]
    await server.kill()
    expect((await manifold(['--from', 'generate:', 'count=5', ...one, ...rest], { env })).code).toBe(4)
    await server.restart()
    const both = await manifold(['--from', 'generate:', 'count=8', ...one, ...two, ...rest], { env })
    expect({ code: both.code, stderr: both.code === 0 ? '' : both.stderr }).toEqual({ code: 0, stderr: '' })
    const stored = async (prefix: string): Promise<readonly number[]> =>
      (await bucket.all(prefix))
        .flatMap(({ bytes }) =>
          bytes
            .toString()
            .trim()
            .split('\n')
            .map((text) => (JSON.parse(text) as { seq: number }).seq),
        )
        .sort((a, b) => a - b)
    expect([await stored('one/'), await stored('two/')]).toEqual([
      [1, 2, 3, 4, 5, 6, 7, 8],
      [6, 7, 8],
    ])
  }, 30_000)

  test.each([[false], [true]])(
    'is told by what it was, and forgotten with what it was to get; beside another sink: %j',
    async (beside) => {
      const env = { KEY: server.accessKey, SECRET: server.secretKey }
      const state = ['--state', join(folder, 'state')]
      const run = (endpoint: string, count: number): Promise<Finished> =>
        manifold(
          [
            '--from',
            'generate:',
            `count=${count}`,
            ...(beside ? ['--to', `file:${folder}/out`] : []),
            '--to',
            `s3://${bucket.name}/t`,
            `endpoint=${endpoint}`,
            'region=us-east-1',
            'path-style',
            'access-key-id={env:KEY}',
            'secret-access-key={env:SECRET}',
            '--name',
            'typo',
            '--give-up-after',
            '1s',
            '--receipt',
            join(folder, 'receipts'),
            ...state,
          ],
          { env },
        )
      const wrong = await nowhere()
      const typed = `s3://${bucket.name}/t endpoint=${wrong}`
      expect((await run(wrong, 5)).code).toBe(4)

      const refused = await run(server.endpoint, 8)
      expect({ code: refused.code, stderr: refused.stderr }).toEqual({
        code: 2,
        stderr: `manifold: the flow typo holds 5 records for ${typed}, and this line writes to s3://${bucket.name}/t endpoint=${server.endpoint}: name it as it was, or, where they can never get there, drop them with: manifold forget typo '${typed}' --force\n`,
      })
      const asked = await manifold(['forget', 'typo', typed, ...state])
      expect({ code: asked.code, stderr: asked.stderr }).toEqual({
        code: 2,
        stderr: expect.stringMatching(/^manifold: 5 records for s3:.* would be lost\nmanifold: .*--force\n$/) as string,
      })
      const forced = await manifold(['forget', 'typo', typed, '--force', ...state])
      expect({ code: forced.code, stderr: forced.stderr }).toEqual({ code: 0, stderr: '' })

      const right = await run(server.endpoint, 8)
      expect({ code: right.code, stderr: right.code === 0 ? '' : right.stderr }).toEqual({ code: 0, stderr: '' })
      const stored = (await bucket.all()).flatMap(({ bytes }) =>
        bytes
          .toString()
          .trim()
          .split('\n')
          .map((text) => (JSON.parse(text) as { seq: number }).seq),
      )
      expect(stored).toEqual([6, 7, 8])
      if (beside) expect(readFileSync(join(folder, 'out'), 'utf8').trim().split('\n')).toHaveLength(8)
      const receipts = readFileSync(join(folder, 'receipts'), 'utf8')
        .trim()
        .split('\n')
        .map((text) => JSON.parse(text) as { sinks: { label: string; spooled: number; delivered: number }[] })
      expect(receipts.at(-1)?.sinks.find(({ label }) => label.startsWith('s3:'))).toMatchObject({
        delivered: 3,
        spooled: 0,
      })
    },
    30_000,
  )
})
