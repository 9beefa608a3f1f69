/**
 * The contract suite finds what it is for: a correct endpoint with one deliberate fault fails the case that the fault
 * concerns, with an error that names the broken promise.
 */
import type { Delivery, Outcome, Sink, Source } from '../../src/core/contract'
import { runCase } from './cases'
import { harnesses } from './harnesses'
import { sinkCases } from './sink-cases'
import { sourceCases } from './source-cases'
import { endpointOf, sinkSubject, sourceSubject } from './subjects'

/** The endpoint with some of its members replaced. */
function like<T extends object>(real: T, changed: Partial<T>): T {
  return new Proxy(real, {
    get: (target, name) => {
      const value: unknown = Reflect.get(name in changed ? changed : target, name)
      return typeof value === 'function' ? (value.bind(name in changed ? changed : target) as unknown) : value
    },
  })
}

const changedRead = (source: Source, change: (delivery: Delivery) => Delivery): Source =>
  like(source, {
    read: async (signal) => {
      const delivery = await source.read(signal)
      return delivery === null ? null : change(delivery)
    },
  })
const changedWrite = (sink: Sink, write: Sink['write']): Sink => like(sink, { write })
const withoutHeaders = (delivery: Delivery): Delivery => {
  const entries = delivery.batch.entries().map(({ value, key }) => ({ value, ...(key === undefined ? {} : { key }) }))
  return { ...delivery, batch: like(delivery.batch, { entries: () => entries }) }
}

interface Mutant<T> {
  readonly fault: string
  readonly harness: string
  /** The title of the case that has to find it. */
  readonly finds: string
  readonly says: RegExp
  mutate(real: T): T
}

const sources: readonly Mutant<Source>[] = [
  {
    fault: 'commit acknowledges nothing',
    harness: 'amqp',
    finds: 'what was committed does not come again after it was closed, all else does',
    says: /^\d+ records came again though they were committed, such as \{"seq":1\}$/,
    mutate: (source) => like(source, { commit: () => Promise.resolve() }),
  },
  {
    fault: 'commit acknowledges more than it was told',
    harness: 'amqp',
    finds: 'what was committed does not come again after it was closed, all else does',
    says: /^what was not committed comes again: \d+ of \d+ records came, and no more/,
    mutate: (source) => {
      let last: Delivery | undefined
      return like(source, {
        read: async (signal) => {
          const delivery = await source.read(signal)
          if (delivery !== null) last = delivery
          return delivery
        },
        commit: (partition, upTo) => source.commit(partition, last?.last ?? upTo),
      })
    },
  },
  {
    fault: 'the epoch never grows',
    harness: 'amqp',
    finds: 'each opening has a greater epoch',
    says: /^the epoch of .+ did not grow: 1, then 1$/,
    mutate: (source) =>
      changedRead(source, (delivery) => ({ ...delivery, partition: { ...delivery.partition, epoch: 1 } })),
  },
  {
    fault: 'asked for its ends, it says at once that it is over',
    harness: 'kafka',
    finds: 'asked for its ends, it returns what was there until then, and ends',
    says: /^after ends\(\) a source returns all that was there: 0 of 1000 came/,
    mutate: (source) => {
      let over = false
      return like(source, {
        ends: () => {
          over = true
          return Promise.resolve(new Map())
        },
        read: (signal) => (over ? Promise.resolve(null) : source.read(signal)),
      })
    },
  },
  {
    fault: 'the source drops headers',
    harness: 'kafka',
    finds: 'keeps the key and the headers of a record',
    says: /^the source lost the header colour of a record: it is missing$/,
    mutate: (source) => changedRead(source, withoutHeaders),
  },
  {
    fault: 'the errors of a lost connection are left unclassified',
    harness: 'amqp',
    finds: 'a server that goes away is a classified fault, and opened again it goes on',
    says: /^when its connection was lost the endpoint threw Error: .+, which the core takes for a bug/,
    mutate: (source) =>
      like(source, {
        read: (signal) =>
          source.read(signal).catch((error: unknown) => {
            throw new Error((error as Error).message)
          }),
      }),
  },
  {
    fault: 'a read does not listen to its signal',
    harness: 'ws',
    finds: 'a read that waits rejects promptly when its signal aborts, and loses nothing',
    says: /^a read did not reject after its signal aborted within 3 s$/,
    mutate: (source) => like(source, { read: () => source.read(new AbortController().signal) }),
  },
  {
    fault: 'an aborted read loses what had arrived',
    harness: 'kafka',
    finds: 'a read that waits rejects promptly when its signal aborts, and loses nothing',
    says: /^an aborted read loses nothing: 0 of 1000 records came, and no more/,
    mutate: (source) =>
      like(source, {
        read: async (signal) => {
          const delivery = await source.read(new AbortController().signal)
          if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
          signal.throwIfAborted()
          return delivery
        },
      }),
  },
  {
    fault: 'positions are one record too early',
    harness: 'file',
    finds: 'opened with a position it goes on right after it',
    says: /^a source goes on right after a stored position: /,
    mutate: (source) =>
      changedRead(source, (delivery) => ({ ...delivery, at: (index) => delivery.at(Math.max(0, index - 1)) })),
  },
  {
    fault: 'a record comes twice',
    harness: 'generate',
    finds: 'returns every record once and in order, with counts and positions that fit',
    says: /^a source returns every record once and in order: .+ record 2 is /,
    mutate: (source) => {
      let first = true
      return changedRead(source, (delivery) => {
        if (!first) return delivery
        first = false
        const [one, ...rest] = delivery.batch.entries()
        return {
          ...delivery,
          batch: like(delivery.batch, { entries: () => (one === undefined ? [] : [one, one, ...rest.slice(1)]) }),
        }
      })
    },
  },
  {
    fault: 'after its end a source goes on',
    harness: 'file',
    finds: 'null is the end, for good',
    says: /^a source that has ended returned another delivery$/,
    mutate: (source) => {
      let last: Delivery | undefined
      let ended = false
      return like(source, {
        read: async (signal) => {
          if (ended) return last ?? null
          const delivery = await source.read(signal)
          ended = delivery === null
          last = delivery ?? last
          return delivery
        },
      })
    },
  },
  {
    fault: 'close leaves the connection open',
    harness: 'ws',
    finds: 'close is safe twice and before open, and leaves nothing open',
    says: /^close left something open: not within 5000 ms; seen: \["TCPSocketWrap"\]$/,
    mutate: (source) => {
      let opened = false
      return like(source, {
        open: async (ctx) => {
          await source.open(ctx)
          opened = true
        },
        close: () => (opened ? Promise.resolve() : source.close()),
      })
    },
  },
]

const sinks: readonly Mutant<Sink>[] = [
  {
    fault: 'the sink drops headers',
    harness: 'amqp',
    finds: 'keeps the key and the headers of a record',
    says: /^the sink lost the header colour of a record: it is missing$/,
    mutate: (sink) =>
      changedWrite(sink, (write, signal) => {
        if ('kind' in write.payload) return sink.write(write, signal)
        const entries = write.payload
          .entries()
          .map(({ value, key }) => ({ value, ...(key === undefined ? {} : { key }) }))
        return sink.write({ ...write, payload: like(write.payload, { entries: () => entries }) }, signal)
      }),
  },
  {
    fault: 'the sink does not wait for answers',
    harness: 'amqp',
    finds: 'answers a write once the server has, not before',
    says: /^the sink confirmed a write that its server had not answered$/,
    mutate: (sink) =>
      changedWrite(sink, (write, signal) => {
        sink.write(write, signal).catch(() => undefined)
        return Promise.resolve<Outcome>({ retry: [], rejected: [] })
      }),
  },
  {
    fault: 'a record that is too large makes the write fail',
    harness: 'amqp',
    finds: 'a record that the destination does not take is rejected alone',
    says: /^a record that is too large made its write fail 5 times, so that it would come again for ever: /,
    mutate: (sink) =>
      changedWrite(sink, async (write, signal) => {
        const outcome = await sink.write(write, signal)
        if (outcome.rejected.length > 0)
          throw Object.assign(new Error('too large'), { code: 'EPIPE', syscall: 'write' })
        return outcome
      }),
  },
  {
    fault: 'a rejected record counts as confirmed',
    harness: 'amqp',
    finds: 'a record that the destination does not take is rejected alone',
    says: /^of three records the second one is too large, and rejected were \[\]$/,
    mutate: (sink) =>
      changedWrite(sink, async (write, signal) => {
        await sink.write(write, signal)
        return { retry: [], rejected: [] }
      }),
  },
  {
    fault: 'the sink swaps records',
    harness: 'file',
    finds: 'what it confirmed is there, once, in order, from lines as from entries',
    says: /^what a sink confirmed is there, once and in order: .+ record 251 is \{"seq":252\} where/,
    mutate: (sink) =>
      changedWrite(sink, (write, signal) => {
        if ('kind' in write.payload || write.payload.form === 'lines') return sink.write(write, signal)
        const [one, two, ...rest] = write.payload.entries()
        const entries = one === undefined || two === undefined ? [] : [two, one, ...rest]
        const bytes = Buffer.from(entries.map(({ value }) => `${String(value)}\n`).join(''))
        return sink.write(
          {
            ...write,
            payload: like(write.payload, {
              entries: () => entries,
              lines: () => ({ chunks: [bytes], bytes: bytes.length, count: entries.length, refused: [] }),
            }),
          },
          signal,
        )
      }),
  },
  {
    fault: 'the errors of a lost connection are left unclassified',
    harness: 'amqp',
    finds: 'a server that goes away is a classified fault, and opened again it takes the same write',
    says: /^when its connection was lost the endpoint threw Error: .+, which the core takes for a bug/,
    mutate: (sink) =>
      changedWrite(sink, (write, signal) =>
        sink.write(write, signal).catch((error: unknown) => {
          throw new Error((error as Error).message)
        }),
      ),
  },
]

async function messageOf(promise: Promise<void>): Promise<string> {
  return promise.then(
    () => 'nothing was found',
    (error: unknown) => (error as Error).message,
  )
}

describe('a source with a fault', () => {
  test.each(sources.map((mutant) => [mutant.fault, mutant.harness, mutant] as const))(
    '%s (%s)',
    async (_, name, { finds, says, mutate }) => {
      const start = harnesses[name]?.source?.start
      if (typeof start !== 'function') throw new Error(String(start))
      const found = sourceCases.find(({ title }) => title === finds)
      const subject = await sourceSubject(endpointOf(name), start)
      expect(await messageOf(runCase(found!, subject, { mutate, limitMs: 3000 }))).toMatch(says)
    },
    60_000,
  )
})

describe('a sink with a fault', () => {
  test.each(sinks.map((mutant) => [mutant.fault, mutant.harness, mutant] as const))(
    '%s (%s)',
    async (_, name, { finds, says, mutate }) => {
      const start = harnesses[name]?.sink?.start
      if (typeof start !== 'function') throw new Error(String(start))
      const found = sinkCases.find(({ title }) => title === finds)
      const subject = await sinkSubject(endpointOf(name), start)
      expect(await messageOf(runCase(found!, subject, { mutate, limitMs: 3000 }))).toMatch(says)
    },
    60_000,
  )
})
