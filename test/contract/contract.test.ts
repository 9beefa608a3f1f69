/**
 * What every endpoint owes the core (src/core/contract.ts), driven by the registry: an endpoint without a harness
 * fails, and a case that does not apply is skipped with its reason in the title.
 */
import { EntryBatch, LineBatch } from '../../src/core/batch'
import {
  CONFIRMED,
  type Batch,
  type Delivery,
  type Position,
  type Sink,
  type Source,
  type Write,
} from '../../src/core/contract'
import { registry } from '../../src/endpoints/registry'
import type { AnyEndpoint } from '../../src/options/define'
import { makeEndpointContext, makeSourceContext } from '../support/context'
import { harnesses, type SinkHarness, type SourceHarness } from './harnesses'

const forever = new AbortController().signal
const records = (n: number): string[] => Array.from({ length: n }, (_, i) => `{"seq":${i + 1}}`)

async function readAll(
  source: Source,
  enough: number,
  signal: AbortSignal = forever,
): Promise<{ readonly values: string[]; readonly positions: Map<string, Position>; readonly deliveries: Delivery[] }> {
  const values: string[] = []
  const positions = new Map<string, Position>()
  const deliveries: Delivery[] = []
  while (values.length < enough) {
    const delivery = await source.read(signal)
    if (delivery === null) break
    deliveries.push(delivery)
    values.push(...delivery.batch.entries().map((entry) => entry.value?.toString() ?? 'null'))
    positions.set(delivery.partition.name, delivery.last)
  }
  return { values, positions, deliveries }
}

function writeOf(id: string, payload: Batch, attempt = 1): Write {
  return {
    id,
    attempt,
    payload,
    origin: (index) => ({ source: 'test', partition: 'p', position: String(index + 1), receivedAt: 0 }),
  }
}

/** An endpoint by each of its harnesses; by its scheme where it has none. */
function cases(role: 'source' | 'sink'): readonly (readonly [string, AnyEndpoint])[] {
  return registry
    .filter((endpoint) => endpoint[role] !== undefined)
    .flatMap((endpoint) => {
      const scheme = endpoint.schemes[0] ?? ''
      const known = Object.keys(harnesses).filter((name) => name === scheme || name.startsWith(`${scheme} `))
      return (known.length === 0 ? [scheme] : known).map((name) => [name, endpoint] as const)
    })
}

describe.each(cases('source'))('source %s', (scheme, endpoint) => {
  const make = harnesses[scheme]?.source
  test('has a harness', () => {
    expect(make).toBeDefined()
  })
  if (make === undefined) return
  if (typeof make === 'string') {
    test.skip(`reads (skipped: ${make})`, () => undefined)
    return
  }
  const load = async (harness: SourceHarness): Promise<Source> => {
    // stdin's harness brings the source itself, on a descriptor of its own.
    const own = (harness.target as { readonly source?: Source }).source
    if (own !== undefined) return own
    const create = await endpoint.source?.load()
    if (create === undefined) throw new Error('no source')
    return create(harness.target)
  }
  let harness: SourceHarness
  beforeEach(async () => {
    harness = await make(endpoint, records(1000))
  })
  afterEach(async () => {
    await harness.stop()
  })

  test('returns every record once and in order, with counts and positions that fit', async () => {
    const source = await load(harness)
    await source.open(makeSourceContext().ctx)
    const { values, deliveries } = await readAll(source, harness.expected.length)
    expect(values).toEqual(harness.expected)
    for (const { batch } of deliveries) expect(batch.entries()).toHaveLength(batch.count)
    for (const {
      batch: { count },
      at,
    } of deliveries)
      for (const index of [-1, count]) expect(() => at(index)).toThrow(RangeError)
    await source.close()
  })

  const ends = endpoint.source?.bounded !== undefined
  const endCase = ends ? test : test.skip
  endCase(`null is the end, for good${ends ? '' : ' (skipped: it has no end)'}`, async () => {
    const source = await load(harness)
    await source.open(makeSourceContext().ctx)
    await readAll(source, Infinity)
    expect(await source.read(forever)).toBeNull()
    await source.close()
  })

  const here = endpoint.source?.position === 'here' || harnesses[scheme]?.here === true
  const resumeCase = here ? test : test.skip
  resumeCase(
    `opened with a position it goes on right after it${here ? '' : ' (skipped: its position does not live with us)'}`,
    async () => {
      const first = await load(harness)
      await first.open(makeSourceContext().ctx)
      const { deliveries } = await readAll(first, 1)
      await first.close()
      const {
        batch: { count },
        partition,
        at,
      } = deliveries.find(({ batch }) => batch.count > 0)!
      const middle = Math.ceil(count / 2)
      const second = await load(harness)
      await second.open(makeSourceContext({ positions: { [partition.name]: at(middle - 1) } }).ctx)
      expect((await readAll(second, harness.expected.length - middle)).values).toEqual(harness.expected.slice(middle))
      await second.close()
    },
  )

  const upstream = harnesses[scheme]?.upstream === true
  const committedCase = upstream ? test : test.skip
  committedCase(
    `what was committed does not come again after it was closed, all else does${upstream ? '' : ' (skipped: its position is not kept upstream)'}`,
    async () => {
      const first = await load(harness)
      await first.open(makeSourceContext().ctx)
      const { deliveries } = await readAll(first, 2)
      const {
        batch: { count },
        partition,
        at,
      } = deliveries.find(({ batch }) => batch.count > 0)!
      const done = Math.ceil(count / 2)
      await first.commit(partition, at(done - 1))
      await first.close()
      const second = await load(harness)
      await second.open(makeSourceContext().ctx)
      const { values } = await readAll(second, harness.expected.length - done)
      // Not every broker puts what comes again where it was.
      expect(values.toSorted()).toEqual(harness.expected.slice(done).toSorted())
      await second.close()
    },
  )

  test('a read that waits rejects promptly when its signal aborts, and loses nothing', async () => {
    const source = await load(harness)
    await source.open(makeSourceContext().ctx)
    const aborted = new AbortController()
    const reason = new Error('enough')
    setTimeout(() => {
      aborted.abort(reason)
    }, 20)
    const before: string[] = []
    try {
      for (;;) {
        const delivery = await source.read(aborted.signal)
        if (delivery === null) break
        before.push(...delivery.batch.entries().map((entry) => entry.value?.toString() ?? 'null'))
      }
    } catch (error) {
      expect(error).toBe(reason)
    }
    const { values } = await readAll(source, harness.expected.length - before.length)
    expect([...before, ...values]).toEqual(harness.expected)
    await source.close()
  })

  test('close is safe twice, and before open', async () => {
    const source = await load(harness)
    await source.close()
    await source.close()
  })
})

describe.each(cases('sink'))('sink %s', (scheme, endpoint) => {
  const make = harnesses[scheme]?.sink
  test('has a harness, or says where it is tested', () => {
    expect(make).toBeDefined()
  })
  if (make === undefined) return
  if (typeof make === 'string') {
    test.skip(`writes batches (skipped: ${make})`, () => undefined)
    return
  }
  const load = async (harness: SinkHarness): Promise<Sink> => {
    const create = await endpoint.sink?.load()
    if (create === undefined) throw new Error('no sink')
    return create(harness.target)
  }
  let harness: SinkHarness
  beforeEach(async () => {
    harness = await make(endpoint)
  })
  afterEach(async () => {
    await harness.stop()
  })
  const text = records(500)

  test('what it confirmed is there, once, in order, from lines as from entries', async () => {
    const sink = await load(harness)
    await sink.open(makeEndpointContext().ctx)
    const lines = new LineBatch(
      [
        Buffer.from(
          text
            .slice(0, 250)
            .map((each) => `${each}\n`)
            .join(''),
        ),
      ],
      250,
    )
    const entries = new EntryBatch(
      text.slice(250).map((each) => ({ value: Buffer.from(each) })),
      10_000,
    )
    expect(await sink.write(writeOf('w1', lines), forever)).toEqual(CONFIRMED)
    expect(await sink.write(writeOf('w2', entries), forever)).toEqual(CONFIRMED)
    await sink.close()
    if (harness.stored !== undefined) expect(await harness.stored(500)).toEqual(text)
  })

  test('opened again after close it goes on', async () => {
    const sink = await load(harness)
    for (const [index, part] of [text.slice(0, 100), text.slice(100, 200)].entries()) {
      await sink.open(makeEndpointContext().ctx)
      expect(
        await sink.write(
          writeOf(
            `w${index}`,
            new EntryBatch(
              part.map((each) => ({ value: Buffer.from(each) })),
              10_000,
            ),
          ),
          forever,
        ),
      ).toEqual(CONFIRMED)
      await sink.close()
    }
    if (harness.stored !== undefined) expect(await harness.stored(200)).toEqual(text.slice(0, 200))
  })

  test('limits are sound', async () => {
    const { limits, segments } = await load(harness)
    expect(limits.maxEntries).toBeGreaterThan(0)
    expect(limits.maxBytes).toBeGreaterThan(0)
    expect(limits.inFlight).toBeGreaterThan(0)
    expect(segments === undefined).toBe(limits.unit === 'batch')
  })

  test('close is safe twice, and before open', async () => {
    const sink = await load(harness)
    await sink.close()
    await sink.close()
  })
})
