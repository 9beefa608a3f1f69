/**
 * Membership of a consumer group: classic protocol (JoinGroup, SyncGroup, Heartbeat, OffsetCommit, LeaveGroup),
 * rebalancing cooperatively.
 *
 * What it promises:
 * - A commit needs a current epoch: under an old one it is dropped, it never reaches the broker.
 * - A partition that moves away is drained and committed, to a deadline within the rebalance timeout, while heartbeats
 *   run, BEFORE the join that gives it up.
 * - Fenced (ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID): everything is lost at once, and told so before
 *   anything else is asked.
 * - Who we are outlives a connection: after `suspend`, `start` asks the coordinator whether it still knows us. If so
 *   nothing is lost: the partitions are assigned again under the epochs they had, and what is in flight may still be
 *   committed.
 *
 * For the source, which drives it:
 * - One object for the source's life. `open`: `await member.start(ground, signal)`, which resolves once the coordinator
 *   has taken us in and rejects with what `open` is to throw. `close`: `suspend()` where it follows a throw of `read`,
 *   `open` or `commit` (the core opens again), else `leave()`.
 * - `assigned` under an epoch that was seen before means: go on after the last delivery (`ctx.resume`). Under a new
 *   one: at the committed offset.
 * - `revoked` may name partitions that were never announced since the last `start`: what is in flight of them is to be
 *   drained all the same. One that is lost meanwhile may be assigned anew before its drain is over: the drain must not
 *   end the new assignment. Nor may one that `suspend` has cut short: what is still held after it is assigned again
 *   under the epoch it had.
 *
 * What is retried here, and why: heartbeats are due again by themselves, so one that fails says nothing until the
 * session timeout has passed without any; a coordinator that moves or loads is asked again at a pace for as long (the
 * protocol's way of saying "wait"). All else is the core's to retry: `failed`. Our own clock never takes partitions
 * away: only the coordinator knows whether the session lives, and it fences the commits of one that does not.
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

  /** Partitions held, with the epoch of each by `keyOf`. */
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
   * Resolves once the coordinator has taken us in; assignments come by `ground.hooks`. Rejects where that fails, and
   * with the signal's reason.
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
   * Resolves once all are committed, or dropped because they are not held under this epoch any more. Rejects with an
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
   * Leaves the group, so that others have the partitions at once; a static member only stops. What is held is given up
   * without being drained. Never throws.
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
