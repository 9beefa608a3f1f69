/**
 * The state machine of a member, from `start` to `suspend` or `leave`. Promises: see group.ts.
 *
 *     resuming ── heartbeat answered ──────────────┐
 *        │ unknown, or its answer was missed       ▼
 *        └──────────► joining ─► syncing ─► stable ⇄ releasing
 *                        ▲          │          │         │ released, or the deadline
 *                        └──────────┴──────────┴─────────┘
 *                  rebalance in progress, other topics, fenced
 *
 * - resuming: a member of an earlier run; nothing is announced before the coordinator has said that it knows us.
 * - joining: JoinGroup under way. The broker keeps a member that waits in it alive, so there are no heartbeats; commits
 *   go out under the old generation.
 * - syncing: of the new generation, without assignment. The broker takes no commits: they wait.
 * - stable: holds its assignment.
 * - releasing: the assignment lacks partitions that are held. They are drained, then the next join does not name them
 *   any more.
 */
import { linkedAbort, unlessAborted, Notifier } from '../../../kit/signal'
import { Disconnected, lineOf } from '../../../core/errors'
import { decodeAssignment, encodeSubscription, keyOf, type TopicPartition } from './consumer-protocol'
import {
  FENCED_INSTANCE_ID,
  groupFault,
  ILLEGAL_GENERATION,
  isFenced,
  isMoved,
  MEMBER_ID_REQUIRED,
  REBALANCE_IN_PROGRESS,
  UNKNOWN_MEMBER_ID,
} from './group-errors'
import { CommitQueue } from './commit-queue'
import { resetMemberState, type MemberState } from './member-state'
import { hasNewPartitions, assignAsLeader } from './leader'
import type { GroupSettings, MemberContext } from './member-context'
import type { CommitRequest, JoinResult, Membership } from '../protocol/cluster'

type Phase = 'resuming' | 'joining' | 'syncing' | 'stable' | 'releasing' | 'ended'

/** A coordinator that loads or moves, a sync that comes too late: asked again at this pace. */
const RETRY_INTERVAL_MS = 250
/** A coordinator that did not answer a heartbeat is looked for again after this long. */
const HEARTBEAT_RETRY_MS = 1000
/** Share of the rebalance timeout that a drain may take, so that the next join arrives in time. */
const DRAIN_SHARE = 0.8

export class MemberRun {
  /** Resolves once the coordinator has accepted the member. */
  readonly started: Promise<void>
  private phase: Phase = 'resuming'
  private readonly abort: ReturnType<typeof linkedAbort>
  private readonly timers: { stop(): void }[]
  private readonly rejoinNotifier = new Notifier()
  private readonly phaseWaiters = new Set<() => void>()
  private readonly commitQueue: CommitQueue
  private readonly finished: Promise<void>
  private settleStarted: { readonly accepted: () => void; readonly refused: (error: unknown) => void } | undefined
  private hasAnnounced = false
  private rejoinDue = false
  private heartbeatInFlight = false
  /** The coordinator's last answer, and its last that told of no rebalance. */
  private lastAnswerAt: number
  private lastStableAt: number
  private fence = new AbortController()

  constructor(
    private readonly settings: GroupSettings,
    private readonly context: MemberContext,
    private readonly memberState: MemberState,
    signal: AbortSignal,
  ) {
    const { clock, coordinator } = context
    this.abort = linkedAbort(signal)
    this.lastAnswerAt = this.lastStableAt = clock.monotonic()
    this.started = new Promise((accepted, refused) => {
      this.settleStarted = { accepted, refused }
    })
    this.commitQueue = new CommitQueue({
      faultContext: settings,
      coordinator,
      signal: this.signal,
      membership: () => memberState.membership,
      owns: (request, epoch) => memberState.owned.get(keyOf(request))?.epoch === epoch,
      untilCommitsAllowed: () => this.untilPhase(() => this.phase !== 'syncing' && this.phase !== 'resuming'),
      untilStable: () => this.untilStable(),
      untilRebalanced: () => this.untilRebalanced(),
      onFenced: (code) => {
        this.onFenced(code)
      },
    })
    this.timers = [
      clock.every(
        settings.heartbeatMs,
        () =>
          void this.heartbeat().catch((error: unknown) => {
            this.fail(error)
          }),
      ),
      clock.every(settings.metadataMs, () => void this.checkPartitions()),
    ]
    this.finished = this.runUntilAborted().catch((error: unknown) => {
      this.fail(error)
    })
  }

  /** Stops heartbeats and commits. Never throws. */
  async end(): Promise<void> {
    this.stop(new Disconnected(`${this.name}: not connected`))
    await this.finished
  }

  commit(requests: readonly CommitRequest[], epoch: number): Promise<void> {
    return unlessAborted(this.commitQueue.send(requests, epoch), this.signal)
  }

  subscriptionChanged(): void {
    if (this.topics().join(' ') !== this.memberState.topics) this.requestRejoin()
    else void this.checkPartitions()
  }

  private get signal(): AbortSignal {
    return this.abort.controller.signal
  }
  private get name(): string {
    return `group ${this.settings.group}`
  }
  private ownedPartitions(): readonly TopicPartition[] {
    return [...this.memberState.owned.values()].map(({ at }) => at)
  }
  private topics(): readonly string[] {
    return [...new Set(this.context.topics())].sort()
  }

  private async runUntilAborted(): Promise<void> {
    if (this.memberState.membership !== undefined) await this.resume(this.memberState.membership)
    for (;;) {
      if (this.phase === 'resuming' || this.rejoinDue) {
        if (this.settings.assignor === 'range')
          await this.release(this.ownedPartitions(), this.lastStableAt - this.context.clock.monotonic())
        await this.join()
      }
      await this.holdAssignment()
    }
  }

  /** Sends a heartbeat under the old generation, which tells whether this is still a member. */
  private async resume(membership: Membership): Promise<void> {
    const { synced, topics } = this.memberState
    const { error } = await this.retryWhileMoving('coming back', () =>
      this.context.coordinator.heartbeat(membership, this.signal),
    )
    // A join that was cut off may have been answered: what it claimed is still ours, if the next one finds us known.
    if (error === ILLEGAL_GENERATION && synced !== membership) return
    if (isFenced(error)) {
      this.onFenced(error)
      return
    }
    if (error !== 0 && error !== REBALANCE_IN_PROGRESS) throw this.fault(error, 'coming back')
    this.announceOwned()
    this.enterPhase('stable')
    this.rejoinDue = error !== 0 || synced !== membership || this.topics().join(' ') !== topics
  }

  private async join(): Promise<void> {
    const { coordinator, clock } = this.context
    const { memberState, settings } = this
    for (;;) {
      this.signal.throwIfAborted()
      this.enterPhase('joining')
      this.rejoinDue = false
      memberState.synced = undefined
      const topics = this.topics()
      memberState.topics = topics.join(' ')
      const joined = await this.retryWhileMoving('joining', () => {
        const metadata = encodeSubscription({
          topics,
          owned: this.ownedPartitions(),
          generation: memberState.generation,
          ...(settings.rack === undefined ? {} : { rack: settings.rack }),
        })
        return coordinator.join(
          { ...settings, memberId: memberState.memberId, protocols: [{ name: settings.assignor, metadata }] },
          this.signal,
        )
      })
      if (joined.error === MEMBER_ID_REQUIRED) {
        memberState.memberId = joined.memberId
        this.accepted()
        continue
      }
      if (joined.error === REBALANCE_IN_PROGRESS) {
        await clock.sleep(RETRY_INTERVAL_MS, this.signal)
        continue
      }
      if (isFenced(joined.error) && memberState.memberId !== '') {
        this.onFenced(joined.error)
        continue
      }
      if (joined.error !== 0) throw this.fault(joined.error, 'joining')
      memberState.memberId = joined.memberId
      memberState.membership = {
        group: settings.group,
        generation: joined.generation,
        memberId: joined.memberId,
        ...(settings.instanceId === undefined ? {} : { instanceId: settings.instanceId }),
      }
      this.announceOwned()
      if (await this.sync(joined, memberState.membership)) return
      await clock.sleep(RETRY_INTERVAL_MS, this.signal)
    }
  }

  /** False: another rebalance has begun, or we are fenced. */
  private async sync(joined: JoinResult, membership: Membership): Promise<boolean> {
    const { memberState } = this
    this.enterPhase('syncing')
    memberState.leadership =
      joined.leader === joined.memberId
        ? await unlessAborted(assignAsLeader(joined, this.settings, this.context, this.signal), this.signal)
        : undefined
    const assignments = memberState.leadership?.assignments ?? []
    const { error, assignment } = await this.retryWhileMoving('waiting for the assignment', () =>
      this.context.coordinator.sync(membership, joined.protocol, assignments, this.signal),
    )
    if (isFenced(error)) {
      this.onFenced(error)
      return false
    }
    if (error === REBALANCE_IN_PROGRESS) return false
    if (error !== 0) throw this.fault(error, 'waiting for the assignment')
    this.lastAnswerAt = this.lastStableAt = this.context.clock.monotonic()
    memberState.synced = membership
    memberState.generation = membership.generation
    memberState.assignment = decodeAssignment(assignment)
    return true
  }

  /** Takes over added partitions, revokes those that are gone, and holds the rest until the next join is due. */
  private async holdAssignment(): Promise<void> {
    const { memberState, context } = this
    const wanted = new Set(memberState.assignment.map(keyOf))
    const added = memberState.assignment.filter((at) => !memberState.owned.has(keyOf(at)))
    const leaving = this.ownedPartitions().filter((at) => !wanted.has(keyOf(at)))
    this.enterPhase(leaving.length > 0 ? 'releasing' : 'stable')
    if (added.length > 0) {
      const epoch = ++memberState.newestEpoch
      for (const at of added) memberState.owned.set(keyOf(at), { at, epoch })
      context.listener.assigned(added, epoch)
    }
    if (added.length > 0 || leaving.length > 0)
      context.log.info(
        `${this.name}: generation ${memberState.generation}: ${memberState.assignment.length} partitions, ${added.length} new${leaving.length > 0 ? `, ${leaving.length} to give up` : ''}`,
      )
    // A static member that was killed while it drained comes back without a rebalance, to what it was left with: what
    // it was to give up is nobody's until somebody joins anew. It cannot know, so it does; nothing moves by that.
    if (this.settings.instanceId !== undefined && this.settings.assignor !== 'range' && !memberState.assignedOnce)
      this.rejoinDue = true
    memberState.assignedOnce = true
    if (leaving.length > 0) {
      await this.release(leaving, 0)
      this.rejoinDue = true
    }
    while (!this.rejoinDue) await unlessAborted(this.rejoinNotifier.wait(), this.signal)
  }

  /**
   * Until drained, the deadline, or there is nothing left to give up because it was lost. @param offsetMs when the
   * rebalance began, relative to now
   */
  private async release(partitions: readonly TopicPartition[], offsetMs: number): Promise<void> {
    if (partitions.length === 0) return
    const { clock, listener } = this.context
    const within = Math.max(0, this.settings.rebalanceTimeoutMs * DRAIN_SHARE + Math.min(0, offsetMs))
    this.enterPhase('releasing')
    const fence = this.fence.signal
    const bound = linkedAbort(this.signal, fence)
    try {
      // The hook keeps the deadline itself; a slip of it must not cost us the membership.
      await unlessAborted(
        Promise.race([
          listener.revoked(partitions, within),
          clock.sleep(within + RETRY_INTERVAL_MS, bound.controller.signal),
        ]),
        bound.controller.signal,
      )
    } catch (error) {
      this.signal.throwIfAborted()
      // Fenced: there is nothing left to give up.
      if (!fence.aborted) throw error
    } finally {
      bound.controller.abort(new Error('released'))
      bound.dispose()
    }
    for (const at of partitions) this.memberState.owned.delete(keyOf(at))
    // Should the join that tells of it be cut off, the next run begins with it.
    this.memberState.synced = undefined
  }

  private async heartbeat(): Promise<void> {
    const { membership } = this.memberState
    if (membership === undefined || this.heartbeatInFlight || (this.phase !== 'stable' && this.phase !== 'releasing'))
      return
    this.heartbeatInFlight = true
    let error = await this.sendHeartbeat(membership)
    // A new coordinator has to hear from this member before the session ends.
    while (error === undefined && this.memberState.membership === membership && !this.signal.aborted) {
      await this.context.clock.sleep(Math.min(this.settings.heartbeatMs, HEARTBEAT_RETRY_MS), this.signal)
      error = await this.sendHeartbeat(membership)
    }
    this.heartbeatInFlight = false
    if (error === undefined || this.memberState.membership !== membership) return
    this.lastAnswerAt = this.context.clock.monotonic()
    if (error === 0) this.lastStableAt = this.lastAnswerAt
    else if (isFenced(error)) this.onFenced(error)
    else if (error !== REBALANCE_IN_PROGRESS) throw this.fault(error, 'heartbeat')
    else if (this.phase === 'stable') this.requestRejoin()
  }

  private async sendHeartbeat(membership: Membership): Promise<number | undefined> {
    const { coordinator, clock, log } = this.context
    const bound = linkedAbort(this.signal)
    const { signal } = bound.controller
    // A slow answer does no harm, for the broker has heard; a connection that is dead has to be replaced before the
    // session ends.
    const late = new Disconnected(`${this.name}: no answer to a heartbeat within half of the session timeout`)
    // Answered in time: the sleep ends by the signal.
    clock.sleep(this.settings.sessionTimeoutMs / 2, signal).then(
      () => {
        bound.controller.abort(late)
      },
      () => undefined,
    )
    try {
      const { error } = await unlessAborted(coordinator.heartbeat(membership, signal), signal)
      if (!isMoved(error)) return error
      coordinator.forgetCoordinator()
      this.checkSession(this.fault(error, 'heartbeat'))
    } catch (error) {
      this.signal.throwIfAborted()
      coordinator.forgetCoordinator()
      log.debug(`${this.name}: a heartbeat failed: ${lineOf(error)}`)
      this.checkSession(error)
    } finally {
      bound.controller.abort(new Error('answered'))
      bound.dispose()
    }
    return undefined
  }

  /**
   * A broker that went away comes back, or another takes the group over, mostly within the session: nothing is lost
   * then.
   */
  private checkSession(error: unknown): void {
    if (this.context.clock.monotonic() - this.lastAnswerAt >= this.settings.sessionTimeoutMs) this.fail(error)
  }

  /** As the leader: have partitions been added to any of the group's topics? */
  private async checkPartitions(): Promise<void> {
    const { leadership } = this.memberState
    if (leadership === undefined || this.phase !== 'stable') return
    try {
      if ((await hasNewPartitions(leadership, this.context, this.signal)) && this.memberState.leadership === leadership)
        this.requestRejoin()
    } catch (error) {
      // It is asked again at the next look; a run that ends needs no answer.
      if (!this.signal.aborted)
        this.context.log.debug(`${this.name}: the partitions of its topics could not be asked for: ${lineOf(error)}`)
    }
  }

  private requestRejoin(): void {
    this.rejoinDue = true
    this.rejoinNotifier.notify()
  }

  private onFenced(code: number): void {
    const { memberState, context } = this
    const gone = this.ownedPartitions()
    resetMemberState(memberState, code === ILLEGAL_GENERATION ? memberState.memberId : '')
    if (gone.length > 0) {
      context.log.warn(
        `${this.name}: no member any more (${code === UNKNOWN_MEMBER_ID ? 'the session has timed out' : `code ${code}`}): ${gone.length} partitions are lost, what is not committed of them will be read again`,
      )
      context.listener.lost(gone)
    }
    this.fence.abort(new Error('fenced'))
    this.fence = new AbortController()
    if (code === FENCED_INSTANCE_ID) this.fail(this.fault(code, 'membership'))
    this.requestRejoin()
  }

  /** Announces the partitions that an earlier run owned to the source of this one, under their epochs. */
  private announceOwned(): void {
    this.lastAnswerAt = this.context.clock.monotonic()
    if (!this.hasAnnounced)
      for (const [epoch, owned] of Map.groupBy(this.memberState.owned.values(), (each) => each.epoch))
        this.context.listener.assigned(
          owned.map(({ at }) => at),
          epoch,
        )
    this.hasAnnounced = true
    this.accepted()
  }

  private accepted(): void {
    this.settleStarted?.accepted()
    this.settleStarted = undefined
  }

  /** Asks again, at a pace, while the answer is that the coordinator moves or loads; for as long as a session lasts. */
  private async retryWhileMoving<T extends { readonly error: number }>(
    doing: string,
    request: () => Promise<T>,
  ): Promise<T> {
    const { clock, coordinator } = this.context
    for (const deadline = clock.monotonic() + this.settings.sessionTimeoutMs; ; ) {
      const answer = await unlessAborted(request(), this.signal)
      if (!isMoved(answer.error)) return answer
      coordinator.forgetCoordinator()
      if (clock.monotonic() >= deadline) throw this.fault(answer.error, doing)
      await clock.sleep(RETRY_INTERVAL_MS, this.signal)
    }
  }

  private untilStable(): Promise<void> {
    return this.untilPhase(() => this.phase === 'stable' || this.phase === 'releasing')
  }

  private async untilRebalanced(): Promise<void> {
    // The next join waits for the release, and the release for this commit: it can only be tried again.
    if (this.phase === 'releasing') {
      await this.context.clock.sleep(RETRY_INTERVAL_MS, this.signal)
      return
    }
    if (this.phase === 'stable') this.requestRejoin()
    const { membership } = this.memberState
    await this.untilPhase(() => this.memberState.membership !== membership)
  }

  private async untilPhase(holds: () => boolean): Promise<void> {
    while (!holds())
      await unlessAborted(
        new Promise<void>((resolve) => {
          this.phaseWaiters.add(resolve)
        }),
        this.signal,
      )
  }

  private enterPhase(state: Phase): void {
    this.phase = state
    for (const wake of [...this.phaseWaiters]) wake()
    this.phaseWaiters.clear()
  }

  private fail(error: unknown): void {
    const { settleStarted: settleBegun } = this
    const stopped = this.signal.aborted
    this.stop(stopped ? this.signal.reason : error)
    if (settleBegun === undefined && !stopped) this.context.listener.failed(error)
  }

  private stop(reason: unknown): void {
    for (const ticker of this.timers) ticker.stop()
    this.abort.controller.abort(reason)
    this.abort.dispose()
    this.enterPhase('ended')
    this.settleStarted?.refused(this.signal.reason)
    this.settleStarted = undefined
  }

  private fault(code: number, doing: string): Error {
    return groupFault(code, { ...this.settings, action: doing })
  }
}
