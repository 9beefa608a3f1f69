import { execFileSync, spawn } from 'node:child_process'
import * as fs from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'
import { createFramer } from '../../src/codec/framing'
import { LineBatch } from '../../src/core/batch'
import { Disconnected, ReaderGone } from '../../src/core/errors'
import type { Write } from '../../src/core/contract'
import { StdioSink } from '../../src/endpoints/stdio/sink'
import { StdioSource } from '../../src/endpoints/stdio/source'

let folder: string
let fifo: string
/** Descriptors of files that a test opened and no stream closes. */
let files: number[] = []
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-stdio-'))
  fifo = path.join(folder, 'fifo')
  execFileSync('mkfifo', [fifo])
})
afterEach(() => {
  for (const fd of files) fs.closeSync(fd)
  files = []
  fs.rmSync(folder, { recursive: true })
})

const never = new AbortController().signal
const { O_RDONLY, O_WRONLY, O_RDWR, O_NONBLOCK } = fs.constants
/** Both ends of a pipe: a FIFO whose first reader need not wait for a writer. */
function pipe(): { readonly reads: number; readonly writes: number } {
  const reads = fs.openSync(fifo, O_RDONLY | O_NONBLOCK)
  return { reads, writes: fs.openSync(fifo, O_WRONLY | O_NONBLOCK) }
}
function source(fd: number, maxRecord = 1 << 24): StdioSource {
  return new StdioSource(fd, createFramer('lines', { maxRecord }))
}
function writeOf(id: string, bytes: Buffer): Write {
  return {
    id,
    attempt: 1,
    payload: new LineBatch([bytes], bytes.toString('latin1').split('\n').length - 1),
    origin: () => ({ source: 's', partition: 'p', position: '0', receivedAt: 0 }),
  }
}
async function drain(from: StdioSource): Promise<{ text: string; count: number }> {
  await from.open()
  const parts: Buffer[] = []
  let count = 0
  for (let delivery = await from.read(never); delivery !== null; delivery = await from.read(never)) {
    parts.push(...delivery.batch.lines().chunks)
    count += delivery.batch.count
  }
  await from.close()
  return { text: Buffer.concat(parts).toString(), count }
}

test('a pipe is read to its end, the last line gets the newline it lacks', async () => {
  const { reads, writes } = pipe()
  fs.writeSync(writes, 'one\n\ntwo\0\nthree')
  fs.closeSync(writes)
  expect(await drain(source(reads))).toEqual({ text: 'one\n\ntwo\0\nthree\n', count: 4 })
})

test('a pipe with more than fits into a block arrives whole', async () => {
  const child = spawn('sh', ['-c', `seq 1 1500000 > ${fifo}`])
  const { text, count } = await drain(source(fs.openSync(fifo, O_RDONLY | O_NONBLOCK)))
  expect(count).toBe(1_500_000)
  expect(text).toBe(Array.from({ length: 1_500_000 }, (_, i) => `${i + 1}\n`).join(''))
  expect(child.exitCode ?? 0).toBe(0)
})

test('a regular file is read from where its descriptor stands', async () => {
  const file = path.join(folder, 'in')
  fs.writeFileSync(file, 'skipped\nfirst\nsecond')
  const fd = fs.openSync(file, 'r')
  files.push(fd)
  fs.readSync(fd, Buffer.alloc(8))
  expect(await drain(source(fd))).toEqual({ text: 'first\nsecond\n', count: 2 })
})

test('/dev/null ends at once', async () => {
  const fd = fs.openSync('/dev/null', 'r')
  files.push(fd)
  expect(await drain(source(fd))).toEqual({ text: '', count: 0 })
})

test('a read on an idle pipe is given up when its signal aborts, and the next one goes on', async () => {
  const { reads, writes } = pipe()
  files.push(writes)
  const from = source(reads)
  await from.open()
  fs.writeSync(writes, 'begun')
  const stop = new AbortController()
  const reading = from.read(stop.signal)
  setImmediate(() => {
    stop.abort(new Error('enough'))
  })
  await expect(reading).rejects.toThrow('enough')
  const next = from.read(never)
  fs.writeSync(writes, ' and ended\n')
  expect((await next)?.batch.lines().chunks.map(String)).toEqual(['begun and ended\n'])
  await from.close()
})

test('what arrived at once comes as one delivery with offsets, up to a record that is too large', async () => {
  const { reads, writes } = pipe()
  files.push(writes)
  const from = source(reads, 10)
  await from.open()
  const first = from.read(never)
  fs.writeSync(writes, 'a\nbb\nmuch longer than ten\nccc\n')
  const delivery = await first
  expect(delivery?.batch.count).toBe(2)
  expect([0, 1].map((i) => delivery?.at(i))).toEqual(['2', '5'])
  expect(delivery?.invalid?.map(({ length, position, head }) => [length, position, String(head)])).toEqual([
    [20, '26', 'much longer than ten'],
  ])
  expect(delivery?.last).toBe('26')
  const second = await from.read(never)
  expect([second?.batch.count, second?.at(0), second?.last, second?.invalid]).toEqual([1, '30', '30', undefined])
  await from.close()
})

test('a full pipe is waited for; a write that is given up returns at once and goes on where it stopped', async () => {
  const { reads, writes } = pipe()
  const sink = new StdioSink(writes, 'lines', 'reject')
  expect(sink.limits.confirms).toBe('none')
  await sink.open()
  const bytes = Buffer.from(Array.from({ length: 50_000 }, (_, i) => `line ${i}\n`).join(''))
  const stop = new AbortController()
  const stuck = sink.write(writeOf('1', bytes), stop.signal)
  setTimeout(() => {
    stop.abort(new Error('cut short'))
  }, 50)
  await expect(stuck).rejects.toThrow('cut short')
  const again = sink.write(writeOf('1', bytes), never)
  const reading = drain(source(reads))
  expect(await again).toEqual({ retry: [], rejected: [] })
  await sink.close()
  expect((await reading).text).toBe(bytes.toString())
})

test('a sink that was closed in the middle of a write remembers how much the pipe took', async () => {
  const { reads, writes } = pipe()
  const spare = fs.openSync(fifo, O_RDWR | O_NONBLOCK)
  const sink = new StdioSink(writes, 'lines', 'reject')
  await sink.open()
  const bytes = Buffer.from(Array.from({ length: 50_000 }, (_, i) => `line ${i}\n`).join(''))
  const stop = new AbortController()
  const stuck = sink.write(writeOf('1', bytes), stop.signal)
  setTimeout(() => {
    stop.abort(new Error('cut short'))
  }, 50)
  await expect(stuck).rejects.toThrow('cut short')
  await sink.close()
  // Closing takes the descriptor along where it is none of the standard ones: the same number again.
  const reopened = fs.openSync(fifo, O_WRONLY | O_NONBLOCK)
  expect(reopened).toBe(writes)
  fs.closeSync(spare)
  await sink.open()
  const again = sink.write(writeOf('1', bytes), never)
  const reading = drain(source(reads))
  await again
  await sink.close()
  expect((await reading).text).toBe(bytes.toString())
})

test('a reader that went away is told as such', async () => {
  const { reads, writes } = pipe()
  const sink = new StdioSink(writes, 'lines', 'reject')
  await sink.open()
  fs.closeSync(reads)
  await expect(sink.write(writeOf('1', Buffer.from('x\n')), never)).rejects.toThrow(ReaderGone)
  await sink.close()
})

test('a regular file is appended to and confirmed', async () => {
  const file = path.join(folder, 'out')
  fs.writeFileSync(file, 'before\n')
  const fd = fs.openSync(file, 'a')
  files.push(fd)
  const sink = new StdioSink(fd, 'lines', 'reject')
  expect(sink.limits.confirms).toBe('each')
  await sink.open()
  await sink.write(writeOf('1', Buffer.from('one\n')), never)
  await sink.write(writeOf('2', Buffer.from('two\n')), never)
  await sink.close()
  expect(fs.readFileSync(file, 'utf8')).toBe('before\none\ntwo\n')
})

test('a full disk is a fault to wait for, not one to give up', async () => {
  const fd = fs.openSync('/dev/full', 'w')
  files.push(fd)
  const sink = new StdioSink(fd, 'lines', 'reject')
  await sink.open()
  await expect(sink.write(writeOf('1', Buffer.from('x\n')), never)).rejects.toThrow(Disconnected)
  await sink.close()
})
