/**
 * Shards as leases say: begun under the epoch of a lease, given up with it, their positions kept in the table.
 *
 * A shard goes on at its checkpoint, but for one that is still ours under the same epoch after a fault: what this
 * process has read of it is on its way to the sinks, so reading goes on after that.
 */
import { hostname } from 'node:os'
import type { Partition, SourceContext } from '../../../core/contract'
import { Fatal } from '../../../core/errors'
import type { OptionsOf } from '../../../options/define'
import { connectTable } from '../lease-client'
import { createLeases } from './coordinator'
import type { KinesisOptions } from '../options'
import { decodePosition, encodePosition, isSameStream } from '../position'
import type { Shards } from '../consume/shards'
import type { ShardStart, Start } from '../consume/start'
import type { Checkpoint, StreamClient, LeaseListener, Leases } from '../stream-client'

/** Keeps the leases of this process. It is made once and started at each opening. */
export function leasesOf(
  current: () => OptionsOf<KinesisOptions>,
  first: OptionsOf<KinesisOptions>,
  since: (ctx: SourceContext) => number | undefined,
  region: () => string | undefined,
): Leases {
  const { leases = '', leaseDuration, maxLeases = Infinity, maxSteals, workerId } = first
  return createLeases({
    table: leases.replace(/^dynamodb:/, ''),
    leaseMs: leaseDuration,
    maxLeases,
    maxSteals,
    workerId: workerId ?? `${hostname()}:${process.pid}:${Math.random().toString(36).slice(2, 10)}`,
    connect: ({ ctx }) =>
      connectTable(
        { options: current(), region: region(), since: since(ctx), withinMs: leaseDuration / 2, clock: ctx.clock },
        process.env,
      ),
  })
}

export interface LeasedContext {
  readonly ctx: SourceContext
  readonly client: StreamClient
  readonly shards: Shards
  readonly signal: AbortSignal
  readonly start: Start
  startReading(shardStart: ShardStart, epoch: number): void
  stopReading(shard: string): Promise<void>
  run(work: Promise<void>): void
  /** How far this process has handed it on, and under which epoch. */
  delivered(shard: string): { readonly epoch: number; readonly position: string } | undefined
}

export class LeasedShards {
  constructor(
    private readonly leases: Leases,
    private readonly context: LeasedContext,
  ) {}

  get isSettled(): boolean {
    return this.leases.isSettled
  }

  /** Rejects with what `open` is to throw. */
  start(): Promise<void> {
    const { ctx, signal, shards, run, stopReading: giveUp } = this.context
    const { createdAt } = this.context.client.stream
    const listener: LeaseListener = {
      ctx,
      signal,
      run,
      stopReading: giveUp,
      shards: () => shards.listed,
      beginning: () => this.beginning(),
      begin: (shard, epoch, checkpoint) => {
        this.begin(shard, epoch, checkpoint)
      },
      position: (at) => encodePosition({ at, createdAt }),
      checkpoint: (position) => decodePosition(position)?.at,
    }
    return this.leases.start(listener)
  }

  shardsListed(): void {
    this.leases.shardsChanged()
  }

  ended(partition: Partition): void {
    this.leases.ended(partition)
  }

  async commit(partition: Partition, position: string): Promise<void> {
    const decoded = decodePosition(position)
    if (decoded === undefined || !isSameStream(decoded.createdAt, this.context.client.stream.createdAt)) return
    // A place without a record is in the table already.
    if (decoded.at.kind === 'sequence' || decoded.at.kind === 'end') await this.leases.commit(partition, decoded.at)
  }

  private begin(shard: string, epoch: number, checkpoint: Checkpoint): void {
    const delivered = this.context.delivered(shard)
    const own = delivered?.epoch === epoch ? decodePosition(delivered.position) : undefined
    if (own === undefined || !isSameStream(own.createdAt, this.context.client.stream.createdAt)) {
      this.context.startReading({ shard, at: checkpoint }, epoch)
      return
    }
    // It is on its way to the table; said again, for this opening knows nothing of it.
    if (own.at.kind === 'end') this.context.startReading({ shard, at: own.at, note: delivered?.position ?? '' }, epoch)
    else
      this.context.startReading(
        { shard, at: own.at, ...(own.seenAt === undefined ? {} : { seenAt: own.seenAt }) },
        epoch,
      )
  }

  private beginning(): Checkpoint {
    const { start } = this.context
    if (start.kind === 'at' || start.kind === 'after')
      throw new Fatal('start= with a sequence number is about one shard, and leases= shares all of them out')
    return start.kind === 'time' ? start : { kind: start.kind }
  }
}
