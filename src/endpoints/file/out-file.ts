import { constants } from 'node:fs'
import * as fs from 'node:fs/promises'
import * as path from 'node:path'
import { crc32 } from 'node:zlib'
import { Refused } from '../../core/errors'
import { letGo } from '../../kit/file-system'
import { durableLength, Marker } from './marker'

/** IOV_MAX is 1024 on Linux and macOS. */
const MOST_BUFFERS = 1024
const NEWLINE = 0x0a

export interface OutFileFacts {
  /** Absolute. */
  readonly path: string
  /** Lines go on after a newline only. */
  readonly lines: boolean
  /** Folders that do not exist are made. */
  readonly makeFolders: boolean
  cut(bytes: number): void
}

/** A file that grows by whole, confirmed writes and by nothing else. */
export class OutFile {
  /** Durable bytes before the last append. */
  private before = 0

  private constructor(readonly path: string, private readonly file: fs.FileHandle, private readonly marker: Marker, private readonly identity: { readonly inode: string; readonly born: string }, private length_: number, readonly modified: number) {}

  /** Bytes that are durable. */
  get length(): number { return this.length_ }

  static async open(facts: OutFileFacts): Promise<OutFile> {
    const folder = path.dirname(facts.path)
    if (facts.makeFolders) await makeFolders(folder)
    const { file, isNew } = await openOrCreate(facts.path)
    try {
      const before = await file.stat()
      if (!before.isFile()) throw new Refused(`${facts.path} is no regular file`)
      const durable = await durableLength(facts.path, file)
      if (durable !== undefined && durable < before.size) {
        await file.truncate(durable)
        facts.cut(before.size - durable)
      }
      let length = durable ?? before.size
      if (durable === undefined && facts.lines && length > 0) length += await terminate(file, length)
      if (!isNew) await file.datasync()
      const marker = await Marker.create(facts.path)
      const { ino, birthtimeMs } = await file.stat({ bigint: true })
      const identity = { inode: String(ino), born: String(birthtimeMs) }
      await marker.note({ ...identity, start: length, length: 0, crc: 0 })
      await syncFolder(folder)
      return new OutFile(facts.path, file, marker, identity, length, before.mtimeMs)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** Durable when resolved. After a throw nothing is known of what lies beyond `length`: `close` cuts it off. */
  async append(chunks: readonly Buffer[]): Promise<void> {
    const start = this.length_
    let crc = 0
    let length = 0
    for (const chunk of chunks) { crc = crc32(chunk, crc); length += chunk.length }
    let at = start
    for (let rest = chunks.filter((chunk) => chunk.length > 0); rest.length > 0;) {
      const { bytesWritten } = await this.file.writev(rest.slice(0, MOST_BUFFERS), at)
      // Some file systems say so of a full disk.
      if (bytesWritten === 0) throw Object.assign(new Error('the disk took no bytes'), { code: 'ENOSPC' })
      at += bytesWritten
      rest = after(rest, bytesWritten)
    }
    await Promise.all([this.file.datasync(), this.marker.note({ ...this.identity, start, length, crc })])
    this.before = start
    this.length_ = start + length
  }

  /** Takes the last append back. */
  async retract(): Promise<void> {
    this.length_ = this.before
    await this.file.truncate(this.before)
  }

  /** Somebody has renamed or removed it: its path leads elsewhere. */
  async isElsewhere(): Promise<boolean> {
    // Where it cannot be looked at, opening it anew says why.
    const facts = await fs.stat(this.path, { bigint: true }).catch(() => undefined)
    return facts === undefined || String(facts.ino) !== this.identity.inode
  }

  /** Leaves nothing in the file that was not confirmed. Where the disk does not let it, the marker stays for the next opening. */
  async close(): Promise<void> {
    try {
      if ((await this.file.stat()).size > this.length_) {
        await this.file.truncate(this.length_)
        await this.file.datasync()
      }
      await this.marker.remove()
    } catch { await letGo(this.marker) } finally { await letGo(this.file) }
  }
}

/** Makes the name that is taken durable, too. */
export async function renameDurably(from: string, to: string): Promise<void> {
  await fs.rename(from, to)
  await syncFolder(path.dirname(from))
}

async function openOrCreate(name: string): Promise<{ readonly file: fs.FileHandle; readonly isNew: boolean }> {
  try { return { file: await fs.open(name, constants.O_RDWR), isNew: false } } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return { file: await fs.open(name, constants.O_RDWR | constants.O_CREAT, 0o644), isNew: true }
  }
}

/** Bytes added: the last line of a file that somebody else wrote may lack its newline. */
async function terminate(file: fs.FileHandle, length: number): Promise<number> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(1), 0, 1, length - 1)
  if (bytesRead === 0 || buffer[0] === NEWLINE) return 0
  await file.write('\n', length)
  return 1
}

async function makeFolders(folder: string): Promise<void> {
  const first = await fs.mkdir(folder, { recursive: true })
  if (first === undefined) return
  // Each new folder is a name in the one above it.
  for (let made = folder; made.length >= first.length; made = path.dirname(made)) await syncFolder(path.dirname(made))
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await fs.open(folder, constants.O_RDONLY | constants.O_DIRECTORY)
  try { await handle.sync() } finally { await handle.close() }
}

/** The chunks without their first bytes. */
function after(chunks: readonly Buffer[], bytes: number): Buffer[] {
  let skip = bytes
  const rest: Buffer[] = []
  for (const chunk of chunks) {
    if (skip < chunk.length) rest.push(skip === 0 ? chunk : chunk.subarray(skip))
    skip = Math.max(0, skip - chunk.length)
  }
  return rest
}
