/**
 * What tells one file from another, whatever their names: inode, birth time, and hashes of its first 4 KiB and of the 4
 * KiB before the offset. Inode and birth time alone do not: inodes are used again, and a file truncated in place keeps
 * both.
 */
import { createHash } from 'node:crypto'

/** Bytes that are hashed at the beginning and before the offset. */
export const FINGERPRINT_BYTES = 4096

export interface FilePosition {
  /** Under which the pattern found it first. */
  readonly path: string
  readonly inode: string
  /** Birth time in milliseconds; 0 where the file system has none. */
  readonly born: string
  /** Bytes read, uncompressed. */
  readonly offset: number
  /**
   * Epoch milliseconds at which reading of this file began: of several files that were one path's, the last one is the
   * newest.
   */
  readonly since: number
  /** `LENGTH:SHA256` of the first bytes, and of those before the offset where they are others. */
  readonly head?: string
  readonly before?: string
  /**
   * Of a compressed file that was read to its end: its compressed bytes. While it has no more, it need not be
   * decompressed to see that nothing is new.
   */
  readonly whole?: number
}

export function encodePosition(position: FilePosition): string {
  return JSON.stringify(position)
}

/** undefined: it is none of ours. */
export function decodePosition(text: string): FilePosition | undefined {
  try {
    const parsed = JSON.parse(text) as Partial<FilePosition>
    const sound =
      typeof parsed.path === 'string' &&
      typeof parsed.inode === 'string' &&
      typeof parsed.born === 'string' &&
      Number.isSafeInteger(parsed.offset) &&
      typeof parsed.since === 'number'
    return sound ? (parsed as FilePosition) : undefined
  } catch {
    return undefined
  }
}

export function fingerprintOf(bytes: Uint8Array): string {
  return `${bytes.length}:${createHash('sha256').update(bytes).digest('base64url')}`
}
export function fingerprintLength(print: string): number {
  return Number.parseInt(print, 10)
}
