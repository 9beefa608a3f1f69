/** Makes the restorer of a flow out of the flow's parts. */
import { possibleDuplicatesOf } from '../accounting/accounts'
import type { SpoolBackpressure } from '../delivery/spool-backpressure'
import type { FlowParts } from '../flow/flow-parts'
import type { SinkRun } from '../flow/sink-run'
import { splitBytes } from '../delivery/split-delivery'
import type { Sequence } from '../flow/ports'
import { Restorer, type RestorerParts } from './restorer'

type Given = Pick<RestorerParts, 'ledger' | 'gaps' | 'control'> & {
  readonly backpressure: SpoolBackpressure | undefined
  readonly sinks: readonly SinkRun[]
  readonly intake: { acceptedThrough: Sequence }
}

/** Returns undefined without a spool, because nothing can be lost from it then. */
export function makeRestorer(parts: FlowParts, given: Given): Restorer | undefined {
  const { spool, clock, log, sources, stored, transform, toLines, refuseInner } = parts
  const { ledger, gaps, control, backpressure, sinks, intake } = given
  if (spool === undefined || backpressure === undefined) return undefined
  const restorer = new Restorer({
    ledger,
    gaps,
    control,
    spool,
    backpressure,
    clock,
    log,
    sources,
    stored: parts.again,
    pieceBytes: splitBytes(parts.sinks),
    ...(transform === undefined ? {} : { transform }),
    ...(toLines === undefined ? {} : { toLines }),
    ...(refuseInner === undefined ? {} : { refuseInner }),
    sinkCursors: () =>
      sinks.flatMap(({ part, spoolFeed }) =>
        spoolFeed === undefined ? [] : [{ sink: part.id, cursor: spoolFeed.cursor, delivered: spoolFeed.delivered }],
      ),
    newest: (source) => new Map(Object.entries(stored?.sources[source]?.positions ?? {})),
    through: () => stored?.acceptedThrough ?? 0,
    next: () => Math.max(parts.nextSequence ?? 0, spool.head),
    accepted: (next) => {
      intake.acceptedThrough = Math.max(intake.acceptedThrough, next)
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
  // The last run counted these records as safe, so this one accounts for them.
  restorer.lost(parts.damage ?? [], true)
  return restorer
}
