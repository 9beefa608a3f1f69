/**
 * The wire: the few requests that reading and writing need, with the SDK's errors turned into the core's. The SDK loads
 * on first use and does not retry (the core does). Amazon's own endpoints speak HTTP/2; a server at http:// speaks
 * HTTP/1.1.
 */
import type {
  KinesisClient,
  _Record as SdkRecord,
  ShardIteratorType,
  StartingPosition,
  SubscribeToShardEventStream,
} from '@aws-sdk/client-kinesis'
import { credentialsOf, type Environment, regionOf } from '../../aws/credentials'
import { createRequestHandler } from '../../aws/handler'
import { Disconnected, lineOf, ManifoldError, Refused } from '../../core/errors'
import type { OptionsOf, Target } from '../../options/define'
import { classify, type Operation, isForbidden, isInvalid, isMissing, type FaultContext } from './errors'
import type { KinesisOptions } from './options'
import { type StreamAddress, streamAddress } from './settings'
import {
  SequenceRefused,
  type ReadStart,
  type Consumer,
  type StreamClient,
  type PolledPage,
  type PushedPage,
  type PutResult,
  type PutEntry,
  type Shard,
  type StreamFacts,
  type StreamRecord,
} from './stream-client'

type Sdk = typeof import('@aws-sdk/client-kinesis')

/** An establishing of a connection longer than this has failed. */
const CONNECT_MS = 10_000
/**
 * GetRecords answers with 10 MiB at most, in base64, with a key of up to 256 characters for each of 10,000 records.
 */
const MAX_RESPONSE_BYTES = 64 * 1024 * 1024
/** Region of servers that are not Amazon's, which ask for none. */
const ANY_REGION = 'us-east-1'
const LIST_SHARDS = 1000

class SdkStreamClient implements StreamClient {
  private facts: StreamFacts | undefined

  constructor(
    private readonly sdk: Sdk,
    private readonly client: KinesisClient,
    private readonly address: StreamAddress,
    private readonly context: FaultContext,
  ) {}

  get stream(): StreamFacts {
    return (
      this.facts ?? {
        name: this.address.name,
        arn: this.address.arn ?? '',
        status: 'UNKNOWN',
        createdAt: 0,
        retentionMs: 0,
      }
    )
  }

  async describe(signal: AbortSignal): Promise<StreamFacts> {
    const { StreamDescriptionSummary: found } = await this.call(
      'DescribeStreamSummary',
      'look at the stream',
      signal,
      (during) => this.client.send(new this.sdk.DescribeStreamSummaryCommand(this.streamParameters()), during),
    )
    if (found?.StreamName === undefined)
      throw new Refused(
        `what answers${this.context.endpoint === '' ? '' : ` at ${this.context.endpoint}`} is not Kinesis (its answer tells nothing of the stream): correct endpoint=`,
      )
    return (this.facts = {
      name: found.StreamName,
      arn: found.StreamARN ?? '',
      status: found.StreamStatus ?? '',
      createdAt: found.StreamCreationTimestamp?.getTime() ?? 0,
      retentionMs: (found.RetentionPeriodHours ?? 24) * 3_600_000,
      ...optional(
        'maxRecordBytes',
        found.MaxRecordSizeInKiB === undefined ? undefined : found.MaxRecordSizeInKiB * 1024,
      ),
      ...(found.RecordDistributionStrategy === 'AUTO' ? { ignoresKeys: true as const } : {}),
    })
  }

  async shards(signal: AbortSignal): Promise<readonly Shard[]> {
    const all: Shard[] = []
    for (let token: string | undefined; ; ) {
      const input =
        token === undefined
          ? { ...this.streamParameters(), MaxResults: LIST_SHARDS }
          : { NextToken: token, MaxResults: LIST_SHARDS }
      const { Shards = [], NextToken } = await this.call('ListShards', 'list the shards', signal, (during) =>
        this.client.send(new this.sdk.ListShardsCommand(input), during),
      )
      for (const { ShardId, ParentShardId, AdjacentParentShardId, HashKeyRange, SequenceNumberRange } of Shards) {
        all.push({
          id: ShardId ?? '',
          parents: [ParentShardId, AdjacentParentShardId].filter((id) => id !== undefined && id !== null),
          hashes: { from: BigInt(HashKeyRange?.StartingHashKey ?? 0), to: BigInt(HashKeyRange?.EndingHashKey ?? 0) },
          startingSequence: SequenceNumberRange?.StartingSequenceNumber ?? '0',
          ...optional('endingSequence', SequenceNumberRange?.EndingSequenceNumber),
        })
      }
      if (typeof NextToken !== 'string') return all
      token = NextToken
    }
  }

  async iterator(shard: string, from: ReadStart, signal: AbortSignal): Promise<string> {
    const { Type, SequenceNumber, Timestamp } = positionOf(from)
    const { ShardIterator } = await this.call(
      'GetShardIterator',
      `find the beginning of ${shard}`,
      signal,
      (during) =>
        this.client.send(
          new this.sdk.GetShardIteratorCommand({
            ...this.streamParameters(),
            ShardId: shard,
            ShardIteratorType: Type,
            ...(SequenceNumber === undefined ? {} : { StartingSequenceNumber: SequenceNumber }),
            ...(Timestamp === undefined ? {} : { Timestamp }),
          }),
          during,
        ),
      (error) => sequenceFault(error, shard, from),
    )
    if (ShardIterator === undefined)
      throw new Disconnected(`Kinesis could not find the beginning of ${shard}: its answer has no iterator`)
    return ShardIterator
  }

  async records(iterator: string, limit: number, signal: AbortSignal): Promise<PolledPage> {
    const { arn } = this.address
    const { Records, NextShardIterator, MillisBehindLatest, ChildShards } = await this.call(
      'GetRecords',
      'read',
      signal,
      (during) =>
        this.client.send(
          new this.sdk.GetRecordsCommand({
            ShardIterator: iterator,
            Limit: limit,
            ...(arn === undefined ? {} : { StreamARN: arn }),
          }),
          during,
        ),
    )
    return { ...pageOf(Records, MillisBehindLatest, ChildShards), ...optional('next', NextShardIterator) }
  }

  async consumer(name: string, signal: AbortSignal): Promise<Consumer | undefined> {
    const { ConsumerDescription: found } = await this.call(
      'DescribeStreamConsumer',
      `look for the consumer ${name}`,
      signal,
      async (during) => {
        try {
          return await this.client.send(
            new this.sdk.DescribeStreamConsumerCommand(
              name.startsWith('arn:') ? { ConsumerARN: name } : { StreamARN: this.stream.arn, ConsumerName: name },
            ),
            during,
          )
        } catch (error) {
          if (isMissing(error)) return { ConsumerDescription: undefined }
          throw error
        }
      },
    )
    return found === undefined ? undefined : consumerOf(found)
  }

  async register(name: string, signal: AbortSignal): Promise<Consumer> {
    const { Consumer: made } = await this.call(
      'RegisterStreamConsumer',
      `register the consumer ${name}`,
      signal,
      (during) =>
        this.client.send(
          new this.sdk.RegisterStreamConsumerCommand({ StreamARN: this.stream.arn, ConsumerName: name }),
          during,
        ),
    )
    return consumerOf(made ?? {})
  }

  async deregister({ arn, name }: Consumer, signal: AbortSignal): Promise<void> {
    await this.call('DeregisterStreamConsumer', `deregister the consumer ${name}`, signal, (during) =>
      this.client.send(new this.sdk.DeregisterStreamConsumerCommand({ ConsumerARN: arn }), during),
    )
  }

  async subscribe(
    consumer: Consumer,
    shard: string,
    from: ReadStart,
    signal: AbortSignal,
  ): Promise<AsyncGenerator<PushedPage, void, undefined>> {
    // Events that nobody has asked for wait on the wire for as long as it takes, so a request on which nothing moves is
    // no fault here.
    const { EventStream } = await this.call(
      'SubscribeToShard',
      `subscribe to ${shard}`,
      signal,
      ({ abortSignal }) =>
        this.client.send(
          new this.sdk.SubscribeToShardCommand({
            ConsumerARN: consumer.arn,
            ShardId: shard,
            StartingPosition: positionOf(from),
          }),
          { abortSignal, requestTimeout: 0 },
        ),
      (error) => sequenceFault(error, shard, from),
    )
    if (EventStream === undefined)
      throw new Disconnected(`Kinesis could not subscribe to ${shard}: its answer has no events`)
    return this.pages(EventStream, shard, signal)
  }

  private async *pages(
    events: AsyncIterable<SubscribeToShardEventStream>,
    shard: string,
    signal: AbortSignal,
  ): AsyncGenerator<PushedPage, void, undefined> {
    try {
      for await (const { SubscribeToShardEvent: event } of events) {
        if (event === undefined) continue
        const { Records, ContinuationSequenceNumber, MillisBehindLatest, ChildShards } = event
        yield {
          ...pageOf(Records, MillisBehindLatest, ChildShards),
          ...optional('continuation', ContinuationSequenceNumber),
        }
      }
    } catch (error) {
      if (signal.aborted) throw signal.reason
      const fault = classify(
        error,
        { action: 'SubscribeToShard', purpose: `push the events of ${shard}` },
        this.context,
      )
      // Bytes of which the parser of events makes nothing have been cut or damaged on their way.
      throw fault instanceof ManifoldError
        ? fault
        : new Disconnected(`Kinesis could not push the events of ${shard}: they make no sense (${lineOf(error)})`, {
            cause: error,
          })
    }
  }

  async put(entries: readonly PutEntry[], signal: AbortSignal): Promise<readonly PutResult[]> {
    const { Records = [] } = await this.call('PutRecords', 'write', signal, (during) =>
      this.client.send(
        new this.sdk.PutRecordsCommand({
          ...this.streamParameters(),
          Records: entries.map(({ data, partitionKey, explicitHashKey }) => ({
            Data: data,
            PartitionKey: partitionKey,
            ...(explicitHashKey === undefined ? {} : { ExplicitHashKey: explicitHashKey }),
          })),
        }),
        during,
      ),
    )
    if (Records.length !== entries.length)
      throw new Disconnected(`Kinesis could not write: it answered for ${Records.length} records of ${entries.length}`)
    return Records.map(({ SequenceNumber, ShardId, ErrorCode, ErrorMessage }) =>
      typeof SequenceNumber === 'string' && typeof ShardId === 'string'
        ? { sequence: SequenceNumber, shard: ShardId }
        : { error: ErrorCode ?? 'unknown', message: ErrorMessage ?? '' },
    )
  }

  close(): void {
    this.client.destroy()
  }

  private streamParameters(): { readonly StreamARN: string } | { readonly StreamName: string } {
    return this.address.arn === undefined ? { StreamName: this.address.name } : { StreamARN: this.address.arn }
  }

  private async call<T>(
    action: string,
    text: string,
    signal: AbortSignal,
    run: (during: { readonly abortSignal: AbortSignal }) => Promise<T>,
    classifyFirst?: (error: unknown) => Error | undefined,
  ): Promise<T> {
    const doing: Operation = { action, purpose: text }
    try {
      return await run({ abortSignal: signal })
    } catch (error) {
      if (signal.aborted) throw signal.reason
      throw classifyFirst?.(error) ?? classify(error, doing, this.context)
    }
  }
}

/**
 * A client for the stream that options name, as of now, and a look at the stream. @param mayBeForbidden a policy that
 * forbids to look, but not to write, is no fault: then `stream` knows its name alone
 */
export async function openStream(
  target: Pick<Target<KinesisOptions>, 'resolve'>,
  signal: AbortSignal,
  mayBeForbidden = false,
  environment: Environment = process.env,
): Promise<StreamClient> {
  const given = await target.resolve()
  let address: StreamAddress
  try {
    address = streamAddress(given)
  } catch (error) {
    throw new Refused(lineOf(error), { cause: error })
  }
  const stream = await makeClient(given.options, address, environment)
  try {
    const { status, name } = await stream.describe(signal)
    if (status === 'CREATING') throw new Disconnected(`the stream ${name} is still being made`)
  } catch (error) {
    if (mayBeForbidden && error instanceof Refused && isForbidden(error.cause)) return stream
    stream.close()
    throw error
  }
  return stream
}

async function makeClient(
  options: OptionsOf<KinesisOptions>,
  address: StreamAddress,
  environment: Environment,
): Promise<SdkStreamClient> {
  const sdk = await import('@aws-sdk/client-kinesis')
  const { endpoint, profile, timeout } = options
  const named =
    regionOf({ region: options.region ?? address.region, profile }, environment) ??
    (endpoint === undefined ? undefined : ANY_REGION)
  try {
    const credentials = await credentialsOf(
      options,
      environment,
      named,
      await createRequestHandler({
        connectMs: CONNECT_MS,
        idleMs: timeout,
        maxSockets: 8,
        maxBytes: MAX_RESPONSE_BYTES,
      }),
    )
    const client = new sdk.KinesisClient({
      ...(named === undefined ? {} : { region: named }),
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(profile === undefined ? {} : { profile }),
      ...(credentials === undefined ? {} : { credentials }),
      maxAttempts: 1,
      requestHandler: await createRequestHandler({
        connectMs: CONNECT_MS,
        idleMs: timeout,
        maxSockets: 256,
        maxBytes: MAX_RESPONSE_BYTES,
        ...http2For(endpoint, named),
      }),
    })
    let region: string
    try {
      region = await client.config.region()
    } catch (error) {
      client.destroy()
      throw /region is missing/i.test(lineOf(error))
        ? new Refused('no region is known for Kinesis: give region=, or set MANIFOLD_AWS_REGION', { cause: error })
        : error
    }
    return new SdkStreamClient(sdk, client, address, {
      stream: address.arn ?? address.name,
      endpoint: endpoint ?? '',
      region,
    })
  } catch (error) {
    throw error instanceof ManifoldError
      ? error
      : new Refused(`the settings of Kinesis cannot be used: ${lineOf(error)}`, { cause: error })
  }
}

/** Where it is not TLS, HTTP/1.1 is spoken. */
function http2For(
  endpoint: string | undefined,
  region = ANY_REGION,
): { readonly http2?: { readonly host: string; readonly port: number } } {
  if (endpoint === undefined) return { http2: { host: `kinesis.${region}.amazonaws.com`, port: 443 } }
  if (!/^https:/i.test(endpoint) || !URL.canParse(endpoint)) return {}
  const { hostname, port } = new URL(endpoint)
  return { http2: { host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? 443 : Number(port) } }
}

function positionOf(from: ReadStart): StartingPosition & { readonly Type: ShardIteratorType } {
  switch (from.kind) {
    case 'oldest':
      return { Type: 'TRIM_HORIZON' }
    case 'latest':
      return { Type: 'LATEST' }
    case 'at':
      return { Type: 'AT_SEQUENCE_NUMBER', SequenceNumber: from.sequence }
    case 'after':
      return { Type: 'AFTER_SEQUENCE_NUMBER', SequenceNumber: from.sequence }
    case 'time':
      return { Type: 'AT_TIMESTAMP', Timestamp: new Date(from.time) }
  }
}

/** A member that is there only where there is something; servers say null as well. */
function optional<K extends string, V>(name: K, value: V | null | undefined): { readonly [key in K]?: V } {
  return value === undefined || value === null ? {} : ({ [name]: value } as { readonly [key in K]?: V })
}

function sequenceFault(error: unknown, shard: string, from: ReadStart): SequenceRefused | undefined {
  return (from.kind === 'at' || from.kind === 'after') && isInvalid(error)
    ? new SequenceRefused(
        `Kinesis does not take ${from.sequence} as a sequence number of ${shard} (${lineOf(error)})`,
        { cause: error },
      )
    : undefined
}

function pageOf(
  records: readonly SdkRecord[] | undefined,
  behind: number | undefined,
  children:
    | readonly { readonly ShardId?: string | undefined; readonly ParentShards?: readonly string[] | undefined }[]
    | undefined,
): PolledPage {
  return {
    records: (records ?? []).map(recordOf),
    ...optional('behindMs', behind),
    children: (children ?? []).map(({ ShardId, ParentShards }) => ({ id: ShardId ?? '', parents: ParentShards ?? [] })),
  }
}

function recordOf({ SequenceNumber, PartitionKey, Data, ApproximateArrivalTimestamp }: SdkRecord): StreamRecord {
  return {
    // A stream that spreads records by itself need not have been given a key.
    sequence: SequenceNumber ?? '',
    partitionKey: PartitionKey ?? '',
    data: Data === undefined ? Buffer.alloc(0) : Buffer.from(Data.buffer, Data.byteOffset, Data.byteLength),
    ...optional('arrivedAt', ApproximateArrivalTimestamp?.getTime()),
  }
}

function consumerOf({
  ConsumerName,
  ConsumerARN,
  ConsumerStatus,
}: {
  readonly ConsumerName?: string | undefined
  readonly ConsumerARN?: string | undefined
  readonly ConsumerStatus?: string | undefined
}): Consumer {
  if (ConsumerARN === undefined) throw new Disconnected('Kinesis tells of a consumer without its ARN')
  return { name: ConsumerName ?? '', arn: ConsumerARN, status: ConsumerStatus ?? '' }
}
