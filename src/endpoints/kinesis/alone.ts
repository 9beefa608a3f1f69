/**
 * All shards by one process, without leases: what begins where (start.ts), a child only after its parents, what appears
 * later from its oldest. Positions live with us.
 */
import type { SourceContext } from '../../core/contract'
import { Fatal } from '../../core/errors'
import type { OptionsOf } from '../../options/define'
import type { KinesisOptions } from './options'
import type { Shards } from './shards'
import { planOf, type Planned, type Start } from './start'
import type { KinesisWire } from './wire'

export interface AloneParts {
  readonly ctx: SourceContext
  readonly wire: KinesisWire
  readonly options: OptionsOf<KinesisOptions>
  readonly shards: Shards
  begin(planned: Planned): void
  /** Gaps that were told already, for opening again finds them again. */
  readonly told: Set<string>
}

export function gapFault(why: string): Fatal {
  return new Fatal(`${why}, and on-gap=fail: with on-gap=oldest or latest reading goes on there`)
}

export class Alone {
  private readonly waiting = new Map<string, Planned>()
  private readonly begun = new Set<string>()

  constructor(private readonly parts: AloneParts) {}

  start(start: Start): void {
    const { ctx, wire, options, shards } = this.parts
    const { name, createdAt } = wire.stream
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
    const plan = planOf({
      listed: shards.listed,
      createdAt,
      now: ctx.clock.now(),
      start,
      onGap: options.onGap,
      stored,
      inScope: (shard) => this.inScope(shard),
    })
    for (const { note, ...gap } of plan.gaps) {
      this.tell(gap.partition, () => {
        ctx.gap(gap)
      })
      if (options.onGap === 'fail') throw gapFault(`${gap.partition}: ${gap.why}`)
      if (note !== undefined) this.parts.begin({ shard: gap.partition, at: { kind: 'end' }, note })
    }
    for (const one of plan.shards) {
      if (one.at.kind !== 'end') {
        this.waiting.set(one.shard, one)
        continue
      }
      shards.end(one.shard)
      this.begun.add(one.shard)
      if (one.note !== undefined) this.parts.begin(one)
    }
    this.beginReady()
  }

  /** Shards were found, or have ended. */
  beginReady(): void {
    const { shards } = this.parts
    for (const { id } of shards.all)
      if (!this.begun.has(id) && !this.waiting.has(id) && !shards.isEnded(id) && this.inScope(id))
        this.waiting.set(id, { shard: id, at: { kind: 'oldest' } })
    for (const [id, planned] of this.waiting) {
      if (!shards.mayBegin(id, (parent) => this.inScope(parent))) continue
      this.waiting.delete(id)
      this.begun.add(id)
      this.parts.begin(planned)
    }
  }

  /** Some could begin only by what is still to be read. */
  get isEmpty(): boolean {
    return this.waiting.size === 0
  }

  /** With shard= its end is the source's. */
  get isBounded(): boolean {
    return this.parts.options.shard.length > 0
  }

  private inScope(shard: string): boolean {
    const { shard: asked } = this.parts.options
    return asked.length === 0 || asked.includes(shard)
  }

  private tell(shard: string, tell: () => void): void {
    const key = `${shard} ${this.parts.wire.stream.createdAt}`
    if (this.parts.told.has(key)) return
    this.parts.told.add(key)
    tell()
  }
}
