/**
 * Shards as leases say: begun under the epoch of a lease, given up with it, their positions kept in the table.
 *
 * A shard goes on at its checkpoint, but for one that is still ours under the same epoch after a fault: what this
 * process has read of it is on its way to the sinks, so reading goes on after that.
 */
import { hostname } from 'node:os'
import type { Partition, SourceContext } from '../../core/contract'
import { Fatal } from '../../core/errors'
import type { OptionsOf } from '../../options/define'
import { connectTable } from './lease-client'
import { openLeases } from './leases'
import type { KinesisOptions } from './options'
import { decodePosition, encodePosition, isSameStream } from './position'
import type { Shards } from './shards'
import type { Planned, Start } from './start'
import type { Checkpoint, KinesisWire, LeaseHost, Leases } from './wire'

/** A process and its leases: made once, started at each opening. */
export function leasesOf(
  current: () => OptionsOf<KinesisOptions>,
  first: OptionsOf<KinesisOptions>,
  since: (ctx: SourceContext) => number | undefined,
  region: () => string | undefined,
): Leases {
  const { leases = '', leaseDuration, maxLeases = Infinity, maxSteals, workerId } = first
  return openLeases({
    table: leases.replace(/^dynamodb:/, ''),
    leaseMs: leaseDuration,
    maxLeases,
    maxSteals,
    me: workerId ?? `${hostname()}:${process.pid}:${Math.random().toString(36).slice(2, 10)}`,
    connect: ({ ctx }) =>
      connectTable(
        { options: current(), region: region(), since: since(ctx), withinMs: leaseDuration / 2, clock: ctx.clock },
        process.env,
      ),
  })
}

export interface SharingParts {
  readonly ctx: SourceContext
  readonly wire: KinesisWire
  readonly shards: Shards
  readonly signal: AbortSignal
  readonly start: Start
  begin(planned: Planned, epoch: number): void
  giveUp(shard: string): Promise<void>
  run(work: Promise<void>): void
  /** How far this process has handed it on, and under which epoch. */
  handed(shard: string): { readonly epoch: number; readonly position: string } | undefined
}

export class Sharing {
  constructor(
    private readonly leases: Leases,
    private readonly parts: SharingParts,
  ) {}

  get isSettled(): boolean {
    return this.leases.isSettled
  }

  /** Rejects with what `open` is to throw. */
  start(): Promise<void> {
    const { ctx, signal, shards, run, giveUp } = this.parts
    const { createdAt } = this.parts.wire.stream
    const host: LeaseHost = {
      ctx,
      signal,
      run,
      giveUp,
      shards: () => shards.listed,
      beginning: () => this.beginning(),
      begin: (shard, epoch, checkpoint) => {
        this.begin(shard, epoch, checkpoint)
      },
      position: (at) => encodePosition({ at, createdAt }),
      checkpoint: (position) => decodePosition(position)?.at,
    }
    return this.leases.start(host)
  }

  looked(): void {
    this.leases.shardsChanged()
  }

  ended(partition: Partition): void {
    this.leases.ended(partition)
  }

  async commit(partition: Partition, position: string): Promise<void> {
    const decoded = decodePosition(position)
    if (decoded === undefined || !isSameStream(decoded.createdAt, this.parts.wire.stream.createdAt)) return
    // A place without a record is in the table already.
    if (decoded.at.kind === 'sequence' || decoded.at.kind === 'end') await this.leases.commit(partition, decoded.at)
  }

  private begin(shard: string, epoch: number, checkpoint: Checkpoint): void {
    const handed = this.parts.handed(shard)
    const own = handed?.epoch === epoch ? decodePosition(handed.position) : undefined
    if (own === undefined || !isSameStream(own.createdAt, this.parts.wire.stream.createdAt)) {
      this.parts.begin({ shard, at: checkpoint }, epoch)
      return
    }
    // It is on its way to the table; said again, for this opening knows nothing of it.
    if (own.at.kind === 'end') this.parts.begin({ shard, at: own.at, note: handed?.position ?? '' }, epoch)
    else this.parts.begin({ shard, at: own.at, ...(own.seenAt === undefined ? {} : { seenAt: own.seenAt }) }, epoch)
  }

  private beginning(): Checkpoint {
    const { start } = this.parts
    if (start.kind === 'at' || start.kind === 'after')
      throw new Fatal('start= with a sequence number is about one shard, and leases= shares all of them out')
    return start.kind === 'time' ? start : { kind: start.kind }
  }
}
