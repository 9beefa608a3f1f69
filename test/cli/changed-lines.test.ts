/**
 * Lines that change between runs of one flow. Whatever the first run left in its spool is delivered once, or the
 * changed line is refused with 2 and the reason; in the end, with the first line again, every record that was accepted
 * is at the sink that it was accepted for, once.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { WebSocketServer } from 'ws'
import type { FlowState } from '../../src/core/flow/flow-state'
import { realFileSystem } from '../../src/kit/file-system'
import { readFlowFile } from '../../src/state/flow-file'
import { manifold, start, type Finished } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-changed-'))
  mkdirSync(join(folder, 'here'))
  mkdirSync(join(folder, 'there'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
const all = Array.from({ length: 50 }, (_, i) => i + 1)
const seqs = (lines: readonly string[]): readonly number[] =>
  lines.map((text) => (JSON.parse(text) as { seq: number }).seq)
const fileSeqs = (): readonly number[] =>
  existsSync(join(folder, 'out'))
    ? seqs(
        readFileSync(join(folder, 'out'), 'utf8')
          .trim()
          .split('\n')
          .filter((text) => text !== ''),
      )
    : []

/** Resolves once the flow file says that all was accepted, and how far each sink is. */
async function accepted(cursors: readonly number[]): Promise<void> {
  for (;;) {
    const [name] = existsSync(join(folder, 'state')) ? readdirSync(join(folder, 'state')) : []
    const state =
      name === undefined
        ? undefined
        : await readFlowFile<FlowState>(realFileSystem, join(folder, 'state', name, '0/flow')).catch(() => undefined)
    if (
      state?.acceptedThrough === 50 &&
      isDeepStrictEqual(
        Object.values(state.sinks)
          .map(({ cursor }) => cursor)
          .sort((a, b) => a - b),
        cursors,
      )
    )
      return
    await sleep(25)
  }
}

interface Server {
  readonly port: number
  readonly messages: string[]
  close(): Promise<void>
}
async function listen(port = 0, messages: string[] = []): Promise<Server> {
  const server = new WebSocketServer({ port, host: '127.0.0.1' })
  await new Promise((resolve) => {
    server.once('listening', resolve)
  })
  server.on('connection', (socket) => {
    socket.on('message', (data: Buffer) => {
      messages.push(data.toString())
    })
  })
  return {
    port: (server.address() as AddressInfo).port,
    messages,
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve()
        })
      }),
  }
}

/** PORT and DIR come out of the environment: the line is stored, and can be drained. */
const FROM = ['--from', 'generate:', 'count=50', 'size=60']
const WS = ['--to', 'ws://127.0.0.1:{env:PORT}/in']
const FILE = ['--to', 'file:{env:DIR}/out']
const named = (...name: string[]): string[] => ['--state', join(folder, 'state'), ...name]
const N = (): string[] => named('--name', 'flow')

interface Chain {
  /** Its WebSocket server is away, and it ends as said: killed, or told to stop. */
  readonly first: () => readonly string[]
  readonly changed: () => readonly string[]
  readonly refused?: RegExp
  readonly cwd?: string
}
const chains: readonly (readonly [string, Chain])[] = [
  [
    'a sink is left out',
    {
      first: () => [...FROM, ...WS, ...FILE, ...N()],
      changed: () => [...FROM, ...FILE, ...N()],
      refused:
        /the flow flow holds 50 records for ws:\/\/127\.0\.0\.1.*, which this line does not name: .*manifold forget flow .* --force\n$/,
    },
  ],
  [
    'a sink is left out, and no spool is asked for',
    {
      first: () => [...FROM, ...WS, ...N(), '--spool', 'spool'],
      changed: () => [...FROM, ...FILE, ...N()],
      refused: /holds 50 records for ws:/,
    },
  ],
  [
    '--spool is left out',
    { first: () => [...FROM, ...WS, ...N(), '--spool', 'spool'], changed: () => [...FROM, ...WS, ...N()] },
  ],
  [
    '--spool is left out of an unnamed line',
    { first: () => [...FROM, ...WS, ...named(), '--spool', 'spool'], changed: () => [...FROM, ...WS, ...named()] },
  ],
  [
    'another --spool',
    {
      first: () => [...FROM, ...WS, ...N(), '--spool', 'spool'],
      changed: () => [...FROM, ...WS, ...N(), '--spool', 'other'],
    },
  ],
  [
    'another working directory',
    {
      first: () => [...FROM, ...WS, ...N(), '--spool', 'spool'],
      changed: () => [...FROM, ...WS, ...N(), '--spool', 'spool'],
      cwd: 'there',
    },
  ],
  [
    '--spool is put in',
    {
      first: () => [...FROM, ...WS, ...FILE, ...N()],
      changed: () => [...FROM, ...WS, ...FILE, ...N(), '--spool', 'spool'],
    },
  ],
  [
    '--no-spool',
    {
      first: () => [...FROM, ...WS, ...N(), '--spool', 'spool'],
      changed: () => [...FROM, ...WS, ...N(), '--no-spool'],
      refused:
        /--no-spool: the flow flow holds 50 records in its spool .*here\/spool\/flow\/0: run the line without --no-spool/,
    },
  ],
  [
    'the order and spelling of the sinks',
    {
      first: () => [...FROM, ...WS, ...FILE, ...N()],
      changed: () => [...FROM, '--to', '{env:DIR}/out', '--to', 'WS://127.0.0.1:{env:PORT}/in/', ...N()],
    },
  ],
]

describe.each([
  ['SIGKILL', chains],
  ['SIGTERM', chains.slice(0, 3)],
] as const)('after %s, with the store away', (signal, some) => {
  test.each(some)(
    '%s',
    async (_, { first, changed, refused, cwd = 'here' }) => {
      const gone = await listen()
      await gone.close()
      const env = { PORT: String(gone.port), DIR: folder }
      const run = (args: readonly string[], where = 'here'): Promise<Finished> =>
        manifold(args, { env, cwd: join(folder, where) })
      const begun = start(first(), { env, cwd: join(folder, 'here') })
      const both = first().includes('file:{env:DIR}/out')
      await accepted(both ? [0, 50] : [0])
      begun.kill(signal)
      await begun.done

      const server = await listen(gone.port)
      try {
        const second = await run(changed(), cwd)
        if (refused !== undefined) {
          expect({ code: second.code, stderr: second.stderr }).toEqual({
            code: 2,
            stderr: expect.stringMatching(refused) as string,
          })
          expect(server.messages).toHaveLength(0)
        } else {
          expect({ code: second.code, stderr: second.code === 0 ? '' : second.stderr }).toEqual({ code: 0, stderr: '' })
          expect(seqs(server.messages)).toEqual(all)
        }
        const third = await run(first())
        expect({ code: third.code, stderr: third.code === 0 ? '' : third.stderr }).toEqual({ code: 0, stderr: '' })
        expect(seqs(server.messages)).toEqual(all)
        expect(fileSeqs()).toEqual(both ? all : [])
        expect((await run(['ls', '--state', join(folder, 'state')])).stdout.toString()).not.toMatch(/wait for/)
        expect(readdirSync(join(folder, 'state'))).toHaveLength(1)
      } finally {
        await server.close()
      }
    },
    40_000,
  )
})

test('a spool that was delivered does not come back with old positions after a run without it', async () => {
  writeFileSync(join(folder, 'in'), 'a\n')
  const server = await listen()
  try {
    const run = (...args: string[]): Promise<Finished> =>
      manifold(['--from', `file:${join(folder, 'in')}`, ...args, ...N()], {
        env: { PORT: String(server.port), DIR: folder },
        cwd: join(folder, 'here'),
      })
    expect((await run(...FILE, ...WS)).code).toBe(0)
    writeFileSync(join(folder, 'in'), 'a\nb\n')
    expect((await run(...FILE)).code).toBe(0)
    expect((await run(...FILE, ...WS)).code).toBe(0)
    expect((await run(...FILE, '--spool', 'spool')).code).toBe(0)
    expect((await run(...FILE)).code).toBe(0)
    expect((await run(...FILE, '--spool', 'spool')).code).toBe(0)
    expect(readFileSync(join(folder, 'out'), 'utf8')).toBe('a\nb\n')
    expect(server.messages.map((text) => text.trim())).toEqual(['a'])
  } finally {
    await server.close()
  }
}, 30_000)

describe('a spool elsewhere', () => {
  const spooled = async (): Promise<{ readonly env: NodeJS.ProcessEnv; readonly line: readonly string[] }> => {
    const gone = await listen()
    await gone.close()
    const env = { PORT: String(gone.port), DIR: folder }
    const line = [...FROM, ...WS, ...N(), '--spool', join(folder, 'spool')]
    const begun = start(line, { env })
    await accepted([0])
    begun.kill('SIGTERM')
    await begun.done
    return { env, line }
  }

  test('that is not there is not begun anew', async () => {
    const { env, line } = await spooled()
    rmSync(join(folder, 'spool'), { recursive: true })
    const { code, stderr } = await manifold(line, { env })
    expect({ code, stderr }).toEqual({
      code: 2,
      stderr: expect.stringMatching(
        /the flow flow may hold records in its spool .*spool\/flow\/0, and nothing is there: mount that disk/,
      ) as string,
    })
  }, 20_000)

  test('is forgotten with its flow, and only with --force while records wait in it', async () => {
    const { env } = await spooled()
    const refused = await manifold(['forget', 'flow', '--state', join(folder, 'state')], { env })
    expect({ code: refused.code, stderr: refused.stderr }).toEqual({
      code: 2,
      stderr: expect.stringMatching(
        /^manifold: 50 records for ws:\/\/127\.0\.0\.1.*, in .*spool\/flow\/0 would be lost\nmanifold: deliver what waits with manifold spool drain flow, or give it up with: manifold forget flow --force\n$/,
      ) as string,
    })
    expect(readdirSync(join(folder, 'spool/flow/0'))).not.toHaveLength(0)
    const forced = await manifold(['forget', 'flow', '--force', '--state', join(folder, 'state')], { env })
    expect({ code: forced.code, out: forced.stdout.toString() }).toEqual({
      code: 0,
      out: expect.stringMatching(/^forgotten: flow \(1 instance\)\ngiven up: 50 records for ws:/) as string,
    })
    expect(readdirSync(join(folder, 'spool'))).toEqual([])
    expect(readdirSync(join(folder, 'state'))).toEqual([])
  }, 20_000)

  test('is drained from any working directory, and by a relative --state', async () => {
    const { env } = await spooled()
    const server = await listen(Number(env['PORT']))
    try {
      const drained = await manifold(['spool', 'drain', 'flow', '--state', '../state'], {
        env,
        cwd: join(folder, 'there'),
      })
      expect({ code: drained.code, stderr: drained.stderr }).toEqual({ code: 0, stderr: '' })
      expect(seqs(server.messages)).toEqual(all)
    } finally {
      await server.close()
    }
  }, 20_000)
})
