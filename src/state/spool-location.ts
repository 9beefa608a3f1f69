/** Finds the folder of a flow's spool by its state. */
import * as fs from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { FlowState } from '../core/flow/flow-state'
import { realFileSystem } from '../kit/file-system'
import type { InstancePaths } from './directory'
import { mayHoldRecords } from './instances'

/** Tells whether its spool may have records that a sink has yet to get, or that upstream is to send again. */
export function holdsRecords(stored: FlowState | undefined): stored is FlowState {
  return stored?.spoolId !== undefined && (mayHoldRecords(stored) || (stored.held?.length ?? 0) > 0)
}

/**
 * Returns where the last run had its spool; undefined if it had none. A spool beside the flow file is found there even
 * if all of STATE was moved.
 */
export function spoolLocationOf(paths: InstancePaths, stored: FlowState | undefined): string | undefined {
  if (stored?.spoolId === undefined) return undefined
  const { spoolDirectory } = stored
  return spoolDirectory === undefined || basename(spoolDirectory) === basename(paths.spool)
    ? paths.spool
    : spoolDirectory
}

/** Returns the folder of a spool that is put into a folder of the user's. */
export function spoolLocationIn(folder: string, paths: InstancePaths): string {
  return join(folder, paths.name, String(paths.instance))
}

/** Returns the segment files there; none if the folder does not exist. */
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
