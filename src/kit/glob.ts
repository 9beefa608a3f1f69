/**
 * Finds the files that match a pattern, also those whose names are not UTF-8. Hidden names match only a segment that
 * begins with a dot.
 */
import type { Dirent } from 'node:fs'
import * as fs from 'node:fs/promises'
import { nameOf, pathOf } from './file-names'
import { ANY_DEPTH, parsePattern, type PathPart } from './glob-pattern'

/**
 * Returns the files in no order.
 * @param visited is called with each folder that is listed
 */
export async function glob(
  pattern: string,
  visited: (folder: string) => void = () => undefined,
): Promise<ReadonlySet<string>> {
  const found = new Set<string>()
  for (const segments of parsePattern(pattern)) {
    const absolute = segments[0] === ''
    await walk(absolute ? '/' : '', absolute ? segments.slice(1) : segments, found, visited)
  }
  return found
}

async function walk(
  folder: string,
  [segment, ...rest]: readonly PathPart[],
  found: Set<string>,
  visited: (folder: string) => void,
): Promise<void> {
  if (segment === undefined) return
  const on = async (name: string): Promise<void> => {
    if (rest.length > 0) await walk(under(folder, name), rest, found, visited)
    else found.add(under(folder, name))
  }
  if (typeof segment === 'string') {
    if (rest.length > 0 || (await exists(under(folder, segment)))) await on(segment)
    return
  }
  visited(folder === '' ? '.' : folder)
  if (segment === ANY_DEPTH && rest.length > 0) await walk(folder, rest, found, visited)
  for (const entry of await entriesOf(folder)) {
    const name = nameOf(entry.name)
    if (segment !== ANY_DEPTH) {
      if (segment.test(name) && (rest.length === 0 || entry.isDirectory() || entry.isSymbolicLink())) await on(name)
    } else if (!name.startsWith('.')) {
      if (rest.length === 0) found.add(under(folder, name))
      // Links are not followed, because they may form a circle.
      if (entry.isDirectory()) await walk(under(folder, name), [ANY_DEPTH, ...rest], found, visited)
    }
  }
}

function under(folder: string, name: string): string {
  return folder === '' || folder.endsWith('/') ? folder + name : `${folder}/${name}`
}

async function exists(name: string): Promise<boolean> {
  return fs.lstat(pathOf(name)).then(
    () => true,
    () => false,
  )
}

async function entriesOf(folder: string): Promise<readonly Dirent<Buffer>[]> {
  return fs
    .readdir(folder === '' ? '.' : pathOf(folder), { withFileTypes: true, encoding: 'buffer' })
    .catch((error: unknown) => {
      if (['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'ELOOP'].includes((error as NodeJS.ErrnoException).code ?? ''))
        return []
      throw error
    })
}
