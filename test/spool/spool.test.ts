import { createHash } from 'node:crypto'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EntryBatch, LineBatch } from '../../src/core/batch'
import type { Spool, Spooled } from '../../src/core/flow/ports'
import { realFileSystem } from '../../src/kit/file-system'
import { openSpool, type OpenedSpool, type SpoolConfig } from '../../src/spool'
import { collect, lines, policy, silent, TestClock } from './support'

const NONE = { sequence: 0, clean: false, tail: 0, acceptedThrough: 0 }
const forever = new AbortController().signal
let directory: string
let opened: OpenedSpool[]
let clock: TestClock

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'spool-'))
  opened = []
  clock = new TestClock()
})
afterEach(async () => {
  for (const one of opened) await one.spool.close()
  await rm(directory, { recursive: true })
})

async function open(over: Partial<SpoolConfig> = {}): Promise<OpenedSpool> {
  const one = await openSpool({
    fs: realFileSystem,
    directory,
    clock,
    log: silent,
    known: NONE,
    policies: [{ sink: 'archive', policy: policy() }],
    segmentBytes: 1 << 20,
    ...over,
  })
  opened.push(one)
  return one
}
async function readAll(spool: Spool, from = 0): Promise<readonly Spooled[]> {
  const reader = spool.batches('kafka', from)
  const all: Spooled[] = []
  while (all.length === 0 || (all.at(-1)?.next ?? 0) < spool.head) {
    const one = await reader.next(forever)
    if (one === null) break
    all.push(one)
  }
  return all
}
const textOf = (spooled: readonly Spooled[]): string =>
  spooled.map((one) => Buffer.concat(one.batch.lines().chunks).toString()).join('')

test('what was appended comes out of both readers, byte for byte', async () => {
  const { spool, id } = await open()
  expect(await spool.append(lines(['a', 'b']))).toEqual({ first: 0, next: 2 })
  expect(await spool.append(lines(['c']))).toEqual({ first: 2, next: 3 })
  expect(textOf(await readAll(spool))).toBe('a\nb\nc\n')
  await spool.seal('input ended')
  const segment = await spool.segments('archive', 0).next(forever)
  if (segment === null) throw new Error('no segment')
  const content = await collect(segment.read(0))
  expect(content.toString()).toBe('a\nb\nc\n')
  expect(segment).toMatchObject({
    count: 3,
    first: 0,
    next: 3,
    length: 6,
    sha256: createHash('sha256').update(content).digest('hex'),
    compression: 'none',
  })
  expect(segment.key).toBe(`2024-01-02T03:04:05.678Z-${id.slice(0, 12)}00000000000.ndjson`)
  expect(segment.facts).toMatchObject({
    'first-sequence': '0',
    'last-sequence': '2',
    count: '3',
    positions: 'p0=after c',
    spool: id,
  })
  expect((await collect(segment.read(2))).toString()).toBe('b\nc\n')
})

test('what was not sealed before a crash is there after it, sealed, and new records follow under new sequences', async () => {
  const { spool, id } = await open()
  await spool.append(lines(['a', 'b']))
  const again = await open({ id, known: { sequence: 0, clean: false, tail: 0, acceptedThrough: 1 } })
  expect(again.recovered).toMatchObject({ recordsSince: 1, gaps: [], quarantined: [], tornBytes: 0 })
  expect(again.nextSequence).toBe(2 ** 33)
  expect(again.spool.position('ws://feed', 'p0')).toBe('after b')
  expect(again.spool.lastReceivedAt('ws://feed')).toBe(Date.UTC(2024, 0, 2, 3, 4, 5, 678))
  await again.spool.append(lines(['c']))
  await again.spool.end()
  const reader = again.spool.segments('archive', 0)
  const contents: string[] = []
  for (let one = await reader.next(forever); one !== null; one = await reader.next(forever))
    contents.push((await collect(one.read(0))).toString())
  expect(contents).toEqual(['a\nb\n', 'c\n'])
  expect(again.spool.countFrom(1)).toBe(2)
})

test('entries keep value, key, headers, timestamp and position through a restart', async () => {
  const { spool, id } = await open({ policies: [] })
  const entries = [
    {
      value: Buffer.from('v\nw'),
      key: Buffer.from('k'),
      headers: [
        ['s', 'text'],
        ['b', Buffer.from([0, 255])],
        ['n', 1.5],
        ['t', true],
        ['f', false],
        ['z', null],
        ['i', -(2n ** 70n)],
      ] as const,
      timestamp: 12.25,
    },
    { value: null },
    { value: Buffer.alloc(0), key: Buffer.alloc(0), headers: [] },
  ]
  await spool.append({ ...lines([]), batch: new EntryBatch(entries, 10), at: (index) => `at ${index}`, last: 'end' })
  await spool.end()
  const again = await open({ id, policies: [] })
  const [one] = await readAll(again.spool)
  expect(one?.batch.entries()).toEqual(entries)
  expect([0, 1, 2].map((index) => one?.at(index))).toEqual(['at 0', 'at 1', 'at 2'])
})

test('a large batch of lines is split at newlines into frames of about 4 MiB with exact counts', async () => {
  const { spool } = await open({ policies: [] })
  const texts = Array.from({ length: 60_000 }, (_, index) => `${index} ${'x'.repeat(200)}`)
  const bytes = Buffer.from(texts.map((text) => `${text}\n`).join(''))
  await spool.append(lines(texts, { batch: new LineBatch([bytes], texts.length) }))
  const frames = await readAll(spool)
  expect(frames.length).toBe(3)
  for (const frame of frames) expect(frame.batch.entries().length).toBe(frame.next - frame.first)
  expect(Buffer.concat(frames.flatMap((frame) => frame.batch.lines().chunks)).equals(bytes)).toBe(true)
})

test('whole segments below all cursors are unlinked, the open one never', async () => {
  const { spool } = await open()
  for (let index = 0; index < 5; index++) await spool.append(lines(['x'.repeat(600)]))
  await spool.drop(3)
  expect((await readdir(directory)).filter((name) => name.endsWith('.seg'))).toEqual([
    '0000000000000002.seg',
    '0000000000000004.seg',
  ])
  await spool.drop(5)
  expect(await readdir(directory)).toEqual(['0000000000000004.seg'])
  expect(spool.tail).toBe(4)
  await spool.seal('stopping')
  expect(await readdir(directory)).toEqual([])
})
