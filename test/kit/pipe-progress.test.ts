import { spawnSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PipeProgress } from '../../src/kit/pipe-progress'
import { AnonymousPipe } from '../support/pipe'

let pipe: AnonymousPipe
beforeEach(async () => {
  pipe = await AnonymousPipe.make()
})
afterEach(() => {
  pipe.close()
})

function progress(): PipeProgress {
  const known = PipeProgress.of(pipe.writingEnd)
  if (known === undefined) throw new Error('an anonymous pipe ought to tell')
  return known
}
function write(known: PipeProgress, bytes: number): void {
  pipe.write(Buffer.alloc(bytes, 'x'))
  known.taken += bytes
}

/** It may be queried less often by then. */
async function reaches(known: PipeProgress, bytes: number): Promise<void> {
  for (const latest = Date.now() + 2000; (await known.read()) < bytes; ) {
    if (Date.now() > latest) throw new Error(`only ${await known.read()} of ${bytes} bytes are known to be read`)
    await new Promise((resolve) => {
      setTimeout(resolve, 1)
    })
  }
  expect(await known.read()).toBe(bytes)
}

test('what a pipe took is read when it is empty, not before', async () => {
  const known = progress()
  expect(await known.read()).toBe(0)
  write(known, 1000)
  expect(await known.read()).toBe(0)
  expect(pipe.read(999)).toHaveLength(999)
  await new Promise((resolve) => {
    setTimeout(resolve, 150)
  })
  expect(await known.read()).toBe(0)
  expect(pipe.read(999)).toHaveLength(1)
  await reaches(known, 1000)
  write(known, 5)
  expect(await known.read()).toBe(1000)
})

test('asking takes nothing out of the pipe, says nothing wrong however often and busily it is done, and leaves no descriptor', async () => {
  const known = progress()
  write(known, 3)
  const before = readdirSync('/proc/self/fd').length
  let busy = true
  const churn = (): void => {
    if (busy) setImmediate(churn)
  }
  churn()
  const answers = new Set<number>()
  for (let i = 0; i < 3000; i++) {
    // From each phase of the event loop.
    if (i % 3 === 1)
      await new Promise((resolve) => {
        setImmediate(resolve)
      })
    if (i % 3 === 2)
      await new Promise((resolve) => {
        setTimeout(resolve, 0)
      })
    write(known, 1)
    answers.add(await known.read())
  }
  busy = false
  expect([...answers]).toEqual([0])
  expect(pipe.read(4000).toString()).toBe('x'.repeat(3003))
  await reaches(known, 3003)
  expect(readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before)
})

test('a reader that rests is asked for seldom', async () => {
  const known = progress()
  write(known, 1)
  const asked = jest.spyOn(known as unknown as { isEmpty(): Promise<boolean> }, 'isEmpty')
  for (const until = performance.now() + 300; performance.now() < until; ) {
    await known.read()
    await new Promise((resolve) => {
      setTimeout(resolve, 1)
    })
  }
  expect(asked.mock.calls.length).toBeGreaterThan(1)
  expect(asked.mock.calls.length).toBeLessThan(20)
})

test('of a pipe that is never empty, all but what one may hold has been read', async () => {
  const known = progress()
  for (let i = 0; i < 40; i++) {
    write(known, 60_000)
    if (i < 39) pipe.read(60_000 - (i === 0 ? 1 : 0))
  }
  expect(await known.read()).toBe(40 * 60_000 - 1_048_576)
})

test('asking does not keep whoever writes from learning that the reader went away', async () => {
  const known = progress()
  write(known, 10)
  pipe.closeReading()
  expect(await known.read()).toBe(0)
  expect(() => {
    writeSync(pipe.writingEnd, 'more')
  }).toThrow('EPIPE')
})

test('a FIFO with a name, a file and a socket are not asked', () => {
  const folder = mkdtempSync(join(tmpdir(), 'manifold-fifo-'))
  const path = join(folder, 'fifo')
  spawnSync('mkfifo', [path])
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const fifo = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
  const file = openSync(join(folder, 'file'), 'w')
  try {
    expect([fifo, file].map((fd) => PipeProgress.of(fd))).toEqual([undefined, undefined])
  } finally {
    for (const fd of [reader, fifo, file]) closeSync(fd)
    rmSync(folder, { recursive: true })
  }
})
