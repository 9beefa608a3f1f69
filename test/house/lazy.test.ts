/** What is not asked for is not loaded: start-up stays that of Node. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { manifold } from '../support/manifold'

let folder: string
beforeAll(() => { folder = mkdtempSync(join(tmpdir(), 'manifold-lazy-')) })
afterAll(() => { rmSync(folder, { recursive: true }) })

async function loadedBy(args: readonly string[], expected = 0): Promise<readonly string[]> {
  const file = join(folder, 'loaded.json')
  const { code, stderr } = await manifold(args, { env: { NODE_OPTIONS: `--require=${JSON.stringify(join(__dirname, 'loaded.js'))}`, LOADED_TO: file, HOME: folder }, input: 'a\n' })
  if (code !== expected) throw new Error(stderr)
  return JSON.parse(readFileSync(file, 'utf8')) as string[]
}

test('the version needs no package', async () => { expect(await loadedBy(['--version'])).toEqual([]) })
test.each(['help', '--help', 'help s3', 'help ws', 'endpoints'])('manifold %s needs none either', async (words) => { expect(await loadedBy(words.split(' '))).toEqual([]) })
test('records from stdin to stdout load what parses the line and what logs', async () => {
  const packages = await loadedBy(['--from', '-', '--to', '-'])
  expect(packages).toContain('pino')
  expect(packages.filter((name) => /^@aws-sdk|^@smithy|^ws$|^prom-client|^pino-pretty|proxy/.test(name))).toEqual([])
})

test('Kafka loads none of the client package but the file that the build made of what is used: no schemas are compiled', async () => {
  // Nobody listens there: all that a connection needs was loaded before it failed.
  const packages = await loadedBy(['--from', 'kafka://127.0.0.1:1/topic', '--to', '-', '--give-up-after', 'first'], 3)
  expect(packages).toContain('pino')
  expect(packages.filter((name) => /^@platformatic|^ajv|^debug$|^fastq|^mnemonist|^avsc|^protobufjs|^@aws-sdk/.test(name))).toEqual([])
})
