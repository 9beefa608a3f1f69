/**
 * Six short flows whose every call is spoiled: the line, what feeds it, and what its destination holds afterwards.
 * Records are those of test/support/feed.ts: numbered, so that what is missing, twice or altered shows.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { constants, gunzipSync } from 'node:zlib'
import { startStub } from '../../../scripts/services/s3-stub'
import { RecordGenerator } from '../../../src/endpoints/generate/record-generator'
import { record } from '../../support/feed'
import { startTimedFeed } from './timed-feed'

const SIZE = 100
export const line = (n: number): string => record(n, SIZE)
export const lines = (first: number, last: number): string =>
  Array.from({ length: last - first + 1 }, (_, i) => `${line(first + i)}\n`).join('')

/** What must be in a destination when the flow has ended well. */
export interface Expected {
  /** Every one of these, in the order in which they are to be delivered. */
  readonly records: readonly string[]
  /** The source cannot send again: after a run that failed a tail may be missing. */
  readonly once?: boolean
  /**
   * No spool: what a run that failed has delivered in its last second comes again, as README says, and nobody can count
   * it.
   */
  readonly lastSecond?: boolean
  /**
   * A feed: when each record was sent. Missing ones have to lie in a gap of the receipts, unless they were sent after a
   * run had its `count`.
   */
  readonly feed?: { readonly sent: (index: number) => number; readonly count: number }
}
export interface World {
  readonly args: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  /** stdin of the run, from 0. */
  input?(run: number): string | undefined
  /** The run to be spoiled follows one that was killed at its first call on a path with this in it. */
  readonly after?: string
  /** Exit codes of a run that ends well; 5 where records are rejected, or were lost and named. */
  readonly well: readonly number[]
  /** Per sink of the line, in its order: the lines it holds. A part of a line is given as it is. */
  outputs(): Promise<readonly (readonly string[])[]>
  expected(): Expected
  /** Records of the dead-letter file; absent where the flow has none. */
  dead?(): readonly string[]
  stop?(): Promise<void>
}
export interface Scenario {
  readonly name: string
  start(root: string): Promise<World>
}

const state = (root: string): readonly string[] => ['--state', `${root}/state`, '--give-up-after', '2s']

export function linesOf(text: string): readonly string[] {
  const found = text.split('\n')
  if (found.at(-1) === '') found.pop()
  return found
}
export function linesIn(file: string, decode: (bytes: Buffer) => Buffer = (bytes) => bytes): readonly string[] {
  let bytes: Buffer
  try {
    bytes = readFileSync(file)
  } catch {
    return []
  }
  return linesOf(decode(bytes).toString('latin1'))
}

/** A block of the generator ends where its numbers get longer. */
export function generated(count: number): readonly string[] {
  const forge = new RecordGenerator(SIZE, 1)
  const records: string[] = []
  while (records.length < count)
    records.push(...linesOf(forge.block(records.length + 1, count - records.length, 1 << 20).bytes.toString('latin1')))
  return records
}

/** A member that was cut off while it was written gives what is whole of it, and a line that says so. */
function unzipped(bytes: Buffer): Buffer {
  try {
    return bytes.length === 0 ? bytes : gunzipSync(bytes)
  } catch (error) {
    return Buffer.concat([
      gunzipSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH }),
      Buffer.from(`\n${(error as Error).message}\n`),
    ])
  }
}

/** What the bucket `lake` of a stub holds, in the order of its keys. */
export async function linesStored(endpoint: string): Promise<readonly string[]> {
  const listing = await (await fetch(`${endpoint}/lake?list-type=2`)).text()
  const keys = [...listing.matchAll(/<Key>([^<]*)<\/Key>/g)].map(([, key]) => key ?? '')
  const bodies = await Promise.all(keys.map(async (key) => (await fetch(`${endpoint}/lake/${key}`)).text()))
  return bodies.flatMap(linesOf)
}

async function s3World(root: string, more: Partial<World>): Promise<World> {
  const store = await startStub()
  await fetch(`${store.endpoint}/lake`, { method: 'PUT' })
  writeFileSync(join(root, 'in.ndjson'), lines(1, 300))
  return {
    args: [
      '--from',
      `file:${root}/in.ndjson`,
      '--to',
      's3://lake/t',
      `endpoint=${store.endpoint}`,
      'path-style',
      'region=us-east-1',
      'access-key-id=k',
      'secret-access-key={env:SECRET}',
      'commit-file-size=16KiB',
      'upload-every=200ms',
      ...state(root),
    ],
    env: { SECRET: store.secretKey },
    well: [0],
    outputs: async () => [await linesStored(store.endpoint)],
    expected: () => ({ records: linesOf(lines(1, 300)) }),
    stop: () => store.stop(),
    ...more,
  }
}

export const SCENARIOS: readonly Scenario[] = [
  {
    name: 'stdin-spool-file',
    start: (root) =>
      Promise.resolve({
        args: ['--from', '-', '--to', `file:${root}/out.ndjson`, '--spool', `${root}/spool`, ...state(root)],
        input: (run) => (run === 0 ? lines(1, 200) : ''),
        well: [0],
        outputs: () => Promise.resolve([linesIn(join(root, 'out.ndjson'))]),
        expected: () => ({ records: linesOf(lines(1, 200)), once: true }),
      }),
  },
  { name: 'file-s3', start: (root) => s3World(root, {}) },
  {
    name: 'generate-two-files',
    start: (root) =>
      Promise.resolve({
        args: [
          '--from',
          'generate:',
          'count=200',
          'size=100B',
          '--to',
          `file:${root}/a.ndjson`,
          '--to',
          `file:${root}/b.ndjson`,
          ...state(root),
        ],
        well: [0],
        outputs: () => Promise.resolve(['a', 'b'].map((name) => linesIn(join(root, `${name}.ndjson`)))),
        expected: () => ({ records: generated(200) }),
      }),
  },
  {
    name: 'file-gzip-dead',
    start: (root) => {
      // Every 20th record is no JSON, so nothing can be appended to it.
      const all = Array.from({ length: 200 }, (_, i) => ((i + 1) % 20 === 0 ? `no json ${i + 1}` : line(i + 1)))
      writeFileSync(join(root, 'in.ndjson'), `${all.join('\n')}\n`)
      const dead = (): readonly string[] =>
        linesIn(join(root, 'dead.ndjson')).map((text) => {
          try {
            return String((JSON.parse(text) as { value?: string }).value)
          } catch {
            return `torn: ${text}`
          }
        })
      return Promise.resolve({
        args: [
          '--from',
          `file:${root}/in.ndjson`,
          '--append',
          'from=test',
          '--to',
          `file:${root}/out.ndjson.gz`,
          '--dead-letter',
          `file:${root}/dead.ndjson`,
          ...state(root),
        ],
        well: [0, 5],
        outputs: () => Promise.resolve([linesIn(join(root, 'out.ndjson.gz'), unzipped)]),
        expected: () => ({
          records: all.filter((text) => text.startsWith('{')).map((text) => `${text.slice(0, -1)},"from":"test"}`),
          lastSecond: true,
        }),
        dead,
      })
    },
  },
  {
    name: 'ws-spool-file',
    async start(root) {
      const feed = await startTimedFeed(line)
      return {
        args: ['--from', feed.url, '--to', `file:${root}/out.ndjson`, '--count', '100', ...state(root)],
        // After a gap a bounded run is incomplete, and says so.
        well: [0, 5],
        outputs: () => Promise.resolve([linesIn(join(root, 'out.ndjson'))]),
        expected: () => ({
          records: Array.from({ length: feed.sent.length }, (_, i) => line(i + 1)),
          feed: { sent: (index) => feed.sent[index] ?? 0, count: 100 },
        }),
        stop: () => feed.stop(),
      }
    },
  },
  // Killed as it first spoke to the store: a spool full of sealed segments is what the next start finds.
  { name: 'recover-file-s3', start: (root) => s3World(root, { after: 'socket' }) },
]
