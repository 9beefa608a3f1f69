import { chmod, chown, lstat, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { UsageError } from '../../src/core/errors'
import {
  existingStateRoot,
  instancesOf,
  nameFault,
  namesOf,
  openStateRoot,
  ownDirectory,
  prepareInstance,
  stateRoot,
} from '../../src/state/directory'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'manifold-state-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true })
})

describe('where STATE is', () => {
  test.each([
    ['--state, made absolute', 'here', { STATE_DIRECTORY: '/a', XDG_STATE_HOME: '/x' }, join(process.cwd(), 'here')],
    [
      'the first of STATE_DIRECTORY',
      undefined,
      { STATE_DIRECTORY: '/var/lib/a:/var/lib/b', XDG_STATE_HOME: '/x' },
      '/var/lib/a',
    ],
    ['XDG_STATE_HOME', undefined, { XDG_STATE_HOME: '/x', HOME: '/home/u' }, '/x/manifold'],
    [
      'the home folder, where XDG_STATE_HOME is relative and so to be ignored',
      undefined,
      { XDG_STATE_HOME: 'x', HOME: '/home/u' },
      '/home/u/.local/state/manifold',
    ],
    [
      'the home folder, where STATE_DIRECTORY is empty',
      undefined,
      { STATE_DIRECTORY: '', HOME: '/home/u' },
      '/home/u/.local/state/manifold',
    ],
  ])('%s', (_, given, env, expected) => {
    expect(stateRoot(given, env)).toBe(expected)
  })

  test('it is made with all that is missing above it, for its owner only', async () => {
    const root = await openStateRoot(join(folder, 'a/b/c'))
    expect((await stat(root)).mode & 0o777).toBe(0o700)
    expect((await stat(join(folder, 'a'))).mode & 0o777).toBe(0o700)
  })

  test('it may itself be a symbolic link, resolved once', async () => {
    await mkdir(join(folder, 'real'))
    await symlink(join(folder, 'real'), join(folder, 'link'))
    expect(await openStateRoot(join(folder, 'link'))).toBe(join(folder, 'real'))
    expect(await existingStateRoot(join(folder, 'link'))).toBe(join(folder, 'real'))
  })

  test('a file in its place, a path through a file, a dangling link: usage errors that name --state', async () => {
    await writeFile(join(folder, 'file'), '')
    await symlink(join(folder, 'nowhere'), join(folder, 'dangling'))
    for (const path of ['file', 'file/below', 'dangling']) {
      await expect(openStateRoot(join(folder, path))).rejects.toThrow(UsageError)
      await expect(openStateRoot(join(folder, path))).rejects.toThrow(/--state/)
    }
  })

  test('one that everybody may rename in is refused, unless it is sticky as /tmp is', async () => {
    await mkdir(join(folder, 'open'))
    await chmod(join(folder, 'open'), 0o777)
    await expect(openStateRoot(join(folder, 'open'))).rejects.toThrow(/chmod o-w/)
    await chmod(join(folder, 'open'), 0o1777)
    expect(await openStateRoot(join(folder, 'open'))).toBe(join(folder, 'open'))
  })

  test('looking does not make it', async () => {
    expect(await existingStateRoot(join(folder, 'missing'))).toBeUndefined()
    expect(await readdir(folder)).toEqual([])
  })
})

describe('names', () => {
  test.each(['a', 'ws-feed.example-to-s3-lake-3fa9c1d2', 'A_b.c-9', 'x'.repeat(100)])('%s is one', (name) => {
    expect(nameFault(name)).toBeUndefined()
  })
  test.each(['', '.', '..', '.hidden', 'a/b', 'a b', 'ä', 'x'.repeat(101), 'a\n', 'a\0'])('%j is none', (name) => {
    expect(nameFault(name)).toMatch(/cannot be a flow's name/)
  })
  test('a name that is none never reaches the disk', async () => {
    await expect(prepareInstance(folder, '..', 0)).rejects.toThrow(UsageError)
    await expect(prepareInstance(folder, 'a/b', 0)).rejects.toThrow(UsageError)
    expect(await readdir(folder)).toEqual([])
  })
})

describe('below STATE', () => {
  test('folders are made for their owner only, and found again', async () => {
    const paths = await prepareInstance(folder, 'flow', 2)
    await prepareInstance(folder, 'flow', 10)
    expect((await stat(paths.directory)).mode & 0o777).toBe(0o700)
    expect((await stat(join(folder, 'flow'))).mode & 0o777).toBe(0o700)
    await mkdir(join(folder, 'flow', 'spare'))
    await mkdir(join(folder, '.hidden'))
    await writeFile(join(folder, 'file'), '')
    expect(await instancesOf(folder, 'flow')).toEqual([2, 10])
    expect(await namesOf(folder)).toEqual(['flow'])
    expect(await instancesOf(folder, 'unknown')).toEqual([])
  })

  test.each([
    ['the flow', 'flow'],
    ['the instance', 'flow/0'],
    ['the flow file', 'flow/0/flow'],
    ['the lock', 'flow/0/lock'],
    ['the spool', 'flow/0/spool'],
    ['a segment', 'flow/0/spool/0001.seg'],
  ])('a symbolic link planted as %s is refused, and what it points to untouched', async (_, planted) => {
    const prey = join(folder, 'prey')
    await mkdir(prey)
    await mkdir(join(folder, 'state', planted, '..'), { recursive: true, mode: 0o700 })
    await symlink(prey, join(folder, 'state', planted))
    await expect(prepareInstance(join(folder, 'state'), 'flow', 0)).rejects.toThrow(UsageError)
    await expect(prepareInstance(join(folder, 'state'), 'flow', 0)).rejects.toThrow(
      new RegExp(`state/${planted} is a symbolic link.*remove it`),
    )
    expect(await readdir(prey)).toEqual([])
  })

  test.each([
    ['flow', 0o770],
    ['flow/0', 0o702],
    ['flow/0/flow', 0o620],
  ])('%s with mode %o, that others can write, is refused', async (path, mode) => {
    await prepareInstance(folder, 'flow', 0)
    if (path === 'flow/0/flow') await writeFile(join(folder, path), '')
    await chmod(join(folder, path), mode)
    await expect(prepareInstance(folder, 'flow', 0)).rejects.toThrow(
      new RegExp(`${path} can be written by others.*chmod go-w`),
    )
  })

  const root = process.getuid?.() === 0
  ;(root ? test.each : test.skip.each)(['flow', 'flow/0', 'flow/0/spool'])(
    "another user's %s is refused, naming both users (needs root)",
    async (path) => {
      const paths = await prepareInstance(folder, 'flow', 0)
      await mkdir(paths.spool)
      await chown(join(folder, path), 12_345, 12_345)
      await expect(prepareInstance(folder, 'flow', 0)).rejects.toThrow(
        `${join(folder, path)} belongs to user 12345, and this is user 0: run as user 12345, or name another folder with --state`,
      )
    },
  )

  test('a file or a FIFO in the way is refused', async () => {
    await writeFile(join(folder, 'file'), '')
    await expect(ownDirectory(join(folder, 'file'))).rejects.toThrow(/in the way/)
    const paths = await prepareInstance(folder, 'flow', 0)
    const { execFileSync } = await import('node:child_process')
    execFileSync('mkfifo', [paths.flowFile])
    await expect(prepareInstance(folder, 'flow', 0)).rejects.toThrow(/neither a file nor a folder/)
    expect((await lstat(paths.flowFile)).isFIFO()).toBe(true)
  })

  test('what lies there in order is accepted as it is', async () => {
    const paths = await prepareInstance(folder, 'flow', 0)
    await mkdir(paths.spool)
    await writeFile(join(paths.spool, '1.seg'), 'x', { mode: 0o600 })
    await writeFile(paths.rejected, '{}\n', { mode: 0o600 })
    await prepareInstance(folder, 'flow', 0)
    expect(await readdir(paths.directory)).toEqual(['rejected.ndjson', 'spool'])
  })
})
