/** Chooses the INSTANCE of a flow that this process takes, and locks it. */
import type { FlowState } from '../core/flow/flow-state'
import { FlowRunning } from '../core/errors'
import { realFileSystem } from '../kit/file-system'
import { instancesOf, pathsOf, prepareInstance } from './directory'
import type { InstancePaths } from './directory'
import { readFlowFile } from './flow-file'
import { acquire, holderOf } from './lock'
import type { Lock } from './lock'

export interface OwnedInstance extends InstancePaths {
  readonly lock: Lock
}

/**
 * Tells whether a sink may not have settled all that was accepted. After a kill, with a spool, that must be assumed.
 */
export function mayHoldRecords(state: FlowState): boolean {
  return (
    (!state.clean && state.spoolId !== undefined) ||
    Object.values(state.sinks).some((sink) => sink.cursor < state.acceptedThrough)
  )
}

/**
 * Takes an instance. Flows that share their work take the lowest free one with records, so that the next process
 * delivers what a dead one has left, or else the lowest free one. All others take instance 0. The lock is taken when
 * this resolves.
 * @param root STATE as `openStateRoot` gave it
 * @throws FlowRunning if another process runs this flow; UsageError if the folder is not ours alone
 */
export async function ownInstance(root: string, name: string, sharesWork: boolean): Promise<OwnedInstance> {
  if (!sharesWork) return ownThisInstance(root, name, 0)
  const known = await instancesOf(root, name)
  for (const instance of known) {
    // The first look takes no lock, because a lock in passing would push other processes to higher instances.
    if (!(await holdsRecords(root, name, instance))) continue
    const held = await tryInstance(root, name, instance)
    if (held !== undefined) return held
  }
  for (let instance = 0; ; instance++) {
    const held = await tryInstance(root, name, instance)
    if (held !== undefined) return held
  }
}

/** Takes one certain instance. @throws FlowRunning if another process runs it */
export async function ownThisInstance(root: string, name: string, instance: number): Promise<OwnedInstance> {
  const held = await tryInstance(root, name, instance)
  if (held !== undefined) return held
  const pid = await holderOf(pathsOf(root, name, instance).lockFile)
  throw new FlowRunning(
    `the flow ${name} is running already${pid === undefined ? '' : `, as process ${pid}`}: stop that one first${pid === undefined ? '' : ` (kill ${pid})`}, or give this one a flow of its own with --name`,
  )
}

async function tryInstance(root: string, name: string, instance: number): Promise<OwnedInstance | undefined> {
  const paths = await prepareInstance(root, name, instance)
  const lock = await acquire(paths.lockFile)
  return lock === undefined ? undefined : { ...paths, lock }
}

async function holdsRecords(root: string, name: string, instance: number): Promise<boolean> {
  try {
    const state = await readFlowFile<FlowState>(realFileSystem, pathsOf(root, name, instance).flowFile)
    return state !== undefined && mayHoldRecords(state)
  } catch {
    // The process that takes a damaged instance is told why. The damage must not keep all others from starting.
    return false
  }
}
