/** Every byte of a segment changed, every length cut: what is served is right, and what is not served is reported. */
import { createHash } from 'node:crypto'
import { EntryBatch } from '../../src/core/batch'
import { openSpool, type OpenedSpool, type SpoolConfig } from '../../src/spool'
import { CrashDisk } from './crash-file-system'
import { Random } from './random'
import { collect, lines, policy, silent, TestClock } from './support'

const ID = '00112233445566778899aabbccddeeff'
const forever = new AbortController().signal

function config(disk: CrashDisk, known: SpoolConfig['known']): SpoolConfig {
  return {
    fs: disk.boot(),
    directory: '/spool',
    clock: new TestClock(),
    log: silent,
    id: ID,
    known,
    segmentBytes: 1 << 20,
    reserve: 0,
    policies: [{ sink: 'archive', policy: policy({ sealBytes: 0 }) }],
    render: (frame) => frame.batch.entries().map((entry) => Buffer.from(`${String(entry.value)}\n`)),
  }
}

/** Three segments, of four appends each: sealed, sealed, open. Record n is `n`, with something behind it. */
async function made(): Promise<ReadonlyMap<string, Buffer>> {
  const disk = new CrashDisk(new Random(1))
  const { spool } = await openSpool(config(disk, { sequence: 0, clean: true, tail: 0, acceptedThrough: 0 }))
  for (let segment = 0, number = 0; segment < 3; segment++) {
    for (let append = 0; append < 4; append++) {
      const texts = [number++, number++].map((one) => `${one} ${'~'.repeat(5 + append)}`)
      await spool.append(
        append === 2
          ? {
              ...lines(texts),
              batch: new EntryBatch(
                texts.map((text) => ({ value: Buffer.from(text), key: Buffer.from('k') })),
                10,
              ),
            }
          : lines(texts),
      )
    }
    if (segment < 2) await spool.seal('revoke')
  }
  const files = disk.contents()
  await spool.close()
  return files
}

interface Outcome {
  readonly opened: OpenedSpool
  readonly served: readonly number[]
}

/** Opens a spool of these files and reads all of it, through both readers; throws where anything is wrong. */
async function served(files: ReadonlyMap<string, Buffer>, acceptedThrough: number): Promise<Outcome> {
  const disk = new CrashDisk(new Random(2))
  for (const [name, bytes] of files) disk.plant(name, bytes)
  const opened = await openSpool(config(disk, { sequence: 24, clean: false, tail: 0, acceptedThrough }))
  const { spool } = opened
  await spool.end()
  const found: number[] = []
  const reader = spool.batches('kafka', 0)
  for (let frame = await reader.next(forever); frame !== null; frame = await reader.next(forever)) {
    frame.batch.entries().forEach((entry, index) => {
      const number = (frame?.first ?? NaN) + index
      if (!new RegExp(`^${number} ~+$`).test(String(entry.value)))
        throw new Error(`record ${number} is served as ${String(entry.value)}`)
      found.push(number)
    })
  }
  const objects: number[] = []
  const segments = spool.segments('archive', 0)
  for (let segment = await segments.next(forever); segment !== null; segment = await segments.next(forever)) {
    const content = await collect(segment.read(0))
    if (content.length !== segment.length || createHash('sha256').update(content).digest('hex') !== segment.sha256)
      throw new Error(`segment ${segment.first} is not what its seal says`)
    const numbers = content
      .toString()
      .split('\n')
      .slice(0, -1)
      .map((line) => Number(line.split(' ')[0]))
    if (numbers.length !== segment.count)
      throw new Error(`segment ${segment.first} counts ${segment.count} records and holds ${numbers.length}`)
    objects.push(...numbers)
  }
  if (objects.join() !== found.join()) throw new Error(`batches ${found.join()} and objects ${objects.join()} differ`)
  if (spool.countFrom(0) !== found.length)
    throw new Error(`it counts ${spool.countFrom(0)} records and serves ${found.length}`)
  for (let index = 1; index < found.length; index++)
    if (found[index]! <= found[index - 1]!) throw new Error(`record ${found[index]} comes after ${found[index - 1]}`)
  await spool.close()
  return { opened, served: found }
}
function lostOf(opened: OpenedSpool): readonly number[] {
  return opened.recovered.gaps
    .filter((gap) => gap.lost)
    .flatMap((gap) =>
      Array.from({ length: Number(gap.to) - Number(gap.from) + 1 }, (_, index) => Number(gap.from) + index),
    )
}
const ALL = Array.from({ length: 24 }, (_, index) => index)
const names = ['/spool/0000000000000000.seg', '/spool/0000000000000008.seg', '/spool/0000000000000016.seg']

test('undamaged files serve all of it', async () => {
  const outcome = await served(await made(), 24)
  expect(outcome.served).toEqual(ALL)
  expect(outcome.opened.recovered).toMatchObject({ gaps: [], quarantined: [], tornBytes: 0, recordsSince: 0 })
})

for (const [which, name] of names.entries()) {
  if (which === 0) continue
  test(`one changed byte anywhere in ${which === 1 ? 'a sealed' : 'the open'} segment costs at most the append it is in, and that is reported`, async () => {
    const files = await made()
    const random = new Random(3)
    const good = files.get(name)!
    for (let at = 0; at < good.length; at++) {
      // Of the NULs that fill header and seal block one in sixteen stands for all.
      if (at < 16_384 && good[at] === 0 && at % 16 !== 0) continue
      const bytes = Buffer.from(good)
      bytes[at] = bytes[at]! ^ (1 << random.below(8))
      try {
        const { opened, served: found } = await served(new Map([...files, [name, bytes]]), 24)
        expect([...found, ...lostOf(opened)].sort((a, b) => a - b)).toEqual(ALL)
        expect(lostOf(opened).length).toBe(at < 16_384 ? 0 : 2)
        if (at >= 16_384) expect(opened.recovered.quarantined.length).toBe(1)
      } catch (error) {
        throw new Error(`byte ${at}: ${(error as Error).message}`, { cause: error })
      }
    }
  }, 60_000)

  test(`${which === 1 ? 'a sealed' : 'the open'} segment cut at any length serves what is whole, and the rest is reported`, async () => {
    const files = await made()
    const good = files.get(name)!
    for (let length = good.length - 1; length >= 0; length--) {
      // Below the first frame all lengths are alike but for the boundaries of the blocks.
      if (length < 16_300 && length > 4_200) length = 4_200
      if (length < 4_000 && length > 100) length = 100
      try {
        const { opened, served: found } = await served(new Map([...files, [name, good.subarray(0, length)]]), 24)
        expect([...found, ...lostOf(opened)].sort((a, b) => a - b)).toEqual(ALL)
      } catch (error) {
        throw new Error(`length ${length}: ${(error as Error).message}`, { cause: error })
      }
    }
  }, 60_000)
}

test('without a word from the flow file a changed byte in the last group is a torn tail, and everything before it is served', async () => {
  const files = await made()
  const name = names[2]!
  const good = files.get(name)!
  for (let at = 16_384; at < good.length; at++) {
    const bytes = Buffer.from(good)
    bytes[at] = bytes[at]! ^ 0xff
    const { opened, served: found } = await served(new Map([...files, [name, bytes]]), 0)
    expect(found.slice(0, 16)).toEqual(ALL.slice(0, 16))
    const missing = ALL.filter((number) => !found.includes(number))
    expect(missing.length).toBe(2)
    if (lostOf(opened).length === 0) expect(missing).toEqual([22, 23])
    else expect(lostOf(opened)).toEqual(missing)
  }
})

test('a file of NULs, an empty one and half a header are removed, for nothing in them was ever acknowledged', async () => {
  for (const bytes of [
    Buffer.alloc(0),
    Buffer.alloc(16_384),
    Buffer.alloc(20_000),
    (await made()).get(names[2]!)!.subarray(0, 2000),
  ]) {
    const disk = new CrashDisk(new Random(4))
    disk.plant('/spool/0000000000000000.seg', bytes)
    const { spool, recovered } = await openSpool(
      config(disk, { sequence: 0, clean: false, tail: 0, acceptedThrough: 0 }),
    )
    expect(recovered).toMatchObject({ gaps: [], quarantined: [] })
    expect([...disk.contents().keys()]).toEqual([])
    await spool.close()
  }
})

test('a file that is gone is reported as records missing', async () => {
  const files = new Map(await made())
  files.delete(names[1]!)
  const { opened, served: found } = await served(files, 24)
  expect(found).toEqual(ALL.filter((number) => number < 8 || number >= 16))
  expect(lostOf(opened)).toEqual([8, 9, 10, 11, 12, 13, 14, 15])
})

test('a sector that cannot be read is set aside like any damage, and all else is served', async () => {
  const files = await made()
  const disk = new CrashDisk(new Random(5))
  for (const [name, bytes] of files) disk.plant(name, bytes)
  const inner = disk.boot()
  const bad = { path: names[1], from: 16_500, to: 16_520 }
  const fs: typeof inner = {
    ...inner,
    open: async (path, how) => {
      const file = await inner.open(path, how)
      return {
        ...file,
        read: async (into, offset) => {
          if (path === bad.path && offset < bad.to && offset + into.length > bad.from)
            throw Object.assign(new Error('EIO: read'), { code: 'EIO' })
          return file.read(into, offset)
        },
      }
    },
  }
  const { spool, recovered } = await openSpool({
    ...config(disk, { sequence: 24, clean: false, tail: 0, acceptedThrough: 24 }),
    fs,
  })
  // All of this small segment lies in the one sector.
  expect(recovered.gaps).toMatchObject([{ lost: true, from: '8', to: '15', records: 8 }])
  await spool.end()
  const reader = spool.batches('kafka', 0)
  const found: string[] = []
  for (let frame = await reader.next(forever); frame !== null; frame = await reader.next(forever))
    found.push(...frame.batch.entries().map((entry) => String(entry.value).split(' ')[0]!))
  expect(found.map(Number)).toEqual(ALL.filter((number) => number < 8 || number >= 16))
  await spool.close()
})
