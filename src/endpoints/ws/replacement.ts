/**
 * Make before break: a connection is replaced before the server cuts it.
 *
 * - The old connection stays in service until the new one is open, has been open for `overlap`, and the old one's
 *   closing handshake is done.
 * - What the new one brings meanwhile waits behind all of the old one's: no record is lost and each connection's order
 *   is kept.
 * - Both bring what the server sends within the overlap. Which of it is the same only a member of the record can tell
 *   (`dedupe=`); without one, all of it goes on and the overlap's records are logged as possible duplicates.
 * - A new connection that cannot be made, or breaks within the overlap, leaves the old one in service and is tried
 *   again.
 * - Should the old one break first, the new one is already there. Only where it is not, the feed is disconnected.
 */
import { without } from '../../core/batch'
import type { Batch, Clock, Log } from '../../core/contract'
import { Throttled, lineOf } from '../../core/errors'
import { Backoff } from '../../kit/backoff'
import { formatDuration } from '../../kit/durations'
import { unlessAborted } from '../../kit/signal'
import type { MemberPicker, MemberValue } from './expect'
import type { FeedConnection } from './feed-connection'

/** Pauses between tries to replace a connection that still serves. */
const MIN_PAUSE_MS = 1000
const MAX_PAUSE_MS = 60_000
/** How soon it is seen that a new connection's records fill the memory they may take: the overlap ends then. */
const FULL_CHECK_MS = 50

export interface ReplacementContext {
  readonly everyMs: number
  readonly overlapMs: number
  readonly clock: Clock
  readonly log: Log
  readonly deduplicator: Deduplicator | undefined
  open(signal: AbortSignal): Promise<FeedConnection>
  /** The connection is read after all before it. */
  add(connection: FeedConnection): void
  remove(connection: FeedConnection): void
}

/** Until the signal aborts or the feed is disconnected. Rejects with the signal's reason only. */
export async function keepReplacing(
  parts: ReplacementContext,
  first: FeedConnection,
  signal: AbortSignal,
): Promise<void> {
  for (let connection: FeedConnection | undefined = first; connection !== undefined; )
    connection = await replace(parts, connection, signal)
}

/** The connection that replaced the old one; undefined where the old one broke before. */
async function replace(
  parts: ReplacementContext,
  old: FeedConnection,
  signal: AbortSignal,
): Promise<FeedConnection | undefined> {
  const { everyMs, overlapMs, clock, log, deduplicator } = parts
  const due = old.openedAt + everyMs
  // A new connection may be served by a machine that lags behind: keys of the old one are kept from before it opens.
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
      const held = next.received
      deduplicator?.closeOverlap(clock.monotonic())
      log.info(
        `connection replaced after ${formatDuration(next.openedAt - old.openedAt)}; ${deduplicator === undefined ? `${held} records of the overlap are possible duplicates` : 'duplicates within the overlap are dropped'}`,
        { overlapMs: Math.round(clock.monotonic() - next.openedAt), held },
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

async function attempt({ open }: ReplacementContext, signal: AbortSignal): Promise<FeedConnection | Error> {
  try {
    return await open(signal)
  } catch (error) {
    signal.throwIfAborted()
    return error instanceof Error ? error : new Error(String(error))
  }
}

/**
 * Both in service for the overlap, or until one ends or memory for the new one's records does. An error: the new one
 * broke, and has been let go.
 */
async function overlap(
  { overlapMs, clock, deduplicator, add, remove }: ReplacementContext,
  old: FeedConnection,
  next: FeedConnection,
  signal: AbortSignal,
): Promise<Error | undefined> {
  add(next)
  deduplicator?.startOverlap(next.epoch)
  const until = clock.monotonic() + overlapMs
  const looking = new AbortController()
  const stop = (): void => {
    looking.abort(signal.reason)
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
          .sleep(Math.min(FULL_CHECK_MS, left), looking.signal)
          .catch(() => undefined /* it rejects only when told to end */),
        old.ended,
        next.ended,
      ])
    }
    signal.throwIfAborted()
  } finally {
    signal.removeEventListener('abort', stop)
    looking.abort(new Error('looked'))
  }
  if (next.end === undefined || old.end !== undefined) return undefined
  remove(next)
  deduplicator?.startCollecting(old.epoch)
  return next.end.error
}

/** More keys than this in one generation begin the next: a bound on memory. */
const MAX_KEYS = 500_000

/**
 * Drops from a new connection's records those whose key the old one brought around the overlap. Records without a key
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
  /** Records, since the start. */
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
   * The old connection is closed; the new one may still bring, for as long as the overlap was, what the old one did.
   */
  closeOverlap(now: number): void {
    if (this.phase.kind === 'overlapping') this.phase.until = now + this.windowMs
  }

  /** Sees every delivery, in the order in which they go on. */
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
    const doubles = new Set<number>()
    batch.entries().forEach(({ value }, index) => {
      const key = value === null ? undefined : this.pick(value)
      if (key !== undefined && (this.keys.has(key) || this.olderKeys.has(key))) doubles.add(index)
    })
    this.dropped += doubles.size
    return without(batch, doubles)
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
