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
import { HashRanges } from './hash-ranges'
import { hashOf, keyingOf, type Keying } from './keys'
import { DEFAULT_RECORD_BYTES, MAX_RECORD_BYTES, type KinesisOptions } from './options'
import { aggregated, bytesOf, requests, single, type Item, type Parcel } from './parcels'
import { Pauses } from './pauses'
import type { KinesisWire, Put } from './wire'

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
const AFTER_FAILURE_MS = 500
const MOST_AFTER_FAILURE_MS = 10_000
/** Records of one write where several requests are made of it: for rounds and aggregates. */
const MANY_RECORDS = 10_000

type Retry = Outcome['retry'][number]
interface Findings {
  readonly retry: Retry[]
  readonly rejected: Refusal[] /** What an entry that failed waits. */
  readonly afterMs: number /** Records that are stored where they do not belong. */
  doubtful: number
}

class StreamSink implements Sink {
  readonly limits: Limits
  readonly wants = 'entries'
  private readonly ranges = new HashRanges()
  private readonly pauses = new Pauses()
  /** Of the stream as a whole. */
  private readonly calls = new Pauses()
  /**
   * Records of writes under way that are stored, by write: for one that comes again because another request of it was
   * not answered.
   */
  private readonly stored = new Map<string, Set<number>>()
  private life: ReturnType<typeof linkedAbort> | undefined
  private wire: KinesisWire | undefined
  private ctx: EndpointContext | undefined
  private options: OptionsOf<KinesisOptions>
  private keying: Keying
  private largest = DEFAULT_RECORD_BYTES
  private listing: Promise<void> | undefined
  private throttles = 0
  private mayNotList = false

  constructor(private readonly target: Target<KinesisOptions>) {
    const { options } = target
    const { order, aggregate, requestRecords, requestSize, inFlight } = (this.options = options)
    this.keying = () => ({ partitionKey: '' })
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
    const { signal } = (this.life = linkedAbort(ctx.signal)).controller
    const { options } = await this.target.resolve()
    this.options = options
    this.keying = keyingOf(options)
    const wire = (this.wire = await openStream(this.target, signal, true))
    this.mayNotList = false
    this.largest = options.maxRecord ?? wire.stream.maxRecordBytes ?? DEFAULT_RECORD_BYTES
    if (options.aggregate) await this.list(wire, signal)
  }

  async write(write: Write, signal: AbortSignal): Promise<Outcome> {
    const { wire, ctx, stored } = this
    if (wire === undefined || ctx === undefined) throw new Disconnected('not connected')
    const found: Findings = {
      retry: [],
      rejected: [],
      doubtful: 0,
      afterMs: Math.min(MOST_AFTER_FAILURE_MS, AFTER_FAILURE_MS * 2 ** Math.min(write.attempt - 1, 10)),
    }
    const done = stored.get(write.id) ?? new Set<number>()
    const items = await this.items(write, done, found, signal)
    stored.set(write.id, done)
    const { order, aggregate, aggregateSize } = this.options
    const parcels = aggregate ? aggregated(items, Math.min(aggregateSize, this.largest - 1)) : items.map(single)
    if (order === 'key') await this.rounds(parcels, done, found, signal)
    else await this.send(wire, parcels, done, found, signal)
    stored.delete(write.id)
    return found.retry.length === 0 && found.rejected.length === 0
      ? CONFIRMED
      : { retry: found.retry, rejected: found.rejected, ...(found.doubtful === 0 ? {} : { doubtful: found.doubtful }) }
  }

  close(): Promise<void> {
    const { life, wire } = this
    this.life = this.wire = undefined
    life?.controller.abort(new Disconnected('closed here'))
    life?.dispose()
    wire?.close()
    return Promise.resolve()
  }

  /** What of the write is still to be sent and can be. */
  private async items(
    write: Write,
    done: ReadonlySet<number>,
    { rejected, retry }: Findings,
    signal: AbortSignal,
  ): Promise<readonly Item[]> {
    const { aggregate } = this.options
    const now = this.ctx?.clock.monotonic() ?? 0
    const isPaced = !this.pauses.isEmpty(now)
    if ((aggregate || isPaced) && this.wire !== undefined) await this.known(this.wire, signal)
    const items: Item[] = []
    const entries = (write.payload as { entries(): readonly Entry[] }).entries()
    entries.forEach((entry, index) => {
      if (done.has(index)) return
      try {
        const record = this.recordOf(entry)
        const hash = aggregate || isPaced ? hashOf(record) : undefined
        const shard = hash === undefined ? undefined : this.ranges.shardOf(hash)
        const left = shard === undefined ? 0 : this.pauses.left(shard, now)
        if (left > 0) retry.push({ index, why: `${shard ?? ''} has no room for it now`, afterMs: left })
        else items.push({ index, record, hash, shard })
      } catch (error) {
        if (!(error instanceof RangeError)) throw error
        rejected.push({ index, why: error.message })
      }
    })
    if (this.options.order !== 'key' || retry.length === 0) return items
    // What follows a record that waits, waits as well: their keys may be the same.
    const first = Math.min(...retry.map(({ index }) => index))
    const afterMs = Math.max(...retry.map((each) => each.afterMs ?? 0))
    for (const { index } of items) if (index > first) retry.push({ index, why: 'it follows one that waits', afterMs })
    return items.filter(({ index }) => index < first)
  }

  private recordOf(entry: Entry): UserRecord {
    if (entry.value === null) throw new RangeError('a null value is no record of Kinesis')
    const record = { data: entry.value, ...this.keying(entry) }
    const bytes = bytesOf(record)
    if (bytes > this.largest)
      throw new RangeError(
        `${formatSize(bytes)}, partition key included, are more than the ${formatSize(this.largest)} that the stream takes`,
      )
    return record
  }

  /** One of each key at a time, in their order. */
  private async rounds(
    parcels: readonly Parcel[],
    done: Set<number>,
    found: Findings,
    signal: AbortSignal,
  ): Promise<void> {
    const { wire } = this
    let waiting = parcels
    const failed = new Set<string>()
    while (waiting.length > 0) {
      if (wire === undefined) throw new Disconnected('not connected')
      const round: Parcel[] = []
      const later: Parcel[] = []
      const taken = new Set<string>()
      for (const parcel of waiting) {
        const key = laneOf(parcel)
        if (failed.has(key))
          for (const { index } of parcel.items) found.retry.push({ index, why: 'it follows one that failed' })
        else if (taken.has(key)) later.push(parcel)
        else {
          taken.add(key)
          round.push(parcel)
        }
      }
      for (const parcel of await this.send(wire, round, done, found, signal)) failed.add(laneOf(parcel))
      waiting = later
    }
  }

  /** @returns those of which something was not stored */
  private async send(
    wire: KinesisWire,
    parcels: readonly Parcel[],
    done: Set<number>,
    found: Findings,
    signal: AbortSignal,
  ): Promise<readonly Parcel[]> {
    const { requestRecords, requestSize, inFlight } = this.options
    const failed: Parcel[] = []
    const left = [...requests(parcels, requestRecords, requestSize)]
    const lanes = Array.from({ length: Math.min(inFlight, left.length) }, async () => {
      for (let request = left.shift(); request !== undefined; request = left.shift())
        failed.push(...(await this.put(wire, request, done, found, signal)))
    })
    const outcomes = await Promise.allSettled(lanes)
    const fault = outcomes.find((outcome) => outcome.status === 'rejected')
    // Only when all have ended: what they have stored is known then.
    if (fault !== undefined) throw fault.reason
    return failed
  }

  private async put(
    wire: KinesisWire,
    request: readonly Parcel[],
    done: Set<number>,
    found: Findings,
    signal: AbortSignal,
  ): Promise<readonly Parcel[]> {
    const { clock } = this.ctx ?? {}
    if (clock === undefined) throw new Disconnected('not connected')
    for (let left; (left = this.calls.left(ALL, clock.monotonic())) > 0; ) await clock.sleep(left, signal)
    const failed: Parcel[] = []
    let answers: readonly Put[]
    try {
      answers = await wire.put(
        request.map(({ entry }) => entry),
        signal,
      )
    } catch (error) {
      if (!(error instanceof Throttled)) throw error
      // The call as a whole was refused: nothing of it is stored.
      const afterMs = Math.max(error.afterMs ?? 0, this.calls.throttled(ALL, clock.monotonic()))
      // Who is answered is not stalled, which the core sees by what is told to it.
      this.ctx?.gauge('throttled', (this.throttles += 1))
      for (const { items } of request)
        for (const { index } of items) found.retry.push({ index, why: error.message, afterMs })
      return request
    }
    if (answers.length !== request.length)
      throw new Disconnected(`Kinesis answered ${answers.length} of ${request.length} entries`)
    const now = clock.monotonic()
    if (answers.some((answer) => !('error' in answer))) this.calls.took(ALL)
    else if (
      this.ranges.isEmpty ||
      answers.some((answer) => 'error' in answer && !THROTTLED.has(answer.error) && !REFUSED.has(answer.error))
    )
      this.calls.throttled(ALL, now)
    for (const [at, parcel] of request.entries()) {
      const answer = answers[at]
      if (answer === undefined) continue
      if ('error' in answer) {
        failed.push(parcel)
        this.refused(parcel, answer, now, found)
        continue
      }
      this.pauses.took(answer.shard)
      const strays = parcel.items.length > 1 ? await this.strays(wire, parcel, answer.shard, signal) : []
      if (strays.length > 0) failed.push(parcel)
      found.doubtful += strays.length
      for (const { index } of strays)
        found.retry.push({ index, why: `its aggregate went to ${answer.shard}, where it does not belong` })
      for (const item of parcel.items) if (!strays.includes(item)) done.add(item.index)
    }
    return failed
  }

  private refused(
    { items }: Parcel,
    { error, message }: Extract<Put, { error: string }>,
    now: number,
    { retry, rejected, afterMs: afterFailureMs }: Findings,
  ): void {
    const why = `${error}: ${message}`
    if (THROTTLED.has(error)) {
      const shard = /shard (shardId-\d+)/.exec(message)?.[1] ?? items[0]?.shard ?? ''
      const afterMs = this.pauses.throttled(shard, now)
      if (!this.ranges.knows(shard)) this.ranges.forget()
      this.ctx?.gauge('throttled', (this.throttles += 1))
      for (const { index } of items) retry.push({ index, why, afterMs })
    } else if (REFUSED.has(error)) for (const { index } of items) rejected.push({ index, why })
    else for (const { index } of items) retry.push({ index, why, afterMs: afterFailureMs })
  }

  /** Records of an aggregate that do not belong to the shard it went to. */
  private async strays(
    wire: KinesisWire,
    { items }: Parcel,
    shard: string,
    signal: AbortSignal,
  ): Promise<readonly Item[]> {
    if (items[0]?.shard === shard) return []
    await this.list(wire, signal)
    return this.ranges.knows(shard)
      ? items.filter(({ hash }) => hash !== undefined && !this.ranges.takes(shard, hash))
      : []
  }

  private async known(wire: KinesisWire, signal: AbortSignal): Promise<void> {
    if (!this.ranges.isEmpty || this.mayNotList) return
    try {
      await this.list(wire, signal)
    } catch (error) {
      if (this.options.aggregate || !(error instanceof Refused && isForbidden(error.cause))) throw error
      // A policy that allows writing alone: which shard is to be spared cannot be told, so each record waits for
      // itself.
      this.mayNotList = true
    }
  }
  private list(wire: KinesisWire, signal: AbortSignal): Promise<void> {
    return (this.listing ??= wire
      .shards(signal)
      .then((shards) => {
        this.ranges.list(shards)
      })
      .finally(() => {
        this.listing = undefined
      }))
  }
}

/** What must not be under way twice: a key; of aggregates a shard. */
function laneOf({ items: [first] }: Parcel): string {
  return first?.shard ?? first?.record.partitionKey ?? ''
}
