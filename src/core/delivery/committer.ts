/**
 * Carries released positions to where they live: to the source (one call in flight per partition, newest wins, at most
 * one a second, or a thousand where a commit is cheap) or into our state.
 */
import type { Clock, Log, Partition, Position } from '../contract'
import { lineOf } from '../errors'
import type { ReadWatermark } from './read-watermark'

interface Pending {
  readonly partition: Partition
  readonly position: Position
}
interface Held extends Pending {
  readonly since: number
  readonly mark: number
}
interface PartitionQueue {
  held: Held[]
  ready: Pending | undefined
  lastAt: number
  running: Promise<void> | undefined
}

export interface CommitterParts {
  readonly label: string
  readonly clock: Clock
  readonly log: Log
  commit(partition: Partition, position: Position): Promise<void>
  /** Commits of a partition are so many milliseconds apart, except at the end. */
  readonly everyMs: number
  /** Positions wait until their marks are passed. Without a watermark they are settled as they come. */
  readonly watermark: ReadWatermark | undefined
}

/** A reader that is waited for is asked this often, milliseconds. */
const LOOK_MS = 10
/**
 * The longest pause between two looks at what may be committed; and where nothing moves: a reader rests, a source is
 * being opened again.
 */
const LONGEST_MS = 250
const RESTING_MS = 100

export class Committer {
  private readonly queues = new Map<string, PartitionQueue>()
  private readonly epochs = new Map<string, number>()
  /** The timer runs only while there is something to commit, so that the process may sleep. */
  private watching: AbortController | undefined
  private void = false

  constructor(private readonly parts: CommitterParts) {}

  /** Records that were read under an older epoch are delivered, but their commit never reaches the source. */
  saw(partition: Partition): void {
    if ((this.epochs.get(partition.name) ?? -1) < partition.epoch) this.epochs.set(partition.name, partition.epoch)
  }

  lost(partition: Partition): void {
    this.saw({ name: partition.name, epoch: partition.epoch + 1 })
    this.queues.delete(partition.name)
  }

  offer(partition: Partition, position: Position): void {
    if (this.void) return
    let queue = this.queues.get(partition.name)
    if (queue === undefined)
      this.queues.set(partition.name, (queue = { held: [], ready: undefined, lastAt: 0, running: undefined }))
    if (this.parts.watermark === undefined) queue.ready = { partition, position }
    else hold(queue.held, this.parts.watermark, { partition, position })
    if (this.watching === undefined) void this.watch()
  }

  /** Commits nothing more, because the reader of stdout went away. */
  silence(): void {
    this.void = true
  }

  /** Runs until everything is committed. */
  private async watch(): Promise<void> {
    const { clock, everyMs } = this.parts
    const { signal } = (this.watching = new AbortController())
    const shortest = Math.min(LONGEST_MS, everyMs)
    for (let pause = shortest; this.isOpen(); ) {
      // `stop` has cut it short.
      await clock.sleep(pause, signal).catch(() => undefined)
      if (signal.aborted) return
      await this.pass([...this.queues.values()])
      pause = this.startDue() ? shortest : Math.min(2 * pause, Math.max(shortest, RESTING_MS))
    }
    this.watching = undefined
  }

  private isOpen(): boolean {
    return [...this.queues.values()].some(
      ({ held, ready, running }) => held.length > 0 || ready !== undefined || running !== undefined,
    )
  }

  /** Tells whether anything was committed. */
  private startDue(): boolean {
    const now = this.parts.clock.monotonic()
    let any = false
    for (const queue of this.queues.values()) {
      if (queue.ready === undefined || queue.running !== undefined || now - queue.lastAt < this.parts.everyMs) continue
      this.start(queue)
      any = true
    }
    return any
  }

  /** Positions that have been passed are ready. Resolves to true while others still wait. */
  private async pass(queues: readonly PartitionQueue[]): Promise<boolean> {
    const { watermark: trail } = this.parts
    if (trail === undefined || queues.every(({ held }) => held.length === 0)) return false
    const passed = await trail.passed()
    for (const queue of queues)
      while (queue.held[0] !== undefined && queue.held[0].mark <= passed) queue.ready = queue.held.shift()
    return queues.some(({ held }) => held.length > 0)
  }

  private start(queue: PartitionQueue): void {
    const next = queue.ready
    queue.ready = undefined
    if (next === undefined || this.void || next.partition.epoch < (this.epochs.get(next.partition.name) ?? 0)) return
    queue.lastAt = this.parts.clock.monotonic()
    queue.running = this.parts
      .commit(next.partition, next.position)
      .catch((error: unknown) => {
        // The source reports the same fault when it reads. Until it is open again the newest position waits.
        queue.ready ??= next
        queue.lastAt = this.parts.clock.monotonic() + RESTING_MS
        this.parts.log.debug(`${this.parts.label}: a commit failed: ${lineOf(error)}`)
      })
      .finally(() => {
        queue.running = undefined
      })
  }

  /**
   * Commits what is settled, at the end and before a partition is given up.
   * @param patience milliseconds in which a reader may yet read what was written; what it is known to have left is not
   *   committed. Infinity: it is alive and reads on when this process is gone, and all is committed at once
   */
  async flush(patience: number, partition?: string): Promise<void> {
    const queues = [...this.queues]
      .filter(([name]) => partition === undefined || name === partition)
      .map(([, queue]) => queue)
    if (this.parts.watermark?.certain === true && patience !== Infinity && !this.void) await this.wait(queues, patience)
    for (const queue of queues) {
      queue.ready = queue.held.splice(0).at(-1) ?? queue.ready
      await queue.running
      this.start(queue)
      await queue.running
    }
  }

  private async wait(queues: readonly PartitionQueue[], patience: number): Promise<void> {
    const { clock, label, log } = this.parts
    const until = clock.monotonic() + patience
    while (await this.pass(queues)) {
      if (clock.monotonic() < until) {
        await clock.sleep(LOOK_MS, FOREVER)
        continue
      }
      for (const queue of queues) queue.held = []
      log.warn(`${label}: the reader of the output left the last of it unread: that is not committed and comes again`)
      return
    }
  }

  /** Positions that are offered from now on are not committed. */
  stop(): void {
    this.void = true
    this.watching?.abort(new Error('stopped'))
  }
}

/**
 * Positions of one step share one place and the latest of their marks, so that a steady stream holds a handful and is
 * not put off for ever.
 */
function hold(held: Held[], trail: ReadWatermark, pending: Pending): void {
  const mark = trail.mark()
  const last = held.at(-1)
  if (last !== undefined && last.since + trail.step > mark)
    held[held.length - 1] = { ...pending, since: last.since, mark }
  else held.push({ ...pending, since: mark, mark })
}

const FOREVER = new AbortController().signal
