/**
 * Lists flows as people know them: their names, their stored state, and the rules that keep a changed command line from
 * losing records. Listing takes no lock and changes nothing.
 */
import { spooledOf } from '../core/flow/flow-state'
import type { FlowState } from '../core/flow/flow-state'
import { lineOf } from '../core/errors'
import { realFileSystem } from '../kit/file-system'
import { instancesOf, nameFault, namesOf, pathsOf } from './directory'
import type { InstancePaths } from './directory'
import { readFlowFile } from './flow-file'
import { mayHoldRecords } from './instances'
import { endpointsOf, isSame, type EndpointIdentity, type FlowIdentity } from './identity'
import { holderOf, isLocked } from './lock'

export interface StoredFlow extends InstancePaths, FlowIdentity {
  readonly held: boolean
  /** The id of the process that runs it, if one does and it is known. */
  readonly holder?: number
  /** It is absent if nothing was saved yet, or if it cannot be read. */
  readonly state?: FlowState
  /** The reason why its flow file cannot be read. */
  readonly fault?: string
}

/** Returns all flows under STATE, by name and instance. @param root STATE as `existingStateRoot` returned it */
export async function listFlows(root: string | undefined): Promise<readonly StoredFlow[]> {
  if (root === undefined) return []
  const flows: StoredFlow[] = []
  for (const name of await namesOf(root))
    for (const instance of await instancesOf(root, name)) flows.push(await storedFlow(root, name, instance))
  return flows
}

/** Returns the instances of one flow. */
export async function flowsNamed(root: string | undefined, name: string): Promise<readonly StoredFlow[]> {
  if (root === undefined || nameFault(name) !== undefined) return []
  const flows: StoredFlow[] = []
  for (const instance of await instancesOf(root, name)) flows.push(await storedFlow(root, name, instance))
  return flows
}

async function storedFlow(root: string, name: string, instance: number): Promise<StoredFlow> {
  const paths = pathsOf(root, name, instance)
  try {
    const held = await isLocked(paths.lockFile)
    const holder = held ? await holderOf(paths.lockFile) : undefined
    const state = await readFlowFile<FlowState>(realFileSystem, paths.flowFile)
    const identity = { sources: endpointsOf(state?.sources), sinks: endpointsOf(state?.sinks) }
    return {
      ...paths,
      ...identity,
      held,
      ...(holder === undefined ? {} : { holder }),
      ...(state === undefined ? {} : { state }),
    }
  } catch (error) {
    return { ...paths, sources: [], sinks: [], held: false, fault: lineOf(error) }
  }
}

/**
 * An unnamed line that shares a source and a sink with a flow known under another name is probably that flow, changed:
 * whether it goes on there or begins afresh is not for us to guess. undefined: no such flow, or this one is known
 * itself.
 * @param name as `flowName` derived it; not to be asked where `--name` was given
 */
export function knownFlowConflict(
  flows: readonly StoredFlow[],
  name: string,
  identity: FlowIdentity,
): string | undefined {
  if (flows.some((flow) => flow.name === name)) return undefined
  const shared = (
    ours: readonly EndpointIdentity[],
    theirs: readonly EndpointIdentity[],
  ): EndpointIdentity | undefined => ours.find((one) => theirs.some((other) => isSame(other, one)))
  for (const flow of flows) {
    const source = shared(identity.sources, flow.sources)
    const sink = shared(identity.sinks, flow.sinks)
    if (source !== undefined && sink !== undefined)
      return `${source.label} to ${sink.label} is known as the flow ${flow.name}: --name ${flow.name} goes on with it, --name with a new name begins afresh`
  }
  return undefined
}

/**
 * Sinks that a stored flow delivers to and this line does not name. With records from their cursor on they are faults
 * (`removedSinkFault`); without, they may be forgotten.
 */
export function removedSinks(
  state: FlowState,
  identity: FlowIdentity,
): readonly (EndpointIdentity & { readonly cursor: number; readonly target?: string })[] {
  return Object.entries(state.sinks)
    .filter(([id]) => !identity.sinks.some((sink) => sink.id === id))
    .map(([id, { label, cursor, target }]) => ({ id, label, cursor, ...(target === undefined ? {} : { target }) }))
}

/**
 * @param sink as `manifold forget` takes it
 * @param records how many the sink has still to get, as the spool counts them
 * @param now where the line's sink of that label writes to, if it is another place
 */
export function removedSinkFault(name: string, sink: string, records: number, now?: string): string {
  const instead = now === undefined || now === sink ? 'which this line does not name' : `and this line writes to ${now}`
  return `the flow ${name} holds ${records} record${records === 1 ? '' : 's'} for ${sink}, ${instead}: name it as it was, or, where they can never get there, drop them with: manifold forget ${name} ${quoted(sink)} --force`
}

/** Returns flows with records that nobody runs; the start line names them. @param except the flow that is starting */
export function idleFlowsWithRecords(
  flows: readonly StoredFlow[],
  except?: { readonly name: string; readonly instance: number },
): readonly StoredFlow[] {
  return flows.filter(
    (flow) =>
      !flow.held &&
      flow.state !== undefined &&
      mayHoldRecords(flow.state) &&
      !(flow.name === except?.name && flow.instance === except.instance),
  )
}

/** Each sink has still to get these, as of the last save. `records` is absent if the run was killed: nobody knows. */
export function undelivered(state: FlowState): readonly (EndpointIdentity & { readonly records?: number })[] {
  return Object.entries(state.sinks).flatMap(([id, { label, cursor }]) => {
    if (!state.clean) return state.spoolId === undefined ? [] : [{ id, label }]
    if (cursor >= state.acceptedThrough) return []
    const ledger = state.run?.sinks[id]
    return [
      {
        id,
        label,
        ...(state.run === undefined || ledger === undefined ? {} : { records: spooledOf(state.run, ledger) }),
      },
    ]
  })
}

/** Quotes a text for a shell. */
export function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}
