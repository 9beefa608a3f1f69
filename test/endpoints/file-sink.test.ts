import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { EntryBatch, LineBatch } from '../../src/core/batch'
import type { EndpointContext, Write } from '../../src/core/contract'
import { Disconnected, Refused } from '../../src/core/errors'
import { FileSink, type SinkOptions } from '../../src/endpoints/file/sink'
import { StreamFileSink } from '../../src/endpoints/file/stream-sink'
import { pathAt, rotatedPath, templateFaults } from '../../src/endpoints/file/template'
import { systemClock } from '../../src/kit/clock'

let folder: string
let open: FileSink[] = []
beforeEach(() => {
  folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-file-sink-')))
})
afterEach(async () => {
  for (const sink of open) await sink.close()
  open = []
  fs.rmSync(folder, { recursive: true })
})
const at = (name: string): string => path.join(folder, name)
const read = (name: string): string => fs.readFileSync(at(name), 'utf8')
const names = (): string[] => fs.readdirSync(folder).sort()
const never = new AbortController().signal

let now = Date.UTC(2026, 0, 31, 23, 59, 58)
const warnings: string[] = []
const context: EndpointContext = {
  signal: never,
  clock: { ...systemClock, now: () => now, monotonic: () => now },
  log: {
    debug: () => undefined,
    info: () => undefined,
    warn: (text) => {
      warnings.push(text)
    },
  },
  gauge: () => undefined,
}
async function sinkAt(name: string, given: Partial<SinkOptions> = {}): Promise<FileSink> {
  const sink = new FileSink(path.isAbsolute(name) ? name : at(name), {
    framing: 'lines',
    newline: 'reject',
    compression: 'auto',
    compressionLevel: undefined,
    rotateSize: 0,
    rotateEvery: 0,
    ...given,
  })
  open.push(sink)
  await sink.open(context)
  return sink
}
let serial = 0
function writeOf(text: string): Write {
  return {
    id: String(++serial),
    attempt: 1,
    payload: new LineBatch([Buffer.from(text)], text.split('\n').length - 1),
    origin: (index) => ({ source: 'src', partition: 'p', position: String(index), receivedAt: now }),
  }
}

test('records are appended, whole and confirmed, and nothing else lies in the folder after closing', async () => {
  fs.writeFileSync(at('out'), 'before\n')
  const sink = await sinkAt('out')
  expect(await sink.write(writeOf('one\ntwo\n'), never)).toEqual({ retry: [], rejected: [] })
  await sink.write(writeOf('three\n'), never)
  expect(read('out')).toBe('before\none\ntwo\nthree\n')
  await sink.close()
  expect(names()).toEqual(['out'])
})

test('a last line without newline that somebody else wrote stays a line of its own', async () => {
  fs.writeFileSync(at('out'), 'theirs')
  const sink = await sinkAt('out')
  await sink.write(writeOf('ours\n'), never)
  expect(read('out')).toBe('theirs\nours\n')
})

test('records that cannot be lines are rejected, as envelopes they are not', async () => {
  const write = {
    ...writeOf(''),
    payload: new EntryBatch([{ value: Buffer.from('a') }, { value: Buffer.from('b\nc') }], 4),
  }
  expect((await (await sinkAt('out')).write(write, never)).rejected.map(({ index }) => index)).toEqual([1])
  expect(read('out')).toBe('a\n')
  expect((await (await sinkAt('env', { framing: 'envelope' })).write(write, never)).rejected).toEqual([])
  expect(
    read('env')
      .split('\n')
      .slice(0, -1)
      .map((line) => (JSON.parse(line) as { value: string }).value),
  ).toEqual(['a', 'b\nc'])
})

/** Copies the folder in the middle of a write, as a killed process leaves it. */
function killedCopy(): string {
  const copy = fs.mkdtempSync(path.join(folder, '..', 'manifold-file-sink-killed-'))
  for (const name of names()) fs.renameSync(at(name), path.join(copy, name))
  return copy
}

const PAGE = 4096
/** Begins within a page and ends within another. */
const LARGE = `${'x'.repeat(99)}\n`.repeat(300)
/** As a kill or a power cut leaves a write: a part of it up to a page, and NULs where pages were not written. */
function tear(file: string, start: number, pages: number, nuls: number): void {
  const kept = pages === 0 ? start : Math.floor(start / PAGE) * PAGE + pages * PAGE
  fs.truncateSync(file, kept)
  fs.truncateSync(file, kept + nuls)
}

test.each([
  ['a write torn at a page is cut off', 3, 0],
  ['so is one of which nothing but NULs is there', 0, 100],
  ['so is one that goes on with NULs', 2, 5000],
])('after a kill %s', async (_, pages, nuls) => {
  const sink = await sinkAt('out')
  await sink.write(writeOf('one\n'), never)
  await sink.write(writeOf('two\n'), never)
  await sink.write(writeOf(LARGE), never)
  // The process is gone without closing: its files stay as they are. Moving keeps the inode.
  const killed = killedCopy()
  const out = path.join(killed, 'out')
  tear(out, 8, pages, nuls)
  const torn = fs.statSync(out).size - 8
  const after = await sinkAt(out)
  expect(fs.readFileSync(out, 'utf8')).toBe('one\ntwo\n')
  expect(warnings.at(-1)).toContain(`${torn} bytes`)
  await after.write(writeOf('three\n'), never)
  await after.close()
  expect(fs.readFileSync(out, 'utf8')).toBe('one\ntwo\nthree\n')
  expect(fs.readdirSync(killed)).toEqual(['out'])
  fs.rmSync(killed, { recursive: true })
})

test.each([
  ['after a whole write', 'two\n', 'theirs\nhalf', 'one\ntwo\ntheirs\nhalf\nthree\n'],
  ['after a write of which nothing is there', '', 'theirs\nhalf', 'one\ntheirs\nhalf\nthree\n'],
])('what somebody else appended %s is never cut off', async (_, ours, theirs, all) => {
  const sink = await sinkAt('out')
  await sink.write(writeOf('one\n'), never)
  await sink.write(writeOf(ours === '' ? LARGE : ours), never)
  const killed = killedCopy()
  const out = path.join(killed, 'out')
  fs.truncateSync(out, 4 + ours.length)
  fs.appendFileSync(out, theirs)
  const after = await sinkAt(out)
  await after.write(writeOf('three\n'), never)
  await after.close()
  expect(fs.readFileSync(out, 'utf8')).toBe(all)
  fs.rmSync(killed, { recursive: true })
})

test('a torn page with bytes of somebody else behind it stays: nobody can say where ours end', async () => {
  const sink = await sinkAt('out')
  await sink.write(writeOf(LARGE), never)
  const killed = killedCopy()
  const out = path.join(killed, 'out')
  tear(out, 0, 2, 0)
  fs.appendFileSync(out, 'theirs\n')
  await (await sinkAt(out)).close()
  expect(fs.readFileSync(out, 'utf8')).toBe(`${LARGE.slice(0, 2 * PAGE)}theirs\n`)
  fs.rmSync(killed, { recursive: true })
})

test('a write that another process still has under way is no torn one', async () => {
  const sink = await sinkAt('out')
  await sink.write(writeOf(LARGE), never)
  fs.truncateSync(at('out'), 2 * PAGE)
  // It goes on while the other one waits to see whether it does.
  const opening = sinkAt('out')
  await new Promise((resolve) => {
    setTimeout(resolve, 50)
  })
  fs.appendFileSync(at('out'), LARGE.slice(2 * PAGE))
  await opening
  expect(read('out')).toBe(LARGE)
  await sink.write(writeOf('two\n'), never)
  expect(read('out')).toBe(`${LARGE}two\n`)
})

test('after a power cut that took the bytes of the last write, but not what tells of it, all before it stays', async () => {
  const sink = await sinkAt('out')
  await sink.write(writeOf('one\n'), never)
  await sink.write(writeOf('two\n'), never)
  const killed = killedCopy()
  const damaged = fs.openSync(path.join(killed, 'out'), 'r+')
  fs.writeSync(damaged, '\0\0\0\0', 4)
  fs.closeSync(damaged)
  await (await sinkAt(path.join(killed, 'out'))).close()
  expect(fs.readFileSync(path.join(killed, 'out'), 'utf8')).toBe('one\n')
  fs.rmSync(killed, { recursive: true })
})

test('whatever byte of the marker is damaged, confirmed writes before the last one are never cut', async () => {
  const sink = await sinkAt('out')
  for (const text of ['one\n', 'two\n', 'three\n']) await sink.write(writeOf(text), never)
  const killed = killedCopy()
  const marker = path.join(killed, '.out.writing')
  const good = fs.readFileSync(marker)
  const told = [...good.keys()].filter((at) => good[at] !== 0)
  expect(told.length).toBeGreaterThan(256)
  for (const at of told.filter((_, index) => index % 7 === 0)) {
    const bad = Buffer.from(good)
    bad[at] = (bad[at] ?? 0) ^ 0x15
    fs.writeFileSync(marker, bad)
    await (await sinkAt(path.join(killed, 'out'))).close()
    expect('one\ntwo\nthree\n'.startsWith(fs.readFileSync(path.join(killed, 'out'), 'utf8'))).toBe(true)
    expect(fs.readFileSync(path.join(killed, 'out'), 'utf8').startsWith('one\ntwo\n')).toBe(true)
    fs.writeFileSync(path.join(killed, 'out'), 'one\ntwo\nthree\n')
  }
  fs.rmSync(killed, { recursive: true })
})

test('a marker that tells of another file cuts nothing', async () => {
  const sink = await sinkAt('out')
  await sink.write(writeOf('one\n'), never)
  const killed = killedCopy()
  fs.rmSync(path.join(killed, 'out'))
  fs.writeFileSync(path.join(killed, 'out'), 'a new file, longer\n')
  await (await sinkAt(path.join(killed, 'out'))).close()
  expect(fs.readFileSync(path.join(killed, 'out'), 'utf8')).toBe('a new file, longer\n')
  fs.rmSync(killed, { recursive: true })
})

test('a write that was given up leaves nothing behind', async () => {
  const sink = await sinkAt('out.gz')
  await sink.write(writeOf('one\n'), never)
  const stop = new AbortController()
  const writing = sink.write(writeOf('two\n'.repeat(100_000)), stop.signal)
  stop.abort(new Error('cut short'))
  await expect(writing).rejects.toThrow('cut short')
  await sink.close()
  expect(gunzipSync(fs.readFileSync(at('out.gz'))).toString()).toBe('one\n')
})

test.each([
  ['gz', gunzipSync],
  ['zst', zstdDecompressSync],
] as const)(
  'a .%s file consists of whole members, so that what is cut off leaves it readable',
  async (suffix, decompress) => {
    const sink = await sinkAt(`out.${suffix}`)
    await sink.write(writeOf('one\n'), never)
    const first = fs.statSync(at(`out.${suffix}`)).size
    await sink.write(writeOf('two\n'), never)
    const bytes = fs.readFileSync(at(`out.${suffix}`))
    expect(decompress(bytes.subarray(0, first)).toString()).toBe('one\n')
    expect(decompress(bytes.subarray(first)).toString()).toBe('two\n')
  },
)

test('a file that is full is renamed, and a new one begins', async () => {
  const sink = await sinkAt('out.ndjson', { rotateSize: 10 })
  for (const text of ['12345\n', '67890\n', 'abc\n', 'defghijk\n', 'x\n']) await sink.write(writeOf(text), never)
  await sink.close()
  expect(names()).toEqual(['out.ndjson', 'out.ndjson-20260131T235958', 'out.ndjson-20260131T235958.1'])
  expect(names().map(read)).toEqual(['x\n', '12345\n67890\n', 'abc\ndefghijk\n'])
})

test('a full file replaces nothing, not even a link that leads nowhere', async () => {
  fs.symlinkSync(at('nowhere'), at('out.ndjson-20260131T235958'))
  const sink = await sinkAt('out.ndjson', { rotateSize: 1 })
  for (const text of ['a\n', 'b\n']) await sink.write(writeOf(text), never)
  await sink.close()
  expect(fs.readlinkSync(at('out.ndjson-20260131T235958'))).toBe(at('nowhere'))
  expect(read('out.ndjson-20260131T235958.1')).toBe('a\n')
})

test('rotate-every begins a new file when its time has come, after a restart as well', async () => {
  const hour = 3_600_000
  let sink = await sinkAt('out.gz', { rotateEvery: hour })
  await sink.write(writeOf('a\n'), never)
  now += 1000
  await sink.write(writeOf('b\n'), never)
  now += 2000
  await sink.write(writeOf('c\n'), never)
  await sink.close()
  fs.utimesSync(at('out.gz'), now / 1000, now / 1000)
  now += hour
  sink = await sinkAt('out.gz', { rotateEvery: hour })
  await sink.write(writeOf('d\n'), never)
  await sink.close()
  const all = names()
  expect(all).toEqual(['out-20260201T000001.gz', 'out-20260201T010001.gz', 'out.gz'])
  expect(all.map((name) => gunzipSync(fs.readFileSync(at(name))).toString())).toEqual(['a\nb\n', 'c\n', 'd\n'])
})

test('times in the path make folders and files as they pass', async () => {
  now = Date.UTC(2026, 1, 28, 23, 59, 59)
  const sink = await sinkAt('{yyyy}/{mm}-{dd}/{HH}{MM}{SS}.log')
  await sink.write(writeOf('a\n'), never)
  now += 1000
  await sink.write(writeOf('b\n'), never)
  await sink.close()
  expect(read('2026/02-28/235959.log')).toBe('a\n')
  expect(read('2026/03-01/000000.log')).toBe('b\n')
})

test('a file that somebody moved away is followed by a new one at its path', async () => {
  const sink = await sinkAt('out')
  await sink.write(writeOf('a\n'), never)
  fs.renameSync(at('out'), at('out.1'))
  await sink.write(writeOf('b\n'), never)
  fs.rmSync(at('out'))
  await sink.write(writeOf('c\n'), never)
  await sink.close()
  expect(names()).toEqual(['out', 'out.1'])
  expect([read('out'), read('out.1')]).toEqual(['c\n', 'a\n'])
})

test('a file that somebody truncates is gone on with at its new end, and in a line of its own', async () => {
  const sink = await sinkAt('out')
  await sink.write(writeOf('before\n'), never)
  fs.truncateSync(at('out'))
  await sink.write(writeOf('after\n'), never)
  expect(read('out')).toBe('after\n')
  fs.truncateSync(at('out'), 3)
  await sink.write(writeOf('last\n'), never)
  expect(read('out')).toBe('aft\nlast\n')
  expect(warnings.filter((text) => text.includes('truncated by somebody'))).toHaveLength(1)
})

test.each([
  ['gz', gunzipSync],
  ['zst', zstdDecompressSync],
] as const)('a .%s file that somebody truncates goes on with a member of its own', async (suffix, decompress) => {
  const sink = await sinkAt(`out.${suffix}`)
  await sink.write(writeOf('before\n'), never)
  fs.truncateSync(at(`out.${suffix}`))
  await sink.write(writeOf('after\n'), never)
  expect(decompress(fs.readFileSync(at(`out.${suffix}`))).toString()).toBe('after\n')
})

test('two sinks of one file that is full give it two names, and nothing is replaced', async () => {
  const [one, other] = await Promise.all([sinkAt('out', { rotateSize: 1 }), sinkAt('out', { rotateSize: 1 })])
  const written: string[] = []
  for (let round = 0; round < 20; round++) {
    await Promise.all(
      [one, other].map((sink, index) => {
        written.push(`${index}-${round}`)
        return sink.write(writeOf(`${index}-${round}\n`), never)
      }),
    )
  }
  await Promise.all([one.close(), other.close()])
  expect(
    names()
      .flatMap((name) => read(name).split('\n').slice(0, -1))
      .sort(),
  ).toEqual(written.sort())
  expect(names().filter((name) => name.startsWith('.'))).toEqual([])
})

test('a writer whose marker was taken away by the next one to open the file makes another', async () => {
  const one = await sinkAt('out')
  const other = await sinkAt('out')
  await one.write(writeOf('one\n'), never)
  await other.write(writeOf(LARGE), never)
  expect(names()).toEqual(['.out.2.writing', '.out.writing', 'out'])
  await other.close()
  await one.write(writeOf('two\n'), never)
  expect(read('out')).toBe(`one\n${LARGE}two\n`)
  await one.close()
  expect(names()).toEqual(['out'])
})

test('what cannot be written to is refused with what to do', async () => {
  await expect(sinkAt('none/out')).rejects.toThrow(/its folder does not exist/)
  await expect(sinkAt('none/out')).rejects.toThrow(Refused)
  await expect(sinkAt('.')).rejects.toThrow(/is a directory: name a file in it/)
})

test('on a full disk what was written of a record is taken back, and it is written once there is room', async () => {
  const disk = at('disk')
  fs.mkdirSync(disk)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', disk], { stdio: 'pipe' })
  } catch (error) {
    console.warn(`skipped: no small disk can be mounted here (${String(error)})`)
    return
  }
  try {
    const sink = await sinkAt('disk/out')
    await sink.write(writeOf('one\n'), never)
    fs.writeFileSync(path.join(disk, 'ballast'), Buffer.alloc(150_000))
    const large = writeOf(`${'x'.repeat(120_000)}\n`)
    await expect(sink.write(large, never)).rejects.toThrow(Disconnected)
    await sink.close()
    expect(read('disk/out')).toBe('one\n')
    fs.rmSync(path.join(disk, 'ballast'))
    await sink.open(context)
    await sink.write(large, never)
    await sink.close()
    expect(read('disk/out').length).toBe(120_005)
  } finally {
    execFileSync('umount', [disk])
  }
})

test('a FIFO is written to once somebody reads it', async () => {
  execFileSync('mkfifo', [at('pipe')])
  const sink = new StreamFileSink(at('pipe'), { framing: 'lines', newline: 'reject' })
  await expect(sink.open()).rejects.toThrow(/nobody reads/)
  const reader = fs.createReadStream(at('pipe'), {
    flags: (fs.constants.O_RDONLY | fs.constants.O_NONBLOCK) as unknown as string,
  })
  await new Promise((resolve) => {
    reader.once('open', resolve)
  })
  reader.destroy()
  const kept = fs.openSync(at('pipe'), fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
  await sink.open()
  await sink.write(writeOf('one\n'), never)
  const got = Buffer.alloc(10)
  expect(got.toString('utf8', 0, fs.readSync(kept, got))).toBe('one\n')
  fs.closeSync(kept)
  await expect(sink.write(writeOf('two\n'), never)).rejects.toThrow(/reader of .* went away/)
  await sink.close()
})

test('paths know the parts of a time, in UTC', () => {
  const time = Date.UTC(2026, 0, 2, 3, 4, 5)
  expect(pathAt('/a/{yyyy}/{mm}{dd}T{HH}{MM}{SS}/{env}', time)).toBe('/a/2026/0102T030405/{env}')
  expect(rotatedPath('/a/b.ndjson.gz', time, 0)).toBe('/a/b.ndjson-20260102T030405.gz')
  expect(rotatedPath('/a/b.log', time, 2)).toBe('/a/b.log-20260102T030405.2')
  expect(templateFaults('/a/{yyy}/{dd}', { rotateEvery: 5 })).toEqual([
    expect.stringContaining('{yyy}'),
    expect.stringContaining('rotate-every'),
  ])
})
