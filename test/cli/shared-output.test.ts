/** Tests output files to which other runs, dead letters and other programs write as well, or which are truncated. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { cleanEnv, manifold, start, type Running } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-shared-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})
const at = (name: string): string => join(folder, name)
const lines = (text: string | Buffer): string[] => text.toString().split('\n').slice(0, -1)
const numbers = (from: number, to: number, prefix = ''): string[] =>
  Array.from({ length: to - from }, (_, index) => `${prefix}${from + index}`)
const block = (records: readonly string[]): string => `${records.join('\n')}\n`

async function until(holds: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 20_000
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`timed out waiting for ${what}`)
    await new Promise((resolve) => {
      setTimeout(resolve, 10)
    })
  }
}
const holds = (name: string, record: string): boolean =>
  existsSync(at(name)) && readFileSync(at(name), 'utf8').includes(`${record}\n`)
/** A run that stays open, and has delivered its first record. */
async function opened(first: string, args: readonly string[], written = first): Promise<Running> {
  const running = start(args, { input: 'open' })
  running.child.stdin?.write(`${first}\n`)
  await until(() => holds('out', written), `${written} in out`)
  return running
}
async function ended(running: Running): Promise<void> {
  running.child.stdin?.end()
  expect(await running.done).toMatchObject({ code: 0, stderr: '' })
}

test('two runs that write to one file keep all records of both, whole', async () => {
  const [one, other] = await Promise.all([
    opened('a', ['--from', '-', '--to', `file:${at('out')}`]),
    opened('b', ['--from', '-', '--to', `file:${at('out')}`]),
  ])
  for (let round = 0; round < 20; round++) {
    one.child.stdin?.write(block(numbers(round * 100, round * 100 + 100, 'one-')))
    other.child.stdin?.write(block(numbers(round * 100, round * 100 + 100, 'other-')))
    if (round % 5 === 0)
      await until(
        () => holds('out', `one-${round * 100 + 99}`) && holds('out', `other-${round * 100 + 99}`),
        `round ${round}`,
      )
  }
  await Promise.all([ended(one), ended(other)])
  expect(lines(readFileSync(at('out'))).sort()).toEqual(
    ['a', 'b', ...numbers(0, 2000, 'one-'), ...numbers(0, 2000, 'other-')].sort(),
  )
  expect(readdirSync(folder)).toEqual(['out'])
})

test('two runs that write to one compressed file leave it readable', async () => {
  const to = ['--from', '-', '--to', `file:${at('out.gz')}`]
  await Promise.all(['one', 'other'].map((name) => manifold(to, { input: block(numbers(0, 20_000, `${name}-`)) })))
  expect(lines(gunzipSync(readFileSync(at('out.gz')))).sort()).toEqual(
    [...numbers(0, 20_000, 'one-'), ...numbers(0, 20_000, 'other-')].sort(),
  )
})

test('a sink and its own dead letters may be one file', async () => {
  const good = numbers(0, 50).map((id) => `{"id":${id}}`)
  const input = good.flatMap((line, index) => (index % 5 === 0 ? [line, `no json ${index}`] : [line]))
  const running = await opened(
    '{"first":1}',
    ['--from', '-', '--append', 'x=y', '--to', `file:${at('out')}`, '--dead-letter', `file:${at('out')}`],
    '{"first":1,"x":"y"}',
  )
  for (const line of input) running.child.stdin?.write(`${line}\n`)
  running.child.stdin?.end()
  expect((await running.done).code).toBe(5)
  const written = lines(readFileSync(at('out'))).map(
    (line) => JSON.parse(line) as { id?: number; why?: string; value?: string },
  )
  expect(written.filter(({ id }) => id !== undefined)).toHaveLength(50)
  expect(written.filter(({ why }) => why !== undefined).map(({ value }) => value)).toEqual(
    numbers(0, 50)
      .filter((id) => Number(id) % 5 === 0)
      .map((id) => `no json ${id}`),
  )
})

test('two flows may share a file of dead letters', async () => {
  const run = (name: string): Promise<{ code: number | null }> =>
    manifold(['--from', '-', '--append', 'x=y', '--to', `file:${at(name)}`, '--dead-letter', `file:${at('dead')}`], {
      input: block(numbers(0, 500, `${name}-no json-`)),
    })
  expect((await Promise.all([run('p'), run('q')])).map(({ code }) => code)).toEqual([5, 5])
  const values = lines(readFileSync(at('dead'))).map((line) => (JSON.parse(line) as { value: string }).value)
  expect(values.sort()).toEqual([...numbers(0, 500, 'p-no json-'), ...numbers(0, 500, 'q-no json-')].sort())
})

test('a line that another process is in the middle of writing is not ended by an empty one of ours', async () => {
  // A write of 8 MiB shows itself page by page, so it is seen half-done again and again.
  const theirs = 't'.repeat(997)
  const script = `
    const fs = require('node:fs')
    const file = fs.openSync(process.argv[1], 'a')
    const block = Buffer.from('${theirs}\\n'.repeat(8192))
    const pause = new Int32Array(new SharedArrayBuffer(4))
    for (let round = 0; round < 40; round++) {
      fs.writeSync(file, block)
      Atomics.wait(pause, 0, 0, 5)
    }`
  const running = await opened('a', ['--from', '-', '--to', `file:${at('out')}`])
  const other = spawn(process.execPath, ['-e', script, at('out')], { stdio: 'inherit' })
  let left: number | null = null
  const gone = once(other, 'exit').then(([code]: unknown[]) => (left = code as number | null))
  let sent = 0
  while (left === null) {
    running.child.stdin?.write(`${sent++}\n`)
    await new Promise(setImmediate)
  }
  await gone
  await ended(running)
  expect(left).toBe(0)
  const written = lines(readFileSync(at('out'), 'latin1'))
  expect(written.filter((line) => line === '')).toEqual([])
  expect(written.filter((line) => line !== theirs)).toEqual(['a', ...numbers(0, sent)])
  expect(written).toHaveLength(1 + sent + 40 * 8192)
})

test('what another program appends stays, and a line that it has not ended yet spoils none of ours', async () => {
  const running = await opened('a', ['--from', '-', '--to', `file:${at('out')}`])
  appendFileSync(at('out'), 'theirs\nhalf')
  running.child.stdin?.write('b\n')
  await until(() => holds('out', 'b'), 'b')
  appendFileSync(at('out'), 'last of theirs\n')
  await ended(running)
  expect(readFileSync(at('out'), 'utf8')).toBe('a\ntheirs\nhalf\nb\nlast of theirs\n')
})

test('what another program appended is not cut off after a kill', async () => {
  const running = await opened('a', ['--from', '-', '--to', `file:${at('out')}`])
  running.kill('SIGKILL')
  await running.done
  appendFileSync(at('out'), 'theirs\nhalf')
  expect((await manifold(['--from', '-', '--to', `file:${at('out')}`], { input: 'b\n' })).code).toBe(0)
  expect(readFileSync(at('out'), 'utf8')).toBe('a\ntheirs\nhalf\nb\n')
  expect(readdirSync(folder)).toEqual(['out'])
})

test('a file that somebody truncates is gone on with at its new end', async () => {
  const running = await opened('before', ['--from', '-', '--to', `file:${at('out')}`])
  truncateSync(at('out'))
  running.child.stdin?.write('after\n')
  await until(() => holds('out', 'after'), 'after')
  running.child.stdin?.write('last\n')
  running.child.stdin?.end()
  expect((await running.done).code).toBe(0)
  // Cut off before it was confirmed, the first one is written again.
  expect(['after\nlast\n', 'before\nafter\nlast\n']).toContain(readFileSync(at('out'), 'utf8'))
})

test('a full file behind a link is renamed where it lies, and the link leads to the new one', async () => {
  mkdirSync(at('data'))
  symlinkSync(join('data', 'real.ndjson'), at('out'))
  writeFileSync(at('data/real.ndjson'), 'old, and long enough\n')
  expect(
    (await manifold(['--from', '-', '--to', `file:${at('out')}`, 'rotate-size=10'], { input: 'new\n' })).code,
  ).toBe(0)
  expect(readlinkSync(at('out'))).toBe(join('data', 'real.ndjson'))
  expect(readdirSync(folder).sort()).toEqual(['data', 'out'])
  expect(readdirSync(at('data'))).toEqual(['real.ndjson', expect.stringMatching(/^real\.ndjson-\d{8}T\d{6}$/)])
  expect(readFileSync(at('out'), 'utf8')).toBe('new\n')
})

/** As somebody whom permissions bind: root may write everywhere. */
const bound = process.getuid?.() === 0 ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] : []

test('a file that may be written in a folder that may not is written to', async () => {
  mkdirSync(at('closed'))
  writeFileSync(at('closed/out'), 'old\n')
  chmodSync(at('closed/out'), 0o666)
  chmodSync(at('closed'), 0o555)
  chmodSync(folder, 0o755)
  const { code, stderr } = await manifold(['--from', '-', '--to', `file:${at('closed/out')}`], {
    input: 'new\n',
    env: cleanEnv({ HOME: '/nonexistent' }),
    through: bound,
  })
  expect(stderr).toBe('')
  expect(code).toBe(0)
  expect(readFileSync(at('closed/out'), 'utf8')).toBe('old\nnew\n')
  chmodSync(at('closed'), 0o755)
})

test('where a file cannot be made, it is its folder that is named', async () => {
  mkdirSync(at('closed'), { mode: 0o555 })
  chmodSync(folder, 0o755)
  const { code, stderr } = await manifold(['--from', '-', '--to', `file:${at('closed/out')}`], {
    input: 'new\n',
    env: cleanEnv({ HOME: '/nonexistent' }),
    through: bound,
  })
  expect(code).toBe(4)
  expect(stderr).toContain(`no file can be made in ${at('closed')}`)
  chmodSync(at('closed'), 0o755)
})
