/** Lists the files that match a pattern, and those that rotation has renamed. */
import * as fs from 'node:fs/promises'
import * as path from 'node:path'
import { compressionOf } from '../../codec/compression'
import type { Compression } from '../../core/contract'
import { Refused } from '../../core/errors'
import { nameOf, pathOf, displayName } from '../../kit/file-names'
import { glob } from '../../kit/glob'
import { isGlob } from '../../kit/glob-pattern'

export interface Candidate {
  /** The absolute path. `file-names.ts` says how it contains bytes that are not UTF-8. */
  readonly path: string
  /** The pattern itself matches, and not only the original name of a rotated file. */
  readonly matched: boolean
  /** The key identifies the file under any name. */
  readonly key: string
  readonly inode: string
  readonly born: string
  readonly size: number
  /** Milliseconds since the epoch. */
  readonly modified: number
  /** Pipes, sockets and devices are streams, which are read like stdin. */
  readonly kind: 'file' | 'stream'
  readonly compression: Compression
}
export type CompressionChoice = Compression | 'auto'

/**
 * Returns the matching files in the order of their names, each file once.
 * @throws Refused if the path is a directory
 */
export async function findMatching(pattern: string, choice: CompressionChoice): Promise<readonly Candidate[]> {
  const found = new Map<string, Candidate>()
  for (const name of await matching(pattern)) {
    const candidate = await candidateOf(path.resolve(name), true, choice)
    if (candidate !== undefined && !found.has(candidate.key)) found.set(candidate.key, candidate)
  }
  return [...found.values()]
}

/** Returns the files with names that rotation gives to files of these paths. */
export async function findRotated(
  originals: Iterable<string>,
  choice: CompressionChoice,
  except: ReadonlySet<string>,
): Promise<readonly Candidate[]> {
  const found = new Map<string, Candidate>()
  const listings = new Map<string, readonly string[]>()
  for (const original of new Set(originals)) {
    const folder = path.dirname(original)
    const names = listings.get(folder) ?? (await namesIn(folder))
    listings.set(folder, names)
    const stem = path.parse(original).name
    const rotated = rotationOf(path.basename(original))
    for (const name of names) {
      if (!name.startsWith(stem) || !rotated.test(name)) continue
      const candidate = await candidateOf(path.join(folder, name), false, choice)
      if (candidate?.kind === 'file' && !except.has(candidate.key)) found.set(candidate.key, candidate)
    }
  }
  return [...found.values()]
}

/** A path that exists is no pattern, whatever characters it contains. */
async function matching(pattern: string): Promise<readonly string[]> {
  const facts = await fs.stat(pattern).catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EACCES' || code === 'ELOOP' || code === 'ENAMETOOLONG')
      throw new Refused(`${pattern} cannot be looked at (${code})`, { cause: error })
    return undefined
  })
  if (facts?.isDirectory() === true)
    throw new Refused(`${pattern} is a directory: name the files in it, such as '${path.join(pattern, '*')}'`)
  if (facts !== undefined) return [pattern]
  return [...(await glob(pattern))].sort()
}

/** Returns the folders of a glob that may not be read, because the search skips them silently. */
export async function unreadableFolders(pattern: string): Promise<readonly string[]> {
  if (!isGlob(pattern)) return []
  const folders = new Set<string>()
  // Only the visited folders count here.
  await glob(pattern, (folder) => {
    folders.add(path.resolve(folder))
  })
  const closed: string[] = []
  for (const folder of [...folders].sort()) {
    // Listing and entering need different permissions. access(2) would check the real user instead of the effective
    // one.
    const open = await Promise.all([
      fs.opendir(pathOf(folder) as string).then((listing) => listing.close()),
      fs.stat(pathOf(`${folder}/.`)),
    ]).then(
      () => true,
      (error: unknown) => (error as NodeJS.ErrnoException).code !== 'EACCES',
    )
    if (!open) closed.push(displayName(folder))
  }
  return closed
}

/**
 * Returns the names in a folder, or nothing if it is gone or may not be listed. A file in it can still be read by its
 * own name.
 */
async function namesIn(folder: string): Promise<readonly string[]> {
  return fs.readdir(pathOf(folder), { encoding: 'buffer' }).then(
    (names) => names.map(nameOf),
    (error: unknown) => {
      if (['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return []
      throw error
    },
  )
}

/**
 * Returns undefined if the file is gone, a broken link or a directory.
 * @throws Refused if permission is denied
 */
async function candidateOf(file: string, matched: boolean, choice: CompressionChoice): Promise<Candidate | undefined> {
  const facts = await fs.stat(pathOf(file), { bigint: true }).catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP') return undefined
    throw code === 'EACCES'
      ? new Refused(`${displayName(file)} may not be looked at: permission denied`, { cause: error })
      : error
  })
  if (facts === undefined || facts.isDirectory()) return undefined
  return {
    path: file,
    matched,
    key: `${facts.dev}:${facts.ino}`,
    inode: String(facts.ino),
    born: String(facts.birthtimeMs),
    size: Number(facts.size),
    modified: Number(facts.mtimeMs),
    kind: facts.isFile() ? 'file' : 'stream',
    compression: choice === 'auto' ? compressionOf(file) : choice,
  }
}

export function isRotationOf(name: string, original: string): boolean {
  return path.dirname(name) === path.dirname(original) && rotationOf(path.basename(original)).test(path.basename(name))
}

/**
 * Matches names that rotation gives: app.log.1, app.log-20260131, app-20260131.log, app.log.old, and these with .gz or
 * .zst.
 */
function rotationOf(base: string): RegExp {
  const extension = path.extname(base)
  const stem = escapeRegExp(base.slice(0, base.length - extension.length))
  const stamp = String.raw`[-._]\d[\d._T:-]*`
  return new RegExp(
    `^(?:${escapeRegExp(base)}(?:${stamp}|[-._](?:old|bak|prev))|${stem}${stamp}${escapeRegExp(extension)})(?:\\.gz|\\.zst)?$`,
  )
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
}
