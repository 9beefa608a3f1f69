/** The folder of a flow's spool as its state tells it, seen from outside. */
import * as fs from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { FlowState } from '../core/flow/flow-state'
import { realFileSystem } from '../kit/file-system'
import type { InstancePaths } from './directory'
import { mayHoldRecords } from './instances'

/** Something may lie in its spool that some sink has yet to get, or that upstream is to send again. */
export function holdsRecords(stored: FlowState | undefined): stored is FlowState {
  return stored?.spoolId !== undefined && (mayHoldRecords(stored) || (stored.held?.length ?? 0) > 0)
}

/**
 * Where the last run had its spool; undefined: it had none. One beside the flow file is found there, also where all of
 * STATE was moved.
 */
export function spoolLocationOf(paths: InstancePaths, stored: FlowState | undefined): string | undefined {
  if (stored?.spoolId === undefined) return undefined
  const { spoolDirectory } = stored
  return spoolDirectory === undefined || basename(spoolDirectory) === basename(paths.spool)
    ? paths.spool
    : spoolDirectory
}

/** Where a spool lies that is put into a folder of the user's. */
export function spoolLocationIn(folder: string, paths: InstancePaths): string {
  return join(folder, paths.name, String(paths.instance))
}

/** Files of records there; none where the folder is not there. */
export async function segmentsIn(place: string): Promise<readonly string[]> {
  const names = await fs.readdir(place).catch((error: unknown) => {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return []
    throw error
  })
  return names.filter((name) => name.endsWith('.seg')).map((name) => join(place, name))
}

/**
 * The folder is made, durably, before a run begins: one that holds nothing is that of a run that had accepted nothing,
 * or whose files were removed.
 */
export async function isThere(place: string): Promise<boolean> {
  return fs.stat(place).then(
    (facts) => facts.isDirectory(),
    (error: unknown) => {
      if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return false
      throw error
    },
  )
}

/**
 * Removes files of records, and the folders made for them where nothing else lies there: what was set aside for a look
 * stays.
 */
export async function removeSegments(place: string): Promise<void> {
  const paths = await segmentsIn(place)
  for (const path of paths) await fs.rm(path, { force: true })
  if (paths.length > 0) await realFileSystem.syncDirectory(place)
  for (const folder of [place, dirname(place)]) await fs.rmdir(folder).catch(() => undefined)
}
