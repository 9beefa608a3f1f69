/**
 * Where a flow's spool lies, over lines that change.
 *
 * - What a spool holds is delivered before its place changes, or the flow's need of one ends: until then it is used
 *   where it is.
 * - A spool that holds nothing any more is removed once the line wants none, or one elsewhere. Its positions are in the
 *   flow file; left behind they would one day be taken for newer ones than those.
 */
import { resolve } from 'node:path'
import type { Log } from '../core/contract'
import { UsageError } from '../core/errors'
import type { FlowState } from '../core/flow/flow-state'
import { existingStateRoot, namesOf, type InstancePaths } from '../state/directory'
import { flowsNamed } from '../state/flows'
import { flowName, type FlowIdentity } from '../state/identity'
import {
  holdsRecords,
  isThere,
  spoolLocationIn,
  spoolLocationOf,
  removeSegments,
  segmentsIn,
} from '../state/spool-location'

export interface SpoolWanted {
  /** The line needs a spool, or asks for one. */
  readonly spool: boolean
  /** Folder for its files; undefined: beside the flow file. */
  readonly folder: string | undefined
  /** Only the records that lie there are delivered. */
  readonly drain: boolean
}

/** @throws UsageError it may hold records and is not there */
export async function locateSpool(
  paths: InstancePaths,
  stored: FlowState | undefined,
  wanted: SpoolWanted,
  log: Log,
): Promise<{ readonly spooled: boolean; readonly place: string }> {
  const asked = wanted.folder === undefined ? paths.spool : spoolLocationIn(resolve(wanted.folder), paths)
  const former = spoolLocationOf(paths, stored)
  if (former === undefined) return { spooled: wanted.spool, place: asked }
  if (wanted.drain) return { spooled: true, place: former }
  if (!holdsRecords(stored)) {
    if (!wanted.spool || former !== asked) await removeSegments(former)
    return { spooled: wanted.spool, place: asked }
  }
  if (former === asked || (wanted.folder === undefined && !wanted.spool))
    return { spooled: true, place: await there(former, paths) }
  if ((await segmentsIn(former)).length === 0 && (await segmentsIn(asked)).length > 0)
    return { spooled: true, place: asked }
  log.warn(
    `the spool of the flow ${paths.name} stays in ${former}, where it may hold records that are not delivered: once they are, a start has it in ${asked}`,
  )
  return { spooled: true, place: await there(former, paths) }
}

/** An empty one would be made in the place of a disk that is not mounted, and all that it holds given up. */
async function there(place: string, paths: InstancePaths): Promise<string> {
  if (place !== paths.spool && !(await isThere(place))) {
    throw new UsageError([
      `the flow ${paths.name} may hold records in its spool ${place}, and nothing is there: mount that disk, or put back what lay there, or give the records up with: manifold forget ${paths.name} --force`,
    ])
  }
  return place
}

/** A line that keeps no state by itself may be one that did, with a spool: what that holds is not to be left behind. */
export async function leftBehind(root: () => string, identity: FlowIdentity): Promise<boolean> {
  let place: string
  // Where no folder for state can be named, no earlier run has left anything in it.
  try {
    place = root()
  } catch {
    return false
  }
  const existing = await existingStateRoot(place)
  if (existing === undefined) return false
  const former = (ends: FlowIdentity['sources']): FlowIdentity['sources'] =>
    ends.map((end) => ({ ...end, id: end.former ?? end.id }))
  const names = new Set([
    flowName(identity),
    flowName({ sources: former(identity.sources), sinks: former(identity.sinks) }),
  ])
  for (const name of (await namesOf(existing)).filter((each) => names.has(each))) {
    if ((await flowsNamed(existing, name)).some(({ held, state }) => !held && holdsRecords(state))) return true
  }
  return false
}
