/**
 * Commits on their way to the coordinator: one request at a time, what arrives meanwhile goes with the next.
 *
 * - A commit whose partition is not held under its epoch any more is dropped: it never reaches the broker.
 * - The broker fences by generation only. An answer that calls the generation old means nothing while a join is under
 *   way or over since: the commit is sent again in the new generation, if its partition is still held. Only where
 *   nothing has changed on our side since it was sent we are fenced.
 */
import { groupFault, isFenced, isMoved, REBALANCE_IN_PROGRESS, type Asked } from './group-codes'
import { keyOf } from './consumer-protocol'
import type { CommitAsk, GroupWire, Membership } from './wire'

export interface CommitParts {
  readonly asked: Omit<Asked, 'doing'>
  readonly wire: GroupWire
  readonly signal: AbortSignal
  membership(): Membership | undefined
  holds(ask: CommitAsk, epoch: number): boolean
  /** Resolves at once, but between a join's answer and the assignment: the broker takes no commits then. */
  answerable(): Promise<void>
  /** Resolves when no join or sync is under way (any more). */
  settled(): Promise<void>
  /** A new rebalance was heard of; resolves when it makes sense to send again. */
  rebalancing(): Promise<void>
  fenced(code: number): void
}
interface Waiting {
  readonly ask: CommitAsk
  readonly epoch: number
  done(): void
  failed(error: unknown): void
}

export class GroupCommits {
  private waiting: Waiting[] = []
  private draining = false

  constructor(private readonly parts: CommitParts) {}

  /** Resolves once committed or dropped. */
  async send(asks: readonly CommitAsk[], epoch: number): Promise<void> {
    const sent = asks.map(
      (ask) =>
        new Promise<void>((done, failed) => {
          this.waiting.push({ ask, epoch, done, failed })
        }),
    )
    if (!this.draining) void this.drain()
    await Promise.all(sent)
  }

  private async drain(): Promise<void> {
    this.draining = true
    while (this.waiting.length > 0) {
      // What is asked for in the same turn goes together.
      await Promise.resolve()
      const batch = this.waiting
      this.waiting = []
      try {
        await this.batch(batch)
      } catch (error) {
        for (const { failed } of batch) failed(error)
      }
    }
    this.draining = false
  }

  private async batch(batch: readonly Waiting[]): Promise<void> {
    const { parts } = this
    let left = batch
    while (left.length > 0) {
      await parts.answerable()
      parts.signal.throwIfAborted()
      for (const { ask, epoch, done } of left) if (!parts.holds(ask, epoch)) done()
      left = left.filter(({ ask, epoch }) => parts.holds(ask, epoch))
      const membership = parts.membership()
      if (left.length === 0 || membership === undefined) {
        for (const { done } of left) done()
        return
      }
      const answers = new Map(
        (
          await parts.wire.commit(
            membership,
            left.map(({ ask }) => ask),
            parts.signal,
          )
        ).map((answer) => [keyOf(answer), answer.error] as const),
      )
      const again: Waiting[] = []
      let rebalancing = false
      for (const waiting of left) {
        const code = answers.get(keyOf(waiting.ask)) ?? -1
        if (code === 0) waiting.done()
        else if (code === REBALANCE_IN_PROGRESS) {
          rebalancing = true
          again.push(waiting)
        } else if (isFenced(code)) {
          await parts.settled()
          if (parts.membership() === membership) parts.fenced(code)
          again.push(waiting)
        } else {
          if (isMoved(code)) parts.wire.forgetCoordinator()
          waiting.failed(
            groupFault(code, { ...parts.asked, doing: `committing ${waiting.ask.topic}-${waiting.ask.partition}` }),
          )
        }
      }
      if (rebalancing && parts.membership() === membership) await parts.rebalancing()
      await parts.settled()
      left = again
    }
  }
}
