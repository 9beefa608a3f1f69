/**
 * Membership of a consumer group: the classic protocol (JoinGroup, SyncGroup, Heartbeat, OffsetCommit, LeaveGroup),
 * with cooperative rebalances. member-run.ts is its state machine, member-state.ts its state, leader.ts and assignor.ts
 * the leader's work, commit-queue.ts its commits.
 *
 * It promises:
 * - A commit needs a current epoch: under an old one it is dropped and never reaches the broker.
 * - A partition that moves away is drained and committed before the join that gives it up, within a share of the
 *   rebalance timeout. Heartbeats go on meanwhile.
 * - A fenced member (ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID) loses everything at once, and tells its
 *   listener before it sends another request.
 * - Membership outlives a connection. After `suspend`, `start` asks the coordinator whether it still knows the member.
 *   If it does, nothing is lost: the partitions are assigned again under their epochs, and what is in flight may still
 *   be committed.
 *
 * The source drives it:
 * - One member serves the source for its lifetime. `open` awaits `member.start(context, signal)`, which resolves once
 *   the coordinator has accepted the member, and rejects with the error that `open` is to throw. `close` calls
 *   `suspend()` after a throw of `read`, `open` or `commit`, because the core opens again, and `leave()` otherwise.
 * - `assigned` under an epoch that was seen before means to go on after the last delivery (`ctx.resume`), under a new
 *   epoch to start at the committed offset.
 * - `revoked` may name partitions that were not announced since the last `start`; their records in flight are drained
 *   all the same. A partition that is lost meanwhile may be assigned anew before its drain is over, and the end of the
 *   drain must not end the new assignment. A drain that `suspend` has cut short leaves its partitions owned: they are
 *   assigned again under their epochs.
 *
 * Only two things are retried here. A failed heartbeat is repeated, and counts only once the session timeout has passed
 * without an answer. A coordinator that moves or loads is asked again for as long, because these answers are the
 * protocol's way to say "wait". All other faults go to `failed`, for the core to retry. Our own clock never takes
 * partitions away: only the coordinator knows whether the session lives, and it fences the commits of a dead one.
 */
import { Disconnected, lineOf } from '../../../core/errors'
import { linkedAbort, unlessAborted } from '../../../kit/signal'
import { keyOf, type TopicPartition } from './consumer-protocol'
import { groupFault, isMoved, UNSTABLE_OFFSET_COMMIT } from './group-errors'
import { resetMemberState, newMemberState } from './member-state'
import { MemberRun } from './member-run'
import type { GroupSettings, MemberContext } from './member-context'
import type { CommitRequest, CommittedOffset } from '../protocol/cluster'

/** Asked again this often: a coordinator that loads or moves, offsets that a transaction is about to change. */
const RETRY_INTERVAL_MS = 250
/** A LeaveGroup that is not answered must not hold up the exit. */
const LEAVE_TIMEOUT_MS = 3000

export class GroupMember {
  private readonly memberState = newMemberState()
  private run: MemberRun | undefined
  private context: MemberContext | undefined

  constructor(private readonly settings: GroupSettings) {}

  /** Owned partitions, with the epoch of each, by `keyOf`. */
  get owned(): ReadonlyMap<string, { readonly at: TopicPartition; readonly epoch: number }> {
    return this.memberState.owned
  }

  /** It has an assignment of the group's present generation, be it of nothing. */
  get isAssigned(): boolean {
    return this.memberState.synced !== undefined && this.memberState.synced === this.memberState.membership
  }

  /** As the coordinator knows it; empty: not at all. */
  get memberId(): string {
    return this.memberState.memberId
  }

  /**
   * Resolves once the coordinator has accepted the member; assignments come by `context.listener`. Rejects where that
   * fails, and with the reason of the signal.
   */
  async start(context: MemberContext, signal: AbortSignal): Promise<void> {
    await this.suspend()
    this.context = context
    this.run = new MemberRun(this.settings, context, this.memberState, signal)
    await this.run.started
  }

  /**
   * The subscription's topics have changed, or the number of their partitions: joins again if that makes a difference.
   */
  subscriptionChanged(): void {
    this.run?.subscriptionChanged()
  }

  /**
   * Resolves once all are committed, or dropped because they are not owned under this epoch any more. Rejects with an
   * error of core/errors: the core sends again.
   */
  async commit(offsets: readonly CommitRequest[], epoch: number): Promise<void> {
    const owned = offsets.filter((offset) => this.memberState.owned.get(keyOf(offset))?.epoch === epoch)
    if (owned.length === 0) return
    if (this.run === undefined) throw new Disconnected(`group ${this.settings.group}: not connected; the commit waits`)
    await this.run.commit(owned, epoch)
  }

  /** By `keyOf`; a partition without a committed offset is left out. */
  async committed(
    partitions: readonly TopicPartition[],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, CommittedOffset>> {
    const { group, sessionTimeoutMs } = this.settings
    const { context } = this
    if (context === undefined) throw new Disconnected(`group ${group}: not connected`)
    if (partitions.length === 0) return new Map()
    for (const deadline = context.clock.monotonic() + sessionTimeoutMs; ; ) {
      const answers = await context.coordinator.committed(group, partitions, signal)
      const fault = answers.find(({ error }) => error !== 0)
      if (fault === undefined)
        return new Map(answers.filter(({ offset }) => offset >= 0).map((answer) => [keyOf(answer), answer] as const))
      if (isMoved(fault.error)) context.coordinator.forgetCoordinator()
      else if (fault.error !== UNSTABLE_OFFSET_COMMIT)
        throw this.fault(fault.error, `asking for the committed offset of ${fault.topic}-${fault.partition}`)
      if (context.clock.monotonic() >= deadline)
        throw this.fault(fault.error, `asking for the committed offset of ${fault.topic}-${fault.partition}`)
      await context.clock.sleep(RETRY_INTERVAL_MS, signal)
    }
  }

  /**
   * No more heartbeats and commits, but still a member: `start` goes on where the coordinator still knows us. Never
   * throws.
   */
  async suspend(): Promise<void> {
    const { run } = this
    this.run = undefined
    await run?.end()
  }

  /**
   * Leaves the group, so that others get the partitions at once; a static member only stops. Owned partitions are given
   * up without being drained. Never throws.
   */
  async leave(): Promise<void> {
    await this.suspend()
    const { context, memberState } = this
    const { membership, memberId } = memberState
    this.context = undefined
    resetMemberState(memberState, '')
    if (context === undefined || memberId === '' || this.settings.instanceId !== undefined) return
    const bound = linkedAbort()
    const { signal } = bound.controller
    // Answered in time: the sleep ends by the signal.
    context.clock.sleep(LEAVE_TIMEOUT_MS, signal).then(
      () => {
        bound.controller.abort(new Error(`no answer within ${LEAVE_TIMEOUT_MS} ms`))
      },
      () => undefined,
    )
    try {
      const { error } = await unlessAborted(
        context.coordinator.leave(membership ?? { group: this.settings.group, generation: -1, memberId }, signal),
        signal,
      )
      if (error !== 0)
        context.log.debug(
          `group ${this.settings.group}: leaving was answered with code ${error}; the session times out`,
        )
    } catch (error) {
      context.log.debug(`group ${this.settings.group}: leaving failed: ${lineOf(error)}; the session times out`)
    } finally {
      bound.controller.abort(new Error('left'))
    }
  }

  private fault(code: number, doing: string): Error {
    return groupFault(code, { ...this.settings, action: doing })
  }
}
