import * as fc from 'fast-check'
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Log } from '../../src/core/contract'
import { DiskFailed, UsageError } from '../../src/core/errors'
import { realFileSystem } from '../../src/kit/file-system'
import type { File, FileSystem } from '../../src/kit/file-system'
import { openFlowFile, readFlowFile } from '../../src/state/flow-file'
import { FailingDisk } from './failing-disk'

const silent: Log = { debug: () => undefined, info: () => undefined, warn: () => undefined }
interface Value {
  readonly n: number
  readonly pad?: string
}

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'manifold-flow-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true })
})

describe('on a real file system', () => {
  test('a new flow has nothing stored and leaves nothing behind until its first save', async () => {
    const file = await openFlowFile<Value>(realFileSystem, join(folder, 'flow'), silent)
    expect(file.stored).toBeUndefined()
    await file.close()
    expect(await readdir(folder)).toEqual([])
  })

  test('the last saved value is there at the next opening, and the file keeps its size', async () => {
    const path = join(folder, 'flow')
    const file = await openFlowFile<Value>(realFileSystem, path, silent)
    await file.save({ n: 1 })
    const size = (await readFile(path)).length
    for (let n = 2; n <= 7; n++) await file.save({ n })
    await file.close()
    expect((await readFile(path)).length).toBe(size)
    const again = await openFlowFile<Value>(realFileSystem, path, silent)
    expect(again.stored).toEqual({ n: 7 })
    await again.close()
    expect(await readFlowFile(realFileSystem, path)).toEqual({ n: 7 })
    expect(await readdir(folder)).toEqual(['flow'])
  })

  test('a value that outgrew its slot is kept whole', async () => {
    const path = join(folder, 'flow')
    const file = await openFlowFile<Value>(realFileSystem, path, silent)
    await file.save({ n: 1 })
    await file.save({ n: 2, pad: 'x'.repeat(300_000) })
    await file.save({ n: 3, pad: 'y'.repeat(310_000) })
    await file.close()
    expect(await readFlowFile(realFileSystem, path)).toEqual({ n: 3, pad: 'y'.repeat(310_000) })
  })

  test('either slot flipped at any byte of header and body: the other one is used; both: lost, which is not a new flow', async () => {
    const path = join(folder, 'flow')
    const file = await openFlowFile<Value>(realFileSystem, path, silent)
    await file.save({ n: 1 })
    await file.save({ n: 2 })
    await file.save({ n: 3 })
    await file.close()
    const image = await readFile(path)
    const slot = image.length / 2
    for (let at = 0; at < 32 + '{"n":3}'.length; at++) {
      for (const [broken, left] of [
        [0, 3],
        [1, 2],
      ] as const) {
        const copy = Buffer.from(image)
        copy[broken * slot + at] = (copy[broken * slot + at] ?? 0) ^ 0x41
        await writeFile(path, copy)
        expect(await readFlowFile(realFileSystem, path)).toEqual({ n: left })
        copy[(1 - broken) * slot + at] = (copy[(1 - broken) * slot + at] ?? 0) ^ 0x41
        await writeFile(path, copy)
        const lost = await openFlowFile<Value>(realFileSystem, path, silent)
        expect([lost.stored, lost.lost]).toEqual([undefined, true])
        await lost.close()
      }
    }
  })

  test.each([
    [0, undefined],
    [1, undefined],
    [31, undefined],
    [4096, 2],
    [32_768, 2],
    [40_000, 3],
    [65_535, 3],
    [65_536, 3],
    [65_537, 3],
    [98_304, 3],
    [200_000, 3],
  ])(
    'of a file of %d bytes, cut or with NULs behind it, the slot that is whole is used, and the next save makes the file whole',
    async (length, left) => {
      const path = join(folder, 'flow')
      const file = await openFlowFile<Value>(realFileSystem, path, silent)
      for (const n of [1, 2, 3]) await file.save({ n })
      await file.close()
      const image = Buffer.alloc(length)
      ;(await readFile(path)).copy(image)
      await writeFile(path, image)
      const again = await openFlowFile<Value>(realFileSystem, path, silent)
      expect([again.stored?.n, again.lost]).toEqual([left, left === undefined])
      await again.save({ n: 4 })
      await again.close()
      expect(await readFlowFile(realFileSystem, path)).toEqual({ n: 4 })
      expect((await readFile(path)).length).toBe(65_536)
    },
  )

  test('a newer format is refused as usage and left untouched', async () => {
    const path = join(folder, 'flow')
    const file = await openFlowFile<Value>(realFileSystem, path, silent)
    await file.save({ n: 1 })
    await file.close()
    const image = await readFile(path)
    const { crc32 } = await import('node:zlib')
    image.writeUInt32LE(2, 8)
    image.writeUInt32LE(crc32(image.subarray(32, 32 + image.readUInt32LE(12)), crc32(image.subarray(8, 28))), 28)
    await writeFile(path, image)
    await expect(openFlowFile(realFileSystem, path, silent)).rejects.toThrow(UsageError)
    await expect(openFlowFile(realFileSystem, path, silent)).rejects.toThrow(/newer manifold/)
    expect((await readFile(path)).equals(image)).toBe(true)
  })

  test('a symbolic link in place of the file is refused', async () => {
    await writeFile(join(folder, 'elsewhere'), 'x')
    await symlink(join(folder, 'elsewhere'), join(folder, 'flow'))
    await expect(openFlowFile(realFileSystem, join(folder, 'flow'), silent)).rejects.toThrow(UsageError)
    expect(await readFile(join(folder, 'elsewhere'), 'utf8')).toBe('x')
  })
})

describe('saves that come together', () => {
  test('while one write runs, all later calls share one more write, of the newest value', async () => {
    const synced: number[] = []
    const path = join(folder, 'flow')
    let writes = 0
    const counting: FileSystem = {
      ...realFileSystem,
      async open(at, how): Promise<File> {
        const file = await realFileSystem.open(at, how)
        return {
          write: (buffers, offset) => {
            writes++
            return file.write(buffers, offset)
          },
          datasync: () => file.datasync(),
          read: (into, offset) => file.read(into, offset),
          truncate: (length) => file.truncate(length),
          size: () => file.size(),
          close: () => file.close(),
        }
      },
    }
    const file = await openFlowFile<Value>(counting, path, silent)
    await file.save({ n: 0 })
    writes = 0
    const saves = Array.from({ length: 50 }, (_, n) =>
      file.save({ n: n + 1 }).then(() => {
        synced.push(n + 1)
      }),
    )
    await Promise.all(saves)
    expect(writes).toBe(2)
    expect(synced).toHaveLength(50)
    await file.close()
    expect(await readFlowFile(realFileSystem, path)).toEqual({ n: 50 })
  })

  test('closing waits for what was asked to be saved; a later save is refused', async () => {
    const path = join(folder, 'flow')
    const file = await openFlowFile<Value>(realFileSystem, path, silent)
    const saves = [file.save({ n: 1 }), file.save({ n: 2 }), file.save({ n: 3 })]
    await file.close()
    await Promise.all(saves)
    expect(await readFlowFile(realFileSystem, path)).toEqual({ n: 3 })
    await expect(file.save({ n: 4 })).rejects.toThrow(DiskFailed)
  })
})

describe('on a disk that fails', () => {
  test('a failed fdatasync sends the value to a new file, never again through the old descriptor', async () => {
    const disk = new FailingDisk(1)
    const file = await openFlowFile<Value>(disk, '/s/flow', silent)
    await file.save({ n: 1 })
    disk.failNext('datasync', 'EIO')
    await file.save({ n: 2 })
    await file.save({ n: 3 })
    expect(await readFlowFile(disk, '/s/flow')).toEqual({ n: 3 })
    expect(disk.created).toBe(2)
    await file.close()
  })

  test('failing twice is a disk failure, and what was acknowledged before is still there', async () => {
    const disk = new FailingDisk(1)
    const file = await openFlowFile<Value>(disk, '/s/flow', silent)
    await file.save({ n: 1 })
    disk.failNext('datasync', 'EIO', 2)
    await expect(file.save({ n: 2 })).rejects.toThrow(DiskFailed)
    await file.save({ n: 3 })
    await file.close()
    expect(await readFlowFile(disk, '/s/flow')).toEqual({ n: 3 })
  })

  test('a failure after the renaming does not leave later saves in a file without a name', async () => {
    const disk = new FailingDisk(1)
    const file = await openFlowFile<Value>(disk, '/s/flow', silent)
    await file.save({ n: 1 })
    disk.failNext('syncDirectory', 'EIO')
    await expect(file.save({ n: 2, pad: 'x'.repeat(100_000) })).rejects.toThrow(DiskFailed)
    await file.save({ n: 3 })
    await file.close()
    expect(await readFlowFile(disk, '/s/flow')).toEqual({ n: 3 })
  })

  test('a full disk does not prevent saving within the slot; outgrowing it says what to do', async () => {
    const disk = new FailingDisk(1)
    const file = await openFlowFile<Value>(disk, '/s/flow', silent)
    await file.save({ n: 1 })
    disk.full = true
    await file.save({ n: 2 })
    await expect(file.save({ n: 3, pad: 'x'.repeat(100_000) })).rejects.toThrow(/no space left.*make room/)
    await file.save({ n: 4 })
    await file.close()
    expect(await readFlowFile(disk, '/s/flow')).toEqual({ n: 4 })
  })
})

describe('when power is lost', () => {
  interface Script {
    readonly sizes: readonly number[]
  }
  /**
   * Runs the saves until the disk dies at step `crashAt`, restarts it, and returns what was acknowledged, what was
   * asked last, and what is found.
   */
  async function crashed(
    seed: number,
    crashAt: number,
    { sizes }: Script,
  ): Promise<{ acknowledged: number; asked: number; found: number; finished: boolean }> {
    const disk = new FailingDisk(seed)
    let acknowledged = 0
    let asked = 0
    // A first life without a crash leaves a file to go on with in half of the histories.
    if (seed % 2 === 0) {
      const file = await openFlowFile<Value>(disk, '/s/flow', silent)
      await file.save({ n: (asked = acknowledged = 1) })
      await file.close()
    }
    disk.crashAfter(crashAt)
    try {
      const file = await openFlowFile<Value>(disk, '/s/flow', silent)
      for (const size of sizes) {
        asked++
        await file.save({ n: asked, pad: 'p'.repeat(size) })
        acknowledged = asked
      }
      await file.close()
    } catch {
      /* the crash */
    }
    const finished = !disk.crashed
    disk.restart()
    const file = await openFlowFile<Value>(disk, '/s/flow', silent)
    const found = file.stored?.n ?? 0
    // The survivor must be a file to go on with.
    await file.save({ n: 1000 })
    await file.close()
    expect(await readFlowFile<Value>(disk, '/s/flow')).toEqual({ n: 1000 })
    return { acknowledged, asked, found, finished }
  }

  test('at every step of every history, the value found is the acknowledged one or the one being saved', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 2 ** 31 }),
        fc.array(fc.oneof(fc.constant(10), fc.integer({ min: 0, max: 200_000 })), { minLength: 1, maxLength: 5 }),
        async (seed, sizes) => {
          for (let step = 0; ; step++) {
            const { acknowledged, asked, found, finished } = await crashed(seed, step, { sizes })
            expect([acknowledged, asked]).toContain(found)
            if (finished) break
          }
        },
      ),
      { numRuns: 60 },
    )
  })
})
