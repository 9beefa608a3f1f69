/**
 * How shards are read: by asking (poller.ts) or, with a consumer, by being pushed to (subscriber.ts); and what each may
 * be asked for, over openings.
 */
import type { SourceContext } from '../../core/contract'
import type { OptionsOf } from '../../options/define'
import type { Budget } from './budget'
import { Registration } from './consumer'
import type { KinesisOptions } from './options'
import { Pace } from './pace'
import { Poller } from './poller'
import { Subscriber, type Turn } from './subscriber'
import type { Beginning, Consumer, KinesisWire, ShardReader } from './wire'

/**
 * From so many throttles of a shard in a row on, its being behind is worth a line; and from so many subscriptions on
 * that somebody else took over.
 */
const MANY_THROTTLES = 10
const MANY_TAKEOVERS = 3

export interface ReaderParts {
  readonly ctx: SourceContext
  readonly wire: KinesisWire
  readonly options: OptionsOf<KinesisOptions>
  readonly budget: Budget
  /** As listed last. */
  isClosed(shard: string): boolean
}

export class Readers {
  private readonly paces = new Map<string, Pace>()
  private readonly turns = new Map<string, Turn>()
  private readonly registration = new Registration()
  private consumer: Consumer | undefined

  /** Resolves once shards can be read. */
  async open(
    options: OptionsOf<KinesisOptions>,
    wire: KinesisWire,
    ctx: SourceContext,
    signal: AbortSignal,
  ): Promise<void> {
    const consumer = options.consumerArn ?? options.consumerName
    this.consumer =
      consumer === undefined
        ? undefined
        : await this.registration.ready({ consumer, shared: options.leases !== undefined }, wire, ctx, signal)
  }

  /** The last close; what reads is at rest. Never throws. */
  leave(wire: KinesisWire | undefined, connect: (signal: AbortSignal) => Promise<KinesisWire>): Promise<void> {
    return this.registration.leave(wire, connect)
  }

  /** Records of a page from which on it may be that more are there. */
  get full(): number | undefined {
    return this.consumer === undefined ? undefined : Infinity
  }

  make({ ctx, wire, options, budget, isClosed }: ReaderParts, shard: string, from: Beginning): ShardReader {
    const { clock, log } = ctx
    const { consumer } = this
    const throttled = (times: number): void => {
      ctx.gauge(`throttled ${shard}`, times)
      if (times === 1) log.debug(`${shard}: its share is used up; it is asked at a slower pace`)
      if (times === MANY_THROTTLES)
        log.warn(`${shard} has been throttled ${times} times in a row: other readers use up its share`)
    }
    if (consumer === undefined)
      return new Poller({
        wire,
        shard,
        from,
        pace: of(this.paces, shard, () => new Pace(clock)),
        budget,
        limit: options.maxRecords,
        everyMs: options.pollEvery,
        clock,
        throttled,
      })
    return new Subscriber({
      wire,
      consumer,
      shard,
      from,
      turn: of(this.turns, shard, () => ({ at: 0 })),
      budget,
      clock,
      throttled,
      isClosed: () => isClosed(shard),
      takenOver: (times) => {
        log.debug(`${shard}: somebody else subscribes to it as the consumer ${consumer.name}`)
        if (times === MANY_TAKEOVERS)
          log.warn(
            `${shard} goes back and forth between this process and another one that reads as the consumer ${consumer.name} as well: give each flow a consumer-name= of its own, or all its processes the same leases=`,
          )
      },
    })
  }

  /** It is read to its end. */
  forget(shard: string): void {
    this.paces.delete(shard)
    this.turns.delete(shard)
  }
}

function of<T>(map: Map<string, T>, key: string, make: () => T): T {
  const found = map.get(key) ?? make()
  map.set(key, found)
  return found
}
