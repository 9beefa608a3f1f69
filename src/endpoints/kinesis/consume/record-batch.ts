/** Records of a shard as a batch: lines are made from the data alone, without an object for each record. */
import type { Batch, Entry, Lines, Refusal } from '../../../core/contract'

const NEWLINE = 0x0a

/** One record as its producer meant it: of an aggregate each of its own. */
export interface ConsumedRecord {
  readonly data: Buffer
  readonly partitionKey: string
  /** Epoch milliseconds. */
  readonly arrivedAt?: number | undefined
}

export class RecordBatch implements Batch {
  readonly form = 'entries'
  readonly count: number
  readonly bytes: number
  private cachedEntries: readonly Entry[] | undefined
  private cachedLines: Lines | undefined

  /** @param retained bytes of the buffers that the data are views into */
  constructor(
    private readonly records: readonly ConsumedRecord[],
    readonly retained: number,
  ) {
    this.count = records.length
    this.bytes = records.reduce((sum, { data, partitionKey }) => sum + data.length + partitionKey.length, 0)
  }

  entries(): readonly Entry[] {
    return (this.cachedEntries ??= this.records.map(({ data, partitionKey, arrivedAt }) => ({
      value: data,
      key: Buffer.from(partitionKey),
      ...(arrivedAt === undefined ? {} : { timestamp: arrivedAt }),
    })))
  }

  lines(): Lines {
    if (this.cachedLines === undefined) {
      const refused: Refusal[] = []
      const bytes = Buffer.allocUnsafe(this.records.reduce((sum, { data }) => sum + data.length + 1, 0))
      let at = 0
      this.records.forEach(({ data }, index) => {
        const newlineAt = data.indexOf(NEWLINE)
        // One newline at the end of a value is taken as the terminator that lines need anyway.
        if (newlineAt !== -1 && newlineAt !== data.length - 1) {
          refused.push({ index, why: 'a newline inside the value' })
          return
        }
        at += data.copy(bytes, at)
        if (newlineAt === -1) bytes[at++] = NEWLINE
      })
      this.cachedLines = {
        chunks: at === 0 ? [] : [bytes.subarray(0, at)],
        bytes: at,
        count: this.records.length - refused.length,
        refused,
      }
    }
    return this.cachedLines
  }
}
