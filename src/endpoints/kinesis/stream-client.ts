/**
 * The parts of this endpoint need this of the service, and of each other, without a client library: `client.ts`
 * implements `StreamClient` (one stream each), `lease-client.ts` the `LeaseTable`. Sequence numbers are decimal strings
 * of up to 56 digits, to be compared as numbers; times are milliseconds since the epoch.
 *
 * Every call rejects with an error of `core/errors`; none retries. How the source is put together: `source.ts` knows
 * the shards and hands deliveries on, a `ShardReader` (polling or enhanced fan-out) reads one shard, `Leases` decides
 * which shards are ours where processes share them.
 */
import type { Partition, Position, SourceContext } from '../../core/contract'
import { Disconnected, Refused } from '../../core/errors'

export interface Shard {
  /** The id, such as `shardId-000000000000`. */
  readonly id: string
  /**
   * A shard has no parent, one (after a split) or two (after a merge). They may be older than those that are listed.
   */
  readonly parents: readonly string[]
  /** It takes the records of this part of the MD5 space (0 to 2^128 - 1), both ends included. */
  readonly hashes: { readonly from: bigint; readonly to: bigint }
  readonly startingSequence: string
  /** It is present once the shard is closed. */
  readonly endingSequence?: string
}
export interface StreamFacts {
  readonly name: string
  readonly arn: string
  readonly status: string
  /** It tells a stream from an earlier one of the same name. */
  readonly createdAt: number
  readonly retentionMs: number
  /** The largest record that the stream takes, with its partition key, if it tells. */
  readonly maxRecordBytes?: number
  /** Records are spread over shards whatever their keys are (the record distribution strategy AUTO). */
  readonly ignoresKeys?: true
}

export type ReadStart =
  | { readonly kind: 'oldest' | 'latest' }
  | { readonly kind: 'at' | 'after'; readonly sequence: string }
  | { readonly kind: 'time'; readonly time: number }

export interface StreamRecord {
  readonly sequence: string
  readonly partitionKey: string
  readonly data: Buffer
  readonly arrivedAt?: number
}
export interface Page {
  readonly records: readonly StreamRecord[]
  /** The page is so far behind the tip of the shard. */
  readonly behindMs?: number
  /** The clock's time at which it was so far behind, or earlier. If it is absent, the time of the request counts. */
  readonly asOf?: number
  /** The shards that go on where this one ended. Some services tell them at its end. */
  readonly children: readonly Pick<Shard, 'id' | 'parents'>[]
}
/** If `next` is absent, the shard is closed and read to its end. */
export interface PolledPage extends Page {
  readonly next?: string
}
/**
 * `continuation`: sequence number to subscribe again after, which need not be a record's; absent at the shard's end.
 */
export interface PushedPage extends Page {
  readonly continuation?: string
}

/** The iterator is too old (five minutes). Another one has to begin at the last position. */
export class IteratorExpired extends Disconnected {}
/**
 * Somebody has it: of a subscription, another one that is open, or was until lately; of a consumer's name, the
 * consumer.
 */
export class InUse extends Disconnected {}
/** The service does not take this sequence number: it belongs to a stream that is gone, or is made up. */
export class SequenceRefused extends Refused {}

export interface PutEntry {
  readonly data: Buffer
  readonly partitionKey: string
  readonly explicitHashKey?: string
}
/** If the entry was not stored, `error` is the code, such as ProvisionedThroughputExceededException. */
export type PutResult =
  | { readonly sequence: string; readonly shard: string }
  | { readonly error: string; readonly message: string }

export interface Consumer {
  readonly name: string
  readonly arn: string /** CREATING, ACTIVE, DELETING. */
  readonly status: string
}

export interface StreamClient {
  /** The stream as it was at the opening. `describe` asks again. */
  readonly stream: StreamFacts
  describe(signal: AbortSignal): Promise<StreamFacts>
  /** Returns all shards that are kept, also closed ones, over all pages. */
  shards(signal: AbortSignal): Promise<readonly Shard[]>
  /** Rejects with `SequenceRefused` if the beginning is not one of this shard. */
  iterator(shard: string, from: ReadStart, signal: AbortSignal): Promise<string>
  /** Rejects with `IteratorExpired`, or with `Throttled` if the shard's calls or bytes are used up. */
  records(iterator: string, limit: number, signal: AbortSignal): Promise<PolledPage>
  /** @param name or ARN @returns undefined if there is none */
  consumer(name: string, signal: AbortSignal): Promise<Consumer | undefined>
  /** Rejects with `InUse` if there is one of this name, and with `Refused` if there are too many. */
  register(name: string, signal: AbortSignal): Promise<Consumer>
  deregister(consumer: Consumer, signal: AbortSignal): Promise<void>
  /**
   * Resolves once it stands: pages as they are pushed, one taken off the wire for each that is asked for. Ends by
   * itself after five minutes, or without `continuation` at the shard's end; throws where it is cut. At most one
   * subscription per consumer and shard, and one call for it each five seconds: `InUse`. It ends with the signal, too;
   * no bound on waiting is set here.
   */
  subscribe(
    consumer: Consumer,
    shard: string,
    from: ReadStart,
    signal: AbortSignal,
  ): Promise<AsyncGenerator<PushedPage, void, undefined>>
  /**
   * Outcome of each entry, in their order. At most the limits of `options.ts`. Rejects where the whole call failed:
   * whether they were stored is unknown.
   */
  put(entries: readonly PutEntry[], signal: AbortSignal): Promise<readonly PutResult[]>
  /** Never throws. */
  close(): void
}

/** One shard from its beginning on. After a throw it is closed, and another one is made by the core's opening anew. */
export interface ShardReader {
  /**
   * Resolves as soon as there is anything, also mere progress (an empty page). `ended`: the shard is closed and read to
   * its end; not to be called again.
   */
  next(signal: AbortSignal): Promise<Page & { readonly ended: boolean }>
  /** Never throws. */
  close(): Promise<void>
}

/**
 * A shard's checkpoint, as leases and positions know it. `sub`: of the last user record of an aggregate that is done;
 * absent: the whole record is. The table of leases knows no "whole": what is read there has a `sub` always (0 where it
 * is no aggregate), and of an aggregate that is done it wants the last one's, or the Kinesis Client Library would read
 * the others of it again.
 */
export type Checkpoint =
  | { readonly kind: 'oldest' | 'latest' | 'end' }
  | { readonly kind: 'time'; readonly time: number }
  | { readonly kind: 'sequence'; readonly sequence: string; readonly sub?: number }

/** Leases need this of the source. */
export interface LeaseListener {
  readonly ctx: SourceContext
  readonly signal: AbortSignal
  /** Returns the shards that were listed last. */
  shards(): readonly Shard[]
  /** Tells that a shard is ours. It is read from the checkpoint on, and its deliveries have this epoch. */
  begin(shard: string, epoch: number, checkpoint: Checkpoint): void
  /**
   * It is not any more, or about not to be: read no further. Resolves once no delivery of it will be returned by
   * `read`.
   */
  stopReading(shard: string): Promise<void>
  /** Returns where a shard without a checkpoint begins. */
  beginning(shard: string): Checkpoint
  /** Turns a checkpoint into a position of the core, and back. */
  position(checkpoint: Checkpoint): Position
  checkpoint(position: Position): Checkpoint | undefined
  /** Runs work beside reading. If it fails, reading fails. */
  run(work: Promise<void>): void
}

/** Knows which shards are ours if processes share them (`leases=`). */
export interface Leases {
  /**
   * Begins to look, take, renew and balance. Resolves once this process takes part; `host.begin` follows, also before
   * it resolves.
   */
  start(host: LeaseListener): Promise<void>
  /** Takes a new list of shards: leases for new ones are made, and those of vanished ones are removed. */
  shardsChanged(): void
  /**
   * The shard was read to its end, and `read` has returned all of it: its end is brought to the table soon, not only
   * when the next commit is due. Its deliveries are settled first; nothing is asked of `stopReading`.
   */
  ended(partition: Partition): void
  /** Commits nothing under an old epoch. It rejects if that could not be found out before `stop`. */
  commit(partition: Partition, checkpoint: Checkpoint): Promise<void>
  /** It is false until our share is known (`--until end` does not end before). */
  readonly isSettled: boolean
  /**
   * Never throws. `keep`: opening again follows (a fault), so leases stay ours; else they are given back for others to
   * take at once.
   */
  stop(keep: boolean): Promise<void>
}
