/** What is not asked for is not loaded: start-up stays that of Node. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { texts } from '../../src/cli/help'
import { manifold } from '../support/manifold'

/** Sources in the parts that a plain line loads: 175 when they were counted. */
const SOURCES = 190
/** Parts that it loads: 47 when they were counted. */
const PARTS = 60
let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-lazy-'))
  writeFileSync(join(folder, 'a.txt'), 'a\n')
})
afterAll(() => {
  rmSync(folder, { recursive: true })
})

interface Loaded {
  readonly packages: readonly string[]
  /** Of the command, in dist. */
  readonly parts: readonly string[]
  /** The sources in these parts, below src and without their ending. */
  readonly files: readonly string[]
}

async function loadedBy(args: readonly string[], expected = 0): Promise<Loaded> {
  const file = join(folder, 'loaded.json')
  const { code, stderr } = await manifold(args, {
    env: { NODE_OPTIONS: `--require=${JSON.stringify(join(__dirname, 'loaded.js'))}`, LOADED_TO: file, HOME: folder },
    input: 'a\n',
  })
  if (code !== expected) throw new Error(stderr)
  return JSON.parse(readFileSync(file, 'utf8')) as Loaded
}

test.each(['--version', 'help', '--help', 'help s3', 'help ws', 'endpoints', 'completions bash'])(
  'manifold %s needs no package, no declaration and few files',
  async (words) => {
    const { packages, files } = await loadedBy(words.split(' '))
    expect(packages).toEqual([])
    expect(files).toContain('cli/main')
    expect(files.filter((file) => /^(endpoints|options|plan)\//.test(file))).toEqual([])
    expect(files.length).toBeLessThanOrEqual(8)
  },
)

test('what the build made of help is what the declarations say', async () => {
  const built = jest.requireActual<{ rendered: unknown }>(join(__dirname, '../../dist/cli/rendered.js')).rendered
  const declared = await texts()
  expect(Object.keys(declared)).toEqual(
    expect.arrayContaining(['help', 'endpoints', 'help stdio', 'help s3', 'help kafka+tls', 'completions fish']),
  )
  expect(built).toEqual(declared)
  expect((await manifold(['help', 'S3:'])).stdout.toString()).toBe(declared['help s3'])
})

test.each([
  ['records from stdin to stdout', ['--from', '-', '--to', '-']],
  ['a record from a file to stdout', ['--from', 'file:{env:HOME}/a.txt', '--to', '-']],
  ['a record that is made and discarded', ['--from', 'generate:', 'count=1', '--to', 'discard:']],
])('%s: no package is loaded, and not much of the program', async (_, line) => {
  const { packages, parts, files } = await loadedBy(line)
  expect(packages).toEqual([])
  expect(files).toContain('core/flow/flow')
  expect(
    files.filter((file) => /^(cli\/(metrics|json-lines|help|commands)|aws\/handler|endpoints\/.*client)/.test(file)),
  ).toEqual([])
  expect(files.length).toBeLessThanOrEqual(SOURCES)
  expect(parts.length).toBeLessThanOrEqual(PARTS)
})

test('what makes JSON of log lines is loaded where they are to be JSON', async () => {
  const { packages } = await loadedBy(['--from', '-', '--to', '-', '--log-format', 'json'])
  expect(packages).toContain('pino')
})

test('Kafka loads none of the client package but the file that the build made of what is used: no schemas are compiled', async () => {
  // Nobody listens there: all that a connection needs was loaded before it failed.
  const { parts, packages } = await loadedBy(
    ['--from', 'kafka://127.0.0.1:1/topic', '--to', '-', '--give-up-after', 'first'],
    3,
  )
  expect(parts.filter((name) => name.startsWith('client-library-'))).toHaveLength(1)
  expect(
    packages.filter((name) => /^@platformatic|^ajv|^debug$|^fastq|^mnemonist|^avsc|^protobufjs|^@aws-sdk/.test(name)),
  ).toEqual([])
})
