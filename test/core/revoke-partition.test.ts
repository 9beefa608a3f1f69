/**
 * A partition is given up while others go on being read: what was read of it is delivered and committed first, and
 * nothing else is waited for.
 */
import { LineBatch } from '../../src/core/batch'
import {
  CONFIRMED,
  type Delivery,
  type Partition,
  type Position,
  type Source,
  type SourceContext,
} from '../../src/core/contract'
import { Disconnected } from '../../src/core/errors'
import { ScriptedSink, flowOf, quiet } from './support'

/** Endless records of two partitions in turn; `a` is given up after some. */
class TwoPartitions implements Source {
  readonly commits = new Map<string, Position>()
  readonly count = { a: 0, b: 0 }
  revokedAfterMs: number | undefined
  committedOfA: Position | undefined
  private ctx: SourceContext | undefined
  private turn = 0

  async open(ctx: SourceContext): Promise<void> {
    this.ctx = ctx
  }
  async read(signal: AbortSignal): Promise<Delivery | null> {
    await new Promise((resolve) => {
      setTimeout(resolve, 1)
    })
    signal.throwIfAborted()
    if (this.turn === 50) this.giveUp()
    const name = this.turn++ % 2 === 0 && this.turn <= 50 ? 'a' : 'b'
    const n = ++this.count[name]
    return {
      batch: new LineBatch([Buffer.from(`${name} ${n}\n`)], 1),
      partition: { name, epoch: 1 },
      last: String(n),
      at: () => String(n),
    }
  }
  async commit({ name }: Partition, upTo: Position): Promise<void> {
    this.commits.set(name, upTo)
  }
  async close(): Promise<void> {
    /* nothing to release */
  }

  private giveUp(): void {
    const begun = performance.now()
    void this.ctx?.revoke({ name: 'a', epoch: 1 }, 5000).then(() => {
      this.revokedAfterMs = performance.now() - begun
      this.committedOfA = this.commits.get('a')
    })
  }
}

test('a partition is given up as soon as its own records are committed, however many of others are under way', async () => {
  const source = new TwoPartitions()
  // Something is always under way.
  const sink = new ScriptedSink(
    async () => {
      await new Promise((resolve) => {
        setTimeout(resolve, 30)
      })
      return CONFIRMED
    },
    { inFlight: 4, ordered: false },
  )
  const flow = flowOf(source, sink, { bounded: false })
  const done = flow.run()
  while (source.revokedAfterMs === undefined)
    await new Promise((resolve) => {
      setTimeout(resolve, 10)
    })
  flow.stop()
  await done
  expect(source.committedOfA).toBe(String(source.count.a))
  expect(source.revokedAfterMs).toBeLessThan(2000)
}, 20_000)

/** One delivery whose dead letter takes its time; the partition is given up at once. */
class OneDelivery implements Source {
  readonly commits: Position[] = []
  committedBefore: readonly Position[] | undefined
  private ctx: SourceContext | undefined
  private reads = 0

  async open(ctx: SourceContext): Promise<void> {
    this.ctx = ctx
  }
  async read(signal: AbortSignal): Promise<Delivery | null> {
    if (this.reads++ > 0)
      return new Promise((_, reject) => {
        signal.addEventListener(
          'abort',
          () => {
            reject(signal.reason as Error)
          },
          { once: true },
        )
      })
    void this.ctx?.revoke({ name: 'a', epoch: 1 }, 5000).then(() => {
      this.committedBefore = [...this.commits]
    })
    return {
      batch: new LineBatch([Buffer.from('1\n')], 1),
      partition: { name: 'a', epoch: 1 },
      last: '2',
      at: () => '1',
      invalid: [{ why: 'too large', position: '2', head: Buffer.from('2'), length: 1, sha256: '' }],
    }
  }
  async commit(_: Partition, upTo: Position): Promise<void> {
    this.commits.push(upTo)
  }
  async close(): Promise<void> {
    /* nothing to release */
  }
}

test('what a source has just returned, and what waits for its dead letter, is delivered and committed before the partition is given up', async () => {
  const source = new OneDelivery()
  const flow = flowOf(source, new ScriptedSink(), {
    bounded: false,
    deadLetters: {
      policy: 'keep',
      put: () =>
        new Promise((resolve) => {
          setTimeout(resolve, 200)
        }),
    },
  })
  const done = flow.run()
  while (source.committedBefore === undefined)
    await new Promise((resolve) => {
      setTimeout(resolve, 10)
    })
  flow.stop()
  await done
  expect(source.committedBefore).toEqual(['2'])
}, 20_000)

/**
 * Is asked to give `a` up, fails meanwhile, and has it again when it is open again, under the same epoch: nobody else
 * has had it.
 */
class HasItAgain implements Source {
  readonly commits: Position[] = []
  revoked: 'asked' | 'over' | undefined
  private opened = 0
  private n = 0

  constructor(private readonly proceed: Promise<void>) {}
  async open(ctx: SourceContext): Promise<void> {
    if (++this.opened === 1) this.ctx = ctx
  }
  private ctx: SourceContext | undefined
  async read(signal: AbortSignal): Promise<Delivery | null> {
    if (this.n === 1 && this.opened === 1) {
      this.revoked = 'asked'
      this.ctx
        ?.revoke({ name: 'a', epoch: 1 }, 300)
        .finally(() => {
          this.revoked = 'over'
        })
        .catch(() => undefined)
      throw new Disconnected('reset')
    }
    if (this.n === 2) await this.proceed
    if (this.n === 3)
      return new Promise((_, reject) => {
        signal.addEventListener(
          'abort',
          () => {
            reject(signal.reason as Error)
          },
          { once: true },
        )
      })
    const n = String(++this.n)
    return {
      batch: new LineBatch([Buffer.from(`${n}\n`)], 1),
      partition: { name: 'a', epoch: 1 },
      last: n,
      at: () => n,
    }
  }
  async commit(_: Partition, upTo: Position): Promise<void> {
    this.commits.push(upTo)
  }
  async close(): Promise<void> {
    /* nothing to release */
  }
}

test('giving up ends with the opening that asked for it: what the source has again when it is open again is committed', async () => {
  const later = Promise.withResolvers<undefined>()
  const source = new HasItAgain(later.promise)
  // The first record outlasts what the source had to give it up.
  const held = Promise.withResolvers<undefined>()
  const warnings: string[] = []
  const sink = new ScriptedSink(
    async (n) => {
      if (n === 1) await held.promise
      return CONFIRMED
    },
    { maxEntries: 1 },
  )
  const flow = flowOf(source, sink, {
    bounded: false,
    log: {
      ...quiet,
      warn: (text) => {
        warnings.push(text)
      },
    },
  })
  const done = flow.run()
  while (source.revoked !== 'over')
    await new Promise((resolve) => {
      setTimeout(resolve, 5)
    })
  held.resolve(undefined)
  later.resolve(undefined)
  while (sink.confirmed.length < 3)
    await new Promise((resolve) => {
      setTimeout(resolve, 5)
    })
  flow.stop()
  await done
  expect(source.commits.at(-1)).toBe('3')
  expect(warnings.filter((text) => text.includes('given up'))).toEqual([])
}, 20_000)
