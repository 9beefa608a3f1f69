/** Carries released positions to where they live: to the source (one call in flight per partition, newest wins, at most one a second, or fifty where a commit is cheap) or into our state. */
import type { Clock, Log, Partition, Position } from './contract'
import { lineOf } from './errors'

interface Pending { readonly partition: Partition; readonly position: Position }
interface Held extends Pending { readonly since: number; readonly readyAt: number }
interface Lane { held: Held[]; ready: Pending | undefined; lastAt: number; running: Promise<void> | undefined }

export interface CommitterParts {
  readonly label: string
  readonly clock: Clock
  readonly log: Log
  commit(partition: Partition, position: Position): Promise<void>
  /** Milliseconds between commits of a partition, but for draining. */
  readonly everyMs: number
  /** What a pipe took counts only once this long has passed without EPIPE. */
  readonly holdMs: number
}

export class Committer {
  private readonly lanes = new Map<string, Lane>()
  private readonly epochs = new Map<string, number>()
  private readonly ticker: { stop(): void }
  private void = false

  constructor(private readonly parts: CommitterParts) { this.ticker = parts.clock.every(Math.min(250, Math.max(20, parts.everyMs)), () => { this.tick() }) }

  /** What was read under an older epoch is delivered all the same, but its commit never reaches the source. */
  saw(partition: Partition): void {
    if ((this.epochs.get(partition.name) ?? -1) < partition.epoch) this.epochs.set(partition.name, partition.epoch)
  }

  lost(partition: Partition): void {
    this.saw({ name: partition.name, epoch: partition.epoch + 1 })
    this.lanes.delete(partition.name)
  }

  offer(partition: Partition, position: Position): void {
    let lane = this.lanes.get(partition.name)
    if (lane === undefined) this.lanes.set(partition.name, lane = { held: [], ready: undefined, lastAt: 0, running: undefined })
    const now = this.parts.clock.now()
    const last = lane.held.at(-1)
    if (this.parts.holdMs === 0) lane.ready = { partition, position }
    // Offers of a quarter second share one place and the latest of their times, so that a steady stream holds a handful and is not put off for ever.
    else if (last !== undefined && last.since + 250 > now) lane.held[lane.held.length - 1] = { partition, position, since: last.since, readyAt: now + this.parts.holdMs }
    else lane.held.push({ partition, position, since: now, readyAt: now + this.parts.holdMs })
  }

  /** Nothing more is committed: the reader of stdout went away. */
  silence(): void { this.void = true }

  private tick(): void {
    const now = this.parts.clock.now()
    for (const lane of this.lanes.values()) {
      while (lane.held[0] !== undefined && lane.held[0].readyAt <= now) lane.ready = lane.held.shift()
      if (lane.ready !== undefined && lane.running === undefined && now - lane.lastAt >= this.parts.everyMs) this.start(lane)
    }
  }

  private start(lane: Lane): void {
    const next = lane.ready
    lane.ready = undefined
    if (next === undefined || this.void || next.partition.epoch < (this.epochs.get(next.partition.name) ?? 0)) return
    lane.lastAt = this.parts.clock.now()
    lane.running = this.parts.commit(next.partition, next.position).catch((error: unknown) => {
      // The source reports the same fault where it reads; until it is open again the newest position waits.
      lane.ready ??= next
      this.parts.log.debug(`${this.parts.label}: a commit failed: ${lineOf(error)}`)
    }).finally(() => { lane.running = undefined })
  }

  /** Commits all that is settled; used when draining and before a partition is given up. */
  async flush(partition?: string): Promise<void> {
    for (const [name, lane] of this.lanes) {
      if (partition !== undefined && name !== partition) continue
      lane.ready = lane.held.splice(0).at(-1) ?? lane.ready
      await lane.running
      this.start(lane)
      await lane.running
    }
  }

  stop(): void { this.ticker.stop() }
}
