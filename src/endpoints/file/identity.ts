/**
 * Which file on disk is which one that was read before: by inode and birth time first, then by what is in it among the
 * names that rotation gives, for a copy that was truncated at its origin or compressed is another inode. Content is
 * always looked at: an inode alone proves nothing.
 */
import * as fs from 'node:fs/promises'
import { pathOf } from '../../kit/file-names'
import { isRotationOf, type Candidate } from './candidates'
import { Decompressor } from './decompressor'
import { FINGERPRINT_BYTES, fingerprintLength, fingerprintOf, type FilePosition } from './position'

export interface KnownFile {
  readonly name: string
  readonly position: FilePosition
}

export type Bindings = Map<Candidate, KnownFile>

/**
 * Binds what has the same inode, birth time and content. @param trusted says that a pair needs no look at its content
 */
export async function bindByInode(
  bound: Bindings,
  known: readonly KnownFile[],
  candidates: readonly Candidate[],
  trusted: (known: KnownFile, candidate: Candidate) => Promise<boolean>,
): Promise<void> {
  const byInode = Map.groupBy(
    candidates.filter(({ kind }) => kind === 'file'),
    ({ inode }) => inode,
  )
  for (const one of unbound(known, bound)) {
    for (const candidate of byInode.get(one.position.inode) ?? []) {
      if (bound.has(candidate) || !sameBirth(one.position, candidate)) continue
      if ((await trusted(one, candidate)) || (await hasContentOf(candidate, one.position))) {
        bound.set(candidate, one)
        break
      }
    }
  }
}

/** Binds what lies under a rotated name and has the same content: copies, and what was compressed since. */
export async function bindByContent(
  bound: Bindings,
  known: readonly KnownFile[],
  candidates: readonly Candidate[],
): Promise<void> {
  const latest = candidates
    .filter((candidate) => candidate.kind === 'file' && !bound.has(candidate))
    .sort((a, b) => b.modified - a.modified)
  if (latest.length === 0) return
  for (const one of unbound(known, bound)) {
    if (one.position.offset === 0 || one.position.head === undefined) continue
    for (const candidate of latest) {
      if (
        !bound.has(candidate) &&
        isRotationOf(candidate.path, one.position.path) &&
        (await hasContentOf(candidate, one.position))
      ) {
        bound.set(candidate, one)
        break
      }
    }
  }
}

/** Of two that name one inode, the one that knows more about it is right, if it is right at all. */
export function unbound(known: readonly KnownFile[], bound: Bindings): KnownFile[] {
  const taken = new Set([...bound.values()].map(({ name }) => name))
  return known.filter(({ name }) => !taken.has(name)).sort((a, b) => b.position.offset - a.position.offset)
}

function sameBirth(position: FilePosition, candidate: Candidate): boolean {
  return position.born === candidate.born || position.born === '0' || candidate.born === '0'
}

/**
 * The file is long enough and its bytes are those that were read. Of a compressed one only the beginning is looked at:
 * the rest is, when it is skipped.
 */
async function hasContentOf(candidate: Candidate, { head, before, offset }: FilePosition): Promise<boolean> {
  if (candidate.compression !== 'none')
    return (
      head === undefined || fingerprintOf((await beginning(candidate)).subarray(0, fingerprintLength(head))) === head
    )
  if (candidate.size < offset) return false
  if (head === undefined && before === undefined) return true
  let file: fs.FileHandle | undefined
  try {
    file = await fs.open(pathOf(candidate.path), 'r')
    return (
      (head === undefined || (await fingerprintAt(file, 0, fingerprintLength(head))) === head) &&
      (before === undefined ||
        (await fingerprintAt(file, offset - fingerprintLength(before), fingerprintLength(before))) === before)
    )
  } catch (error) {
    // Gone since it was listed: the next look tells.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  } finally {
    await file?.close()
  }
}

/** Of `length` bytes at a position, or of as many as there are. */
export async function fingerprintAt(file: fs.FileHandle, position: number, length: number): Promise<string> {
  const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(length), 0, length, position)
  return fingerprintOf(buffer.subarray(0, bytesRead))
}

async function beginning({ path: name, compression }: Candidate): Promise<Buffer> {
  const parts: Buffer[] = []
  let length = 0
  let file: fs.FileHandle | undefined
  try {
    file = await fs.open(pathOf(name), 'r')
    // Two blocks of zstd, which are handed out whole.
    for await (const part of new Decompressor(file, compression, 64 * FINGERPRINT_BYTES).chunks()) {
      parts.push(part)
      length += part.length
      if (length >= FINGERPRINT_BYTES) break
    }
  } catch (error) {
    // Too short, damaged or gone: what was read of it decides. Where it cannot be read now, nothing does: taken for
    // another file, it would come twice.
    const { code, syscall } = error as NodeJS.ErrnoException
    if (syscall !== undefined && code !== 'ENOENT') throw error
  } finally {
    await file?.close()
  }
  return Buffer.concat(parts).subarray(0, FINGERPRINT_BYTES)
}
