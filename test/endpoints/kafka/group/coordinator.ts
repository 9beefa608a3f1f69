/**
 * A group coordinator in memory, on a clock that tests wind: the classic protocol as Apache Kafka's coordinator has it
 * (members, generations, sessions, static instances, fencing by generation), with faults on demand. What it is asked is
 * kept for looking at.
 */
import type { Clock } from '../../../../src/core/contract'
import { Disconnected } from '../../../../src/core/errors'
import { keyOf } from '../../../../src/endpoints/kafka/group/consumer-protocol'
import {
  FENCED_INSTANCE_ID,
  ILLEGAL_GENERATION,
  MEMBER_ID_REQUIRED,
  REBALANCE_IN_PROGRESS,
  UNKNOWN_MEMBER_ID,
} from '../../../../src/endpoints/kafka/group/group-errors'
import type {
  CommitRequest,
  CoordinatorClient,
  JoinResult,
  JoinRequest,
  Membership,
} from '../../../../src/endpoints/kafka/protocol/cluster'

/** Lets everything run that waits for nothing but its turn. */
export async function runPending(): Promise<void> {
  for (let turn = 0; turn < 5; turn++)
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
}

/** Time that passes only when it is told to. */
export class ManualClock implements Clock {
  private time = 1_000_000
  private readonly timers = new Set<{ at: number; run(): void }>()

  now(): number {
    return this.time
  }
  monotonic(): number {
    return this.now()
  }

  sleep(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason as Error)
        return
      }
      const timer = {
        at: this.time + ms,
        run: () => {
          this.timers.delete(timer)
          signal.removeEventListener('abort', aborted)
          resolve()
        },
      }
      const aborted = (): void => {
        this.timers.delete(timer)
        reject(signal.reason as Error)
      }
      signal.addEventListener('abort', aborted, { once: true })
      this.timers.add(timer)
    })
  }

  every(ms: number, run: () => void): { stop(): void } {
    const timer = {
      at: this.time + ms,
      run: () => {
        timer.at += ms
        run()
      },
    }
    this.timers.add(timer)
    return {
      stop: () => {
        this.timers.delete(timer)
      },
    }
  }

  async pass(ms: number): Promise<void> {
    const end = this.time + ms
    await runPending()
    for (;;) {
      const due = [...this.timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0]
      if (due === undefined) break
      this.time = Math.max(this.time, due.at)
      due.run()
      await runPending()
    }
    this.time = end
    await runPending()
  }
}

interface MemberRecord {
  id: string
  instanceId?: string
  metadata: Buffer
  rebalanceMs: number
  sessionMs: number
  seen: number
  joining?: (joined: JoinResult) => void
  syncing?: (synced: { error: number; assignment: Buffer }) => void
  assignment: Buffer
}
type Call = 'join' | 'sync' | 'heartbeat' | 'leave' | 'commit' | 'committed'

export class Coordinator {
  state: 'empty' | 'preparing' | 'completing' | 'stable' = 'empty'
  generation = 0
  readonly members = new Map<string, MemberRecord>()
  /** What was asked, and how it was answered. */
  readonly asked: { readonly call: Call; readonly memberId: string; readonly generation?: number; error?: number }[] =
    []
  /** Commits that were taken. */
  readonly commits: (CommitRequest & { readonly generation: number })[] = []
  readonly offsets = new Map<string, number>()
  /** Answers to come instead of the right ones. */
  readonly injectedErrors: Partial<Record<Call, number[]>> = {}
  /** Joins are answered only once this is over: as where another member takes its time. */
  delayJoins = false
  /** Nobody answers. */
  down = false
  forgotten = 0
  private readonly given = new Set<string>()
  private leader = ''
  private ids = 0
  private since = 0

  constructor(private readonly clock: ManualClock) {
    clock.every(100, () => {
      this.tick()
    })
  }

  client(): CoordinatorClient {
    return {
      join: (request, signal) =>
        this.call('join', request.memberId, undefined, signal, (error) =>
          error === undefined ? this.join(request) : Promise.resolve(refused(error, request.memberId)),
        ),
      sync: (member, _protocol, assignments, signal) =>
        this.call('sync', member.memberId, member.generation, signal, (error) =>
          error === undefined
            ? this.sync(member, assignments)
            : Promise.resolve({ error, assignment: Buffer.alloc(0) }),
        ),
      heartbeat: (member, signal) =>
        this.call('heartbeat', member.memberId, member.generation, signal, (error) =>
          Promise.resolve({ error: error ?? this.heartbeat(member) }),
        ),
      leave: (member, signal) =>
        this.call('leave', member.memberId, member.generation, signal, (error) => {
          this.remove(member.memberId)
          return Promise.resolve({ error: error ?? 0 })
        }),
      commit: (member, offsets, signal) =>
        this.call('commit', member.memberId, member.generation, signal, (error) =>
          Promise.resolve(
            offsets.map(({ topic, partition }) => ({ topic, partition, error: error ?? this.mayCommit(member) })),
          ),
        ).then((answers) => {
          answers.forEach(({ error }, index) => {
            if (error === 0) this.take(member, offsets[index]!)
          })
          return answers
        }),
      committed: (_group, partitions, signal) =>
        this.call('committed', '', undefined, signal, (error) =>
          Promise.resolve(
            partitions.map((at) => ({
              ...at,
              error: error ?? 0,
              offset: this.offsets.get(keyOf(at)) ?? -1,
              leaderEpoch: -1,
            })),
          ),
        ),
      forgetCoordinator: () => {
        this.forgotten++
      },
    }
  }

  count(call: Call): number {
    return this.asked.filter((each) => each.call === call).length
  }

  /** As a session timeout would. */
  remove(memberId: string): void {
    const seat = this.members.get(memberId)
    if (seat === undefined) return
    this.members.delete(memberId)
    seat.joining?.(refused(UNKNOWN_MEMBER_ID, memberId))
    seat.syncing?.({ error: UNKNOWN_MEMBER_ID, assignment: Buffer.alloc(0) })
    if (this.members.size === 0) {
      this.state = 'empty'
      this.generation++
      return
    }
    if (this.state !== 'preparing') this.prepare()
    this.completeJoin()
  }

  prepare(): void {
    if (this.state === 'preparing') return
    for (const seat of this.members.values()) {
      seat.syncing?.({ error: REBALANCE_IN_PROGRESS, assignment: Buffer.alloc(0) })
      delete seat.syncing
    }
    this.state = 'preparing'
    this.since = this.clock.now()
  }

  private async call<T>(
    call: Call,
    memberId: string,
    generation: number | undefined,
    signal: AbortSignal,
    answer: (instead: number | undefined) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted()
    const asked: Coordinator['asked'][number] = { call, memberId, ...(generation === undefined ? {} : { generation }) }
    this.asked.push(asked)
    await Promise.resolve()
    if (this.down) throw new Disconnected('connection refused')
    return new Promise<T>((resolve, reject) => {
      signal.addEventListener(
        'abort',
        () => {
          reject(signal.reason as Error)
        },
        { once: true },
      )
      answer(this.injectedErrors[call]?.shift()).then((value) => {
        asked.error = (Array.isArray(value) ? (value[0] as { error: number }) : (value as { error: number })).error
        resolve(value)
      }, reject)
    })
  }

  private join(request: JoinRequest): Promise<JoinResult> {
    const metadata = request.protocols[0]?.metadata ?? Buffer.alloc(0)
    let seat = this.members.get(request.memberId)
    if (request.memberId !== '' && seat === undefined) {
      if (!this.given.delete(request.memberId))
        return Promise.resolve(
          refused(
            request.instanceId !== undefined && this.instance(request.instanceId) !== undefined
              ? FENCED_INSTANCE_ID
              : UNKNOWN_MEMBER_ID,
            request.memberId,
          ),
        )
    }
    const before =
      request.instanceId === undefined || request.memberId !== '' ? undefined : this.instance(request.instanceId)
    if (before !== undefined) {
      this.members.delete(before.id)
      seat = { ...before, id: this.id(), seen: this.clock.now() }
      this.members.set(seat.id, seat)
      if (this.leader === before.id) this.leader = seat.id
      if (this.state === 'stable') return Promise.resolve(this.joined(seat, true))
    }
    if (seat === undefined) {
      if (request.memberId === '' && request.instanceId === undefined) {
        const given = this.id()
        this.given.add(given)
        return Promise.resolve(refused(MEMBER_ID_REQUIRED, given))
      }
      seat = {
        id: request.memberId === '' ? this.id() : request.memberId,
        ...(request.instanceId === undefined ? {} : { instanceId: request.instanceId }),
        metadata,
        rebalanceMs: request.rebalanceTimeoutMs,
        sessionMs: request.sessionTimeoutMs,
        seen: this.clock.now(),
        assignment: Buffer.alloc(0),
      }
      this.members.set(seat.id, seat)
      this.prepare()
    } else if (this.state === 'stable' && (seat.id === this.leader || !seat.metadata.equals(metadata))) this.prepare()
    else if (this.state === 'completing' && !seat.metadata.equals(metadata)) this.prepare()
    else if (this.state !== 'preparing') return Promise.resolve(this.joined(seat, false))
    seat.metadata = metadata
    const taken = seat
    const answer = new Promise<JoinResult>((resolve) => {
      taken.joining = resolve
    })
    this.completeJoin()
    return answer
  }

  completeJoin(force = false): void {
    if (this.state !== 'preparing' || this.delayJoins) return
    if (!force && [...this.members.values()].some(({ joining }) => joining === undefined)) return
    for (const seat of this.members.values())
      if (seat.joining === undefined && seat.instanceId === undefined) this.members.delete(seat.id)
    if (this.members.size === 0) {
      this.state = 'empty'
      return
    }
    this.generation++
    this.state = 'completing'
    if (!this.members.has(this.leader)) this.leader = [...this.members.keys()][0] ?? ''
    for (const seat of this.members.values()) {
      seat.seen = this.clock.now()
      seat.joining?.(this.joined(seat, false))
      delete seat.joining
    }
  }

  private joined(seat: MemberRecord, skipAssignment: boolean): JoinResult {
    const members =
      seat.id === this.leader
        ? [...this.members.values()].map(({ id, instanceId, metadata }) => ({
            memberId: id,
            metadata,
            ...(instanceId === undefined ? {} : { instanceId }),
          }))
        : []
    return {
      error: 0,
      generation: this.generation,
      protocol: 'cooperative-sticky',
      leader: this.leader,
      memberId: seat.id,
      members,
      skipAssignment: skipAssignment && seat.id === this.leader,
    }
  }

  private sync(
    member: Membership,
    assignments: readonly { readonly memberId: string; readonly assignment: Buffer }[],
  ): Promise<{ error: number; assignment: Buffer }> {
    const seat = this.members.get(member.memberId)
    if (seat === undefined) return Promise.resolve({ error: UNKNOWN_MEMBER_ID, assignment: Buffer.alloc(0) })
    if (member.generation !== this.generation)
      return Promise.resolve({ error: ILLEGAL_GENERATION, assignment: Buffer.alloc(0) })
    if (this.state === 'preparing')
      return Promise.resolve({ error: REBALANCE_IN_PROGRESS, assignment: Buffer.alloc(0) })
    if (this.state === 'stable') return Promise.resolve({ error: 0, assignment: seat.assignment })
    if (member.memberId !== this.leader)
      return new Promise((resolve) => {
        seat.syncing = resolve
      })
    this.state = 'stable'
    for (const each of this.members.values()) {
      each.assignment = assignments.find(({ memberId }) => memberId === each.id)?.assignment ?? Buffer.alloc(0)
      each.seen = this.clock.now()
      each.syncing?.({ error: 0, assignment: each.assignment })
      delete each.syncing
    }
    return Promise.resolve({ error: 0, assignment: seat.assignment })
  }

  private known(member: Membership): number {
    const seat = this.members.get(member.memberId)
    if (seat === undefined)
      return member.instanceId !== undefined && this.instance(member.instanceId) !== undefined
        ? FENCED_INSTANCE_ID
        : UNKNOWN_MEMBER_ID
    return member.generation === this.generation ? 0 : ILLEGAL_GENERATION
  }

  private heartbeat(member: Membership): number {
    const error = this.known(member)
    if (error !== 0) return error
    const seat = this.members.get(member.memberId)
    if (seat !== undefined) seat.seen = this.clock.now()
    return this.state === 'preparing' ? REBALANCE_IN_PROGRESS : 0
  }

  private mayCommit(member: Membership): number {
    return this.known(member) || (this.state === 'completing' ? REBALANCE_IN_PROGRESS : 0)
  }

  private take(member: Membership, request: CommitRequest): void {
    this.commits.push({ ...request, generation: member.generation })
    this.offsets.set(keyOf(request), request.offset)
  }

  private tick(): void {
    if (this.down) {
      for (const seat of this.members.values()) seat.seen = this.clock.now()
      return
    }
    const now = this.clock.now()
    for (const seat of [...this.members.values()]) {
      if (seat.joining !== undefined || seat.syncing !== undefined) seat.seen = now
      else if (now - seat.seen >= seat.sessionMs) this.remove(seat.id)
    }
    if (
      this.state === 'preparing' &&
      now - this.since >= Math.max(...[...this.members.values()].map(({ rebalanceMs }) => rebalanceMs))
    )
      this.completeJoin(true)
  }

  private instance(instanceId: string): MemberRecord | undefined {
    return [...this.members.values()].find((seat) => seat.instanceId === instanceId)
  }
  private id(): string {
    return `member-${++this.ids}`
  }
}

function refused(error: number, memberId: string): JoinResult {
  return { error, generation: -1, protocol: '', leader: '', memberId, members: [], skipAssignment: false }
}
