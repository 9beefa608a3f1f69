/** Forgets flows, and sinks of flows. Records that were not delivered are given up only with `force`. */
import * as fs from 'node:fs/promises'
import { join } from 'node:path'
import type { Log } from '../core/contract'
import { FlowRunning, UsageError } from '../core/errors'
import { spooledOf, type FlowState } from '../core/flow/flow-state'
import { realFileSystem } from '../kit/file-system'
import { prepareInstance } from './directory'
import { openFlowFile } from './flow-file'
import { flowsNamed, quoted, undelivered, type StoredFlow } from './flows'
import { acquire, holderOf, type Lock } from './lock'
import { spoolLocationOf, removeSegments, segmentsIn } from './spool-location'

export interface Forgotten {
  /** Instances that were removed, or that had the sink. */
  readonly flows: readonly StoredFlow[]
  /** A line for each thing that was given up with them. */
  readonly lost: readonly string[]
  /** Folders elsewhere in which something of the flow still lies. */
  readonly left: readonly string[]
}
export interface Forget {
  /** Forgets only this sink: a label, a target or an identity. */
  readonly sink?: string
  /** Gives up what was not delivered as well. */
  readonly force?: boolean
}

/**
 * Forgets a flow with all that belongs to it, also a spool elsewhere, or only one sink of it. Records that the sink was
 * still to get count as dropped.
 * @throws UsageError if there is no such flow or sink, or if records would be lost and `force` is not given;
 *   FlowRunning if it is running
 */
export async function forgetFlow(
  root: string,
  name: string,
  log: Log,
  { sink, force = false }: Forget = {},
): Promise<Forgotten> {
  const flows = await flowsNamed(root, name)
  if (flows.length === 0)
    throw new UsageError([`there is no flow ${name} under ${root}: manifold ls shows those there are`])
  const locks: Lock[] = []
  try {
    for (const flow of flows) {
      await prepareInstance(root, name, flow.instance)
      const lock = await acquire(flow.lockFile)
      if (lock === undefined) {
        const pid = await holderOf(flow.lockFile)
        throw new FlowRunning(
          `the flow ${name} is running${pid === undefined ? '' : ` as process ${pid}`}: stop it first, then forget it`,
        )
      }
      locks.push(lock)
    }
    // The flows are read again, because only now they are locked.
    const settled = await flowsNamed(root, name)
    const touched = sink === undefined ? settled : withSink(settled, name, sink)
    const lost: string[] = []
    for (const flow of touched) lost.push(...(await losses(flow, sink)))
    if (lost.length > 0 && !force)
      throw new UsageError([...lost.map((one) => `${one} would be lost`), wayOut(touched, name, sink)])
    if (sink !== undefined) {
      for (const flow of touched) await forgetSink(flow, sink, log)
      return { flows: touched, lost, left: [] }
    }
    const left: string[] = []
    for (const flow of settled) {
      const elsewhere = spoolLocationOf(flow, flow.state)
      if (elsewhere !== undefined && elsewhere !== flow.spool) {
        await removeSegments(elsewhere)
        if ((await fs.readdir(elsewhere).catch(() => [])).length > 0) left.push(elsewhere)
      }
      await fs.rm(flow.directory, { recursive: true, force: true })
    }
    return { flows: touched, lost, left }
  } finally {
    for (const lock of locks) lock.release()
    if (sink === undefined) {
      // Not empty where another instance began meanwhile. And a flow that a power cut brings back can be forgotten
      // again.
      await fs.rmdir(join(root, name)).catch(() => undefined)
      await realFileSystem.syncDirectory(root).catch(() => undefined)
    }
  }
}

/** Returns a line for everything that nobody would deliver any more. */
async function losses(flow: StoredFlow, sink: string | undefined): Promise<readonly string[]> {
  const { state } = flow
  const place = spoolLocationOf(flow, state) ?? flow.spool
  const whose = flow.instance === 0 ? '' : ` (instance ${flow.instance})`
  const files = (await segmentsIn(place)).length
  if (state === undefined)
    return files === 0 ? [] : [`what lies in ${files} spool file${files === 1 ? '' : 's'} in ${place}${whose}`]
  const only = sink === undefined ? undefined : sinkOf(flow, sink)
  const waiting =
    files === 0
      ? []
      : undelivered(state)
          .filter(({ id }) => only === undefined || id === only)
          .flatMap(({ id, label }) => {
            const counted = state.run?.sinks[id] === undefined ? undefined : spooledOf(state.run, state.run.sinks[id])
            // The ledger of a run that was killed is at most a second old.
            const many =
              state.clean && counted !== undefined
                ? records(counted)
                : counted === undefined || counted === 0
                  ? 'records that the last run may have left'
                  : `${records(counted)} or more`
            return [`${many} for ${state.sinks[id]?.target ?? label}, in ${place}${whose}`]
          })
  const rejected = sink === undefined ? await linesIn(flow.rejected) : 0
  return [
    ...waiting,
    ...(rejected === 0 ? [] : [`${rejected} rejected record${rejected === 1 ? '' : 's'}, in ${flow.rejected}`]),
  ]
}

function records(count: number): string {
  return `${count} record${count === 1 ? '' : 's'}`
}

async function linesIn(path: string): Promise<number> {
  let lines = 0
  try {
    const file = await fs.open(path)
    for await (const chunk of file.createReadStream()) for (const byte of chunk as Buffer) if (byte === 10) lines++
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  return lines
}

function wayOut(flows: readonly StoredFlow[], name: string, sink: string | undefined): string {
  const again = `manifold forget ${name}${sink === undefined ? '' : ` ${quoted(sink)}`} --force`
  const drain = flows.some(({ state }) => state !== undefined && undelivered(state).length > 0)
    ? flows.every(({ state }) => state?.command !== undefined)
      ? `deliver what waits with manifold spool drain ${name}, or `
      : 'run its line again, which delivers what waits, or '
    : ''
  return `${drain}give it up with: ${again}`
}

function withSink(flows: readonly StoredFlow[], name: string, sink: string): readonly StoredFlow[] {
  const fault = flows.find((flow) => flow.fault !== undefined)?.fault
  if (fault !== undefined) throw new UsageError([fault])
  for (const flow of flows) {
    const alike = flow.sinks.filter(({ label }) => label === sink)
    if (alike.length > 1 && !flow.sinks.some(({ id }) => id === sink))
      throw new UsageError([
        `the flow ${name} has ${alike.length} sinks ${sink}: name one as ${namesOf(
          flow,
          alike.map(({ id }) => id),
        ).join(' or ')}`,
      ])
  }
  const matches = flows.filter((flow) => sinkOf(flow, sink) !== undefined)
  if (matches.length === 0)
    throw new UsageError([
      `the flow ${name} has no sink ${sink}: it has ${[...new Set(flows.flatMap((flow) => flow.sinks.map(({ label }) => label)))].join(', ') || 'none'}`,
    ])
  return matches
}

/** Names sinks by their targets, if these tell them apart. */
function namesOf(flow: StoredFlow, ids: readonly string[]): readonly string[] {
  const targets = ids.map((id) => flow.state?.sinks[id]?.target ?? id)
  return (new Set(targets).size === ids.length ? targets : ids).map(quoted)
}

async function forgetSink(flow: StoredFlow, sink: string, log: Log): Promise<void> {
  const file = await openFlowFile<FlowState>(realFileSystem, flow.flowFile, log)
  try {
    if (file.stored === undefined) return
    const state = withoutSink(file.stored, sinkOf(flow, sink) ?? '')
    if (Object.keys(state.sinks).length > 0) {
      await file.save(state)
      return
    }
    // Nobody is to get anything of it any more.
    const { spoolId: _, spoolDirectory: _where, held: _held, ...rest } = state
    await file.save({ ...rest, sequence: 0, acceptedThrough: 0 })
    await removeSegments(spoolLocationOf(flow, file.stored) ?? flow.spool)
  } finally {
    await file.close()
  }
}

function sinkOf(flow: StoredFlow, sink: string): string | undefined {
  return flow.sinks.find(({ id, label }) => id === sink || flow.state?.sinks[id]?.target === sink || label === sink)?.id
}

function withoutSink(state: FlowState, id: string): FlowState {
  const { [id]: gone, ...sinks } = state.sinks
  const ledger = state.run?.sinks[id]
  if (gone === undefined || state.run === undefined || ledger === undefined) return { ...state, sinks }
  return {
    ...state,
    sinks,
    run: {
      ...state.run,
      sinks: { ...state.run.sinks, [id]: { ...ledger, dropped: ledger.dropped + spooledOf(state.run, ledger) } },
    },
  }
}
