/** Makes a run's receipt of its counts, and the state by which the next start can account for the run. */
import type { Position } from '../contract'
import { DiskFailed, isDiskError, isExhausted, lineOf, ReaderGone, UsageError } from '../errors'
import type { Ending, FlowParts, SinkPart, SourcePart } from '../flow/flow-parts'
import type { FlowState, SinkState, SourceState } from '../flow/flow-state'
import type { InDoubtRecords } from './in-doubt'
import type { DeliveredPositions } from './delivered-positions'
import type { Restorer } from '../recovery/restorer'
import type { Ledger } from './ledger'
import type { Receipt, ReceiptSink } from './receipt'
import type { SinkCounts } from '../delivery/sink-pump'
import { EndpointFailed } from '../supervision/supervisor'

/** The counts and positions of a run at this moment. */
export interface Account {
  readonly ledger: Ledger
  readonly sources: readonly {
    readonly part: SourcePart
    readonly positions: ReadonlyMap<string, Position>
    readonly released: ReadonlyMap<string, Position>
    readonly completeUntil: number | undefined
  }[]
  readonly inDoubt: InDoubtRecords | undefined
  readonly restorer: Restorer | undefined
  readonly sinks: readonly {
    readonly part: SinkPart
    readonly spoolFeed: { readonly cursor: number; readonly delivered: DeliveredPositions } | undefined
    readonly pump: { readonly counts: SinkCounts; readonly unanswered: number }
    readonly proven: boolean
    readonly tried: boolean
  }[]
  readonly started: number
  /** Milliseconds that the run has taken, by the monotonic clock. */
  readonly ms: number
  readonly ended: number | undefined
  readonly acceptedThrough: number
  /** Receipts that nobody has got yet. */
  readonly unissued: readonly Receipt[]
}

/**
 * Makes the state to be stored. Sinks that are not named any more are left out: the start made sure they had
 * everything.
 */
export function stateOf(
  { spool, stored, spoolId, spoolDirectory, nextSequence, ...parts }: FlowParts,
  { ledger, ended, acceptedThrough, unissued, ...account }: Account,
): FlowState {
  const { command } = parts
  const sources: Record<string, SourceState> = { ...stored?.sources }
  for (const { part, positions, released, completeUntil } of account.sources) {
    const merged = new Map(positions)
    for (const partition of spool?.partitions(part.id) ?? []) {
      const position = spool?.position(part.id, partition)
      if (position !== undefined) merged.set(partition, position)
    }
    sources[part.id] = {
      ...named(part),
      positions: Object.fromEntries(merged),
      ...(completeUntil === undefined ? {} : { completeUntil }),
      ...(part.position === 'upstream'
        ? { released: { ...stored?.sources[part.id]?.released, ...Object.fromEntries(released) } }
        : {}),
    }
  }
  const again = account.restorer?.state()
  const newest = new Map(
    account.sources
      .filter(({ part }) => part.position === 'here')
      .map(({ part }) => [part.id, new Map(Object.entries(sources[part.id]?.positions ?? {}))]),
  )
  const sinks: Record<string, SinkState> = {}
  for (const { part, spoolFeed, pump, proven, tried } of account.sinks) {
    const target = part.sink.segments?.target
    const behind =
      spool === undefined
        ? undefined
        : spoolFeed?.delivered.state(newest, spool.countFrom(spoolFeed.cursor) === 0 && again === undefined)
    sinks[part.id] = {
      ...named(part),
      ...(target === undefined ? {} : { target }),
      cursor: spoolFeed?.cursor ?? 0,
      ...behind,
      proven,
      ...(tried ? { tried } : {}),
      ...(ended === undefined || pump.unanswered === 0 ? {} : { doubtful: pump.unanswered }),
    }
  }
  const inDoubt = account.inDoubt?.state() ?? []
  return {
    format: 1,
    ...(spoolId === undefined ? {} : { spoolId }),
    ...(spoolDirectory === undefined ? {} : { spoolDirectory }),
    ...(command === undefined ? {} : { command }),
    sequence: Math.max(spool?.head ?? 0, nextSequence ?? 0),
    clean: ended !== undefined,
    acceptedThrough,
    sources,
    sinks,
    ...(inDoubt.length === 0 ? {} : { held: inDoubt }),
    ...(again === undefined ? {} : { again }),
    run: ledger.durable(ended),
    ...(unissued.length === 0 ? {} : { unissued }),
  }
}

function named({ label, spelled = label, meaning }: SourcePart | SinkPart): Pick<SinkState, 'label' | 'meaning'> {
  return { label: spelled, ...(meaning === undefined ? {} : { meaning }) }
}

/**
 * Returns how many records that a sink is given out of the spool again it may have had.
 * @param again how many records it is given again
 */
export function possibleDuplicatesOf({ stored, file }: FlowParts, sink: string, again: number): number {
  if (stored === undefined) return file?.lost === true ? again : 0
  const { tried = false, doubtful = 0 } = stored.sinks[sink] ?? {}
  return Math.min(again, stored.clean ? doubtful : tried ? again : 0)
}

/** Counts records that are neither settled nor in the spool: the source sends them again, or nobody does. */
export function unaccounted(
  parts: FlowParts,
  { ledger, sinks }: Account,
): { readonly returned: number; readonly abandoned: number } {
  const refused = ledger.refusedAtRead + ledger.droppedAtRead + ledger.filteredAtRead
  const settled = (id: string): number => {
    const counts = ledger.of(id)
    return counts.delivered + counts.rejected + counts.dropped
  }
  const missing =
    ledger.read -
    refused -
    (parts.spool !== undefined ? ledger.accepted : Math.min(...sinks.map(({ part }) => settled(part.id))))
  return resends(parts) ? { returned: missing, abandoned: 0 } : { returned: 0, abandoned: missing }
}

export function receiptOf(parts: FlowParts, account: Account, ending: Ending): Receipt {
  const { spool, name, runId, clock } = parts
  const { ledger, started, ms } = account
  const lost = unaccounted(parts, account)
  const sinks: ReceiptSink[] = account.sinks.map(({ part, spoolFeed }) => {
    const counts = ledger.sink(part.id)
    return {
      ...counts,
      returned: counts.returned + lost.returned,
      abandoned: counts.abandoned + lost.abandoned,
      id: part.id,
      label: part.label,
      read: ledger.read,
      spooled:
        spoolFeed === undefined
          ? 0
          : (spool?.countFrom(spoolFeed.cursor) ?? 0) +
            (account.inDoubt?.of(part.id) ?? 0) +
            (account.restorer?.of(part.id) ?? 0),
    }
  })
  const ended = account.ended ?? clock.now()
  return {
    flow: name,
    run: runId,
    started: new Date(started).toISOString(),
    ended: new Date(ended).toISOString(),
    seconds: Math.round(ms) / 1000,
    outcome:
      ending.kind === 'complete'
        ? 'complete'
        : ending.kind === 'stopped' || ending.kind === 'reader gone'
          ? 'stopped'
          : 'failed',
    read: ledger.read,
    bytesRead: ledger.bytesRead,
    restarts: ledger.restarts,
    sinks,
    gaps: ledger.gaps,
    gapCount: ledger.gapCount,
    ...('why' in ending ? { why: ending.why } : {}),
  }
}

/** Says what ended a run before its time. */
export function failureOf(error: unknown): Ending {
  if (error instanceof ReaderGone) return { kind: 'reader gone' }
  if (error instanceof DiskFailed || isDiskError(error) || isExhausted(error))
    return { kind: 'disk failed', why: lineOf(error) }
  if (error instanceof UsageError) return { kind: 'usage', why: error.message }
  if (error instanceof EndpointFailed)
    return { kind: error.role === 'source' ? 'source failed' : 'sink failed', why: lineOf(error) }
  return { kind: 'bug', error }
}

/** Tells whether all sources send again what was read and not accepted, so that nothing is lost by a stop. */
export function resends({ sources }: Pick<FlowParts, 'sources'>): boolean {
  return sources.every(({ position }) => position !== 'none')
}

/**
 * Says how a run without failure ended.
 * @param stopped the run was asked to stop; `cleanEnd` says whether all that was read had been drained by then
 */
export function endingOf(
  parts: FlowParts,
  account: Account,
  stopped: { readonly cleanEnd: boolean } | undefined,
): Ending {
  const { ledger, sinks } = account
  if (stopped !== undefined) {
    const { returned, abandoned } = unaccounted(parts, account)
    return {
      kind: 'stopped',
      safe: abandoned === 0 && (returned === 0 || stopped.cleanEnd || parts.spool !== undefined),
    }
  }
  if (!parts.bounded) return { kind: 'complete' }
  const refused =
    ledger.refusedAtRead +
    ledger.droppedAtRead +
    Math.max(0, ...sinks.map(({ part }) => ledger.of(part.id).rejected + ledger.of(part.id).dropped))
  if (refused > 0)
    return { kind: 'incomplete', why: `${refused} record${refused === 1 ? '' : 's'} could not be delivered` }
  if (ledger.gapCount > 0)
    return {
      kind: 'incomplete',
      why: `${ledger.gapCount} gap${ledger.gapCount === 1 ? '' : 's'}: records that nobody can deliver; the receipt says which`,
    }
  return { kind: 'complete' }
}
