/** Tells which files a line reads or writes, as far as that is known before any is opened. */
import { realpathSync, statSync } from 'node:fs'
import * as path from 'node:path'
import { isGlob, matcherOf, unescaped } from '../../kit/glob-pattern'
import type { Files, Given, Role } from '../../options/define'
import { findMatching } from './candidates'
import type { options } from './options'
import { hasTimes, pathAt, rotatedPath } from './template'

export function filesOf(given: Given<typeof options>, role: Role): Promise<Files> {
  return role === 'source' ? read(given) : Promise.resolve(written(given))
}

async function read({ uri }: Given<typeof options>): Promise<Files> {
  // If a file may not be accessed, the opening reports it.
  const found = await findMatching(uri.path, 'none').catch(() => [])
  const matches = isGlob(uri.path) ? matcherOf(realPattern(uri.path)) : undefined
  const plain = real(path.resolve(uri.path))
  return {
    keys: found.filter(({ kind }) => kind === 'file').map(({ key }) => key),
    paths: [],
    matches: (file) => file === plain || matches?.(file) === true,
  }
}

function written({ uri, options: { rotateSize, rotateEvery } }: Given<typeof options>): Files {
  const now = Date.now()
  const file = real(path.resolve(hasTimes(uri.path) ? pathAt(uri.path, now) : uri.path))
  const facts = statSync(file, { throwIfNoEntry: false, bigint: true })
  const isStream = facts?.isFile() === false
  return {
    keys: facts?.isFile() === true ? [`${facts.dev}:${facts.ino}`] : [],
    paths: isStream ? [] : [file, ...(rotateSize > 0 || rotateEvery > 0 ? [rotatedPath(file, now, 0)] : [])],
  }
}

/** Resolves links among the folders that a pattern names literally. */
function realPattern(pattern: string): string {
  let folder = path.resolve(pattern)
  while (isGlob(folder)) folder = path.dirname(folder)
  return path.join(
    real(unescaped(folder)).replace(/[\\*?[\]{}]/g, '\\$&'),
    path.relative(folder, path.resolve(pattern)),
  )
}

/** Resolves links in a path. If the file does not exist, those of its folder are resolved. */
function real(name: string): string {
  try {
    return realpathSync(name)
  } catch {
    return path.dirname(name) === name ? name : path.join(real(path.dirname(name)), path.basename(name))
  }
}
