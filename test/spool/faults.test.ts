/**
 * What the disk, the configuration and time do to a spool, one at a time. The file system is in memory and does as
 * told.
 */
import { EntryBatch, LineBatch } from '../../src/core/batch'
import { DiskFailed, UsageError } from '../../src/core/errors'
import type { SealedSegment, Spool, SpoolStatus } from '../../src/core/flow/ports'
import type { File, FileSystem } from '../../src/kit/file-system'
import { openSpool, type OpenedSpool, type SpoolConfig } from '../../src/spool'
import { decodeHeader, decodeSeal, HEADER_BYTES, SEAL_AT, seedOf } from '../../src/spool/format'
import { crc32 } from 'node:zlib'
import { CrashDisk } from './crash-file-system'
import { Random } from './random'
import { collect, lines, policy, silent, TestClock } from './support'

const ID = '00112233445566778899aabbccddeeff'
const NEW = { sequence: 0, clean: true, tail: 0, acceptedThrough: 0 }
const forever = new AbortController().signal
let disk: CrashDisk
let clock: TestClock
beforeEach(() => {
  disk = new CrashDisk(new Random(1))
  clock = new TestClock()
})

function open(over: Partial<SpoolConfig> = {}): Promise<OpenedSpool> {
  return openSpool({
    fs: disk.boot(),
    directory: '/spool',
    clock,
    log: silent,
    id: ID,
    known: NEW,
    policies: [{ sink: 'archive', policy: policy() }],
    segmentBytes: 1 << 20,
    reserve: 0,
    ...over,
  })
}
function settled(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}
async function objects(
  spool: Spool,
  sink = 'archive',
  from = 0,
): Promise<readonly (readonly [SealedSegment, string])[]> {
  const reader = spool.segments(sink, from)
  const found: [SealedSegment, string][] = []
  for (;;) {
    const stop = new AbortController()
    setImmediate(() => {
      stop.abort(new Error('no more'))
    })
    const one = await reader.next(stop.signal).catch((error: unknown) => {
      if ((error as Error).message === 'no more') return null
      throw error
    })
    if (one === null) return found
    found.push([one, (await collect(one.read(0))).toString()])
  }
}
const texts = (found: readonly (readonly [SealedSegment, string])[]): readonly string[] => found.map(([, text]) => text)
const segs = (): readonly string[] =>
  [...disk.contents().keys()]
    .filter((name) => name.endsWith('.seg'))
    .map((name) => name.slice(7))
    .sort()

/** Passes all calls on, with `before` in front of each. */
function watched(inner: FileSystem, before: (call: string, file: number) => void): FileSystem {
  let serial = 0
  return {
    ...inner,
    open: async (path, how) => {
      const number = ++serial
      before(`open ${how}`, number)
      const file = await inner.open(path, how)
      const call = <K extends keyof File>(name: K): File[K] =>
        ((...args: never[]) => {
          before(name, number)
          return (file[name] as (...all: never[]) => unknown)(...args)
        }) as File[K]
      return {
        write: call('write'),
        read: call('read'),
        datasync: call('datasync'),
        truncate: call('truncate'),
        size: call('size'),
        close: call('close'),
      }
    },
  }
}

describe('a full disk', () => {
  test('makes appends wait, loses nothing, and goes on when delivered segments are dropped', async () => {
    const { spool } = await open()
    const seen: SpoolStatus[] = []
    spool.onStatus((status) => seen.push(status))
    await spool.append(lines(['a'.repeat(1000)]))
    disk.capacity = disk.used() + 16_500
    await spool.append(lines(['b']))
    let there = false
    const waiting = spool.append(lines(['c'.repeat(2000)])).then((got) => {
      there = true
      return got
    })
    await settled()
    expect([there, spool.status().full]).toEqual([false, true])
    expect(spool.status().why).toContain('no space')
    clock.advance(5000)
    await settled()
    expect(there).toBe(false)
    const [first] = await objects(spool)
    expect(first?.[1]).toBe(`${'a'.repeat(1000)}\n`)
    await spool.drop(1)
    expect(await waiting).toEqual({ first: 2, next: 3 })
    expect(seen.map(({ full }) => full)).toEqual([true, false])
    await spool.end()
    expect(texts(await objects(spool, 'archive', 1))).toEqual([`b\n${'c'.repeat(2000)}\n`])
  })

  test('does not prevent sealing, reading and dropping', async () => {
    const { spool } = await open()
    await spool.append(lines(['a']))
    disk.capacity = disk.used()
    const waiting = spool.append(lines(['b'])).catch((error: unknown) => error)
    await settled()
    await spool.seal('stopping')
    expect(texts(await objects(spool))).toEqual(['a\n'])
    await spool.drop(1)
    await settled()
    expect(await waiting).toEqual({ first: 1, next: 2 })
    expect(segs()).toEqual(['0000000000000001.seg'])
  })

  test('is looked at again every second', async () => {
    const { spool } = await open()
    disk.capacity = 100
    let there = false
    void spool.append(lines(['a'])).then(() => {
      there = true
    })
    await settled()
    disk.capacity = Infinity
    await settled()
    expect(there).toBe(false)
    clock.advance(1000)
    await settled()
    expect(there).toBe(true)
    expect(clock.waiting).toBe(0)
  })

  test('keeps its reserve: a quarter of the file system at most, else the larger of 1 GiB and a twentieth', async () => {
    const GIB = 1024 ** 3
    for (const [free, total, full] of [
      [GIB - 1, 10 * GIB, true],
      [GIB + 40_000, 10 * GIB, false],
      [2 * GIB - 1, 40 * GIB, true],
      [0.25 * GIB + 40_000, GIB, false],
      [0.25 * GIB, GIB, true],
    ] as const) {
      disk = new CrashDisk(new Random(1))
      const { reserve: _, ...config } = {
        reserve: 0,
        fs: { ...disk.boot(), space: () => Promise.resolve({ free, total }) },
        directory: '/spool',
        clock,
        log: silent,
        id: ID,
        known: NEW,
        policies: [],
        segmentBytes: 1 << 20,
      }
      const { spool } = await openSpool(config)
      void spool.append(lines(['a'])).catch(() => undefined)
      await settled()
      expect([free, total, spool.status().full]).toEqual([free, total, full])
      await spool.close()
    }
  })

  test('where nobody can say how much space there is, that is told once, and records are taken', async () => {
    const told: string[] = []
    const { spool } = await open({
      policies: [],
      fs: {
        ...disk.boot(),
        space: () =>
          Promise.reject(Object.assign(new Error('ENOSYS: function not implemented, statfs'), { code: 'ENOSYS' })),
      },
      log: {
        ...silent,
        warn: (text) => {
          told.push(text)
        },
      },
    })
    await spool.append(lines(['a']))
    await spool.append(lines(['b']))
    expect(told).toEqual([
      expect.stringMatching(/how much space is left for the spool in \/spool cannot be found out.*ENOSYS/),
    ])
    await spool.close()
  })
})

test('at its bound the spool seals what is open where nothing else could be delivered, and goes on once that is', async () => {
  const { spool } = await open({ maxBytes: 20_000, policies: [{ sink: 'archive', policy: policy({ sealBytes: 0 }) }] })
  await spool.append(lines(['a'.repeat(3000)]))
  const waiting = spool.append(lines(['b'.repeat(3000)]))
  await settled()
  expect(spool.status()).toMatchObject({ full: true, why: expect.stringContaining('of at most') as string })
  expect(texts(await objects(spool))).toEqual([`${'a'.repeat(3000)}\n`])
  await spool.drop(1)
  expect(await waiting).toEqual({ first: 1, next: 2 })
})

describe('an fdatasync that fails', () => {
  test('is never tried again on that descriptor; what was not acknowledged goes to a new file', async () => {
    const synced: number[] = []
    let fail = 0
    const failed = new Set<number>()
    const fs = watched(disk.boot(), (call, file) => {
      if (failed.has(file) && (call === 'datasync' || call === 'write'))
        throw new Error('a descriptor that failed is used again')
      if (call !== 'datasync') return
      synced.push(file)
      if (fail > 0) {
        fail--
        failed.add(file)
        throw Object.assign(new Error('EIO: fdatasync'), { code: 'EIO' })
      }
    })
    const { spool } = await open({ fs })
    await spool.append(lines(['a']))
    fail = 1
    expect(await spool.append(lines(['b', 'c']))).toEqual({ first: 1, next: 3 })
    await spool.append(lines(['d']))
    await spool.end()
    expect(texts(await objects(spool))).toEqual(['a\n', 'b\nc\nd\n'])
    expect(failed.size).toBe(1)
    const again = await open({ fs: disk.powerCut(), known: { sequence: 0, clean: false, tail: 0, acceptedThrough: 4 } })
    expect(again.recovered.gaps).toEqual([])
    expect(texts(await objects(again.spool))).toEqual(['a\n', 'b\nc\nd\n'])
  })

  test('twice in a row ends the run: nothing is acknowledged any more', async () => {
    const { spool } = await open()
    await spool.append(lines(['a']))
    disk.failSyncs = 2
    await expect(spool.append(lines(['b']))).rejects.toThrow(DiskFailed)
    await expect(spool.failed).rejects.toThrow(/cannot be/)
    await expect(spool.append(lines(['c']))).rejects.toThrow(DiskFailed)
    await expect(spool.seal('stopping')).rejects.toThrow(DiskFailed)
    await spool.close()
    const again = await open({ fs: disk.powerCut(), known: { sequence: 0, clean: false, tail: 0, acceptedThrough: 1 } })
    expect(again.spool.countFrom(0)).toBeGreaterThanOrEqual(1)
    expect(again.recovered.gaps).toEqual([])
  })
})

describe('what is found at opening', () => {
  test('a newer format is refused by name, and nothing is touched', async () => {
    const { spool } = await open()
    await spool.append(lines(['a']))
    await spool.close()
    const [[name, bytes]] = [...disk.contents()] as [[string, Buffer]]
    bytes.writeUInt32LE(7, 8)
    bytes.writeUInt32LE(crc32(bytes.subarray(16, HEADER_BYTES), crc32(bytes.subarray(0, 12))), 12)
    disk.plant(name, bytes)
    disk.plant('/spool/0000000000000000-1.seg', Buffer.alloc(5))
    await expect(open()).rejects.toThrow(UsageError)
    await expect(open()).rejects.toThrow(/newer manifold \(format 7/)
    expect(disk.contents()).toEqual(
      new Map([
        [name, bytes],
        ['/spool/0000000000000000-1.seg', Buffer.alloc(5)],
      ]),
    )
  })

  test('files of another spool are refused', async () => {
    const { spool } = await open()
    await spool.append(lines(['a']))
    await spool.close()
    await expect(open({ id: 'ff'.repeat(16) })).rejects.toThrow(/belongs to another spool/)
  })

  test('the id of the files is taken on where the flow file has none', async () => {
    const { spool } = await open()
    await spool.append(lines(['a']))
    await spool.close()
    const { id: _, ...config } = {
      fs: disk.boot(),
      directory: '/spool',
      clock,
      log: silent,
      id: ID,
      known: { ...NEW, clean: false },
      policies: [],
      segmentBytes: 1 << 20,
      reserve: 0,
    }
    const again = await openSpool(config)
    expect([again.id, again.recovered.recordsSince]).toEqual([ID, 1])
  })

  test('sequences go on exactly after a clean stop, jump after any other, and are never used up silently', async () => {
    const first = await open()
    expect(await first.spool.append(lines(['a', 'b']))).toEqual({ first: 0, next: 2 })
    await first.spool.end()
    await first.spool.close()
    const second = await open({ known: { sequence: 2, clean: true, tail: 0, acceptedThrough: 2 } })
    expect(await second.spool.append(lines(['c']))).toEqual({ first: 2, next: 3 })
    await second.spool.close()
    const third = await open({ known: { sequence: 2, clean: false, tail: 0, acceptedThrough: 2 } })
    expect(await third.spool.append(lines(['d']))).toEqual({ first: 2 ** 33, next: 2 ** 33 + 1 })
    expect([
      third.spool.head,
      third.spool.tail,
      third.spool.countFrom(0),
      third.spool.countFrom(1),
      third.spool.countFrom(3),
    ]).toEqual([2 ** 33 + 1, 0, 4, 3, 1])
    await third.spool.close()
    await expect(
      open({ known: { sequence: Number.MAX_SAFE_INTEGER - 2 ** 32, clean: false, tail: 0, acceptedThrough: 0 } }),
    ).rejects.toThrow(/used up its sequence numbers/)
  })

  test('a segment goes only where its header says, and is not lost while another target is named', async () => {
    const first = await open()
    await first.spool.append(lines(['a']))
    await first.spool.seal('revoke')
    await first.spool.append(lines(['b']))
    await first.spool.close()
    const known = { sequence: 2, clean: false, tail: 0, acceptedThrough: 2 }
    const other = await open({ known, policies: [{ sink: 'archive', policy: policy({ target: 's3://elsewhere' }) }] })
    expect(other.foreign.map(({ path, sink, target, count }) => [path.slice(7), sink, target, count]).sort()).toEqual([
      ['0000000000000000.seg', 'archive', 's3://bucket/folder', 1],
      ['0000000000000001.seg', 'archive', 's3://bucket/folder', 1],
    ])
    await other.spool.append(lines(['c']))
    await other.spool.end()
    expect(texts(await objects(other.spool))).toEqual(['c\n'])
    await other.spool.close()
    const back = await open({ known: { ...known, sequence: 2 ** 34, acceptedThrough: 2 ** 33 + 1 } })
    expect(texts(await objects(back.spool))).toEqual(['a\n', 'b\n'])
  })

  test('segments of a time without object sinks are taken on by the first that comes', async () => {
    const first = await open({ policies: [] })
    await first.spool.append(lines(['a', 'b']))
    await first.spool.end()
    await first.spool.close()
    const again = await open({ known: { sequence: 2, clean: true, tail: 0, acceptedThrough: 2 } })
    expect(again.foreign).toEqual([])
    const [[segment, text]] = (await objects(again.spool)) as [readonly [SealedSegment, string]]
    expect([text, segment.count, segment.key]).toEqual([
      'a\nb\n',
      2,
      `2024-01-02T03:04:05.678Z-${ID.slice(0, 12)}00000000000.ndjson`,
    ])
  })

  test('an append that was split into frames is there as a whole or not at all', async () => {
    const first = await open({ policies: [] })
    const bytes = Buffer.from(`${'x'.repeat(999)}\n`.repeat(9000))
    await first.spool.append(lines(['before']))
    await first.spool.append(
      lines([], { batch: new LineBatch([bytes], 9000), last: 'whole', at: (index) => `at ${index}` }),
    )
    await first.spool.close()
    const [[name, whole]] = [...disk.contents()] as [[string, Buffer]]
    for (const length of [whole.length, whole.length - 1, whole.length - 2_000_000, whole.length - 8_000_000]) {
      disk.plant(name, whole.subarray(0, length))
      const { spool, recovered } = await open({ policies: [], known: { ...NEW, clean: false } })
      expect([length, spool.countFrom(0), spool.position('ws://feed', 'p0')]).toEqual(
        length === whole.length ? [length, 9001, 'whole'] : [length, 1, 'after before'],
      )
      expect(recovered.tornBytes > 0).toBe(length !== whole.length)
      await spool.close()
    }
  })
})

describe('a segment is sealed', () => {
  test('by size, checked per append', async () => {
    const { spool } = await open({ policies: [{ sink: 'archive', policy: policy({ sealBytes: 10 }) }] })
    for (const text of ['aaaa', 'bbbb', 'cccc', 'dddd', 'eeee']) await spool.append(lines([text]))
    expect(texts(await objects(spool))).toEqual(['aaaa\nbbbb\n', 'cccc\ndddd\n'])
    await spool.end()
    expect(texts(await objects(spool))).toEqual(['aaaa\nbbbb\n', 'cccc\ndddd\n', 'eeee\n'])
  })

  test('by age after its first record, which a gap is not', async () => {
    const { spool } = await open({ policies: [{ sink: 'archive', policy: policy({ sealAge: 5000 }) }] })
    await spool.gap('ws://feed', { partition: 'p0', from: 'noon', to: 'one', why: 'closed (1006)' })
    clock.advance(6000)
    await settled()
    await spool.append(lines(['a']))
    clock.advance(4999)
    await spool.append(lines(['b']))
    await settled()
    expect(await objects(spool)).toEqual([])
    clock.advance(1)
    await settled()
    const [[segment, text]] = (await objects(spool)) as [readonly [SealedSegment, string]]
    expect([text, segment.facts['gaps']]).toEqual(['a\nb\n', 'noon/one closed (1006)'])
    expect(clock.waiting).toBe(0)
  })

  test('where the part of the key that time decides would change', async () => {
    const { spool } = await open()
    const midnight = Date.UTC(2024, 0, 3)
    await spool.append(lines(['a'], { receivedAt: midnight - 0.5 }))
    await Promise.all([
      spool.append(lines(['b'], { receivedAt: midnight - 0.25 })),
      spool.append(lines(['c'], { receivedAt: midnight })),
    ])
    await spool.end()
    const found = await objects(spool)
    expect(texts(found)).toEqual(['a\nb\n', 'c\n'])
    expect(found.map(([one]) => one.key.slice(0, 10))).toEqual(['2024-01-02', '2024-01-03'])
  })

  test('never without records', async () => {
    const { spool } = await open()
    await spool.seal('stopping')
    await spool.gap('ws://feed', { partition: 'p0', from: '1', to: '2', why: 'x' })
    await spool.append(lines([], { last: 'further' }))
    await spool.end()
    expect(await objects(spool)).toEqual([])
    expect(spool.position('ws://feed', 'p0')).toBe('further')
    await spool.close()
    const again = await open({ known: { ...NEW, clean: false } })
    expect(again.spool.position('ws://feed', 'p0')).toBe('further')
    expect(again.recovered.gaps).toMatchObject([{ from: '1', to: '2', why: 'x', source: 'ws://feed', lost: false }])
  })
})

test('metadata is printable ASCII of bounded length, and what it leaves out is recovered all the same', async () => {
  const { spool } = await open()
  for (let index = 0; index < 400; index++)
    await spool.append(
      lines([String(index)], {
        partition: { name: `pärtition ${index}`, epoch: 1 },
        last: `p%sition ${index} ${'x'.repeat(40)}`,
      }),
    )
  await spool.end()
  const [[segment]] = (await objects(spool)) as [readonly [SealedSegment, string]]
  const all = Object.entries(segment.facts)
    .map(([name, value]) => `${name}${value}`)
    .join('')
  expect(all).toMatch(/^[\x20-\x7e]*$/)
  expect(all.length).toBeLessThan(1600)
  expect(segment.facts['positions']).toContain('p%C3%A4rtition 0=p%25sition 0 ')
  await spool.close()
  const bytes = disk.contents().get('/spool/0000000000000000.seg')!
  expect(decodeSeal(bytes.subarray(SEAL_AT), seedOf(ID))?.omitted).toBeGreaterThan(0)
  expect(decodeHeader(bytes)).toMatchObject({ id: ID, first: 0, targets: { archive: 's3://bucket/folder' } })
  const again = await open({ known: { sequence: 400, clean: true, tail: 0, acceptedThrough: 400 } })
  expect(again.spool.partitions('ws://feed').length).toBe(400)
  expect(again.spool.position('ws://feed', 'pärtition 399')).toBe(`p%sition 399 ${'x'.repeat(40)}`)
})

describe('readers', () => {
  test('begin in the middle of a frame where the cursor stands there', async () => {
    const { spool } = await open()
    await spool.append(lines(['a', 'b', 'c']))
    await spool
      .append({
        ...lines([]),
        batch: new EntryBatch([{ value: Buffer.from('d') }, { value: Buffer.from('e') }], 2),
        at: (index) => `at ${index}`,
      })
      .catch(() => undefined)
    const frame = await spool.batches('kafka', 1).next(forever)
    expect([frame?.first, frame?.next, frame?.batch.count, frame?.batch.lines().chunks.join('')]).toEqual([
      1,
      3,
      2,
      'b\nc\n',
    ])
  })

  test('wait for what is not there yet, end with the spool, and stop when told', async () => {
    const { spool } = await open({ policies: [] })
    const reader = spool.batches('kafka', 0)
    const waiting = reader.next(forever)
    await spool.append(lines(['a']))
    expect((await waiting)?.first).toBe(0)
    const stop = new AbortController()
    const stopped = reader.next(stop.signal)
    stop.abort(new Error('told to'))
    await expect(stopped).rejects.toThrow('told to')
    await spool.end()
    expect(await reader.next(forever)).toBeNull()
    await expect(spool.append(lines(['b']))).rejects.toThrow(/closed/)
  })

  test('of segments read from any offset, over frames of all sizes and forms', async () => {
    const render = (frame: {
      readonly batch: { entries(): readonly { readonly value: Buffer | null }[] }
      at(index: number): string
    }): readonly Buffer[] =>
      frame.batch.entries().map((entry, index) => Buffer.from(`${frame.at(index)}:${String(entry.value)}\n`))
    for (const framing of ['lines', 'envelope'] as const) {
      disk = new CrashDisk(new Random(1))
      const { spool } = await open({
        policies: [{ sink: 'archive', policy: policy({ sealBytes: 0, framing }) }],
        render,
      })
      const appends: Promise<unknown>[] = []
      for (let index = 0; index < 60; index++) {
        const size = index % 7 === 0 ? 90_000 : index % 5 === 0 ? 9000 : 20
        const value = `${index}${'x'.repeat(size)}`
        appends.push(
          spool.append(
            index % 3 === 0
              ? { ...lines([]), batch: new EntryBatch([{ value: Buffer.from(value) }], size), at: () => `p${index}` }
              : lines([value]),
          ),
        )
      }
      await Promise.all(appends)
      await spool.end()
      const [[segment, text]] = (await objects(spool)) as [readonly [SealedSegment, string]]
      expect(text.length).toBe(segment.length)
      for (const offset of [0, 1, 89_999, 90_005, 500_000, segment.length - 1, segment.length])
        expect((await collect(segment.read(offset))).toString() === text.slice(offset)).toBe(true)
      await spool.close()
    }
  })
})
