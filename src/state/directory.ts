/**
 * Where state lies: STATE/NAME/INSTANCE.
 *
 * Invariants: STATE may be a link or another's, and is resolved once. Below it everything is ours: directories 0700,
 * files 0600, no symbolic link is followed or tolerated, nothing there can be written by others. Names that were
 * created are durable before anything is stored under them.
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
 * STATE as asked for: `--state`, the first of `$STATE_DIRECTORY` (systemd's), else the user's state folder. Absolute;
 * it need not exist.
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
 * STATE with its links resolved, made where it is missing (0700). @throws UsageError it cannot be made or used, or
 * everybody may rename what lies in it
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

/** STATE with its links resolved; undefined where it does not exist. For looking only. */
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
  /** Where the spool's files lie unless they are put elsewhere. Not made here. */
  readonly spool: string
  /** Dead letters, unless they are sent elsewhere. */
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
 * Makes the folders of an instance where they are missing, and looks at all that lies in them. @throws UsageError
 * something there is another's, a link, or open to others
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
 * Makes one directory, 0700, durably, or makes sure that the one there is ours alone. For spools put elsewhere as well.
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

/** Makes a directory that others may use as well, with those it lies in. */
export async function sharedDirectory(path: string): Promise<void> {
  try {
    await makeFolders(path, 0o700)
  } catch (error) {
    throw usageOf(error, path, 'folder')
  }
}

/** Directory names that are instances, ascending; none where the flow is unknown, or its folder is another's. */
export async function instancesOf(root: string, name: string): Promise<readonly number[]> {
  const entries = await entriesOf(join(root, name))
  return entries
    .filter((entry) => entry.isDirectory() && /^(0|[1-9]\d{0,5})$/.test(entry.name))
    .map((entry) => Number(entry.name))
    .sort((a, b) => a - b)
}

/** Folders below STATE that can be flows, sorted. */
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
