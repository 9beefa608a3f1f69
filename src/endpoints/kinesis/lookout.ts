/**
 * Looks for new shards: every so often, and when a shard has ended. What a page tells of children is sooner, but not
 * every service tells. A shard that has ended has children; where none is listed yet it is looked for again, soon, for
 * a while.
 */
import type { Clock, Log } from '../../core/contract'
import { Disconnected, lineOf, Throttled } from '../../core/errors'
import type { Shards } from './shards'
import type { KinesisWire } from './wire'

/** Between two looks for the children of a shard that has ended, and how long they are waited for, milliseconds. */
const SOON_MS = 1000
const CHILDLESS_MS = 30_000

export interface LookoutParts {
  readonly wire: KinesisWire
  readonly shards: Shards
  readonly clock: Clock
  readonly log: Log
  readonly signal: AbortSignal
  readonly everyMs: number
  /** The shards were listed anew. */
  looked(): void
  failed(error: unknown): void
}

export class Lookout {
  /** Shards that have ended and whose children are not known: since when. */
  private readonly childless = new Map<string, number>()
  private looking: Promise<void> | undefined
  private timer: { stop(): void } | undefined

  constructor(private readonly parts: LookoutParts) {}

  start(): void {
    this.timer = this.parts.clock.every(this.parts.everyMs, () => {
      this.look()
    })
  }

  /** Children of shards that have ended are still to be found. */
  get isExpecting(): boolean {
    return this.childless.size > 0
  }

  ended(shard: string): void {
    if (this.parts.shards.hasChildren(shard)) return
    this.childless.set(shard, this.parts.clock.monotonic())
    this.look()
  }

  look(): void {
    // A failure in what follows is told there; this settles whatever happens.
    this.looking ??= this.lookUntilFound()
      .catch((error: unknown) => {
        if (!this.parts.signal.aborted) this.parts.failed(error)
      })
      .finally(() => {
        this.looking = undefined
      })
  }

  /** After the signal has aborted: all is at rest. */
  async stop(): Promise<void> {
    this.timer?.stop()
    await this.looking
  }

  private async lookUntilFound(): Promise<void> {
    const { clock, signal, shards, log } = this.parts
    for (;;) {
      await this.lookOnce()
      for (const [shard, since] of this.childless) {
        if (shards.hasChildren(shard)) this.childless.delete(shard)
        else if (clock.monotonic() - since > CHILDLESS_MS) {
          this.childless.delete(shard)
          log.warn(`${shard} has ended, and no shard is listed that goes on where it did`)
        }
      }
      this.parts.looked()
      if (!this.isExpecting) return
      await clock.sleep(SOON_MS, signal)
    }
  }

  private async lookOnce(): Promise<void> {
    const { wire, shards, signal, log } = this.parts
    try {
      const { createdAt } = await wire.describe(signal)
      if (Math.floor(createdAt) !== Math.floor(wire.stream.createdAt))
        throw new Disconnected(`stream ${wire.stream.name} was deleted and made anew`)
      shards.list(await wire.shards(signal))
    } catch (error) {
      // Listing is not reading: the next look is soon enough.
      if (!(error instanceof Throttled)) throw error
      log.debug(`the shards could not be listed: ${lineOf(error)}`)
    }
  }
}
