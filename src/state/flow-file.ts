/**
 * Keeps the flow file: one JSON value that is durable after every save.
 *
 * Layout: two slots of equal size, each half of the file. Slot = magic 8 | format u32 | length u32 | generation u64 |
 * slot size u32 | crc32 u32 | JSON. The checksum covers all between magic and itself, and the JSON. Magic, format and
 * checksum keep their places in all formats to come.
 *
 * Invariants:
 * - A file under its own name always has at least one good slot: it is written beside, synced, and renamed. So two bad
 *   slots mean damage, never "new": whoever opens it is told that the value is lost.
 * - A slot says how large it is, so that it is found whatever was cut off behind it or appended. One good slot is
 *   enough.
 * - A save writes the slot that does not hold the newest durable value, within the space it has. What tears is what was
 *   not yet acknowledged.
 * - No descriptor is used again after a write or fdatasync on it failed: the value goes to a whole new file, once;
 *   failing that, the disk has failed.
 */
import { crc32 } from 'node:zlib'
import { dirname } from 'node:path'
import type { Log } from '../core/contract'
import { warnLasting } from '../core/flow/lasting-warning'
import { DiskFailed, lineOf, UsageError } from '../core/errors'
import type { FlowFile } from '../core/flow/ports'
import { closeQuietly, type File, type FileSystem } from '../kit/file-system'

const MAGIC = Buffer.from('MNFDflow')
const FORMAT = 1
const HEADER = 32
const PAGE = 4096
const LEAST_SLOT = 8 * PAGE

interface Slot<T> {
  readonly index: 0 | 1
  readonly size: number
  readonly generation: number
  readonly value: T
}

/**
 * Opens the flow file, or prepares a new one, which appears with the first save.
 * @throws UsageError if a newer manifold wrote it, or it is not ours to open; DiskFailed if it cannot be read
 */
export async function openFlowFile<T>(fs: FileSystem, path: string, log: Log): Promise<FlowFile<T>> {
  const file = await opened(fs, path, 'update')
  if (file === undefined) return new OpenFlowFile<T>(fs, path, log, undefined, undefined, false)
  try {
    const image = await imageOf(file, path)
    const slots = slotsOf<T>(image, path)
    const [newest] = slots
    if (newest === undefined) {
      warnLasting(
        log,
        `the flow file ${path} is damaged: neither of its two copies can be read. Where sources and sinks were is lost: all that the spool holds is delivered again, and sources without a record in it begin as start= says`,
      )
      await closeQuietly(file)
      return new OpenFlowFile<T>(fs, path, log, undefined, undefined, true)
    }
    if (slots.length < 2)
      log.warn(
        `the flow file ${path} has one copy that can be read, of two: it is used, and what was delivered after it was written comes again`,
      )
    if (image.length === 2 * newest.size) return new OpenFlowFile<T>(fs, path, log, file, newest, false)
    // Its other slot would lie elsewhere: the next save makes a whole new file.
    await closeQuietly(file)
    return new OpenFlowFile<T>(fs, path, log, undefined, newest, false)
  } catch (error) {
    await closeQuietly(file)
    throw error
  }
}

/**
 * Reads a flow file without its lock; its process may be writing it. Returns undefined where there is none.
 * @throws as openFlowFile
 */
export async function readFlowFile<T>(fs: FileSystem, path: string): Promise<T | undefined> {
  // While both slots are being written behind a slow read, neither may look good; a second look sees what was finished
  // by then.
  for (let attempt = 1; ; attempt++) {
    const file = await opened(fs, path, 'read')
    if (file === undefined) return undefined
    try {
      const [newest] = slotsOf<T>(await imageOf(file, path), path)
      if (newest !== undefined) return newest.value
      if (attempt === 3) throw damaged(path)
    } finally {
      await closeQuietly(file)
    }
  }
}

class OpenFlowFile<T> implements FlowFile<T> {
  readonly stored: T | undefined
  private slotSize: number
  private generation: number
  /** The slot that holds the newest durable value. */
  private current: 0 | 1
  private running: Promise<void> | undefined
  private waiting: { value: T; done: Promise<void> } | undefined
  private closed = false

  constructor(
    private readonly fs: FileSystem,
    private readonly path: string,
    private readonly log: Log,
    private file: File | undefined,
    newest: Slot<T> | undefined,
    readonly lost: boolean,
  ) {
    this.stored = newest?.value
    this.slotSize = newest?.size ?? 0
    this.generation = newest?.generation ?? 0
    this.current = newest?.index ?? 1
  }

  save(value: T): Promise<void> {
    if (this.closed) return Promise.reject(new DiskFailed(`the flow file ${this.path} is closed already`))
    if (this.waiting !== undefined) {
      this.waiting.value = value
      return this.waiting.done
    }
    if (this.running === undefined) return this.start(() => value)
    // The newest value is taken when its write begins: everybody who asked in the meantime waits for that one write.
    const waiting: { value: T; done: Promise<void> } = { value, done: Promise.resolve() }
    const next = (): Promise<void> =>
      this.start(() => {
        this.waiting = undefined
        return waiting.value
      })
    waiting.done = this.running.then(next, next)
    this.waiting = waiting
    return waiting.done
  }

  async close(): Promise<void> {
    this.closed = true
    // The caller that asked for it is told of its fault.
    await (this.waiting?.done ?? this.running)?.catch(() => undefined)
    const file = this.file
    this.file = undefined
    await closeQuietly(file)
  }

  private start(take: () => T): Promise<void> {
    const run = this.write(take()).finally(() => {
      if (this.running === run) this.running = undefined
    })
    this.running = run
    return run
  }

  private async write(value: T): Promise<void> {
    const body = Buffer.from(JSON.stringify(value))
    const generation = this.generation + 1
    if (this.file !== undefined && HEADER + body.length <= this.slotSize) {
      const target = this.current === 0 ? 1 : 0
      try {
        await this.file.write([headerOf(generation, this.slotSize, body), body], target * this.slotSize)
        await this.file.datasync()
        this.generation = generation
        this.current = target
        return
      } catch (error) {
        this.log.warn('writing the flow file failed; it is written anew beside', {
          path: this.path,
          error: lineOf(error),
        })
        // Nothing read or synced through this descriptor says anything about the disk any more.
        const lost = this.file
        this.file = undefined
        await closeQuietly(lost)
      }
    }
    await this.replace(generation, body)
  }

  private async replace(generation: number, body: Buffer): Promise<void> {
    const beside = `${this.path}.new`
    const slotSize = Math.max(LEAST_SLOT, Math.ceil((HEADER + 2 * body.length) / PAGE) * PAGE)
    const old = this.file
    let made: File | undefined
    try {
      await this.fs.unlink(beside).catch((error: unknown) => {
        if (codeOf(error) !== 'ENOENT') throw error
      })
      made = await this.fs.open(beside, 'create')
      // Both slots hold the value, so that the one that is written next has a good neighbour. Zeros take the room now:
      // later saves need no new blocks.
      const slot = (of: number): Buffer[] => [
        headerOf(of, slotSize, body),
        body,
        Buffer.alloc(slotSize - HEADER - body.length),
      ]
      await made.write([...slot(generation), ...slot(generation + 1)], 0)
      await made.datasync()
      // From here on the old descriptor may be that of a file without a name.
      this.file = undefined
      await this.fs.rename(beside, this.path)
      await this.fs.syncDirectory(dirname(this.path))
    } catch (error) {
      await closeQuietly(made)
      if (this.file === undefined) await closeQuietly(old)
      throw new DiskFailed(`cannot write the flow file ${this.path}: ${adviceOf(error)}`, { cause: error })
    }
    this.file = made
    this.slotSize = slotSize
    this.generation = generation + 1
    this.current = 1
    await closeQuietly(old)
  }
}

function adviceOf(error: unknown): string {
  switch (codeOf(error)) {
    case 'ENOSPC':
    case 'EDQUOT':
      return 'no space left on its file system; make room and start again'
    case 'EMFILE':
      return `${lineOf(error)}; raise this process's limit of open files (ulimit -n, LimitNOFILE=)`
    case 'ENFILE':
      return `${lineOf(error)}; this machine has no open file left`
    default:
      return `${lineOf(error)}; check the disk`
  }
}

async function opened(fs: FileSystem, path: string, how: 'update' | 'read'): Promise<File | undefined> {
  try {
    return await fs.open(path, how)
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT') return undefined
    if (code === 'ELOOP' || code === 'EMLINK')
      throw new UsageError([`${path} is a symbolic link, which the state folder must not contain: remove it`])
    if (code === 'EACCES' || code === 'EPERM')
      throw new UsageError([
        `${path} cannot be opened (${code}): run as its owner, or name another folder with --state`,
      ])
    throw new DiskFailed(`cannot open the flow file ${path}: ${lineOf(error)}`, { cause: error })
  }
}

async function imageOf(file: File, path: string): Promise<Buffer> {
  try {
    const image = Buffer.alloc(await file.size())
    return image.subarray(0, await file.read(image, 0))
  } catch (error) {
    throw new DiskFailed(`cannot read the flow file ${path}: ${lineOf(error)}`, { cause: error })
  }
}

/** Returns the good slots, the newest first. */
function slotsOf<T>(image: Buffer, path: string): readonly Slot<T>[] {
  const slots: Slot<T>[] = []
  for (let at = 0; at + HEADER <= image.length; at += PAGE) {
    const slot = slotAt<T>(image, at, path)
    if (slot !== undefined) slots.push(slot)
  }
  return slots.sort((a, b) => b.generation - a.generation)
}

function slotAt<T>(image: Buffer, at: number, path: string): Slot<T> | undefined {
  const slot = image.subarray(at)
  if (!slot.subarray(0, MAGIC.length).equals(MAGIC)) return undefined
  const length = slot.readUInt32LE(12)
  if (length > slot.length - HEADER) return undefined
  const body = slot.subarray(HEADER, HEADER + length)
  if (slot.readUInt32LE(28) !== checksumOf(slot, body)) return undefined
  const format = slot.readUInt32LE(8)
  if (format > FORMAT)
    throw new UsageError([
      `${path} was written by a newer manifold (format ${format}, this one knows ${FORMAT}): update manifold; nothing was changed`,
    ])
  const size = slot.readUInt32LE(24)
  // Bytes of another file, or of one of another size, that happen to lie here.
  if (at !== 0 && at !== size) return undefined
  return {
    index: at === 0 ? 0 : 1,
    size,
    generation: Number(slot.readBigUInt64LE(16)),
    value: JSON.parse(body.toString()) as T,
  }
}

function headerOf(generation: number, slotSize: number, body: Buffer): Buffer {
  const header = Buffer.alloc(HEADER)
  MAGIC.copy(header)
  header.writeUInt32LE(FORMAT, 8)
  header.writeUInt32LE(body.length, 12)
  header.writeBigUInt64LE(BigInt(generation), 16)
  header.writeUInt32LE(slotSize, 24)
  header.writeUInt32LE(checksumOf(header, body), 28)
  return header
}

function checksumOf(header: Buffer, body: Buffer): number {
  return crc32(body, crc32(header.subarray(8, 28)))
}

function damaged(path: string): DiskFailed {
  return new DiskFailed(
    `the flow file ${path} is damaged: neither of its two copies can be read; the next start of its line delivers again all that the spool holds`,
  )
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | undefined)?.code
}
