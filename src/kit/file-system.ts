/**
 * The few calls on regular files that durability rests on, as a parameter: spool and state take one of these, so that
 * tests can crash it, fill it and let it fail. Errors are Node's (`code`: ENOENT, ENOSPC, EIO, …). Paths are absolute.
 * Modes: files 0600, directories 0700.
 */
import { constants } from 'node:fs'
import * as fs from 'node:fs/promises'

export interface File {
  /** Writes all of it at the offset, or throws; after a throw any prefix may be there. */
  write(buffers: readonly Buffer[], offset: number): Promise<void>
  /** Fills the buffer from the offset; fewer bytes only at the end of the file. */
  read(into: Buffer, offset: number): Promise<number>
  /** fdatasync: what was written so far, and the length, survive a power cut. */
  datasync(): Promise<void>
  truncate(length: number): Promise<void>
  size(): Promise<number>
  close(): Promise<void>
}

export interface FileSystem {
  /** create: fails where it exists; update: fails where it does not. Never follows a link in the last component. */
  open(path: string, how: 'create' | 'update' | 'read'): Promise<File>
  /** Makes one directory, 0700; not an error where it exists as a directory. */
  makeDirectory(path: string): Promise<void>
  list(path: string): Promise<readonly string[]>
  rename(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  /** fsync of a directory: names created, renamed and removed in it survive a power cut. */
  syncDirectory(path: string): Promise<void>
  /** Bytes of the file system that holds the path. */
  space(path: string): Promise<{ readonly free: number; readonly total: number }>
}

/** Closes what is given up, or what was synced before: whatever closing may say, it changes nothing any more. */
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
    // A short writev is legal (a nearly full disk): the rest is written on until the system says why not.
    let rest = buffers.filter((buffer) => buffer.length > 0)
    let at = offset
    while (rest.length > 0) {
      // IOV_MAX is 1024 on Linux and macOS.
      const { bytesWritten } = await this.handle.writev(rest.slice(0, 1024), at)
      // POSIX allows it where not one byte fits; trying again and again would be a tight loop.
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

/** A process that is out of descriptors mostly has some again soon: connections end, files are closed. */
const DESCRIPTOR_WAIT_MS = 20_000
const DESCRIPTOR_PAUSE_MS = 50

/** Opens as `fs.open` does. Where no descriptor is free it is tried again for a while before the error is thrown. */
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
