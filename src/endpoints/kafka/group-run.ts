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
import { linkedAbort, unlessAborted, Notifier } from '../../kit/signal'
import { Disconnected, lineOf } from '../../core/errors'
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
} from './group-codes'
import { GroupCommits } from './group-commits'
import { forget, type Kept } from './group-kept'
import { hasChanged, lead } from './group-leader'
import type { GroupGround, GroupSettings } from './group'
import type { CommitAsk, Joined, Membership } from './wire'

type State = 'resuming' | 'joining' | 'syncing' | 'stable' | 'releasing' | 'ended'

/** A coordinator that loads or moves, a sync that comes too late: asked again at this pace. */
const PACE_MS = 250
/** A coordinator that did not answer a heartbeat is looked for again after this long. */
const LOOK_MS = 1000
/** What a revoke may take of the rebalance timeout: the join has to arrive in time. */
const DRAIN_SHARE = 0.8

export class GroupRun {
  /** Resolves once the coordinator has taken us in. */
  readonly begun: Promise<void>
  private state: State = 'resuming'
  private readonly abort: ReturnType<typeof linkedAbort>
  private readonly tickers: { stop(): void }[]
  private readonly rejoin = new Notifier()
  private readonly changes = new Set<() => void>()
  private readonly commits: GroupCommits
  private readonly whole: Promise<void>
  private settleBegun: { readonly accepted: () => void; readonly refused: (error: unknown) => void } | undefined
  private announced = false
  private rejoinDue = false
  private beating = false
  /** The coordinator's last answer, and its last that told of no rebalance. */
  private heardAt: number
  private calmAt: number
  private fence = new AbortController()

  constructor(
    private readonly settings: GroupSettings,
    private readonly ground: GroupGround,
    private readonly kept: Kept,
    signal: AbortSignal,
  ) {
    const { clock, wire } = ground
    this.abort = linkedAbort(signal)
    this.heardAt = this.calmAt = clock.monotonic()
    this.begun = new Promise((accepted, refused) => {
      this.settleBegun = { accepted, refused }
    })
    this.commits = new GroupCommits({
      asked: settings,
      wire,
      signal: this.signal,
      membership: () => kept.membership,
      holds: (ask, epoch) => kept.owned.get(keyOf(ask))?.epoch === epoch,
      answerable: () => this.until(() => this.state !== 'syncing' && this.state !== 'resuming'),
      settled: () => this.settled(),
      rebalancing: () => this.rebalancing(),
      fenced: (code) => {
        this.fenced(code)
      },
    })
    this.tickers = [
      clock.every(
        settings.heartbeatMs,
        () =>
          void this.beat().catch((error: unknown) => {
            this.fail(error)
          }),
      ),
      clock.every(settings.metadataMs, () => void this.look()),
    ]
    this.whole = this.live().catch((error: unknown) => {
      this.fail(error)
    })
  }

  /** Stops heartbeats and commits. Never throws. */
  async end(): Promise<void> {
    this.stop(new Disconnected(`${this.name}: not connected`))
    await this.whole
  }

  commit(asks: readonly CommitAsk[], epoch: number): Promise<void> {
    return unlessAborted(this.commits.send(asks, epoch), this.signal)
  }

  subscriptionChanged(): void {
    if (this.topics().join(' ') !== this.kept.topics) this.due()
    else void this.look()
  }

  private get signal(): AbortSignal {
    return this.abort.controller.signal
  }
  private get name(): string {
    return `group ${this.settings.group}`
  }
  private held(): readonly TopicPartition[] {
    return [...this.kept.owned.values()].map(({ at }) => at)
  }
  private topics(): readonly string[] {
    return [...new Set(this.ground.topics())].sort()
  }

  private async live(): Promise<void> {
    if (this.kept.membership !== undefined) await this.resume(this.kept.membership)
    for (;;) {
      if (this.state === 'resuming' || this.rejoinDue) {
        if (this.settings.assignor === 'range')
          await this.release(this.held(), this.calmAt - this.ground.clock.monotonic())
        await this.join()
      }
      await this.hold()
    }
  }

  /** A heartbeat under the old generation tells whether we are a member still. */
  private async resume(membership: Membership): Promise<void> {
    const { synced, topics } = this.kept
    const { error } = await this.asLongAsItMoves('coming back', () =>
      this.ground.wire.heartbeat(membership, this.signal),
    )
    // A join that was cut off may have been answered: what it claimed is still ours, if the next one finds us known.
    if (error === ILLEGAL_GENERATION && synced !== membership) return
    if (isFenced(error)) {
      this.fenced(error)
      return
    }
    if (error !== 0 && error !== REBALANCE_IN_PROGRESS) throw this.fault(error, 'coming back')
    this.announce()
    this.to('stable')
    this.rejoinDue = error !== 0 || synced !== membership || this.topics().join(' ') !== topics
  }

  private async join(): Promise<void> {
    const { wire, clock } = this.ground
    const { kept, settings } = this
    for (;;) {
      this.signal.throwIfAborted()
      this.to('joining')
      this.rejoinDue = false
      kept.synced = undefined
      const topics = this.topics()
      kept.topics = topics.join(' ')
      const joined = await this.asLongAsItMoves('joining', () => {
        const metadata = encodeSubscription({
          topics,
          owned: this.held(),
          generation: kept.generation,
          ...(settings.rack === undefined ? {} : { rack: settings.rack }),
        })
        return wire.join(
          { ...settings, memberId: kept.memberId, protocols: [{ name: settings.assignor, metadata }] },
          this.signal,
        )
      })
      if (joined.error === MEMBER_ID_REQUIRED) {
        kept.memberId = joined.memberId
        this.accepted()
        continue
      }
      if (joined.error === REBALANCE_IN_PROGRESS) {
        await clock.sleep(PACE_MS, this.signal)
        continue
      }
      if (isFenced(joined.error) && kept.memberId !== '') {
        this.fenced(joined.error)
        continue
      }
      if (joined.error !== 0) throw this.fault(joined.error, 'joining')
      kept.memberId = joined.memberId
      kept.membership = {
        group: settings.group,
        generation: joined.generation,
        memberId: joined.memberId,
        ...(settings.instanceId === undefined ? {} : { instanceId: settings.instanceId }),
      }
      this.announce()
      if (await this.sync(joined, kept.membership)) return
      await clock.sleep(PACE_MS, this.signal)
    }
  }

  /** False: another rebalance has begun, or we are fenced. */
  private async sync(joined: Joined, membership: Membership): Promise<boolean> {
    const { kept } = this
    this.to('syncing')
    kept.leading =
      joined.leader === joined.memberId
        ? await unlessAborted(lead(joined, this.settings, this.ground, this.signal), this.signal)
        : undefined
    const assignments = kept.leading?.assignments ?? []
    const { error, assignment } = await this.asLongAsItMoves('waiting for the assignment', () =>
      this.ground.wire.sync(membership, joined.protocol, assignments, this.signal),
    )
    if (isFenced(error)) {
      this.fenced(error)
      return false
    }
    if (error === REBALANCE_IN_PROGRESS) return false
    if (error !== 0) throw this.fault(error, 'waiting for the assignment')
    this.heardAt = this.calmAt = this.ground.clock.monotonic()
    kept.synced = membership
    kept.generation = membership.generation
    kept.target = decodeAssignment(assignment)
    return true
  }

  /** Takes what was assigned, gives up what was not, and holds the rest until the next join is due. */
  private async hold(): Promise<void> {
    const { kept, ground } = this
    const wanted = new Set(kept.target.map(keyOf))
    const added = kept.target.filter((at) => !kept.owned.has(keyOf(at)))
    const leaving = this.held().filter((at) => !wanted.has(keyOf(at)))
    this.to(leaving.length > 0 ? 'releasing' : 'stable')
    if (added.length > 0) {
      const epoch = ++kept.epochs
      for (const at of added) kept.owned.set(keyOf(at), { at, epoch })
      ground.hooks.assigned(added, epoch)
    }
    if (added.length > 0 || leaving.length > 0)
      ground.log.info(
        `${this.name}: generation ${kept.generation}: ${kept.target.length} partitions, ${added.length} new${leaving.length > 0 ? `, ${leaving.length} to give up` : ''}`,
      )
    // A static member that was killed while it drained comes back without a rebalance, to what it was left with: what
    // it was to give up is nobody's until somebody joins anew. It cannot know, so it does; nothing moves by that.
    if (this.settings.instanceId !== undefined && this.settings.assignor !== 'range' && !kept.seated)
      this.rejoinDue = true
    kept.seated = true
    if (leaving.length > 0) {
      await this.release(leaving, 0)
      this.rejoinDue = true
    }
    while (!this.rejoinDue) await unlessAborted(this.rejoin.wait(), this.signal)
  }

  /**
   * Until drained, the deadline, or there is nothing left to give up because it was lost. @param offsetMs when the
   * rebalance began, relative to now
   */
  private async release(partitions: readonly TopicPartition[], offsetMs: number): Promise<void> {
    if (partitions.length === 0) return
    const { clock, hooks } = this.ground
    const within = Math.max(0, this.settings.rebalanceTimeoutMs * DRAIN_SHARE + Math.min(0, offsetMs))
    this.to('releasing')
    const fence = this.fence.signal
    const bound = linkedAbort(this.signal, fence)
    try {
      // The hook keeps the deadline itself; a slip of it must not cost us the membership.
      await unlessAborted(
        Promise.race([hooks.revoked(partitions, within), clock.sleep(within + PACE_MS, bound.controller.signal)]),
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
    for (const at of partitions) this.kept.owned.delete(keyOf(at))
    // Should the join that tells of it be cut off, the next run begins with it.
    this.kept.synced = undefined
  }

  private async beat(): Promise<void> {
    const { membership } = this.kept
    if (membership === undefined || this.beating || (this.state !== 'stable' && this.state !== 'releasing')) return
    this.beating = true
    let error = await this.beatOnce(membership)
    // Whoever has taken the group over is to hear of us before the session ends.
    while (error === undefined && this.kept.membership === membership && !this.signal.aborted) {
      await this.ground.clock.sleep(Math.min(this.settings.heartbeatMs, LOOK_MS), this.signal)
      error = await this.beatOnce(membership)
    }
    this.beating = false
    if (error === undefined || this.kept.membership !== membership) return
    this.heardAt = this.ground.clock.monotonic()
    if (error === 0) this.calmAt = this.heardAt
    else if (isFenced(error)) this.fenced(error)
    else if (error !== REBALANCE_IN_PROGRESS) throw this.fault(error, 'heartbeat')
    else if (this.state === 'stable') this.due()
  }

  private async beatOnce(membership: Membership): Promise<number | undefined> {
    const { wire, clock, log } = this.ground
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
      const { error } = await unlessAborted(wire.heartbeat(membership, signal), signal)
      if (!isMoved(error)) return error
      wire.forgetCoordinator()
      this.unheard(this.fault(error, 'heartbeat'))
    } catch (error) {
      this.signal.throwIfAborted()
      wire.forgetCoordinator()
      log.debug(`${this.name}: a heartbeat failed: ${lineOf(error)}`)
      this.unheard(error)
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
  private unheard(error: unknown): void {
    if (this.ground.clock.monotonic() - this.heardAt >= this.settings.sessionTimeoutMs) this.fail(error)
  }

  /** As the leader: have partitions been added to any of the group's topics? */
  private async look(): Promise<void> {
    const { leading } = this.kept
    if (leading === undefined || this.state !== 'stable') return
    try {
      if ((await hasChanged(leading, this.ground, this.signal)) && this.kept.leading === leading) this.due()
    } catch (error) {
      // It is asked again at the next look; a run that ends needs no answer.
      if (!this.signal.aborted)
        this.ground.log.debug(`${this.name}: the partitions of its topics could not be asked for: ${lineOf(error)}`)
    }
  }

  private due(): void {
    this.rejoinDue = true
    this.rejoin.notify()
  }

  private fenced(code: number): void {
    const { kept, ground } = this
    const gone = this.held()
    forget(kept, code === ILLEGAL_GENERATION ? kept.memberId : '')
    if (gone.length > 0) {
      ground.log.warn(
        `${this.name}: no member any more (${code === UNKNOWN_MEMBER_ID ? 'the session has timed out' : `code ${code}`}): ${gone.length} partitions are lost, what is not committed of them will be read again`,
      )
      ground.hooks.lost(gone)
    }
    this.fence.abort(new Error('fenced'))
    this.fence = new AbortController()
    if (code === FENCED_INSTANCE_ID) this.fail(this.fault(code, 'membership'))
    this.due()
  }

  /** What an earlier run held is told to the source of this one, under the epochs it had. */
  private announce(): void {
    this.heardAt = this.ground.clock.monotonic()
    if (!this.announced)
      for (const [epoch, held] of Map.groupBy(this.kept.owned.values(), (each) => each.epoch))
        this.ground.hooks.assigned(
          held.map(({ at }) => at),
          epoch,
        )
    this.announced = true
    this.accepted()
  }

  private accepted(): void {
    this.settleBegun?.accepted()
    this.settleBegun = undefined
  }

  /** Asks again, at a pace, while the answer is that the coordinator moves or loads; for as long as a session lasts. */
  private async asLongAsItMoves<T extends { readonly error: number }>(
    doing: string,
    ask: () => Promise<T>,
  ): Promise<T> {
    const { clock, wire } = this.ground
    for (const giveUpAt = clock.monotonic() + this.settings.sessionTimeoutMs; ; ) {
      const answer = await unlessAborted(ask(), this.signal)
      if (!isMoved(answer.error)) return answer
      wire.forgetCoordinator()
      if (clock.monotonic() >= giveUpAt) throw this.fault(answer.error, doing)
      await clock.sleep(PACE_MS, this.signal)
    }
  }

  private settled(): Promise<void> {
    return this.until(() => this.state === 'stable' || this.state === 'releasing')
  }

  private async rebalancing(): Promise<void> {
    // The next join waits for the release, and the release for this commit: it can only be tried again.
    if (this.state === 'releasing') {
      await this.ground.clock.sleep(PACE_MS, this.signal)
      return
    }
    if (this.state === 'stable') this.due()
    const { membership } = this.kept
    await this.until(() => this.kept.membership !== membership)
  }

  private async until(holds: () => boolean): Promise<void> {
    while (!holds())
      await unlessAborted(
        new Promise<void>((resolve) => {
          this.changes.add(resolve)
        }),
        this.signal,
      )
  }

  private to(state: State): void {
    this.state = state
    for (const wake of [...this.changes]) wake()
    this.changes.clear()
  }

  private fail(error: unknown): void {
    const { settleBegun } = this
    const stopped = this.signal.aborted
    this.stop(stopped ? this.signal.reason : error)
    if (settleBegun === undefined && !stopped) this.ground.hooks.failed(error)
  }

  private stop(reason: unknown): void {
    for (const ticker of this.tickers) ticker.stop()
    this.abort.controller.abort(reason)
    this.abort.dispose()
    this.to('ended')
    this.settleBegun?.refused(this.signal.reason)
    this.settleBegun = undefined
  }

  private fault(code: number, doing: string): Error {
    return groupFault(code, { ...this.settings, doing })
  }
}
