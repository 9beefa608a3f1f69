/**
 * Commits wait here for the coordinator: one request at a time, and commits that arrive meanwhile go with the next.
 *
 * - A commit is dropped, and never reaches the broker, where its partition is not owned under its epoch any more.
 * - The broker fences by generation only. An answer that calls the generation old means nothing while a join is under
 *   way, or after one: the commit is sent again in the new generation, if its partition is still owned. The member is
 *   fenced only where nothing has changed on its side since the commit was sent.
 */
import { groupFault, isFenced, isMoved, REBALANCE_IN_PROGRESS, type GroupFaultContext } from './group-errors'
import { keyOf } from './consumer-protocol'
import type { CommitRequest, CoordinatorClient, Membership } from '../protocol/cluster'

export interface CommitQueueContext {
  readonly faultContext: Omit<GroupFaultContext, 'action'>
  readonly coordinator: CoordinatorClient
  readonly signal: AbortSignal
  membership(): Membership | undefined
  owns(request: CommitRequest, epoch: number): boolean
  /** Resolves at once, but between a join's answer and the assignment: the broker takes no commits then. */
  untilCommitsAllowed(): Promise<void>
  /** Resolves when no join or sync is under way (any more). */
  untilStable(): Promise<void>
  /** A new rebalance was heard of; resolves when it makes sense to send again. */
  untilRebalanced(): Promise<void>
  onFenced(code: number): void
}
interface PendingCommit {
  readonly request: CommitRequest
  readonly epoch: number
  done(): void
  failed(error: unknown): void
}

export class CommitQueue {
  private pending: PendingCommit[] = []
  private draining = false

  constructor(private readonly context: CommitQueueContext) {}

  /** Resolves once committed or dropped. */
  async send(requests: readonly CommitRequest[], epoch: number): Promise<void> {
    const sent = requests.map(
      (request) =>
        new Promise<void>((done, failed) => {
          this.pending.push({ request, epoch, done, failed })
        }),
    )
    if (!this.draining) void this.drain()
    await Promise.all(sent)
  }

  private async drain(): Promise<void> {
    this.draining = true
    while (this.pending.length > 0) {
      // Commits of the same turn of the event loop go together.
      await Promise.resolve()
      const commits = this.pending
      this.pending = []
      try {
        await this.sendBatch(commits)
      } catch (error) {
        for (const { failed } of commits) failed(error)
      }
    }
    this.draining = false
  }

  private async sendBatch(commits: readonly PendingCommit[]): Promise<void> {
    const { context } = this
    let left = commits
    while (left.length > 0) {
      await context.untilCommitsAllowed()
      context.signal.throwIfAborted()
      for (const { request, epoch, done } of left) if (!context.owns(request, epoch)) done()
      left = left.filter(({ request, epoch }) => context.owns(request, epoch))
      const membership = context.membership()
      if (left.length === 0 || membership === undefined) {
        for (const { done } of left) done()
        return
      }
      const answers = new Map(
        (
          await context.coordinator.commit(
            membership,
            left.map(({ request }) => request),
            context.signal,
          )
        ).map((answer) => [keyOf(answer), answer.error] as const),
      )
      const again: PendingCommit[] = []
      let rebalancing = false
      for (const pending of left) {
        const code = answers.get(keyOf(pending.request)) ?? -1
        if (code === 0) pending.done()
        else if (code === REBALANCE_IN_PROGRESS) {
          rebalancing = true
          again.push(pending)
        } else if (isFenced(code)) {
          await context.untilStable()
          if (context.membership() === membership) context.onFenced(code)
          again.push(pending)
        } else {
          if (isMoved(code)) context.coordinator.forgetCoordinator()
          pending.failed(
            groupFault(code, {
              ...context.faultContext,
              action: `committing ${pending.request.topic}-${pending.request.partition}`,
            }),
          )
        }
      }
      if (rebalancing && context.membership() === membership) await context.untilRebalanced()
      await context.untilStable()
      left = again
    }
  }
}
