/** Makes the file of the segment that is being written, and seals it. */
import { createHash, type Hash } from 'node:crypto'
import type { File } from '../kit/file-system'
import { DATA_AT, encodeHeader, SEAL_BYTES } from './format'
import type { AppendItem } from './append-items'
import { makeSeal, SegmentCounts, writeSeal, type SegmentFile, type SpoolContext } from './segment'

export interface Open extends SegmentFile {
  /** undefined: an fdatasync failed on it, or a write for another reason than space. It is never used again. */
  file: File | undefined
  /** Nothing of it is durable yet. */
  fresh: boolean
  /** Header page and empty seal block, written with the first group. */
  readonly blocks: readonly Buffer[]
  readonly counts: SegmentCounts
  /** Of the object bytes that are durable. */
  hash: Hash | undefined
  objectLength: number
  period: string | undefined
  /** Durable frames without records (gaps, progress): where no record follows they move on to the next segment. */
  recordless: AppendItem[]
  age: AbortController | undefined
}

/**
 * @param others files of this spool, some of which may begin with the same sequence: told apart by a number that grows,
 *   and the later one holds what counts
 */
export async function createSegment(
  context: SpoolContext,
  first: number,
  others: readonly { readonly path: string }[],
): Promise<Open> {
  const { fs, directory, policies, id, clock } = context
  const name = `${directory}/${String(first).padStart(16, '0')}`
  const copies = others
    .filter(({ path }) => path.startsWith(name))
    .map(({ path }) => Number(/-(\d+)\.seg$/.exec(path)?.[1] ?? 0) + 1)
  for (let copy = Math.max(0, ...copies); ; copy++) {
    const path = `${name}${copy === 0 ? '' : `-${copy}`}.seg`
    try {
      const file = await fs.open(path, 'create')
      return {
        path,
        first,
        next: first,
        count: 0,
        end: DATA_AT,
        sealed: false,
        verified: true,
        holes: [],
        file,
        fresh: true,
        counts: new SegmentCounts(first),
        objectLength: 0,
        blocks: [
          encodeHeader({
            id,
            first,
            createdAt: clock.now(),
            targets: Object.fromEntries(policies.map(({ sink, policy }) => [sink, policy.target])),
          }),
          Buffer.alloc(SEAL_BYTES),
        ],
        hash: policies.length === 0 ? undefined : createHash('sha256'),
        period: undefined,
        recordless: [],
        age: undefined,
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
  }
}

/** Resolves when the seal is durable. On a descriptor of its own where the one it was written through has failed. */
export async function sealFile(context: SpoolContext, segment: Open): Promise<void> {
  if (segment.file === undefined) {
    segment.file = await context.fs.open(segment.path, 'update')
    // For the looks of it: the seal says where the records end, and nobody reads beyond.
    await segment.file.truncate(segment.end).catch(() => undefined)
  }
  const object =
    segment.hash === undefined
      ? { sha256: '', length: 0 }
      : { sha256: segment.hash.copy().digest('hex'), length: segment.objectLength }
  await writeSeal(context, segment.file, makeSeal(context, segment, segment.counts, object))
}
