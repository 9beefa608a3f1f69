/** What spool tests share: a clock that moves when told, a policy, records. */
import { LineBatch } from '../../src/core/batch'
import type { Clock, Log, SegmentPolicy } from '../../src/core/contract'
import type { SpoolRecords } from '../../src/core/flow/ports'

/** Time stands still until `advance`. */
export class TestClock implements Clock {
  private timers: { at: number; every: number | undefined; run: () => void }[] = []
  constructor(private time = Date.UTC(2024, 0, 2, 3, 4, 5, 678)) {}
  now(): number {
    return this.time
  }
  monotonic(): number {
    return this.now()
  }
  sleep(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = { at: this.time + ms, every: undefined, run: resolve }
      if (signal.aborted) {
        reject(signal.reason as Error)
        return
      }
      signal.addEventListener(
        'abort',
        () => {
          this.timers = this.timers.filter((one) => one !== timer)
          reject(signal.reason as Error)
        },
        { once: true },
      )
      this.timers.push(timer)
    })
  }
  every(ms: number, run: () => void): { stop(): void } {
    const timer = { at: this.time + ms, every: ms, run }
    this.timers.push(timer)
    return {
      stop: () => {
        this.timers = this.timers.filter((one) => one !== timer)
      },
    }
  }
  advance(ms: number): void {
    const end = this.time + ms
    for (;;) {
      const due = this.timers.filter((one) => one.at <= end).sort((a, b) => a.at - b.at)[0]
      if (due === undefined) break
      this.time = Math.max(this.time, due.at)
      if (due.every === undefined) this.timers = this.timers.filter((one) => one !== due)
      else due.at += due.every
      due.run()
    }
    this.time = end
  }
  get waiting(): number {
    return this.timers.length
  }
}

export const silent: Log = { debug: () => undefined, info: () => undefined, warn: () => undefined }

export function policy(over: Partial<SegmentPolicy> = {}): SegmentPolicy {
  return {
    sealBytes: 1000,
    sealAge: 0,
    framing: 'lines',
    compression: 'none',
    retryEvery: 1000,
    target: 's3://bucket/folder',
    key: ({ receivedAt, id }) => `${new Date(receivedAt).toISOString()}-${id}.ndjson`,
    period: (receivedAt) => new Date(receivedAt).toISOString().slice(0, 10),
    ...over,
  }
}

export function lines(texts: readonly string[], over: Partial<SpoolRecords> = {}): SpoolRecords {
  return {
    source: 'ws://feed',
    partition: { name: 'p0', epoch: 1 },
    batch: new LineBatch(
      texts.length === 0 ? [] : [Buffer.from(texts.map((text) => `${text}\n`).join(''))],
      texts.length,
    ),
    last: `after ${texts.at(-1) ?? ''}`,
    at: (index) => `at ${texts[index] ?? ''}`,
    receivedAt: Date.UTC(2024, 0, 2, 3, 4, 5, 678),
    ...over,
  }
}

export async function collect(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const all: Buffer[] = []
  // A chunk is valid until the next one is asked for.
  for await (const chunk of chunks) all.push(Buffer.from(chunk))
  return Buffer.concat(all)
}
