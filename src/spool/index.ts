/**
 * The spool: records on disk between the sources and the sinks of one flow. Invariants:
 *
 * 1. An append resolves after its bytes, the length of the file and its name survived an fdatasync (and a directory
 *    fsync for a new file). Readers see nothing earlier. Appends become durable in call order; all of one or none of it
 *    survives a crash.
 * 2. A sequence is given once and never again. Jumps (to a multiple of 2^32, at a start after an unclean end) are no
 *    loss; counts come from frames.
 * 3. A sealed segment is the same object for ever: key, length and sha256 are frozen in a block reserved when the file
 *    was made. Sealing, reading and dropping need no space on the disk.
 * 4. A descriptor whose fdatasync failed is never used again. What was not acknowledged goes to a new file under the
 *    same sequences, after what was acknowledged in the old one has been sealed: hence a segment ends where the next
 *    one begins. A second failure in a row ends the run.
 * 5. Damage at or beyond the largest durable mark known is a torn tail and is cut; below it the bytes are copied aside,
 *    the records reported lost (core/recovery/restorer.ts reads them again where it can), and all else is served. No
 *    wrong byte is ever served: every frame is checked whenever it is read from disk. A sector that cannot be read is
 *    damage.
 * 6. A segment goes only to the targets named in its header. One without any (no segment sink at that time) takes on
 *    the first that comes.
 * 7. Files are only removed when all in them is below the durable cursors, or nothing in them was ever acknowledged.
 *    Gaps and positions behind the last record of a file (it has none, or they are delivered) are first written again
 *    into the next file.
 * 8. A start cuts the torn tail, writes what was not known synced once more and syncs it, and syncs the directory,
 *    before anything is served: a page that an earlier fdatasync failed on counts as clean and would be gone with the
 *    power.
 *
 * writer (with open-segment, items, group, space, pressure) appends and seals; reader, frames, entries and segment
 * read; look, recovery, examine and repair make whole what a start finds; store is what they share; format has the
 * bytes.
 *
 * The directory holds `SEQUENCE16[-N].seg`, and `….N.quarantine` (copies of damaged or torn bytes, for people; never
 * read again). Little-endian.
 *
 *   segment   header page 4096 | seal block 12288 | frames
 *   header    magic "MNFSPOOL" | version u32 | crc32 u32 | JSON length u32 | JSON { id, first, createdAt, targets }
 *             | NULs
 *   seal      magic "SEAL" | JSON length u32 | crc32 u32 | JSON (format.ts, Seal) | NULs;
 *             all NULs while the segment is open
 *   frame     magic "MFR1" | length u32 | crc32 u32 | encoding u8, flags u8, 0 u16 | first sequence u64 | count u32
 *             | length of positions u32 | received-at f64 ms | durable u64 | positions | payload
 *   positions length of source u32, of partition u32, of position u32, and the three as UTF-8
 *   payload   encoding 0: a gap as JSON (count 0) · 1: newline-terminated records · 2: entries (entries.ts)
 *
 * `length` is the whole frame's. `durable` is the length of this file that was known synced when the frame was written.
 * Flag 1: the append goes on in the next frame. The checksums of seal and frames are seeded with the spool's id; a
 * frame's covers positions, payload, then the head but for itself.
 */
import { randomBytes } from 'node:crypto'
import type { Clock, Gap, Log, SegmentPolicy } from '../core/contract'
import { DiskFailed, lineOf, ManifoldError, UsageError } from '../core/errors'
import type {
  LostRecords as Lost,
  SealedSegment,
  Sequence,
  Spool,
  Spooled,
  SpoolReader,
  SpoolRecords,
  SpoolStatus,
} from '../core/flow/ports'
import { closeQuietly, type FileSystem } from '../kit/file-system'
import { encodeHeader, seedOf } from './format'
import { gapItem, progressItem, recordsItem, type Settle } from './append-items'
import { BatchReader, SegmentReader, type Verify } from './reader'
import { listSegmentFiles } from './segment-files'
import { Recovery, type Foreign, type RecoveryKnowledge } from './recovery'
import type { SegmentGap, Quarantined } from './repair'
import type { SegmentFile, SpoolContext } from './segment'
import { Space } from './space'
import { Store } from './store'
import { Writer } from './writer'

export type { Foreign, RecoveryKnowledge, SegmentGap, Quarantined }

export interface SpoolConfig {
  readonly fs: FileSystem
  /** Absolute; made where it does not exist (its parent does). */
  readonly directory: string
  readonly clock: Clock
  readonly log: Log
  /** 16 bytes, hex, as the flow file knows it. Absent: that of the files there, else a new one. */
  readonly id?: string
  /**
   * From the flow file, all 0 and false where it is new. `sequence`: the largest that was known; after a clean stop
   * (`clean`) exactly the next to be given: then save the larger of `spool.head` and `OpenedSpool.nextSequence`.
   * `tail`: the lowest cursor of the sinks that have one. `acceptedThrough`: the `next` of the newest append that
   * resolved and was counted (`head` may be further, for a moment).
   */
  readonly known: RecoveryKnowledge
  /** Segment sinks; empty for flows that only write batches. All agree on sealBytes, sealAge, period and framing. */
  readonly policies: readonly { readonly sink: string; readonly policy: SegmentPolicy }[]
  /**
   * The object bytes of a frame that is not newline-terminated lines for `framing: lines`, in the framing that its
   * segment was sealed with. Deterministic: the same bytes from the same frame, for ever.
   */
  readonly render?: (frame: Spooled, framing: 'lines' | 'envelope') => readonly Buffer[]
  /** Size at which a file is rotated where there are no segment sinks. */
  readonly segmentBytes: number
  readonly maxBytes?: number
  /**
   * Bytes that stay free on the disk. Default: 1 GiB or 5 %, whichever is more, but at most a quarter of the file
   * system.
   */
  readonly reserve?: number
  /**
   * Bytes of old segments that are read through at opening; the others when their turn comes. 256 MiB; tests make it
   * small.
   */
  readonly verifyAtStart?: number
  /** Payload of a frame, one record apart. 4 MiB; tests make it small. */
  readonly frameBytes?: number
}

export interface OpenedSpool {
  readonly spool: Spool
  readonly id: string
  readonly recovered: {
    /** Records from `acceptedThrough` on. */
    readonly recordsSince: number
    readonly quarantined: readonly Quarantined[]
    /** Gaps recorded from `acceptedThrough` on, and records that are lost from the disk (`lost`): reported once. */
    readonly gaps: readonly SegmentGap[]
    readonly tornBytes: number
  }
  /**
   * Segments with undelivered records that go to another target than their sink's of today; or, where `known` is all 0,
   * to a sink that is not there. No reader returns them.
   */
  readonly foreign: readonly Foreign[]
  /** The sequence that the next record gets. */
  readonly nextSequence: Sequence
}

const MOST_SEGMENT_SINKS = 6
const FRAME_BYTES = 4 * 1024 * 1024

/**
 * Throws UsageError for what the user must change (a newer format, another spool's files), DiskFailed where the disk
 * refuses.
 */
export async function openSpool(config: SpoolConfig): Promise<OpenedSpool> {
  if (config.policies.length > MOST_SEGMENT_SINKS)
    throw new UsageError([
      `one flow can have ${MOST_SEGMENT_SINKS} sinks that store objects, not ${config.policies.length}: give the others a flow of their own`,
    ])
  try {
    return await opened(config)
  } catch (error) {
    throw asDiskFailed(error, `the spool in ${config.directory} cannot be opened`)
  }
}

function asDiskFailed(error: unknown, what: string): unknown {
  return error instanceof ManifoldError || (error as NodeJS.ErrnoException).code === undefined
    ? error
    : new DiskFailed(`${what}: ${lineOf(error)}`, { cause: error })
}

async function opened(config: SpoolConfig): Promise<OpenedSpool> {
  const { fs, directory, clock, log } = config
  const looked = await listSegmentFiles(fs, directory, config.id)
  const id = looked.id ?? randomBytes(16).toString('hex')
  try {
    encodeHeader({
      id,
      first: Number.MAX_SAFE_INTEGER,
      createdAt: clock.now(),
      targets: Object.fromEntries(config.policies.map(({ sink, policy }) => [sink, policy.target])),
    })
  } catch (error) {
    throw new UsageError([lineOf(error)])
  }
  const context: SpoolContext = {
    fs,
    directory,
    clock,
    log,
    id,
    seed: seedOf(id),
    policies: config.policies,
    render: config.render,
    frameBytes: config.frameBytes ?? FRAME_BYTES,
  }
  const recovery = new Recovery(context, config.known, looked.id !== undefined, config.verifyAtStart)
  const found = await recovery.run(looked.found)
  const store = new Store(context, found.head)
  store.segments.push(...found.segments)
  for (const segment of found.segments) store.bytes += segment.end
  for (const place of found.places) store.place(place)
  for (const [source, at] of found.received) store.arrived(source, at)
  const spool = new DiskSpool(config, context, store, recovery, found.nextSequence, found.carried)
  return {
    spool,
    id,
    foreign: found.foreign,
    nextSequence: found.nextSequence,
    recovered: {
      recordsSince: store.countFrom(config.known.acceptedThrough),
      quarantined: found.quarantined,
      gaps: found.gaps,
      tornBytes: found.tornBytes,
    },
  }
}

class DiskSpool implements Spool {
  private readonly writer: Writer
  private readonly readers = new Map<string, BatchReader>()
  private readonly verifying = new Map<SegmentFile, Promise<void>>()

  constructor(
    private readonly config: SpoolConfig,
    private readonly context: SpoolContext,
    private readonly store: Store,
    private readonly recovery: Recovery,
    first: Sequence,
    carried: Awaited<ReturnType<Recovery['run']>>['carried'],
  ) {
    const policy = config.policies[0]?.policy
    const settle: Settle = { resolve: () => undefined, reject: () => undefined }
    const items = [
      ...carried.progress.map((place) => progressItem(context, place, first, place.receivedAt, settle)),
      ...carried.gaps.map(({ source, sequence: _, ...gap }) =>
        gapItem(context, source, gap, first, context.clock.now(), settle),
      ),
    ]
    for (const place of carried.progress) store.place(place)
    this.writer = new Writer(
      context,
      store,
      new Space(config.fs, config.directory, config.reserve, config.maxBytes, context.log),
      { sealBytes: policy?.sealBytes ?? 0, sealAge: policy?.sealAge ?? 0, segmentBytes: config.segmentBytes },
      first,
      items,
      [...carried.paths],
    )
  }

  append(records: SpoolRecords): Promise<{ readonly first: Sequence; readonly next: Sequence }> {
    return new Promise((resolve, reject) => {
      const item = recordsItem(this.context, records, this.writer.sequence, {
        // Without records it takes no sequence: what a start has skipped is not to be taken for records.
        resolve: () => {
          resolve(
            item.count === 0
              ? { first: this.store.head, next: this.store.head }
              : { first: item.first, next: item.next },
          )
        },
        reject,
      })
      this.writer.push(item)
    })
  }
  gap(source: string, gap: Gap): Promise<void> {
    return new Promise((resolve, reject) => {
      this.writer.push(
        gapItem(this.context, source, gap, this.writer.sequence, this.context.clock.now(), { resolve, reject }),
      )
    })
  }

  position(source: string, partition: string): string | undefined {
    return this.store.position(source, partition)
  }
  partitions(source: string): readonly string[] {
    return this.store.partitions(source)
  }
  lastReceivedAt(source: string): number | undefined {
    return this.store.lastReceivedAt(source)
  }
  countFrom(sequence: Sequence): number {
    return this.store.countFrom(sequence)
  }
  get head(): Sequence {
    return this.store.head
  }
  get tail(): Sequence {
    return this.store.tail
  }
  firstFor(sink: string): Sequence {
    return this.store.firstFor(sink)
  }

  batches(sink: string, from: Sequence): SpoolReader<Spooled> {
    // A sink that is opened again begins anew: the file that its former reader holds is let go.
    void closeQuietly(this.readers.get(sink))
    const reader = new BatchReader(this.context, this.store, this.verify, from)
    this.readers.set(sink, reader)
    return reader
  }
  async *kept(from: Sequence): AsyncGenerator<Spooled, void, undefined> {
    const reader = new BatchReader(this.context, this.store, this.verify, from, false)
    const never = new AbortController().signal
    try {
      for (let frame = await reader.next(never); frame !== null; frame = await reader.next(never)) yield frame
    } finally {
      await reader.close()
    }
  }
  segments(sink: string, from: Sequence): SpoolReader<SealedSegment> {
    if (!this.config.policies.some((one) => one.sink === sink))
      throw new Error(`${sink} is no segment sink of this spool`)
    return new SegmentReader(this.context, this.store, this.verify, sink, from)
  }
  private readonly verify: Verify = (segment) => {
    if (segment.verified) return Promise.resolve()
    let verifying = this.verifying.get(segment)
    if (verifying === undefined) {
      verifying = this.recovery
        .verify(segment)
        .then((lost) => {
          if (lost.length > 0) this.hear(lost)
        })
        .catch((error: unknown) => {
          throw asDiskFailed(error, `the spool file ${segment.path} cannot be read`)
        })
        .finally(() => {
          this.verifying.delete(segment)
        })
      this.verifying.set(segment, verifying)
    }
    return verifying
  }

  seal(): Promise<void> {
    return this.writer.seal()
  }
  end(): Promise<void> {
    return this.writer.end()
  }
  async drop(below: Sequence): Promise<void> {
    if (await this.store.drop(below)) this.writer.retry()
  }
  status(): SpoolStatus {
    return this.writer.status()
  }
  onStatus(changed: (status: SpoolStatus) => void): void {
    this.writer.onStatus(changed)
  }
  private heard: ((losses: readonly Lost[]) => void) | undefined
  private readonly unheard: Lost[] = []
  private hear(losses: readonly Lost[]): void {
    if (this.heard === undefined) this.unheard.push(...losses)
    else this.heard(losses)
  }
  onLost(heard: (losses: readonly Lost[]) => void): void {
    this.heard = heard
    if (this.unheard.length > 0) heard(this.unheard.splice(0))
  }
  get failed(): Promise<never> {
    return this.writer.failed
  }

  async close(): Promise<void> {
    await this.writer.close()
    for (const reader of this.readers.values()) await reader.close()
  }
}
