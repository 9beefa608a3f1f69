import type { Delivery, Log } from '../../core/contract'
import { displayName } from '../../kit/file-names'
import type { Framing } from '../../options/shared'
import { findMatching, findRotated, isRotationOf, type Candidate, type CompressionChoice } from './candidates'
import { bindByContent, bindByInode, unbound, type Bindings, type KnownFile } from './identity'
import type { FilePosition } from './position'
import { Tail } from './tail'

/** Rotated names are searched for at most this many missing files, the newest ones. */
const MAX_MISSING = 1000

export interface FileSetFacts {
  readonly pattern: string
  readonly compression: CompressionChoice
  readonly framing: Framing
  readonly maxRecord: number
  readonly follow: boolean
  readonly start: 'oldest' | number
  readonly epoch: number
  readonly log: Log
  /** Returns the date. */
  now(): number
  monotonic(): number
}

/**
 * Knows which files are being read. Each scan of the disk finds out which of them still exist, under which names, and
 * which files are new.
 *
 * The name of a partition is free again once its file is fully read and matches no pattern. So a file that is rotated
 * every night for years needs two names.
 */
export class FileSet {
  /** The files in the order of reading. */
  tails: Tail[] = []
  /** These start positions are stored before anything is read. */
  readonly startDeliveries: Delivery[] = []
  /** The states of files by key, when they were last recognised or fully read. */
  private readonly recognised = new Map<string, string>()
  private readonly fullyRead = new Map<string, number>()
  private isFirstScan = true

  /** @param known the positions by partition: those stored, and those returned since */
  constructor(
    private readonly facts: FileSetFacts,
    readonly known: Map<string, FilePosition>,
  ) {}

  async scan(): Promise<void> {
    const { pattern, compression, start } = this.facts
    const matched = await findMatching(pattern, compression)
    const known = [...this.known].map(([name, position]): KnownFile => ({ name, position }))
    const bound: Bindings = new Map()
    await bindByInode(bound, known, matched, this.isTrusted)
    const missing = unbound(known, bound)
      .sort((a, b) => b.position.since - a.position.since)
      .slice(0, MAX_MISSING)
    const there = new Set(matched.map(({ key }) => key))
    const astray = [
      ...missing.map(({ position }) => position.path),
      ...this.tails.filter(({ key }) => !there.has(key)).map(({ origin }) => origin),
    ]
    const rotated = await findRotated(astray, compression, there)
    await bindByInode(bound, missing, rotated, this.isTrusted)
    const candidates = [...rotated, ...matched]
    // A file that is open and has no position yet is no new file.
    const young = new Set(this.tails.filter((tail) => !this.known.has(tail.partition.name)).map(({ key }) => key))
    await bindByContent(
      bound,
      missing,
      candidates.filter(({ key }) => !young.has(key)),
    )
    for (const [candidate, one] of bound) this.recognised.set(candidate.key, stateOf(candidate, one.name))

    for (const tail of [...this.tails])
      await this.updateTail(
        tail,
        candidates.find(({ key }) => key === tail.key),
        bound,
      )
    const fresh = this.isFirstScan && known.length === 0 && start !== 'oldest'
    const occupied = this.occupied(bound)
    for (const [candidate, one] of bound)
      if (!candidate.matched && !this.isFullyRead(candidate, one.position))
        this.startTail(candidate, one.position.path, one, occupied)
    for (const { candidate, origin } of this.missedFiles(rotated, bound))
      this.startTail(candidate, origin, undefined, occupied)
    for (const candidate of matched) {
      const one = bound.get(candidate)
      if (!this.facts.follow && one !== undefined && this.isFullyRead(candidate, one.position)) continue
      const tail = this.startTail(candidate, one?.position.path ?? candidate.path, one, occupied)
      if (fresh && tail !== undefined && candidate.kind === 'file')
        this.startDeliveries.push(await tail.startAtLast(start))
    }
    this.isFirstScan = false
  }

  /** Drops a file that is finished or cannot be read any further. */
  async drop(tail: Tail): Promise<void> {
    this.tails = this.tails.filter((other) => other !== tail)
    this.fullyRead.set(tail.key, tail.candidate.size)
    // Other files may wait for this one.
    tail.mayHaveData = false
    await tail.close()
  }

  async close(): Promise<void> {
    for (const tail of this.tails) await tail.close()
    this.tails = []
  }

  private readonly isTrusted = async ({ name }: KnownFile, candidate: Candidate): Promise<boolean> => {
    if (this.recognised.get(candidate.key) === stateOf(candidate, name)) return true
    const tail = this.tails.find(({ key }) => key === candidate.key)
    return (
      tail !== undefined &&
      tail.partition.name === name &&
      tail.isOpen &&
      candidate.compression === 'none' &&
      !(await tail.isTruncated())
    )
  }

  /** Updates a file that is being read with the result of a scan. */
  private async updateTail(tail: Tail, found: Candidate | undefined, bound: Bindings): Promise<void> {
    if (tail.candidate.kind === 'stream') return
    const name = tail.partition.name
    if (found !== undefined && this.known.has(name) && bound.get(found)?.name !== name) {
      this.facts.log.info(`${displayName(found.path)} was truncated or written anew: it is read from its beginning`)
      await this.drop(tail)
      return
    }
    const leaves = found?.matched !== true
    if (leaves && tail.unmatchedSince === undefined) tail.mayHaveData = true
    tail.unmatchedSince = leaves ? (tail.unmatchedSince ?? this.facts.monotonic()) : undefined
    if (found === undefined) return
    if (found.size !== tail.candidate.size || found.modified !== tail.candidate.modified) {
      // Reading cannot go on at the end of compressed data, so the file is read again.
      if (found.compression !== 'none') await tail.suspend()
      tail.mayHaveData = true
    }
    tail.candidate = found
  }

  /** Returns the keys of files that are being read, the used names of partitions, and the last file of each path. */
  private occupied(bound: Bindings): Occupied {
    const names = new Set(this.tails.map((tail) => tail.partition.name))
    for (const [file, { name, position }] of bound)
      if (file.matched || !this.isFullyRead(file, position)) names.add(name)
    return {
      keys: new Set(this.tails.map(({ key }) => key)),
      names,
      last: new Map(this.tails.map((tail) => [tail.origin, tail])),
    }
  }

  /** @param origin the path of the file before any rotation */
  private startTail(
    candidate: Candidate,
    origin: string,
    one: KnownFile | undefined,
    { keys, names, last }: Occupied,
  ): Tail | undefined {
    if (keys.has(candidate.key)) return undefined
    const { framing, maxRecord, follow, epoch } = this.facts
    const shown = displayName(origin)
    let name = one?.name ?? shown
    if (one === undefined) {
      for (let number = 2; names.has(name); number++) name = `${shown}#${number}`
      this.known.delete(name)
    }
    const after = last.get(origin)
    const tail = new Tail({
      partition: { name, epoch },
      origin,
      candidate,
      since: one?.position.since ?? this.sinceOf(origin),
      framing,
      maxRecord,
      follow,
      ...(one === undefined ? {} : { known: one.position }),
      ...(after === undefined ? {} : { predecessor: after }),
    })
    if (!candidate.matched) tail.unmatchedSince = this.facts.monotonic()
    this.tails.push(tail)
    keys.add(candidate.key)
    names.add(name)
    last.set(origin, tail)
    return tail
  }

  /**
   * Returns a time after all known ones of the path, even if the clock was set back, because it decides the order of
   * files with one name.
   */
  private sinceOf(path: string): number {
    const there = [...this.tails.map(({ origin, since }) => ({ path: origin, since })), ...this.known.values()].filter(
      (one) => one.path === path,
    )
    return there.reduce((latest, { since }) => Math.max(latest, since + 1), this.facts.now())
  }

  private isFullyRead(candidate: Candidate, position: FilePosition): boolean {
    if (this.fullyRead.get(candidate.key) === candidate.size) return true
    return candidate.compression === 'none' ? candidate.size <= position.offset : candidate.size === position.whole
  }

  /**
   * Returns files that had a path between two scans. In the order of rotation they lie between the newest known file of
   * the path and the present one. If the newest known file is still at its path, there are none. Files older than it
   * were read, or existed before the flow began.
   */
  private missedFiles(
    rotated: readonly Candidate[],
    bound: Bindings,
  ): { readonly candidate: Candidate; readonly origin: string }[] {
    const newest = new Map<string, { readonly name: string; readonly since: number }>()
    const seen = [
      ...this.tails.map((tail) => ({ name: tail.partition.name, path: tail.origin, since: tail.since })),
      ...[...this.known].map(([name, { path, since }]) => ({ name, path, since })),
    ]
    for (const one of seen) if ((newest.get(one.path)?.since ?? -1) < one.since) newest.set(one.path, one)
    const gone = [...bound].filter(([file, one]) => !file.matched && newest.get(one.position.path)?.name === one.name)
    if (gone.length === 0) return []
    // The order is that of their last writes. Of two with the same time, the higher number is the older file.
    return rotated
      .filter((candidate) => !bound.has(candidate))
      .sort((a, b) => a.modified - b.modified || (a.path < b.path ? 1 : -1))
      .flatMap((candidate) => {
        const from = gone.find(
          ([file, one]) => isRotationOf(candidate.path, one.position.path) && isNewer(candidate, file),
        )
        return from === undefined ? [] : [{ candidate, origin: from[1].position.path }]
      })
  }
}

interface Occupied {
  readonly keys: Set<string>
  readonly names: Set<string>
  readonly last: Map<string, Tail>
}

function isNewer(one: Candidate, other: Candidate): boolean {
  return one.modified > other.modified || (one.modified === other.modified && Number(one.born) >= Number(other.born))
}
function stateOf({ size, modified }: Candidate, name: string): string {
  return `${size} ${modified} ${name}`
}
