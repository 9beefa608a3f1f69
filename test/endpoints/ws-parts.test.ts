import { assert, boolean, constantFrom, jsonValue, property } from 'fast-check'
import fc from 'fast-check'
import { LineBatch } from '../../src/core/batch'
import ws from '../../src/endpoints/ws'
import { Deadlines } from '../../src/endpoints/ws/deadlines'
import { SequenceCheck, jsonMemberPicker, parseJsonPath } from '../../src/endpoints/ws/expect'
import { MAX_BUFFERED, MessageBuffer } from '../../src/endpoints/ws/message-buffer'
import { makeTarget } from '../support/context'

describe('what can be found wrong before anything is opened', () => {
  const faults = (
    uri: string,
    given: Record<string, unknown> = {},
    role: 'source' | 'sink' = 'source',
  ): readonly string[] => ws.check?.(makeTarget(ws, uri, given), role) ?? []
  test.each([
    ['ws://a,b/', {}, /one host/],
    ['ws://a/x#y', {}, /%23/],
    ['ws://a/', { header: [['Upgrade', 'x']] }, /cannot be set/],
    ['ws://a/', { header: [['Sec-WebSocket-Protocol', 'x']] }, /use protocol=/],
    ['ws://a/', { header: [['X', 'a\nb']] }, /cannot hold/],
    ['ws://a/', { header: [['a b', 'x']] }, /cannot hold/],
    ['ws://a/', { protocol: ['a,b'] }, /one name at a time/],
    ['ws://a/', { protocol: ['a', 'a'] }, /twice/],
    ['wss://a/', { cert: 'x' }, /cert-key= is missing/],
    ['ws://a/', { ca: 'x' }, /wss:\/\//],
    ['ws://a/', { proxy: 'host:3128' }, /http:\/\/HOST:PORT/],
    ['ws://a/', { dedupe: '{json:seq}' }, /reconnect-every/],
    ['ws://a/', { reconnectEvery: 1000, overlap: 2000 }, /longer than overlap/],
  ])('%s %o', (uri, given, message) => {
    expect(faults(uri, given)).toEqual([expect.stringMatching(message)])
  })

  test('what is right has no fault, and no fault repeats a value', () => {
    expect(
      faults('wss://u:p@a:1/x?y=z', {
        header: [['X-Key', 'v']],
        protocol: ['a', 'b'],
        cert: 'c',
        certKey: 'k',
        reconnectEvery: 3_600_000,
        dedupe: '{json:a.b.0}',
        proxy: 'none',
      }),
    ).toEqual([])
    expect(faults('ws://a/', { header: [['X', 'canary\n']], proxy: 'canary' }).join()).not.toContain('canary')
  })

  test('values that are none say what is expected', () => {
    const { options } = ws
    expect(() => options.sendEvery.parse('20:ping')).toThrow(/unit/)
    expect(() => options.sendEvery.parse('ping')).toThrow(/20s:ping/)
    expect(options.sendEvery.parse('20s:a:b')).toEqual(['20s:a:b'])
    expect(() => options.dedupe.parse('seq')).toThrow(/\{json:seq\}/)
    expect(() => parseJsonPath('{json:a..b}')).toThrow()
  })

  test("the original's reconnect_every counts nanoseconds, and seconds meant are told", () => {
    const { options } = ws
    expect(options.reconnectEvery.parse('43200000000000')).toBe(12 * 3_600_000)
    expect(options.reconnectEvery.parse('12h0m0s')).toBe(12 * 3_600_000)
    expect(() => options.reconnectEvery.parse('3600')).toThrow(/3600s/)
  })
})

describe('the message buffer', () => {
  test('gives back every message in order, whatever is in it and however it is read', () => {
    const message = fc.oneof(
      { weight: 6, arbitrary: fc.uint8Array({ maxLength: 300 }) },
      {
        weight: 2,
        arbitrary: fc
          .constantFrom('', '\n', 'a\n', 'a\nb', '\n\n', 'x')
          .map((text) => new Uint8Array(Buffer.from(text))),
      },
      {
        weight: 1,
        arbitrary: fc.integer({ min: 60_000, max: 400_000 }).map((length) => new Uint8Array(length).fill(97)),
      },
    )
    fc.assert(
      fc.property(
        fc.array(fc.tuple(message, fc.boolean()), { maxLength: 60 }),
        fc.constantFrom(100, 70_000, 350_000),
        (steps, maxRecord) => {
          const buffer = new MessageBuffer({ maxRecord, now: () => 1, full: () => undefined, arrived: () => undefined })
          const got: string[] = []
          const expected: string[] = []
          /** Deliveries in use downstream: looked at only when they are let go. */
          const used: NonNullable<ReturnType<MessageBuffer['take']>>[] = []
          const letGo = (): void => {
            const taken = used.shift()
            if (taken === undefined) return
            expect(taken.batch.count).toBe(taken.batch.entries().length)
            got.push(...taken.batch.entries().map(({ value }) => value?.toString('latin1') ?? ''))
            if (taken.invalid !== undefined) got.push(`unfit ${taken.invalid.length}`)
            taken.release?.()
          }
          const read = (): boolean => {
            const taken = buffer.take()
            if (taken === undefined) return false
            used.push(taken)
            if (used.length > 3) letGo()
            return true
          }
          for (const [bytes, alsoRead] of steps) {
            // The library's buffer is used again after the message was taken in.
            const lent = Buffer.from(bytes)
            buffer.add(lent)
            const text = lent.toString('latin1')
            expected.push(
              bytes.length > maxRecord
                ? `unfit ${bytes.length}`
                : text.indexOf('\n') === text.length - 1 && text !== ''
                  ? text.slice(0, -1)
                  : text,
            )
            lent.fill(0)
            if (alsoRead) read()
          }
          while (read()) {
            /* all of it */
          }
          while (used.length > 0) letGo()
          expect(got).toEqual(expected)
          expect(buffer.empty).toBe(true)
          expect(buffer.bufferedBytes).toBe(0)
        },
      ),
      { numRuns: 300 },
    )
  })

  test('many small messages keep their order and ends, wherever among them the first newline is', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 30_000 }),
        fc.integer({ min: 0, max: 80 }),
        fc.constantFrom('\n', 'x\n', 'x\ny', ''),
        fc.boolean(),
        (where, width, odd, reading) => {
          const used: NonNullable<ReturnType<MessageBuffer['take']>>[] = []
          const buffer = new MessageBuffer({
            maxRecord: 1000,
            now: () => 1,
            full: () => undefined,
            arrived: () => undefined,
          })
          const got: string[] = []
          const read = (): boolean => {
            const taken = buffer.take()
            if (taken !== undefined) used.push(taken)
            if (used.length > 5 || taken === undefined) {
              for (const { value } of used[0]?.batch.entries() ?? []) got.push(value?.toString('latin1') ?? '')
              used.shift()?.release?.()
            }
            return taken !== undefined || used.length > 0
          }
          for (let i = 0; i < 30_000; i++) {
            buffer.add(Buffer.from(i === where ? odd : `${i}`.padEnd(i % (width + 1), '-')))
            if (reading && i % 1000 === 0) read()
          }
          while (read()) {
            /* all of it */
          }
          if (got.length !== 30_000) throw new Error(`${got.length} came out`)
          got.forEach((text, i) => {
            const expected =
              i === where ? (odd === 'x\ny' ? odd : odd.replace('\n', '')) : `${i}`.padEnd(i % (width + 1), '-')
            if (text !== expected) throw new Error(`record ${i} is ${JSON.stringify(text)}`)
          })
        },
      ),
      { numRuns: 10 },
    )
  })

  test('a read is about 1 MiB, a larger message comes alone, and full is told at the bound', () => {
    let full = 0
    const buffer = new MessageBuffer({
      maxRecord: 16 << 20,
      now: () => 1,
      full: () => {
        full++
      },
      arrived: () => undefined,
    })
    const small = Buffer.alloc(999, 'x')
    while (buffer.bufferedBytes < MAX_BUFFERED - 300_000) buffer.add(small)
    expect(full).toBe(0)
    while (buffer.bufferedBytes < MAX_BUFFERED + 300_000) buffer.add(small)
    expect(full).toBeGreaterThan(0)
    buffer.add(Buffer.alloc(3 << 20, 'y'))
    const sizes: number[] = []
    for (let taken = buffer.take(); taken !== undefined; taken = buffer.take()) sizes.push(taken.batch.bytes)
    expect(sizes.at(-1)).toBe((3 << 20) + 1)
    expect(Math.max(...sizes.slice(0, -1))).toBeLessThanOrEqual(1 << 20)
    expect(Math.min(...sizes.slice(0, -2))).toBeGreaterThan(512 << 10)
  })
})

describe('deadlines', () => {
  const settings = { pingMs: 20_000, pongMs: 10_000, silenceMs: 60_000, closeMs: 5000 }
  const quiet = { received: 0, written: 0, open: true, violated: false }
  const run = (deadlines: Deadlines, from: number, to: number, condition = quiet): { at: number; due: string }[] => {
    const dues: { at: number; due: string }[] = []
    for (let now = from; now <= to; now += deadlines.everyMs) {
      const due = deadlines.tick(now, condition)
      if (due.what !== 'nothing') dues.push({ at: now, due: due.what === 'cut' ? due.why : due.what })
    }
    return dues
  }

  test('a ping every ping-every, and the end when nothing arrives for pong-timeout after one', () => {
    const deadlines = new Deadlines(settings, 0)
    expect(run(deadlines, 0, 30_000)).toEqual([
      { at: 20_000, due: 'ping' },
      { at: 30_000, due: 'no pong within 10s (pong-timeout=)' },
    ])
  })

  test("a delay of this process is nobody's silence", () => {
    const deadlines = new Deadlines(settings, 0)
    run(deadlines, 0, 21_000)
    expect(deadlines.tick(600_000, quiet)).toEqual({ what: 'nothing' })
    expect(run(deadlines, 601_000, 606_000)).toEqual([])
  })

  test('messages, pongs and writes that the server takes are signs of life', () => {
    const deadlines = new Deadlines(settings, 0)
    expect(run(deadlines, 0, 25_000)).toEqual([{ at: 20_000, due: 'ping' }])
    expect(run(deadlines, 26_000, 39_000, { ...quiet, received: 1 })).toEqual([])
    expect(run(deadlines, 40_000, 45_000, { ...quiet, received: 1 })).toEqual([{ at: 40_000, due: 'ping' }])
    for (let now = 46_000; now < 80_000; now += 1000)
      expect(deadlines.tick(now, { ...quiet, received: 1, written: now }).what).toBe('nothing')
  })

  test('the closing handshake has its time, shorter after a violation', () => {
    for (const [violated, ms] of [
      [false, 5000],
      [true, 1000],
    ] as const) {
      const deadlines = new Deadlines(settings, 0)
      const [due] = run(deadlines, 1000, 10_000, { ...quiet, open: false, violated })
      expect(due).toEqual({ at: 1000 + ms + 1000, due: 'the closing handshake was not completed' })
    }
  })
})

describe('counting', () => {
  const batch = (...records: string[]): LineBatch =>
    new LineBatch([Buffer.from(records.map((record) => `${record}\n`).join(''))], records.length)

  test('a member is found as JSON.parse finds it, in any JSON, however it is spaced and escaped', () => {
    const picked = (value: unknown): unknown => {
      if (typeof value === 'string') return `"${value}"`
      return typeof value === 'number' && Number.isSafeInteger(value) ? value : undefined
    }
    assert(
      property(jsonValue(), jsonValue(), constantFrom('', ' ', '\n\t '), boolean(), (value, beside, space, escaped) => {
        const text = JSON.stringify({ beside, a: { n: value }, behind: beside }, undefined, space)
        const bytes = Buffer.from(escaped ? text.replace('"n":', '"\\u006e":') : text)
        const read = (JSON.parse(bytes.toString()) as { a: { n: unknown } }).a.n
        const found = jsonMemberPicker('{json:a.n}')(bytes)
        if (typeof read === 'number' && !Number.isSafeInteger(read)) expect(Number(found)).toBe(read)
        else expect(found).toEqual(picked(read))
      }),
      { numRuns: 2000 },
    )
  })

  test('numbers that no double can hold keep their digits, and what is no JSON has no member', () => {
    const pick = jsonMemberPicker('{json:n}')
    expect(pick(Buffer.from('{"n":9007199254740993}'))).toBe('9007199254740993')
    expect(pick(Buffer.from('\ufeff{"n":1e3}'))).toBe(1000)
    expect(pick(Buffer.from('{"n":1,"n":2}'))).toBe(2)
    for (const text of ['pong', '', '{"n":1', '{"n":1}x', '{"n":01}', '{"n":null}', '{"n":{}}', '{"n":"\\x"}', '[1]'])
      expect(pick(Buffer.from(text))).toBeUndefined()
  })

  test('strings of digits count too, beyond 2^53 as well, and every other record is left alone', () => {
    const expected = new SequenceCheck(jsonMemberPicker('{json:n}'))
    const gaps = expected.gaps(
      batch(
        '{"n":"9007199254740993"}',
        '{"n":9007199254740994}',
        '[]',
        'x',
        '{"n":null}',
        '{"n":1.5}',
        '{"n":9007199254740999}',
      ),
      { name: 'feed', epoch: 1 },
    )
    expect(gaps).toEqual([
      { partition: 'feed', from: '9007199254740995', to: '9007199254740998', why: 'numbers missing', records: 4 },
    ])
    expect(expected.unnumbered).toBe(4)
  })

  test('numbering that begins anew is no hole, repeats are none either', () => {
    const expected = new SequenceCheck(jsonMemberPicker('{json:n}'))
    expect(
      expected.gaps(batch('{"n":5}', '{"n":6}', '{"n":6}', '{"n":5}', '{"n":7}', '{"n":0}', '{"n":1}', '{"n":2}'), {
        name: 'feed',
        epoch: 1,
      }),
    ).toEqual([])
    expect(expected.gaps(batch('{"n":1}', '{"n":2}'), { name: 'feed', epoch: 2 })).toEqual([])
  })
})
