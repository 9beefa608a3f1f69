/**
 * Reads again what was read of a file before, for records that were lost downstream. The content is compared, so that
 * it is the same file.
 */
import type { Delivery, Position } from '../../core/contract'
import { only, within } from '../../core/batch'
import { Fatal } from '../../core/errors'
import type { Framing } from '../../options/shared'
import { findMatching, findRotated, type Candidate, type CompressionChoice } from './candidates'
import { ContentChanged } from './decompressor'
import { bindByContent, bindByInode, type Bindings } from './identity'
import { decodePosition, type FilePosition } from './position'
import { startOf } from './start'
import { FileTruncated, FileMoved, Tail } from './tail'

export interface RereadFacts {
  readonly pattern: string
  readonly compression: CompressionChoice
  readonly framing: Framing
  readonly maxRecord: number
  readonly start: string
}

export async function* reread(
  facts: RereadFacts,
  name: string,
  from: Position | undefined,
  to: Position,
  signal: AbortSignal,
): AsyncGenerator<Delivery, void, undefined> {
  const end = decodePosition(to)
  if (end === undefined) throw new Fatal(`the stored position of ${name} cannot be understood`)
  const candidate = await fileOf(facts, name, end)
  if (candidate === undefined) throw new Fatal(`${end.path} is not there any more, or is not what was read before`)
  const begin = from === undefined ? undefined : decodePosition(from)
  if (begin === undefined && startOf(facts.start) !== 'oldest')
    throw new Fatal(`where reading of ${end.path} began is not known any more`)
  const { path, inode, born, since } = end
  // The earlier position belongs to another file of that name, so this file is read from its beginning.
  const known = begin?.since === since ? begin : { path, inode, born, since, offset: 0 }
  const { framing, maxRecord } = facts
  const tail = new Tail({
    partition: { name, epoch: 0 },
    origin: path,
    candidate,
    known,
    since,
    framing,
    maxRecord,
    follow: false,
  })
  try {
    while (tail.offset < end.offset) {
      const more = await tail.wait(signal)
      const delivery = await tail.take(!more)
      if (delivery !== undefined && delivery.batch.count > 0) yield upTo(delivery, end.offset)
      else if (!more && delivery === undefined) throw new Fatal(`${candidate.path} ends before what was read of it`)
    }
  } catch (error) {
    throw error instanceof FileTruncated || error instanceof FileMoved || error instanceof ContentChanged
      ? new Fatal(`${candidate.path} is not what was read before`, { cause: error })
      : error
  } finally {
    await tail.close()
  }
}

/** Finds the file in the same way as the source recognises files. */
async function fileOf(
  { pattern, compression }: RereadFacts,
  name: string,
  position: FilePosition,
): Promise<Candidate | undefined> {
  const known = [{ name, position }]
  const bound: Bindings = new Map()
  const unknown = (): Promise<boolean> => Promise.resolve(false)
  const matched = await findMatching(pattern, compression)
  await bindByInode(bound, known, matched, unknown)
  const rotated = await findRotated([position.path], compression, new Set(matched.map(({ key }) => key)))
  await bindByInode(bound, known, rotated, unknown)
  await bindByContent(bound, known, [...rotated, ...matched])
  return [...bound.keys()][0]
}

function upTo(delivery: Delivery, offset: number): Delivery {
  const reaches = (position: Position): boolean => (decodePosition(position)?.offset ?? 0) > offset
  if (!reaches(delivery.last)) return delivery
  let low = 0
  for (let high = delivery.batch.count; low < high; ) {
    const middle = (low + high) >> 1
    if (reaches(delivery.at(middle))) high = middle
    else low = middle + 1
  }
  const { invalid: _invalid, ...rest } = delivery
  const count = low
  return {
    ...rest,
    batch: only(
      delivery.batch,
      Array.from({ length: count }, (_, index) => index),
    ),
    last: count > 0 ? delivery.at(count - 1) : delivery.last,
    at: within(count, (index) => delivery.at(index)),
  }
}
