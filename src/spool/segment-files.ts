/** Looks at a spool's directory for the first time: it reads headers only and changes nothing. */
import { UsageError } from '../core/errors'
import type { FileSystem } from '../kit/file-system'
import { decodeHeader, FORMAT, HEADER_BYTES, type Header } from './format'
import { tolerant } from './repair'

const NAME = /^(\d{16})(?:-(\d+))?\.seg$/

export interface StoredSegmentFile {
  readonly path: string
  readonly first: number
  readonly copy: number
  readonly size: number
  readonly header: Header | undefined
}

/** Reads all headers, so that a format of the future or another spool's file is refused before anything is touched. */
export async function listSegmentFiles(
  fs: FileSystem,
  directory: string,
  id: string | undefined,
): Promise<{ readonly found: readonly StoredSegmentFile[]; readonly id: string | undefined }> {
  await fs.makeDirectory(directory)
  const found: StoredSegmentFile[] = []
  for (const name of await fs.list(directory)) {
    const match = NAME.exec(name)
    if (match === null) continue
    const path = `${directory}/${name}`
    const file = tolerant(await fs.open(path, 'read'))
    try {
      const page = Buffer.alloc(HEADER_BYTES)
      const header = decodeHeader(page.subarray(0, await file.read(page, 0)))
      if (header !== undefined && 'newer' in header)
        throw new UsageError([
          `the spool in ${directory} was written by a newer manifold (format ${header.newer}, this one reads up to ${FORMAT}): run that one; nothing was changed`,
        ])
      found.push({ path, first: Number(match[1]), copy: Number(match[2] ?? 0), size: await file.size(), header })
    } finally {
      await file.close()
    }
  }
  found.sort((a, b) => a.first - b.first || a.copy - b.copy)
  const own = id ?? found.find((one) => one.header !== undefined)?.header?.id
  const other = found.find((one) => one.header !== undefined && one.header.id !== own)
  if (other !== undefined)
    throw new UsageError([
      `${other.path} belongs to another spool: move it away, or name its directory as the spool of its own flow; nothing was changed`,
    ])
  return { found, id: own }
}
