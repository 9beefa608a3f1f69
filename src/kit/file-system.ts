/**
 * Defines the calls on regular files that durability rests on. Spool and state take them as a parameter, so that tests
 * can crash them, fill the disk and make them fail. Errors are those of Node (`code` is ENOENT, ENOSPC, EIO, …). Paths
 * are absolute. Files have mode 0600 and directories 0700.
 */
import { constants } from 'node:fs'
import * as fs from 'node:fs/promises'

export interface File {
  /** Writes everything at the offset. After a throw any part of the beginning may have been written. */
  write(buffers: readonly Buffer[], offset: number): Promise<void>
  /** Fills the buffer from the offset. It reads fewer bytes only at the end of the file. */
  read(into: Buffer, offset: number): Promise<number>
  /** Calls fdatasync: all that was written so far, and the length, survive a power cut. */
  datasync(): Promise<void>
  truncate(length: number): Promise<void>
  size(): Promise<number>
  close(): Promise<void>
}

export interface FileSystem {
  /** `create` fails if the file exists, the others if it does not. A link in the last component is never followed. */
  open(path: string, how: 'create' | 'update' | 'read'): Promise<File>
  /** Makes one directory with mode 0700, unless it exists. */
  makeDirectory(path: string): Promise<void>
  list(path: string): Promise<readonly string[]>
  rename(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  /** Calls fsync on a directory: names that were created, renamed and removed in it survive a power cut. */
  syncDirectory(path: string): Promise<void>
  /** Returns the bytes of the file system that contains the path. */
  space(path: string): Promise<{ readonly free: number; readonly total: number }>
}

/** Closes a file that is given up or already synced. An error of closing does not matter then. */
export async function closeQuietly(file: { close(): Promise<void> } | undefined): Promise<void> {
  await file?.close().catch(() => undefined)
}

const OPEN_FLAGS = {
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
  update: constants.O_RDWR | constants.O_NOFOLLOW,
  read: constants.O_RDONLY | constants.O_NOFOLLOW,
}

class RealFile implements File {
  constructor(private readonly handle: fs.FileHandle) {}

  async write(buffers: readonly Buffer[], offset: number): Promise<void> {
    // A writev may write less than everything, on a nearly full disk for example. The rest is written until the system
    // reports an error.
    let rest = buffers.filter((buffer) => buffer.length > 0)
    let at = offset
    while (rest.length > 0) {
      // IOV_MAX is 1024 on Linux and macOS.
      const { bytesWritten } = await this.handle.writev(rest.slice(0, 1024), at)
      // POSIX allows this if not one byte fits. To try again would be a tight loop.
      if (bytesWritten === 0)
        throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
      at += bytesWritten
      let skip = bytesWritten
      let index = 0
      while (index < rest.length && skip >= (rest[index]?.length ?? 0)) {
        skip -= rest[index]?.length ?? 0
        index++
      }
      const partial = rest[index]
      rest = partial === undefined ? [] : [partial.subarray(skip), ...rest.slice(index + 1)]
    }
  }

  async read(into: Buffer, offset: number): Promise<number> {
    let filled = 0
    while (filled < into.length) {
      const { bytesRead } = await this.handle.read(into, filled, into.length - filled, offset + filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return filled
  }

  datasync(): Promise<void> {
    return this.handle.datasync()
  }
  truncate(length: number): Promise<void> {
    return this.handle.truncate(length)
  }
  async size(): Promise<number> {
    return (await this.handle.stat()).size
  }
  close(): Promise<void> {
    return this.handle.close()
  }
}

/** A process without free descriptors mostly gets some soon, because connections end and files are closed. */
const DESCRIPTOR_WAIT_MS = 20_000
const DESCRIPTOR_PAUSE_MS = 50

/** Opens a file as `fs.open` does. If no descriptor is free, it tries again for a while before it throws. */
async function openOnceDescriptorIsFree(path: string, flags: number, mode?: number): Promise<fs.FileHandle> {
  const until = performance.now() + DESCRIPTOR_WAIT_MS
  for (;;) {
    try {
      return await fs.open(path, flags, mode)
    } catch (error) {
      if (!['EMFILE', 'ENFILE'].includes((error as NodeJS.ErrnoException).code ?? '') || performance.now() > until)
        throw error
    }
    await new Promise((resolve) => {
      setTimeout(resolve, DESCRIPTOR_PAUSE_MS)
    })
  }
}

export const realFileSystem: FileSystem = {
  async open(path, how) {
    return new RealFile(await openOnceDescriptorIsFree(path, OPEN_FLAGS[how], 0o600))
  },
  async makeDirectory(path) {
    try {
      await fs.mkdir(path, { mode: 0o700 })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !(await fs.lstat(path)).isDirectory()) throw error
    }
  },
  list: (path) => fs.readdir(path),
  rename: (from, to) => fs.rename(from, to),
  unlink: (path) => fs.unlink(path),
  async syncDirectory(path) {
    const handle = await openOnceDescriptorIsFree(path, constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  },
  async space(path) {
    const facts = await fs.statfs(path)
    return { free: facts.bavail * facts.bsize, total: facts.blocks * facts.bsize }
  },
}
