/**
 * Keeps the shards' readers going and what they bring at hand, shard after shard in turn.
 *
 * - A shard of which a delivery waits is not asked for more; all of them together hold no more than the budget.
 * - A shard's records are handed on in its order; then its end, by an empty delivery.
 * - Where the position's record is gone, that is told once, and `onGap` says where the shard goes on.
 */
import type { Clock } from '../../../core/contract'
import { unlessAborted } from '../../../kit/signal'
import type { MemoryBudget } from './memory-budget'
import { DELIVERY_BYTES, type TakenRecords, type ShardState, type TrimmedRecords } from './shard-state'
import { SequenceRefused, type ReadStart, type Page, type ShardReader } from '../stream-client'

/**
 * Where nothing comes, that is noted so often at the most and, with few hours of retention, more often: milliseconds,
 * share of the retention.
 */
const PROGRESS_EVERY_MS = 3_600_000
const PROGRESS_SHARE = 8

export interface FetcherContext {
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly budget: MemoryBudget
  readonly retentionMs: number
  reader(state: ShardState, from: ReadStart): ShardReader
  /** Nothing more is there at the moment. */
  isAtTip(page: Page): boolean
  /**
   * Where `--until` ends it: how much of a page is read, and whether it is the last. @param asOf clock's time at which
   * it was as far behind as it says, at the earliest
   */
  untilLimit(state: ShardState, page: Page, asOf: number): { readonly count: number; readonly last: boolean }
  /** The records after the position are gone. @returns where to go on */
  recordsTrimmed(state: ShardState, trimmed: TrimmedRecords): 'oldest' | 'latest'
  /** A page has come. */
  pageRead(state: ShardState, page: Page): void
  /** Something can be read, or all is finished. */
  changed(): void
  failed(error: unknown): void
}

export class ShardFetcher {
  private readonly loops = new Map<ShardState, Promise<void>>()
  private states: ShardState[] = []

  constructor(private readonly context: FetcherContext) {}

  get all(): readonly ShardState[] {
    return this.states
  }
  stateOf(shard: string): ShardState | undefined {
    return this.states.find((state) => state.shard === shard)
  }

  add(state: ShardState): void {
    this.states.push(state)
    const { signal } = this.context
    const abortShard = (): void => {
      state.abort.abort(signal.reason)
    }
    if (signal.aborted) abortShard()
    else signal.addEventListener('abort', abortShard, { once: true })
    const loop = this.fetchLoop(state)
      .catch((error: unknown) => {
        if (!state.abort.signal.aborted) this.context.failed(error)
      })
      .finally(async () => {
        signal.removeEventListener('abort', abortShard)
        await state.reader?.close()
        this.loops.delete(state)
        this.context.changed()
      })
    this.loops.set(state, loop)
    if (state.hasDelivery) this.context.changed()
  }

  /** Given up: nothing of it is returned any more. Resolves once its reader is closed. */
  async drop(state: ShardState): Promise<void> {
    state.isRevoked = true
    this.states = this.states.filter((other) => other !== state)
    this.context.budget.release(state.waitingBytes)
    state.waitingBytes = 0
    state.abort.abort(new Error('given up'))
    await this.loops.get(state)
  }

  /** Takes the next delivery, of the shard that was served longest ago. */
  take(): (TakenRecords & { readonly state: ShardState }) | undefined {
    const index = this.states.findIndex(({ hasDelivery }) => hasDelivery)
    const state = this.states[index]
    const taken = state?.take()
    if (state === undefined || taken === undefined) return undefined
    this.states.splice(index, 1)
    // One that has ended is forgotten.
    if (!taken.ended) this.states.push(state)
    this.context.budget.release(taken.bytes)
    return { ...taken, state }
  }

  /** After the signal has aborted: all is at rest. */
  async settled(): Promise<void> {
    await Promise.all(this.loops.values())
  }

  private async fetchLoop(state: ShardState): Promise<void> {
    const { clock, budget } = this.context
    const { signal } = state.abort
    while (!state.isReadToEnd) {
      if (state.waitingBytes >= DELIVERY_BYTES) {
        await unlessAborted(state.drained.wait(), signal)
        continue
      }
      const reader = (state.reader ??= this.context.reader(state, state.readStart))
      const askedAt = clock.now()
      let page: Page & { readonly ended: boolean }
      try {
        page = await reader.next(signal)
      } catch (error) {
        if (!(error instanceof SequenceRefused) || !state.awaitsPositionRecord) throw error
        await this.restartAfterGap(state, state.trimmed(clock.now()))
        continue
      }
      if (state.isRevoked) return
      const asOf = page.asOf ?? askedAt
      const tip = this.context.isAtTip(page)
      const trimmed = state.checkTrimmed(page, tip || page.ended, clock.now())
      if (trimmed !== undefined && (await this.restartAfterGap(state, trimmed, page))) continue
      const { count, last } = this.context.untilLimit(state, page, asOf)
      budget.add(state.push(count === page.records.length ? page.records : page.records.slice(0, count)))
      this.context.pageRead(state, page)
      if (page.ended && count === page.records.length) state.end()
      else if (last) state.isReadToEnd = true
      else if (tip) state.noteProgress(asOf, Math.min(PROGRESS_EVERY_MS, this.context.retentionMs / PROGRESS_SHARE))
      if (state.hasDelivery || state.isReadToEnd) this.context.changed()
    }
  }

  /** @returns whether another reader goes on elsewhere; else what the page brought is what there is */
  private async restartAfterGap(state: ShardState, trimmed: TrimmedRecords, page?: Page): Promise<boolean> {
    const onGap = trimmed.lost ? this.context.recordsTrimmed(state, trimmed) : 'oldest'
    if (onGap === 'oldest' && page !== undefined && page.records.length > 0) return false
    await state.reader?.close()
    state.restartAt(onGap === 'oldest' ? { kind: 'oldest' } : { kind: 'time', time: this.context.clock.now() })
    state.reader = this.context.reader(state, { kind: onGap })
    this.context.changed()
    return true
  }
}
