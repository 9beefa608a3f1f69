/**
 * Keeps how far each partition has been delivered to a sink, for sources whose position lives here: from there on it is
 * read again if the disk has lost it. Only differences from the newest positions are stored, and a sink that has caught
 * up has none.
 */
import type { Position } from '../contract'
import type { Ahead, Behind, FlowState } from '../flow/flow-state'
import { isReread, isAtEnd, sourceOf } from '../recovery/reread-plan'
import type { PartitionPosition, Sequence, Spool } from '../flow/ports'

type Positions = ReadonlyMap<string, Position>

export class DeliveredPositions {
  /** It is undefined if it is not known. */
  places: Map<string, Map<string, Position>> | undefined
  /** So many records one partition is further than its position. */
  ahead: Ahead | undefined

  constructor(stored: FlowState | undefined, spool: Spool, sink: string, cursor: Sequence) {
    if (stored === undefined) {
      this.places = spool.countFrom(0) === 0 && spool.head === 0 ? new Map() : undefined
      return
    }
    const behind = stored.sinks[sink]?.behind
    if (behind === undefined || stored.sinks[sink]?.cursor !== cursor) return
    this.ahead = stored.sinks[sink].ahead
    this.places = new Map(
      Object.entries(stored.sources).map(([source, { positions }]) => {
        const all = new Map(Object.entries(positions))
        for (const [partition, position] of Object.entries(behind[source] ?? {})) {
          if (position === null) all.delete(partition)
          else all.set(partition, position)
        }
        return [source, all]
      }),
    )
  }

  /** Counts so many records more of a frame, but not all of it. */
  within(place: PartitionPosition | undefined, records: number): void {
    if (place === undefined || isReread(place.source)) return
    const { source, partition } = place
    this.ahead = { source, partition, count: records + (this.ahead?.count ?? 0) }
  }

  /** Everything up to these positions is delivered. It is undefined if nobody knows where some of it was. */
  moved(places: readonly PartitionPosition[] | undefined): void {
    this.ahead = undefined
    if (places === undefined) this.places = undefined
    for (const { source: key, partition, last } of places ?? []) {
      // Records that fill a hole lie before those that came behind it.
      if (isReread(key) && !isAtEnd(key)) continue
      const source = sourceOf(key)
      const positions = this.places?.get(source) ?? new Map<string, Position>()
      positions.set(partition, last)
      this.places?.set(source, positions)
    }
  }

  /** @param newest of each source @param caughtUp nothing in the spool is left to be delivered */
  state(
    newest: ReadonlyMap<string, Positions>,
    caughtUp: boolean,
  ): { readonly behind?: Behind; readonly ahead?: Ahead } {
    if (caughtUp) this.places = new Map([...newest].map(([source, positions]) => [source, new Map(positions)]))
    const { places } = this
    if (places === undefined) return {}
    const differing = [...newest].map(([source, positions]) => {
      const here = places.get(source)
      return [
        source,
        [...positions].flatMap(([partition, position]) =>
          here?.get(partition) === position ? [] : [[partition, here?.get(partition) ?? null] as const],
        ),
      ] as const
    })
    const behind = Object.fromEntries(
      differing
        .filter(([, positions]) => positions.length > 0)
        .map(([source, positions]) => [source, Object.fromEntries(positions)]),
    )
    return { behind, ...(this.ahead === undefined ? {} : { ahead: this.ahead }) }
  }
}
