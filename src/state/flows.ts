/**
 * Flows as people know them: their names, what is stored under STATE, and the rules that keep a changed command line from losing records.
 * Listing takes no lock and changes nothing.
 */
import * as fs from 'node:fs/promises'
import { join } from 'node:path'
import type { Log } from '../core/contract'
import { spooledOf } from '../core/flow-state'
import type { FlowState } from '../core/flow-state'
import { FlowHeld, lineOf, UsageError } from '../core/errors'
import { realFileSystem } from '../kit/file-system'
import { instancesOf, nameFault, namesOf, pathsOf, prepareInstance } from './directory'
import type { InstancePaths } from './directory'
import { openFlowFile, readFlowFile } from './flow-file'
import { mayHoldRecords } from './instances'
import { endpointsOf, isSame, type EndpointIdentity, type FlowIdentity } from './known'
import { acquire, holderOf, isHeld } from './lock'
import type { Lock } from './lock'

export interface StoredFlow extends InstancePaths, FlowIdentity {
  readonly held: boolean
  /** Pid, where `held` and known. */
  readonly holder?: number
  /** Absent: nothing was saved yet, or it cannot be read. */
  readonly state?: FlowState
  /** Why its flow file cannot be read. */
  readonly fault?: string
}

/** All flows under STATE, by name and instance. @param root STATE as `existingStateRoot` gave it; undefined: none */
export async function listFlows(root: string | undefined): Promise<readonly StoredFlow[]> {
  if (root === undefined) return []
  const flows: StoredFlow[] = []
  for (const name of await namesOf(root)) for (const instance of await instancesOf(root, name)) flows.push(await storedFlow(root, name, instance))
  return flows
}

/** One flow's instances. */
export async function flowsNamed(root: string | undefined, name: string): Promise<readonly StoredFlow[]> {
  if (root === undefined || nameFault(name) !== undefined) return []
  const flows: StoredFlow[] = []
  for (const instance of await instancesOf(root, name)) flows.push(await storedFlow(root, name, instance))
  return flows
}

async function storedFlow(root: string, name: string, instance: number): Promise<StoredFlow> {
  const paths = pathsOf(root, name, instance)
  try {
    const held = await isHeld(paths.lockFile)
    const holder = held ? await holderOf(paths.lockFile) : undefined
    const state = await readFlowFile<FlowState>(realFileSystem, paths.flowFile)
    const identity = { sources: endpointsOf(state?.sources), sinks: endpointsOf(state?.sinks) }
    return { ...paths, ...identity, held, ...(holder === undefined ? {} : { holder }), ...(state === undefined ? {} : { state }) }
  } catch (error) {
    return { ...paths, sources: [], sinks: [], held: false, fault: lineOf(error) }
  }
}

/**
 * An unnamed line that shares a source and a sink with a flow known under another name is probably that flow, changed: whether it goes on there or begins
 * afresh is not for us to guess. undefined: no such flow, or this one is known itself.
 * @param name as `flowName` derived it; not to be asked where `--name` was given
 */
export function knownFlowConflict(flows: readonly StoredFlow[], name: string, identity: FlowIdentity): string | undefined {
  if (flows.some((flow) => flow.name === name)) return undefined
  const shared = (ours: readonly EndpointIdentity[], theirs: readonly EndpointIdentity[]): EndpointIdentity | undefined => ours.find((one) => theirs.some((other) => isSame(other, one)))
  for (const flow of flows) {
    const source = shared(identity.sources, flow.sources)
    const sink = shared(identity.sinks, flow.sinks)
    if (source !== undefined && sink !== undefined) return `${source.label} to ${sink.label} is known as the flow ${flow.name}: --name ${flow.name} goes on with it, --name with a new name begins afresh`
  }
  return undefined
}

/** Sinks that a stored flow delivers to and this line does not name. With records from their cursor on they are faults (`removedSinkFault`); without, they may be forgotten. */
export function removedSinks(state: FlowState, identity: FlowIdentity): readonly (EndpointIdentity & { readonly cursor: number })[] {
  return Object.entries(state.sinks).filter(([id]) => !identity.sinks.some((sink) => sink.id === id)).map(([id, { label, cursor }]) => ({ id, label, cursor }))
}

/** @param records how many the sink has still to get, as the spool counts them; undefined: not known */
export function removedSinkFault(name: string, label: string, records: number | undefined): string {
  return `the flow ${name} holds ${records === undefined ? 'records' : `${records} record${records === 1 ? '' : 's'}`} for ${label}, which this line does not name: name it again, or drop them with: manifold forget ${name} ${quoted(label)}`
}

/** Flows that hold records and that nobody runs: what the start line names. @param except the flow that is starting */
export function idleFlowsWithRecords(flows: readonly StoredFlow[], except?: { readonly name: string; readonly instance: number }): readonly StoredFlow[] {
  return flows.filter((flow) => !flow.held && flow.state !== undefined && mayHoldRecords(flow.state) && !(flow.name === except?.name && flow.instance === except.instance))
}

/** What each sink has still to get, as of the last save. `records` absent: not known (the run was killed). */
export function undelivered(state: FlowState): readonly (EndpointIdentity & { readonly records?: number })[] {
  return Object.entries(state.sinks).flatMap(([id, { label, cursor }]) => {
    if (!state.clean) return state.spoolId === undefined ? [] : [{ id, label }]
    if (cursor >= state.acceptedThrough) return []
    const ledger = state.run?.sinks[id]
    return [{ id, label, ...(state.run === undefined || ledger === undefined ? {} : { records: spooledOf(state.run, ledger) }) }]
  })
}

export interface Forgotten {
  /** Instances that were removed, or that had the sink. */
  readonly flows: readonly StoredFlow[]
  /** Spools put elsewhere, whose files are left to the caller. */
  readonly spoolDirectories: readonly string[]
}

/**
 * Forgets a flow with all it holds, or one sink of it: what the sink was still to get counts as dropped.
 * @param sink label or identity
 * @throws UsageError no such flow or sink; FlowHeld it is running
 */
export async function forgetFlow(root: string, name: string, log: Log, sink?: string): Promise<Forgotten> {
  const flows = await flowsNamed(root, name)
  if (flows.length === 0) throw new UsageError([`there is no flow ${name} under ${root}: manifold ls shows those there are`])
  const locks: Lock[] = []
  try {
    for (const flow of flows) {
      await prepareInstance(root, name, flow.instance)
      const lock = await acquire(flow.lockFile)
      if (lock === undefined) {
        const pid = await holderOf(flow.lockFile)
        throw new FlowHeld(`the flow ${name} is running${pid === undefined ? '' : ` as process ${pid}`}: stop it first, then forget it`)
      }
      locks.push(lock)
    }
    // As it stands under the lock.
    const settled = await flowsNamed(root, name)
    const touched = sink === undefined ? settled : await forgetSink(settled, name, sink, log)
    if (sink === undefined) for (const flow of settled) await fs.rm(flow.directory, { recursive: true, force: true })
    return { flows: touched, spoolDirectories: touched.flatMap((flow) => flow.state?.spoolDirectory ?? []) }
  } finally {
    for (const lock of locks) lock.release()
    if (sink === undefined) {
      // Not empty where another instance began meanwhile. And a flow that a power cut brings back can be forgotten again.
      await fs.rmdir(join(root, name)).catch(() => undefined)
      await realFileSystem.syncDirectory(root).catch(() => undefined)
    }
  }
}

async function forgetSink(flows: readonly StoredFlow[], name: string, sink: string, log: Log): Promise<readonly StoredFlow[]> {
  const matches = flows.filter((flow) => sinkOf(flow, sink) !== undefined)
  const fault = flows.find((flow) => flow.fault !== undefined)?.fault
  if (fault !== undefined) throw new UsageError([fault])
  if (matches.length === 0) throw new UsageError([`the flow ${name} has no sink ${sink}: it has ${[...new Set(flows.flatMap((flow) => flow.sinks.map(({ label }) => label)))].join(', ') || 'none'}`])
  for (const flow of matches) {
    const file = await openFlowFile<FlowState>(realFileSystem, flow.flowFile, log)
    try {
      if (file.stored !== undefined) await file.save(withoutSink(file.stored, sinkOf(flow, sink) ?? ''))
    } finally { await file.close() }
  }
  return matches
}

function sinkOf(flow: StoredFlow, sink: string): string | undefined { return flow.sinks.find(({ id, label }) => id === sink || label === sink)?.id }

function withoutSink(state: FlowState, id: string): FlowState {
  const { [id]: gone, ...sinks } = state.sinks
  const ledger = state.run?.sinks[id]
  if (gone === undefined || state.run === undefined || ledger === undefined) return { ...state, sinks }
  return { ...state, sinks, run: { ...state.run, sinks: { ...state.run.sinks, [id]: { ...ledger, dropped: ledger.dropped + spooledOf(state.run, ledger) } } } }
}

/** As a shell takes it. */
function quoted(word: string): string { return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll('\'', '\'\\\'\'')}'` }
