/** Carries released positions to where they live: to the source (one call in flight per partition, newest wins, at most one a second, or two hundred where a commit is cheap) or into our state. */
import type { Clock, Log, Partition, Position } from './contract'
import { lineOf } from './errors'
import type { Trail } from './trail'

interface Pending { readonly partition: Partition; readonly position: Position }
interface Held extends Pending { readonly since: number; readonly mark: number }
interface Lane { held: Held[]; ready: Pending | undefined; lastAt: number; running: Promise<void> | undefined }

export interface CommitterParts {
  readonly label: string
  readonly clock: Clock
  readonly log: Log
  commit(partition: Partition, position: Position): Promise<void>
  /** Milliseconds between commits of a partition, but for draining. */
  readonly everyMs: number
  /** Positions are held until their marks are passed; undefined: they are settled as they come. */
  readonly trail: Trail | undefined
}

/** How often a reader is asked for that is waited for. */
const LOOK_MS = 10

export class Committer {
  private readonly lanes = new Map<string, Lane>()
  private readonly epochs = new Map<string, number>()
  /** Only while there is something to commit: nobody is woken for nothing. */
  private ticker: { stop(): void } | undefined
  private asking = false
  private void = false

  constructor(private readonly parts: CommitterParts) {}

  /** What was read under an older epoch is delivered all the same, but its commit never reaches the source. */
  saw(partition: Partition): void {
    if ((this.epochs.get(partition.name) ?? -1) < partition.epoch) this.epochs.set(partition.name, partition.epoch)
  }

  lost(partition: Partition): void {
    this.saw({ name: partition.name, epoch: partition.epoch + 1 })
    this.lanes.delete(partition.name)
  }

  offer(partition: Partition, position: Position): void {
    if (this.void) return
    const { clock, everyMs, trail } = this.parts
    this.ticker ??= clock.every(Math.min(250, everyMs), () => { void this.tick() })
    let lane = this.lanes.get(partition.name)
    if (lane === undefined) this.lanes.set(partition.name, lane = { held: [], ready: undefined, lastAt: 0, running: undefined })
    if (trail === undefined) { lane.ready = { partition, position }; return }
    const mark = trail.mark()
    const last = lane.held.at(-1)
    // Offers of one step share one place and the latest of their marks, so that a steady stream holds a handful and is not put off for ever.
    if (last !== undefined && last.since + trail.step > mark) lane.held[lane.held.length - 1] = { partition, position, since: last.since, mark }
    else lane.held.push({ partition, position, since: mark, mark })
  }

  /** Nothing more is committed: the reader of stdout went away. */
  silence(): void { this.void = true }

  private async tick(): Promise<void> {
    if (this.asking) return
    this.asking = true
    try { await this.pass([...this.lanes.values()]) } finally { this.asking = false }
    const now = this.parts.clock.now()
    let left = false
    for (const lane of this.lanes.values()) {
      if (lane.ready !== undefined && lane.running === undefined && now - lane.lastAt >= this.parts.everyMs) this.start(lane)
      left ||= lane.ready !== undefined || lane.running !== undefined || lane.held.length > 0
    }
    if (!left) this.rest()
  }

  /** What has been passed is ready. Resolves with whether something is still held. */
  private async pass(lanes: readonly Lane[]): Promise<boolean> {
    const { trail } = this.parts
    if (trail === undefined || lanes.every(({ held }) => held.length === 0)) return false
    const passed = await trail.passed()
    for (const lane of lanes) while (lane.held[0] !== undefined && lane.held[0].mark <= passed) lane.ready = lane.held.shift()
    return lanes.some(({ held }) => held.length > 0)
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

  /**
   * Commits what is settled; used when draining and before a partition is given up.
   * @param patience milliseconds in which a reader may yet read what was written; what it is known to have left is not committed. Infinity: it is
   * alive and reads on when this process is gone, and all is committed at once
   */
  async flush(patience: number, partition?: string): Promise<void> {
    const lanes = [...this.lanes].filter(([name]) => partition === undefined || name === partition).map(([, lane]) => lane)
    if (this.parts.trail?.certain === true && patience !== Infinity && !this.void) await this.wait(lanes, patience)
    for (const lane of lanes) {
      lane.ready = lane.held.splice(0).at(-1) ?? lane.ready
      await lane.running
      this.start(lane)
      await lane.running
    }
  }

  private async wait(lanes: readonly Lane[], patience: number): Promise<void> {
    const { clock, label, log } = this.parts
    const until = clock.now() + patience
    while (await this.pass(lanes)) {
      if (clock.now() < until) { await clock.sleep(LOOK_MS, FOREVER); continue }
      for (const lane of lanes) lane.held = []
      log.warn(`${label}: the reader of the output left the last of it unread: that is not committed and comes again`)
      return
    }
  }

  /** What is offered from now on is not committed. */
  stop(): void {
    this.void = true
    this.rest()
  }

  private rest(): void {
    this.ticker?.stop()
    this.ticker = undefined
  }
}

const FOREVER = new AbortController().signal
