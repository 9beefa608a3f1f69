/** The promises of a source. */
import type { Delivery, Source } from '../../src/core/contract'
import { makeSourceContext, type ContextOptions } from '../support/context'
import {
  demand,
  demandCarried,
  demandClassified,
  demandRecords,
  demandReleased,
  failureOf,
  forever,
  resources,
  within,
  type Case,
  type Subject,
} from './cases'
import type { SourceHarness } from './harness'

const NOT_COMMITTED = 'what was not committed comes again'
const LOSES_NOTHING = 'an aborted read loses nothing'
type SourceSubject = Subject<Source, SourceHarness>

async function open(subject: SourceSubject, options: ContextOptions = {}): Promise<Source> {
  const source = await subject.create()
  await within(source.open(makeSourceContext(options).ctx), 'the source did not open')
  return source
}

interface Taken {
  readonly values: string[]
  readonly deliveries: Delivery[]
}
const valuesOf = ({ batch }: Delivery): string[] => batch.entries().map(({ value }) => value?.toString() ?? 'null')

/**
 * Reads until so many records are there, or the source ends.
 * @param promise is broken if no more records come
 */
async function take(
  { limitMs }: SourceSubject,
  source: Source,
  count: number,
  promise = 'a source returns what is there',
): Promise<Taken> {
  const taken: Taken = { values: [], deliveries: [] }
  while (taken.values.length < count) {
    const delivery = await within(
      source.read(forever),
      `${promise}: ${taken.values.length} of ${count} records came, and no more`,
      limitMs,
    )
    if (delivery === null) break
    taken.deliveries.push(delivery)
    taken.values.push(...valuesOf(delivery))
  }
  return taken
}
function firstOf({ deliveries }: Taken): Delivery {
  const found = deliveries.find(({ batch }) => batch.count > 0)
  demand(found !== undefined, 'no delivery had a record')
  return found
}

export const sourceCases: readonly Case<SourceSubject>[] = [
  {
    title: 'returns every record once and in order, with counts and positions that fit',
    run: async (subject) => {
      const source = await open(subject)
      const { values, deliveries } = await take(subject, source, subject.harness.expected.length)
      demandRecords(values, subject.harness.expected, 'a source returns every record once and in order')
      for (const { batch, at } of deliveries) {
        demand(batch.entries().length === batch.count, 'count is not the number of entries of a batch')
        for (const index of [-1, batch.count]) {
          let thrown: unknown
          try {
            at(index)
          } catch (error) {
            thrown = error
          }
          demand(thrown instanceof RangeError, `at(${index}) of ${batch.count} records has to throw a RangeError`)
        }
      }
    },
  },
  {
    title: 'keeps the key and the headers of a record',
    needs: 'carries',
    run: async (subject) => {
      const { deliveries } = await take(subject, await open(subject), 1)
      const [entry] = firstOf({ deliveries, values: [] }).batch.entries()
      demandCarried(entry ?? {}, subject.harness.carried ?? {}, 'the source')
    },
  },
  {
    title: 'null is the end, for good',
    needs: 'end',
    run: async (subject) => {
      const source = await open(subject)
      await take(subject, source, Infinity)
      const next = await within(source.read(forever), 'a source that has ended did not say so again')
      demand(next === null, 'a source that has ended returned another delivery')
    },
  },
  {
    title: 'asked for its ends, it returns what was there until then, and ends',
    needs: 'ends',
    run: async (subject) => {
      const source = await open(subject)
      demand(source.ends !== undefined, 'the harness says that the source can be asked for its ends')
      await within(source.ends(), 'ends() did not answer')
      const { values } = await take(subject, source, Infinity)
      demandRecords(
        values.toSorted(),
        subject.harness.expected.toSorted(),
        'after ends() a source returns all that was there',
      )
    },
  },
  {
    title: 'opened with a position it goes on right after it',
    needs: 'here',
    run: async (subject) => {
      const first = await open(subject)
      const { batch, partition, at } = firstOf(await take(subject, first, 1))
      await first.close()
      const middle = Math.ceil(batch.count / 2)
      const second = await open(subject, { positions: { [partition.name]: at(middle - 1) } })
      const rest = subject.harness.expected.slice(middle)
      demandRecords(
        (await take(subject, second, rest.length)).values,
        rest,
        'a source goes on right after a stored position',
      )
    },
  },
  {
    title: 'what was committed does not come again after it was closed, all else does',
    needs: 'upstream',
    run: async (subject) => {
      const first = await open(subject)
      const { batch, partition, at } = firstOf(await take(subject, first, 2))
      const done = Math.ceil(batch.count / 2)
      await within(first.commit(partition, at(done - 1)), 'a commit was not answered')
      await first.close(true)
      const second = await open(subject)
      const rest = subject.harness.expected.slice(done)
      const { values } = await take(subject, second, rest.length, NOT_COMMITTED)
      const again = values.filter((value) => subject.harness.expected.indexOf(value) < done)
      demand(
        again.length === 0,
        `${again.length} records came again though they were committed, such as ${again[0] ?? ''}`,
      )
      // Not every broker puts a record that comes again where it was.
      demandRecords(values.toSorted(), rest.toSorted(), NOT_COMMITTED)
    },
  },
  {
    title: 'each opening has a greater epoch',
    needs: 'upstream',
    run: async (subject) => {
      const { harness } = subject
      const source = await open(subject)
      const old = firstOf(await take(subject, source, harness.expected.length))
      await source.close()
      await within(source.open(makeSourceContext().ctx), 'the source did not open again')
      // Records that were returned once are on their way to the sinks, so only a new one comes for certain.
      await harness.more?.(['later'])
      const next = firstOf(await take(subject, source, 1))
      demand(
        next.partition.name !== old.partition.name || next.partition.epoch > old.partition.epoch,
        `the epoch of ${old.partition.name} did not grow: ${old.partition.epoch}, then ${next.partition.epoch}`,
      )
    },
  },
  {
    title: 'a read that waits rejects promptly when its signal aborts, and loses nothing',
    run: async (subject) => {
      const source = await open(subject)
      const reason = new Error('enough')
      const values: string[] = []
      const readUntil = async (signal: AbortSignal): Promise<void> => {
        for (;;) {
          const delivery = await source.read(signal)
          if (delivery === null) return
          values.push(...valuesOf(delivery))
        }
      }
      const interrupted = async (afterMs: number): Promise<void> => {
        const aborted = new AbortController()
        setTimeout(() => {
          aborted.abort(reason)
        }, afterMs)
        const failure = await within(
          failureOf(readUntil(aborted.signal)),
          'a read did not reject after its signal aborted',
          subject.limitMs,
        )
        demand(
          failure === undefined || failure === reason,
          `a read rejected with another reason than its signal's: ${String(failure)}`,
        )
      }
      await interrupted(20)
      const missing = subject.harness.expected.length - values.length
      values.push(...(await take(subject, source, missing, LOSES_NOTHING)).values)
      demandRecords(values, subject.harness.expected, LOSES_NOTHING)
      // Now nothing is left, so this read waits for certain.
      await interrupted(20)
    },
  },
  {
    title: 'a server that goes away is a classified fault, and opened again it goes on',
    needs: 'outage',
    run: async (subject) => {
      const { harness } = subject
      const source = await open(subject)
      const { values } = await take(subject, source, 1)
      await harness.outage?.down()
      const failure = await within(
        failureOf(
          (async () => {
            for (;;) {
              const delivery = await source.read(forever)
              if (delivery === null) return
              values.push(...valuesOf(delivery))
            }
          })(),
        ),
        'a source whose server was gone neither failed nor returned',
        60_000,
      )
      demand(failure !== undefined, 'a source whose server was gone said that it had ended')
      demandClassified(failure, 'when its connection was lost')
      await source.close()
      const refused = await within(
        failureOf(source.open(makeSourceContext().ctx)),
        'an opening without a server neither failed nor succeeded',
        60_000,
      )
      demandClassified(refused, 'when no server was there')
      await source.close()
      await harness.outage?.up()
      await within(source.open(makeSourceContext().ctx), 'the source did not open once its server was back')
      const all = new Set(values)
      while (all.size < harness.expected.length)
        for (const value of (await take(subject, source, 1)).values) all.add(value)
      demandRecords([...all].toSorted(), harness.expected.toSorted(), 'nothing is lost over an outage')
    },
  },
  {
    title: 'two that share the work get each record once between them',
    needs: 'shared',
    run: async (subject) => {
      const sources = [await open(subject), await open(subject)]
      const enough = new AbortController()
      const values: string[] = []
      await within(
        Promise.all(
          sources.map(async (source) => {
            while (values.length < subject.harness.expected.length) {
              const delivery = await source.read(enough.signal)
              if (delivery === null) return
              values.push(...valuesOf(delivery))
              await source.commit(delivery.partition, delivery.last)
            }
            enough.abort()
          }),
        ).catch((error: unknown) => {
          if (!enough.signal.aborted) throw error
        }),
        'two sources did not return all records',
      )
      demandRecords(values.toSorted(), subject.harness.expected.toSorted(), 'two sources share the records')
    },
  },
  {
    title: 'close is safe twice and before open, and leaves nothing open',
    run: async (subject) => {
      const unopened = await subject.create()
      await unopened.close()
      await unopened.close()
      const before = resources()
      const source = await open(subject)
      await take(subject, source, 1)
      await within(source.close(true), 'close did not return')
      await demandReleased(before)
      await source.close(true)
    },
  },
]
