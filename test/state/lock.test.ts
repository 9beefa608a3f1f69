import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DiskFailed } from '../../src/core/errors'
import { acquire, holderOf, isLocked } from '../../src/state/lock'
import { otherProcess } from './other-process'
import type { OtherProcess } from './other-process'

let folder: string
let path: string
const others: OtherProcess[] = []
const other = async (paths: readonly string[]): Promise<OtherProcess> => {
  const made = await otherProcess(paths)
  others.push(made)
  return made
}
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'manifold-lock-'))
  path = join(folder, 'lock')
})
afterEach(async () => {
  for (const one of others.splice(0)) await one.kill()
  await rm(folder, { recursive: true })
})

test('a second process is refused, and gets the lock once it is released', async () => {
  const lock = await acquire(path)
  expect((await other([path])).answers).toEqual(['refused'])
  lock?.release()
  expect((await other([path])).answers).toEqual(['held'])
})

test('the lock of another process is refused at once, its pid told, and free the moment it is killed', async () => {
  const holder = await other([path])
  const before = performance.now()
  expect(await acquire(path)).toBeUndefined()
  expect(performance.now() - before).toBeLessThan(500)
  expect(await isLocked(path)).toBe(true)
  expect(await holderOf(path)).toBe(holder.pid)
  await holder.kill()
  expect(await isLocked(path)).toBe(false)
  const lock = await acquire(path)
  expect(lock).toBeDefined()
  lock?.release()
})

test('the same process cannot take it twice, and trying or looking does not free it', async () => {
  const lock = await acquire(path)
  expect(await acquire(path)).toBeUndefined()
  expect(await isLocked(path)).toBe(true)
  expect(await holderOf(path)).toBe(process.pid)
  expect((await other([path])).answers).toEqual(['refused'])
  lock?.release()
  expect(await isLocked(path)).toBe(false)
})

test('looking leaves no trace, where there is a lock file and where there is none', async () => {
  expect(await isLocked(path)).toBe(false)
  expect(await readdir(folder)).toEqual([])
  ;(await acquire(path))?.release()
  expect(await isLocked(path)).toBe(false)
  expect(await readdir(folder)).toEqual(['lock'])
})

test('somebody else who is only looking does not look like a holder', async () => {
  ;(await acquire(path))?.release()
  expect((await other(['--look', path])).answers).toEqual(['looking'])
  expect(await isLocked(path)).toBe(false)
})

test('somebody who looks just when a process starts does not keep it from starting', async () => {
  ;(await acquire(path))?.release()
  const looking = await other(['--look', path])
  const lock = acquire(path)
  await looking.kill()
  expect(await lock).toBeDefined()
  ;(await lock)?.release()
})

test('lock and pid can be read by their owner only', async () => {
  const lock = await acquire(path)
  expect((await stat(path)).mode & 0o777).toBe(0o600)
  expect((await stat(`${path}.pid`)).mode & 0o777).toBe(0o600)
  lock?.release()
})

test('releasing twice is harmless', async () => {
  const lock = await acquire(path)
  lock?.release()
  const again = await acquire(path)
  lock?.release()
  expect(await isLocked(path)).toBe(true)
  again?.release()
})

test('a lock that nobody refers to any more is still held after a garbage collection', async () => {
  // In a process of its own, with gc at hand; the lock object is dropped at once.
  const script = `const { DatabaseSync } = process.getBuiltinModule('node:sqlite'); const { acquire } = require(${JSON.stringify(join(__dirname, 'compiled.js'))}).load('state/lock')
    acquire(${JSON.stringify(path)}).then(() => setTimeout(() => { for (let i = 0; i < 5; i++) gc(); process.stdout.write('collected') }, 20)); setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--expose-gc', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const gone = once(child, 'exit')
  await once(child.stdout, 'data')
  const held = await isLocked(path)
  child.kill('SIGKILL')
  await gone
  expect(held).toBe(true)
})

test('where nothing can be locked, the message says what to do', async () => {
  await expect(acquire(join(folder, 'missing', 'lock'))).rejects.toThrow(DiskFailed)
  await expect(acquire(join(folder, 'missing', 'lock'))).rejects.toThrow(/--state/)
})
