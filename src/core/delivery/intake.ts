/**
 * Takes in the deliveries of all sources. It counts them, makes dead letters of invalid records, and hands the rest to
 * the spool, or to the ack window and straight to the sink.
 */
import { unlessAborted } from '../../kit/signal'
import type { AckWindow } from './ack-window'
import { only, within } from '../batch'
import type { Committer } from './committer'
import type { Delivery, Partition } from '../contract'
import type { DirectFeed } from './direct-feed'
import type { FlowParts, SourcePart } from '../flow/flow-parts'
import type { RunControl } from '../flow/run-control'
import type { Gaps } from '../accounting/gaps'
import { transformDelivery, type TransformedDelivery } from './transform-delivery'
import type { Counts } from './pending-write'
import type { Ledger } from '../accounting/ledger'
import { splitBytes, splitDelivery } from './split-delivery'
import type { Sequence, Spool } from '../flow/ports'
import type { PendingCommits } from './pending-commits'
import type { ResentCounter } from '../accounting/resent-counter'
import type { SpoolBackpressure } from './spool-backpressure'

/** The source that a delivery came from. */
interface Origin {
  readonly part: SourcePart
  readonly committer: Committer
}

export interface IntakeParts {
  readonly flow: FlowParts
  readonly ledger: Ledger
  readonly gaps: Gaps
  /** It is there with a spool. */
  readonly backpressure: SpoolBackpressure | undefined
  readonly pendingCommits: PendingCommits
  /** It is there without a spool. */
  readonly direct: DirectFeed | undefined
  readonly window: AckWindow
  readonly resent: ResentCounter
  readonly control: RunControl
  /** The sinks of the run; without a spool there is one. */
  readonly sinks: readonly { settled(counts: Counts): void }[]
}

export class Intake {
  /** The sequence after the last record that is durable in the spool. */
  acceptedThrough: Sequence

  /** The last append of each source, while it is under way. */
  private readonly newest = new Map<string, Promise<void>>()
  /** So many bytes are taken in at once. */
  private readonly most: number

  constructor(private readonly parts: IntakeParts) {
    this.acceptedThrough = parts.flow.spool?.head ?? 0
    this.most = splitBytes(parts.flow.sinks)
  }

  /** Resolves when the next delivery may be read. */
  async take(from: Origin, delivery: Delivery, receivedAt: number): Promise<void> {
    for (const piece of splitDelivery(delivery, this.most)) if (!(await this.takeOne(from, piece, receivedAt))) return
  }

  /** Resolves to false if nothing beyond the delivery may go on. */
  private async takeOne(from: Origin, delivery: Delivery, receivedAt: number): Promise<boolean> {
    const {
      ledger,
      gaps,
      flow: { spool, until, deadLetters, transform, toLines, refuseInner },
      control,
    } = this.parts
    const { id, label } = from.part
    // Records that fill a gap come before those that follow it.
    const filled = gaps.filled(id)
    if (filled !== undefined) await unlessAborted(filled, control.cut)
    const limited =
      until.count === undefined ? delivery : this.limit(delivery, until.count - (ledger.read - ledger.filteredAtRead))
    if (limited === undefined) {
      delivery.release?.()
      return true
    }
    ledger.read += limited.batch.count + (limited.invalid?.length ?? 0) + (limited.filtered ?? 0)
    ledger.filteredAtRead += limited.filtered ?? 0
    ledger.bytesRead += limited.batch.bytes
    const again = this.parts.resent.count(from.part, limited)
    ledger.doubtfulAtRead += Math.min((limited.doubtful ?? 0) + again, limited.batch.count)
    const taken = await transformDelivery(
      limited,
      receivedAt,
      { label, transform, toLines, refuseInner, deadLetters },
      control.cut,
    )
    if (taken.stop === undefined)
      ledger[deadLetters.policy === 'drop' ? 'droppedAtRead' : 'refusedAtRead'] += taken.refused
    else ledger.refusedAtRead += taken.refused
    const free = (): void => {
      delivery.release?.()
    }
    if (spool !== undefined) this.append(from, spool, limited.partition, taken, receivedAt, free)
    else this.hand(from.part, limited.partition, taken, receivedAt, free)
    if (taken.stop !== undefined) control.unplaced(taken.stop)
    return taken.stop === undefined
  }

  /**
   * Returns the delivery up to the Nth record, for `--until count=N`; reading ends with it. If all N are here already
   * it returns undefined, and neither records nor position of the delivery are taken. Mere progress goes on, because it
   * lies before whatever is left.
   */
  private limit(delivery: Delivery, left: number): Delivery | undefined {
    const { batch, invalid = [], last } = delivery
    if (batch.count + invalid.length >= left) this.parts.control.enough()
    if (batch.count + invalid.length <= Math.max(0, left)) return delivery
    if (left <= 0) return undefined
    const count = Math.min(batch.count, left)
    const taken = invalid.slice(0, left - count)
    return {
      ...delivery,
      at: within(count, (index) => delivery.at(index)),
      invalid: taken,
      last: taken.at(-1)?.position ?? (count > 0 ? delivery.at(count - 1) : last),
      batch:
        count === batch.count
          ? batch
          : only(
              batch,
              Array.from({ length: count }, (_, index) => index),
            ),
    }
  }

  private append(
    { part, committer }: Origin,
    spool: Spool,
    partition: Partition,
    taken: TransformedDelivery,
    receivedAt: number,
    free: () => void,
  ): void {
    const { backpressure, control, ledger, pendingCommits } = this.parts
    const { batch, last, stop } = taken
    if (stop !== undefined && batch.count === 0) return
    backpressure?.enter(batch.retained)
    const durable = spool
      .append({ source: part.id, partition, batch, last, at: (index) => taken.at(index), receivedAt })
      .then(({ next }) => {
        ledger.accepted += batch.count
        this.acceptedThrough = Math.max(this.acceptedThrough, next)
        if (part.commitOnceSpooled) committer.offer(partition, last)
        else if (part.position === 'upstream') {
          pendingCommits.add(next, committer, partition, last)
          control.commitDelivered()
        }
        control.touch()
        free()
      })
      .finally(() => {
        backpressure?.leave(batch.retained)
        if (this.newest.get(part.id) === durable) this.newest.delete(part.id)
      })
    this.newest.set(part.id, durable)
    control.track(durable)
  }

  /** Calls `run` once all that came from the source before is in the spool. */
  whenDurable({ id }: SourcePart, run: () => void): void {
    const newest = this.newest.get(id)
    // If the append fails the run ends, and says why elsewhere.
    if (newest === undefined) run()
    else newest.then(run, () => undefined)
  }

  private hand(
    part: SourcePart,
    partition: Partition,
    taken: TransformedDelivery,
    receivedAt: number,
    free: () => void,
  ): void {
    const { ledger, window, direct, sinks } = this.parts
    const { batch, last } = taken
    ledger.accepted += batch.count
    if (taken.stop !== undefined && batch.count === 0) return
    const ticket = window.enter(part.id, partition, last, batch.count, batch.retained)
    if (batch.count === 0) {
      ticket.settle()
      free()
      return
    }
    direct?.push({
      payload: batch,
      count: batch.count,
      origin: (index) => ({ source: part.label, partition: partition.name, position: taken.at(index), receivedAt }),
      settle: (counts) => {
        for (const sink of sinks) sink.settled(counts)
        ticket.settle()
        free()
      },
    })
  }
}
