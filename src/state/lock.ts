/**
 * One process per instance: a kernel lock, through an exclusive transaction on an empty database of node:sqlite. The
 * kernel frees it the moment its holder dies, however that happens; no lock file is ever stale.
 *
 * POSIX locks have a trap: closing any descriptor of the file in the holding process frees them. So nobody but SQLite,
 * which knows, may open the lock file; the holder's pid lies beside it.
 */
import type * as sqlite from 'node:sqlite'
import { constants } from 'node:fs'
import * as fs from 'node:fs/promises'
import { rmSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { DiskFailed, lineOf } from '../core/errors'

const SQLITE_BUSY = 5

export interface Lock {
  release(): void
}

/**
 * Takes the lock of an instance; returns undefined if another process (or this one) has it.
 * @throws DiskFailed if the file system cannot lock
 */
export async function acquire(path: string): Promise<Lock | undefined> {
  // A process that only looks (`isLocked`) is in the way for a moment. At boot many look at once, so each waits for
  // another time.
  for (let attempt = 1; ; attempt++) {
    const lock = attemptLock(path, 'exclusive')
    if (lock !== undefined) {
      try {
        await fs.chmod(path, 0o600)
      } catch (error) {
        // The flow was forgotten between opening and locking, so the locked file has no name any more.
        lock.release()
        throw new DiskFailed(`cannot lock ${path}: ${lineOf(error)}; start again`, { cause: error })
      }
      await notePid(`${path}.pid`)
      return lock
    }
    if (attempt === 5) return undefined
    await setTimeout(5 + 20 * Math.random())
  }
}

/** Tells whether somebody holds the lock now, and leaves no trace. */
export async function isLocked(path: string): Promise<boolean> {
  const there = await fs.lstat(path).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  })
  if (there === undefined) return false
  const lock = attemptLock(path, 'shared')
  lock?.release()
  return lock === undefined
}

/** Returns the id of the process that has the lock, as far as it is known. Ask it only of a lock that is taken. */
export async function holderOf(path: string): Promise<number | undefined> {
  try {
    const pid = Number(await fs.readFile(`${path}.pid`, 'utf8'))
    if (!Number.isSafeInteger(pid) || pid <= 0) return undefined
    process.kill(pid, 0)
    return pid
  } catch (error) {
    // A process of another user exists, though it cannot be signalled.
    return (error as NodeJS.ErrnoException).code === 'EPERM'
      ? Number(await fs.readFile(`${path}.pid`, 'utf8').catch(() => '')) || undefined
      : undefined
  }
}

/** A shared attempt fails if the lock is taken, but not if others look at the same time. */
function attemptLock(path: string, kind: 'exclusive' | 'shared'): Lock | undefined {
  // Loaded on first use: stateless runs and --help never need it.
  const { DatabaseSync } = process.getBuiltinModule('node:sqlite')
  let database: sqlite.DatabaseSync | undefined
  try {
    database = new DatabaseSync(path)
    database.exec(kind === 'exclusive' ? 'BEGIN EXCLUSIVE' : 'BEGIN; SELECT 1 FROM sqlite_schema')
  } catch (error) {
    database?.close()
    if ((error as { errcode?: number }).errcode === SQLITE_BUSY) return undefined
    throw new DiskFailed(
      `cannot lock ${path}: ${lineOf(error)}; its file system must support locks, name another folder with --state`,
      { cause: error },
    )
  }
  const held = database
  if (kind === 'shared')
    return {
      release: () => {
        held.close()
      },
    }
  const release = (): void => {
    process.off('exit', release)
    if (!held.isOpen) return
    // The note goes first: whoever is refused from now on is not told a pid that has let go.
    try {
      rmSync(`${path}.pid`, { force: true })
    } catch {
      /* It is only a note: whoever reads it looks whether that process is there. */
    }
    held.close()
  }
  // A database that is collected as garbage gives up its lock: being a listener keeps it alive, whatever the caller
  // does.
  process.on('exit', release)
  return { release }
}

/** Notes the process id as well as it can: a missing note only makes a message less helpful. */
async function notePid(path: string): Promise<void> {
  try {
    const file = await fs.open(
      path,
      constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW,
      0o600,
    )
    try {
      await file.writeFile(`${process.pid}\n`)
    } finally {
      await file.close()
    }
  } catch {
    /* as said above */
  }
}
