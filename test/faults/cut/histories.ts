/** Flows that live on a disk whose power is cut: the line, when to cut, and what must have come through. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { startStub } from '../../../scripts/services/s3-stub'
import type { Running } from '../../support/manifold'
import { S3Proxy } from '../../support/s3-proxy'
import type { Chain } from '../shim/chain'
import { generated, lines, linesIn, linesOf, linesStored, type World } from '../shim/scenarios'

export interface CutWorld extends World {
  /**
   * Feeds stdin of the run just started, if the flow has one. @returns stops it, at a whole record, and closes stdin
   */
  feed?(running: Running): () => void
  /** How far the flow has got, 0 to 1, as the cut is drawn by it. */
  progress(): number
  /** The destination's own account, where the judge of chains has none. */
  faults?(chain: Chain): readonly string[]
}
export interface History {
  readonly name: string
  start(disk: string, folder: string): Promise<CutWorld>
}

const COUNT = 3000
const state = (disk: string): readonly string[] => ['--state', `${disk}/state`, '--give-up-after', '5s']

export const HISTORIES: readonly History[] = [
  {
    name: 'file to S3',
    async start(disk) {
      const store = await startStub()
      const proxy = await S3Proxy.start(store.endpoint)
      // Slow enough for several objects to be under way.
      proxy.fault = (operation) => (operation === 'PutObject' ? { kind: 'slow', ms: 15 } : undefined)
      await fetch(`${store.endpoint}/lake`, { method: 'PUT' })
      writeFileSync(join(disk, 'in.ndjson'), lines(1, COUNT), { flush: true })
      return {
        args: [
          '--from',
          `file:${disk}/in.ndjson`,
          '--to',
          's3://lake/t',
          `endpoint=${proxy.endpoint}`,
          'path-style',
          'region=us-east-1',
          'access-key-id=k',
          'secret-access-key={env:SECRET}',
          'commit-file-size=16KiB',
          'upload-every=200ms',
          ...state(disk),
        ],
        env: { SECRET: store.secretKey },
        well: [0],
        progress: () => proxy.count('PutObject') / ((COUNT * 101) / (16 * 1024)),
        outputs: async () => [await linesStored(store.endpoint)],
        expected: () => ({ records: linesOf(lines(1, COUNT)) }),
        async stop() {
          await proxy.stop()
          await store.stop()
        },
      }
    },
  },
  {
    name: 'stdin to file',
    start(disk) {
      const out = join(disk, 'out.ndjson')
      const given: number[] = []
      let next = 1
      return Promise.resolve({
        args: ['--from', '-', '--to', `file:${out}`],
        well: [0],
        feed(running) {
          const { stdin } = running.child
          const timer = setInterval(() => {
            stdin?.write(lines(next, next + 19))
            next += 20
          }, 5)
          stdin?.on('error', () => undefined)
          given.push(next)
          return () => {
            clearInterval(timer)
            stdin?.end()
          }
        },
        progress: () => linesIn(out).length / COUNT,
        outputs: () => Promise.resolve([linesIn(out)]),
        expected: () => ({ records: linesOf(lines(1, next - 1)), once: true }),
        faults: ({ runs }) => inRuns(runs.at(-1)?.outputs[0] ?? [], [...given, next]),
      })
    },
  },
  {
    name: 'generate through a spool to a file',
    start(disk) {
      const out = join(disk, 'out.ndjson')
      mkdirSync(join(disk, 'spool'))
      return Promise.resolve({
        args: [
          '--from',
          'generate:',
          `count=${COUNT}`,
          'size=100B',
          'rate=4000',
          '--to',
          `file:${out}`,
          '--spool',
          `${disk}/spool`,
          ...state(disk),
        ],
        well: [0],
        progress: () => linesIn(out).length / COUNT,
        outputs: () => Promise.resolve([linesIn(out)]),
        expected: () => ({ records: generated(COUNT) }),
      })
    },
  },
]

/**
 * Of each run's records a beginning is there, whole and in order; of the last run's all. @param firsts number of each
 * run's first record, and one past the last
 */
function inRuns(found: readonly string[], firsts: readonly number[]): readonly string[] {
  const numbers = found.map((text) =>
    linesOf(lines(Number(/^\{"n":(\d+)/.exec(text)?.[1] ?? 0), Number(/^\{"n":(\d+)/.exec(text)?.[1] ?? 0)))[0] === text
      ? Number(/\d+/.exec(text)?.[0])
      : NaN,
  )
  const faults = found
    .filter((_, index) => Number.isNaN(numbers[index]))
    .map((text) => `a line that nobody sent: ${text.slice(0, 80)}`)
  firsts.slice(0, -1).forEach((first, run) => {
    const end = firsts[run + 1] ?? first
    const own = numbers.filter((n) => n >= first && n < end)
    const last = run === firsts.length - 2
    if (own.some((n, index) => n !== first + index))
      faults.push(`run ${run + 1}: its records are not the first of what it was given`)
    if (last && own.length !== end - first) faults.push(`the last run: ${own.length} of ${end - first} records`)
  })
  return faults
}
