/**
 * This is what an endpoint promises the core, and the core an endpoint.
 *
 * Who owns what: the core retries, waits, gathers, splits, orders commits and counts; an endpoint speaks its protocol
 * and classifies its faults with the errors of `errors.ts`. An error of the operating system counts as `Disconnected`;
 * anything else an endpoint throws is a bug and is reported as one.
 */

/**
 * Bytes of one record plus what its protocol carried beside them. Views into the buffer it arrived in; nobody writes to
 * them.
 */
export interface Entry {
  /** Without a terminator. null: a tombstone (Kafka). */
  readonly value: Buffer | null
  readonly key?: Buffer
  readonly headers?: readonly (readonly [name: string, value: HeaderValue])[]
  /** Milliseconds since the epoch, as the source gave it. */
  readonly timestamp?: number
}
export type HeaderValue = Buffer | string | number | boolean | bigint | null

/** Records read together. Holds one of the two forms and makes the other on first use (`batch.ts` has both). */
export interface Batch {
  readonly form: 'lines' | 'entries'
  /** Records in it; 0 is allowed (a delivery that only moves the position). */
  readonly count: number
  /** Bytes of the buffers it keeps alive, not of the views: what memory limits count. */
  readonly retained: number
  /** Bytes of the records themselves, terminators included where the form is lines. */
  readonly bytes: number
  /**
   * Newline-terminated records, one after the other over the chunks. Records that cannot be lines (newline inside,
   * null) are named, never split.
   */
  lines(): Lines
  entries(): readonly Entry[]
}
export interface Lines {
  /** Every chunk ends with a newline: a record never spans two. */
  readonly chunks: readonly Buffer[]
  readonly bytes: number
  /** Records in `chunks`: the batch's count less `refused`. */
  readonly count: number
  readonly refused: readonly Refusal[]
}
export interface Refusal {
  readonly index: number
  readonly why: string
}

/** Opaque to the core but for equality of `partition` and for persistence; written by the source that reads it back. */
export type Position = string
/**
 * `epoch` grows with every assignment, channel, lease or connection. What is committed under an old one never reaches
 * the source.
 */
export interface Partition {
  readonly name: string
  readonly epoch: number
}

export interface Delivery {
  readonly batch: Batch
  readonly partition: Partition
  /**
   * Position after the last record of the batch, or of mere progress in an empty batch (control records, compaction).
   */
  readonly last: Position
  /**
   * Position of record i; throws a RangeError where there is none (`batch.ts` has `within`). Called only where a sink
   * asks for origins (ids, envelopes), and where a delivery is cut.
   */
  at(index: number): Position
  /** When the first record arrived, milliseconds since the epoch with fractions. Absent: when `read` returned it. */
  readonly receivedAt?: number
  /**
   * Records that the source saw but cannot pass on (too large, not an envelope). They follow the batch's records: a
   * source ends a delivery at one. They settle with it, as dead letters.
   */
  readonly invalid?: readonly InvalidRecord[]
  /**
   * Records of the batch, the first ones, that the source may have returned before (both connections of an overlap
   * brought them): possible duplicates at every sink.
   */
  readonly doubtful?: number
  /** Records that an option of the source told it to leave out (`dedupe`): read, and accounted for as filtered. */
  readonly filtered?: number
  /** Called once at most, when nobody will look at the batch's bytes again: its buffers may be filled anew. */
  readonly release?: () => void
}
/** A record that never became an entry: what is left of it. */
export interface InvalidRecord {
  readonly why: string
  readonly position: Position
  /** The first bytes, at most 64 KiB. */
  readonly head: Buffer
  /** Bytes of the whole record, without terminator. */
  readonly length: number
  /** Of the whole record, hex. */
  readonly sha256: string
}

/** Time as endpoints may use it: to pace a protocol (pings, polls, lease renewals), never to retry. */
export interface Clock {
  /**
   * The date: milliseconds since the epoch, with fractions. Follows every step of this machine's clock, back as well:
   * no duration is a difference of dates.
   */
  now(): number
  /**
   * Milliseconds since some moment, with fractions: what durations are measured with. Only grows, whatever becomes of
   * the date; stands still while the machine sleeps.
   */
  monotonic(): number
  /** Rejects with the signal's reason when it aborts. */
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
   * Something that was warned of lasts: to be read while the run goes on even where all is kept back that a run which
   * ends well need not tell.
   */
  lasting?(message: string): void
}

export interface EndpointContext {
  /** Aborts when the run is cut short: whatever is under way ends at once. */
  readonly signal: AbortSignal
  readonly clock: Clock
  readonly log: Log
  /** A number worth showing: lag per partition, clients, part uploads. Into status, progress and metrics. */
  gauge(name: string, value: number): void
}

export interface SourceContext extends EndpointContext {
  /** Where to go on, for sources whose position lives with us. undefined: nothing stored, use the `start` option. */
  resume(partition: string): Position | undefined
  /** Every partition that has a stored position, for sources whose partitions are found by looking (files). */
  resumable(): readonly string[]
  /**
   * Of a feed: all that was sent until `until`, epoch milliseconds, has been returned by earlier reads; at its opening:
   * what comes from then on is read. Kept with what is durable, so that the gap after a restart begins there.
   */
  complete?(until: number): void
  /**
   * Epoch milliseconds until which all is durable here, where the flow has a spool: a feed's gap after a restart begins
   * there.
   */
  readonly lastReceivedAt?: number
  /**
   * The source is asked to give a partition up: resolves once all of it that was read is settled and committed, or at
   * the deadline. Over as soon as the source is closed: opened again it may have it still.
   */
  revoke(partition: Partition, deadlineMs: number): Promise<void>
  /**
   * Partitions with recovered records that wait to be sent again: a source with `covers` tells of commits that it
   * learns of, others' too (`committed`), and looks for them now and then where it is not assigned the partition.
   */
  held(): readonly string[]
  committed(partition: string, upTo: Position): void
  /** A partition is gone already. Its deliveries go on to the sink; their commits are dropped. */
  lost(partition: Partition): void
  /**
   * Records that nobody can deliver any more: a disconnect, retention, an offset out of range. Into log, metrics, spool
   * and receipt. To be called before what follows the gap is returned by `read`: held records of the partition fill it,
   * as far as `covers` says that `to` is not beyond them.
   */
  gap(gap: Gap): void
}
/** `from` and `to` are ISO times for feeds, positions elsewhere. */
export interface Gap {
  readonly partition: string
  readonly from: string
  readonly to: string
  readonly why: string
  readonly seconds?: number
  readonly records?: number
}

/**
 * Calls come one at a time, except that `commit` may overlap `read`. Order: open, then read and commit at will, then
 * close, on every path. After a throw the core closes, waits, and opens the same object again.
 */
export interface Source {
  /** Connects and is ready to read. */
  open(ctx: SourceContext): Promise<void>
  /**
   * The next records as soon as there are any: what has arrived since the last call, in one delivery, at most about 1
   * MiB (a single larger record apart). null: the end, for good. Rejects promptly with the signal's reason when it
   * aborts; what was read by then is not lost: the next read returns it, or, where the run stops, it was never
   * accepted.
   */
  read(signal: AbortSignal): Promise<Delivery | null>
  /**
   * All records of the partition up to here are durable downstream. At most one call in flight per partition, newest
   * wins, at most 1/s unless draining; 200/s where the endpoint is released at accept.
   */
  commit(partition: Partition, upTo: Position): Promise<void>
  /**
   * Where `--until end` stops, per partition as it stands now; null where a partition is empty. Absent: the source has
   * no end to ask for.
   */
  ends?(): Promise<ReadonlyMap<string, Position | null>>
  /**
   * Where `--until TIME` stops: as `ends`, but as each partition stood at that time (epoch milliseconds, in the past).
   * Absent: the source keeps no times.
   */
  endsAt?(time: number): Promise<ReadonlyMap<string, Position | null>>
  /**
   * For sources whose position lives upstream and is shared (a Kafka group, leases): whether what is committed at
   * `upTo` covers `position`. A position that cannot be compared (of a topic that was made anew) is not covered. Behind
   * a spool it decides when recovered records were sent again.
   */
  covers?(upTo: Position, position: Position): boolean
  /**
   * For sources whose position lives with us and which can be read again: the records after `from` up to `to`, exactly
   * as they were read, for what the disk has lost of them. Absent `from`, or that of what was called so before: from
   * the beginning. May be called while `read` is under way, and before `open`. Throws, before or after some of them,
   * where they are not there any more.
   */
  again?(partition: string, from: Position | undefined, to: Position, signal: AbortSignal): AsyncIterable<Delivery>
  /**
   * Releases everything; never throws.
   * @param last it is not opened again: what it has elsewhere, for itself alone, is given back as well. Else it may be
   * @param why it is closed though nothing was wrong with it, for the gap that it leaves
   */
  close(last?: boolean, why?: string): Promise<void>
}

export interface Limits {
  readonly maxEntries: number
  readonly maxBytes: number
  readonly maxEntryBytes: number
  /** Writes under way at once. */
  readonly inFlight: number
  /**
   * Order per partition matters. With inFlight above 1: after a failure the rest is awaited and all unconfirmed go
   * again, in order.
   */
  readonly ordered: boolean
  /** batch: as they come. segment: a sealed spool segment, one object each. */
  readonly unit: 'batch' | 'segment'
  /** none: the destination cannot tell that it has a record (a pipe, a WebSocket without barrier). */
  readonly confirms: 'each' | 'none'
  /**
   * The destination recognises a write that comes again within this process: it is no possible duplicate, but for what
   * `Outcome.doubtful` says.
   */
  readonly recognises?: true
}

/** Where a record came from. `sequence` and `id`, which it keeps over resends and restarts, only behind a spool. */
export interface Origin {
  readonly source: string
  readonly partition: string
  readonly position: Position
  readonly sequence?: number
  readonly id?: string
  readonly receivedAt: number
}

export interface Write {
  /** The same id, bytes and boundaries every time this write is tried. */
  readonly id: string
  /** 1, 2, …: above 1 the outcome of an earlier attempt is unknown or was a failure. */
  readonly attempt: number
  readonly payload: Batch | Segment
  /** Where record i of a batch came from. */
  origin(index: number): Origin
}

/** A sealed segment as the object it is to become: fixed at sealing, equal on every attempt. */
export interface Segment {
  readonly kind: 'segment'
  /** Below the sink's folder. */
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
   * Uncompressed content from `offset` on, in large chunks, read from disk on demand. A chunk is valid until the next
   * one is asked for: its memory is used again.
   */
  read(offset: number): AsyncIterable<Buffer>
}
export type Compression = 'none' | 'gzip' | 'zstd'

/** Says how a sink of unit `segment` wants its segments to be. It is asked before `open`, and is pure. */
export interface SegmentPolicy {
  /** Bytes of uncompressed content at which a segment is sealed; 0: never by size. */
  readonly sealBytes: number
  /** Milliseconds after its first record at which a segment is sealed; 0: never by age. */
  readonly sealAge: number
  readonly framing: 'lines' | 'envelope'
  readonly compression: Compression
  /** The longest pause, milliseconds, before what is sealed and not confirmed is tried again. */
  readonly retryEvery: number
  /** Key below the folder for a segment whose first record was received at `receivedAt`. `id` is unique and stable. */
  key(facts: { readonly receivedAt: number; readonly sealedAt: number; readonly id: string }): string
  /** The part of the key that time decides, before its last slash: where it would change, the segment is sealed. */
  period(receivedAt: number): string
  /** Where keys of this policy go, said in each segment's header: a segment never goes elsewhere. */
  readonly target: string
  /** A target as it would be said today: other spellings are in spools that were made earlier. */
  normal?(target: string): string
}

/** Records in neither list are confirmed. For a segment, index 0 stands for the whole. */
export interface Outcome {
  readonly retry: readonly (Refusal & { readonly afterMs?: number })[]
  readonly rejected: readonly Refusal[]
  /**
   * Records of the write that the destination may have twice though no answer was missed: with those of `retry` of
   * which it has something already.
   */
  readonly doubtful?: number
}
export const CONFIRMED: Outcome = { retry: [], rejected: [] }

/** How far whoever reads the output has come, in bytes since the sink was made. */
export interface ReaderProgress {
  /** Bytes that were written and taken. */
  readonly taken: number
  /** Bytes of `taken` that have been read for certain. Does not reject. */
  read(): Promise<number>
}

export interface Sink {
  readonly limits: Limits
  /** Only with `confirms: none`, where it can be told: what was written counts once it has been read. */
  readonly reader?: ReaderProgress
  /** lines: keys, headers and timestamps would be dropped on writing, so they need not be kept on the way. */
  readonly wants: 'lines' | 'entries'
  /** Present if and only if `limits.unit` is segment. */
  readonly segments?: SegmentPolicy
  open(ctx: EndpointContext): Promise<void>
  /**
   * Resolves when the destination has confirmed or refused each record. A throw: the outcome of the whole write is
   * unknown; it will come again.
   */
  write(write: Write, signal: AbortSignal): Promise<Outcome>
  /**
   * Releases everything; never throws. With `confirms: none`, resolves after what was written has been flushed as far
   * as one can tell.
   */
  close(): Promise<void>
}
