/**
 * Looks for new shards: every so often, and when a shard has ended. What a page tells of children is sooner, but not
 * every service tells. A shard that has ended has children; where none is listed yet it is looked for again, soon, for
 * a while.
 */
import type { Clock, Log } from '../../../core/contract'
import { Disconnected, lineOf, Throttled } from '../../../core/errors'
import type { Shards } from './shards'
import type { StreamClient } from '../stream-client'

/** Between two looks for the children of a shard that has ended, and how long they are waited for, milliseconds. */
const CHILDREN_EVERY_MS = 1000
const CHILDREN_WITHIN_MS = 30_000

export interface DiscoveryContext {
  readonly client: StreamClient
  readonly shards: Shards
  readonly clock: Clock
  readonly log: Log
  readonly signal: AbortSignal
  readonly everyMs: number
  /** The shards were listed anew. */
  listed(): void
  failed(error: unknown): void
}

export class ShardDiscovery {
  /** Shards that have ended and whose children are not known: since when. */
  private readonly childless = new Map<string, number>()
  private running: Promise<void> | undefined
  private timer: { stop(): void } | undefined

  constructor(private readonly context: DiscoveryContext) {}

  start(): void {
    this.timer = this.context.clock.every(this.context.everyMs, () => {
      this.discover()
    })
  }

  /** Children of shards that have ended are still to be found. */
  get isAwaitingChildren(): boolean {
    return this.childless.size > 0
  }

  ended(shard: string): void {
    if (this.context.shards.hasChildren(shard)) return
    this.childless.set(shard, this.context.clock.monotonic())
    this.discover()
  }

  discover(): void {
    // A failure in what follows is told there; this settles whatever happens.
    this.running ??= this.discoverUntilFound()
      .catch((error: unknown) => {
        if (!this.context.signal.aborted) this.context.failed(error)
      })
      .finally(() => {
        this.running = undefined
      })
  }

  /** After the signal has aborted: all is at rest. */
  async stop(): Promise<void> {
    this.timer?.stop()
    await this.running
  }

  private async discoverUntilFound(): Promise<void> {
    const { clock, signal, shards, log } = this.context
    for (;;) {
      await this.listShards()
      for (const [shard, since] of this.childless) {
        if (shards.hasChildren(shard)) this.childless.delete(shard)
        else if (clock.monotonic() - since > CHILDREN_WITHIN_MS) {
          this.childless.delete(shard)
          log.warn(`${shard} has ended, and no shard is listed that goes on where it did`)
        }
      }
      this.context.listed()
      if (!this.isAwaitingChildren) return
      await clock.sleep(CHILDREN_EVERY_MS, signal)
    }
  }

  private async listShards(): Promise<void> {
    const { client, shards, signal, log } = this.context
    try {
      const { createdAt } = await client.describe(signal)
      if (Math.floor(createdAt) !== Math.floor(client.stream.createdAt))
        throw new Disconnected(`stream ${client.stream.name} was deleted and made anew`)
      shards.list(await client.shards(signal))
    } catch (error) {
      // Listing is not reading: the next look is soon enough.
      if (!(error instanceof Throttled)) throw error
      log.debug(`the shards could not be listed: ${lineOf(error)}`)
    }
  }
}
