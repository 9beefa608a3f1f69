/**
 * Stores the intent of the pending write in a small file beside the target (`.NAME.writing`), which exists only while
 * the target is open. Several processes may write to one file, and each has its own marker (`.NAME.2.writing` and so
 * on).
 *
 * A marker has two slots, which are written in turn. Each is synced before its write and holds the start, the length
 * and a checksum for each block of that write. After a crash the newest valid slot tells whether the end of the file is
 * a torn write of ours. Only bytes that are certainly ours are removed, because other processes may have appended
 * since.
 */
import { constants, fstatSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import * as path from 'node:path'
import { crc32 } from 'node:zlib'
import { intentWithChecksums, type WriteIntent } from './torn-write'

export interface WrittenFile {
  readonly inode: string
  readonly born: string
}
interface Header extends WrittenFile {
  readonly count: number
  readonly start: number
  readonly length: number
  readonly block: number
  readonly blocks: number
}

/** A slot has space for the header and for the checksums of a write with the most blocks. */
const HEADER = 256
const SLOT = 32 * 1024
/** At most this many processes that write to one file have a marker. Others may write without one. */
const MAX_MARKERS = 8

function markerPath(file: string, number: number): string {
  return path.join(path.dirname(file), `.${path.basename(file)}.${number === 1 ? '' : `${number}.`}writing`)
}

export class Marker {
  private count = 0

  private constructor(
    private readonly file: fs.FileHandle,
    private readonly name: string,
  ) {}

  /**
   * Creates a marker, which becomes durable by an fsync of the folder. It returns undefined if none can be created
   * there, or if there are too many.
   */
  static async create(target: string): Promise<Marker | undefined> {
    for (let number = 1; number <= MAX_MARKERS; number++) {
      const name = markerPath(target, number)
      try {
        return new Marker(
          await fs.open(name, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600),
          name,
        )
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS' || code === 'ENAMETOOLONG') return undefined
        if (code !== 'EEXIST') throw error
      }
    }
    return undefined
  }

  /** Tells whether another process has removed the marker, which it took for that of a dead process. */
  get isRemoved(): boolean {
    return fstatSync(this.file.fd).nlink === 0
  }

  /**
   * Records the intent of a write. It survives a kill once this resolves, and a power cut after `sync`. `sync` has to
   * come before the write, or a part of the write could exist without its intent.
   */
  async record(identity: WrittenFile, { start, length, block, sums }: WriteIntent): Promise<void> {
    const header = JSON.stringify({
      ...identity,
      count: ++this.count,
      start,
      length,
      block,
      blocks: sums.length / 4,
    } satisfies Header)
    const slot = Buffer.alloc(HEADER + sums.length, ' ')
    slot.write(`${crc32(sums, crc32(header))} ${header}`)
    slot[HEADER - 1] = 0x0a
    sums.copy(slot, HEADER)
    await this.file.write(slot, 0, slot.length, (this.count % 2) * SLOT)
  }

  sync(): Promise<void> {
    return this.file.datasync()
  }

  /** Closes the marker and leaves it for the next process that opens the target. */
  close(): Promise<void> {
    return this.file.close()
  }

  /** Removes the marker, because the target has no torn write of ours. */
  async remove(): Promise<void> {
    const { ino } = fstatSync(this.file.fd, { bigint: true })
    await this.file.close()
    const there = await fs.lstat(this.name, { bigint: true }).catch(() => undefined)
    if (there?.ino === ino) await fs.rm(this.name, { force: true })
  }
}

/**
 * Returns the pending writes of processes that are gone, each with its marker. The caller removes the marker after it
 * has dealt with the write.
 */
export async function leftoverMarkers(
  target: string,
  identity: WrittenFile,
): Promise<readonly { readonly marker: string; readonly intent: WriteIntent | undefined }[]> {
  const found: { readonly marker: string; readonly intent: WriteIntent | undefined }[] = []
  for (let number = 1; number <= MAX_MARKERS; number++) {
    const marker = markerPath(target, number)
    const slots = await fs.readFile(marker).catch((error: unknown) => {
      if (['ENOENT', 'EACCES', 'ENAMETOOLONG'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined
      throw error
    })
    if (slots !== undefined) found.push({ marker, intent: newestIntent(slots, identity) })
  }
  return found
}

function newestIntent(slots: Buffer, { inode, born }: WrittenFile): WriteIntent | undefined {
  const good = [slotOf(slots.subarray(0, SLOT)), slotOf(slots.subarray(SLOT))].filter(
    (slot) => slot !== undefined && slot.header.inode === inode && slot.header.born === born,
  )
  const last = good.sort((a, b) => (b?.header.count ?? 0) - (a?.header.count ?? 0))[0]
  return last === undefined
    ? undefined
    : { start: last.header.start, length: last.header.length, block: last.header.block, sums: last.sums }
}

function slotOf(slot: Buffer): { readonly header: Header; readonly sums: Buffer } | undefined {
  const [, sum, text = ''] = /^(\d+) (\{.*\}) *\n$/s.exec(slot.toString('latin1', 0, HEADER)) ?? []
  if (sum === undefined) return undefined
  try {
    const header = JSON.parse(text) as Header
    const sums = slot.subarray(HEADER, HEADER + 4 * header.blocks)
    return crc32(sums, crc32(text)) === Number(sum) ? { header, sums } : undefined
  } catch {
    return undefined
  }
}

/** Returns the intent of a write that begins at `start`, with blocks so large that their checksums fit into a slot. */
export function intentOf(start: number, chunks: readonly Buffer[]): WriteIntent {
  return intentWithChecksums(start, chunks, (SLOT - HEADER) / 4)
}
