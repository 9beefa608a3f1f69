import fs from 'node:fs'
import {
  DescribeStreamConsumerCommand,
  DescribeStreamSummaryCommand,
  RegisterStreamConsumerCommand,
  SplitShardCommand,
  SubscribeToShardCommand,
} from '@aws-sdk/client-kinesis'
import { CreateTableCommand, DynamoDBClient, GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { describeWith } from './describe-with'
import {
  type AwsServer,
  get,
  kinesisClient,
  makeStream,
  put,
  shards,
  startDynamodb,
  startKinesis,
  untilActive,
} from './kinesis'

/** What was there before is gone: neither process nor folder. */
async function expectGone(server: AwsServer): Promise<void> {
  server.freeze()
  await server.stop()
  expect(() => process.kill(server.pid!, 0)).toThrow('ESRCH')
  expect(fs.existsSync(server.dir!)).toBe(false)
}

describeWith('kinesis', 'kinesalite of the tests', () => {
  it('reshards, survives kill -9 with its records, and leaves nothing', async () => {
    const server = await startKinesis({ kind: 'kinesalite' })
    const client = kinesisClient(server)
    try {
      const stream = await makeStream(client)
      await put(
        client,
        stream,
        Array.from({ length: 1200 }, (_, i) => ({ key: `key ${i}`, data: `one ${i}` })),
      )
      const [parent] = await shards(client, stream)
      await client.send(
        new SplitShardCommand({
          StreamName: stream,
          ShardToSplit: parent!.ShardId,
          NewStartingHashKey: String(2n ** 127n),
        }),
      )
      await untilActive(client, stream)
      await put(client, stream, [
        { key: 'low', data: 'two', hash: '0' },
        { key: 'high', data: 'three', hash: String(2n ** 127n) },
      ])
      await server.kill()
      await server.restart()
      expect((await shards(client, stream)).map(({ ParentShardId }) => ParentShardId)).toEqual([
        undefined,
        parent!.ShardId,
        parent!.ShardId,
      ])
      expect((await get(client, stream)).map(({ data }) => String(data))).toEqual([
        ...Array.from({ length: 1200 }, (_, i) => `one ${i}`),
        'two',
        'three',
      ])
    } finally {
      client.destroy()
      await expectGone(server)
    }
  })
})

describeWith('kinesis-fanout', 'kinesis-local of the tests', () => {
  it('pushes to a registered consumer', async () => {
    const server = await startKinesis({ kind: 'kinesis-local' })
    const client = kinesisClient(server)
    try {
      const stream = await makeStream(client, 2)
      await put(client, stream, [
        { key: 'low', data: 'one', hash: '0' },
        { key: 'high', data: 'two', hash: String(2n ** 127n) },
      ])
      const { StreamDescriptionSummary } = await client.send(new DescribeStreamSummaryCommand({ StreamName: stream }))
      const { Consumer } = await client.send(
        new RegisterStreamConsumerCommand({ StreamARN: StreamDescriptionSummary!.StreamARN, ConsumerName: 'reader' }),
      )
      const consumer = { ConsumerARN: Consumer!.ConsumerARN! }
      while (
        (await client.send(new DescribeStreamConsumerCommand(consumer))).ConsumerDescription?.ConsumerStatus !==
        'ACTIVE'
      )
        await new Promise((resolve) => setTimeout(resolve, 10))
      const [first] = await shards(client, stream)
      const { EventStream } = await client.send(
        new SubscribeToShardCommand({
          ...consumer,
          ShardId: first!.ShardId,
          StartingPosition: { Type: 'TRIM_HORIZON' },
        }),
      )
      for await (const event of EventStream!) {
        const records = event.SubscribeToShardEvent?.Records ?? []
        if (records.length === 0) continue
        expect(records.map(({ Data }) => Buffer.from(Data!).toString())).toEqual(['one'])
        break
      }
    } finally {
      client.destroy()
      await expectGone(server)
    }
  }, 60_000)
})

describeWith('dynamodb', 'dynalite of the tests', () => {
  it('lets one of several racers win, survives kill -9 with it, and leaves nothing', async () => {
    const server = await startDynamodb({ kind: 'dynalite' })
    const client = new DynamoDBClient({
      endpoint: server.endpoint,
      region: server.region,
      credentials: { accessKeyId: server.accessKey, secretAccessKey: server.secretKey },
    })
    try {
      await client.send(
        new CreateTableCommand({
          TableName: 'leases',
          AttributeDefinitions: [{ AttributeName: 'key', AttributeType: 'S' }],
          KeySchema: [{ AttributeName: 'key', KeyType: 'HASH' }],
          BillingMode: 'PAY_PER_REQUEST',
        }),
      )
      const race = (owner: number) =>
        client.send(
          new PutItemCommand({
            TableName: 'leases',
            Item: { key: { S: 'a' }, owner: { N: String(owner) } },
            ConditionExpression: 'attribute_not_exists(#k)',
            ExpressionAttributeNames: { '#k': 'key' },
          }),
        )
      let results: PromiseSettledResult<unknown>[] = []
      // The table is there a few ms later.
      while (results.every(({ status }) => status === 'rejected'))
        results = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => race(i)))
      const winners = results.flatMap(({ status }, i) => (status === 'fulfilled' ? [i] : []))
      expect(winners).toHaveLength(1)
      await server.kill()
      await server.restart()
      expect(
        (await client.send(new GetItemCommand({ TableName: 'leases', Key: { key: { S: 'a' } } }))).Item?.['owner'],
      ).toEqual({ N: String(winners[0]) })
    } finally {
      client.destroy()
      await expectGone(server)
    }
  })
})
