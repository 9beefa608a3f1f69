/**
 * All shards by one process, without leases: what begins where (start.ts), a child only after its parents, what appears
 * later from its oldest. Positions live with us.
 */
import { gapFault } from '../../../options/shared'
import type { SourceContext } from '../../../core/contract'
import { Fatal } from '../../../core/errors'
import type { OptionsOf } from '../../../options/define'
import type { KinesisOptions } from '../options'
import type { Shards } from './shards'
import { planStart, type ShardStart, type Start } from './start'
import type { StreamClient } from '../stream-client'

export interface StandaloneContext {
  readonly ctx: SourceContext
  readonly client: StreamClient
  readonly options: OptionsOf<KinesisOptions>
  readonly shards: Shards
  startReading(shardStart: ShardStart): void
  /** Gaps that were told already, for opening again finds them again. */
  readonly reportedGaps: Set<string>
}

export class StandaloneShards {
  private readonly waitingForParents = new Map<string, ShardStart>()
  private readonly started = new Set<string>()

  constructor(private readonly context: StandaloneContext) {}

  start(start: Start): void {
    const { ctx, client, options, shards } = this.context
    const { name, createdAt } = client.stream
    const stored = new Map(
      ctx.resumable().flatMap((shard) => {
        const position = ctx.resume(shard)
        return position === undefined ? [] : [[shard, position] as const]
      }),
    )
    const unknown = options.shard.find((id) => !stored.has(id) && !shards.listed.some((shard) => shard.id === id))
    if (unknown !== undefined)
      throw new Fatal(
        `stream ${name} has no ${unknown}: ${shards.listed
          .slice(0, 5)
          .map(({ id }) => id)
          .join(', ')}${shards.listed.length > 5 ? ` and ${shards.listed.length - 5} others` : ''} are there`,
      )
    const plan = planStart({
      listed: shards.listed,
      createdAt,
      now: ctx.clock.now(),
      start,
      onGap: options.onGap,
      stored,
      inScope: (shard) => this.inScope(shard),
    })
    for (const { note, ...gap } of plan.gaps) {
      this.reportOnce(gap.partition, () => {
        ctx.gap(gap)
      })
      if (options.onGap === 'fail') throw gapFault(`${gap.partition}: ${gap.why}`)
      if (note !== undefined) this.context.startReading({ shard: gap.partition, at: { kind: 'end' }, note })
    }
    for (const one of plan.shards) {
      if (one.at.kind !== 'end') {
        this.waitingForParents.set(one.shard, one)
        continue
      }
      shards.end(one.shard)
      this.started.add(one.shard)
      if (one.note !== undefined) this.context.startReading(one)
    }
    this.startReady()
  }

  /** Shards were found, or have ended. */
  startReady(): void {
    const { shards } = this.context
    for (const { id } of shards.all)
      if (!this.started.has(id) && !this.waitingForParents.has(id) && !shards.isEnded(id) && this.inScope(id))
        this.waitingForParents.set(id, { shard: id, at: { kind: 'oldest' } })
    for (const [id, shardStart] of this.waitingForParents) {
      if (!shards.mayBegin(id, (parent) => this.inScope(parent))) continue
      this.waitingForParents.delete(id)
      this.started.add(id)
      this.context.startReading(shardStart)
    }
  }

  /** Some could begin only by what is still to be read. */
  get isEmpty(): boolean {
    return this.waitingForParents.size === 0
  }

  /** With shard= its end is the source's. */
  get isBounded(): boolean {
    return this.context.options.shard.length > 0
  }

  private inScope(shard: string): boolean {
    const { shard: selected } = this.context.options
    return selected.length === 0 || selected.includes(shard)
  }

  private reportOnce(shard: string, report: () => void): void {
    const key = `${shard} ${this.context.client.stream.createdAt}`
    if (this.context.reportedGaps.has(key)) return
    this.context.reportedGaps.add(key)
    report()
  }
}
