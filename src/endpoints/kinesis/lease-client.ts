/** The table of leases over the AWS SDK, which nothing else here touches. Does not retry. */
import type * as Sdk from '@aws-sdk/client-dynamodb'
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { credentialsOf, regionOf, type Environment } from '../../aws/credentials'
import { createRequestHandler } from '../../aws/handler'
import { Refused } from '../../core/errors'
import type { Clock } from '../../core/contract'
import type { OptionsOf } from '../../options/define'
import { classify, layoutFault, type TableFaultContext } from './leases/table-errors'
import {
  requestUpdate,
  expressionsOf,
  newItem,
  rowOf,
  takeUpdate,
  writeUpdate,
  type LeaseChange,
  type LeaseClaim,
  type DynamoItem,
  type LeaseRow,
  type LeaseTable,
  type ItemUpdate,
  type WriteResult,
} from './leases/table'
import type { KinesisOptions } from './options'
import type { Checkpoint, Shard } from './stream-client'

const CONNECT_MS = 5000
/** A page of a scan holds 1 MB of items, which JSON makes larger. */
const MAX_RESPONSE_BYTES = 16 * 1024 * 1024
/** A table is there within seconds of being asked for. */
const DESCRIBE_EVERY_MS = 250

export interface TableSettings {
  readonly options: OptionsOf<KinesisOptions>
  /** Of the stream. */
  readonly region: string | undefined
  /** AT_TIMESTAMP means this in a row that does not say. */
  readonly since: number | undefined
  /** Milliseconds that one request may take. */
  readonly withinMs: number
  readonly clock: Clock
}

class DynamoTable implements LeaseTable {
  constructor(
    private readonly sdk: typeof Sdk,
    private readonly client: DynamoDBClient,
    private readonly context: TableFaultContext,
    private readonly settings: TableSettings,
  ) {}

  async ready(signal: AbortSignal): Promise<void> {
    for (let made = false; ; ) {
      const table = await this.describeTable(signal)
      if (table === undefined) {
        // Just made, it may not be seen everywhere yet.
        if (!made) await this.createTable(signal)
        made = true
      } else {
        const fault = layoutFault(table, this.context)
        if (fault !== undefined) throw new Refused(fault)
        if (table.TableStatus === 'ACTIVE' || table.TableStatus === 'UPDATING') return
        if (table.TableStatus !== 'CREATING')
          throw new Refused(
            `the table ${this.context.table} is ${table.TableStatus ?? 'in no state'}: wait, or name another in leases=`,
          )
      }
      await this.settings.clock.sleep(DESCRIBE_EVERY_MS, signal)
    }
  }

  async list(signal: AbortSignal): Promise<readonly LeaseRow[]> {
    const rows: LeaseRow[] = []
    for (let from: DynamoItem | undefined; ; ) {
      const page = await this.call('list the leases', signal, (during) =>
        this.client.send(
          new this.sdk.ScanCommand({
            TableName: this.context.table,
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
          TableName: this.context.table,
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

  async request(row: LeaseRow, me: string, signal: AbortSignal): Promise<boolean> {
    return (await this.update('ask for', row.key, requestUpdate(row, me), signal)) !== undefined
  }

  async write(hold: LeaseClaim, change: LeaseChange, signal: AbortSignal): Promise<WriteResult> {
    const doing =
      change.release === true ? 'give back' : change.checkpoint === undefined ? 'renew' : 'write the checkpoint of'
    if (
      (await this.update(doing, hold.key, writeUpdate(hold, change, this.settings.clock.now()), signal)) !== undefined
    )
      return { done: true }
    // Not every server tells with its refusal how things stand.
    const { Item: item } = await this.call(`look at the lease ${hold.key}`, signal, (during) =>
      this.client.send(
        new this.sdk.GetItemCommand({
          TableName: this.context.table,
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
          TableName: this.context.table,
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

  private row(item: DynamoItem): LeaseRow | undefined {
    return rowOf(item, this.settings.since, this.context.table)
  }

  private update(
    doing: string,
    key: string,
    update: ItemUpdate,
    signal: AbortSignal,
  ): Promise<Sdk.UpdateItemCommandOutput | undefined> {
    return this.conditional(`${doing} the lease ${key}`, signal, (during) =>
      this.client.send(
        new this.sdk.UpdateItemCommand({
          TableName: this.context.table,
          Key: { leaseKey: { S: key } },
          ReturnValues: 'ALL_NEW',
          ...expressionsOf(update),
        }),
        during,
      ),
    )
  }

  private async describeTable(signal: AbortSignal): Promise<Sdk.TableDescription | undefined> {
    try {
      return (
        await this.client.send(new this.sdk.DescribeTableCommand({ TableName: this.context.table }), {
          abortSignal: signal,
        })
      ).Table
    } catch (error) {
      if (nameOf(error) === 'ResourceNotFoundException') return undefined
      throw this.fault(error, 'look at the table', signal)
    }
  }

  /** As the library does by default since 2.3.3: paid by request. */
  private async createTable(signal: AbortSignal): Promise<void> {
    try {
      await this.client.send(
        new this.sdk.CreateTableCommand({
          TableName: this.context.table,
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
    run: (during: CallOptions) => Promise<T>,
  ): Promise<T | undefined> {
    return this.call(doing, signal, async (during) => {
      try {
        return await run(during)
      } catch (error) {
        if (nameOf(error) === 'ConditionalCheckFailedException') return undefined
        throw error
      }
    })
  }

  private async call<T>(doing: string, signal: AbortSignal, run: (during: CallOptions) => Promise<T>): Promise<T> {
    try {
      return await run({ abortSignal: signal })
    } catch (error) {
      throw this.fault(error, doing, signal)
    }
  }
  private fault(error: unknown, doing: string, signal: AbortSignal): unknown {
    return signal.aborted ? signal.reason : classify(error, doing, this.context)
  }
}

interface CallOptions {
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
  const askedRegion = options.leasesRegion ?? region ?? regionOf(options, environment)
  const requestHandler = await createRequestHandler({
    connectMs: Math.min(CONNECT_MS, withinMs),
    requestMs: withinMs,
    maxSockets: 32,
    maxBytes: MAX_RESPONSE_BYTES,
  })
  const credentials = await credentialsOf(options, environment, askedRegion, requestHandler)
  const settings: TableSettings = { options, region, since, withinMs, clock }
  const client = new sdk.DynamoDBClient({
    ...(askedRegion === undefined ? {} : { region: askedRegion }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(profile === undefined ? {} : { profile }),
    ...(credentials === undefined ? {} : { credentials }),
    maxAttempts: 1,
    requestHandler,
  })
  let tableRegion: string
  try {
    tableRegion = await client.config.region()
  } catch (error) {
    client.destroy()
    throw new Refused(
      `the settings of DynamoDB cannot be used: ${error instanceof Error ? error.message : String(error)}; region= or leases-region= names the table's region`,
      { cause: error },
    )
  }
  return new DynamoTable(sdk, client, { table, endpoint: endpoint ?? '', region: tableRegion }, settings)
}
