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

export interface OutputFileFacts {
  /** Absolute. */
  readonly path: string
  /** Lines go on after a newline only. */
  readonly lines: boolean
  /** Folders that do not exist are made. */
  readonly makeFolders: boolean
  /** So many bytes of ours, torn, were cut off. */
  tornWriteRemoved(bytes: number): void
  /** Somebody has cut the file short. */
  truncated(): void
  /** No marker can be kept in this folder. */
  markerUnavailable(folder: string): void
  /** A write that is under way elsewhere is done by then. */
  pause(): Promise<void>
}

/**
 * A file that grows by whole, confirmed writes, and by what others append: the kernel puts each write at the end as it
 * then stands (O_APPEND), in one piece. Nothing is cut off but what is known to be a torn write of ours, and nothing of
 * ours stands in a line with somebody else's.
 */
export class OutputFile {
  /** Where the file ended after our last write; undefined: nobody knows. */
  private end: number | undefined
  private lastIntent: WriteIntent | undefined
  /** What became of the last write is not known. */
  private isLastWriteUnknown = false
  /** A write that was not confirmed is there all the same, or in a copy that somebody made. */
  private mayHaveLeftovers = false
  private isTruncationReported = false

  private constructor(
    readonly path: string,
    /** Without links. */ readonly real: string,
    private readonly facts: OutputFileFacts,
    private readonly file: fs.FileHandle,
    private marker: Marker | undefined,
    private readonly identity: WrittenFile,
    private length_: number,
    readonly modified: number,
  ) {}

  /** Bytes in it when it was last looked at. */
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

  /** @returns undefined: another process has renamed the file meanwhile, for it was full */
  private static async attempt(facts: OutputFileFacts): Promise<OutputFile | undefined> {
    const { file, isNew } = await openOrCreate(facts.path)
    let marker: Marker | undefined
    try {
      const before = await file.stat({ bigint: true })
      if (!before.isFile()) throw new Refused(`${facts.path} is no regular file`)
      // What is renamed when it is full, and has a marker beside it, is the file and not a link to it.
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

  /** Durable when resolved. After a throw nothing is known of it: `close` takes back what it can. */
  async append(chunks: readonly Buffer[]): Promise<void> {
    const { size } = fstatSync(this.file.fd)
    if (size < this.length_) this.reportTruncated()
    const ours =
      size === this.end || size === 0 || !this.facts.lines || (await endsLine(this.file, size))
        ? chunks
        : [LINE_END, ...chunks]
    const intent = intentOf(size, ours)
    await this.recordIntent(intent)
    // Before the write, not with it: of a write that reached the disk without its announcement nobody could say later
    // that it is torn.
    await this.marker?.sync()
    this.isLastWriteUnknown = true
    await this.writeAtOnce(intent, ours)
    await this.file.datasync()
    this.isLastWriteUnknown = false
    this.length_ = fstatSync(this.file.fd).size
    this.end = size + intent.length
    if (this.length_ >= this.end) return
    // Of what was cut off nobody can say whether a copy of it was made before.
    this.reportTruncated()
    this.mayHaveLeftovers = true
    throw new Disconnected(
      `${this.path} was truncated while it was written to: what was being written is written again`,
    )
  }

  /** In one piece: between several, others could write. */
  private async writeAtOnce({ start, length }: WriteIntent, chunks: readonly Buffer[]): Promise<void> {
    const { bytesWritten } = await this.file.writev(
      chunks.length <= MAX_BUFFERS ? [...chunks] : [Buffer.concat(chunks)],
    )
    if (bytesWritten === length) return
    if (this.undoAppend(start, bytesWritten)) this.isLastWriteUnknown = false
    // A disk that is full takes a part; the system says so only when asked for the rest.
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

  /** Takes the last append back, where nobody has appended since. */
  retract(): void {
    if (this.lastIntent !== undefined && !this.undoAppend(this.lastIntent.start, this.lastIntent.length))
      this.mayHaveLeftovers = true
  }

  /** Nothing happens between the look and the cut but what others do in a microsecond. */
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

  /** Somebody has renamed or removed it: its path leads elsewhere. */
  async isElsewhere(): Promise<boolean> {
    // Where it cannot be looked at, opening it anew says why.
    const facts = await fs.stat(this.path, { bigint: true }).catch(() => undefined)
    return facts === undefined || String(facts.ino) !== this.identity.inode
  }

  /**
   * Leaves nothing torn in the file. Where the disk does not let it, the marker stays for the next opening.
   * @returns whether something of a write that was not confirmed may be there for good
   */
  async close(): Promise<boolean> {
    try {
      if (this.isLastWriteUnknown && this.lastIntent !== undefined) {
        const { size } = fstatSync(this.file.fd)
        // It will come again, as a whole.
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
 * Gives a full file another name and makes that durable. The name is taken first, by an empty file that then is
 * replaced: two processes never rename to the same one. False: the name is somebody's.
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
    // Another process was faster: it has a name.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  })
  await syncFolder(path.dirname(from))
  return true
}

/** Cuts off what writers that are gone have torn, and nothing else. */
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

/** And is so a little later: a writer that lives may be in the middle of it. */
async function isTorn({ pause }: OutputFileFacts, file: fs.FileHandle, intent: WriteIntent): Promise<boolean> {
  const { size } = fstatSync(file.fd)
  if ((await writeStateOf(file, intent, size)) !== 'torn') return false
  await pause()
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

/** Without links; undefined where the path names another file by now, or none. */
async function realPathOf(name: string, inode: bigint): Promise<string | undefined> {
  try {
    const real = await fs.realpath(name)
    return (await fs.stat(real, { bigint: true })).ino === inode ? real : undefined
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** The last line that somebody else wrote may lack its newline. */
async function endsLine(file: fs.FileHandle, length: number): Promise<boolean> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(1), 0, 1, length - 1)
  return bytesRead === 0 || buffer[0] === NEWLINE
}

async function makeSyncedFolders(folder: string): Promise<void> {
  const first = await makeFolders(folder)
  if (first === undefined) return
  // Each new folder is a name in the one above it.
  for (let made = folder; made.length >= first.length; made = path.dirname(made)) await syncFolder(path.dirname(made))
}

/**
 * A folder that may be entered and not read cannot be opened to be synced; its file system syncs it in its own time.
 */
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
