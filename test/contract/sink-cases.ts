/** The promises of a sink. */
import { EntryBatch, LineBatch } from '../../src/core/batch'
import type { Batch, Entry, Outcome, Sink, Write } from '../../src/core/contract'
import { makeEndpointContext } from '../support/context'
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
import type { Carried, SinkHarness } from './harness'

type SinkSubject = Subject<Sink, SinkHarness>

/** An answer that is held back has to be waited for. Nothing can be awaited that shows that nothing happens. */
const HOLD_MS = 300
/** A sink may have to learn from a failure that a record is too large. */
const MOST_ATTEMPTS = 5

function writeOf(id: string, payload: Batch, attempt = 1): Write {
  return {
    id,
    attempt,
    payload,
    origin: (index) => ({ source: 'test', partition: 'p', position: String(index + 1), receivedAt: 0 }),
  }
}
function entriesOf(values: readonly string[], carried: Carried = {}): Batch {
  const entries = values.map((value): Entry => ({ value: Buffer.from(value), ...carried }))
  return new EntryBatch(
    entries,
    entries.reduce((sum, { value }) => sum + (value?.length ?? 0), 0),
  )
}
const records = (count: number, from = 1): string[] =>
  Array.from({ length: count }, (_, index) => `{"seq":${from + index}}`)

async function openSink(subject: SinkSubject): Promise<Sink> {
  const sink = await subject.create()
  await within(sink.open(makeEndpointContext().ctx), 'the sink did not open')
  return sink
}
async function write(sink: Sink, payload: Batch, id: string, attempt = 1): Promise<Outcome> {
  return within(sink.write(writeOf(id, payload, attempt), forever), 'a write was not answered')
}
async function confirmed(sink: Sink, payload: Batch, id: string, attempt = 1): Promise<void> {
  const { retry, rejected } = await write(sink, payload, id, attempt)
  const [refusal] = [...rejected, ...retry]
  demand(refusal === undefined, `a good record was not confirmed: ${refusal?.why ?? ''}`)
}
async function demandStored({ harness }: SinkSubject, expected: readonly string[], promise: string): Promise<void> {
  if (harness.stored === undefined) return
  demandRecords(
    await within(harness.stored(expected.length), `${promise}: not all records were there`, 30_000),
    expected,
    promise,
  )
}

/** Waits until the values are there; a write that came again may have left some of them twice. */
async function demandThere(
  { harness: { stored } }: SinkSubject,
  expected: readonly string[],
  promise: string,
): Promise<void> {
  if (stored === undefined) return
  let found: readonly string[] = []
  const missing = (): readonly string[] => expected.filter((value) => !found.includes(value))
  for (let count = expected.length; missing().length > 0; count++)
    found = await within(stored(count), `${promise}: ${missing().join()} did not arrive`)
}

export const sinkCases: readonly Case<SinkSubject>[] = [
  {
    title: 'what it confirmed is there, once, in order, from lines as from entries',
    run: async (subject) => {
      const sink = await openSink(subject)
      const lines = records(250)
      const entries = records(250, 251)
      await confirmed(sink, new LineBatch([Buffer.from(lines.map((each) => `${each}\n`).join(''))], lines.length), 'w1')
      await confirmed(sink, entriesOf(entries), 'w2')
      await sink.close()
      await demandStored(subject, [...lines, ...entries], 'what a sink confirmed is there, once and in order')
    },
  },
  {
    title: 'keeps the key and the headers of a record',
    needs: 'carries',
    run: async (subject) => {
      const sink = await openSink(subject)
      const carried: Carried = { key: Buffer.from('k'), headers: [['colour', Buffer.from('blue')]] }
      await confirmed(sink, entriesOf(records(1), carried), 'w1')
      const [found] = (await subject.harness.storedCarried?.(1)) ?? []
      demandCarried(found ?? {}, carried, 'the sink')
    },
  },
  {
    title: 'answers a write once the server has, not before',
    needs: 'answers',
    run: async (subject) => {
      const { answers } = subject.harness
      const sink = await openSink(subject)
      await confirmed(sink, entriesOf(records(1)), 'w1')
      answers?.hold()
      try {
        let early = false
        const writing = write(sink, entriesOf(records(1, 2)), 'w2').then((outcome) => {
          early = true
          return outcome
        })
        const outcome = failureOf(writing)
        await new Promise((resolve) => {
          setTimeout(resolve, HOLD_MS)
        })
        demand(!early, 'the sink confirmed a write that its server had not answered')
        answers?.release()
        demand((await outcome) === undefined, `a write failed though its answer came late: ${String(await outcome)}`)
      } finally {
        answers?.release()
      }
      await sink.close()
      await demandStored(subject, records(2), 'a write whose answer came late is there once')
    },
  },
  {
    title: 'a record that the destination does not take is rejected alone',
    needs: 'refuses',
    run: async (subject) => {
      const sink = await openSink(subject)
      const values = ['first', 'x'.repeat(subject.harness.tooLarge ?? 0), 'last']
      const rejected: number[] = []
      let left = [0, 1, 2]
      let failure: unknown
      // As the core does: a write that failed comes again as it was, and what is to be tried again goes alone.
      for (let attempt = 1; left.length > 0 && attempt <= MOST_ATTEMPTS; attempt++) {
        const sent = left
        const payload = entriesOf(sent.map((index) => values[index] ?? ''))
        failure = await failureOf(
          write(sink, payload, `w${sent.join()}`, attempt).then((outcome) => {
            rejected.push(...outcome.rejected.map(({ index }) => sent[index] ?? -1))
            left = outcome.retry.map(({ index }) => sent[index] ?? -1)
          }),
        )
        if (failure === undefined) continue
        demandClassified(failure, 'when a record was too large')
        await sink.close()
        await within(sink.open(makeEndpointContext().ctx), 'the sink did not open again')
      }
      demand(
        left.length === 0,
        `a record that is too large made its write fail ${MOST_ATTEMPTS} times, so that it would come again for ever: ${String(failure)}`,
      )
      demand(
        rejected.length === 1 && rejected[0] === 1,
        `of three records the second one is too large, and rejected were ${JSON.stringify(rejected)}`,
      )
      await sink.close()
      await demandThere(subject, ['first', 'last'], 'good records beside one that is too large were lost')
    },
  },
  {
    title: 'a server that goes away is a classified fault, and opened again it takes the same write',
    needs: 'outage',
    run: async (subject) => {
      const { outage } = subject.harness
      const sink = await openSink(subject)
      await confirmed(sink, entriesOf(records(1)), 'w1')
      await demandThere(subject, records(1), 'the first record')
      await outage?.down()
      // A destination that does not confirm may have taken it before the loss was noticed.
      const failure = await within(
        failureOf(
          (async () => {
            while (sink.limits.confirms === 'none') {
              await sink.write(writeOf('probe', entriesOf(['probe'])), forever)
              await new Promise((resolve) => {
                setTimeout(resolve, 5)
              })
            }
            await sink.write(writeOf('w2', entriesOf(records(1, 2))), forever)
          })(),
        ),
        'a write without a server neither failed nor succeeded',
        60_000,
      )
      demand(failure !== undefined, 'a sink whose server was gone confirmed a write')
      demandClassified(failure, 'when its connection was lost')
      await sink.close()
      await outage?.up()
      await within(sink.open(makeEndpointContext().ctx), 'the sink did not open once its server was back')
      await confirmed(sink, entriesOf(records(1, 2)), 'w2', 2)
      await demandThere(subject, records(2), 'records were lost over an outage')
    },
  },
  {
    title: 'opened again after close it goes on',
    run: async (subject) => {
      const sink = await subject.create()
      for (const [index, part] of [records(100), records(100, 101)].entries()) {
        await within(sink.open(makeEndpointContext().ctx), 'the sink did not open')
        await confirmed(sink, entriesOf(part), `w${index}`)
        await within(sink.close(), 'close did not return')
      }
      await demandStored(subject, records(200), 'a sink that is opened again goes on')
    },
  },
  {
    title: 'limits are sound',
    run: async (subject) => {
      const { limits, segments } = await subject.create()
      for (const name of ['maxEntries', 'maxBytes', 'inFlight'] as const)
        demand(limits[name] > 0, `${name} is ${limits[name]}`)
      demand((segments === undefined) === (limits.unit === 'batch'), 'segments is there if and only if unit is segment')
    },
  },
  {
    title: 'close is safe twice and before open, and leaves nothing open',
    run: async (subject) => {
      const unopened = await subject.create()
      await unopened.close()
      await unopened.close()
      const before = resources()
      const sink = await openSink(subject)
      await confirmed(sink, entriesOf(records(1)), 'w1')
      await within(sink.close(), 'close did not return')
      await demandReleased(before)
      await sink.close()
    },
  },
]
