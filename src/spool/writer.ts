/**
 * Writes the spool in a single loop. It gathers what was appended, makes one write and one fdatasync, and only then
 * settles the appends and shows them to readers. It seals, and waits for space if the disk is full. An append that is
 * queued keeps its sequence, whatever happens to the file it was first written to.
 */
import type { Hash } from 'node:crypto'
import { DiskFailed, lineOf } from '../core/errors'
import type { SpoolStatus } from '../core/flow/ports'
import { closeQuietly } from '../kit/file-system'
import { DATA_AT } from './format'
import { assemble, gather, hashed, isFull, type GroupLimits } from './group'
import type { AppendItem } from './append-items'
import { createSegment, sealFile, type Open } from './open-segment'
import { SpaceAlarm } from './space-alarm'
import type { SpoolContext } from './segment'
import { outOfSpace, type Space } from './space'
import type { Store } from './store'

/** One fdatasync makes a group of so many bytes durable. A single larger append is a group of its own. */
const GROUP_BYTES = 16 * 1024 * 1024

export interface WriterLimits extends GroupLimits {
  readonly sealAge: number
}

export class Writer {
  private open: Open | undefined
  private queue: AppendItem[] = []
  private running = false
  private parked = false
  /** Bytes of a group; less while space is scarce. */
  private most = GROUP_BYTES
  private sealing = false
  private sealAsked: { after: AppendItem | undefined; done: () => void; failed: (error: Error) => void }[] = []
  private ended = false
  private failures = 0
  private failure: Error | undefined
  private readonly pressure: SpaceAlarm
  private stopped: (() => void) | undefined
  private rejectFailed!: (error: Error) => void
  readonly failed: Promise<never>

  /** Files that go once the item is durable elsewhere. */
  private replaced: { readonly path: string; readonly after: AppendItem | undefined }[]

  /** @param replaced  files whose frames without records are carried in `carried` */
  constructor(
    private readonly context: SpoolContext,
    private readonly store: Store,
    private readonly space: Space,
    private readonly limits: WriterLimits,
    private nextSequence: number,
    carried: readonly AppendItem[],
    replaced: readonly string[],
  ) {
    this.replaced = replaced.map((path) => ({ path, after: carried.at(-1) }))
    this.pressure = new SpaceAlarm(
      context,
      () => store.bytes,
      () => {
        this.retry()
      },
    )
    this.failed = new Promise<never>((_, reject) => {
      this.rejectFailed = reject
    })
    // Every append is told besides.
    this.failed.catch(() => undefined)
    this.queue.push(...carried)
    this.kick()
  }

  get sequence(): number {
    return this.nextSequence
  }

  /** Takes an item made for the sequence `this.sequence`. */
  push(item: AppendItem): void {
    if (this.failure !== undefined) {
      item.reject(this.failure)
      return
    }
    if (this.store.closed || this.ended) {
      item.reject(new Error('the spool is closed'))
      return
    }
    if (!Number.isSafeInteger(item.next)) {
      item.reject(
        new DiskFailed(
          `the spool in ${this.context.directory} has used up its sequence numbers: deliver it and begin with an empty one`,
        ),
      )
      return
    }
    this.nextSequence = item.next
    this.queue.push(item)
    this.kick()
  }

  seal(): Promise<void> {
    if (this.failure !== undefined) return Promise.reject(this.failure)
    if (this.store.closed) return Promise.reject(new Error('the spool is closed'))
    return new Promise((done, failed) => {
      this.sealAsked.push({ after: this.queue.at(-1), done, failed })
      this.kick()
    })
  }

  async end(): Promise<void> {
    this.ended = true
    for (;;) {
      await this.seal()
      if (this.queue.length === 0) break
      await Promise.race([this.store.wait(new AbortController().signal), this.failed])
    }
    this.store.finished = true
    this.store.changed()
  }

  status(): SpoolStatus {
    return this.pressure.status()
  }
  onStatus(changed: (status: SpoolStatus) => void): void {
    this.pressure.onStatus(changed)
  }

  /** Space may have come free. */
  retry(): void {
    this.parked = false
    this.kick()
  }

  async close(): Promise<void> {
    this.store.closed = true
    if (this.running)
      await new Promise<void>((resolve) => {
        this.stopped = resolve
      })
    this.open?.age?.abort()
    this.pressure.stop()
    await closeQuietly(this.open?.file)
    if (this.open !== undefined) this.open.file = undefined
    const error = new Error('the spool was closed before this was durable')
    for (const item of this.queue.splice(0)) item.reject(error)
    for (const asked of this.sealAsked.splice(0)) asked.failed(error)
    this.store.changed()
  }

  private kick(): void {
    if (this.running || this.failure !== undefined || this.store.closed) return
    this.running = true
    void this.work()
      .catch((error: unknown) => {
        this.fail(error)
        this.running = false
      })
      .finally(() => {
        this.stopped?.()
      })
  }

  private async work(): Promise<void> {
    // Appends of the same turn share a group.
    await Promise.resolve()
    while (this.failure === undefined && !this.store.closed) {
      if (this.sealDue()) {
        if (!(await this.sealOpen()) && this.parked) break
        continue
      }
      this.settleSeals()
      if (this.queue.length === 0 || this.parked) break
      await this.commit()
    }
    // In the same turn as the last look at the queue, so that no append finds a loop that is about to end.
    this.running = false
  }

  private sealDue(): boolean {
    if (this.open === undefined || this.open.count === 0) return false
    // On a full disk too: the block is reserved. But not again and again where even that is refused.
    if (this.sealing) return !this.parked || this.open.file !== undefined
    return this.sealAsked.some((asked) => this.reached(asked.after))
  }
  private reached(after: AppendItem | undefined): boolean {
    return after === undefined || this.parked || !this.queue.includes(after)
  }
  private settleSeals(): void {
    // Still to be sealed, but not now: its descriptor is gone and there is no space.
    if (this.sealing && this.open !== undefined && this.open.count > 0) return
    const done = this.sealAsked.filter((asked) => this.reached(asked.after))
    this.sealAsked = this.sealAsked.filter((asked) => !done.includes(asked))
    for (const asked of done) asked.done()
  }

  private async commit(): Promise<void> {
    const group = gather(this.queue, this.open, this.most, this.context.policies[0]?.policy, this.limits)
    if (group === undefined) {
      this.sealing = true
      return
    }
    let bytes = 0
    for (const item of group) bytes += item.bytes
    // A segment without a record cannot be delivered, which would make space.
    const held = this.store.segments.some((segment) => segment.count > 0) ? this.store.bytes : 0
    const shortage = await this.space.shortage(bytes + (this.open === undefined ? DATA_AT : 0), held)
    if (shortage !== undefined) {
      // Items that do not fit together may fit one by one: those that fit can be delivered, which makes space.
      if (group.length > 1) this.most = bytes / 2
      else this.park(shortage)
      return
    }
    const segment = this.open ?? (await this.create(group[0]?.first ?? this.nextSequence))
    if (segment === undefined) return
    const file = segment.file
    if (file === undefined) return
    const at = segment.fresh ? 0 : segment.end
    const buffers = assemble(group, segment.end)
    if (segment.fresh) buffers.unshift(...segment.blocks)
    let hash: Hash | undefined
    let written = false
    try {
      await file.write(buffers, at)
      written = true
      const syncing = file.datasync()
      // While the disk is busy. Not later: once an append is settled its buffers may be filled anew.
      hash = hashed(segment.hash, group)
      await syncing
      if (segment.fresh) await this.context.fs.syncDirectory(this.context.directory)
    } catch (error) {
      const space = !written && outOfSpace(error)
      if (space && group.length > 1) this.most = bytes / 2
      await this.writeFailed(segment, error, space, group.length > 1)
      return
    }
    segment.hash = hash
    this.failures = 0
    this.most = Math.min(GROUP_BYTES, this.most * 2)
    this.space.used(bytes)
    this.committed(segment, group, bytes)
    await this.removeReplaced()
  }

  private async create(first: number): Promise<Open | undefined> {
    try {
      return (this.open = await createSegment(this.context, first, [...this.replaced, ...this.store.segments]))
    } catch (error) {
      if (outOfSpace(error)) this.park(`no space for a new file: ${lineOf(error)}`)
      else this.failedOnce(error, `a new spool file cannot be made in ${this.context.directory}`)
      return undefined
    }
  }

  private committed(segment: Open, group: readonly AppendItem[], bytes: number): void {
    if (segment.fresh) {
      segment.fresh = false
      this.store.segments.push(segment)
      this.store.bytes += DATA_AT
    }
    segment.end += bytes
    this.store.bytes += bytes
    this.queue.splice(0, group.length)
    for (const item of group) {
      for (const frame of item.frames) segment.counts.add(frame, item.place, item.gap)
      if (item.count === 0) segment.recordless.push(item)
      else {
        segment.recordless = []
        if (segment.count === 0) {
          segment.period = this.context.policies[0]?.policy.period(item.receivedAt)
          this.startAge(segment)
        }
        segment.count += item.count
        segment.next = item.next
        this.store.head = item.next
        this.store.arrived(item.place.source, item.receivedAt)
      }
      if (item.gap === undefined) this.store.place(item.place)
      segment.objectLength += item.objectLength
    }
    if (isFull(segment.objectLength, segment.end, this.context.policies.length > 0, this.limits)) this.sealing = true
    this.pressure.end()
    for (const item of group) item.resolve()
    this.store.changed()
  }

  private startAge(segment: Open): void {
    if (this.context.policies.length === 0 || this.limits.sealAge === 0) return
    segment.age = new AbortController()
    this.context.clock.sleep(this.limits.sealAge, segment.age.signal).then(
      () => {
        if (this.open !== segment) return
        this.sealing = true
        this.kick()
      },
      () => undefined,
    )
  }

  /**
   * The group is still queued and goes again: into the same file once there is space, into a new one where the
   * descriptor can be trusted no more.
   * @param divisible fewer of its appends may still fit
   * @param space it was the write that found the disk full: nothing is known to be wrong with the descriptor
   */
  private async writeFailed(segment: Open, error: unknown, space: boolean, divisible: boolean): Promise<void> {
    if (space && !segment.fresh) {
      // Where that fails, the next write goes over what is there, and a start cuts it off.
      await segment.file?.truncate(segment.end).catch(() => undefined)
      if (!divisible) this.park(`no space: ${lineOf(error)}`)
      return
    }
    const file = segment.file
    segment.file = undefined
    await closeQuietly(file)
    if (segment.count > 0) this.sealing = true
    else {
      // Nothing but gaps and positions is durable in it: they go first into the next one, and it goes after that.
      this.queue.unshift(...segment.recordless)
      this.forget(segment)
      // Nothing in it was ever acknowledged: what cannot be removed now, a start removes.
      if (segment.fresh) await this.context.fs.unlink(segment.path).catch(() => undefined)
      else this.replaced.push({ path: segment.path, after: segment.recordless.at(-1) })
    }
    if (outOfSpace(error)) {
      if (!space || !divisible) this.park(`no space: ${lineOf(error)}`)
    } else this.failedOnce(error, `the spool file ${segment.path} cannot be written`)
  }
  private forget(segment: Open): void {
    this.open = undefined
    const index = this.store.segments.indexOf(segment)
    if (index === -1) return
    this.store.segments.splice(index, 1)
    this.store.bytes -= segment.end
  }

  /** False where it has to be tried again. */
  private async sealOpen(): Promise<boolean> {
    const segment = this.open
    if (segment === undefined) return true
    try {
      await sealFile(this.context, segment)
    } catch (error) {
      const file = segment.file
      segment.file = undefined
      await closeQuietly(file)
      this.sealing = true
      if (outOfSpace(error)) this.park(`no space to seal ${segment.path}: ${lineOf(error)}`)
      else this.failedOnce(error, `the spool file ${segment.path} cannot be sealed`)
      return false
    }
    await closeQuietly(segment.file)
    segment.file = undefined
    segment.sealed = true
    segment.age?.abort()
    this.sealing = false
    this.open = undefined
    if (segment.recordless.length > 0 && this.store.dropped(segment)) {
      // Its records are delivered, but the gaps at its end came after the drop and may be known nowhere else.
      this.queue.unshift(...segment.recordless)
      this.replaced.push({ path: segment.path, after: segment.recordless.at(-1) })
      this.forget(segment)
    }
    this.store.changed()
    await this.store.dropAgain()
    if (this.pressure.full) this.parked = false
    return true
  }

  private async removeReplaced(): Promise<void> {
    const gone = this.replaced.filter(({ after }) => after === undefined || !this.queue.includes(after))
    this.replaced = this.replaced.filter((one) => !gone.includes(one))
    // A gap that stays is written again by the next start, which knows gaps that it has seen before.
    for (const { path } of gone) await this.context.fs.unlink(path).catch(() => undefined)
  }

  private park(why: string): void {
    this.parked = true
    // No sealed segment is left that could be delivered to make space, so the open one has to become deliverable.
    if (this.open !== undefined && this.open.count > 0 && this.store.segments.length === 1) this.sealing = true
    this.pressure.begin(why)
  }

  private failedOnce(error: unknown, what: string): void {
    this.failures++
    if (this.failures >= 2) {
      this.fail(
        new DiskFailed(`${what}: ${lineOf(error)}; what was accepted is safe, the rest was never acknowledged`, {
          cause: error,
        }),
      )
      return
    }
    this.context.log.warn(`${what}: ${lineOf(error)}; going on with a new file`)
  }
  private fail(error: unknown): void {
    this.failure = error instanceof Error ? error : new Error(lineOf(error))
    this.pressure.stop()
    this.open?.age?.abort()
    this.rejectFailed(this.failure)
    for (const item of this.queue.splice(0)) item.reject(this.failure)
    for (const asked of this.sealAsked.splice(0)) asked.failed(this.failure)
    this.store.changed()
  }
}
