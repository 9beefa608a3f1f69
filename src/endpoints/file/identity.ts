/**
 * Finds out which file on disk is which file that was read before. Inode and birth time come first. Then rotated names
 * are compared by content, because a copy (copytruncate) or a compressed file has another inode. Content is always
 * checked, because an inode alone proves nothing.
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
 * Binds files with the same inode, birth time and content.
 * @param trusted tells that the content of a pair needs no check
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

/** Binds files with a rotated name and the same content: copies and files that were compressed since. */
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

/**
 * Returns the known files that are not bound. Of two with one inode, the one with the larger offset comes first,
 * because only that one can be right if both match.
 */
export function unbound(known: readonly KnownFile[], bound: Bindings): KnownFile[] {
  const taken = new Set([...bound.values()].map(({ name }) => name))
  return known.filter(({ name }) => !taken.has(name)).sort((a, b) => b.position.offset - a.position.offset)
}

function sameBirth(position: FilePosition, candidate: Candidate): boolean {
  return position.born === candidate.born || position.born === '0' || candidate.born === '0'
}

/**
 * Tells whether a file is long enough and its bytes are those that were read. Of a compressed file only the beginning
 * is checked here. The rest is checked when it is skipped.
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
    // The file is gone since it was listed. The next scan will notice.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  } finally {
    await file?.close()
  }
}

/** Returns the fingerprint of up to `length` bytes at a position. */
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
    // The limit covers two blocks of zstd, which are returned whole.
    for await (const part of new Decompressor(file, compression, 64 * FINGERPRINT_BYTES).chunks()) {
      parts.push(part)
      length += part.length
      if (length >= FINGERPRINT_BYTES) break
    }
  } catch (error) {
    // If the file is too short, damaged or gone, the bytes that were read decide. Any other error is thrown, because a
    // file that is taken for another one would be read twice.
    const { code, syscall } = error as NodeJS.ErrnoException
    if (syscall !== undefined && code !== 'ENOENT') throw error
  } finally {
    await file?.close()
  }
  return Buffer.concat(parts).subarray(0, FINGERPRINT_BYTES)
}
