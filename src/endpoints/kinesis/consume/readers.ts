/**
 * How shards are read: by asking (poller.ts) or, with a consumer, by being pushed to (subscriber.ts); and what each may
 * be asked for, over openings.
 */
import type { SourceContext } from '../../../core/contract'
import type { OptionsOf } from '../../../options/define'
import type { MemoryBudget } from './memory-budget'
import { ConsumerRegistration } from './consumer-registration'
import type { KinesisOptions } from '../options'
import { RateLimiter } from './rate-limiter'
import { Poller } from './poller'
import { Subscriber, type SubscribeSchedule } from './subscriber'
import type { ReadStart, Consumer, StreamClient, ShardReader } from '../stream-client'

/**
 * From so many throttles of a shard in a row on, its being behind is worth a line; and from so many subscriptions on
 * that somebody else took over.
 */
const THROTTLES_TO_WARN = 10
const TAKEOVERS_TO_WARN = 3

export interface ReaderContext {
  readonly ctx: SourceContext
  readonly client: StreamClient
  readonly options: OptionsOf<KinesisOptions>
  readonly budget: MemoryBudget
  /** As listed last. */
  isClosed(shard: string): boolean
}

export class ShardReaders {
  private readonly rateLimiters = new Map<string, RateLimiter>()
  private readonly schedules = new Map<string, SubscribeSchedule>()
  private readonly registration = new ConsumerRegistration()
  private consumer: Consumer | undefined

  /** Resolves once shards can be read. */
  async open(
    options: OptionsOf<KinesisOptions>,
    client: StreamClient,
    ctx: SourceContext,
    signal: AbortSignal,
  ): Promise<void> {
    const consumer = options.consumerArn ?? options.consumerName
    this.consumer =
      consumer === undefined
        ? undefined
        : await this.registration.ready({ consumer, shared: options.leases !== undefined }, client, ctx, signal)
  }

  /** The last close; what reads is at rest. Never throws. */
  release(client: StreamClient | undefined, connect: (signal: AbortSignal) => Promise<StreamClient>): Promise<void> {
    return this.registration.release(client, connect)
  }

  /** Records of a page from which on it may be that more are there. */
  get fullPage(): number | undefined {
    return this.consumer === undefined ? undefined : Infinity
  }

  make({ ctx, client, options, budget, isClosed }: ReaderContext, shard: string, from: ReadStart): ShardReader {
    const { clock, log } = ctx
    const { consumer } = this
    const throttled = (times: number): void => {
      ctx.gauge(`throttled ${shard}`, times)
      if (times === 1) log.debug(`${shard}: its share is used up; it is asked at a slower pace`)
      if (times === THROTTLES_TO_WARN)
        log.warn(`${shard} has been throttled ${times} times in a row: other readers use up its share`)
    }
    if (consumer === undefined)
      return new Poller({
        client,
        shard,
        from,
        rateLimiter: getOrCreate(this.rateLimiters, shard, () => new RateLimiter(clock)),
        budget,
        limit: options.maxRecords,
        everyMs: options.pollEvery,
        clock,
        throttled,
      })
    return new Subscriber({
      client,
      consumer,
      shard,
      from,
      schedule: getOrCreate(this.schedules, shard, () => ({ nextAt: 0 })),
      budget,
      clock,
      throttled,
      isClosed: () => isClosed(shard),
      takenOver: (times) => {
        log.debug(`${shard}: somebody else subscribes to it as the consumer ${consumer.name}`)
        if (times === TAKEOVERS_TO_WARN)
          log.warn(
            `${shard} goes back and forth between this process and another one that reads as the consumer ${consumer.name} as well: give each flow a consumer-name= of its own, or all its processes the same leases=`,
          )
      },
    })
  }

  /** It is read to its end. */
  forget(shard: string): void {
    this.rateLimiters.delete(shard)
    this.schedules.delete(shard)
  }
}

function getOrCreate<T>(map: Map<string, T>, key: string, make: () => T): T {
  const found = map.get(key) ?? make()
  map.set(key, found)
  return found
}
