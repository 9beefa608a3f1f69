/**
 * Keeps the folders of state: STATE/NAME/INSTANCE.
 *
 * STATE may be a link or belong to somebody else, and is resolved once. Below it everything is ours: directories are
 * 0700, files 0600, no symbolic link is followed or tolerated, and nothing there can be written by others. Names that
 * were created are durable before anything is stored under them.
 */
import { constants } from 'node:fs'
import type { Stats } from 'node:fs'
import * as fs from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { DiskFailed, isDiskError, isExhausted, lineOf, UsageError } from '../core/errors'
import { realFileSystem } from '../kit/file-system'
import { makeFolders } from '../kit/folders'

/**
 * Returns the absolute path of STATE: `--state`, the first of `$STATE_DIRECTORY` (systemd's), or the user's state
 * folder. It need not exist.
 */
export function stateRoot(
  given: string | undefined,
  env: Readonly<Record<string, string | undefined>> = process.env,
): string {
  if (given !== undefined && given !== '') return resolve(given)
  const systemd = env['STATE_DIRECTORY']?.split(':')[0]
  if (systemd !== undefined && isAbsolute(systemd)) return systemd
  // The XDG specification: a relative path is to be ignored.
  const xdg = env['XDG_STATE_HOME']
  return join(xdg !== undefined && isAbsolute(xdg) ? xdg : join(homeOf(env), '.local/state'), 'manifold')
}

function homeOf(env: Readonly<Record<string, string | undefined>>): string {
  const home = env['HOME']
  if (home !== undefined && isAbsolute(home)) return home
  try {
    return homedir()
  } catch (error) {
    throw new UsageError([
      `no home folder is known (HOME is not set and this user has no passwd entry: ${lineOf(error)}): name a folder for state with --state`,
    ])
  }
}

/**
 * Makes STATE if it is missing (0700), and returns it with its links resolved.
 * @throws UsageError if it cannot be made or used, or if everybody may rename what lies in it
 */
export async function openStateRoot(path: string): Promise<string> {
  try {
    const first = await makeFolders(path, 0o700)
    const real = await fs.realpath(path)
    if (first !== undefined)
      for (let made = real; made.length >= first.length && made !== dirname(made); made = dirname(made))
        await synced(dirname(made))
    const facts = await fs.stat(real)
    if (!facts.isDirectory())
      throw new UsageError([`the state folder ${path} is not a directory: name another with --state`])
    if ((facts.mode & constants.S_IWOTH) !== 0 && (facts.mode & 0o1000) === 0)
      throw new UsageError([
        `everybody may rename what lies in the state folder ${path}: chmod o-w it, or name another with --state`,
      ])
    return real
  } catch (error) {
    throw usageOf(error, path, 'state folder')
  }
}

/**
 * A folder that may be entered and not read cannot be opened to be synced; its file system syncs it in its own time.
 */
async function synced(folder: string): Promise<void> {
  await realFileSystem.syncDirectory(folder).catch((error: unknown) => {
    if (!['EACCES', 'EPERM'].includes(codeOf(error) ?? '')) throw error
  })
}

/** Returns STATE with its links resolved, for looking only; undefined if it does not exist. */
export async function existingStateRoot(path: string): Promise<string | undefined> {
  try {
    return await fs.realpath(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw usageOf(error, path, 'state folder')
  }
}

/** Says what is wrong with a flow's name; undefined if nothing is. */
export function nameFault(name: string): string | undefined {
  return /^(?!\.)[A-Za-z0-9._-]{1,100}$/.test(name)
    ? undefined
    : `'${name.slice(0, 120)}' cannot be a flow's name: use 1 to 100 letters, digits, '.', '_' and '-', not starting with a dot`
}

export interface InstancePaths {
  readonly name: string
  readonly instance: number
  readonly directory: string
  readonly flowFile: string
  readonly lockFile: string
  /** The folder of the spool, unless it is put elsewhere. It is not made here. */
  readonly spool: string
  /** The file of dead letters, unless they are sent elsewhere. */
  readonly rejected: string
}
/** @param root STATE as `openStateRoot` gave it */
export function pathsOf(root: string, name: string, instance: number): InstancePaths {
  const directory = join(root, name, String(instance))
  return {
    name,
    instance,
    directory,
    flowFile: join(directory, 'flow'),
    lockFile: join(directory, 'lock'),
    spool: join(directory, 'spool'),
    rejected: join(directory, 'rejected.ndjson'),
  }
}

/**
 * Makes the folders of an instance if they are missing, and looks at all that lies in them.
 * @throws UsageError if something there belongs to somebody else, is a link, or is open to others
 */
export async function prepareInstance(root: string, name: string, instance: number): Promise<InstancePaths> {
  const fault = nameFault(name)
  if (fault !== undefined) throw new UsageError([fault])
  const paths = pathsOf(root, name, instance)
  await ownDirectory(join(root, name))
  await ownDirectory(paths.directory)
  await inspect(paths.directory)
  return paths
}

/**
 * Makes one directory (0700) durably, or makes sure that the existing one is ours alone. Spools elsewhere use it too.
 * @throws UsageError
 */
export async function ownDirectory(path: string): Promise<void> {
  try {
    let made = true
    await fs.mkdir(path, { mode: 0o700 }).catch((error: unknown) => {
      if (codeOf(error) !== 'EEXIST') throw error
      made = false
    })
    if (made) await realFileSystem.syncDirectory(dirname(path))
    const faults = faultsOf(path, await fs.lstat(path), 'directory')
    if (faults !== undefined) throw new UsageError([faults])
  } catch (error) {
    throw usageOf(error, path, 'folder')
  }
}

/** Makes a directory that others may use as well, with its parents. */
export async function sharedDirectory(path: string): Promise<void> {
  try {
    await makeFolders(path, 0o700)
  } catch (error) {
    throw usageOf(error, path, 'folder')
  }
}

/** Returns the instances of a flow, ascending; none if the flow is unknown, or its folder belongs to somebody else. */
export async function instancesOf(root: string, name: string): Promise<readonly number[]> {
  const entries = await entriesOf(join(root, name))
  return entries
    .filter((entry) => entry.isDirectory() && /^(0|[1-9]\d{0,5})$/.test(entry.name))
    .map((entry) => Number(entry.name))
    .sort((a, b) => a - b)
}

/** Returns the folders below STATE that can be flows, sorted. */
export async function namesOf(root: string): Promise<readonly string[]> {
  return (await entriesOf(root))
    .filter((entry) => entry.isDirectory() && nameFault(entry.name) === undefined)
    .map((entry) => entry.name)
    .sort()
}

async function entriesOf(path: string): Promise<readonly { readonly name: string; isDirectory(): boolean }[]> {
  try {
    return await fs.readdir(path, { withFileTypes: true })
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM'].includes(codeOf(error) ?? '')) return []
    throw usageOf(error, path, 'folder')
  }
}

/** A stranger who could plant a link here could have the spool written, or a file unlinked, with our rights. */
async function inspect(directory: string): Promise<void> {
  const faults: string[] = []
  for (const entry of await fs.readdir(directory, { withFileTypes: true, recursive: true }).catch((error: unknown) => {
    throw usageOf(error, directory, 'folder')
  })) {
    const path = join(entry.parentPath, entry.name)
    // A spool may hold thousands of segments: of those only the kind is looked at, which the listing knows.
    if (entry.isFile() && entry.parentPath !== directory) continue
    try {
      const fault = faultsOf(path, await fs.lstat(path), 'any')
      if (fault !== undefined) faults.push(fault)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw usageOf(error, path, 'path')
    }
  }
  if (faults.length > 0) throw new UsageError(faults.slice(0, 10))
}

function faultsOf(path: string, facts: Stats, kind: 'directory' | 'any'): string | undefined {
  const self = process.getuid?.()
  if (facts.isSymbolicLink())
    return `${path} is a symbolic link, which the state folder must not contain: remove it (only the state folder itself may be one)`
  if (kind === 'directory' && !facts.isDirectory())
    return `${path} is in the way: a folder is needed there; move it away, or use another --name or --state`
  if (!facts.isDirectory() && !facts.isFile() && !facts.isSocket())
    return `${path} is neither a file nor a folder: remove it`
  if (self !== undefined && facts.uid !== self)
    return `${path} belongs to user ${facts.uid}, and this is user ${self}: run as user ${facts.uid}, or name another folder with --state`
  if ((facts.mode & 0o022) !== 0)
    return `${path} can be written by others: look whether its content is yours, then chmod go-w it`
  return undefined
}

function usageOf(error: unknown, path: string, what: string): Error {
  if (error instanceof UsageError) return error
  const code = codeOf(error)
  if (isDiskError(error)) return new DiskFailed(`cannot use the ${what} ${path}: ${lineOf(error)}`, { cause: error })
  if (isExhausted(error))
    return new DiskFailed(
      `cannot use the ${what} ${path}: ${lineOf(error)}; close something, or raise the limit (ulimit -n, LimitNOFILE=)`,
      { cause: error },
    )
  const why =
    {
      EACCES: 'permission denied',
      EPERM: 'permission denied',
      ENOTDIR: 'a part of the path is not a directory',
      EEXIST: 'a part of the path is not a directory',
      ELOOP: 'its links lead in a circle',
    }[code ?? ''] ?? lineOf(error)
  return new UsageError([`cannot use the ${what} ${path}: ${why}; name another with --state`])
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | undefined)?.code
}
