/**
 * Error codes that the coordinator of a group answers with (Kafka protocol guide, "Error Codes"), and the errors they
 * become where waiting within the protocol does not help.
 */
import { Disconnected, Fatal, Refused, type ManifoldError } from '../../../core/errors'
import {
  COORDINATOR_LOAD_IN_PROGRESS,
  COORDINATOR_NOT_AVAILABLE,
  GROUP_AUTHORIZATION_FAILED,
  nameOfCode,
  NOT_COORDINATOR,
  TOPIC_AUTHORIZATION_FAILED,
  UNKNOWN_TOPIC_OR_PARTITION,
} from '../protocol/error-codes'

export const ILLEGAL_GENERATION = 22
export const INCONSISTENT_GROUP_PROTOCOL = 23
export const INVALID_GROUP_ID = 24
export const UNKNOWN_MEMBER_ID = 25
export const INVALID_SESSION_TIMEOUT = 26
export const REBALANCE_IN_PROGRESS = 27
export const MEMBER_ID_REQUIRED = 79
export const GROUP_MAX_SIZE_REACHED = 81
export const FENCED_INSTANCE_ID = 82
export const UNSTABLE_OFFSET_COMMIT = 88

/** The coordinator is another broker, or not ready yet: the next call finds out. */
export function isMoved(code: number): boolean {
  return code === COORDINATOR_LOAD_IN_PROGRESS || code === COORDINATOR_NOT_AVAILABLE || code === NOT_COORDINATOR
}
/** The member is not in the group any more, or not in this generation: its partitions belong to others. */
export function isFenced(code: number): boolean {
  return code === ILLEGAL_GENERATION || code === UNKNOWN_MEMBER_ID || code === FENCED_INSTANCE_ID
}

export interface GroupFaultContext {
  readonly group: string
  readonly instanceId?: string
  readonly sessionTimeoutMs: number
  readonly assignor: string /** Names what failed: `joining`. */
  readonly action: string
}

export function groupFault(
  code: number,
  { group, instanceId, sessionTimeoutMs, assignor, action: doing }: GroupFaultContext,
): ManifoldError {
  const where = `group ${group}: ${doing}`
  switch (code) {
    case COORDINATOR_LOAD_IN_PROGRESS:
    case COORDINATOR_NOT_AVAILABLE:
    case NOT_COORDINATOR:
      return new Disconnected(`${where}: its coordinator is not available (${nameOfCode(code)})`)
    case REBALANCE_IN_PROGRESS:
    case ILLEGAL_GENERATION:
    case UNKNOWN_MEMBER_ID:
    case UNSTABLE_OFFSET_COMMIT:
      return new Disconnected(`${where}: the group's state does not allow it now (code ${code})`)
    case GROUP_AUTHORIZATION_FAILED:
      return new Refused(`${where}: no permission for this group: the principal needs READ on group ${group}`)
    case TOPIC_AUTHORIZATION_FAILED:
      return new Refused(`${where}: no permission for a topic: the principal needs READ on it`)
    case UNKNOWN_TOPIC_OR_PARTITION:
      return new Refused(`${where}: the topic or partition is not there any more`)
    case INCONSISTENT_GROUP_PROTOCOL:
      return new Refused(
        `${where}: its members use another assignor than ${assignor}, or it is a group of another kind: name the members' with assignor=, or choose another group`,
      )
    case INVALID_GROUP_ID:
      return new Refused(`${where}: the broker does not take this name for a group`)
    case INVALID_SESSION_TIMEOUT:
      return new Refused(
        `${where}: a session timeout of ${sessionTimeoutMs} ms is not between the broker's group.min.session.timeout.ms and group.max.session.timeout.ms`,
      )
    case GROUP_MAX_SIZE_REACHED:
      return new Refused(`${where}: the group is full (the broker's group.max.size)`)
    case FENCED_INSTANCE_ID:
      return new Fatal(
        `${where}: another process runs as instance ${instanceId ?? '?'} of this group: give each its own instance id`,
      )
    default:
      return new Disconnected(`${where}: the coordinator answered with ${nameOfCode(code)}`)
  }
}
