/**
 * Kinesis and DynamoDB for tests: emulators, streams of its own for each test, records put in and read back without
 * manifold.
 */
import {
  CreateStreamCommand,
  DescribeStreamSummaryCommand,
  GetRecordsCommand,
  GetShardIteratorCommand,
  KinesisClient,
  ListShardsCommand,
  MergeShardsCommand,
  PutRecordsCommand,
  type Shard,
  SplitShardCommand,
} from '@aws-sdk/client-kinesis'
import { NodeHttpHandler } from '@smithy/node-http-handler'
import type { AwsServer } from '../../scripts/services/kinesis'

export { available, type AwsServer, startDynamodb, startKinesis } from '../../scripts/services/kinesis'

export interface Put {
  readonly key: string
  readonly data: Buffer | string
  readonly hash?: string
}
export interface Got {
  readonly shard: string
  readonly sequence: string
  readonly key: string
  readonly data: Buffer
}

/** Over HTTP/1.1, as the emulators want it. Call `destroy` at the end. */
export function kinesisClient(server: AwsServer): KinesisClient {
  return new KinesisClient({
    endpoint: server.endpoint,
    region: server.region,
    credentials: { accessKeyId: server.accessKey, secretAccessKey: server.secretKey },
    requestHandler: new NodeHttpHandler(),
  })
}

/** Resolves once it is active: after it was made, and after each change of its shards. */
export async function untilActive(client: KinesisClient, stream: string): Promise<void> {
  while (
    (await client.send(new DescribeStreamSummaryCommand({ StreamName: stream }))).StreamDescriptionSummary
      ?.StreamStatus !== 'ACTIVE'
  )
    await new Promise((resolve) => setTimeout(resolve, 10))
}

/** A stream that nobody else uses. */
export async function makeStream(client: KinesisClient, shards = 1): Promise<string> {
  const stream = `stream-${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`
  await client.send(new CreateStreamCommand({ StreamName: stream, ShardCount: shards }))
  await untilActive(client, stream)
  return stream
}

/** Throws where a record was not taken. */
export async function put(client: KinesisClient, stream: string, records: readonly Put[]): Promise<void> {
  for (let from = 0; from < records.length; from += 500) {
    const { FailedRecordCount } = await client.send(
      new PutRecordsCommand({
        StreamName: stream,
        Records: records.slice(from, from + 500).map(({ key, data, hash }) => ({
          PartitionKey: key,
          Data: Buffer.from(data as string),
          ...(hash === undefined ? {} : { ExplicitHashKey: hash }),
        })),
      }),
    )
    if (FailedRecordCount !== 0) throw new Error(`${FailedRecordCount} records were not taken`)
  }
}

/** All there ever were, parents before their children. */
export async function shards(client: KinesisClient, stream: string): Promise<readonly Shard[]> {
  const all: Shard[] = []
  for (let token: string | undefined; ; ) {
    const page = await client.send(
      new ListShardsCommand(token === undefined ? { StreamName: stream } : { NextToken: token }),
    )
    all.push(...(page.Shards ?? []))
    if (page.NextToken === undefined) return all
    token = page.NextToken
  }
}

/** In two halves. */
export async function split(client: KinesisClient, stream: string, shard: string): Promise<void> {
  const { HashKeyRange } = (await shards(client, stream)).find(({ ShardId }) => ShardId === shard)!
  const [from, to] = [BigInt(HashKeyRange!.StartingHashKey!), BigInt(HashKeyRange!.EndingHashKey!)]
  await client.send(
    new SplitShardCommand({
      StreamName: stream,
      ShardToSplit: shard,
      NewStartingHashKey: String((from + to) / 2n + 1n),
    }),
  )
  await untilActive(client, stream)
}

/** They have to be neighbours. */
export async function merge(client: KinesisClient, stream: string, one: string, other: string): Promise<void> {
  await client.send(new MergeShardsCommand({ StreamName: stream, ShardToMerge: one, AdjacentShardToMerge: other }))
  await untilActive(client, stream)
}

/** Everything that is in it now, shard by shard. */
export async function get(client: KinesisClient, stream: string): Promise<readonly Got[]> {
  const got: Got[] = []
  for (const { ShardId } of await shards(client, stream)) {
    let { ShardIterator: iterator } = await client.send(
      new GetShardIteratorCommand({ StreamName: stream, ShardId, ShardIteratorType: 'TRIM_HORIZON' }),
    )
    for (let idle = 0; iterator !== undefined && idle < 2; ) {
      const { Records = [], NextShardIterator } = await client.send(new GetRecordsCommand({ ShardIterator: iterator }))
      for (const { PartitionKey, SequenceNumber, Data } of Records)
        got.push({ shard: ShardId!, sequence: SequenceNumber!, key: PartitionKey!, data: Buffer.from(Data!) })
      // An empty page is not the end: one more must be empty as well.
      idle = Records.length === 0 ? idle + 1 : 0
      iterator = NextShardIterator
    }
  }
  return got
}
