/**
 * Replaces a connection before the server cuts it (make before break).
 *
 * - The old connection stays in service until the new one has been open for `overlap` and the old one's closing
 *   handshake is done.
 * - Records of the new connection wait behind all records of the old one. No record is lost, and each connection keeps
 *   its order.
 * - Both receive what the server sends during the overlap. Only a member of the record tells which records are the same
 *   (`dedupe=`). Without it all are returned, and those of the overlap are logged as possible duplicates.
 * - If a new connection cannot be made, or breaks during the overlap, the old one stays in service and another is tried
 *   later.
 * - If the old connection breaks first, the new one is already open. If it is not, the feed is disconnected.
 */
import { without } from '../../core/batch'
import type { Batch, Clock, Log } from '../../core/contract'
import { Throttled, lineOf } from '../../core/errors'
import { Backoff } from '../../kit/backoff'
import { formatDuration } from '../../kit/durations'
import { unlessAborted } from '../../kit/signal'
import type { MemberPicker, MemberValue } from './expect'
import type { SourceConnection } from './feed-connection'

/** The pauses between attempts to replace a connection that is still in service. */
const MIN_PAUSE_MS = 1000
const MAX_PAUSE_MS = 60_000
/** The overlap ends early if the buffer of the new connection is full, which is checked this often. */
const FULL_CHECK_MS = 50

export interface ReplacementContext {
  readonly everyMs: number
  readonly overlapMs: number
  readonly clock: Clock
  readonly log: Log
  readonly deduplicator: Deduplicator | undefined
  open(signal: AbortSignal): Promise<SourceConnection>
  /** Adds a connection, which is read after all others. */
  add(connection: SourceConnection): void
  remove(connection: SourceConnection): void
}

/**
 * Replaces connections until the signal aborts or the feed is disconnected. It rejects only with the signal's reason.
 */
export async function keepReplacing(
  parts: ReplacementContext,
  first: SourceConnection,
  signal: AbortSignal,
): Promise<void> {
  for (let connection: SourceConnection | undefined = first; connection !== undefined; )
    connection = await replace(parts, connection, signal)
}

/** Returns the connection that replaced the old one, or undefined if the old one broke before. */
async function replace(
  parts: ReplacementContext,
  old: SourceConnection,
  signal: AbortSignal,
): Promise<SourceConnection | undefined> {
  const { everyMs, overlapMs, clock, log, deduplicator } = parts
  const due = old.openedAt + everyMs
  // The server of a new connection may lag behind. So keys of the old connection are kept from before its opening.
  await clock.sleep(due - overlapMs - clock.monotonic(), signal)
  deduplicator?.startCollecting(old.epoch)
  await clock.sleep(due - clock.monotonic(), signal)
  const backoff = new Backoff(MIN_PAUSE_MS, Math.min(MAX_PAUSE_MS, Math.max(MIN_PAUSE_MS, everyMs)))
  for (;;) {
    if (old.end !== undefined) return undefined
    const next = await attempt(parts, signal)
    if (old.end !== undefined) {
      if (next instanceof Error) return undefined
      await next.close(0)
      return undefined
    }
    const trouble = next instanceof Error ? next : await overlap(parts, old, next, signal)
    if (trouble === undefined && !(next instanceof Error)) {
      await unlessAborted(old.close(), signal)
      const receivedInOverlap = next.received
      deduplicator?.closeOverlap(clock.monotonic())
      log.info(
        `connection replaced after ${formatDuration(next.openedAt - old.openedAt)}; ${deduplicator === undefined ? `${receivedInOverlap} records of the overlap are possible duplicates` : 'duplicates within the overlap are dropped'}`,
        { overlapMs: Math.round(clock.monotonic() - next.openedAt), held: receivedInOverlap },
      )
      return next
    }
    const pause = trouble instanceof Throttled && trouble.afterMs !== undefined ? trouble.afterMs : backoff.next()
    log.warn(
      `the connection could not be replaced: ${lineOf(trouble)}; the old one stays in service, next try in ${formatDuration(pause)}`,
    )
    await clock.sleep(pause, signal)
  }
}

async function attempt({ open }: ReplacementContext, signal: AbortSignal): Promise<SourceConnection | Error> {
  try {
    return await open(signal)
  } catch (error) {
    signal.throwIfAborted()
    return error instanceof Error ? error : new Error(String(error))
  }
}

/**
 * Keeps both in service for the overlap, or until one of them ends or the new one's buffer is full. It returns an error
 * if the new one broke and was removed.
 */
async function overlap(
  { overlapMs, clock, deduplicator, add, remove }: ReplacementContext,
  old: SourceConnection,
  next: SourceConnection,
  signal: AbortSignal,
): Promise<Error | undefined> {
  add(next)
  deduplicator?.startOverlap(next.epoch)
  const until = clock.monotonic() + overlapMs
  const polling = new AbortController()
  const stop = (): void => {
    polling.abort(signal.reason)
  }
  signal.addEventListener('abort', stop, { once: true })
  try {
    for (
      let left = overlapMs;
      left > 0 && old.end === undefined && next.end === undefined && !next.isFull;
      left = until - clock.monotonic()
    ) {
      signal.throwIfAborted()
      await Promise.race([
        clock
          .sleep(Math.min(FULL_CHECK_MS, left), polling.signal)
          .catch(() => undefined /* it rejects only when it is aborted */),
        old.ended,
        next.ended,
      ])
    }
    signal.throwIfAborted()
  } finally {
    signal.removeEventListener('abort', stop)
    polling.abort(new Error('looked'))
  }
  if (next.end === undefined || old.end !== undefined) return undefined
  remove(next)
  deduplicator?.startCollecting(old.epoch)
  return next.end.error
}

/** A generation of keys has at most this many, which bounds memory. */
const MAX_KEYS = 500_000

/**
 * Drops those records of a new connection whose keys the old one received around the overlap. Records without a key
 * always pass.
 */
export class Deduplicator {
  private phase:
    | { readonly kind: 'off' }
    | { readonly kind: 'collecting'; readonly old: number }
    | { readonly kind: 'overlapping'; readonly old: number; readonly next: number; until?: number } = { kind: 'off' }
  private keys = new Set<MemberValue>()
  private olderKeys = new Set<MemberValue>()
  private generationAt = 0
  /** Counts the dropped records. */
  dropped = 0

  constructor(
    private readonly pick: MemberPicker,
    private readonly windowMs: number,
  ) {}

  reset(): void {
    this.phase = { kind: 'off' }
    this.keys = new Set()
    this.olderKeys = new Set()
  }

  startCollecting(old: number): void {
    if (this.phase.kind === 'off' || this.phase.old !== old) this.reset()
    this.phase = { kind: 'collecting', old }
  }

  startOverlap(next: number): void {
    if (this.phase.kind === 'collecting') this.phase = { kind: 'overlapping', old: this.phase.old, next }
  }
  /**
   * The old connection is closed. For the time of an overlap, the new one may still receive records that the old one
   * received.
   */
  closeOverlap(now: number): void {
    if (this.phase.kind === 'overlapping') this.phase.until = now + this.windowMs
  }

  /** Filters every delivery, in the order in which they are returned. */
  filter(batch: Batch, epoch: number, receivedAt: number): Batch {
    const { phase } = this
    if (phase.kind === 'off') return batch
    if (epoch === phase.old) {
      this.remember(batch, receivedAt, phase.kind === 'collecting')
      return batch
    }
    if (phase.kind !== 'overlapping' || epoch !== phase.next) return batch
    if (phase.until !== undefined && receivedAt > phase.until) {
      this.reset()
      return batch
    }
    const duplicates = new Set<number>()
    batch.entries().forEach(({ value }, index) => {
      const key = value === null ? undefined : this.pick(value)
      if (key !== undefined && (this.keys.has(key) || this.olderKeys.has(key))) duplicates.add(index)
    })
    this.dropped += duplicates.size
    return without(batch, duplicates)
  }

  private remember(batch: Batch, receivedAt: number, rolling: boolean): void {
    if ((rolling && receivedAt - this.generationAt >= this.windowMs) || this.keys.size >= MAX_KEYS) {
      this.olderKeys = this.keys
      this.keys = new Set()
      this.generationAt = receivedAt
    }
    for (const { value } of batch.entries()) {
      const key = value === null ? undefined : this.pick(value)
      if (key !== undefined) this.keys.add(key)
    }
  }
}
