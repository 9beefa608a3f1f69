import * as fs from 'node:fs'
import { execFileSync } from 'node:child_process'
import * as os from 'node:os'
import * as path from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import type { Delivery, Gap, SourceContext } from '../../src/core/contract'
import { Fatal, Refused } from '../../src/core/errors'
import type { Candidate } from '../../src/endpoints/file/candidates'
import { bindByInode, type Bindings } from '../../src/endpoints/file/identity'
import { fingerprintOf, type FilePosition } from '../../src/endpoints/file/position'
import { FileSource, type SourceOptions } from '../../src/endpoints/file/source'
import { systemClock } from '../../src/kit/clock'

let folder: string
beforeEach(() => {
  folder = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-file-')))
})
afterEach(async () => {
  for (const flow of running) await flow.source.close()
  running = []
  fs.rmSync(folder, { recursive: true })
})
const at = (name: string): string => path.join(folder, name)
const write = (name: string, content: string | Buffer): void => {
  fs.writeFileSync(at(name), content)
}
const append = (name: string, content: string | Buffer): void => {
  fs.appendFileSync(at(name), content)
}
const rename = (from: string, to: string): void => {
  fs.renameSync(at(from), at(to))
}
const numbers = (from: number, to: number): string =>
  Array.from({ length: to - from + 1 }, (_, i) => `${from + i}\n`).join('')
const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined }
let running: Flow[] = []

/** Root may read everything, so that nothing could be refused to it. */
async function asNobody<T>(run: () => Promise<T>): Promise<T> {
  const self = process.geteuid?.() ?? 1
  if (self === 0) process.seteuid?.(65_534)
  try {
    return await run()
  } finally {
    if (self === 0) process.seteuid?.(0)
  }
}

/** Drives a source as the core does: it keeps positions, reads, and can forget what was not committed. */
class Flow {
  readonly text: string[] = []
  readonly deliveries: Delivery[] = []
  readonly gaps: Gap[] = []
  readonly source: FileSource
  private readonly stop = new AbortController()
  constructor(
    pattern: string,
    options: Partial<SourceOptions> = {},
    readonly positions = new Map<string, string>(),
  ) {
    this.source = new FileSource(path.isAbsolute(pattern) ? pattern : at(pattern), {
      framing: 'lines',
      maxRecord: 1 << 24,
      compression: 'auto',
      follow: false,
      start: 'oldest',
      pollEvery: 50,
      ...options,
    })
    running.push(this)
  }
  context(): SourceContext {
    return {
      signal: this.stop.signal,
      clock: systemClock,
      log: quiet,
      gauge: () => undefined,
      resume: (name) => this.positions.get(name),
      resumable: () => [...this.positions.keys()],
      revoke: () => Promise.resolve(),
      lost: () => undefined,
      gap: (gap) => {
        this.gaps.push(gap)
      },
      held: () => [],
      committed: () => undefined,
    }
  }
  open(): Promise<void> {
    return this.source.open(this.context())
  }
  async next(ms = 5000): Promise<Delivery | null> {
    const patience = new AbortController()
    const timer = setTimeout(() => {
      patience.abort(new Error(`nothing came; so far: ${JSON.stringify(this.text.join('').slice(-200))}`))
    }, ms)
    try {
      const delivery = await this.source.read(patience.signal)
      if (delivery !== null) {
        this.deliveries.push(delivery)
        this.text.push(Buffer.concat(delivery.batch.lines().chunks).toString())
        this.positions.set(delivery.partition.name, delivery.last)
      }
      return delivery
    } finally {
      clearTimeout(timer)
    }
  }
  /** To the end of what there is. */
  async all(): Promise<string> {
    await this.open()
    while ((await this.next()) !== null);
    await this.source.close()
    return this.text.join('')
  }
  /** Follows until it has seen so much. */
  async until(expected: string): Promise<void> {
    while (this.text.join('').length < expected.length) await this.next()
    expect(this.text.join('')).toBe(expected)
  }
  /** Nothing more comes for a few polls. */
  async rests(): Promise<void> {
    await expect(
      (async () => {
        while ((await this.next(250))?.batch.count === 0);
      })(),
    ).rejects.toThrow('nothing came')
  }
  /** As after a kill: only what was committed is known. */
  again(options: Partial<SourceOptions> = {}, pattern?: string): Flow {
    return new Flow(
      pattern ?? (this.source as unknown as { readonly pattern: string }).pattern,
      { ...(this.source as unknown as { readonly given: SourceOptions }).given, ...options },
      new Map(this.positions),
    )
  }
}

describe('reading to the end', () => {
  test('files that match are read in the order of their names, the last line gets the newline it lacks', async () => {
    write('b.log', 'b1\nb2')
    write('a.log', 'a1\n\n')
    write('c.txt', 'no')
    fs.mkdirSync(at('d.log'))
    const flow = new Flow('*.log')
    expect(await flow.all()).toBe('a1\n\nb1\nb2\n')
    expect([...new Set(flow.deliveries.map(({ partition }) => partition.name))]).toEqual([at('a.log'), at('b.log')])
  })

  test('a second run reads only what came since, and an unterminated last line that was completed is no empty line', async () => {
    write('a.log', 'one\ntwo')
    const first = new Flow('a.log')
    expect(await first.all()).toBe('one\ntwo\n')
    expect(await first.again().all()).toBe('')
    append('a.log', '\nthree\n')
    const third = first.again()
    expect(await third.all()).toBe('three\n')
    append('a.log', '\nfour\n')
    expect(await third.again().all()).toBe('\nfour\n')
  })

  test('a file read from any committed delivery on gives every line once', async () => {
    write('a.log', numbers(1, 400_000))
    const whole = new Flow('a.log')
    await whole.all()
    expect(whole.deliveries.length).toBeGreaterThan(2)
    for (const delivery of whole.deliveries) {
      const read = whole.text.slice(0, whole.deliveries.indexOf(delivery) + 1).join('')
      const rest = new Flow('a.log', {}, new Map([[delivery.partition.name, delivery.last]]))
      expect(read + (await rest.all())).toBe(numbers(1, 400_000))
    }
    const [, second] = whole.deliveries
    const rest = new Flow('a.log', {}, new Map([[at('a.log'), second?.at(99) ?? '']]))
    const lines = (whole.text[0] ?? '') + (whole.text[1] ?? '').split('\n').slice(0, 100).join('\n') + '\n'
    expect(lines + (await rest.all())).toBe(numbers(1, 400_000))
  })

  test('a shorter file, or one with other content, is a new thing', async () => {
    write('a.log', 'one\ntwo\n')
    const flow = new Flow('a.log')
    await flow.all()
    fs.truncateSync(at('a.log'), 0)
    append('a.log', 'x\n')
    const second = flow.again()
    expect(await second.all()).toBe('x\n')
    fs.truncateSync(at('a.log'), 0)
    append('a.log', 'other, and longer than before\n')
    expect(await second.again().all()).toBe('other, and longer than before\n')
  })

  test('content beyond the first 4 KiB tells files apart, too', async () => {
    write('a.log', numbers(1, 5000))
    const flow = new Flow('a.log')
    await flow.all()
    const other = numbers(1, 3000) + numbers(3000, 6000)
    fs.truncateSync(at('a.log'), 0)
    append('a.log', other)
    expect(await flow.again().all()).toBe(other)
  })

  test.each([
    ['gz', gzipSync],
    ['zst', zstdCompressSync],
  ] as const)(
    '.%s files are decompressed, several members as one, and gone on with after a kill',
    async (suffix, compress) => {
      write(
        `a.${suffix}`,
        Buffer.concat([
          compress(Buffer.from(numbers(1, 200_000))),
          compress(Buffer.from(numbers(200_001, 400_000).slice(0, -1))),
        ]),
      )
      const flow = new Flow(`*.${suffix}`)
      expect(await flow.all()).toBe(numbers(1, 400_000))
      for (const [index, delivery] of flow.deliveries.entries()) {
        if (index % 3 !== 0) continue
        const rest = new Flow(`a.${suffix}`, {}, new Map([[delivery.partition.name, delivery.last]]))
        expect(flow.text.slice(0, index + 1).join('') + (await rest.all())).toBe(numbers(1, 400_000))
      }
      const second = flow.again()
      expect(await second.all()).toBe('')
      expect(second.deliveries).toEqual([])
      append(`a.${suffix}`, compress('more\n'))
      expect(await flow.again().all()).toBe('more\n')
    },
  )

  test('a compressed file that was replaced is read from its beginning', async () => {
    write('a.gz', gzipSync(numbers(1, 50_000)))
    const flow = new Flow('a.gz')
    await flow.all()
    fs.writeFileSync(at('a.gz'), gzipSync(numbers(7, 60_000)))
    expect(await flow.again().all()).toBe(numbers(7, 60_000))
    fs.writeFileSync(at('a.gz'), gzipSync(numbers(1, 10)))
    expect(await flow.again().all()).toBe(numbers(1, 10))
  })

  test('data that is cut short or no gzip at all is told with its file, after what could be read', async () => {
    const whole = gzipSync(Buffer.from(numbers(1, 300_000)))
    write('a.gz', whole.subarray(0, whole.length / 2))
    const flow = new Flow('a.gz')
    await flow.all()
    expect(flow.gaps).toEqual([
      expect.objectContaining({
        partition: at('a.gz'),
        why: expect.stringMatching(/a\.gz: the gzip data ends too early/) as string,
      }),
    ])
    expect(flow.text.join('').length).toBeGreaterThan(100_000)
    write('b.gz', 'plain text')
    await expect(new Flow('b.gz').all()).rejects.toThrow(Fatal)
    expect(await new Flow('b.gz', { compression: 'none' }).all()).toBe('plain text\n')
  })

  test.each([
    ['gz', gzipSync],
    ['zst', zstdCompressSync],
  ] as const)('start=-N and start=latest count the lines of .%s files as of plain ones', async (suffix, compress) => {
    write(`a.${suffix}`, Buffer.concat([compress(numbers(1, 200_000)), compress(numbers(200_001, 300_000))]))
    const last = new Flow(`a.${suffix}`, { start: '-3' })
    expect(await last.all()).toBe('299998\n299999\n300000\n')
    expect(await last.again().all()).toBe('')
    expect(await new Flow(`a.${suffix}`, { start: '-999999999' }).all()).toBe(numbers(1, 300_000))
    const latest = new Flow(`a.${suffix}`, { start: 'latest' })
    expect(await latest.all()).toBe('')
    append(`a.${suffix}`, compress('more\n'))
    expect(await latest.again().all()).toBe('more\n')
    fs.writeFileSync(at(`a.${suffix}`), compress(numbers(7, 9)))
    expect(await latest.again().all()).toBe(numbers(7, 9))
  })

  test('nothing that matches, a folder, a file that may not be read: each is refused with what to do', async () => {
    await expect(new Flow('none.log').all()).rejects.toThrow(Refused)
    await expect(new Flow('*.none').all()).rejects.toThrow(/no file matches .*\*\.none/)
    await expect(new Flow(folder).all()).rejects.toThrow(/is a directory: name the files in it/)
  })

  test('what may not be read is refused; a folder that a glob cannot look into is told of, for the engine passes over it without a word', async () => {
    fs.mkdirSync(at('open'))
    fs.mkdirSync(at('closed'))
    write('open/a.log', 'a\n')
    write('closed/b.log', 'b\n')
    fs.chmodSync(folder, 0o755)
    await asNobody(async () => {
      const told: string[] = []
      const flow = new Flow('*/*.log')
      await flow.source.open({
        ...flow.context(),
        log: {
          ...quiet,
          warn: (text) => {
            told.push(text)
          },
        },
      })
      expect(told).toEqual([])
      await flow.source.close()
    })
    fs.chmodSync(at('open/a.log'), 0)
    await asNobody(() =>
      expect(new Flow('open/*.log').all()).rejects.toThrow(/open\/a\.log may not be read: permission denied/),
    )
    fs.chmodSync(at('open/a.log'), 0o644)
    // Listed, but not to be entered: the name is known, the file is not.
    fs.chmodSync(at('closed'), 0o744)
    await asNobody(() => expect(new Flow('closed/*.log').all()).rejects.toThrow(Refused))
    fs.chmodSync(at('closed'), 0o700)
    await asNobody(async () => {
      const told: string[] = []
      const flow = new Flow('*/*.log')
      await flow.source.open({
        ...flow.context(),
        log: {
          ...quiet,
          warn: (text) => {
            told.push(text)
          },
        },
      })
      expect(told).toEqual([`${at('closed')} may not be read: whatever matches ${at('*/*.log')} in it is left out`])
      while ((await flow.next()) !== null);
      expect(flow.text.join('')).toBe('a\n')
      await flow.source.close()
    })
  })

  test('a compressed file that cannot be read for now is not taken for another one', async () => {
    const position: FilePosition = {
      path: at('a.gz'),
      inode: '1',
      born: '0',
      offset: 10,
      since: 0,
      head: fingerprintOf(Buffer.from('0123456789')),
    }
    // Reading a folder fails as a disk does: with what the system says.
    fs.mkdirSync(at('a.gz'))
    const candidate: Candidate = {
      path: at('a.gz'),
      matched: true,
      key: '0:1',
      inode: '1',
      born: '0',
      size: 99,
      modified: 0,
      kind: 'file',
      compression: 'gzip',
    }
    await expect(
      bindByInode(new Map(), [{ name: 'a', position }], [candidate], () => Promise.resolve(false)),
    ).rejects.toThrow('EISDIR')
    const bound: Bindings = new Map()
    await bindByInode(bound, [{ name: 'a', position }], [{ ...candidate, path: at('gone.gz') }], () =>
      Promise.resolve(false),
    )
    expect(bound.size).toBe(0)
  })

  test('where files were read before, none left is the end and no fault', async () => {
    write('a.log', 'x\n')
    const flow = new Flow('*.log')
    await flow.all()
    fs.rmSync(at('a.log'))
    expect(await flow.again().all()).toBe('')
  })

  test('a file with two names is read once', async () => {
    write('a.log', 'x\n')
    fs.linkSync(at('a.log'), at('b.log'))
    fs.symlinkSync(at('a.log'), at('c.log'))
    expect(await new Flow('*.log').all()).toBe('x\n')
  })

  test('a FIFO is read until its writer closes it', async () => {
    execFileSync('mkfifo', [at('pipe')])
    const flow = new Flow('pipe')
    const reading = flow.all()
    // The writer's open waits for a reader, and must not block this process.
    await fs.promises.writeFile(at('pipe'), 'one\ntwo')
    expect(await reading).toBe('one\ntwo\n')
  })

  test('a record that is too large ends a delivery and has the position after it', async () => {
    write('a.log', `one\n${'x'.repeat(100)}\ntwo\n`)
    const flow = new Flow('a.log', { maxRecord: 50 })
    expect(await flow.all()).toBe('one\ntwo\n')
    const [first] = flow.deliveries
    expect(first?.invalid?.map(({ length }) => length)).toEqual([100])
    const rest = new Flow('a.log', {}, new Map([[at('a.log'), first?.invalid?.[0]?.position ?? '']]))
    expect(await rest.all()).toBe('two\n')
  })

  test('a file that was rotated while nobody was here is finished first, and those in between are read', async () => {
    write('app.log', 'a1\na2\n')
    const flow = new Flow('app.log')
    expect(await flow.all()).toBe('a1\na2\n')
    append('app.log', 'a3\n')
    touch('app.log', -30)
    rename('app.log', 'app.log.2')
    write('app.log.1', 'b1\nb2\n')
    touch('app.log.1', -20)
    write('app.log', 'c1\n')
    const second = flow.again()
    expect(await second.all()).toBe('a3\nb1\nb2\nc1\n')
    expect(await second.again().all()).toBe('')
    append('app.log', 'c2\n')
    rename('app.log.2', 'app.log.3')
    rename('app.log.1', 'app.log.2')
    rename('app.log', 'app.log.1')
    write('app.log', 'd1\n')
    const third = second.again()
    expect(await third.all()).toBe('c2\nd1\n')
    expect(await third.again().all()).toBe('')
  })

  test('what was copied away and truncated, or compressed meanwhile, is found by its content', async () => {
    write('app.log', numbers(1, 100))
    const flow = new Flow('app.log')
    await flow.all()
    append('app.log', numbers(101, 120))
    fs.copyFileSync(at('app.log'), at('app.log.1'))
    fs.truncateSync(at('app.log'), 0)
    append('app.log', numbers(1, 3))
    const second = flow.again()
    expect(await second.all()).toBe(numbers(101, 120) + numbers(1, 3))
    append('app.log', numbers(4, 5))
    write('app.log.1.gz', gzipSync(fs.readFileSync(at('app.log'))))
    fs.rmSync(at('app.log'))
    write('app.log', 'new\n')
    expect(await second.again().all()).toBe('4\n5\nnew\n')
  })

  test('where the pattern matches the rotated names, too, nothing is read twice', async () => {
    write('app.log', 'a1\n')
    const flow = new Flow('app.log*')
    expect(await flow.all()).toBe('a1\n')
    let known = flow
    let seen = 'a1\n'
    for (let day = 2; day < 8; day++) {
      append('app.log', `late ${day}\n`)
      for (let number = day; number > 0; number--)
        if (fs.existsSync(at(`app.log.${number}`))) rename(`app.log.${number}`, `app.log.${number + 1}`)
      rename('app.log', 'app.log.1')
      write('app.log', `a${day}\n`)
      known = known.again()
      const more = await known.all()
      expect(more.split('\n').sort().join()).toBe(`,a${day},late ${day}`)
      seen += more
    }
    expect(seen.split('\n').length).toBe(14)
  })

  test('a file rotated every night needs few names of partitions', async () => {
    write('app.log', 'a0\n')
    let flow = new Flow('app.log')
    await flow.all()
    for (let night = 1; night < 12; night++) {
      append('app.log', `late ${night}\n`)
      for (let number = night; number > 0; number--)
        if (fs.existsSync(at(`app.log.${number}`))) rename(`app.log.${number}`, `app.log.${number + 1}`)
      rename('app.log', 'app.log.1')
      write('app.log', `a${night}\n`)
      flow = flow.again()
      expect(await flow.all()).toBe(`late ${night}\na${night}\n`)
    }
    expect(flow.positions.size).toBeLessThanOrEqual(3)
  })
})

function touch(name: string, seconds: number): void {
  const time = Date.now() / 1000 + seconds
  fs.utimesSync(at(name), time, time)
}

describe('following', () => {
  const follow = { follow: true } as const

  test('what is appended comes, an unfinished line waits for its end', async () => {
    write('app.log', 'one\ntw')
    const flow = new Flow('app.log', follow)
    await flow.open()
    await flow.until('one\n')
    append('app.log', 'o\nthree\n')
    await flow.until('one\ntwo\nthree\n')
    await flow.rests()
    append('app.log', 'four\n')
    await flow.until('one\ntwo\nthree\nfour\n')
    const again = flow.again()
    await again.open()
    append('app.log', 'five\n')
    await again.until('five\n')
  })

  test('a renamed file is read to its end before the new one, and late lines in it still come', async () => {
    write('app.log', 'a1\n')
    const flow = new Flow('app.log', follow)
    await flow.open()
    await flow.until('a1\n')
    append('app.log', 'a2\n')
    rename('app.log', 'app.log.1')
    append('app.log.1', 'a3\n')
    write('app.log', 'b1\n')
    await flow.until('a1\na2\na3\nb1\n')
    append('app.log.1', 'late\n')
    await flow.until('a1\na2\na3\nb1\nlate\n')
    append('app.log', 'b2\n')
    await flow.until('a1\na2\na3\nb1\nlate\nb2\n')
    const again = flow.again()
    await again.open()
    append('app.log', 'b3\n')
    await again.until('b3\n')
    await again.rests()
  })

  test('a file that is removed is read to its end, its last line without newline included', async () => {
    write('app.log', 'a1\n')
    const flow = new Flow('app.log', follow)
    await flow.open()
    await flow.until('a1\n')
    append('app.log', 'a2\nunfinished')
    fs.rmSync(at('app.log'))
    await flow.until('a1\na2\nunfinished\n')
    write('app.log', 'b1\n')
    await flow.until('a1\na2\nunfinished\nb1\n')
  })

  test('a file that is truncated in place is read again from its beginning, even when it has outgrown itself at once', async () => {
    write('app.log', 'first\n')
    const flow = new Flow('app.log', follow)
    await flow.open()
    await flow.until('first\n')
    fs.truncateSync(at('app.log'), 0)
    await flow.rests()
    append('app.log', 'x\n')
    await flow.until('first\nx\n')
    fs.writeFileSync(at('app.log'), 'longer than all that was there\n')
    await flow.until('first\nx\nlonger than all that was there\n')
  })

  test('new files that match come from their beginning, wherever they appear', async () => {
    write('a.log', 'a\n')
    const flow = new Flow('**/*.log', { ...follow, start: 'latest' })
    await flow.open()
    await flow.next()
    expect(flow.text).toEqual([''])
    write('b.log', 'b\n')
    await flow.until('b\n')
    fs.mkdirSync(at('deep/er'), { recursive: true })
    write('deep/er/c.log', 'c\n')
    await flow.until('b\nc\n')
    append('a.log', 'a2\n')
    await flow.until('b\nc\na2\n')
  })

  test('a file that is not there yet is waited for', async () => {
    const flow = new Flow('later.log', follow)
    await flow.open()
    await flow.rests()
    write('later.log', 'x\n')
    await flow.until('x\n')
  })

  test('start=latest stores where it begins before it reads, and takes a line that is being written whole', async () => {
    write('app.log', 'old\nbeing wri')
    const flow = new Flow('app.log', { ...follow, start: 'latest' })
    await flow.open()
    expect((await flow.next())?.batch.count).toBe(0)
    append('app.log', 'tten\n')
    const again = flow.again()
    await again.open()
    await again.until('being written\n')
  })

  test.each([
    [1, '300000\n'],
    [3, '299998\n299999\n300000\n'],
    [0, ''],
  ])('start=-%d begins with that many last lines', async (lines, expected) => {
    write('app.log', numbers(1, 300_000))
    const flow = new Flow('app.log', { start: `-${lines}` })
    expect(await flow.all()).toBe(expected)
  })

  test('start=-N with more lines than there are is everything', async () => {
    write('app.log', numbers(1, 100_000))
    expect(await new Flow('app.log', { start: '-100001' }).all()).toBe(numbers(1, 100_000))
  })

  test('a compressed file that is still being written is read once it is whole, and again when it grows', async () => {
    const whole = gzipSync(numbers(1, 1000))
    write('a.gz', whole.subarray(0, 500))
    const flow = new Flow('a.gz', follow)
    await flow.open()
    await flow.next()
    await flow.rests()
    expect(numbers(1, 1000).startsWith(flow.text.join(''))).toBe(true)
    append('a.gz', whole.subarray(500))
    await flow.until(numbers(1, 1000))
    append('a.gz', gzipSync('more\n'))
    await flow.until(`${numbers(1, 1000)}more\n`)
    await flow.rests()
  })

  test('--until end stops where the files end at that moment', async () => {
    write('a.log', 'a\nunfinished')
    write('b.log', '')
    const flow = new Flow('*.log', follow)
    await flow.open()
    const ends = await flow.source.ends()
    expect([...ends.keys()].map((name) => path.basename(name))).toEqual(['a.log', 'b.log'])
    expect(ends.get(at('b.log'))).toBeNull()
    while ((await flow.next()) !== null);
    expect(flow.text.join('')).toBe('a\n')
  })

  test('an opened source that is closed and opened again goes on where it was', async () => {
    write('app.log', numbers(1, 200_000))
    const flow = new Flow('app.log', follow)
    await flow.open()
    await flow.next()
    await flow.source.close()
    await flow.open()
    await flow.until(numbers(1, 200_000))
  })

  test('under rotation at any moment, with kills in between, every line comes exactly once and in order', async () => {
    let made = 0
    let flow = new Flow('app.log', follow)
    const seen: string[] = []
    write('app.log', '')
    await flow.open()
    for (let step = 0; step < 60; step++) {
      const some = Array.from({ length: step % 5 }, () => `${++made}\n`).join('')
      append('app.log', some)
      if (step % 7 === 3) {
        for (let number = 20; number > 0; number--)
          if (fs.existsSync(at(`app.log.${number}`))) rename(`app.log.${number}`, `app.log.${number + 1}`)
        rename('app.log', 'app.log.1')
        append('app.log.1', `${++made}\n`)
        write('app.log', '')
      }
      if (step % 3 === 1)
        while (
          flow.text.join('').split('\n').length - 1 < 1 &&
          seen.length + flow.text.join('').split('\n').length - 1 < made
        )
          await flow.next()
      if (step % 11 === 5) {
        seen.push(...flow.text.join('').split('\n').slice(0, -1))
        await flow.source.close()
        flow = flow.again()
        await flow.open()
      }
    }
    while (seen.length + flow.text.join('').split('\n').length - 1 < made) await flow.next()
    seen.push(...flow.text.join('').split('\n').slice(0, -1))
    expect(seen).toEqual(Array.from({ length: made }, (_, i) => String(i + 1)))
  })
})

describe('a file that grows while it is read and not followed', () => {
  const block = numbers(1, 300_000)

  test('ends where it ended when reading began, and the next run has the rest', async () => {
    write('in', block)
    const flow = new Flow('in')
    await flow.open()
    // All that is read is written to it again: without an end of its own it would never end.
    for (let delivery = await flow.next(); delivery !== null; delivery = await flow.next())
      append('in', Buffer.concat(delivery.batch.lines().chunks))
    expect(flow.text.join('')).toBe(block)
    expect(await new Flow('in', {}, flow.positions).all()).toBe(block)
  })

  test('ends with the line that was being written', async () => {
    write('in', 'one\ntw')
    const flow = new Flow('in')
    await flow.open()
    append('in', 'o\nthree\n')
    while ((await flow.next()) !== null);
    expect(flow.text.join('')).toBe('one\ntwo\n')
    expect(await new Flow('in', {}, flow.positions).all()).toBe('three\n')
  })

  test('has a last line without newline, where nobody has ended it', async () => {
    write('in', 'one\ntw')
    expect(await new Flow('in').all()).toBe('one\ntw\n')
  })

  test.each([
    ['gz', gzipSync],
    ['zst', zstdCompressSync],
  ] as const)('ends with the member of .%s that was its last one', async (suffix, compressed) => {
    write(`in.${suffix}`, compressed(block))
    const flow = new Flow(`in.${suffix}`)
    await flow.open()
    for (let delivery = await flow.next(); delivery !== null; delivery = await flow.next())
      append(`in.${suffix}`, compressed(Buffer.concat(delivery.batch.lines().chunks)))
    expect(flow.text.join('')).toBe(block)
    expect(await new Flow(`in.${suffix}`, {}, flow.positions).all()).toBe(block)
  })
})
