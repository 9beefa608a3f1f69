/**
 * Numbered records with keys, for tests in which brokers go away: fed to a writer as `KEY;{"n":…}` lines, and looked
 * through afterwards.
 */
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import type { FlowStatus } from '../../src/core/flow/status'
import { httpGet } from './http'
import type { Running } from './manifold'

const KEYS = 50
const PORTION = 500
export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

/** Into the stdin of a writer with `key-separator=;`, until it is told to end. */
export class KafkaFeed {
  /** Records so far. */
  fed = 0
  /** As much as is taken, not at a pace. */
  unthrottled = false
  private ended = false
  private readonly finished: Promise<void>

  constructor(private readonly writer: Running) {
    writer.child.stdin!.on('error', () => undefined)
    this.finished = this.run()
    this.finished.catch(() => undefined)
  }

  /** Resolves once all is with the writer; rejects where that has ended. */
  async end(): Promise<void> {
    this.ended = true
    await this.finished
  }

  private async run(): Promise<void> {
    const { writer } = this
    const stdin = writer.child.stdin!
    while (!this.ended) {
      const from = this.fed
      this.fed += PORTION
      const portion = Array.from(
        { length: PORTION },
        (_, index) => `k${(from + index) % KEYS};{"n":${from + index},"pad":"${'x'.repeat(150)}"}\n`,
      ).join('')
      if (!stdin.write(portion)) await Promise.race([once(stdin, 'drain'), writer.done])
      if (writer.child.exitCode !== null) throw new Error(`the writer ended: ${writer.stderr()}`)
      if (!this.unthrottled) await pause(20)
    }
    stdin.end()
  }
}

/** What `--metrics unix:SOCKET` serves; undefined where nobody answers yet. */
export async function statusAt(socket: string): Promise<FlowStatus | undefined> {
  const answer = await httpGet(socket, '/status')
  return answer?.code === 200 ? (JSON.parse(answer.body) as FlowStatus) : undefined
}

/** Resolves once each of the processes has delivered so many records more. */
export async function untilDelivering(
  running: ReadonlyMap<string, Running>,
  status: (name: string) => Promise<FlowStatus | undefined>,
  records = 2000,
): Promise<void> {
  const base = new Map<string, number>()
  for (const giveUpAt = Date.now() + 90_000; ; await pause(100)) {
    assertAlive(running)
    const now = await Promise.all(
      [...running.keys()].map(async (name) => {
        const count = (await status(name))?.sinks[0]?.delivered
        if (count === undefined) return false
        if (!base.has(name)) base.set(name, count)
        return count >= (base.get(name) ?? 0) + records
      }),
    )
    if (now.every(Boolean)) return
    if (Date.now() > giveUpAt)
      throw new Error(`nothing moves: ${[...running].map(([name, one]) => `${name}: ${one.stderr()}`).join('\n')}`)
  }
}

export function assertAlive(running: ReadonlyMap<string, Running>): void {
  for (const [name, one] of running) if (one.child.exitCode !== null) throw new Error(`${name} ended: ${one.stderr()}`)
}

export interface ScanResult {
  readonly count: number
  readonly distinct: number
  readonly outOfOrder: number
}
/**
 * Numbers, how often they are there, and whether each key's are in order. @param key of a line; another than the
 * number's own counts as out of order
 */
export async function scanRecords(lines: Readable, key: (line: string) => string): Promise<ScanResult> {
  const seen = new Set<number>()
  const last = new Map<string, number>()
  let count = 0
  let outOfOrder = 0
  for await (const line of createInterface({ input: lines })) {
    const n = Number(/\{\\?"n\\?":(\d+)/.exec(line)?.[1])
    const own = key(line)
    count++
    seen.add(n)
    if ((last.get(own) ?? -1) >= n || own !== `k${n % KEYS}`) outOfOrder++
    last.set(own, n)
  }
  return { count, distinct: seen.size, outOfOrder }
}
/** In lines of an envelope. */
export function envelopeKey(line: string): string {
  return /"key":"(k\d+)"/.exec(line)?.[1] ?? ''
}
