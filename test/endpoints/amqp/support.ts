/** Drives an endpoint as the core does, without the core. */
import { EntryBatch } from '../../../src/core/batch'
import type { Delivery, Entry, Sink, Source, Write } from '../../../src/core/contract'
import amqp from '../../../src/endpoints/amqp'
import {
  makeEndpointContext,
  makeSourceContext,
  makeTarget,
  type ContextOptions,
  type Told,
} from '../../support/context'

export const forever = new AbortController().signal
type Given = Readonly<Record<string, unknown>>

export async function makeSource(uri: string, given: Given): Promise<Source> {
  const create = await amqp.source?.load()
  if (create === undefined) throw new Error('no source')
  return create(makeTarget(amqp, uri, given) as Parameters<typeof create>[0])
}
export async function openSource(
  uri: string,
  given: Given,
  options: ContextOptions = {},
): Promise<{ readonly source: Source; readonly told: Told }> {
  const source = await makeSource(uri, given)
  const { ctx, told } = makeSourceContext(options)
  try {
    await source.open(ctx)
  } catch (error) {
    await source.close()
    throw error
  }
  return { source, told }
}
export async function makeSink(uri: string, given: Given): Promise<Sink> {
  const create = await amqp.sink?.load()
  if (create === undefined) throw new Error('no sink')
  return create(makeTarget(amqp, uri, given) as Parameters<typeof create>[0])
}
export async function openSink(uri: string, given: Given): Promise<{ readonly sink: Sink; readonly told: Told }> {
  const sink = await makeSink(uri, given)
  const { ctx, told } = makeEndpointContext()
  try {
    await sink.open(ctx)
  } catch (error) {
    await sink.close()
    throw error
  }
  return { sink, told }
}

export async function take(
  source: Source,
  count: number,
): Promise<{ readonly entries: readonly Entry[]; readonly deliveries: readonly Delivery[] }> {
  const entries: Entry[] = []
  const deliveries: Delivery[] = []
  while (entries.length < count) {
    const delivery = await source.read(forever)
    if (delivery === null) break
    deliveries.push(delivery)
    entries.push(...delivery.batch.entries())
  }
  return { entries, deliveries }
}

export function writeOf(entries: readonly (Entry | string)[], source = 'test'): Write {
  const payload = new EntryBatch(
    entries.map((entry) => (typeof entry === 'string' ? { value: Buffer.from(entry) } : entry)),
    0,
  )
  return {
    id: 'w',
    attempt: 1,
    payload,
    origin: (index) => ({ source, partition: 'p', position: String(index + 1), receivedAt: 0 }),
  }
}

/**
 * Waits for something that a broker does by itself, such as counting requeued messages. The wait is bounded, so that a
 * failed test ends.
 */
export async function until(what: () => Promise<boolean> | boolean, most = 120_000): Promise<void> {
  const latest = Date.now() + most
  while (!(await what())) {
    if (Date.now() > latest) throw new Error(`not within ${most} ms`)
    await new Promise((resolve) => {
      setTimeout(resolve, 50)
    })
  }
}

/** However the records were gathered into deliveries. */
export function positionAfter(deliveries: readonly Delivery[], count: number): string {
  let left = count
  for (const delivery of deliveries) {
    if (left <= delivery.batch.count) return delivery.at(left - 1)
    left -= delivery.batch.count
  }
  throw new Error(`there are ${count - left} records, not ${count}`)
}
