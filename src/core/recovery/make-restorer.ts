/** The restorer of a flow, and what it needs of it. */
import { possibleDuplicatesOf } from '../accounting/accounts'
import type { FlowParts, SinkPart } from '../flow/flow-parts'
import type { DeliveredPositions } from '../accounting/delivered-positions'
import { splitBytes } from '../delivery/split-delivery'
import type { Sequence } from '../flow/ports'
import { Restorer, type RestorerParts } from './restorer'

interface SinkRun {
  readonly part: SinkPart
  readonly pump: { readonly counts: { possibleDuplicates: number } }
  readonly spoolFeed: { readonly cursor: Sequence; readonly delivered: DeliveredPositions } | undefined
}
type Given = Pick<RestorerParts, 'ledger' | 'gaps' | 'flush' | 'touch' | 'track'> & {
  readonly room: RestorerParts['room'] | undefined
  readonly sinks: readonly SinkRun[]
  readonly arrivals: { acceptedThrough: Sequence }
}

/** undefined: without a spool nothing is lost from it. */
export function makeRestorer(parts: FlowParts, { sinks, arrivals, room, ...given }: Given): Restorer | undefined {
  const { spool, clock, log, sources, stored, transform, toLines, refuseInner } = parts
  if (spool === undefined || room === undefined) return undefined
  const restorer = new Restorer({
    ...given,
    spool,
    room,
    clock,
    log,
    sources,
    stored: parts.again,
    pieceBytes: splitBytes(parts.sinks),
    ...(transform === undefined ? {} : { transform }),
    ...(toLines === undefined ? {} : { toLines }),
    ...(refuseInner === undefined ? {} : { refuseInner }),
    lanes: () =>
      sinks.flatMap(({ part, spoolFeed }) =>
        spoolFeed === undefined ? [] : [{ sink: part.id, cursor: spoolFeed.cursor, delivered: spoolFeed.delivered }],
      ),
    newest: (source) => new Map(Object.entries(stored?.sources[source]?.positions ?? {})),
    through: () => stored?.acceptedThrough ?? 0,
    next: () => Math.max(parts.nextSequence ?? 0, spool.head),
    accepted: (next) => {
      arrivals.acceptedThrough = Math.max(arrivals.acceptedThrough, next)
    },
    doubtful: (sink, count) =>
      sinks.find(({ part }) => part.id === sink)?.part.sink.limits.unit === 'segment'
        ? 0
        : possibleDuplicatesOf(parts, sink, count),
    doubled: (sink, count) => {
      for (const { part, pump } of sinks) if (part.id === sink) pump.counts.possibleDuplicates += count
    },
  })
  spool.onLost((losses) => {
    restorer.met(losses)
  })
  // The last run left them as records that are safe: this one accounts for them.
  restorer.lost(parts.damage ?? [], true)
  return restorer
}
