/** An independent encoder and de-aggregator of aggregates (aws-kinesis-agg). */
import * as library from 'aws-kinesis-agg'
import type { UserRecord } from '../../../src/endpoints/kinesis/aggregate'

interface ForeignRecord {
  readonly partitionKey: string
  readonly explicitPartitionKey?: string | null
  readonly data: string
}
/** Its own types lack the class, and name packages that are not here. */
const { RecordAggregator, deaggregateSync } = library as unknown as {
  readonly RecordAggregator: new () => {
    addUserRecord(record: UserRecord): void
    build(): { readonly data: Uint8Array } | undefined
  }
  deaggregateSync(
    record: object,
    checksums: boolean,
    done: (error: unknown, records?: readonly ForeignRecord[]) => void,
  ): void
}

export function aggregate(records: readonly UserRecord[]): Buffer {
  const aggregator = new RecordAggregator()
  for (const { partitionKey, explicitHashKey, data } of records)
    aggregator.addUserRecord({ partitionKey, data, ...(explicitHashKey === undefined ? {} : { explicitHashKey }) })
  const made = aggregator.build()
  if (made === undefined) throw new Error('nothing was aggregated')
  return Buffer.from(made.data)
}

/** A record that is no aggregate comes as it is. */
export function deaggregate(data: Buffer, sequenceNumber = '1'): readonly UserRecord[] {
  let failed: unknown
  let found: readonly ForeignRecord[] = []
  deaggregateSync(
    { data: data.toString('base64'), partitionKey: 'a', sequenceNumber, kinesisSchemaVersion: '1.0' },
    true,
    (error, records) => {
      failed = error
      found = records ?? []
    },
  )
  if (failed instanceof Error) throw failed
  return found.map(({ partitionKey, explicitPartitionKey, data: text }) => ({
    partitionKey,
    data: Buffer.from(text, 'base64'),
    ...(typeof explicitPartitionKey === 'string' && explicitPartitionKey !== ''
      ? { explicitHashKey: explicitPartitionKey }
      : {}),
  }))
}
