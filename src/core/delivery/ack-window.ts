/**
 * Keeps what has been read and is not yet settled, per partition, where no spool stands between. Records settle in any
 * order, and the contiguous prefix is released to the source. Reading waits while the window is full.
 */
import type { Partition, Position } from '../contract'

export interface Ticket {
  /** Call it when every record of the delivery is confirmed or accounted for. A second call does nothing. */
  settle(): void
}
interface Held {
  readonly partition: Partition
  readonly position: Position
  readonly records: number
  readonly bytes: number
  settled: boolean
}

export class AckWindow {
  private readonly queues = new Map<string, Held[]>()
  private waiting: (() => void)[] = []
  records = 0
  bytes = 0

  /**
   * @param release called with the newest position of the contiguous settled prefix of a partition
   * @param cap bytes and records that may be in memory
   */
  constructor(
    private readonly release: (source: string, partition: Partition, position: Position) => void,
    private readonly cap: { readonly bytes: number; readonly records: number },
  ) {}

  /** Resolves when another delivery may be read. An empty window always lets one in, however large it is. */
  async capacity(signal: AbortSignal): Promise<void> {
    while (this.records > 0 && (this.bytes >= this.cap.bytes || this.records >= this.cap.records)) {
      if (signal.aborted) throw signal.reason
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal.removeEventListener('abort', done)
          resolve()
        }
        this.waiting.push(done)
        signal.addEventListener('abort', done, { once: true })
      })
    }
  }

  /** Enters a delivery. The order of the calls per partition is the order of the source. */
  enter(source: string, partition: Partition, position: Position, records: number, bytes: number): Ticket {
    const held: Held = { partition, position, records, bytes, settled: false }
    const name = `${source}\n${partition.name}`
    let queue = this.queues.get(name)
    if (queue === undefined) this.queues.set(name, (queue = []))
    queue.push(held)
    this.records += records
    this.bytes += bytes
    return {
      settle: () => {
        if (!held.settled) {
          held.settled = true
          this.advance(source, name, held)
        }
      },
    }
  }

  private advance(source: string, name: string, held: Held): void {
    this.records -= held.records
    this.bytes -= held.bytes
    const queue = this.queues.get(name)
    let newest: Held | undefined
    while (queue?.[0]?.settled === true) newest = queue.shift()
    if (queue?.length === 0) this.queues.delete(name)
    if (newest !== undefined) this.release(source, newest.partition, newest.position)
    for (const wake of this.waiting.splice(0)) wake()
  }

  /** Counts the records of a partition that have entered and are not settled. */
  unsettled(source: string, partition: string): number {
    return (this.queues.get(`${source}\n${partition}`) ?? []).reduce(
      (sum, { settled, records }) => sum + (settled ? 0 : records),
      0,
    )
  }
}
