import type { Clock, Log } from '../../src/core/contract'
import { Disconnected, Fatal, Refused, Throttled } from '../../src/core/errors'
import { EndpointFailed, Supervisor, type Supervision } from '../../src/core/supervision/supervisor'

const never = new AbortController().signal
const MINUTE = 60_000

/** Time passes while somebody sleeps, and when told. */
class Passing implements Clock {
  readonly waits: number[] = []
  constructor(private time = 1_000_000) {}
  now(): number {
    return this.time
  }
  monotonic(): number {
    return this.now()
  }
  pass(ms: number): void {
    this.time += ms
  }
  sleep(ms: number): Promise<void> {
    this.waits.push(ms)
    this.time += ms
    return Promise.resolve()
  }
  every(): { stop(): void } {
    return { stop: () => undefined }
  }
}
function supervised(rules: Partial<Supervision> = {}): {
  readonly it: Supervisor
  readonly clock: Passing
  readonly said: string[]
} {
  const clock = new Passing()
  const said: string[] = []
  const log: Log = {
    debug: () => undefined,
    info: (text) => {
      said.push(text)
    },
    warn: (text) => {
      said.push(text)
    },
  }
  return {
    it: new Supervisor('id', 'sink', 's3://lake/t', { giveUpAfter: 'never', knownGood: false, ...rules }, clock, log),
    clock,
    said,
  }
}

test('a fault that repeats is logged at 1, 2, 4, 8 … times, and every hour with its count', async () => {
  const { it, clock, said } = supervised()
  for (let i = 0; i < 20; i++) await it.fault(new Disconnected('the store is away'), true, never)
  expect(said.map((text) => /\((\d+) times\)/.exec(text)?.[1] ?? '1')).toEqual(['1', '2', '4', '8', '16'])
  clock.pass(60 * MINUTE)
  await it.fault(new Disconnected('the store is away'), true, never)
  await it.fault(new Disconnected('the store is away'), true, never)
  expect(said).toHaveLength(6)
  expect(said.at(-1)).toBe('s3://lake/t: the store is away (21 times); trying again')
})

test('another fault is no repetition: it is logged as it comes, once; numbers in it make no other', async () => {
  const { it, said } = supervised()
  const texts = [
    'the store is away',
    'the store is away',
    'the store is away',
    'the disk of the store is full',
    'the store is away',
    'the disk of the store is full',
    'no answer in 13 s',
    'no answer in 14 s',
    'no answer in 15 s',
  ]
  for (const text of texts) await it.fault(new Disconnected(text), true, never)
  expect(said).toEqual(
    [
      'the store is away',
      'the store is away (2 times)',
      'the disk of the store is full',
      'no answer in 13 s',
      'no answer in 14 s (8 times)',
    ].map((text) => `s3://lake/t: ${text}; trying again`),
  )
  // A text that is another one each time ends somewhere.
  for (let n = 0; n < 1000; n++) await it.fault(new Disconnected(`lost ${'x'.repeat(n)}`), true, never)
  expect(said.length).toBeLessThan(50)
})

test('waits grow to their bound with jitter; the first break of a connection that worked is not waited for', async () => {
  const { it, clock } = supervised({ longestWait: 3000 })
  it.opened()
  it.moved()
  for (let i = 0; i < 40; i++) await it.fault(new Disconnected('away'), i > 0, never)
  expect(clock.waits[0]).toBe(0)
  expect(clock.waits.slice(1).every((ms) => ms >= 250 && ms <= 3000)).toBe(true)
  expect(new Set(clock.waits.slice(10)).size).toBeGreaterThan(20)
  expect(Math.max(...clock.waits)).toBeGreaterThan(1500)
})

test('patience that is asked for is given, as long as it was asked', async () => {
  const { it, clock } = supervised()
  await it.fault(new Throttled('slow down', { afterMs: 12_345 }), false, never)
  expect(clock.waits).toEqual([12_345])
})

test.each([
  [undefined, 300_000],
  [7000, 7000],
])(
  'patience beyond the longest wait (%p) is not given: a day that is asked for is a day of data',
  async (longestWait, expected) => {
    const { it, clock } = supervised(longestWait === undefined ? {} : { longestWait })
    await it.fault(new Throttled('slow down', { afterMs: 86_400_000 }), false, never)
    await it.fault(new Throttled('slow down', { afterMs: 1e15 }), false, never)
    expect(clock.waits).toEqual([expected, expected])
  },
)

test('after so long a continuous failure it gives up and says for how long, how often, and which flag decides', async () => {
  const { it } = supervised({ giveUpAfter: MINUTE })
  const tries = async (): Promise<void> => {
    for (;;) await it.fault(new Disconnected('away'), true, never)
  }
  const failed = await tries().catch((error: unknown) => error)
  expect(failed).toBeInstanceOf(EndpointFailed)
  expect((failed as EndpointFailed).role).toBe('sink')
  expect((failed as Error).message).toMatch(
    /^s3:\/\/lake\/t: away \(failing for 6\d s, \d+ tries; --give-up-after says how long\)$/,
  )
  expect(it.status().state).toBe('failed')
})

test('records that move in between begin the time anew; a connection that opens and moves nothing does not', async () => {
  const moving = supervised({ giveUpAfter: MINUTE })
  for (let i = 0; i < 30; i++) {
    await moving.it.fault(new Disconnected('away'), true, never)
    moving.clock.pass(MINUTE / 2)
    moving.it.opened()
    moving.it.moved()
  }
  expect(moving.it.status().state).toBe('running')

  const idle = supervised({ giveUpAfter: MINUTE })
  await idle.it.fault(new Disconnected('away'), true, never)
  idle.it.opened()
  idle.clock.pass(MINUTE)
  await expect(idle.it.fault(new Disconnected('away'), false, never)).rejects.toThrow(EndpointFailed)
})

test('giving up at the first connection that cannot be made leaves connections alone that break later', async () => {
  const { it } = supervised({ giveUpAfter: 'first' })
  it.opened()
  await it.fault(new Disconnected('broke'), false, never)
  await expect(it.fault(new Disconnected('refused'), true, never)).rejects.toThrow(
    /giving up at the first failed connection/,
  )
})

test('a refusal is final before the first success, in this run or an earlier one, and retried after it', async () => {
  await expect(supervised().it.fault(new Refused('no such bucket'), true, never)).rejects.toThrow(EndpointFailed)
  await supervised({ knownGood: true }).it.fault(new Refused('the credentials have expired'), true, never)
  const { it } = supervised()
  it.moved()
  await it.fault(new Refused('the credentials have expired'), true, never)
  await expect(it.fault(new Fatal('nothing mends this'), true, never)).rejects.toThrow(EndpointFailed)
})

test('an error of the operating system is a fault that may pass, whoever forgot to classify it', async () => {
  const { it, said } = supervised()
  await it.fault(
    Object.assign(new Error("EMFILE: too many open files, open '/out'"), { code: 'EMFILE', syscall: 'open' }),
    false,
    never,
  )
  expect(said).toEqual(["s3://lake/t: EMFILE: too many open files, open '/out'; trying again"])
  const ours = new TypeError('x is not a function')
  await expect(it.fault(ours, false, never)).rejects.toBe(ours)
})
