/** The work of the group's leader: it assigns the partitions, and checks whether the assignment has to be made anew. */
import { lineOf } from '../../../core/errors'
import { assign } from './assignor'
import { decodeSubscription, encodeAssignment, type Subscription } from './consumer-protocol'
import type { GroupSettings, MemberContext } from './member-context'
import type { JoinResult } from '../protocol/cluster'

export interface Leadership {
  readonly assignments: readonly { readonly memberId: string; readonly assignment: Buffer }[]
  readonly topics: readonly string[]
  /** Numbers of partitions that the assignment was made from. */
  readonly counts: ReadonlyMap<string, number>
}

export async function assignAsLeader(
  joined: JoinResult,
  { group, assignor }: GroupSettings,
  { partitionsOf, log }: Pick<MemberContext, 'partitionsOf' | 'log'>,
  signal: AbortSignal,
): Promise<Leadership> {
  const members = joined.members.map(({ memberId, instanceId, metadata }) => ({
    id: memberId,
    ...(instanceId === undefined ? {} : { instanceId }),
    subscription: read(memberId, metadata),
  }))
  const topics = [...new Set(members.flatMap(({ subscription }) => subscription.topics))].sort()
  const counts = await partitionsOf(topics, signal)
  if (joined.skipAssignment) return { assignments: [], topics, counts }
  const plan = assign(assignor, members, counts)
  log.debug(
    `group ${group}: leads ${members.length} members in generation ${joined.generation}`,
    Object.fromEntries([...plan].map(([id, partitions]) => [id, partitions.length])),
  )
  return {
    assignments: [...plan].map(([memberId, partitions]) => ({ memberId, assignment: encodeAssignment(partitions) })),
    topics,
    counts,
  }

  function read(memberId: string, metadata: Buffer): Subscription {
    try {
      return decodeSubscription(metadata)
    } catch (error) {
      log.warn(
        `group ${group}: the subscription of member ${memberId} cannot be read (${lineOf(error)}): it is given nothing`,
      )
      return { topics: [], owned: [], generation: -1 }
    }
  }
}

/** Topics of the group have more partitions now, or are there now, or are gone. */
export async function hasNewPartitions(
  { topics, counts }: Leadership,
  { partitionsOf }: Pick<MemberContext, 'partitionsOf'>,
  signal: AbortSignal,
): Promise<boolean> {
  const now = await partitionsOf(topics, signal)
  return topics.some((topic) => now.get(topic) !== counts.get(topic))
}
