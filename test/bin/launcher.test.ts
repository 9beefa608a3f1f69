/**
 * Tests bin/manifold.js in packages of its own, with a stub for the program: which Node it starts, with which
 * arguments, and that nothing is left.
 */
import { execFileSync, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'

const LAUNCHER = join(__dirname, '../../bin/manifold.js')
const STUB = `
exports.main = (argv) => {
  const stay = { stay: () => { setInterval(() => {}, 1000) }, exit: () => { process.exitCode = Number(argv[1]) } }[argv[0]]
  if (argv[0] === 'stay') for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => {
    console.log(JSON.stringify({ signal }))
    if (argv[1] === 'die') { process.removeAllListeners(signal); process.kill(process.pid, signal) } else if (signal === 'SIGHUP') process.exit(0)
  })
  stay?.()
  // Only now: whoever reads this sends signals.
  console.log(JSON.stringify({ argv, execArgv: process.execArgv, version: process.version, pid: process.pid, ppid: process.ppid, env: Object.keys(process.env).filter((name) => /^MANIFOLD|^NODE_CHANNEL/.test(name)) }))
}`
interface Report {
  readonly argv: readonly string[]
  readonly execArgv: readonly string[]
  readonly version: string
  readonly pid: number
  readonly ppid: number
  readonly env: readonly string[]
}

let folder: string
let pack: string
const running: ChildProcess[] = []

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'manifold bin ')))
  pack = join(folder, 'lib/node_modules/mani fold')
  await mkdir(join(pack, 'bin'), { recursive: true })
  await mkdir(join(pack, 'dist/command'), { recursive: true })
  await copyFile(LAUNCHER, join(pack, 'bin/manifold.js'))
  await writeFile(join(pack, 'dist/command/main.js'), STUB)
})
afterEach(async () => {
  for (const child of running.splice(0))
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
  await rm(folder, { recursive: true })
})

/** The pinned Node where npm puts it: in the package's own folder. */
async function withPinned(): Promise<void> {
  const modules = join(pack, 'node_modules')
  await mkdir(join(modules, '.bin'), { recursive: true })
  await mkdir(join(modules, `node-${process.platform}-${process.arch}/bin`), { recursive: true })
  await writeFile(join(modules, `node-${process.platform}-${process.arch}/package.json`), '{}')
  await symlink(process.execPath, join(modules, `node-${process.platform}-${process.arch}/bin/node`))
  await symlink(`../node-${process.platform}-${process.arch}/bin/node`, join(modules, '.bin/node'))
}

interface Started {
  readonly child: ChildProcess
  readonly lines: AsyncIterator<string>
  first(): Promise<Report>
}
function start(command: string, args: readonly string[], path = '/usr/bin:/bin'): Started {
  const child = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: folder,
    env: { PATH: path, HOME: folder },
  })
  running.push(child)
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return { child, lines, first: async () => JSON.parse((await lines.next()).value as string) as Report }
}
async function ended(child: ChildProcess): Promise<readonly [number | null, NodeJS.Signals | null]> {
  return child.exitCode !== null || child.signalCode !== null
    ? [child.exitCode, child.signalCode]
    : ((await once(child, 'exit')) as [number | null, NodeJS.Signals | null])
}

/** A folder to be the PATH, with sh and coreutils only: no Node in it. */
async function emptyPath(): Promise<string> {
  const bin = join(folder, 'path')
  await mkdir(bin)
  for (const tool of ['sh', 'readlink'])
    await symlink(execFileSync('/bin/sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).trim(), join(bin, tool))
  return bin
}

describe('run by the kernel', () => {
  test('it becomes the pinned Node, keeps its pid, and hands over argv unchanged', async () => {
    await withPinned()
    const { child, first } = start(
      join(pack, 'bin/manifold.js'),
      ['--from', 'a b', '', '$HOME', '*', '-'],
      await emptyPath(),
    )
    const report = await first()
    expect(report.pid).toBe(child.pid)
    expect(report.argv).toEqual(['--from', 'a b', '', '$HOME', '*', '-'])
    expect(report.version).toBe(process.version)
    expect(report.execArgv).toEqual(['--disable-sigusr1', '--max-semi-space-size=2'])
    expect(await ended(child)).toEqual([0, null])
  })

  test('through a chain of symbolic links, relative and absolute, as npm makes them', async () => {
    await withPinned()
    await mkdir(join(folder, 'some bin'))
    await symlink('../lib/node_modules/mani fold/bin/manifold.js', join(folder, 'some bin/manifold'))
    await symlink(join(folder, 'some bin/manifold'), join(folder, 'linked'))
    const path = await emptyPath()
    for (const command of [join(folder, 'some bin/manifold'), join(folder, 'linked'), './linked']) {
      const { first, child } = start(command, ['x'], path)
      expect(await first()).toMatchObject({ argv: ['x'], version: process.version })
      await ended(child)
    }
    // PATH leads to it.
    const { first } = start('/bin/sh', ['-c', 'manifold y'], `${join(folder, 'some bin')}:${path}`)
    expect(await first()).toMatchObject({ argv: ['y'], version: process.version })
  })

  test('as a dependency of another package it finds the Node that npm put beside it', async () => {
    await mkdir(join(folder, 'lib/node_modules/.bin'))
    await symlink(process.execPath, join(folder, 'lib/node_modules/.bin/node'))
    const { first } = start(join(pack, 'bin/manifold.js'), [], await emptyPath())
    expect((await first()).version).toBe(process.version)
  })

  test('without a pinned Node the one in PATH serves', async () => {
    const path = await emptyPath()
    await symlink(process.execPath, join(path, 'node'))
    const { first } = start(join(pack, 'bin/manifold.js'), ['x'], path)
    expect(await first()).toMatchObject({ argv: ['x'], version: process.version })
  })

  test('without any Node one line says what to do, exit 2', async () => {
    const { child } = start(join(pack, 'bin/manifold.js'), [], await emptyPath())
    let text = ''
    child.stderr?.on('data', (chunk: Buffer) => {
      text += chunk.toString()
    })
    expect(await ended(child)).toEqual([2, null])
    expect(text).toMatch(/^manifold: no Node to run with: 'npm ci' in .*\n$/)
  })

  test('before it is built one line says so, exit 2', async () => {
    await withPinned()
    await rm(join(pack, 'dist'), { recursive: true })
    const { child } = start(join(pack, 'bin/manifold.js'), [])
    let text = ''
    child.stderr?.on('data', (chunk: Buffer) => {
      text += chunk.toString()
    })
    expect(await ended(child)).toEqual([2, null])
    expect(text).toMatch(/^manifold: it is not built yet: .*npm run build.*\n$/)
  })

  test('SIGUSR1 opens no inspector, nor does it end the program, with the flag and without', async () => {
    const path = await emptyPath()
    await symlink(process.execPath, join(path, 'node'))
    for (const pinned of [false, true]) {
      if (pinned) await withPinned()
      const { child, first, lines } = start(join(pack, 'bin/manifold.js'), ['stay'], path)
      await first()
      let text = ''
      child.stderr?.on('data', (chunk: Buffer) => {
        text += chunk.toString()
      })
      child.kill('SIGUSR1')
      child.kill('SIGTERM')
      expect(JSON.parse((await lines.next()).value as string)).toEqual({ signal: 'SIGTERM' })
      child.kill('SIGHUP')
      expect(await ended(child)).toEqual([0, null])
      expect(text).toBe('')
    }
  })
})

/** One below 24 in PATH, as many machines have it. */
function olderNode(): string | undefined {
  const places = ['/usr/bin', '/usr/local/bin', ...(process.env['PATH'] ?? '').split(delimiter)]
  return places
    .map((place) => join(place, 'node'))
    .find((path) => {
      if (!existsSync(path)) return false
      const major = Number(execFileSync(path, ['-p', 'process.versions.node'], { encoding: 'utf8' }).split('.')[0])
      return major >= 18 && major < 24
    })
}
const older = olderNode()
;(older === undefined ? describe.skip : describe)(
  'run by an older Node (needs one between 18 and 23 on this machine)',
  () => {
    const node = older ?? ''

    test('the pinned one runs, argv and exit code are passed on', async () => {
      await withPinned()
      const { child, first } = start(node, [join(pack, 'bin/manifold.js'), 'exit', '75'])
      expect(await first()).toMatchObject({
        argv: ['exit', '75'],
        version: process.version,
        execArgv: ['--disable-sigusr1'],
        env: [],
      })
      expect(await ended(child)).toEqual([75, null])
    })

    test('a signal is passed on once, also where the whole group gets it', async () => {
      await withPinned()
      for (const group of [false, true]) {
        const child = spawn(node, [join(pack, 'bin/manifold.js'), 'stay'], {
          stdio: ['ignore', 'pipe', 'inherit'],
          detached: true,
          env: { PATH: '/usr/bin:/bin' },
        })
        running.push(child)
        const lines: string[] = []
        const reader = createInterface({ input: child.stdout })
        const heard = (): Promise<unknown[]> => once(reader, 'line')
        reader.on('line', (line) => lines.push(line))
        await heard()
        for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
          const answer = heard()
          process.kill(group ? -(child.pid ?? 0) : (child.pid ?? 0), signal)
          await answer
        }
        expect(await ended(child)).toEqual([0, null])
        expect(lines.slice(1).map((line) => (JSON.parse(line) as { signal: string }).signal)).toEqual([
          'SIGTERM',
          'SIGINT',
          'SIGHUP',
        ])
      }
    })

    test('an end by a signal is an end by that signal', async () => {
      await withPinned()
      const { child, first } = start(node, [join(pack, 'bin/manifold.js'), 'stay', 'die'])
      await first()
      child.kill('SIGTERM')
      expect(await ended(child)).toEqual([null, 'SIGTERM'])
    })

    test('killed outright, it takes the program along', async () => {
      await withPinned()
      const { child, first } = start(node, [join(pack, 'bin/manifold.js'), 'stay'])
      const { ppid } = await first()
      expect(ppid).toBe(child.pid)
      child.kill('SIGKILL')
      // stdout is the program's as well: it closes only once the program is gone (whose pid may stay as a zombie where
      // nobody reaps orphans).
      expect(await once(child, 'close')).toEqual([null, 'SIGKILL'])
    })

    test('without the pinned one, one line says what to do, exit 2', async () => {
      const { child } = start(node, [join(pack, 'bin/manifold.js')])
      let text = ''
      child.stderr?.on('data', (chunk: Buffer) => {
        text += chunk.toString()
      })
      expect(await ended(child)).toEqual([2, null])
      expect(text).toMatch(/^manifold: Node 24 or later is needed, this is v\d+.*'npm ci'.*\n$/)
    })
  },
)
