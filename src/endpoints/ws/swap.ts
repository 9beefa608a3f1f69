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
import type { Pick, Picked } from './expect'
import type { Lane } from './lane'

/** Pauses between tries to replace a connection that still serves. */
const LEAST_PAUSE_MS = 1000
const MOST_PAUSE_MS = 60_000
/** How soon it is seen that a new connection's records fill the memory they may take: the overlap ends then. */
const LOOK_MS = 50

export interface SwapParts {
  readonly everyMs: number
  readonly overlapMs: number
  readonly clock: Clock
  readonly log: Log
  readonly dedupe: Dedupe | undefined
  open(signal: AbortSignal): Promise<Lane>
  /** The lane is read after all before it. */
  join(lane: Lane): void
  leave(lane: Lane): void
}

/** Until the signal aborts or the feed is disconnected. Rejects with the signal's reason only. */
export async function keepSwapping(parts: SwapParts, first: Lane, signal: AbortSignal): Promise<void> {
  for (let lane: Lane | undefined = first; lane !== undefined; ) lane = await swap(parts, lane, signal)
}

/** The lane that replaced the old one; undefined where the old one broke before. */
async function swap(parts: SwapParts, old: Lane, signal: AbortSignal): Promise<Lane | undefined> {
  const { everyMs, overlapMs, clock, log, dedupe } = parts
  const due = old.openedAt + everyMs
  // A new connection may be served by a machine that lags behind: keys of the old one are kept from before it opens.
  await clock.sleep(due - overlapMs - clock.monotonic(), signal)
  dedupe?.collect(old.epoch)
  await clock.sleep(due - clock.monotonic(), signal)
  const backoff = new Backoff(LEAST_PAUSE_MS, Math.min(MOST_PAUSE_MS, Math.max(LEAST_PAUSE_MS, everyMs)))
  for (;;) {
    if (old.end !== undefined) return undefined
    const next = await attempt(parts, signal)
    if (old.end !== undefined) {
      if (next instanceof Error) return undefined
      await next.close(0)
      return undefined
    }
    const trouble = next instanceof Error ? next : await overlapped(parts, old, next, signal)
    if (trouble === undefined && !(next instanceof Error)) {
      await unlessAborted(old.close(), signal)
      const held = next.received
      dedupe?.cut(clock.monotonic())
      log.info(
        `connection replaced after ${formatDuration(next.openedAt - old.openedAt)}; ${dedupe === undefined ? `${held} records of the overlap are possible duplicates` : 'duplicates within the overlap are dropped'}`,
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

async function attempt({ open }: SwapParts, signal: AbortSignal): Promise<Lane | Error> {
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
async function overlapped(
  { overlapMs, clock, dedupe, join, leave }: SwapParts,
  old: Lane,
  next: Lane,
  signal: AbortSignal,
): Promise<Error | undefined> {
  join(next)
  dedupe?.overlap(next.epoch)
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
          .sleep(Math.min(LOOK_MS, left), looking.signal)
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
  leave(next)
  dedupe?.collect(old.epoch)
  return next.end.error
}

/** More keys than this in one generation begin the next: a bound on memory. */
const MOST_KEYS = 500_000

/**
 * Drops from a new connection's records those whose key the old one brought around the overlap. Records without a key
 * always pass.
 */
export class Dedupe {
  private phase:
    | { readonly kind: 'off' }
    | { readonly kind: 'collecting'; readonly old: number }
    | { readonly kind: 'overlapping'; readonly old: number; readonly next: number; until?: number } = { kind: 'off' }
  private keys = new Set<Picked>()
  private before = new Set<Picked>()
  private since = 0
  /** Records, since the start. */
  dropped = 0

  constructor(
    private readonly pick: Pick,
    private readonly windowMs: number,
  ) {}

  reset(): void {
    this.phase = { kind: 'off' }
    this.keys = new Set()
    this.before = new Set()
  }

  collect(old: number): void {
    if (this.phase.kind === 'off' || this.phase.old !== old) this.reset()
    this.phase = { kind: 'collecting', old }
  }

  overlap(next: number): void {
    if (this.phase.kind === 'collecting') this.phase = { kind: 'overlapping', old: this.phase.old, next }
  }
  /**
   * The old connection is closed; the new one may still bring, for as long as the overlap was, what the old one did.
   */
  cut(now: number): void {
    if (this.phase.kind === 'overlapping') this.phase.until = now + this.windowMs
  }

  /** Sees every delivery, in the order in which they go on. */
  pass(batch: Batch, epoch: number, receivedAt: number): Batch {
    const { phase } = this
    if (phase.kind === 'off') return batch
    if (epoch === phase.old) {
      this.note(batch, receivedAt, phase.kind === 'collecting')
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
      if (key !== undefined && (this.keys.has(key) || this.before.has(key))) doubles.add(index)
    })
    this.dropped += doubles.size
    return without(batch, doubles)
  }

  private note(batch: Batch, receivedAt: number, rolling: boolean): void {
    if ((rolling && receivedAt - this.since >= this.windowMs) || this.keys.size >= MOST_KEYS) {
      this.before = this.keys
      this.keys = new Set()
      this.since = receivedAt
    }
    for (const { value } of batch.entries()) {
      const key = value === null ? undefined : this.pick(value)
      if (key !== undefined) this.keys.add(key)
    }
  }
}
