/**
 * A stream as a sink.
 *
 * - A record is delivered when its entry was answered with a sequence number. Of a request that was answered in part
 *   the entries that failed go again, and no other.
 * - Where a request of a write is not answered, what the others have stored is remembered, so that the write, as it
 *   comes again, sends the rest alone.
 * - `order=key`: a write goes in rounds, each with at most one entry of a key; what follows an entry that failed is not
 *   sent before it. With aggregates the key is the shard: one of each is under way at a time.
 * - A shard that throttles is left alone for a while, by itself; entries that would go there wait with the core. Where
 *   a whole request fails, or all its entries do and not for a shard that is known, all requests wait, longer each
 *   time, until something is stored again.
 * - An aggregate that a reshard took to another shard than its records belong to is sent again as far as they do not
 *   belong there: the Kinesis Client Library passes over them in the wrong one. Other readers do not, so they count as
 *   possible duplicates.
 */
import type { CreateSink, OptionsOf, Target } from '../../options/define'
import type { EndpointContext, Entry, Limits, Outcome, Refusal, Sink, Write } from '../../core/contract'
import { CONFIRMED } from '../../core/contract'
import { Disconnected, Refused, Throttled } from '../../core/errors'
import { linkedAbort } from '../../kit/signal'
import { formatSize } from '../../kit/sizes'
import type { UserRecord } from './aggregate'
import { openStream } from './client'
import { isForbidden } from './errors'
import { HashRanges } from './produce/hash-ranges'
import { hashOf, keyFunction, type KeyFunction } from './produce/partition-keys'
import { DEFAULT_RECORD_BYTES, MAX_RECORD_BYTES, type KinesisOptions } from './options'
import {
  aggregateByShard,
  bytesOf,
  splitRequests,
  singleGroup,
  type PendingRecord,
  type PutGroup,
} from './produce/put-groups'
import { ShardBackoff } from './produce/shard-backoff'
import type { StreamClient, PutResult } from './stream-client'

export const create: CreateSink<KinesisOptions> = (target) => new StreamSink(target)

/** Codes of entries that a shard has no room for now. */
const THROTTLED = new Set([
  'ProvisionedThroughputExceededException',
  'KMSThrottlingException',
  'LimitExceededException',
])
/** Of entries that will never be taken. */
const REFUSED = new Set(['ValidationException', 'InvalidArgumentException'])
/** Name of the pause of the stream as a whole. */
const ALL = ''
/** After what the service calls its own fault: doubled with each attempt, up to the second. */
const FAILURE_PAUSE_MS = 500
const MAX_FAILURE_PAUSE_MS = 10_000
/** Records of one write where several requests are made of it: for rounds and aggregates. */
const MANY_RECORDS = 10_000

type Retry = Outcome['retry'][number]
interface WriteProgress {
  readonly retry: Retry[]
  readonly rejected: Refusal[] /** Milliseconds that an entry waits after it failed. */
  readonly afterMs: number /** Records that are stored where they do not belong. */
  doubtful: number
}

class StreamSink implements Sink {
  readonly limits: Limits
  readonly wants = 'entries'
  private readonly ranges = new HashRanges()
  private readonly shardBackoff = new ShardBackoff()
  /** Of the stream as a whole. */
  private readonly streamBackoff = new ShardBackoff()
  /**
   * Records of writes under way that are stored, by write: for one that comes again because another request of it was
   * not answered.
   */
  private readonly stored = new Map<string, Set<number>>()
  private lifetime: ReturnType<typeof linkedAbort> | undefined
  private client: StreamClient | undefined
  private ctx: EndpointContext | undefined
  private options: OptionsOf<KinesisOptions>
  private keysOf: KeyFunction
  private maxRecordBytes = DEFAULT_RECORD_BYTES
  private listing: Promise<void> | undefined
  private throttles = 0
  private mayNotList = false

  constructor(private readonly target: Target<KinesisOptions>) {
    const { options } = target
    const { order, aggregate, requestRecords, requestSize, inFlight } = (this.options = options)
    this.keysOf = () => ({ partitionKey: '' })
    const ordered = order === 'key'
    this.limits = {
      maxEntries: ordered || aggregate ? MANY_RECORDS : requestRecords,
      maxBytes: requestSize,
      maxEntryBytes: 2 * MAX_RECORD_BYTES,
      inFlight: ordered ? 1 : inFlight,
      ordered,
      unit: 'batch',
      confirms: 'each',
    }
  }

  async open(ctx: EndpointContext): Promise<void> {
    this.ctx = ctx
    const { signal } = (this.lifetime = linkedAbort(ctx.signal)).controller
    const { options } = await this.target.resolve()
    this.options = options
    this.keysOf = keyFunction(options)
    const client = (this.client = await openStream(this.target, signal, true))
    this.mayNotList = false
    this.maxRecordBytes = options.maxRecord ?? client.stream.maxRecordBytes ?? DEFAULT_RECORD_BYTES
    if (options.aggregate) await this.listShards(client, signal)
  }

  async write(write: Write, signal: AbortSignal): Promise<Outcome> {
    const { client, ctx, stored } = this
    if (client === undefined || ctx === undefined) throw new Disconnected('not connected')
    const progress: WriteProgress = {
      retry: [],
      rejected: [],
      doubtful: 0,
      afterMs: Math.min(MAX_FAILURE_PAUSE_MS, FAILURE_PAUSE_MS * 2 ** Math.min(write.attempt - 1, 10)),
    }
    const done = stored.get(write.id) ?? new Set<number>()
    const records = await this.pendingRecords(write, done, progress, signal)
    stored.set(write.id, done)
    const { order, aggregate, aggregateSize } = this.options
    const groups = aggregate
      ? aggregateByShard(records, Math.min(aggregateSize, this.maxRecordBytes - 1))
      : records.map(singleGroup)
    if (order === 'key') await this.sendInRounds(groups, done, progress, signal)
    else await this.send(client, groups, done, progress, signal)
    stored.delete(write.id)
    return progress.retry.length === 0 && progress.rejected.length === 0
      ? CONFIRMED
      : {
          retry: progress.retry,
          rejected: progress.rejected,
          ...(progress.doubtful === 0 ? {} : { doubtful: progress.doubtful }),
        }
  }

  close(): Promise<void> {
    const { lifetime, client } = this
    this.lifetime = this.client = undefined
    lifetime?.controller.abort(new Disconnected('closed here'))
    lifetime?.dispose()
    client?.close()
    return Promise.resolve()
  }

  /** Records of the write that are still to be sent and can be. */
  private async pendingRecords(
    write: Write,
    done: ReadonlySet<number>,
    { rejected, retry }: WriteProgress,
    signal: AbortSignal,
  ): Promise<readonly PendingRecord[]> {
    const { aggregate } = this.options
    const now = this.ctx?.clock.monotonic() ?? 0
    const hasBackoff = !this.shardBackoff.isEmpty(now)
    if ((aggregate || hasBackoff) && this.client !== undefined) await this.ensureListed(this.client, signal)
    const records: PendingRecord[] = []
    const entries = (write.payload as { entries(): readonly Entry[] }).entries()
    entries.forEach((entry, index) => {
      if (done.has(index)) return
      try {
        const record = this.recordOf(entry)
        const hash = aggregate || hasBackoff ? hashOf(record) : undefined
        const shard = hash === undefined ? undefined : this.ranges.shardOf(hash)
        const remaining = shard === undefined ? 0 : this.shardBackoff.remainingMs(shard, now)
        if (remaining > 0) retry.push({ index, why: `${shard ?? ''} has no room for it now`, afterMs: remaining })
        else records.push({ index, record, hash, shard })
      } catch (error) {
        if (!(error instanceof RangeError)) throw error
        rejected.push({ index, why: error.message })
      }
    })
    if (this.options.order !== 'key' || retry.length === 0) return records
    // Records behind one that waits have to wait as well: their keys may be the same.
    const first = Math.min(...retry.map(({ index }) => index))
    const afterMs = Math.max(...retry.map((each) => each.afterMs ?? 0))
    for (const { index } of records) if (index > first) retry.push({ index, why: 'it follows one that waits', afterMs })
    return records.filter(({ index }) => index < first)
  }

  private recordOf(entry: Entry): UserRecord {
    if (entry.value === null) throw new RangeError('a null value is no record of Kinesis')
    const record = { data: entry.value, ...this.keysOf(entry) }
    const bytes = bytesOf(record)
    if (bytes > this.maxRecordBytes)
      throw new RangeError(
        `${formatSize(bytes)}, partition key included, are more than the ${formatSize(this.maxRecordBytes)} that the stream takes`,
      )
    return record
  }

  /** One of each key at a time, in their order. */
  private async sendInRounds(
    groups: readonly PutGroup[],
    done: Set<number>,
    progress: WriteProgress,
    signal: AbortSignal,
  ): Promise<void> {
    const { client } = this
    let waiting = groups
    const failed = new Set<string>()
    while (waiting.length > 0) {
      if (client === undefined) throw new Disconnected('not connected')
      const round: PutGroup[] = []
      const later: PutGroup[] = []
      const taken = new Set<string>()
      for (const group of waiting) {
        const key = orderKeyOf(group)
        if (failed.has(key))
          for (const { index } of group.records) progress.retry.push({ index, why: 'it follows one that failed' })
        else if (taken.has(key)) later.push(group)
        else {
          taken.add(key)
          round.push(group)
        }
      }
      for (const group of await this.send(client, round, done, progress, signal)) failed.add(orderKeyOf(group))
      waiting = later
    }
  }

  /** @returns those of which something was not stored */
  private async send(
    client: StreamClient,
    groups: readonly PutGroup[],
    done: Set<number>,
    progress: WriteProgress,
    signal: AbortSignal,
  ): Promise<readonly PutGroup[]> {
    const { requestRecords, requestSize, inFlight } = this.options
    const failed: PutGroup[] = []
    const remaining = [...splitRequests(groups, requestRecords, requestSize)]
    const workers = Array.from({ length: Math.min(inFlight, remaining.length) }, async () => {
      for (let request = remaining.shift(); request !== undefined; request = remaining.shift())
        failed.push(...(await this.put(client, request, done, progress, signal)))
    })
    const outcomes = await Promise.allSettled(workers)
    const fault = outcomes.find((outcome) => outcome.status === 'rejected')
    // Only when all have ended: what they have stored is known then.
    if (fault !== undefined) throw fault.reason
    return failed
  }

  private async put(
    client: StreamClient,
    request: readonly PutGroup[],
    done: Set<number>,
    progress: WriteProgress,
    signal: AbortSignal,
  ): Promise<readonly PutGroup[]> {
    const { clock } = this.ctx ?? {}
    if (clock === undefined) throw new Disconnected('not connected')
    for (let remaining; (remaining = this.streamBackoff.remainingMs(ALL, clock.monotonic())) > 0; )
      await clock.sleep(remaining, signal)
    const failed: PutGroup[] = []
    let answers: readonly PutResult[]
    try {
      answers = await client.put(
        request.map(({ entry }) => entry),
        signal,
      )
    } catch (error) {
      if (!(error instanceof Throttled)) throw error
      // The call as a whole was refused: nothing of it is stored.
      const afterMs = Math.max(error.afterMs ?? 0, this.streamBackoff.throttled(ALL, clock.monotonic()))
      // Who is answered is not stalled, which the core sees by what is told to it.
      this.ctx?.gauge('throttled', (this.throttles += 1))
      for (const { records } of request)
        for (const { index } of records) progress.retry.push({ index, why: error.message, afterMs })
      return request
    }
    if (answers.length !== request.length)
      throw new Disconnected(`Kinesis answered ${answers.length} of ${request.length} entries`)
    const now = clock.monotonic()
    if (answers.some((answer) => !('error' in answer))) this.streamBackoff.succeeded(ALL)
    else if (
      this.ranges.isEmpty ||
      answers.some((answer) => 'error' in answer && !THROTTLED.has(answer.error) && !REFUSED.has(answer.error))
    )
      this.streamBackoff.throttled(ALL, now)
    for (const [at, group] of request.entries()) {
      const answer = answers[at]
      if (answer === undefined) continue
      if ('error' in answer) {
        failed.push(group)
        this.recordFailure(group, answer, now, progress)
        continue
      }
      this.shardBackoff.succeeded(answer.shard)
      const misroutedRecords = group.records.length > 1 ? await this.misrouted(client, group, answer.shard, signal) : []
      if (misroutedRecords.length > 0) failed.push(group)
      progress.doubtful += misroutedRecords.length
      for (const { index } of misroutedRecords)
        progress.retry.push({ index, why: `its aggregate went to ${answer.shard}, where it does not belong` })
      for (const record of group.records) if (!misroutedRecords.includes(record)) done.add(record.index)
    }
    return failed
  }

  private recordFailure(
    { records }: PutGroup,
    { error, message }: Extract<PutResult, { error: string }>,
    now: number,
    { retry, rejected, afterMs: afterFailureMs }: WriteProgress,
  ): void {
    const why = `${error}: ${message}`
    if (THROTTLED.has(error)) {
      const shard = /shard (shardId-\d+)/.exec(message)?.[1] ?? records[0]?.shard ?? ''
      const afterMs = this.shardBackoff.throttled(shard, now)
      if (!this.ranges.knows(shard)) this.ranges.forget()
      this.ctx?.gauge('throttled', (this.throttles += 1))
      for (const { index } of records) retry.push({ index, why, afterMs })
    } else if (REFUSED.has(error)) for (const { index } of records) rejected.push({ index, why })
    else for (const { index } of records) retry.push({ index, why, afterMs: afterFailureMs })
  }

  /** Records of an aggregate that do not belong to the shard it went to. */
  private async misrouted(
    client: StreamClient,
    { records }: PutGroup,
    shard: string,
    signal: AbortSignal,
  ): Promise<readonly PendingRecord[]> {
    if (records[0]?.shard === shard) return []
    await this.listShards(client, signal)
    return this.ranges.knows(shard)
      ? records.filter(({ hash }) => hash !== undefined && !this.ranges.takes(shard, hash))
      : []
  }

  private async ensureListed(client: StreamClient, signal: AbortSignal): Promise<void> {
    if (!this.ranges.isEmpty || this.mayNotList) return
    try {
      await this.listShards(client, signal)
    } catch (error) {
      if (this.options.aggregate || !(error instanceof Refused && isForbidden(error.cause))) throw error
      // A policy that allows writing alone: which shard is to be spared cannot be told, so each record waits for
      // itself.
      this.mayNotList = true
    }
  }
  private listShards(client: StreamClient, signal: AbortSignal): Promise<void> {
    return (this.listing ??= client
      .shards(signal)
      .then((shards) => {
        this.ranges.list(shards)
      })
      .finally(() => {
        this.listing = undefined
      }))
  }
}

/** A key must not be under way twice; of aggregates a shard must not. */
function orderKeyOf({ records: [first] }: PutGroup): string {
  return first?.shard ?? first?.record.partitionKey ?? ''
}
