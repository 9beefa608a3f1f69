/**
 * How much of a file that is being written is known to be durable: a small file beside it (`.NAME.writing`), there only while it is written to.
 *
 * Two slots, written in turn, each synced together with the write that it tells of: where that write begins, its length and checksum. After a crash the
 * newest good slot decides. Its write is whole: all up to its end stays. It is torn: it was not confirmed, and all from its beginning on goes. What
 * was confirmed is never cut, for no write is confirmed before its slot and its bytes are synced; and a file that nobody was writing is never cut.
 */
import { constants } from 'node:fs'
import * as fs from 'node:fs/promises'
import * as path from 'node:path'
import { crc32 } from 'node:zlib'

export interface Mark { readonly inode: string; readonly born: string; readonly count: number; readonly start: number; readonly length: number; readonly crc: number }

const SLOT = 256
const BLOCK = 1024 * 1024

export function markerPath(file: string): string { return path.join(path.dirname(file), `.${path.basename(file)}.writing`) }

export class Marker {
  private constructor(private readonly file: fs.FileHandle, private readonly name: string, private count: number) {}

  /** To be made durable by an fsync of the folder. */
  static async create(target: string): Promise<Marker> {
    const name = markerPath(target)
    return new Marker(await fs.open(name, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW, 0o600), name, 0)
  }

  /** Durable when resolved. */
  async note(mark: Omit<Mark, 'count'>): Promise<void> {
    const body = JSON.stringify({ ...mark, count: ++this.count })
    const slot = Buffer.alloc(SLOT, ' ')
    slot.write(`${crc32(body)} ${body}`)
    slot[SLOT - 1] = 0x0a
    await this.file.write(slot, 0, SLOT, (this.count % 2) * SLOT)
    await this.file.datasync()
  }

  close(): Promise<void> { return this.file.close() }

  /** All that is in the file is confirmed. */
  async remove(): Promise<void> {
    await this.file.close()
    await fs.rm(this.name, { force: true })
  }
}

/** The length that a file has for sure, where it was being written when a process or the machine died. undefined: nobody was. */
export async function durableLength(target: string, file: fs.FileHandle): Promise<number | undefined> {
  const slots = await fs.readFile(markerPath(target)).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  })
  if (slots === undefined) return undefined
  const { ino, birthtimeMs, size } = await file.stat({ bigint: true })
  const marks = [slots.subarray(0, SLOT), slots.subarray(SLOT, 2 * SLOT)].map(markOf)
    .filter((mark) => mark !== undefined && mark.inode === String(ino) && mark.born === String(birthtimeMs)) as Mark[]
  const newest = marks.sort((a, b) => b.count - a.count)[0]
  if (newest === undefined || Number(size) < newest.start) return undefined
  return await checksum(file, newest.start, newest.length) === newest.crc ? newest.start + newest.length : newest.start
}

function markOf(slot: Buffer): Mark | undefined {
  const [, sum, body = ''] = /^(\d+) (\{.*\}) *\n$/s.exec(slot.toString('latin1')) ?? []
  return sum !== undefined && crc32(body) === Number(sum) ? JSON.parse(body) as Mark : undefined
}

/** -1 where there are fewer bytes. */
async function checksum(file: fs.FileHandle, start: number, length: number): Promise<number> {
  let crc = 0
  const block = Buffer.allocUnsafe(Math.min(BLOCK, length))
  for (let done = 0; done < length;) {
    const { bytesRead } = await file.read(block, 0, Math.min(BLOCK, length - done), start + done)
    if (bytesRead === 0) return -1
    crc = crc32(block.subarray(0, bytesRead), crc)
    done += bytesRead
  }
  return crc
}
