import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Refused, UsageError } from '../../src/core/errors'
import type { AnyTarget } from '../../src/options/define'
import { parseCommandLine, targetsOf } from '../../src/options/command-line'
import { valueOf } from '../../src/options/placeholders'
import { maskBraces, displayPlaceholder, templateOf, type Placeholder } from '../../src/options/template'
import { fakes } from './fakes'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'manifold-placeholders-'))
})
afterEach(() => {
  rmSync(directory, { recursive: true })
})

const base: Record<string, string> = { PATH: process.env.PATH ?? '' }
function one(text: string): Placeholder {
  const [part] = templateOf(text)
  if (part === undefined || typeof part === 'string') throw new Error('no placeholder')
  return part
}
async function sink(words: readonly string[], env: Record<string, string | undefined> = {}): Promise<AnyTarget> {
  const { to } = await targetsOf(parseCommandLine(['--from', '-', '--to', ...words], { ...base, ...env }, fakes))
  const [target] = to
  if (target === undefined) throw new Error('no target')
  return target
}
async function faultsOf(
  argv: readonly string[],
  env: Record<string, string | undefined> = {},
): Promise<readonly string[]> {
  try {
    await targetsOf(parseCommandLine(argv, { ...base, ...env }, fakes))
  } catch (error) {
    if (error instanceof UsageError) return error.faults
    throw error
  }
  throw new Error('no fault')
}

test('only env, file and exec are placeholders; others and lone braces are text', () => {
  expect(templateOf('{json:a}{yyyy}{now}{env}{env:}{Env:A}{')).toEqual(['{json:a}{yyyy}{now}{env}{env:}{Env:A}{'])
  expect(templateOf('a{env:X}b{file:/y}')).toMatchObject([
    'a',
    { kind: 'env', argument: 'X' },
    'b',
    { kind: 'file', argument: '/y' },
  ])
  expect(templateOf('{"key":"{env:K}"}')).toMatchObject(['{"key":"', { kind: 'env', argument: 'K' }, '"}'])
  expect(templateOf("{exec:awk '{print $1}' f}")).toMatchObject([{ kind: 'exec', argument: "awk '{print $1}' f" }])
  expect(templateOf('}{env:A')).toEqual(['}{env:A'])
})

test('a mask blanks what is between braces and keeps every position', () => {
  expect(maskBraces('a{?&}b').replaceAll('\uE000', '_')).toBe('a____b')
  expect(maskBraces('a{?b')).toBe('a{?b')
  expect(maskBraces('{a{b}c}?').replaceAll('\uE000', '_')).toBe('_______?')
})

test('values: the environment, a file less one newline, a command less one newline', async () => {
  writeFileSync(join(directory, 'token'), 'a b\n\n')
  expect(await valueOf(one('{env:A}'), { A: ' x\n' })).toBe(' x\n')
  expect(await valueOf(one(`{file:${directory}/token}`), {})).toBe('a b\n')
  expect(await valueOf(one('{exec:printf \'%s\\n\' "$A-b"}'), { ...base, A: 'x' })).toBe('x-b')
})

test('%d is the credentials directory of systemd', async () => {
  mkdirSync(join(directory, 'c'))
  writeFileSync(join(directory, 'c', 'key'), 's3cret\n')
  expect(await valueOf(one('{file:%d/key}'), { CREDENTIALS_DIRECTORY: join(directory, 'c') })).toBe('s3cret')
  await expect(valueOf(one('{file:%d/key}'), {})).rejects.toThrow('CREDENTIALS_DIRECTORY is not set')
})

test("what is missing is named, and of a command's complaint only what cannot be a secret", async () => {
  await expect(valueOf(one('{env:NOPE}'), {})).rejects.toThrow('{env:NOPE}: this environment variable is not set')
  await expect(valueOf(one('{file:/nope/x}'), {})).rejects.toThrow('{file:/nope/x}: there is no such file')
  const error = await valueOf(
    one("{exec:sh -c 'echo out; echo first >&2; echo second >&2; exit 3' CANARY}"),
    base,
  ).catch((thrown: unknown) => thrown as Error)
  expect((error as Error).message).toBe(
    '{exec:sh ...}: the command ended with code 3; what it printed may hold a secret and is not shown: run it by hand to read it',
  )
  await expect(valueOf(one('{exec:/nope/token CANARY}'), base)).rejects.toThrow(
    /^\{exec:\/nope\/token \.\.\.\}: the command ended with code 127: (not found|no such file or directory)$/,
  )
  await expect(valueOf(one("{exec:echo 'CANARY: Permission denied for CANARY' >&2; exit 1}"), base)).rejects.toThrow(
    /^\{exec:echo \.\.\.\}: the command ended with code 1: permission denied$/,
  )
})

test('a command that hangs is ended with all it started', async () => {
  const pidFile = join(directory, 'pid')
  jest.useFakeTimers({ doNotFake: ['nextTick', 'setImmediate', 'queueMicrotask'] })
  try {
    const value = valueOf(one(`{exec:sleep 60 & echo $! > ${pidFile}; echo ready >&2; wait}`), base)
    const failed = expect(value).rejects.toThrow('did not end within 10 s')
    let pid = 0
    const { readFileSync } = jest.requireActual<typeof import('node:fs')>('node:fs')
    while (pid === 0) {
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
      try {
        pid = Number(readFileSync(pidFile, 'utf8'))
      } catch {
        /* not started yet */
      }
    }
    jest.advanceTimersByTime(10_000)
    await failed
    const gone = (): boolean => {
      try {
        return /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
      } catch {
        return true
      }
    }
    while (!gone())
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
  } finally {
    jest.useRealTimers()
  }
})

test('values are parsed as the option is, after they were replaced', async () => {
  expect(
    (await sink(['s3://lake/x', 'commit-duration={env:D}', 'key=a{env:K}b{yyyy}'], { D: '2', K: '{env:D}%20' }))
      .options,
  ).toMatchObject({ commitDuration: 120_000, key: 'a{env:D}%20b{yyyy}' })
})

test('a value with separators in it stays one value', async () => {
  const target = await sink(['s3://lake/{env:P}?key={env:K}', 'region={env:K}'], {
    P: 'x?region=y',
    K: 'a&b=c region=d',
  })
  expect(target.options).toMatchObject({ key: 'a&b=c region=d', region: 'a&b=c region=d' })
  expect(target.uri).toMatchObject({ path: '/x?region=y', hosts: [{ host: 'lake' }] })
})

test('every open replaces anew', async () => {
  const env: Record<string, string | undefined> = { T: 'one-one' }
  writeFileSync(join(directory, 'pw'), 'first\n')
  const line = parseCommandLine(
    ['--from', `wss://u:{file:${directory}/pw}@h/p?t={env:T}`, 'header.Auth=Bearer {env:T}', '--to', '-'],
    env,
    fakes,
  )
  const target = (await targetsOf(line)).from[0]
  expect(target?.uri).toMatchObject({ password: 'first', query: 't=one-one' })
  env.T = 'two-two'
  writeFileSync(join(directory, 'pw'), 'second\n')
  const again = await target?.resolve()
  expect(again?.uri).toMatchObject({ password: 'second', query: 't=two-two', text: 'wss://u:second@h/p?t=two-two' })
  expect(again?.options).toMatchObject({ header: [['Auth', 'Bearer two-two']] })
  expect(target?.options).toMatchObject({ header: [['Auth', 'Bearer one-one']] })
  env.T = undefined
  await expect(target?.resolve()).rejects.toThrow(Refused)
  await expect(target?.resolve()).rejects.toThrow(
    "the query of wss: {env:T}: this environment variable is not set; option 'header.Auth' of wss: {env:T}: this environment variable is not set",
  )
})

test('all that is missing is said at once, before anything is opened', async () => {
  expect(
    await faultsOf([
      '--from',
      'kafka://{env:H}/t',
      'group={env:G}',
      '--to',
      's3://lake/x',
      'key={file:/nope}',
      '--dead-letter',
      'file:{env:D}',
      '--append',
      'a={env:A}',
    ]),
  ).toEqual([
    'the address of kafka: {env:H}: this environment variable is not set',
    "option 'group' of kafka: {env:G}: this environment variable is not set",
    "option 'key' of s3: {file:/nope}: there is no such file",
    'the address of file: {env:D}: this environment variable is not set',
    "--append 'a': {env:A}: this environment variable is not set",
  ])
})

test('a value that does not fit is refused without being shown', async () => {
  expect(
    await faultsOf(['--from', '-', '--to', 's3://lake/x', 'commit-duration={env:X}', 'upload-every={env:X}'], {
      X: 'CANARY-1',
    }),
  ).toEqual([
    "option 'commit-duration' of s3: its value is not valid: a duration is expected, such as 500ms, 30s, 5m or 12h",
    "option 'upload-every' of s3: its value is not valid: a duration is expected, such as 500ms, 30s, 5m or 12h",
  ])
  expect(await faultsOf(['--from', 'ws://h/', 'silence={env:X}', '--to', '-'], { X: '987654' })).toEqual([
    "option 'silence' of ws: its value is not valid",
  ])
  expect(await faultsOf(['--from', 'kafka://h:{env:X}/t', '--to', '-'], { X: 'CANARY-2' })).toEqual([
    expect.not.stringContaining('CANARY'),
  ])
  expect(await faultsOf(['--from', '-', '--to', '-', '--append', 'a:={env:X}'], { X: 'CANARY-3' })).toEqual([
    "--append 'a': with {env:X} in it, it is no JSON",
  ])
})

test('a check of several options sees the values', async () => {
  expect(await faultsOf(['--from', '-', '--to', 's3://lake/x', 'region={env:R}'], { R: 'nowhere' })).toEqual([
    's3: there is no such region',
  ])
})

test('a command is shown by its first word alone', () => {
  expect(displayPlaceholder(one('{exec:vault read -field=x secret}'))).toBe('{exec:vault ...}')
  expect(displayPlaceholder(one('{exec:TOKEN=x cmd}'))).toBe('{exec:...}')
  expect(displayPlaceholder(one('{exec:/usr/bin/token}'))).toBe('{exec:/usr/bin/token}')
})
