/** Decides whether a flow has a spool, what it keeps there, and how its segments become objects. */
import { render } from '../codec/framing'
import { UsageError } from '../core/errors'
import type { Batch, Lines, SegmentPolicy, Sink } from '../core/contract'
import type { Spooled } from '../core/flow/ports'
import type { Newline } from '../options/shared'

export interface SpoolQuestion {
  readonly sinks: readonly { readonly label: string; readonly sink: Sink; readonly ephemeral: boolean }[]
  /** Some source cannot wait and cannot send again (a WebSocket). */
  readonly live: boolean
  readonly asked: boolean
  readonly refused: boolean
}

/** @throws UsageError `--no-spool` where the flow cannot do without */
export function needsSpool({ sinks, live, asked, refused }: SpoolQuestion): boolean {
  const segment = sinks.find(({ sink }) => sink.limits.unit === 'segment')
  if (refused) {
    if (asked) throw new UsageError(['--spool and --no-spool contradict each other'])
    if (segment !== undefined)
      throw new UsageError([`--no-spool: ${segment.label} is written from a spool; leave the flag out`])
    if (sinks.length > 1)
      throw new UsageError([
        '--no-spool: several sinks need a spool, so that one that is away does not hold up the others',
      ])
    return false
  }
  return asked || segment !== undefined || sinks.length > 1 || (live && sinks.some(({ ephemeral }) => !ephemeral))
}

export interface SegmentPlan {
  readonly policies: readonly { readonly sink: string; readonly policy: SegmentPolicy }[]
  /** Where lines are all that any sink wants: what came as entries is kept as lines. */
  readonly toLines?: (batch: Batch) => Lines
  /**
   * Records that cannot be lines are refused at reading, for some sink of the flow writes lines; the others still get
   * keys and headers.
   */
  readonly refuseInner?: (batch: Batch) => Lines
  /** In the framing of the segment, which may have been sealed by another line. */
  readonly render?: (frame: Spooled, framing: 'lines' | 'envelope') => readonly Buffer[]
}

/** @throws UsageError segment sinks that disagree: their objects are cut from the same segments */
export function segmentPlan(
  sinks: readonly { readonly id: string; readonly label: string; readonly sink: Sink; readonly newline: Newline }[],
  sourceLabel: (id: string) => string,
): SegmentPlan {
  const segmented = sinks.flatMap(({ id, label, sink, newline }) =>
    sink.segments === undefined ? [] : [{ sink: id, label, policy: sink.segments, newline }],
  )
  const first = segmented[0]
  for (const other of segmented.slice(1)) {
    if (first === undefined) break
    const differs =
      (
        [
          ['commit-file-size', 'sealBytes'],
          ['commit-duration', 'sealAge'],
          ['framing', 'framing'],
        ] as const
      ).find(([, key]) => first.policy[key] !== other.policy[key])?.[0] ??
      (first.newline !== other.newline
        ? 'newline'
        : [0, 90_061_001].some((at) => first.policy.period(at) !== other.policy.period(at))
          ? 'key'
          : undefined)
    if (differs !== undefined)
      throw new UsageError([
        `${first.label} and ${other.label} differ in ${differs}: sinks of one flow share their segments, so it must be the same for both`,
      ])
  }
  const newline = first?.newline ?? 'reject'
  const asLines = (batch: Batch): Lines =>
    render(batch, 'lines', newline, () => ({ source: '', partition: '', position: '', receivedAt: 0 }))
  const allLines = sinks.length > 0 && sinks.every(({ sink }) => sink.wants === 'lines')
  const framing = first?.policy.framing
  return {
    policies: segmented.map(({ sink, policy }) => ({ sink, policy })),
    ...(allLines ? { toLines: asLines } : {}),
    ...(!allLines && framing === 'lines' ? { refuseInner: asLines } : {}),
    ...(framing === undefined
      ? {}
      : {
          render: (frame: Spooled, sealed: 'lines' | 'envelope') =>
            render(frame.batch, sealed, newline, (index) => ({
              source: sourceLabel(frame.source),
              partition: frame.partition,
              position: frame.at(index),
              sequence: frame.first + index,
              receivedAt: frame.receivedAt,
            })).chunks,
        }),
  }
}
