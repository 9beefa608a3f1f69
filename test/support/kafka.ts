/** The Kafka sink by hand: what the core does, without the core. */
import { EntryBatch, LineBatch } from '../../src/core/batch'
import type { Batch, Entry, Outcome, Sink } from '../../src/core/contract'
import { Disconnected, Throttled } from '../../src/core/errors'
import { create } from '../../src/endpoints/kafka/sink'
import { makeEndpointContext, type Told } from './context'
import { kafkaTarget } from './kafka-target'

export function lines(records: readonly (string | Buffer)[]): Batch {
  return new LineBatch(
    [Buffer.concat(records.flatMap((each) => [Buffer.from(each), Buffer.from('\n')]))],
    records.length,
  )
}
export function entries(records: readonly Entry[]): Batch {
  return new EntryBatch(
    records,
    records.reduce((sum, { value }) => sum + (value?.length ?? 0), 0),
  )
}

export interface OpenedSink {
  readonly sink: Sink
  readonly told: Told
  /** Once. The same id is the same write. */
  tryWrite(payload: Batch, id: string, signal?: AbortSignal): Promise<Outcome>
  /** All at once, then those that failed again, in order, as often as it takes. */
  deliver(payloads: readonly Batch[]): Promise<readonly Outcome[]>
  /** Closed and opened again, as the core does after a fault. */
  reopen(): Promise<void>
}

const MOST_TRIES = 200

/**
 * Close its sink. Options by key of the declaration. A topic's leader and the log of producer ids take their time on a
 * broker that has just started.
 */
export async function openSink(uri: string, given: Readonly<Record<string, unknown>> = {}): Promise<OpenedSink> {
  const sink = create(kafkaTarget(uri, given))
  const { ctx, told } = makeEndpointContext()
  const open = async (): Promise<void> => {
    for (let tries = 0; ; tries++) {
      try {
        await sink.open(ctx)
        return
      } catch (error) {
        await sink.close()
        if (!(error instanceof Disconnected) || tries === MOST_TRIES) throw error
        await ctx.clock.sleep(50, ctx.signal)
      }
    }
  }
  const reopen = async (): Promise<void> => {
    await sink.close()
    await open()
  }
  const tryWrite = (payload: Batch, id: string, signal = new AbortController().signal): Promise<Outcome> =>
    sink.write(
      { id, attempt: 1, payload, origin: () => ({ source: 's', partition: 'p', position: '0', receivedAt: 0 }) },
      signal,
    )
  let serial = 0
  const deliver = async (payloads: readonly Batch[]): Promise<readonly Outcome[]> => {
    const jobs = payloads.map((payload) => ({ payload, id: `w${++serial}`, outcome: undefined as Outcome | undefined }))
    for (let tries = 0; ; tries++) {
      const left = jobs.filter(({ outcome }) => outcome === undefined)
      if (left.length === 0) return jobs.map(({ outcome }) => outcome!)
      const results = await Promise.allSettled(
        left.map(async (job) => {
          job.outcome = await tryWrite(job.payload, job.id)
        }),
      )
      const faults = results.flatMap((each) => (each.status === 'rejected' ? [each.reason as Error] : []))
      const bad = faults.find((error) => !(error instanceof Disconnected || error instanceof Throttled))
      if (bad !== undefined || (faults[0] !== undefined && tries === MOST_TRIES)) throw bad ?? faults[0]!
      if (faults.some((error) => error instanceof Disconnected)) await reopen()
    }
  }
  await open()
  return { sink, told, tryWrite, deliver, reopen }
}
