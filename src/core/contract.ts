/**
 * This is what an endpoint promises the core, and the core an endpoint.
 *
 * The core retries, waits, gathers, splits, orders commits and counts. An endpoint speaks its protocol and classifies
 * its faults with the errors of `errors.ts`. An error of the operating system counts as `Disconnected`. Any other error
 * that an endpoint throws is reported as a bug.
 */

/**
 * An entry is one record: its value, and whatever the protocol carried beside it. Its buffers are views into the buffer
 * that arrived, so nobody may write to them.
 */
export interface Entry {
  /** The value has no terminator. null is a tombstone of Kafka. */
  readonly value: Buffer | null
  readonly key?: Buffer
  readonly headers?: readonly (readonly [name: string, value: HeaderValue])[]
  /** Milliseconds since the epoch, as the source gave it. */
  readonly timestamp?: number
}
export type HeaderValue = Buffer | string | number | boolean | bigint | null

/**
 * A batch holds records that were read together, as lines or as entries. It makes the other form when it is first asked
 * for it (`batch.ts` implements both).
 */
export interface Batch {
  readonly form: 'lines' | 'entries'
  /** The number of records. 0 is allowed: such a delivery only moves the position. */
  readonly count: number
  /** Bytes of the buffers that it keeps alive, not of the views into them. Memory limits count these. */
  readonly retained: number
  /** Bytes of the records themselves, with their terminators if the form is lines. */
  readonly bytes: number
  /**
   * Returns the records as lines. A record that cannot be a line (it contains a newline, or is null) is refused and
   * never split.
   */
  lines(): Lines
  entries(): readonly Entry[]
}
export interface Lines {
  /** Every chunk ends with a newline, so a record never spans two. */
  readonly chunks: readonly Buffer[]
  readonly bytes: number
  /** The number of records in `chunks`: those of the batch without the refused ones. */
  readonly count: number
  readonly refused: readonly Refusal[]
}
export interface Refusal {
  readonly index: number
  readonly why: string
}

/**
 * A position says where a source goes on after a record. The source writes it and reads it back; the core only stores
 * it.
 */
export type Position = string
/**
 * Records of one partition have an order. `epoch` grows with every assignment, channel, lease or connection. The core
 * never passes on a commit under an older epoch.
 */
export interface Partition {
  readonly name: string
  readonly epoch: number
}

export interface Delivery {
  readonly batch: Batch
  readonly partition: Partition
  /** The position after the last record. In an empty batch it is mere progress (control records, compaction). */
  readonly last: Position
  /**
   * Returns the position after record `index`. It is called only if a sink asks for origins (ids, envelopes), or if a
   * delivery is cut.
   * @throws RangeError if there is no such record (`within` of `batch.ts` does that)
   */
  at(index: number): Position
  /**
   * The time at which the first record arrived, in milliseconds since the epoch, with fractions. If it is absent, the
   * time counts at which `read` returned the delivery.
   */
  readonly receivedAt?: number
  /**
   * Records that the source saw but cannot pass on (too large, not an envelope). They come after the batch's records,
   * because a source ends a delivery at one. They settle with the batch, as dead letters.
   */
  readonly invalid?: readonly InvalidRecord[]
  /**
   * So many of the batch's first records may have been returned before (both connections of an overlap brought them).
   * They count as possible duplicates at every sink.
   */
  readonly doubtful?: number
  /** The number of records that an option of the source left out (`dedupe`). They count as read and filtered. */
  readonly filtered?: number
  /**
   * The core calls this at most once, when nobody looks at the batch's bytes any more. Its buffers may be used again.
   */
  readonly release?: () => void
}
/** An invalid record never became an entry. This is what is left of it. */
export interface InvalidRecord {
  readonly why: string
  readonly position: Position
  /** Its first bytes, at most 64 KiB. */
  readonly head: Buffer
  /** The length of the whole record in bytes, without a terminator. */
  readonly length: number
  /** The hash of the whole record, in hex. */
  readonly sha256: string
}

/** Endpoints use time to pace a protocol (pings, polls, lease renewals), never to retry. */
export interface Clock {
  /**
   * Returns the date in milliseconds since the epoch, with fractions. It follows every step of this machine's clock,
   * also back in time, so no duration is a difference of dates.
   */
  now(): number
  /**
   * Returns milliseconds since some moment, with fractions, for durations. It only grows, whatever becomes of the date,
   * and stands still while the machine sleeps.
   */
  monotonic(): number
  /** Resolves after so many milliseconds, or rejects with the signal's reason when it aborts. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
  every(ms: number, run: () => void): { stop(): void }
}
export interface Log {
  debug(message: string, facts?: object): void
  info(message: string, facts?: object): void
  warn(message: string, facts?: object): void
  /** Tells what nobody may miss, such as records that are lost. It is shown also where warnings are held back. */
  error?(message: string, facts?: object): void
  /**
   * Tells that something lasts of which a warning was given. It is shown while the run goes on, even if lines are held
   * back until the run fails.
   */
  lasting?(message: string): void
}

export interface EndpointContext {
  /** Aborts when the run is cut short. Everything that is under way has to end at once. */
  readonly signal: AbortSignal
  readonly clock: Clock
  readonly log: Log
  /** Shows a number in status, progress and metrics: lag per partition, clients, part uploads. */
  gauge(name: string, value: number): void
}

export interface SourceContext extends EndpointContext {
  /**
   * Returns the stored position of a partition, for sources whose position lives here. If nothing is stored it returns
   * undefined, and the `start` option decides.
   */
  resume(partition: string): Position | undefined
  /** Returns every partition with a stored position, for sources that find their partitions by looking (files). */
  resumable(): readonly string[]
  /**
   * A feed tells that earlier reads have returned everything that was sent until `until`, in epoch milliseconds. At its
   * opening it tells from when on it reads. This is stored with what is durable, so that the gap after a restart begins
   * there.
   */
  complete?(until: number): void
  /**
   * With a spool, everything is durable here until this time, in epoch milliseconds. A feed's gap after a restart
   * begins there.
   */
  readonly lastReceivedAt?: number
  /**
   * Call this when the source is asked to give a partition up. It resolves once all records that were read of it are
   * settled and committed, or at the deadline. It is over as soon as the source is closed: opened again, the source may
   * still have the partition.
   */
  revoke(partition: Partition, deadlineMs: number): Promise<void>
  /**
   * Returns the partitions with records in doubt, which wait to be sent again. A source with `covers` tells of every
   * commit that it learns of, also of other members (`committed`), and looks for commits now and then if the partition
   * is not assigned to it.
   */
  held(): readonly string[]
  committed(partition: string, upTo: Position): void
  /** Tells that a partition is gone already. Its deliveries go on to the sink, and their commits are dropped. */
  lost(partition: Partition): void
  /**
   * Tells of records that nobody can deliver any more: a disconnect, retention, an offset out of range. The gap goes
   * into log, metrics, spool and receipt. Call this before `read` returns the records behind the gap: records in doubt
   * of the partition fill it, as far as `covers` says that `to` is not beyond them.
   */
  gap(gap: Gap): void
}
/** `from` and `to` are ISO times for feeds, and positions elsewhere. */
export interface Gap {
  readonly partition: string
  readonly from: string
  readonly to: string
  readonly why: string
  readonly seconds?: number
  readonly records?: number
}

/**
 * The core opens a source, then reads and commits in any order, then closes it, on every path. Calls come one at a
 * time, except that `commit` may overlap `read`. After a throw the core closes the source, waits, and opens the same
 * object again. Records that were returned before are still on their way to the sinks, so `resume` names the position
 * behind them.
 */
export interface Source {
  /** Resolves when the source is connected and ready to read. */
  open(ctx: SourceContext): Promise<void>
  /**
   * Returns the next records as soon as there are any: what has arrived since the last call, in one delivery of about 1
   * MiB at most (a single larger record apart). null is the end, for good. When the signal aborts, it rejects promptly
   * with the signal's reason and loses nothing: the next read returns what had arrived.
   */
  read(signal: AbortSignal): Promise<Delivery | null>
  /**
   * Tells that all records of the partition up to here are durable downstream. At most one call is in flight per
   * partition, and the newest position wins. Calls come once a second at most, except at the end, or up to 1,000 times
   * a second if the endpoint declares `commitOnceSpooled`.
   */
  commit(partition: Partition, upTo: Position): Promise<void>
  /**
   * Makes the source end where each partition ends now (`--until end`), and returns these positions; null stands for an
   * empty partition. A source without it has no end to ask for.
   */
  ends?(): Promise<ReadonlyMap<string, Position | null>>
  /**
   * Makes the source end where each partition stood at that time (`--until TIME`, in epoch milliseconds, in the past).
   * A source without it keeps no times.
   */
  endsAt?(time: number): Promise<ReadonlyMap<string, Position | null>>
  /**
   * Tells whether a commit at `upTo` covers `position`, for sources whose position lives upstream and is shared (a
   * Kafka group, leases). A position that cannot be compared (of a topic that was made anew) is not covered. Behind a
   * spool this decides when records in doubt were sent again.
   */
  covers?(upTo: Position, position: Position): boolean
  /**
   * Reads the records after `from` up to `to` again, exactly as they were read, because the disk has lost them. It is
   * for sources whose position lives here. Without `from`, or if that belongs to an earlier thing of this name, it
   * reads from the beginning. It may be called while `read` is under way, and before `open`. It throws, before or after
   * some of the records, if they are not there any more.
   */
  again?(partition: string, from: Position | undefined, to: Position, signal: AbortSignal): AsyncIterable<Delivery>
  /**
   * Releases everything, and never throws.
   * @param last the source is not opened again, so it also gives back what it has elsewhere for itself alone
   * @param why the source is closed for this reason though nothing was wrong with it; it is the reason of the gap
   */
  close(last?: boolean, why?: string): Promise<void>
}

export interface Limits {
  readonly maxEntries: number
  readonly maxBytes: number
  readonly maxEntryBytes: number
  /** So many writes may be under way at once. */
  readonly inFlight: number
  /**
   * The order per partition matters. After a failure the other writes are awaited, and all that were not confirmed go
   * again in order.
   */
  readonly ordered: boolean
  /** A write is a batch of records as they come, or a sealed segment of the spool, which becomes one object. */
  readonly unit: 'batch' | 'segment'
  /** With `none` the destination cannot tell that it has a record (a pipe, a WebSocket without barrier). */
  readonly confirms: 'each' | 'none'
  /**
   * The destination recognises a write that comes again within this process. Such a write makes no possible duplicates
   * but those of `Outcome.doubtful`.
   */
  readonly recognises?: true
}

/**
 * Says where a record came from. Only behind a spool it has `sequence` and `id`, which it keeps over resends and
 * restarts.
 */
export interface Origin {
  readonly source: string
  readonly partition: string
  readonly position: Position
  readonly sequence?: number
  readonly id?: string
  readonly receivedAt: number
}

export interface Write {
  /** The write has the same id, bytes and boundaries every time it is tried. */
  readonly id: string
  /** The first attempt is 1. Above that, an earlier attempt failed or its outcome is unknown. */
  readonly attempt: number
  readonly payload: Batch | Segment
  /** Returns where record `index` of a batch came from. */
  origin(index: number): Origin
}

/** A sealed segment is the object that it is to become. Sealing fixes it, so it is equal on every attempt. */
export interface Segment {
  readonly kind: 'segment'
  /** The object's key below the sink's folder. */
  readonly key: string
  readonly count: number
  /** Bytes of the uncompressed content. */
  readonly length: number
  /** Of the uncompressed content, hex. */
  readonly sha256: string
  readonly compression: Compression
  /**
   * The object's metadata: first and last sequence, receive times, source positions, gaps. Names are in kebab-case,
   * values are printable ASCII.
   */
  readonly facts: Readonly<Record<string, string>>
  /**
   * Reads the uncompressed content from `offset` on, in large chunks, from the disk on demand. A chunk is valid until
   * the next one is asked for, because its memory is used again.
   */
  read(offset: number): AsyncIterable<Buffer>
}
export type Compression = 'none' | 'gzip' | 'zstd'

/** Says how a sink of unit `segment` wants its segments to be. It is asked before `open`, and is pure. */
export interface SegmentPolicy {
  /** A segment is sealed at so many bytes of uncompressed content. 0 never seals by size. */
  readonly sealBytes: number
  /** A segment is sealed so many milliseconds after its first record. 0 never seals by age. */
  readonly sealAge: number
  readonly framing: 'lines' | 'envelope'
  readonly compression: Compression
  /** The longest pause in milliseconds before a sealed segment that was not confirmed is tried again. */
  readonly retryEvery: number
  /**
   * Returns the key below the folder for a segment whose first record was received at `receivedAt`. `id` is unique and
   * stable.
   */
  key(facts: { readonly receivedAt: number; readonly sealedAt: number; readonly id: string }): string
  /** Returns the folders of the key, which time decides. A segment is sealed before they would change. */
  period(receivedAt: number): string
  /** Keys of this policy go here. The header of each segment repeats it, so a segment never goes elsewhere. */
  readonly target: string
  /** Returns a target as it would be written today, because earlier spools have other spellings. */
  normal?(target: string): string
}

/** Records in neither list are confirmed. Of a segment, index 0 stands for the whole. */
export interface Outcome {
  readonly retry: readonly (Refusal & { readonly afterMs?: number })[]
  readonly rejected: readonly Refusal[]
  /**
   * The destination may have so many records of the write twice though no answer was missed, together with those of
   * `retry` of which it has something already.
   */
  readonly doubtful?: number
}
export const CONFIRMED: Outcome = { retry: [], rejected: [] }

/** Tells how far the reader of the output has come, in bytes since the sink was made. */
export interface ReaderProgress {
  /** The number of bytes that were written and taken. */
  readonly taken: number
  /** Resolves to the bytes of `taken` that have been read for certain. It does not reject. */
  read(): Promise<number>
}

export interface Sink {
  readonly limits: Limits
  /** With `confirms: none`, if it can be known: records that were written count once they have been read. */
  readonly reader?: ReaderProgress
  /** With `lines` the sink drops keys, headers and timestamps, so they need not be kept on the way. */
  readonly wants: 'lines' | 'entries'
  /** It is present if and only if `limits.unit` is `segment`. */
  readonly segments?: SegmentPolicy
  open(ctx: EndpointContext): Promise<void>
  /**
   * Resolves when the destination has confirmed or refused each record. A throw says that the outcome of the whole
   * write is unknown, so it comes again.
   */
  write(write: Write, signal: AbortSignal): Promise<Outcome>
  /**
   * Releases everything, and never throws. With `confirms: none` it resolves after everything that was written has been
   * flushed, as far as that can be known.
   */
  close(): Promise<void>
}
