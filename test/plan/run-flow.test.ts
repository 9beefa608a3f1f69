/**
 * A run up to its exit code, receipts and what is told, without a process: the flow is real, its ends are scripted.
 */
import type { Sink } from '../../src/core/contract'
import { CONFIRMED } from '../../src/core/contract'
import { Fatal, ReaderGone } from '../../src/core/errors'
import { receiptLine, type Receipt } from '../../src/core/accounting/receipt'
import type { Flow } from '../../src/core/flow/flow'
import type { ReceiptStore } from '../../src/plan/receipts'
import { issueEarlier, runFlow, type RunHost } from '../../src/plan/run-flow'
import type { RunLog } from '../../src/plan/run-log'
import { flowOf, NumberSource, ScriptedSink, type RunOptions } from '../core/support'

interface Told {
  readonly lines: string[]
  readonly log: RunLog
}
function recordingLog(): Told {
  const lines: string[] = []
  const say =
    (level: string) =>
    (message: string): void => {
      lines.push(`${level}: ${message}`)
    }
  return {
    lines,
    log: {
      debug: say('debug'),
      info: say('info'),
      warn: say('warn'),
      error: say('error'),
      lasting: say('lasting'),
      showBuffered: (most) => {
        lines.push(`buffered: ${most}`)
      },
    },
  }
}

/** Keeps receipts in memory; `broken` fails as a full disk does. */
function memoryStore(): ReceiptStore & { readonly written: Receipt[]; broken: boolean } {
  const written: Receipt[] = []
  return {
    name: 'memory',
    broken: false,
    written,
    append(receipt) {
      if (this.broken) return Promise.reject(Object.assign(new Error('no space left'), { code: 'ENOSPC' }))
      written.push(receipt)
      return Promise.resolve()
    },
    contains: (run) => Promise.resolve(written.some((receipt) => receipt.run === run)),
  }
}

interface Ran {
  readonly end: number | NodeJS.Signals
  readonly lines: readonly string[]
  readonly events: readonly string[]
  readonly issued: readonly (readonly Receipt[])[]
}
async function run(
  flow: Flow,
  {
    owing = [],
    bounded = true,
    fed = false,
    ...host
  }: Partial<RunHost> & { owing?: readonly Receipt[]; bounded?: boolean; fed?: boolean } = {},
): Promise<Ran> {
  const { lines, log } = recordingLog()
  const events: string[] = []
  const issued: (readonly Receipt[])[] = []
  const store = host.receipts === undefined ? {} : { receipts: host.receipts }
  const earlier = await issueEarlier({ flow, owing }, { log, ...store })
  const end = await runFlow(
    {
      name: 'test',
      bounded,
      fed,
      drainable: false,
      flow: {
        run: () => flow.run(),
        issued: (left) => {
          events.push('issued')
          issued.push(left)
          return flow.issued(left)
        },
      },
      release: () => {
        events.push('released')
        return Promise.resolve()
      },
    },
    earlier,
    {
      log,
      redact: (text) => text,
      ended: () => {
        events.push('ended')
      },
      stoppedBy: () => undefined,
      ...host,
    },
  )
  return { end, lines, events, issued }
}
const flow = (sink: Sink = new ScriptedSink(), options: RunOptions = {}): Flow =>
  flowOf(new NumberSource(100, 10), sink, options)

test('a run that delivers all ends with 0, one receipt that says so, and its lock is kept until that is issued', async () => {
  const receipts = memoryStore()
  const { end, lines, events, issued } = await run(flow(), { receipts })
  expect(end).toBe(0)
  expect(receipts.written).toHaveLength(1)
  expect(receipts.written[0]?.sinks[0]).toMatchObject({ read: 100, delivered: 100, returned: 0 })
  expect(lines).toEqual([`info: ${receiptLine(receipts.written[0]!)}`])
  expect(events).toEqual(['ended', 'issued', 'released'])
  expect(issued).toEqual([[]])
})

test('a sink that fails for good ends with 4, and the failure is told after the buffered lines', async () => {
  const sink = new ScriptedSink((n) => {
    if (n === 2) throw new Fatal('no more')
    return CONFIRMED
  })
  const { end, lines } = await run(flow(sink))
  expect(end).toBe(4)
  expect(lines.slice(1)).toEqual(['buffered: 7', 'error: sink: no more'])
})

test('a rejected record that has nowhere to go ends with 5 and names the way out', async () => {
  const sink = new ScriptedSink((n) => (n === 1 ? { retry: [], rejected: [{ index: 0, why: 'bad' }] } : CONFIRMED))
  const { end, lines } = await run(flow(sink))
  expect(end).toBe(5)
  expect(lines.at(-1)).toMatch(/^error: a record was rejected and there is nowhere to keep it: .*--dead-letter/)
})

test('a reader that is gone ends with 141 in silence', async () => {
  const sink = new ScriptedSink(() => {
    throw new ReaderGone('gone')
  })
  const { end, lines } = await run(flow(sink))
  expect(end).toBe(141)
  expect(lines.map((line) => line.replace(/:.*/, ''))).toEqual(['debug'])
})

test('a receipt that cannot be written ends with 74 and stays with the flow; the next run issues it, once', async () => {
  const receipts = memoryStore()
  receipts.broken = true
  const first = await run(flow(), { receipts })
  expect(first.end).toBe(74)
  expect(first.lines).toContain('error: the receipt could not be written to memory: no space left')
  const [left = []] = first.issued
  expect(left).toHaveLength(1)
  receipts.broken = false
  const second = await run(flow(), { receipts, owing: left })
  expect(second.end).toBe(0)
  expect(receipts.written.map(({ run: id }) => id)).toEqual(['run', 'run'])
  expect(second.issued).toEqual([[]])
  // A kill between the write and the note of it leaves the receipt owing, though it is there.
  const third = await run(flow(), { receipts, owing: left })
  expect(third.end).toBe(0)
  expect(receipts.written).toHaveLength(3)
})

test('a bounded run that a signal stops short of its end dies of the signal; one without an end exits with 0', async () => {
  const stopped = async (bounded: boolean, fed: boolean): Promise<Ran> => {
    const sink = new ScriptedSink((n) => {
      if (n === 1) running.stop()
      return CONFIRMED
    })
    const running = flowOf(new NumberSource(1_000_000, 10), sink, { bounded })
    return run(running, { bounded, fed, stoppedBy: () => 'SIGTERM' })
  }
  const short = await stopped(true, false)
  expect(short.end).toBe('SIGTERM')
  expect(short.lines.at(-1)).toMatch(/^error: stopped before its end: \d+ records of \d+ were delivered to sink$/)
  expect((await stopped(false, false)).end).toBe(0)
  // Its end is up to whoever writes to stdin.
  expect((await stopped(true, true)).end).toBe(0)
})

test('what is told of a failure has no secret', async () => {
  const sink = new ScriptedSink(() => {
    throw new Error('CANARY')
  })
  const { end, lines } = await run(flow(sink), { redact: (text) => text.replaceAll('CANARY', '***') })
  expect(end).toBe(1)
  expect(lines.at(-1)).toMatch(/^error: this is a bug in manifold, please report it: Error: \*\*\*/)
  expect(lines.join('\n')).not.toContain('CANARY')
})
