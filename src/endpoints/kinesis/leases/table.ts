/**
 * Leases as rows of a DynamoDB table, in the layout of the Kinesis Client Library (amazon-kinesis-client 1.x to 3.x,
 * DynamoDBLeaseSerializer): one item a shard, hash key `leaseKey`. Attributes that are not ours stay as they are: rows
 * are updated, never written over.
 *
 * - Every write raises `leaseCounter` and asks for the one seen last: of several writers one wins. A counter that
 *   stands still is a holder that is gone.
 * - A hand-over that was asked for (library 3.x): `leaseOwner` is the next holder already, `checkpointOwner` the one
 *   that may still write checkpoints; removing the latter completes it. Earlier libraries know nothing of it: they go
 *   on, and are overtaken.
 * - 3.x can keep other things in the same table: rows with another `entityType` than LEASE. They are none of ours.
 */
import type { AttributeValue } from '@aws-sdk/client-dynamodb'
import { Refused } from '../../../core/errors'
import type { Checkpoint, Shard } from '../stream-client'

export interface LeaseRow {
  /** The id of the shard. */
  readonly key: string
  readonly owner?: string
  /** The owner that may write until a hand-over is complete. */
  readonly checkpointOwner?: string
  readonly counter: number
  readonly checkpoint: Checkpoint
  readonly parents: readonly string[]
  readonly children: readonly string[]
}
/** A holder believes this of its row, and asks for it in every write. */
export interface LeaseClaim {
  readonly key: string
  readonly workerId: string
  readonly counter: number /** We are asked to hand it over: the next holder stands in the row. */
  readonly isRequested: boolean
}
export interface LeaseChange {
  readonly checkpoint?: Checkpoint
  readonly children?: readonly string[] /** We need it no longer: for others to take at once. */
  readonly release?: boolean
}
/** `now` is the row as it is instead, and absent if there is none. */
export type WriteResult = { readonly done: true } | { readonly done: false; readonly now?: LeaseRow }

/**
 * Each call is one request (one per page of a listing). It rejects with an error of `core/errors`, and never retries.
 */
export interface LeaseTable {
  /**
   * Makes the table where there is none, and waits until it can be used. Rejects with `Refused` where it is something
   * else.
   */
  ready(signal: AbortSignal): Promise<void>
  list(signal: AbortSignal): Promise<readonly LeaseRow[]>
  /** Resolves to false if there was one already. */
  create(shard: Shard, checkpoint: Checkpoint, signal: AbortSignal): Promise<boolean>
  /**
   * Takes a lease, and returns it as it is then; undefined if somebody was quicker.
   * @param since `latest` counts from here, milliseconds since the epoch
   */
  take(row: LeaseRow, workerId: string, since: number, signal: AbortSignal): Promise<LeaseRow | undefined>
  /** Asks its owner to hand it over to us. Resolves to false if somebody was quicker. */
  request(row: LeaseRow, workerId: string, signal: AbortSignal): Promise<boolean>
  /** Renews the lease, with the changes. */
  write(hold: LeaseClaim, change: LeaseChange, signal: AbortSignal): Promise<WriteResult>
  /** Removes a finished lease that nobody needs any more. */
  remove(row: LeaseRow, signal: AbortSignal): Promise<void>
  /** Never throws. */
  close(): void
}

export type DynamoItem = Record<string, AttributeValue>
const SENTINELS = { oldest: 'TRIM_HORIZON', latest: 'LATEST', time: 'AT_TIMESTAMP', end: 'SHARD_END' } as const

/**
 * Where `latest` and `time` count from: the library keeps that in its own configuration. Without it a second reader of
 * LATEST would skip what the first one had read and not committed.
 */
const STARTING_TIME = 'manifoldStartingTime'

function text(item: DynamoItem, name: string): string | undefined {
  return item[name]?.S
}
function number(item: DynamoItem, name: string): number | undefined {
  const { N } = item[name] ?? {}
  return N === undefined ? undefined : Number(N)
}

/** Reads a row; undefined if it is no lease. @param since AT_TIMESTAMP means this time if the row does not say */
export function rowOf(item: DynamoItem, since: number | undefined, table: string): LeaseRow | undefined {
  const type = text(item, 'entityType')
  if (type !== undefined && type !== 'LEASE') return undefined
  const key = text(item, 'leaseKey')
  const counter = number(item, 'leaseCounter')
  const checkpoint = text(item, 'checkpoint')
  if (key === undefined || counter === undefined || checkpoint === undefined) return undefined
  if (item['streamName'] !== undefined)
    throw new Refused(
      `the table ${table} holds leases of several streams (${text(item, 'streamName') ?? key}), as a Kinesis Client Library in multi-stream mode makes them: name a table of this stream alone in leases=`,
    )
  const owner = text(item, 'leaseOwner')
  const handing = text(item, 'checkpointOwner')
  return {
    key,
    counter,
    checkpoint: checkpointOf(
      checkpoint,
      number(item, 'checkpointSubSequenceNumber') ?? 0,
      number(item, STARTING_TIME),
      since,
      `the lease ${key} in table ${table}`,
    ),
    parents: item['parentShardId']?.SS ?? [],
    children: item['childShardIds']?.SS ?? [],
    ...(owner === undefined ? {} : { owner }),
    ...(handing === undefined ? {} : { checkpointOwner: handing }),
  }
}

function checkpointOf(
  sequence: string,
  sub: number,
  kept: number | undefined,
  since: number | undefined,
  what: string,
): Checkpoint {
  switch (sequence) {
    case 'TRIM_HORIZON':
      return { kind: 'oldest' }
    case 'SHARD_END':
      return { kind: 'end' }
    case 'LATEST':
      return kept === undefined ? { kind: 'latest' } : { kind: 'time', time: kept }
    // The maker of the row knew the time; where we do not, everything is read rather than something left out.
    case 'AT_TIMESTAMP':
      return (kept ?? since) ? { kind: 'time', time: kept ?? since ?? 0 } : { kind: 'oldest' }
    default:
      if (!/^\d{1,129}$/.test(sequence))
        throw new Refused(
          `${what} has a checkpoint that is none: '${sequence.slice(0, 80)}'; correct it, or name another table in leases=`,
        )
      return { kind: 'sequence', sequence, sub }
  }
}

/** Returns the attributes of a checkpoint. @param now `latest` counts from here */
export function itemOf(checkpoint: Checkpoint, now: number): DynamoItem {
  const since = checkpoint.kind === 'time' ? checkpoint.time : checkpoint.kind === 'latest' ? now : undefined
  return {
    checkpoint: { S: checkpoint.kind === 'sequence' ? checkpoint.sequence : SENTINELS[checkpoint.kind] },
    checkpointSubSequenceNumber: { N: String(checkpoint.kind === 'sequence' ? (checkpoint.sub ?? 0) : 0) },
    ...(since === undefined ? {} : { [STARTING_TIME]: { N: String(Math.floor(since)) } }),
  }
}

/** Makes a lease that nobody has had. */
export function newItem({ id, parents, hashes }: Shard, checkpoint: Checkpoint, now: number): DynamoItem {
  return {
    leaseKey: { S: id },
    leaseCounter: { N: '0' },
    ownerSwitchesSinceCheckpoint: { N: '0' },
    ...itemOf(checkpoint, now),
    ...(parents.length === 0 ? {} : { parentShardId: { SS: [...parents] } }),
    startingHashKey: { S: String(hashes.from) },
    endingHashKey: { S: String(hashes.to) },
  }
}

/** An UpdateItem without table and key. A missing value removes the attribute, or says that it has to be absent. */
export interface ItemUpdate {
  readonly set: DynamoItem
  readonly remove: readonly string[]
  readonly add?: DynamoItem
  readonly where: Readonly<Record<string, AttributeValue | undefined>>
}

export function takeUpdate(row: LeaseRow, workerId: string, since: number): ItemUpdate {
  return {
    set: {
      leaseOwner: { S: workerId },
      leaseCounter: { N: String(row.counter + 1) },
      ...(row.checkpoint.kind === 'latest' ? { [STARTING_TIME]: { N: String(Math.floor(since)) } } : {}),
    },
    remove: ['checkpointOwner'],
    ...(row.owner !== undefined && (row.owner !== workerId || row.checkpointOwner === workerId)
      ? { add: { ownerSwitchesSinceCheckpoint: { N: '1' } } }
      : {}),
    where: { leaseCounter: { N: String(row.counter) }, leaseOwner: textOr(row.owner) },
  }
}

export function requestUpdate(row: LeaseRow, workerId: string): ItemUpdate {
  // The counter stays: its holder goes on renewing with it.
  return {
    set: { leaseOwner: { S: workerId }, checkpointOwner: { S: row.owner ?? '' } },
    remove: [],
    where: { leaseKey: { S: row.key }, leaseOwner: textOr(row.owner), checkpointOwner: undefined },
  }
}

export function writeUpdate(
  { workerId, counter, isRequested: handing }: LeaseClaim,
  { checkpoint, children, release }: LeaseChange,
  now: number,
): ItemUpdate {
  const item = checkpoint === undefined ? {} : { ...itemOf(checkpoint, now), ownerSwitchesSinceCheckpoint: { N: '0' } }
  return {
    set: {
      leaseCounter: { N: String(counter + 1) },
      ...item,
      ...(children === undefined || children.length === 0 ? {} : { childShardIds: { SS: [...children] } }),
    },
    remove: [
      ...(checkpoint === undefined
        ? []
        : [
            'pendingCheckpoint',
            'pendingCheckpointSubSequenceNumber',
            'pendingCheckpointState',
            ...(STARTING_TIME in item ? [] : [STARTING_TIME]),
          ]),
      ...(release !== true ? [] : [handing ? 'checkpointOwner' : 'leaseOwner']),
    ],
    where: {
      leaseCounter: { N: String(counter) },
      ...(handing ? { checkpointOwner: { S: workerId } } : { leaseOwner: { S: workerId }, checkpointOwner: undefined }),
    },
  }
}

function textOr(value: string | undefined): AttributeValue | undefined {
  return value === undefined ? undefined : { S: value }
}

/** Writes it as DynamoDB wants it: names and values are placeholders, because some of ours are reserved words. */
export function expressionsOf({ set, remove, add = {}, where }: ItemUpdate): {
  readonly UpdateExpression: string
  readonly ConditionExpression: string
  readonly ExpressionAttributeNames: Record<string, string>
  readonly ExpressionAttributeValues: DynamoItem
} {
  const names: Record<string, string> = {}
  const values: DynamoItem = {}
  const name = (attribute: string): string => {
    names[`#${attribute}`] = attribute
    return `#${attribute}`
  }
  const value = (kind: string, attribute: string, given: AttributeValue): string => {
    values[`:${kind}${attribute}`] = given
    return `:${kind}${attribute}`
  }
  const sets = Object.entries(set).map(([attribute, given]) => `${name(attribute)} = ${value('s', attribute, given)}`)
  const adds = Object.entries(add).map(([attribute, given]) => `${name(attribute)} ${value('a', attribute, given)}`)
  const conditions = Object.entries(where).map(([attribute, given]) =>
    given === undefined
      ? `attribute_not_exists(${name(attribute)})`
      : `${name(attribute)} = ${value('w', attribute, given)}`,
  )
  return {
    UpdateExpression: [
      `SET ${sets.join(', ')}`,
      ...(remove.length === 0 ? [] : [`REMOVE ${remove.map(name).join(', ')}`]),
      ...(adds.length === 0 ? [] : [`ADD ${adds.join(', ')}`]),
    ].join(' '),
    ConditionExpression: conditions.join(' AND '),
    ExpressionAttributeNames: names,
    ExpressionAttributeValues: values,
  }
}
