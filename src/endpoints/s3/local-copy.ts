/**
 * A copy of an object on this machine's disk: written beside its place, renamed into it when the object is known to be
 * in the bucket.
 */
import { constants } from 'node:fs'
import * as fs from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Disconnected, lineOf, Refused } from '../../core/errors'
import { closeQuietly } from '../../kit/file-system'
import { makeFolders } from '../../kit/folders'

export class LocalCopy {
  private constructor(
    private readonly handle: fs.FileHandle,
    private readonly root: string,
    private readonly path: string,
    private readonly temporary: string,
  ) {}

  static async begin(directory: string, key: string): Promise<LocalCopy> {
    const root = resolve(directory)
    const path = join(root, key)
    if (!path.startsWith(`${root}/`)) throw new Refused(`keep-local=${directory}: the key ${key} leads out of it`)
    const temporary = join(dirname(path), `.${path.slice(dirname(path).length + 1)}.part`)
    return onDisk(directory, async () => {
      await makeFolders(dirname(path))
      return new LocalCopy(
        await fs.open(
          temporary,
          constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW,
          0o666,
        ),
        root,
        path,
        temporary,
      )
    })
  }

  async write(chunk: Buffer): Promise<void> {
    await onDisk(this.root, async () => {
      for (let at = 0; at < chunk.length; ) at += (await this.handle.write(chunk, at)).bytesWritten
    })
  }

  /** Durable, under its name, when resolved. */
  async commit(): Promise<void> {
    await onDisk(this.root, async () => {
      await this.handle.datasync()
      await this.handle.close()
      await fs.rename(this.temporary, this.path)
      // Each directory on the way may be new: its name stands in the one above.
      for (let path = dirname(this.path); ; path = dirname(path)) {
        const directory = await fs.open(path, constants.O_RDONLY | constants.O_DIRECTORY)
        try {
          await directory.sync()
        } finally {
          await directory.close()
        }
        if (path.length <= this.root.length) return
      }
    })
  }

  /** Never throws. */
  async discard(): Promise<void> {
    await closeQuietly(this.handle)
    // A copy that cannot be removed is written over when the object is tried again.
    await fs.unlink(this.temporary).catch(() => undefined)
  }
}

/** That copies can be made at all: what is wrong with the directory itself is a matter of the command line. */
export async function checkDirectory(directory: string): Promise<void> {
  try {
    await makeFolders(directory)
    await fs.access(directory, constants.W_OK | constants.X_OK)
  } catch (error) {
    throw new Refused(`keep-local=${directory}: ${lineOf(error)}`, { cause: error })
  }
}

/** A disk that is full today may have room tomorrow, and the object is safe in the spool until then. */
async function onDisk<T>(directory: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run()
  } catch (error) {
    throw new Disconnected(`keep-local=${directory}: ${lineOf(error)}`, { cause: error })
  }
}
