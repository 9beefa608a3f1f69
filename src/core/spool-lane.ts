/**
 * One sink's way out of the spool: hands pieces to its pump and moves the cursor over the contiguous prefix of what is
 * settled.
 */
import { add, nothing, type Feed, type Piece, type Tally } from './job'
import type { Delivered } from './places'
import type { Place, SealedSegment, Sequence, Spool, SpoolReader, Spooled } from './ports'

/** `through`: the sequence up to which it is settled; `tally`: what of that the cursor has not passed yet. */
interface Outstanding {
  readonly first: Sequence
  readonly next: Sequence
  readonly places: readonly Place[] | undefined
  through: Sequence
  readonly tally: Tally
}

export class SpoolLane implements Feed {
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
    readonly delivered: Delivered,
    private readonly moved: (tally: Tally) => void,
  ) {
    this.reader = unit === 'segment' ? spool.segments(sink, cursor) : spool.batches(sink, cursor)
  }

  async next(signal: AbortSignal): Promise<Piece | null> {
    const spooled = await this.reader.next(signal)
    if (spooled === null) return null
    const entry: Outstanding = {
      first: spooled.first,
      next: spooled.next,
      places: placesOf(spooled),
      through: spooled.first,
      tally: nothing(),
    }
    this.outstanding.push(entry)
    const settle = (tally: Tally): void => {
      this.advance(entry, spooled.next, tally)
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
    const reached = (count: number, tally: Tally): void => {
      this.advance(entry, first + count, tally)
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

  private advance(entry: Outstanding, through: Sequence, tally: Tally): void {
    entry.through = through
    add(entry.tally, tally)
    for (let head = this.outstanding[0]; head !== undefined && head.through > this.cursor; head = this.outstanding[0]) {
      const told = { ...head.tally }
      Object.assign(head.tally, nothing())
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

function placesOf(spooled: Spooled | SealedSegment): readonly Place[] | undefined {
  if ('kind' in spooled) return spooled.places
  return [{ source: spooled.source, partition: spooled.partition, last: spooled.at(spooled.batch.count - 1) }]
}
