import { constants, fstatSync, ftruncateSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import * as path from 'node:path'
import { Disconnected, Refused } from '../../core/errors'
import { closeQuietly } from '../../kit/file-system'
import { makeFolders } from '../../kit/folders'
import { intentOf, leftoverMarkers, Marker, type WrittenFile } from './marker'
import { writeStateOf, type WriteIntent } from './torn-write'

/** IOV_MAX is 1024 on Linux and macOS. */
const MAX_BUFFERS = 1024
const NEWLINE = 0x0a
const LINE_END = Buffer.from('\n')
/** A write that has not gone on for this many milliseconds is either done or torn. */
const HALF_WRITE_MS = 200
/** A file whose last line stays open while it grows is written to after this many looks at it, a millisecond apart. */
const MAX_LINE_END_POLLS = 1000

export interface OutputFileFacts {
  /** The path is absolute. */
  readonly path: string
  /** The content is lines, so a write has to begin behind a newline. */
  readonly lines: boolean
  /** Missing folders are created. */
  readonly makeFolders: boolean
  /** A torn write of this many bytes was removed. */
  tornWriteRemoved(bytes: number): void
  /** Another process has truncated the file. */
  truncated(): void
  /** This folder cannot contain a marker. */
  markerUnavailable(folder: string): void
  pause(milliseconds: number): Promise<void>
}

/**
 * Appends whole, confirmed writes to a file to which other processes may append as well. The kernel puts each write at
 * the present end of the file (O_APPEND), in one piece. Only a torn write that is certainly ours is removed. Our bytes
 * never share a line with those of others.
 */
export class OutputFile {
  /** The end of the file after our last write, or undefined if it is unknown. */
  private end: number | undefined
  private lastIntent: WriteIntent | undefined
  /** The outcome of the last write is unknown. */
  private isLastWriteUnknown = false
  /** An unconfirmed write may be in the file all the same, or in a copy of it. */
  private mayHaveLeftovers = false
  private isTruncationReported = false

  private constructor(
    readonly path: string,
    /** The path without links. */ readonly real: string,
    private readonly facts: OutputFileFacts,
    private readonly file: fs.FileHandle,
    private marker: Marker | undefined,
    private readonly identity: WrittenFile,
    private length_: number,
    readonly modified: number,
  ) {}

  /** Returns the size of the file when it was last checked. */
  get length(): number {
    return this.length_
  }

  static async open(facts: OutputFileFacts): Promise<OutputFile> {
    if (facts.makeFolders) await makeSyncedFolders(path.dirname(facts.path))
    for (;;) {
      const opened = await OutputFile.attempt(facts)
      if (opened !== undefined) return opened
    }
  }

  /** @returns undefined if another process has rotated the file meanwhile */
  private static async attempt(facts: OutputFileFacts): Promise<OutputFile | undefined> {
    const { file, isNew } = await openOrCreate(facts.path)
    let marker: Marker | undefined
    try {
      const before = await file.stat({ bigint: true })
      if (!before.isFile()) throw new Refused(`${facts.path} is no regular file`)
      // Rotation and marker belong to the file itself, not to a link to it.
      const real = await realPathOf(facts.path, before.ino)
      if (real === undefined) {
        await file.close()
        return undefined
      }
      const identity = { inode: String(before.ino), born: String(before.birthtimeMs) }
      await removeTornWrites(facts, real, file, identity)
      if (!isNew) await file.datasync()
      marker = await Marker.create(real)
      if (marker === undefined) facts.markerUnavailable(path.dirname(real))
      await syncFolder(path.dirname(real))
      return new OutputFile(
        facts.path,
        real,
        facts,
        file,
        marker,
        identity,
        fstatSync(file.fd).size,
        Number(before.mtimeMs),
      )
    } catch (error) {
      await closeQuietly(marker)
      await file.close()
      throw error
    }
  }

  /**
   * Appends a write that is durable once this resolves. After a throw its outcome is unknown, and `close` undoes what
   * it can.
   */
  async append(chunks: readonly Buffer[]): Promise<void> {
    const { size, isLineOpen } = await this.endOfFile()
    if (size < this.length_) this.reportTruncated()
    const ours = isLineOpen ? [LINE_END, ...chunks] : chunks
    const intent = intentOf(size, ours)
    await this.recordIntent(intent)
    // The intent is synced before the write. Otherwise a torn write without intent could not be recognised later.
    await this.marker?.sync()
    this.isLastWriteUnknown = true
    await this.writeAtOnce(intent, ours)
    await this.file.datasync()
    this.isLastWriteUnknown = false
    this.length_ = fstatSync(this.file.fd).size
    this.end = size + intent.length
    if (this.length_ >= this.end) return
    // A copy of the file may have been made before it was truncated.
    this.reportTruncated()
    this.mayHaveLeftovers = true
    throw new Disconnected(
      `${this.path} was truncated while it was written to: what was being written is written again`,
    )
  }

  /** Returns the size of the file, and whether another process has left a line there without its end. */
  private async endOfFile(): Promise<{ readonly size: number; readonly isLineOpen: boolean }> {
    let { size } = fstatSync(this.file.fd)
    for (let polls = 0, unchanged = 0; ; polls++) {
      if (size === this.end || size === 0 || !this.facts.lines || (await endsLine(this.file, size)))
        return { size, isLineOpen: false }
      // A write of another process becomes visible page by page, so its end may be on its way.
      if (unchanged === HALF_WRITE_MS || polls === MAX_LINE_END_POLLS) return { size, isLineOpen: true }
      await this.facts.pause(1)
      const before = size
      size = fstatSync(this.file.fd).size
      unchanged = size === before ? unchanged + 1 : 0
    }
  }

  /** Writes everything in one call, because others could write between two calls. */
  private async writeAtOnce({ start, length }: WriteIntent, chunks: readonly Buffer[]): Promise<void> {
    const { bytesWritten } = await this.file.writev(
      chunks.length <= MAX_BUFFERS ? [...chunks] : [Buffer.concat(chunks)],
    )
    if (bytesWritten === length) return
    if (this.undoAppend(start, bytesWritten)) this.isLastWriteUnknown = false
    // A full disk takes a part of the write without an error.
    throw Object.assign(new Error('the disk took a part of it only'), { code: 'ENOSPC' })
  }

  private async recordIntent(intent: WriteIntent): Promise<void> {
    if (this.marker?.isRemoved === true) {
      await closeQuietly(this.marker)
      this.marker = await Marker.create(this.real)
      await syncFolder(path.dirname(this.real))
    }
    await this.marker?.record(this.identity, intent)
    this.lastIntent = intent
  }

  /** Undoes the last append, unless another process has appended since. */
  retract(): void {
    if (this.lastIntent !== undefined && !this.undoAppend(this.lastIntent.start, this.lastIntent.length))
      this.mayHaveLeftovers = true
  }

  /** Another process has only microseconds between the check and the truncation. */
  private undoAppend(start: number, length: number): boolean {
    if (fstatSync(this.file.fd).size !== start + length) return false
    try {
      ftruncateSync(this.file.fd, start)
    } catch {
      return false
    }
    this.length_ = this.end = start
    return true
  }

  private reportTruncated(): void {
    if (!this.isTruncationReported) this.facts.truncated()
    this.isTruncationReported = true
  }

  /** Tells whether the path leads to another file, because this one was renamed or removed. */
  async isElsewhere(): Promise<boolean> {
    // If it cannot be checked, the next opening reports why.
    const facts = await fs.stat(this.path, { bigint: true }).catch(() => undefined)
    return facts === undefined || String(facts.ino) !== this.identity.inode
  }

  /**
   * Closes the file without a torn write. If the disk prevents that, the marker stays for the next opening.
   * @returns whether a part of an unconfirmed write may stay in the file
   */
  async close(): Promise<boolean> {
    try {
      if (this.isLastWriteUnknown && this.lastIntent !== undefined) {
        const { size } = fstatSync(this.file.fd)
        // The write will be repeated as a whole.
        if (
          ['torn', 'whole'].includes(await writeStateOf(this.file, this.lastIntent, size)) &&
          this.undoAppend(this.lastIntent.start, size - this.lastIntent.start)
        ) {
          this.isLastWriteUnknown = false
          await this.file.datasync()
        }
      }
      await this.marker?.remove()
    } catch {
      await closeQuietly(this.marker)
    } finally {
      await closeQuietly(this.file)
    }
    return this.isLastWriteUnknown || this.mayHaveLeftovers
  }
}

/**
 * Renames a full file durably. An empty file reserves the new name first, so that two processes never use the same one.
 * It returns false if the name is taken.
 */
export async function renameDurably(from: string, to: string): Promise<boolean> {
  const taken = await fs
    .open(to, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
    .catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return undefined
      throw error
    })
  if (taken === undefined) return false
  await taken.close()
  await fs.rename(from, to).catch(async (error: unknown) => {
    await fs.rm(to, { force: true })
    // Another process has already renamed the file.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  })
  await syncFolder(path.dirname(from))
  return true
}

/** Removes torn writes of processes that are gone, and nothing else. */
async function removeTornWrites(
  facts: OutputFileFacts,
  real: string,
  file: fs.FileHandle,
  identity: WrittenFile,
): Promise<void> {
  for (const { marker, intent } of await leftoverMarkers(real, identity)) {
    if (intent !== undefined && (await isTorn(facts, file, intent))) {
      const { size } = fstatSync(file.fd)
      if ((await writeStateOf(file, intent, size)) === 'torn') {
        ftruncateSync(file.fd, intent.start)
        facts.tornWriteRemoved(size - intent.start)
        await file.datasync()
      }
    }
    await fs.rm(marker, { force: true }).catch((error: unknown) => {
      if (!['EACCES', 'EPERM', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
    })
  }
}

/** Tells whether a write is torn and still is a moment later, because a living process may be in the middle of it. */
async function isTorn({ pause }: OutputFileFacts, file: fs.FileHandle, intent: WriteIntent): Promise<boolean> {
  const { size } = fstatSync(file.fd)
  if ((await writeStateOf(file, intent, size)) !== 'torn') return false
  await pause(HALF_WRITE_MS)
  return fstatSync(file.fd).size === size
}

async function openOrCreate(name: string): Promise<{ readonly file: fs.FileHandle; readonly isNew: boolean }> {
  const flags = constants.O_RDWR | constants.O_APPEND
  try {
    return { file: await fs.open(name, flags), isNew: false }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  try {
    return { file: await fs.open(name, flags | constants.O_CREAT, 0o644), isNew: true }
  } catch (error) {
    if (!['EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
    throw new Refused(`${name} does not exist, and no file can be made in ${path.dirname(name)}: permission denied`, {
      cause: error,
    })
  }
}

/** Returns the path without links, or undefined if it leads to another file by now, or to none. */
async function realPathOf(name: string, inode: bigint): Promise<string | undefined> {
  try {
    const real = await fs.realpath(name)
    return (await fs.stat(real, { bigint: true })).ino === inode ? real : undefined
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** Tells whether the file ends with a newline. A last line of another process may lack it. */
async function endsLine(file: fs.FileHandle, length: number): Promise<boolean> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(1), 0, 1, length - 1)
  return bytesRead === 0 || buffer[0] === NEWLINE
}

async function makeSyncedFolders(folder: string): Promise<void> {
  const first = await makeFolders(folder)
  if (first === undefined) return
  // Each new folder is an entry in the folder above it.
  for (let made = folder; made.length >= first.length; made = path.dirname(made)) await syncFolder(path.dirname(made))
}

/** Syncs a folder. One that may not be read cannot be opened for that, and its file system syncs it later by itself. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await fs.open(folder, constants.O_RDONLY | constants.O_DIRECTORY).catch((error: unknown) => {
    if (['EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined
    throw error
  })
  try {
    await handle?.sync()
  } finally {
    await handle?.close()
  }
}
