/** The table of leases over the AWS SDK, which nothing else here touches. Does not retry. */
import type * as Sdk from '@aws-sdk/client-dynamodb'
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { credentialsOf, regionOf, type Environment } from '../../aws/credentials'
import { handlerOf } from '../../aws/handler'
import { Refused } from '../../core/errors'
import type { Clock } from '../../core/contract'
import type { OptionsOf } from '../../options/define'
import { classify, layoutFault, type TablePlace } from './lease-errors'
import {
  askUpdate,
  expressionsOf,
  newItem,
  rowOf,
  takeUpdate,
  writeUpdate,
  type Change,
  type Hold,
  type Item,
  type LeaseRow,
  type LeaseTable,
  type Update,
  type Written,
} from './lease-table'
import type { KinesisOptions } from './options'
import type { Checkpoint, Shard } from './wire'

const CONNECT_MS = 5000
/** A page of a scan holds 1 MB of items, which JSON makes larger. */
const MOST_BYTES = 16 * 1024 * 1024
/** A table is there within seconds of being asked for. */
const LOOK_MS = 250

export interface TableSettings {
  readonly options: OptionsOf<KinesisOptions>
  /** Of the stream. */
  readonly region: string | undefined
  /** What AT_TIMESTAMP means in a row that does not say. */
  readonly since: number | undefined
  /** Milliseconds that one request may take. */
  readonly withinMs: number
  readonly clock: Clock
}

class DynamoTable implements LeaseTable {
  constructor(
    private readonly sdk: typeof Sdk,
    private readonly client: DynamoDBClient,
    private readonly place: TablePlace,
    private readonly settings: TableSettings,
  ) {}

  async ready(signal: AbortSignal): Promise<void> {
    for (let made = false; ; ) {
      const table = await this.described(signal)
      if (table === undefined) {
        // Just made, it may not be seen everywhere yet.
        if (!made) await this.make(signal)
        made = true
      } else {
        const fault = layoutFault(table, this.place)
        if (fault !== undefined) throw new Refused(fault)
        if (table.TableStatus === 'ACTIVE' || table.TableStatus === 'UPDATING') return
        if (table.TableStatus !== 'CREATING')
          throw new Refused(
            `the table ${this.place.table} is ${table.TableStatus ?? 'in no state'}: wait, or name another in leases=`,
          )
      }
      await this.settings.clock.sleep(LOOK_MS, signal)
    }
  }

  async list(signal: AbortSignal): Promise<readonly LeaseRow[]> {
    const rows: LeaseRow[] = []
    for (let from: Item | undefined; ; ) {
      const page = await this.asked('list the leases', signal, (during) =>
        this.client.send(
          new this.sdk.ScanCommand({
            TableName: this.place.table,
            ConsistentRead: true,
            ...(from === undefined ? {} : { ExclusiveStartKey: from }),
          }),
          during,
        ),
      )
      for (const item of page.Items ?? []) {
        const row = this.row(item)
        if (row !== undefined) rows.push(row)
      }
      if (page.LastEvaluatedKey === undefined) return rows
      from = page.LastEvaluatedKey
    }
  }

  async create(shard: Shard, checkpoint: Checkpoint, signal: AbortSignal): Promise<boolean> {
    const written = await this.conditional(`make the lease ${shard.id}`, signal, (during) =>
      this.client.send(
        new this.sdk.PutItemCommand({
          TableName: this.place.table,
          Item: newItem(shard, checkpoint, this.settings.clock.now()),
          ConditionExpression: 'attribute_not_exists(#key)',
          ExpressionAttributeNames: { '#key': 'leaseKey' },
        }),
        during,
      ),
    )
    return written !== undefined
  }

  async take(row: LeaseRow, me: string, since: number, signal: AbortSignal): Promise<LeaseRow | undefined> {
    const written = await this.update('take', row.key, takeUpdate(row, me, since), signal)
    return written?.Attributes === undefined ? undefined : this.row(written.Attributes)
  }

  async ask(row: LeaseRow, me: string, signal: AbortSignal): Promise<boolean> {
    return (await this.update('ask for', row.key, askUpdate(row, me), signal)) !== undefined
  }

  async write(hold: Hold, change: Change, signal: AbortSignal): Promise<Written> {
    const doing =
      change.release === true ? 'give back' : change.checkpoint === undefined ? 'renew' : 'write the checkpoint of'
    if (
      (await this.update(doing, hold.key, writeUpdate(hold, change, this.settings.clock.now()), signal)) !== undefined
    )
      return { done: true }
    // Not every server tells with its refusal how things stand.
    const { Item: item } = await this.asked(`look at the lease ${hold.key}`, signal, (during) =>
      this.client.send(
        new this.sdk.GetItemCommand({
          TableName: this.place.table,
          Key: { leaseKey: { S: hold.key } },
          ConsistentRead: true,
        }),
        during,
      ),
    )
    const now = item === undefined ? undefined : this.row(item)
    return { done: false, ...(now === undefined ? {} : { now }) }
  }

  async remove(row: LeaseRow, signal: AbortSignal): Promise<void> {
    await this.conditional(`remove the finished lease ${row.key}`, signal, (during) =>
      this.client.send(
        new this.sdk.DeleteItemCommand({
          TableName: this.place.table,
          Key: { leaseKey: { S: row.key } },
          ConditionExpression: '#counter = :counter AND #checkpoint = :end',
          ExpressionAttributeNames: { '#counter': 'leaseCounter', '#checkpoint': 'checkpoint' },
          ExpressionAttributeValues: { ':counter': { N: String(row.counter) }, ':end': { S: 'SHARD_END' } },
        }),
        during,
      ),
    )
  }

  close(): void {
    this.client.destroy()
  }

  private row(item: Item): LeaseRow | undefined {
    return rowOf(item, this.settings.since, this.place.table)
  }

  private update(
    doing: string,
    key: string,
    update: Update,
    signal: AbortSignal,
  ): Promise<Sdk.UpdateItemCommandOutput | undefined> {
    return this.conditional(`${doing} the lease ${key}`, signal, (during) =>
      this.client.send(
        new this.sdk.UpdateItemCommand({
          TableName: this.place.table,
          Key: { leaseKey: { S: key } },
          ReturnValues: 'ALL_NEW',
          ...expressionsOf(update),
        }),
        during,
      ),
    )
  }

  private async described(signal: AbortSignal): Promise<Sdk.TableDescription | undefined> {
    try {
      return (
        await this.client.send(new this.sdk.DescribeTableCommand({ TableName: this.place.table }), {
          abortSignal: signal,
        })
      ).Table
    } catch (error) {
      if (nameOf(error) === 'ResourceNotFoundException') return undefined
      throw this.fault(error, 'look at the table', signal)
    }
  }

  /** As the library does by default since 2.3.3: paid by request. */
  private async make(signal: AbortSignal): Promise<void> {
    try {
      await this.client.send(
        new this.sdk.CreateTableCommand({
          TableName: this.place.table,
          BillingMode: 'PAY_PER_REQUEST',
          KeySchema: [{ AttributeName: 'leaseKey', KeyType: 'HASH' }],
          AttributeDefinitions: [{ AttributeName: 'leaseKey', AttributeType: 'S' }],
        }),
        { abortSignal: signal },
      )
    } catch (error) {
      // Another process has made it.
      if (nameOf(error) !== 'ResourceInUseException') throw this.fault(error, 'make the table', signal)
    }
  }

  /** undefined: the condition did not hold. */
  private conditional<T>(
    doing: string,
    signal: AbortSignal,
    run: (during: During) => Promise<T>,
  ): Promise<T | undefined> {
    return this.asked(doing, signal, async (during) => {
      try {
        return await run(during)
      } catch (error) {
        if (nameOf(error) === 'ConditionalCheckFailedException') return undefined
        throw error
      }
    })
  }

  private async asked<T>(doing: string, signal: AbortSignal, run: (during: During) => Promise<T>): Promise<T> {
    try {
      return await run({ abortSignal: signal })
    } catch (error) {
      throw this.fault(error, doing, signal)
    }
  }
  private fault(error: unknown, doing: string, signal: AbortSignal): unknown {
    return signal.aborted ? signal.reason : classify(error, doing, this.place)
  }
}

interface During {
  readonly abortSignal: AbortSignal
}
function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : ''
}

/** Nothing is sent yet. */
export async function connectTable(
  { options, region, since, withinMs, clock }: TableSettings,
  environment: Environment,
): Promise<LeaseTable> {
  const sdk = await import('@aws-sdk/client-dynamodb')
  const table = options.leases?.replace(/^dynamodb:/, '') ?? ''
  const { leasesEndpoint: endpoint, profile } = options
  const named = options.leasesRegion ?? region ?? regionOf(options, environment)
  const requestHandler = await handlerOf({
    connectMs: Math.min(CONNECT_MS, withinMs),
    requestMs: withinMs,
    maxSockets: 32,
    mostBytes: MOST_BYTES,
  })
  const credentials = await credentialsOf(options, environment, named, requestHandler)
  const settings: TableSettings = { options, region, since, withinMs, clock }
  const client = new sdk.DynamoDBClient({
    ...(named === undefined ? {} : { region: named }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(profile === undefined ? {} : { profile }),
    ...(credentials === undefined ? {} : { credentials }),
    maxAttempts: 1,
    requestHandler,
  })
  let place: string
  try {
    place = await client.config.region()
  } catch (error) {
    client.destroy()
    throw new Refused(
      `the settings of DynamoDB cannot be used: ${error instanceof Error ? error.message : String(error)}; region= or leases-region= names the table's region`,
      { cause: error },
    )
  }
  return new DynamoTable(sdk, client, { table, endpoint: endpoint ?? '', region: place }, settings)
}
