/** Appends a line to a file, a FIFO or a device, without delaying the end of a run for long. */
import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { setTimeout } from 'node:timers/promises'

/** A FIFO may get a reader soon, or its reader may read on. */
const MAX_WAIT_MS = 2000
const RETRY_MS = 50
const FILE_MODE = 0o666

/** @throws the error of the file system, or that nobody reads the FIFO */
export async function appendLine(path: string, line: string): Promise<void> {
  const until = performance.now() + MAX_WAIT_MS
  // Without O_NONBLOCK, opening a FIFO blocks a thread until a reader comes, and the process cannot exit meanwhile.
  const file = await retryWhileBusy(
    () =>
      open(
        path,
        constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK | constants.O_NOCTTY,
        FILE_MODE,
      ),
    until,
  )
  try {
    const facts = await file.stat()
    if (facts.isFile()) await writeWhole(file, Buffer.from(`${line}\n`), facts.size)
    else await writeAll(file, Buffer.from(`${line}\n`), until)
  } finally {
    await file.close()
  }
}

async function writeAll(file: FileHandle, bytes: Buffer, until: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await retryWhileBusy(() => file.write(bytes, at), until)).bytesWritten
}

/** The line is durable or absent, because half a line would spoil the next one. */
async function writeWhole(file: FileHandle, bytes: Buffer, size: number): Promise<void> {
  let at = 0
  try {
    while (at < bytes.length) {
      const { bytesWritten } = await file.write(bytes, at)
      if (bytesWritten === 0) throw Object.assign(new Error('ENOSPC: the disk takes no more'), { code: 'ENOSPC' })
      at += bytesWritten
    }
    await file.datasync()
  } catch (error) {
    // If another process has appended meanwhile, nothing can be taken back.
    if (at > 0 && (await file.stat()).size === size + at) await file.truncate(size)
    throw error
  }
}

async function retryWhileBusy<T>(attempt: () => Promise<T>, until: number): Promise<T> {
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'ENXIO' && code !== 'EAGAIN') throw error
      if (performance.now() >= until)
        throw new Error(code === 'ENXIO' ? 'it is a FIFO that nobody reads' : 'its reader does not read', {
          cause: error,
        })
    }
    await setTimeout(RETRY_MS)
  }
}
