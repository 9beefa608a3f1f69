/**
 * Feeds one sink out of the spool: it hands items to the pump, and moves the cursor over the contiguous prefix of those
 * that are settled.
 */
import { addCounts, noCounts, type Feed, type FeedItem, type Counts } from './pending-write'
import type { DeliveredPositions } from '../accounting/delivered-positions'
import type { PartitionPosition, SealedSegment, Sequence, Spool, SpoolReader, Spooled } from '../flow/ports'

/** `through`: the sequence up to which it is settled; `counts`: what of that the cursor has not passed yet. */
interface Outstanding {
  readonly first: Sequence
  readonly next: Sequence
  readonly places: readonly PartitionPosition[] | undefined
  through: Sequence
  readonly counts: Counts
}

export class SpoolFeed implements Feed {
  private readonly outstanding: Outstanding[] = []
  private readonly reader: SpoolReader<Spooled | SealedSegment>

  /**
   * @param spoolId unique among spools, hex
   * @param labelOf of a source, by its identity: what people and destinations are told
   * @param moved called when the cursor moved, with what was settled below it
   */
  constructor(
    spool: Spool,
    private readonly spoolId: string,
    private readonly labelOf: (source: string) => string,
    sink: string,
    unit: 'batch' | 'segment',
    public cursor: Sequence,
    readonly delivered: DeliveredPositions,
    private readonly moved: (counts: Counts) => void,
  ) {
    this.reader = unit === 'segment' ? spool.segments(sink, cursor) : spool.batches(sink, cursor)
  }

  async next(signal: AbortSignal): Promise<FeedItem | null> {
    const spooled = await this.reader.next(signal)
    if (spooled === null) return null
    const entry: Outstanding = {
      first: spooled.first,
      next: spooled.next,
      places: placesOf(spooled),
      through: spooled.first,
      counts: noCounts(),
    }
    this.outstanding.push(entry)
    const settle = (counts: Counts): void => {
      this.advance(entry, spooled.next, counts)
    }
    if ('kind' in spooled) {
      return {
        payload: spooled,
        count: spooled.count,
        settle,
        origin: () => ({ source: '', partition: '', position: '', sequence: spooled.first, receivedAt: 0 }),
      }
    }
    const { batch, partition, receivedAt, first } = spooled
    const source = this.labelOf(spooled.source)
    const reached = (count: number, counts: Counts): void => {
      this.advance(entry, first + count, counts)
    }
    return {
      payload: batch,
      count: batch.count,
      settle,
      reached,
      origin: (index) => ({
        source,
        partition,
        position: spooled.at(index),
        sequence: first + index,
        id: `${this.spoolId}-${first + index}`,
        receivedAt,
      }),
    }
  }

  private advance(entry: Outstanding, through: Sequence, counts: Counts): void {
    entry.through = through
    addCounts(entry.counts, counts)
    for (let head = this.outstanding[0]; head !== undefined && head.through > this.cursor; head = this.outstanding[0]) {
      const told = { ...head.counts }
      Object.assign(head.counts, noCounts())
      const records = head.through - Math.max(this.cursor, head.first)
      this.cursor = head.through
      if (head.through < head.next) this.delivered.within(head.places?.[0], records)
      else this.delivered.moved(head.places)
      this.moved(told)
      if (head.through < head.next) return
      this.outstanding.shift()
    }
  }
}

function placesOf(spooled: Spooled | SealedSegment): readonly PartitionPosition[] | undefined {
  if ('kind' in spooled) return spooled.positions
  return [{ source: spooled.source, partition: spooled.partition, last: spooled.at(spooled.batch.count - 1) }]
}
