/** One sink's way out of the spool: hands pieces to its pump and moves the cursor over the contiguous prefix of what is settled. */
import type { Feed, Piece, Tally } from './job'
import type { SealedSegment, Sequence, Spool, SpoolReader, Spooled } from './ports'

interface Outstanding { readonly next: Sequence; tally: Tally | undefined }

export class SpoolLane implements Feed {
  private readonly outstanding: Outstanding[] = []
  private readonly reader: SpoolReader<Spooled | SealedSegment>

  /**
   * @param spoolId unique among spools, hex
   * @param labelOf of a source, by its identity: what people and destinations are told
   * @param moved called when the cursor moved, with what was settled below it
   */
  constructor(spool: Spool, private readonly spoolId: string, private readonly labelOf: (source: string) => string, sink: string, unit: 'batch' | 'segment', public cursor: Sequence, private readonly moved: (tally: Tally) => void) {
    this.reader = unit === 'segment' ? spool.segments(sink, cursor) : spool.batches(sink, cursor)
  }

  async next(signal: AbortSignal): Promise<Piece | null> {
    const spooled = await this.reader.next(signal)
    if (spooled === null) return null
    const entry: Outstanding = { next: spooled.next, tally: undefined }
    this.outstanding.push(entry)
    const settle = (tally: Tally): void => {
      entry.tally = tally
      while (this.outstanding[0]?.tally !== undefined) {
        const head = this.outstanding.shift()
        if (head?.tally === undefined) break
        this.cursor = head.next
        this.moved(head.tally)
      }
    }
    if ('kind' in spooled) {
      return { payload: spooled, count: spooled.count, settle, origin: () => ({ source: '', partition: '', position: '', sequence: spooled.first, receivedAt: 0 }) }
    }
    const { batch, partition, receivedAt, first } = spooled
    const source = this.labelOf(spooled.source)
    return { payload: batch, count: batch.count, settle, origin: (index) => ({ source, partition, position: spooled.at(index), sequence: first + index, id: `${this.spoolId}-${first + index}`, receivedAt }) }
  }
}
