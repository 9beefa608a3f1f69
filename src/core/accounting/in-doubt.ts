/**
 * Keeps records in doubt: recovered records of sources whose position lives upstream. Upstream sends again whatever was
 * not committed, so they are not delivered. They wait until a commit upstream covers them (they were returned then), or
 * until the source finds that they cannot be sent any more. Records that fill such a gap are appended once more and
 * delivered as if they had just been read.
 *
 * - They are held only where all that was recovered is of such sources: in a mixed spool everything is delivered, and
 *   what is sent again is there twice.
 * - Ranges and the positions they wait for ride in the flow file: cursors stand beyond them, so nothing else knows of
 *   them. Their files stay meanwhile.
 */
import { only } from '../batch'
import type { Gap, Position } from '../contract'
import type { SinkPart, SourcePart } from '../flow/flow-parts'
import type { FlowState, InDoubtRange } from '../flow/flow-state'
import type { Sequence, Spool } from '../flow/ports'

type Covers = (upTo: Position, position: Position) => boolean
type Counts = Readonly<Record<string, number>>
interface Range {
  readonly from: Sequence
  readonly to: Sequence
  readonly counts: Record<string, number>
  readonly until: Map<string, Map<string, Position>>
}

/** Counts what was appended again: per sink, how much of it the sink was owed and how much it may have had already. */
export interface FilledGap {
  readonly records: number
  readonly again: Counts /** The part that is a gap in spite of it. */
  readonly gap: Gap | undefined
}

export class InDoubtRecords {
  constructor(
    private readonly spool: Spool,
    private ranges: Range[],
  ) {}

  /** No record below this sequence is in doubt. */
  get low(): Sequence {
    return this.ranges[0]?.from ?? Infinity
  }
  of(sink: string): number {
    return this.ranges.reduce((sum, { counts }) => sum + (counts[sink] ?? 0), 0)
  }
  partitions(source: string): readonly string[] {
    return [...new Set(this.ranges.flatMap(({ until }) => [...(until.get(source)?.keys() ?? [])]))]
  }

  /**
   * Tells of a commit upstream.
   * @returns how many records were returned with it, per sink; undefined if nothing changed
   */
  committed(source: string, partition: string, upTo: Position, covers: Covers): Counts | undefined {
    let changed = false
    for (const { until } of this.ranges) {
      const position = until.get(source)?.get(partition)
      if (position === undefined || !covers(upTo, position)) continue
      forget(until, source, partition)
      changed = true
    }
    return changed ? this.settled() : undefined
  }

  /**
   * Tells that the source cannot send the gap's records any more. Those of them that are in doubt go into the spool
   * again, behind what is there.
   */
  async fill(source: string, gap: Gap, covers: Covers): Promise<FilledGap> {
    const again: Record<string, number> = {}
    let records = 0
    let rest: Gap | undefined = gap
    const open = !covers(gap.to, gap.to)
    for (const range of this.ranges) {
      const last = range.until.get(source)?.get(gap.partition)
      if (last === undefined) continue
      const appended = await this.append(range, source, gap, {
        beyondFrom: (position) => !covers(gap.from, position),
        withinTo: (position) => open || covers(gap.to, position),
        beforeTo: (position) => open || !covers(position, gap.to),
      })
      records += appended
      for (const [sink, owed] of Object.entries(range.counts)) {
        range.counts[sink] = Math.max(0, owed - appended)
        again[sink] = (again[sink] ?? 0) + Math.max(0, appended - owed)
      }
      if (open || covers(gap.to, last)) forget(range.until, source, gap.partition)
      rest = !open && covers(last, gap.to) ? undefined : { ...gap, from: last }
    }
    return { records, again, gap: rest }
  }

  /** Counts, after `fill`, the ranges of which nothing is awaited any more. */
  settled(): Counts {
    const returned: Record<string, number> = {}
    for (const { counts, until } of this.ranges) {
      if (until.size > 0) continue
      for (const [sink, count] of Object.entries(counts)) returned[sink] = (returned[sink] ?? 0) + count
    }
    this.ranges = this.ranges.filter(({ until }) => until.size > 0)
    return returned
  }

  state(): readonly InDoubtRange[] {
    return this.ranges.map(({ from, to, counts, until }) => ({
      from,
      to,
      counts: { ...counts },
      until: Object.fromEntries([...until].map(([source, positions]) => [source, Object.fromEntries(positions)])),
    }))
  }

  /**
   * Lines carry the position of their frame's end alone: a frame that reaches into the gap goes whole, and what of it
   * lies beyond comes twice.
   */
  private async append(
    range: Range,
    source: string,
    gap: Gap,
    { beyondFrom, withinTo, beforeTo }: Record<'beyondFrom' | 'withinTo' | 'beforeTo', (position: Position) => boolean>,
  ): Promise<number> {
    const reader = this.spool.batches('held', range.from)
    const stop = new AbortController()
    let records = 0
    let before: Position | undefined
    for (let at = range.from; at < range.to; ) {
      const frame = await reader.next(stop.signal)
      if (frame === null || frame.first >= range.to) break
      at = frame.next
      if (frame.source !== source || frame.partition !== gap.partition) continue
      const all = Array.from({ length: frame.batch.count }, (_, index) => index)
      const reaches = before === undefined || beforeTo(before)
      before = frame.at(frame.batch.count - 1)
      const indexes =
        frame.batch.form === 'lines'
          ? beyondFrom(before) && reaches
            ? all
            : []
          : all.filter((index) => beyondFrom(frame.at(index)) && withinTo(frame.at(index)))
      const last = indexes.at(-1)
      if (last === undefined) continue
      const batch = indexes.length === frame.batch.count ? frame.batch : only(frame.batch, indexes)
      await this.spool.append({
        source,
        partition: { name: gap.partition, epoch: 0 },
        batch,
        last: frame.at(last),
        at: (index) => frame.at(indexes[index] ?? last),
        receivedAt: frame.receivedAt,
      })
      records += batch.count
    }
    return records
  }
}

function forget(until: Map<string, Map<string, Position>>, source: string, partition: string): void {
  until.get(source)?.delete(partition)
  if (until.get(source)?.size === 0) until.delete(source)
}

/** The records that a start holds back, and where each sink's way through the spool begins. */
export interface InDoubtAtStart {
  readonly inDoubt: InDoubtRecords
  readonly cursors: ReadonlyMap<string, Sequence>
  readonly carriedIn: ReadonlyMap<string, number>
}

/** @param nextSequence the sequence of the first record of this run */
export function inDoubtAtStart(
  spool: Spool,
  stored: FlowState | undefined,
  sources: readonly SourcePart[],
  sinks: readonly SinkPart[],
  nextSequence: Sequence,
): InDoubtAtStart {
  const resending = new Set(
    sources
      .filter(
        ({ source, position, commitOnceSpooled }) =>
          position === 'upstream' && !commitOnceSpooled && source.covers !== undefined,
      )
      .map(({ id }) => id),
  )
  const cursors = new Map(
    sinks.map(({ id, sink }) => [
      id,
      stored?.sinks[id]?.cursor ?? (sink.limits.unit === 'segment' ? spool.firstFor(id) : spool.tail),
    ]),
  )
  const kept = stored?.held ?? []
  const known = Object.keys(stored?.sources ?? {}).filter((id) => spool.partitions(id).length > 0)
  const ours =
    known.length > 0 && [...known, ...kept.flatMap(({ until }) => Object.keys(until))].every((id) => resending.has(id))
  if (!ours) {
    // Their source is not there to send them again: they are delivered, and with them what was delivered since, a
    // second time.
    const low = Math.min(...kept.map(({ from }) => from))
    for (const [id, cursor] of cursors) cursors.set(id, Math.min(cursor, low))
    return {
      inDoubt: new InDoubtRecords(spool, []),
      cursors,
      carriedIn: new Map([...cursors].map(([id, cursor]) => [id, spool.countFrom(cursor)])),
    }
  }
  const ranges: Range[] = kept.map(({ from, to, counts, until }) => ({
    from,
    to,
    counts: { ...counts },
    until: new Map(Object.entries(until).map(([source, positions]) => [source, new Map(Object.entries(positions))])),
  }))
  const from = Math.min(...cursors.values())
  let resume = spool.countFrom(from) === 0
  if (!resume) {
    const until = new Map<string, Map<string, Position>>()
    for (const id of known) {
      const released = stored?.sources[id]?.released ?? {}
      const awaited = new Map(
        spool.partitions(id).flatMap((partition) => {
          const position = spool.position(id, partition)
          return position === undefined || position === released[partition] ? [] : [[partition, position] as const]
        }),
      )
      if (awaited.size > 0) until.set(id, awaited)
    }
    resume = until.size > 0
    if (resume)
      ranges.push({
        from,
        to: spool.head,
        counts: Object.fromEntries([...cursors].map(([id, cursor]) => [id, spool.countFrom(cursor)])),
        until,
      })
  }
  const inDoubt = new InDoubtRecords(spool, ranges)
  if (resume) for (const { id } of sinks) cursors.set(id, Math.max(nextSequence, spool.head))
  return {
    inDoubt,
    cursors,
    carriedIn: new Map([...cursors].map(([id, cursor]) => [id, spool.countFrom(cursor) + inDoubt.of(id)])),
  }
}
