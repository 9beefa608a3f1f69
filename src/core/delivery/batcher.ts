/**
 * Makes writes of what has arrived for a sink and was not submitted yet: it joins items up to the sink's limits, and
 * splits those beyond them.
 */
import { Notifier } from '../../kit/signal'
import { entrySize, joined, only } from '../batch'
import type { Batch, Clock, Limits, Refusal, Segment } from '../contract'
import { weight, type PendingWrite, type Slice, type TrackedItem } from './pending-write'

/** If fewer bytes than this wait, a write waits for `linger` to gather more. */
const WORTH_WRITING = 64 * 1024

export interface BatcherParts {
  /** The ids of writes begin with it. */
  readonly id: string
  /** The name of the sink in messages. */
  readonly label: string
  readonly limits: Limits
  readonly lingerMs: number
  readonly clock: Clock
  /** After so many milliseconds gathering is worth another try. */
  readonly wakeAfter: (ms: number) => void
  /** Takes records that no write can hold. `write` is never written. */
  readonly refuse: (write: PendingWrite, refused: readonly Refusal[]) => void
}

export class Batcher {
  private readonly arrived: { readonly tracked: TrackedItem; readonly at: number }[] = []
  private bytes = 0
  private readonly taken = new Notifier()
  private serial = 0

  constructor(private readonly parts: BatcherParts) {}

  get isEmpty(): boolean {
    return this.arrived.length === 0
  }

  add(tracked: TrackedItem): void {
    this.arrived.push({ tracked, at: this.parts.clock.monotonic() })
    this.bytes += weight(tracked.item.payload)
  }

  /** Resolves when less than a write's worth is at hand, or when the signal aborts and `wake` is called. */
  async capacity(signal: AbortSignal): Promise<void> {
    const { limits } = this.parts
    const enough = limits.unit === 'segment' ? 1 : Math.max(limits.maxBytes, 1)
    while (this.bytes >= enough && !signal.aborted) await this.taken.wait()
  }
  wake(): void {
    this.taken.notify()
  }

  /**
   * Returns the next write, or several if one item had to be split. It returns none if nothing is there, or if it waits
   * for more.
   * @param ended nothing more will arrive
   */
  next(ended: boolean): readonly PendingWrite[] {
    const first = this.arrived[0]
    if (first === undefined) return []
    const { limits, lingerMs, clock, wakeAfter } = this.parts
    if (limits.unit === 'segment') {
      this.take(1)
      return [
        this.write(
          first.tracked.item.payload,
          [{ item: first.tracked, from: 0, count: first.tracked.item.count }],
          first.tracked.item.count,
        ),
      ]
    }
    const age = clock.monotonic() - first.at
    if (lingerMs > 0 && this.bytes < WORTH_WRITING && !ended && age < lingerMs) {
      wakeAfter(lingerMs - age)
      return []
    }
    const batches: Batch[] = []
    const slices: Slice[] = []
    let count = 0
    let bytes = 0
    for (const { tracked } of this.arrived) {
      const batch = tracked.item.payload as Batch
      if (slices.length > 0 && (count + batch.count > limits.maxEntries || bytes + batch.bytes > limits.maxBytes)) break
      batches.push(batch)
      slices.push({ item: tracked, from: 0, count: batch.count })
      count += batch.count
      bytes += batch.bytes
    }
    this.take(slices.length)
    // An item beyond the limits, or one that may hold a record beyond them, is split record by record.
    const isLone = slices.length === 1 && (count > limits.maxEntries || bytes > limits.maxBytes)
    if (isLone || bytes > limits.maxEntryBytes)
      return slices.flatMap(({ item }) => this.split(item, item.item.payload as Batch))
    return [this.write(joined(batches), slices, count)]
  }

  private take(items: number): void {
    for (const { tracked } of this.arrived.splice(0, items)) this.bytes -= weight(tracked.item.payload)
    this.taken.notify()
  }

  private split(tracked: TrackedItem, batch: Batch): readonly PendingWrite[] {
    const { limits, label, refuse } = this.parts
    const jobs: PendingWrite[] = []
    const tooLarge: Refusal[] = []
    let run: number[] = []
    let bytes = 0
    const flush = (): void => {
      const from = run[0]
      if (from === undefined) return
      jobs.push(this.write(only(batch, run), [{ item: tracked, from, count: run.length }], run.length))
      run = []
      bytes = 0
    }
    batch.entries().forEach((entry, index) => {
      const size = entrySize(entry)
      if (size > limits.maxEntryBytes) {
        flush()
        tooLarge.push({ index, why: `${size} bytes are more than the ${limits.maxEntryBytes} that ${label} takes` })
        return
      }
      if (run.length >= limits.maxEntries || bytes + size + 1 > limits.maxBytes) flush()
      run.push(index)
      bytes += size + 1
    })
    flush()
    if (tooLarge.length > 0)
      refuse(
        {
          id: '',
          attempt: 1,
          order: 0,
          payload: batch,
          slices: [{ item: tracked, from: 0, count: batch.count }],
          count: batch.count,
          notBefore: 0,
        },
        tooLarge,
      )
    return jobs
  }

  private write(payload: Batch | Segment, slices: readonly Slice[], count: number): PendingWrite {
    const order = ++this.serial
    return { id: `${this.parts.id}-${order}`, attempt: 0, order, payload, slices, count, notBefore: 0 }
  }
}
