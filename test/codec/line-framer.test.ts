import * as fc from 'fast-check'
import { createHash } from 'node:crypto'
import { LineFramer, type Framed } from '../../src/codec/line-framer'

interface Seen {
  readonly records: string[]
  readonly offsets: number[]
  readonly misfits: { offset: number; length: number; sha256: string; head: string }[]
  to: number
}

/** The expected records, by the simplest way of reading. */
function model(stream: Buffer, maxRecord: number, base: number): Seen {
  const seen: Seen = { records: [], offsets: [], misfits: [], to: base + stream.length }
  for (let at = 0; at < stream.length; ) {
    const found = stream.indexOf(10, at)
    const end = found === -1 ? stream.length : found
    const record = stream.subarray(at, end)
    if (record.length > maxRecord)
      seen.misfits.push({
        offset: base + Math.min(end + 1, stream.length),
        length: record.length,
        sha256: createHash('sha256').update(record).digest('hex'),
        head: record.subarray(0, 65_536).toString('latin1'),
      })
    else {
      seen.records.push(record.toString('latin1'))
      seen.offsets.push(base + Math.min(end + 1, stream.length))
    }
    at = end + 1
  }
  return seen
}

function collect(seen: Seen, framed: Framed | undefined): void {
  if (framed === undefined) return
  for (const { offset } of framed.invalid)
    for (let i = 0; i < framed.batch.count; i++) expect(framed.at(i)).toBeLessThan(offset)
  const lines = framed.batch.lines()
  expect(lines.count).toBe(framed.batch.count)
  for (const chunk of lines.chunks) expect(chunk[chunk.length - 1]).toBe(10)
  const values = framed.batch.entries().map((entry) => entry.value?.toString('latin1') ?? '')
  expect(values.length).toBe(framed.batch.count)
  values.forEach((value, index) => {
    seen.records.push(value)
    seen.offsets.push(framed.at(index))
  })
  for (const { offset, length, sha256, head } of framed.invalid)
    seen.misfits.push({ offset, length, sha256, head: head.toString('latin1') })
  seen.to = framed.to
}

test('whatever the cuts between reads, every line comes out once, in order, with its offset, and what is too large comes out as an invalid record', () => {
  const stream = fc.array(
    fc.oneof(
      { weight: 5, arbitrary: fc.string({ maxLength: 12 }) },
      { weight: 1, arbitrary: fc.string({ minLength: 30, maxLength: 300 }) },
      { weight: 2, arbitrary: fc.constant('\n\n') },
    ),
    { maxLength: 40 },
  )
  fc.assert(
    fc.property(
      stream,
      fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1 }),
      fc.boolean(),
      fc.integer({ min: 1, max: 60 }),
      fc.nat(1000),
      fc.integer({ min: 16, max: 128 }),
      fc.nat(5),
      (lines, cuts, final, maxRecord, base, blockBytes, takeEvery) => {
        const bytes = Buffer.from(lines.join('\n') + (final ? '\n' : ''))
        const framer = new LineFramer({ maxRecord, offset: base, blockBytes })
        const seen: Seen = { records: [], offsets: [], misfits: [], to: base }
        let cut = 0
        for (let at = 0; at < bytes.length; ) {
          const length = cuts[cut++ % cuts.length] ?? 1
          if (cut % 2 === 0) {
            const space = framer.space()
            const landed = bytes.copy(space, 0, at, at + length)
            framer.filled(landed)
            at += landed
          } else {
            framer.push(bytes.subarray(at, at + length))
            at += Math.min(length, bytes.length - at)
          }
          if (cut % (takeEvery + 1) === 0) {
            const had = framer.pending
            const framed = framer.take()
            expect(framed !== undefined).toBe(had > 0)
            expect(framer.pending).toBeLessThan(Math.max(had, 1))
            collect(seen, framed)
          }
        }
        for (let framed = framer.end(); framed !== undefined; framed = framer.end()) collect(seen, framed)
        const expected = model(bytes, maxRecord, base)
        expect(seen).toEqual(expected)
      },
    ),
    { numRuns: 1000 },
  )
})

test('a delivery stays as it was while the framer goes on', () => {
  const framer = new LineFramer({ maxRecord: 100, blockBytes: 64 })
  framer.push(Buffer.from('first\nsecond\npart'))
  const first = framer.take()
  for (let i = 0; i < 100; i++) {
    framer.push(Buffer.from(`line ${i}\n${'x'.repeat(i % 120)}\n`))
    if (i % 3 === 0) framer.take()
  }
  expect(Buffer.concat(first?.batch.lines().chunks ?? []).toString()).toBe('first\nsecond\n')
})

test('a line of 64 MiB keeps memory within a few times max-record', () => {
  const framer = new LineFramer({ maxRecord: 1024 * 1024 })
  const part = Buffer.alloc(1024 * 1024, 'x')
  const hash = createHash('sha256')
  const before = process.memoryUsage().arrayBuffers
  for (let i = 0; i < 64; i++) {
    framer.push(part)
    hash.update(part)
  }
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(32 * 1024 * 1024)
  expect(framer.pending).toBe(0)
  framer.push(Buffer.from('\nnext\n'))
  const framed = framer.take()
  expect(framed?.invalid).toEqual([
    {
      why: expect.stringContaining('max-record=1MiB') as string,
      offset: 64 * 1024 * 1024 + 1,
      head: part.subarray(0, 65_536),
      length: 64 * 1024 * 1024,
      sha256: hash.digest('hex'),
    },
  ])
  const next = framer.take()
  expect(next?.batch.lines().chunks.map(String)).toEqual(['next\n'])
  expect(next?.at(0)).toBe(64 * 1024 * 1024 + 6)
})

test('blocks are filled again only after everything that was taken from them is released', () => {
  const framer = new LineFramer({ maxRecord: 1000, blockBytes: 64 * 1024 })
  const taken: { readonly framed: Framed; readonly expected: string }[] = []
  let n = 0
  for (let round = 0; round < 2000; round++) {
    let text = ''
    for (let i = 0; i < 20; i++) text += `${++n} ${'x'.repeat(n % 97)}\n`
    framer.push(Buffer.from(text))
    const framed = framer.take()
    if (framed !== undefined) taken.push({ framed, expected: text })
    // Held for a while, released out of order.
    while (taken.length > 40) {
      const [{ framed: oldest, expected }] = taken.splice((n * 7) % 40, 1) as [(typeof taken)[number]]
      expect(Buffer.concat(oldest.batch.lines().chunks).toString()).toBe(expected)
      oldest.release()
    }
  }
})

test.each([
  [100, 1000],
  [1000, 1000],
  [5000, 16],
  [2 * 1024 * 1024, 4096],
  [2 * 1024 * 1024, 1024 * 1024],
])('a hole of %i NULs that is larger than max-record takes no line along, read in pieces of %i', (nuls, run) => {
  const framer = new LineFramer({ maxRecord: 50, blockBytes: 64 * 1024 })
  const bytes = Buffer.concat([
    Buffer.from('before\n'),
    Buffer.alloc(nuls),
    Buffer.from('good\n'),
    Buffer.alloc(nuls),
    Buffer.from('x'.repeat(60)),
    Buffer.from('\nlast\n'),
  ])
  const lines: string[] = []
  const invalid: { readonly length: number; readonly offset: number }[] = []
  const take = (framed: Framed | undefined): void => {
    lines.push(...(framed?.batch.lines().chunks.map(String) ?? []))
    invalid.push(...(framed?.invalid.map(({ length, offset }) => ({ length, offset })) ?? []))
  }
  for (let at = 0; at < bytes.length; at += run) framer.push(bytes.subarray(at, at + run))
  while (framer.pending > 0) take(framer.take())
  take(framer.end())
  expect(lines.join('')).toBe('before\ngood\nlast\n')
  expect(invalid).toEqual([
    { length: nuls, offset: 7 + nuls },
    { length: nuls, offset: 12 + 2 * nuls },
    { length: 60, offset: 12 + 2 * nuls + 61 },
  ])
})

test('a hole that a line fits behind within max-record passes unchanged, as all NULs do', () => {
  const framer = new LineFramer({ maxRecord: 5000, blockBytes: 64 * 1024 })
  const bytes = Buffer.concat([Buffer.alloc(4500), Buffer.from('good\n')])
  framer.push(bytes)
  expect(Buffer.concat(framer.take()?.batch.lines().chunks ?? [])).toEqual(bytes)
})
