/**
 * Which leases there are to be, for the shards that are listed: as the Kinesis Client Library 2.x makes and removes
 * them (HierarchicalShardSyncer, LeaseCleanupManager). Pure.
 *
 * - A shard without relatives in the table gets one that begins at `start`; its descendants get theirs, from their
 *   oldest record on, as its end is reached.
 * - A shard is processed when its lease is at SHARD_END, or has been removed: then one of a descendant is there. That
 *   comes before its children.
 * - A finished lease is removed when its own parents' are gone and all its children have begun, so that the table says
 *   at any time where things stand.
 */
import type { LeaseRow } from './table'
import { compareSequences } from '../position'
import type { Checkpoint, Shard } from '../stream-client'

export interface MissingLease {
  readonly shard: Shard
  readonly checkpoint: Checkpoint
}

export class Lineage {
  private readonly rows: Map<string, LeaseRow>
  private readonly listed: ReadonlyMap<string, Shard>
  private readonly newest: string
  private readonly surpassedShards = new Map<string, boolean>()
  private readonly descendingShards = new Map<string, boolean>()
  private readonly children: ReadonlyMap<string, readonly Shard[]>

  constructor(
    private readonly shards: readonly Shard[],
    rows: readonly LeaseRow[],
    private readonly start: (shard: string) => Checkpoint,
  ) {
    this.rows = new Map(rows.map((row) => [row.key, row]))
    this.listed = new Map(shards.map((shard) => [shard.id, shard]))
    this.newest = shards.reduce((newest, { id }) => (id > newest ? id : newest), '')
    const children = new Map<string, Shard[]>()
    for (const shard of shards)
      for (const parent of shard.parents) children.set(parent, [...(children.get(parent) ?? []), shard])
    this.children = children
  }

  /** Returns the leases that are missing, parents before children. */
  missing(): readonly MissingLease[] {
    const missing: MissingLease[] = []
    const descendants = new Set<string>()
    for (const shard of [...this.shards].sort(
      (a, b) => compareSequences(a.startingSequence, b.startingSequence) || (a.id < b.id ? -1 : 1),
    )) {
      const { id, parents } = shard
      const descends = parents.some((parent) => this.rows.has(parent) || descendants.has(parent))
      if (descends) descendants.add(id)
      if (this.rows.has(id) || this.isSurpassed(id)) continue
      const first = this.beginning(shard)
      if (!descends && first.kind === 'end') continue
      descendants.add(id)
      if (!descends) missing.push({ shard, checkpoint: first })
      else if (
        parents.some((parent) => this.isProcessed(parent)) &&
        parents.every((parent) => this.rows.has(parent) || this.isProcessed(parent))
      )
        missing.push({ shard, checkpoint: { kind: 'oldest' } })
    }
    return missing
  }

  /** All that comes before it is processed; it is listed, or has been. */
  mayBegin(row: LeaseRow): boolean {
    if (this.isUnheardOf(row.key)) return false
    return this.parentsOf(row).every((parent) => this.isProcessed(parent))
  }

  /** Not listed any more: nothing of it can be read. */
  isGone(key: string): boolean {
    return this.shards.length > 0 && !this.listed.has(key) && !this.isUnheardOf(key)
  }

  /** Its records were read, or are not to be. */
  isProcessed(key: string): boolean {
    const row = this.rows.get(key)
    if (row !== undefined) return row.checkpoint.kind === 'end'
    const shard = this.listed.get(key)
    if (shard === undefined) return !this.isUnheardOf(key)
    return this.isSurpassed(key) || (!this.descends(key) && this.beginning(shard).kind === 'end')
  }

  isRemovable(row: LeaseRow): boolean {
    if (
      row.checkpoint.kind !== 'end' ||
      this.isUnheardOf(row.key) ||
      this.parentsOf(row).some((parent) => this.rows.has(parent))
    )
      return false
    const children = this.children.get(row.key) ?? []
    if (children.length === 0) return !this.listed.has(row.key)
    return children.every(({ id }) => {
      const child = this.rows.get(id)
      return child === undefined
        ? this.isSurpassed(id)
        : child.checkpoint.kind === 'sequence' || child.checkpoint.kind === 'end'
    })
  }

  /** Ids grow: one that is newer than all that were listed was made since. */
  private isUnheardOf(key: string): boolean {
    return !this.listed.has(key) && key > this.newest
  }

  /** Nothing will come in a shard that is closed. */
  private beginning({ id, endingSequence }: Shard): Checkpoint {
    const start = this.start(id)
    return start.kind === 'latest' && endingSequence !== undefined ? { kind: 'end' } : start
  }

  private parentsOf(row: LeaseRow): readonly string[] {
    return [...new Set([...row.parents, ...(this.listed.get(row.key)?.parents ?? [])])]
  }

  /** A descendant has a lease: then it was processed itself, or left out. */
  private isSurpassed(id: string): boolean {
    const known = this.surpassedShards.get(id)
    if (known !== undefined) return known
    const is = (this.children.get(id) ?? []).some((child) => this.rows.has(child.id) || this.isSurpassed(child.id))
    this.surpassedShards.set(id, is)
    return is
  }

  private descends(id: string): boolean {
    const known = this.descendingShards.get(id)
    if (known !== undefined) return known
    const does = (this.listed.get(id)?.parents ?? []).some((parent) => this.rows.has(parent) || this.descends(parent))
    this.descendingShards.set(id, does)
    return does
  }
}
