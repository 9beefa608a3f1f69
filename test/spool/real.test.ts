/** The spool on this machine's own file systems: processes that are killed, a disk that is full. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { buildSync } from 'esbuild'
import { LineBatch } from '../../src/core/batch'
import { DiskFailed } from '../../src/core/errors'
import { systemClock } from '../../src/kit/clock'
import { realFileSystem } from '../../src/kit/file-system'
import { openSpool } from '../../src/spool'
import { collect, lines, policy, silent } from './support'

const ID = 'aabbccddeeff00112233445566778899'
const forever = new AbortController().signal
let home: string
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'spool-'))
})
afterAll(async () => {
  await rm(home, { recursive: true })
})

function config(directory: string, acceptedThrough = 0): Parameters<typeof openSpool>[0] {
  return {
    fs: realFileSystem,
    directory,
    clock: systemClock,
    log: silent,
    id: ID,
    known: { sequence: 0, clean: false, tail: 0, acceptedThrough },
    reserve: 0,
    segmentBytes: 1 << 20,
    policies: [{ sink: 'archive', policy: policy({ sealBytes: 300_000 }) }],
  }
}

test('kill -9 in the middle of appends, again and again: all that was acknowledged is there once and in order', async () => {
  const program = join(home, 'appender.js')
  buildSync({
    entryPoints: [join(__dirname, 'appender.ts')],
    bundle: true,
    platform: 'node',
    format: 'cjs',
    outfile: program,
    logLevel: 'error',
  })
  const directory = join(home, 'killed')
  let next = 0
  for (let run = 0; run < 6; run++) {
    const child = spawn(process.execPath, [program, directory, ID, String(next)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const exited = once(child, 'exit')
    let acknowledged = next
    let seen = 0
    const enough = 20 + 137 * run
    for await (const line of createInterface({ input: child.stdout })) {
      acknowledged = Number(line)
      if (++seen === enough) child.kill('SIGKILL')
    }
    await exited
    const { spool, recovered } = await openSpool(config(directory))
    expect(recovered.gaps).toEqual([])
    const found = Number(spool.position('numbers', 'p'))
    expect(found).toBeGreaterThanOrEqual(acknowledged)
    expect(spool.countFrom(0)).toBe(found)
    next = found
    await spool.end()
    let number = 0
    const reader = spool.segments('archive', 0)
    for (let segment = await reader.next(forever); segment !== null; segment = await reader.next(forever)) {
      for (const line of (await collect(segment.read(0))).toString().split('\n').slice(0, -1))
        if (!line.startsWith(`${number++} x`))
          throw new Error(`${line.slice(0, 20)} comes in the place of ${number - 1}`)
    }
    expect(number).toBe(found)
    await spool.close()
  }
}, 60_000)

test('a full tmpfs: appends wait, nothing acknowledged is lost, draining goes on, and so does appending after it', async () => {
  const mount = join(home, 'small')
  await mkdir(mount)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', mount], { stdio: 'pipe' })
  } catch (error) {
    console.warn(
      `SKIPPED: a full tmpfs, for it cannot be mounted here: ${String((error as { stderr?: unknown }).stderr)}`,
    )
    return
  }
  try {
    const { spool } = await openSpool(config(join(mount, 'spool')))
    const line = Buffer.from(`${'y'.repeat(999)}\n`)
    const appends = Array.from({ length: 80 }, (_, index) =>
      spool.append(
        lines([], {
          batch: new LineBatch([Buffer.concat(Array.from({ length: 100 }, () => line))], 100),
          last: String(index),
        }),
      ),
    )
    await new Promise<void>((resolve) => {
      spool.onStatus(({ full }) => {
        if (full) resolve()
      })
    })
    const reader = spool.segments('archive', 0)
    let records = 0
    const draining = (async () => {
      for (let segment = await reader.next(forever); segment !== null; segment = await reader.next(forever)) {
        expect(
          (await collect(segment.read(0))).equals(Buffer.concat(Array.from({ length: segment.count }, () => line))),
        ).toBe(true)
        records += segment.count
        await spool.drop(segment.next)
      }
    })()
    await Promise.all(appends)
    await spool.end()
    await draining
    expect(records).toBe(8000)
    expect(spool.status().full).toBe(false)
    await spool.close()
  } finally {
    execFileSync('umount', [mount])
  }
}, 60_000)

test('a full tmpfs behind a sink of batches: groups are written as they fit, and a file that was read and dropped gives its space back', async () => {
  const mount = join(home, 'small-batches')
  await mkdir(mount)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', mount], { stdio: 'pipe' })
  } catch (error) {
    console.warn(
      `SKIPPED: a full tmpfs, for it cannot be mounted here: ${String((error as { stderr?: unknown }).stderr)}`,
    )
    return
  }
  try {
    const { spool } = await openSpool({ ...config(join(mount, 'spool')), policies: [] })
    const block = Buffer.concat(Array.from({ length: 500 }, () => Buffer.from(`${'z'.repeat(999)}\n`)))
    const appends = Array.from({ length: 40 }, (_, index) =>
      spool.append(lines([], { batch: new LineBatch([block], 500), last: String(index) })),
    )
    await new Promise<void>((resolve) => {
      spool.onStatus(({ full }) => {
        if (full) resolve()
      })
    })
    const reader = spool.batches('queue', 0)
    let records = 0
    while (records < 20_000) {
      const frame = await reader.next(forever)
      if (frame === null) break
      records += frame.batch.count
      await spool.drop(frame.next)
    }
    await Promise.all(appends)
    expect(records).toBe(20_000)
    await spool.close()
  } finally {
    execFileSync('umount', ['-l', mount])
  }
}, 60_000)

test('a file of the spool that is a symbolic link is not followed', async () => {
  const directory = join(home, 'linked')
  await mkdir(directory)
  await symlink('/etc/passwd', join(directory, '0000000000000000.seg'))
  await expect(openSpool(config(directory))).rejects.toThrow(DiskFailed)
})
