import * as fc from 'fast-check'
import type { Clock, Delivery, SourceContext } from '../../src/core/contract'
import { RecordGenerator } from '../../src/endpoints/generate/record-generator'
import { GenerateSource } from '../../src/endpoints/generate/source'
import { systemClock } from '../../src/kit/clock'

const never = new AbortController().signal
function context(facts: { readonly resume?: string; readonly clock?: Clock } = {}): SourceContext {
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined }
  return {
    signal: never,
    clock: facts.clock ?? systemClock,
    log,
    gauge: () => undefined,
    resume: () => facts.resume,
    resumable: () => [],
    revoke: () => Promise.resolve(),
    lost: () => undefined,
    gap: () => undefined,
    held: () => [],
    committed: () => undefined,
  }
}
async function all(source: GenerateSource, given: SourceContext): Promise<{ text: string; deliveries: Delivery[] }> {
  await source.open(given)
  const deliveries: Delivery[] = []
  for (let delivery = await source.read(never); delivery !== null; delivery = await source.read(never))
    deliveries.push(delivery)
  await source.close()
  return { text: deliveries.map(({ batch }) => Buffer.concat(batch.lines().chunks).toString()).join(''), deliveries }
}

test('records are JSON, numbered from 1, of the size asked for', async () => {
  const { text, deliveries } = await all(new GenerateSource(0, 12_000, new RecordGenerator(100, 1)), context())
  const lines = text.split('\n').slice(0, -1)
  expect(lines.map((line) => (JSON.parse(line) as { seq: number }).seq)).toEqual(
    Array.from({ length: 12_000 }, (_, i) => i + 1),
  )
  expect(new Set(lines.map((line) => line.length))).toEqual(new Set([100]))
  expect(deliveries.reduce((sum, { batch }) => sum + batch.count, 0)).toBe(12_000)
  expect(deliveries[1]?.at(0)).toBe(String((deliveries[0]?.batch.count ?? 0) + 1))
  expect(deliveries.at(-1)?.last).toBe('12000')
})

test('a run that goes on makes the records that the first would have made', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 300 }),
      fc.integer(),
      fc.integer({ min: 1, max: 300 }),
      fc.nat(400),
      async (size, seed, count, cut) => {
        const whole = (await all(new GenerateSource(0, count, new RecordGenerator(size, seed)), context())).text
        const first = (
          await all(new GenerateSource(0, Math.min(count, cut) || 1, new RecordGenerator(size, seed)), context())
        ).text
        const rest = (
          await all(
            new GenerateSource(0, count, new RecordGenerator(size, seed)),
            context({ resume: String(Math.min(count, cut) || 1) }),
          )
        ).text
        expect(first + rest).toBe(whole)
      },
    ),
    { numRuns: 50 },
  )
})

test('another seed makes other records, and numbers beyond 32 bits are whole', () => {
  const one = new RecordGenerator(60, 1).block(9_007_199_254_740_000, 1, 1000).bytes.toString()
  expect((JSON.parse(one) as { seq: number }).seq).toBe(9_007_199_254_740_000)
  expect(new RecordGenerator(60, 2).block(9_007_199_254_740_000, 1, 1000).bytes.toString()).not.toBe(one)
})

test('a rate is kept on the whole, and what came due while nobody read comes in one delivery', async () => {
  let now = 1000
  const clock: Clock = {
    now: () => now,
    monotonic: () => now,
    sleep: (ms) => {
      now += ms
      return Promise.resolve()
    },
    every: () => ({ stop: () => undefined }),
  }
  const source = new GenerateSource(100, 0, new RecordGenerator(50, 1))
  await source.open(context({ clock }))
  let made = 0
  while (made < 500) made += (await source.read(never))?.batch.count ?? 0
  expect(now - 1000).toBeGreaterThanOrEqual(4980)
  expect(now - 1000).toBeLessThanOrEqual(5010)
  now += 500
  expect((await source.read(never))?.batch.count).toBeGreaterThanOrEqual(50)
  now += 3_600_000
  expect((await source.read(never))?.batch.count).toBeLessThanOrEqual(101)
})

test('waiting for the next record ends when the signal aborts', async () => {
  const source = new GenerateSource(0.001, 0, new RecordGenerator(50, 1))
  await source.open(context())
  await source.read(never)
  const stop = new AbortController()
  const reading = source.read(stop.signal)
  stop.abort(new Error('enough'))
  await expect(reading).rejects.toThrow('enough')
})
