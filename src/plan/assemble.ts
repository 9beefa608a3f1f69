/**
 * Makes a flow that is ready to run out of a parsed command line: endpoints, state, spool, dead letters. Nothing is
 * connected here. Only state, lock and spool are opened, and `release` closes them again on every path.
 */
import { randomUUID } from 'node:crypto'
import { dirname } from 'node:path'
import { makeAppender } from '../codec/append'
import type { Clock, Log } from '../core/contract'
import { Fatal, lineOf, Refused, UsageError } from '../core/errors'
import { Flow } from '../core/flow/flow'
import type { FlowParts, SinkPart, SourcePart } from '../core/flow/flow-parts'
import type { FlowCommand, FlowState } from '../core/flow/flow-state'
import { sourceOf } from '../core/recovery/reread-plan'
import type { Receipt } from '../core/accounting/receipt'
import { EndpointFailed, type GiveUpAfter } from '../core/supervision/supervisor'
import { systemClock } from '../kit/clock'
import { realFileSystem } from '../kit/file-system'
import { targetsOf, type CommandLine, type Targets } from '../options/command-line'
import type { AnyTarget } from '../options/define'
import type { Newline } from '../options/shared'
import { parseEndpoint, type ParsedEndpoint, type ParseContext } from '../options/target'
import { registry } from '../endpoints/registry'
import { openSpool, type OpenedSpool } from '../spool'
import { existingStateRoot, openStateRoot, ownDirectory, sharedDirectory, stateRoot } from '../state/directory'
import { openFlowFile } from '../state/flow-file'
import { idleFlowsWithRecords, knownFlowConflict, listFlows, removedSinkFault, removedSinks } from '../state/flows'
import { ownInstance, ownThisInstance } from '../state/instances'
import { flowName, knownName, type EndpointIdentity, type FlowIdentity } from '../state/identity'
import { rereadProgressOf, unseen } from './reread-progress'
import { dropping, keeping, stopping, type DeadLetterSink } from './dead-letters'
import type { OwnedState, SinkEnd, SourceEnd } from './ends'
import { endsOf, refuseLoops } from './loops'
import { endpointIdentity, knownFlows, underStored, understood } from './known-flows'
import { priorReceipt } from './prior-run'
import { needsSpool, segmentPlan } from './spooling'
import { startLines } from './start-lines'
import { leftBehind, locateSpool } from './spool-location'
import { unexplainedLoss } from './unexplained-loss'
import { readTwice } from './read-twice'

const DEFAULT_SEGMENT = 64 * 1024 * 1024
const GIVE_UP_MS = 600_000

export interface Assembled {
  readonly flow: Flow
  readonly name: string
  /** The lines to say before the first record: what resumes where, what is dropped, what dies with this disk. */
  readonly startLines: readonly string[]
  /**
   * The receipts of earlier runs that were killed, or that ended before anybody had them. They are issued first, and
   * `Flow.owes` is told which could not be.
   */
  readonly owing: readonly Receipt[]
  readonly bounded: boolean
  /** The line is stored, so `manifold spool drain` can deliver what is in the spool. */
  readonly drainable: boolean
  /** The place of rejected records; absent if none is kept. */
  readonly deadLetters?: string
  /** The writer of stdin decides on its end, as in `tail -F log | manifold`, and it may never come. */
  readonly fed: boolean
  release(): Promise<void>
}

/** `root` is the absolute path of STATE, because the stored line may name another way to it. */
export interface Drained {
  readonly name: string
  readonly instance: number
  readonly root: string
}

export interface AssembleOptions {
  /** It is stored with the flow, so that the spool can be drained without this line at hand. */
  readonly command?: FlowCommand
  /** Delivers only what is in the spool of this flow, and opens no source. */
  readonly drain?: Drained
}

export async function assemble(
  line: CommandLine,
  surroundings: ParseContext,
  log: Log,
  options: AssembleOptions = {},
  clock: Clock = systemClock,
): Promise<Assembled> {
  const { drain } = options
  const targets = await targetsOf(line)
  if (drain === undefined) await refuseLoops(endsOf(line, targets))
  const typed = await endpoints(line, targets)
  const bounded =
    drain !== undefined ||
    line.until !== undefined ||
    typed.sources.every(({ parsed, target }) => isBounded(parsed, target))
  const needed = needsSpool({
    sinks: typed.sinks,
    live: typed.sources.some(({ parsed }) => parsed.endpoint.source?.live === true),
    asked: line.flags.spool !== undefined,
    refused: line.flags.noSpool,
  })
  const wanted = (): string => stateRoot(drain?.root ?? line.flags.state)
  const keepsState =
    needed ||
    drain !== undefined ||
    line.flags.name !== undefined ||
    line.flags.state !== undefined ||
    process.env['STATE_DIRECTORY'] !== undefined ||
    (typed.sources.some(({ position }) => position === 'here') && typed.sinks.some(({ ephemeral }) => !ephemeral)) ||
    (await leftBehind(wanted, typed))
  const undo: (() => Promise<void> | void)[] = []
  const release = async (): Promise<void> => {
    // All that counts was synced before. A fault of one step changes nothing, and must not keep the next one from its
    // turn.
    for (const step of undo.splice(0).reverse())
      try {
        await step()
      } catch (error) {
        log.debug(`letting go: ${lineOf(error)}`)
      }
  }
  try {
    const state = keepsState ? await holdState(line, wanted(), typed, needed, drain, log, undo) : undefined
    const spooled = state?.spooled ?? needed
    const identity = {
      sources: underStored(typed.sources, state?.stored?.sources),
      sinks: underStored(typed.sinks, state?.stored?.sinks),
    }
    const { sinks } = identity
    const sources = drain === undefined ? identity.sources : []
    const labelOf = (id: string): string =>
      identity.sources.find((source) => source.id === id)?.spelled ?? state?.stored?.sources[id]?.label ?? id
    const segments = segmentPlan(sinks, (key) => labelOf(sourceOf(key)))
    const opened =
      spooled && state !== undefined ? await openSpoolOf(line, sinks, segments, state, clock, log, undo) : undefined
    if (state?.stored !== undefined) refuseRemovedSinks(state, sinks, opened, line.flags.noSpool)
    const giveUpAfter = line.flags.giveUpAfter ?? (spooled && !bounded ? 'never' : GIVE_UP_MS)
    const deadLetters = await deadLettersOf(line, targets, state, surroundings, giveUpAfter, clock, log)
    undo.push(() => deadLetters.close())
    const name = state?.name ?? flowName(identity)
    const command = drain === undefined ? options.command : state?.stored?.command
    const gaps = state === undefined || opened === undefined ? [] : gapsOf(state, opened)
    const awaited = opened === undefined ? undefined : await rereadProgressOf(state?.stored, opened.spool)
    const prior =
      state?.stored === undefined
        ? undefined
        : priorReceipt(
            name,
            state.stored,
            opened?.spool,
            { accepted: opened?.recovered.recordsSince ?? 0, gaps, ...(awaited === undefined ? {} : { awaited }) },
            clock.now(),
          )
    const parts: FlowParts = {
      name,
      runId: randomUUID(),
      sources: sources.map(
        (end): SourcePart => ({
          ...named(end),
          source: end.source,
          position: end.position,
          commitOnceSpooled: end.parsed.endpoint.source?.commitOnceSpooled === true,
          live: end.parsed.endpoint.source?.live === true,
          supervision: {
            giveUpAfter,
            knownGood: Object.keys(state?.stored?.sources[end.id]?.positions ?? {}).length > 0,
          },
        }),
      ),
      sinks: sinks.map(
        (end): SinkPart => ({
          ...named(end),
          sink: end.sink,
          supervision: {
            giveUpAfter,
            knownGood: state?.stored?.sinks[end.id]?.proven === true,
            ...(end.sink.segments === undefined || end.sink.segments.retryEvery === 0
              ? {}
              : { longestWait: end.sink.segments.retryEvery }),
          },
        }),
      ),
      ...(opened === undefined ? {} : { spool: opened.spool, spoolId: opened.id, nextSequence: opened.nextSequence }),
      ...(state === undefined ? {} : { file: state.file }),
      ...(state?.stored === undefined ? {} : { stored: state.stored }),
      damage: gaps.filter(({ lost }) => lost),
      ...(awaited?.again === undefined ? {} : { again: awaited.again }),
      ...(opened === undefined || state === undefined ? {} : { spoolDirectory: state.spoolDirectory }),
      ...(command === undefined ? {} : { command }),
      deadLetters,
      ...(targets.appends.length === 0 ? {} : { transform: makeAppender(targets.appends, markDropped(log)) }),
      ...(opened === undefined || segments.toLines === undefined ? {} : { toLines: segments.toLines }),
      ...(opened === undefined || segments.refuseInner === undefined ? {} : { refuseInner: segments.refuseInner }),
      until: untilOf(line),
      bounded,
      memory: line.flags.memory,
      lingerMs: line.flags.linger,
      stallMs: line.flags.stallTimeout,
      waitForSpace: giveUpAfter,
      graceMs: line.flags.grace,
      clock,
      log,
    }
    const others =
      state === undefined ? [] : idleFlowsWithRecords(await listFlows(state.root), { name, instance: state.instance })
    return {
      flow: new Flow(parts),
      name,
      bounded,
      release,
      drainable: command !== undefined,
      startLines: startLines({
        line,
        sources,
        sinks,
        state,
        spooled: opened !== undefined,
        others,
        deadLetterPolicy: deadLetters.policy,
      }),
      owing: [...(state?.stored?.unissued ?? []), ...(prior === undefined ? [] : [prior])],
      ...(deadLetters.place === undefined ? {} : { deadLetters: deadLetters.place }),
      fed: line.until === undefined && sources.some(({ parsed }) => parsed.endpoint.source?.fed === true),
    }
  } catch (error) {
    await release()
    throw error
  }
}

function named({ id, label, meaning, spelled }: EndpointIdentity): EndpointIdentity {
  return { id, label, ...(meaning === undefined ? {} : { meaning }), ...(spelled === undefined ? {} : { spelled }) }
}

async function endpoints(
  line: CommandLine,
  targets: Targets,
): Promise<{ readonly sources: readonly SourceEnd[]; readonly sinks: readonly SinkEnd[] }> {
  const faults: string[] = []
  const sources: SourceEnd[] = []
  const sinks: SinkEnd[] = []
  for (const [index, parsed] of line.from.entries()) {
    const target = targets.from[index]
    const create = await parsed.endpoint.source?.load()
    if (target === undefined || create === undefined) continue
    const { position = 'none', sharesWork = false } = parsed.endpoint.source ?? {}
    sources.push({
      ...endpointIdentity(parsed),
      parsed,
      target,
      source: made('source', parsed.label, () => create(target)),
      position: typeof position === 'function' ? position(target) : position,
      sharesWork: typeof sharesWork === 'function' ? sharesWork(target) : sharesWork,
    })
  }
  for (const [index, parsed] of line.to.entries()) {
    const target = targets.to[index]
    const create = await parsed.endpoint.sink?.load()
    if (target === undefined || create === undefined) continue
    const newline = (target.options as { readonly newline?: Newline }).newline ?? 'reject'
    const sink = made('sink', parsed.label, () => create(target))
    sinks.push({
      ...endpointIdentity(parsed),
      parsed,
      target,
      sink,
      newline,
      ephemeral: parsed.endpoint.sink?.ephemeral === true,
    })
  }
  const point = line.until?.point
  for (const { parsed, source, target } of sources)
    if (point?.kind === 'end' && source.ends === undefined && !isBounded(parsed, target))
      faults.push(`--until end: ${parsed.label} has no end to ask for; idle=DURATION or count=N can stop it`)
  for (const { parsed, source } of sources)
    if (point?.kind === 'time' && source.endsAt === undefined)
      faults.push(
        `--until TIME: ${parsed.label} keeps no times that can be asked for; --until end or idle=DURATION can stop it`,
      )
  faults.push(...(await readTwice(sources)))
  if (faults.length > 0) throw new UsageError(faults)
  return { sources, sinks }
}

/** An endpoint that knows at once that it cannot work ends the run before anything is opened or read. */
function made<T>(role: 'source' | 'sink', label: string, create: () => T): T {
  try {
    return create()
  } catch (error) {
    if (error instanceof Fatal || error instanceof Refused)
      throw new EndpointFailed(role, label, `${label}: ${lineOf(error)}`, error)
    throw error
  }
}

function isBounded({ endpoint: { source } }: ParsedEndpoint, target: AnyTarget): boolean {
  return typeof source?.bounded === 'function' ? source.bounded(target) : source?.bounded === true
}

function untilOf(line: CommandLine): FlowParts['until'] {
  const { point, idle, count } = line.until ?? {}
  return {
    ...(point?.kind === 'end' ? { end: true } : point?.kind === 'time' ? { time: point.at } : {}),
    ...(idle === undefined ? {} : { idleMs: idle }),
    ...(count === undefined ? {} : { count }),
  }
}

async function holdState(
  line: CommandLine,
  wanted: string,
  typed: { readonly sources: readonly SourceEnd[]; readonly sinks: readonly SinkEnd[] },
  needed: boolean,
  drain: Drained | undefined,
  log: Log,
  undo: (() => Promise<void> | void)[],
): Promise<OwnedState> {
  const name = line.flags.name ?? (drain === undefined ? await unnamed(wanted, typed) : drain.name)
  const root = await openStateRoot(wanted)
  const held =
    drain === undefined
      ? await ownInstance(
          root,
          name,
          typed.sources.some(({ sharesWork }) => sharesWork),
        )
      : await ownThisInstance(root, drain.name, drain.instance)
  undo.push(() => {
    held.lock.release()
  })
  const file = await openFlowFile<FlowState>(realFileSystem, held.flowFile, log)
  undo.push(() => file.close())
  const stored = file.stored === undefined ? undefined : understood(file.stored)
  const buffer = typed.sinks
    .map(({ target }) => (target.options as { readonly bufferPath?: string }).bufferPath)
    .find((path) => path !== undefined)
  const { spooled, place } = await locateSpool(
    held,
    stored,
    { spool: needed, folder: line.flags.spool ?? buffer, drain: drain !== undefined },
    log,
  )
  return { ...held, root, file, stored, spooled, spoolDirectory: place }
}

/** Names the flow of an unnamed line as it is stored, whatever its spelling was then. */
async function unnamed(wanted: string, identity: FlowIdentity): Promise<string> {
  const flows = await knownFlows(await existingStateRoot(wanted))
  const name = knownName(flows, identity) ?? flowName(identity)
  const conflict = knownFlowConflict(flows, name, identity)
  if (conflict !== undefined) throw new UsageError([conflict])
  return name
}

async function openSpoolOf(
  line: CommandLine,
  sinks: readonly SinkEnd[],
  segments: ReturnType<typeof segmentPlan>,
  state: OwnedState,
  clock: Clock,
  log: Log,
  undo: (() => Promise<void> | void)[],
): Promise<OpenedSpool> {
  const { stored } = state
  if (state.spoolDirectory !== state.spool) await sharedDirectory(dirname(dirname(state.spoolDirectory)))
  for (const path of pathSteps(state)) await ownDirectory(path)
  const cursors = sinks.map(({ id }) => stored?.sinks[id]?.cursor ?? 0)
  const opened = await openSpool({
    fs: realFileSystem,
    directory: state.spoolDirectory,
    clock,
    log,
    ...(stored?.spoolId === undefined ? {} : { id: stored.spoolId }),
    known: {
      sequence: stored?.sequence ?? 0,
      clean: stored?.clean ?? false,
      acceptedThrough: stored?.acceptedThrough ?? 0,
      tail: stored === undefined ? 0 : Math.min(...cursors, ...keptFrom(stored)),
      ...(stored === undefined || !sameSpool(state) ? {} : { owedFrom: Math.min(...keptFrom(stored)) }),
    },
    policies: segments.policies,
    ...(segments.render === undefined ? {} : { render: segments.render }),
    segmentBytes: DEFAULT_SEGMENT,
    ...(line.flags.spoolMax === undefined ? {} : { maxBytes: line.flags.spoolMax }),
    ...(line.flags.diskReserve === undefined ? {} : { reserve: line.flags.diskReserve }),
  })
  undo.push(() => opened.spool.close())
  return opened
}

/** Returns the gaps that were noted since the last ledger, and those that the disk has made. */
function gapsOf(state: OwnedState, { spool, recovered }: OpenedSpool): OpenedSpool['recovered']['gaps'] {
  const gaps = unseen(state.stored, recovered.gaps)
  if (state.stored === undefined || !sameSpool(state)) return gaps
  const loss = unexplainedLoss(
    state.stored,
    spool,
    gaps.filter(({ lost }) => lost),
  )
  return loss === undefined ? gaps : [...gaps, { ...loss, lost: true }]
}

/** Tells whether the spool lies where the last run had it. */
function sameSpool({ stored, spoolDirectory }: OwnedState): boolean {
  return stored?.spoolId !== undefined && stored.spoolDirectory === spoolDirectory
}

/**
 * Directories to make, outermost first: of a spool put elsewhere, those below the one that was named, which may be
 * shared.
 */
function pathSteps(state: OwnedState): readonly string[] {
  if (state.spoolDirectory === state.spool) return [state.spool]
  const flow = dirname(state.spoolDirectory)
  return [flow, state.spoolDirectory]
}

function keptFrom(stored: FlowState): readonly number[] {
  return [...Object.values(stored.sinks).map(({ cursor }) => cursor), ...(stored.held ?? []).map(({ from }) => from)]
}

function refuseRemovedSinks(
  state: OwnedState,
  sinks: readonly SinkEnd[],
  opened: OpenedSpool | undefined,
  noSpool: boolean,
): void {
  const stored = state.stored as FlowState
  const faults: string[] = []
  for (const { label, target, cursor } of removedSinks(stored, { sources: [], sinks })) {
    const records = opened?.spool.countFrom(cursor) ?? 0
    const alike = sinks.find((sink) => sink.label === label)
    if (records > 0)
      faults.push(
        removedSinkFault(
          state.name,
          target ?? label,
          records,
          alike === undefined ? undefined : (alike.sink.segments?.target ?? `${label} with other options`),
        ),
      )
  }
  if (opened !== undefined && noSpool) {
    const records = Math.max(
      0,
      ...sinks.map(({ id }) => opened.spool.countFrom(stored.sinks[id]?.cursor ?? opened.spool.tail)),
    )
    if (records > 0)
      faults.push(
        `--no-spool: the flow ${state.name} holds ${records} record${records === 1 ? '' : 's'} in its spool ${state.spoolDirectory}: run the line without --no-spool until they are delivered`,
      )
  }
  for (const foreign of opened?.foreign ?? [])
    faults.push(
      `${foreign.path} holds ${foreign.count} records made for ${foreign.target}, which this line does not write to: name that sink again, or drop all that the flow holds with: manifold forget ${state.name} --force`,
    )
  if (faults.length > 0) throw new UsageError(faults)
}

async function deadLettersOf(
  line: CommandLine,
  targets: Targets,
  state: OwnedState | undefined,
  surroundings: ParseContext,
  giveUpAfter: GiveUpAfter,
  clock: Clock,
  log: Log,
): Promise<DeadLetterSink> {
  const { deadLetter } = line
  if (deadLetter?.endpoint.sink?.discards === true) return dropping
  const parsed =
    deadLetter ??
    (state === undefined ? undefined : parseEndpoint(`file:${state.rejected}`, [], 'sink', registry, surroundings))
  if (parsed === undefined) return stopping
  const target = targets.deadLetter ?? (await parsed.target())
  // Those of this flow, by default: a run that reads them again keeps its own elsewhere.
  if (deadLetter === undefined) await refuseLoops({ ...endsOf(line, targets), sinks: [{ parsed, given: target }] })
  const create = await parsed.endpoint.sink?.load()
  if (create === undefined) throw new UsageError([`${parsed.label} cannot take dead letters`])
  const sink = made('sink', parsed.label, () => create(target))
  if (sink.limits.unit === 'segment')
    throw new UsageError([
      `--dead-letter ${parsed.label}: dead letters go to a file, a queue or a topic; from there an ordinary run takes them on`,
    ])
  return keeping(parsed.label, () => Promise.resolve(sink), giveUpAfter, clock, log)
}

function markDropped(log: Log): (source: string) => void {
  return (source) => {
    log.warn(`${source}: a record began with a byte-order mark; --append leaves these out`)
  }
}
