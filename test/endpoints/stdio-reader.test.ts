/** Tests the program with a pipe: records that the reader has not read are not committed. */
import * as fs from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'
import { start, type Running } from '../support/manifold'
import { AnonymousPipe } from '../support/pipe'

const LINES = Array.from({ length: 500 }, (_, i) => `line ${i}\n`).join('')
let folder: string
let pipes: AnonymousPipe[]
let started: Running[]
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-reader-'))
  fs.writeFileSync(path.join(folder, 'in'), LINES)
  pipes = []
  started = []
})
afterEach(async () => {
  for (const pipe of pipes) pipe.close()
  for (const running of started) {
    running.kill('SIGKILL')
    await running.done
  }
  fs.rmSync(folder, { recursive: true })
})

interface Piped {
  readonly pipe: AnonymousPipe
  readonly running: Running
}
async function piped(): Promise<Piped> {
  const pipe = await AnonymousPipe.make()
  pipes.push(pipe)
  const running = start(
    [
      '--from',
      `file:${path.join(folder, 'in')}`,
      'follow',
      '--to',
      '-',
      '--state',
      path.join(folder, 'state'),
      '--name',
      'piped',
    ],
    { stdout: pipe.writingEnd },
  )
  started.push(running)
  pipe.closeWriting()
  return { pipe, running }
}
const moment = (ms = 5): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
async function readOf({ pipe }: Piped, bytes: number): Promise<string> {
  const parts: Buffer[] = []
  const latest = Date.now() + 10_000
  for (let length = 0; length < bytes; ) {
    const part = pipe.read(bytes - length)
    if (Date.now() > latest) throw new Error(`${length} of ${bytes} bytes came`)
    if (part.length === 0) await moment()
    length += part.length
    parts.push(part)
  }
  return Buffer.concat(parts).toString()
}
/** The flow's own files say how far it is. */
async function commits(): Promise<void> {
  const latest = Date.now() + 10_000
  while (!committed()) {
    if (Date.now() > latest) throw new Error('nothing was committed')
    await moment()
  }
}
function committed(): boolean {
  return fs
    .globSync(path.join(folder, 'state', '**', 'flow'))
    .some((file) => fs.readFileSync(file, 'latin1').includes(`\\"offset\\":${LINES.length},`))
}

test('what was read is committed within moments: after a kill it does not come again', async () => {
  const first = await piped()
  expect(await readOf(first, LINES.length)).toBe(LINES)
  await commits()
  first.running.kill('SIGKILL')
  await first.running.done
  fs.appendFileSync(path.join(folder, 'in'), 'more\n')
  const second = await piped()
  expect(await readOf(second, 5)).toBe('more\n')
  second.running.kill('SIGTERM')
  expect((await second.running.done).code).toBe(0)
}, 30_000)

test('what lies unread in a pipe for longer than any guess is not committed: after a kill of both it comes again', async () => {
  const first = await piped()
  await readOf(first, 1)
  // Nothing tells that something is never done: thrice the second that was once enough.
  await moment(3000)
  first.running.kill('SIGKILL')
  await first.running.done
  const second = await piped()
  expect(await readOf(second, LINES.length)).toBe(LINES)
  second.running.kill('SIGTERM')
  expect((await second.running.done).code).toBe(0)
}, 30_000)

test('a pipeline that is interrupted loses nothing: what its reader leaves behind comes again, and this is said', async () => {
  const first = await piped()
  await readOf(first, 1)
  // As of ^C, which ends the reader at once.
  first.pipe.closeReading()
  first.running.kill('SIGINT')
  const { code, stderr, ms } = await first.running.done
  expect({ code, said: stderr.includes('left the last of it unread') }).toEqual({ code: 0, said: true })
  expect(ms).toBeLessThan(10_000)
  const second = await piped()
  expect(await readOf(second, LINES.length)).toBe(LINES)
  second.running.kill('SIGTERM')
  expect((await second.running.done).stderr).not.toContain('unread')
  const third = await piped()
  fs.appendFileSync(path.join(folder, 'in'), 'more\n')
  expect(await readOf(third, 5)).toBe('more\n')
  third.running.kill('SIGTERM')
  expect((await third.running.done).code).toBe(0)
}, 30_000)

test('where there is no position to keep, a reader that reads nothing is not waited for, and nothing is said', async () => {
  const pipe = await AnonymousPipe.make()
  pipes.push(pipe)
  const running = start(['--from', '-', '--to', '-'], { stdout: pipe.writingEnd, input: 'open' })
  started.push(running)
  pipe.closeWriting()
  running.child.stdin?.write('one\ntwo\n')
  expect(await readOf({ pipe, running }, 1)).toBe('o')
  running.kill('SIGTERM')
  const { code, stderr } = await running.done
  expect({ code, said: stderr.includes('unread') }).toEqual({ code: 0, said: false })
}, 30_000)
