/**
 * Assigns the partitions of a consumer group. The functions are pure; the member that the coordinator makes the leader
 * runs them for all members, including Java's.
 *
 * Sticky (protocol `cooperative-sticky`):
 * - Every partition of a subscribed topic has exactly one member in the plan.
 * - The plan is as even as the subscriptions allow: no chain of moves leads from a member to one that has two
 *   partitions less. With equal subscriptions members differ by one at most.
 * - A member keeps its partitions as far as evenness allows.
 * - There are two phases: a partition that moves is withheld from its new member until no other claims it. A member
 *   that is not assigned a partition it owns releases it and joins again, and the next round assigns it.
 *
 * Range: each topic's neighbouring partitions go to members in the order of their ids. Members of a range group own
 * nothing while they join, so one phase is enough.
 */
import { keyOf, type Subscription, type TopicPartition } from './consumer-protocol'

export interface Member {
  readonly id: string
  readonly instanceId?: string
  readonly subscription: Subscription
}
export type Assignment = ReadonlyMap<string, readonly TopicPartition[]>
export type AssignorName = 'cooperative-sticky' | 'range'

/** @param counts partitions of each topic; a topic that is not there gets nobody */
export function assign(
  name: AssignorName,
  members: readonly Member[],
  counts: ReadonlyMap<string, number>,
): Assignment {
  return name === 'range' ? assignRanges(members, counts) : assignCooperatively(members, counts)
}

function assignCooperatively(members: readonly Member[], counts: ReadonlyMap<string, number>): Assignment {
  const plan = planSticky(members, counts)
  const claimants = claimsByPartition(members)
  return new Map(
    [...plan].map(
      ([id, partitions]) =>
        [
          id,
          partitions.filter((partition) => (claimants.get(keyOf(partition)) ?? []).every((claim) => claim.id === id)),
        ] as const,
    ),
  )
}

interface Claim {
  readonly id: string
  readonly generation: number
}

function claimsByPartition(members: readonly Member[]): ReadonlyMap<string, readonly Claim[]> {
  const found = new Map<string, Claim[]>()
  for (const { id, subscription } of members) {
    for (const partition of subscription.owned) {
      const claim = { id, generation: subscription.generation }
      const known = found.get(keyOf(partition))
      if (known === undefined) found.set(keyOf(partition), [claim])
      else known.push(claim)
    }
  }
  return found
}

/** The plan, before anything is withheld. */
export function planSticky(members: readonly Member[], counts: ReadonlyMap<string, number>): Assignment {
  const builder = new AssignmentBuilder(members)
  const claimants = claimsByPartition(members)
  const open: TopicPartition[] = []
  for (const topic of [...counts.keys()].sort()) {
    if (builder.subscribers(topic).length === 0) continue
    for (let partition = 0; partition < (counts.get(topic) ?? 0); partition++) {
      const holder = currentOwner(claimants.get(keyOf({ topic, partition })) ?? [])
      if (holder !== undefined && builder.subscribers(topic).includes(holder))
        builder.assign({ topic, partition }, holder, true)
      else open.push({ topic, partition })
    }
  }
  for (const partition of open) builder.assign(partition, builder.leastLoaded(partition.topic), false)
  while (builder.balance());
  return builder.toAssignment()
}

/** Where two of the same generation claim a partition none of them can be trusted with it: both release it first. */
function currentOwner(all: readonly Claim[]): string | undefined {
  const newest = Math.max(...all.map(({ generation }) => generation))
  const having = all.filter(({ generation }) => generation === newest)
  return having.length === 1 ? having[0]?.id : undefined
}

interface PlannedPartition {
  readonly partition: number
  readonly wasOwned: boolean
}

/** An assignment under way: per member and topic the partitions it would have. */
class AssignmentBuilder {
  private readonly byMember = new Map<string, Map<string, PlannedPartition[]>>()
  private readonly loads = new Map<string, number>()
  private readonly subscribersByTopic = new Map<string, string[]>()

  constructor(members: readonly Member[]) {
    for (const { id, subscription } of [...members].sort((a, b) => (a.id < b.id ? -1 : 1))) {
      this.byMember.set(id, new Map())
      this.loads.set(id, 0)
      for (const topic of new Set(subscription.topics))
        this.subscribersByTopic.set(topic, [...(this.subscribersByTopic.get(topic) ?? []), id])
    }
  }

  subscribers(topic: string): readonly string[] {
    return this.subscribersByTopic.get(topic) ?? []
  }

  assign({ topic, partition }: TopicPartition, to: string, wasOwned: boolean): void {
    const topics = this.byMember.get(to)
    const known = topics?.get(topic)
    if (known === undefined) topics?.set(topic, [{ partition, wasOwned }])
    else known.push({ partition, wasOwned })
    this.loads.set(to, this.load(to) + 1)
  }

  leastLoaded(topic: string): string {
    return this.subscribers(topic).reduce((best, id) => (this.load(id) < this.load(best) ? id : best))
  }

  /**
   * Moves one partition's worth of load along the shortest chain of moves to a member that has at least two less.
   * False: there is no such chain, which makes the assignment as even as it can be (semi-matchings: Harvey, Ladner,
   * Lovász, Tamir).
   */
  balance(): boolean {
    for (const from of [...this.loads.keys()].sort((a, b) => this.load(b) - this.load(a))) {
      const chain = this.chainFrom(from)
      if (chain === undefined) continue
      for (const { from: giver, to: taker, topic } of chain) this.move(topic, giver, taker)
      return true
    }
    return false
  }

  toAssignment(): Assignment {
    return new Map(
      [...this.byMember].map(
        ([id, topics]) =>
          [id, [...topics].flatMap(([topic, all]) => all.map(({ partition }) => ({ topic, partition })))] as const,
      ),
    )
  }

  private load(id: string): number {
    return this.loads.get(id) ?? 0
  }

  private chainFrom(from: string): readonly Move[] | undefined {
    if (this.load(from) < 2) return undefined
    const reached = new Map<string, Move | undefined>([[from, undefined]])
    const opened = new Set<string>()
    let best: string | undefined
    let level = [from]
    // All of a layer before the next: the shortest chain, and in it the member that needs it most.
    while (level.length > 0 && best === undefined) {
      const next: string[] = []
      for (const giver of level) {
        for (const [topic, partitions] of this.byMember.get(giver) ?? []) {
          if (partitions.length === 0 || opened.has(topic)) continue
          opened.add(topic)
          for (const taker of this.subscribers(topic)) {
            if (reached.has(taker)) continue
            reached.set(taker, { from: giver, to: taker, topic })
            next.push(taker)
            if (this.load(taker) <= this.load(from) - 2 && (best === undefined || this.load(taker) < this.load(best)))
              best = taker
          }
        }
      }
      level = next
    }
    if (best === undefined) return undefined
    const chain: Move[] = []
    for (let step = reached.get(best); step !== undefined; step = reached.get(step.from)) chain.push(step)
    return chain
  }

  /** Moves a partition, first one that its member did not own before. */
  private move(topic: string, giver: string, taker: string): void {
    const all = this.byMember.get(giver)?.get(topic) ?? []
    const newest = all.findLastIndex(({ wasOwned }) => !wasOwned)
    const [moved] = all.splice(newest >= 0 ? newest : all.length - 1, 1)
    if (moved === undefined) return
    this.loads.set(giver, this.load(giver) - 1)
    this.assign({ topic, partition: moved.partition }, taker, false)
  }
}
interface Move {
  readonly from: string
  readonly to: string
  readonly topic: string
}

/**
 * As RangeAssignor of the Java client without racks: members in order of instance id, those without one after them by
 * member id.
 */
function assignRanges(members: readonly Member[], counts: ReadonlyMap<string, number>): Assignment {
  const ordered = [...members].sort((a, b) => {
    if ((a.instanceId === undefined) !== (b.instanceId === undefined)) return a.instanceId === undefined ? 1 : -1
    return (a.instanceId ?? a.id) < (b.instanceId ?? b.id) ? -1 : 1
  })
  const plan = new Map<string, TopicPartition[]>(members.map(({ id }) => [id, []]))
  for (const [topic, count] of counts) {
    const takers = ordered.filter(({ subscription }) => subscription.topics.includes(topic))
    let next = 0
    takers.forEach(({ id }, index) => {
      const share = Math.floor(count / takers.length) + (index < count % takers.length ? 1 : 0)
      for (let taken = 0; taken < share; taken++) plan.get(id)?.push({ topic, partition: next++ })
    })
  }
  return plan
}
