/**
 * Defines the position in a file, which identifies the file under any name: inode, birth time, and hashes of the first
 * 4 KiB and of the 4 KiB before the offset. Inode and birth time alone do not suffice, because inodes are reused, and a
 * file that is truncated in place keeps both.
 */
import { createHash } from 'node:crypto'

/** This many bytes are hashed at the beginning and before the offset. */
export const FINGERPRINT_BYTES = 4096

export interface FilePosition {
  /** The path where the pattern first found the file. */
  readonly path: string
  readonly inode: string
  /** The birth time in milliseconds, or 0 if the file system has none. */
  readonly born: string
  /** The number of uncompressed bytes that were read. */
  readonly offset: number
  /** The time at which reading of this file began, in milliseconds since the epoch. It orders the files of one path. */
  readonly since: number
  /** `LENGTH:SHA256` of the first bytes, and of the bytes before the offset if they are others. */
  readonly head?: string
  readonly before?: string
  /**
   * The compressed size of a file that was read to its end. While it does not grow, the file need not be decompressed
   * to find that nothing is new.
   */
  readonly whole?: number
}

export function encodePosition(position: FilePosition): string {
  return JSON.stringify(position)
}

/** Returns undefined if the text is no position of this endpoint. */
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
