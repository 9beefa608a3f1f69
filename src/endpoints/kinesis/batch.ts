/** Records of a shard as a batch: lines are made from the data alone, without an object for each record. */
import type { Batch, Entry, Lines, Refusal } from '../../core/contract'

const NEWLINE = 0x0a

/** One record as its producer meant it: of an aggregate each of its own. */
export interface Unit {
  readonly data: Buffer
  readonly partitionKey: string
  /** Epoch milliseconds. */
  readonly arrivedAt?: number | undefined
}

export class UnitBatch implements Batch {
  readonly form = 'entries'
  readonly count: number
  readonly bytes: number
  private madeEntries: readonly Entry[] | undefined
  private madeLines: Lines | undefined

  /** @param retained bytes of the buffers that the data are views into */
  constructor(
    private readonly units: readonly Unit[],
    readonly retained: number,
  ) {
    this.count = units.length
    this.bytes = units.reduce((sum, { data, partitionKey }) => sum + data.length + partitionKey.length, 0)
  }

  entries(): readonly Entry[] {
    return (this.madeEntries ??= this.units.map(({ data, partitionKey, arrivedAt }) => ({
      value: data,
      key: Buffer.from(partitionKey),
      ...(arrivedAt === undefined ? {} : { timestamp: arrivedAt }),
    })))
  }

  lines(): Lines {
    if (this.madeLines === undefined) {
      const refused: Refusal[] = []
      const bytes = Buffer.allocUnsafe(this.units.reduce((sum, { data }) => sum + data.length + 1, 0))
      let at = 0
      this.units.forEach(({ data }, index) => {
        const inner = data.indexOf(NEWLINE)
        // One newline at the end of a value is taken as the terminator that lines need anyway.
        if (inner !== -1 && inner !== data.length - 1) {
          refused.push({ index, why: 'a newline inside the value' })
          return
        }
        at += data.copy(bytes, at)
        if (inner === -1) bytes[at++] = NEWLINE
      })
      this.madeLines = {
        chunks: at === 0 ? [] : [bytes.subarray(0, at)],
        bytes: at,
        count: this.units.length - refused.length,
        refused,
      }
    }
    return this.madeLines
  }
}
