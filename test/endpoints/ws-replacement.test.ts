import { setTimeout as sleep } from 'node:timers/promises'
import type { WebSocket } from 'ws'
import type { Source } from '../../src/core/contract'
import { makeSourceContext, type Told } from '../support/context'
import {
  accept,
  frame,
  makeSource,
  range,
  startPeer,
  startRaw,
  takeUntilThrow,
  until,
  valuesOf,
  type Peer,
  type PeerOptions,
} from './ws/peer'

const open: { close(): Promise<void> }[] = []
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})
function kept<T extends { close(): Promise<void> }>(thing: T): T {
  open.push(thing)
  return thing
}

interface Read {
  readonly epoch: number
  readonly value: string
}
interface Feed {
  readonly source: Source
  readonly told: Told
  readonly got: Read[]
  readonly numbers: () => number[]
  stop(): Promise<void>
}

/** Opens and reads on and on. */
async function follow(url: string, given: Record<string, unknown>): Promise<Feed> {
  const source = kept(await makeSource(url, given))
  const { ctx, told } = makeSourceContext()
  await source.open(ctx)
  const got: Read[] = []
  const halt = new AbortController()
  const reading = (async () => {
    for (;;) {
      const delivery = await source.read(halt.signal)
      if (delivery === null) return
      for (const value of valuesOf(delivery)) got.push({ epoch: delivery.partition.epoch, value })
    }
  })()
  reading.catch(() => undefined)
  return {
    source,
    told,
    got,
    numbers: () => got.map(({ value }) => (JSON.parse(value) as { seq: number }).seq),
    stop: async () => {
      halt.abort(new Error('stop'))
      await reading.catch(() => undefined)
    },
  }
}

/** Sends one sequence to whoever is connected, each connection as much later as `lag` says. */
async function broadcaster(
  options: PeerOptions & { lag?(index: number): number } = {},
): Promise<Peer & { sent(): number; closes: number[] }> {
  let n = 0
  const live = new Map<WebSocket, number>()
  const closes: number[] = []
  const { lag, ...rest } = options
  const peer = await startPeer({
    ...rest,
    connected: (socket, index, request) => {
      live.set(socket, lag?.(index) ?? 0)
      socket.on('close', (code) => {
        live.delete(socket)
        closes.push(code)
      })
      options.connected?.(socket, index, request)
    },
  })
  const timer = setInterval(() => {
    for (let i = 0; i < 5; i++) {
      const text = JSON.stringify({ seq: ++n })
      for (const [socket, ms] of live) {
        if (ms === 0) socket.send(text)
        else
          setTimeout(() => {
            socket.send(text)
          }, ms)
      }
    }
  }, 5)
  return kept({
    ...peer,
    closes,
    sent: () => n,
    close: async () => {
      clearInterval(timer)
      await peer.close()
    },
  })
}

/** Within a connection numbers count up by one, and over all of them none is missing. */
function checkComplete(got: readonly Read[]): { doubles: number } {
  const byEpoch = new Map<number, number[]>()
  let epoch = 0
  for (const read of got) {
    expect(read.epoch).toBeGreaterThanOrEqual(epoch)
    epoch = read.epoch
    byEpoch.set(epoch, [...(byEpoch.get(epoch) ?? []), (JSON.parse(read.value) as { seq: number }).seq])
  }
  const all = new Set<number>()
  let doubles = 0
  for (const numbers of byEpoch.values()) {
    numbers.forEach((number, i) => {
      if (i > 0 && number !== (numbers[i - 1] ?? 0) + 1) throw new Error(`${number} follows ${numbers[i - 1]}`)
      if (all.has(number)) doubles++
      all.add(number)
    })
  }
  const sorted = [...all].sort((a, b) => a - b)
  expect(sorted).toHaveLength((sorted.at(-1) ?? 0) - (sorted[0] ?? 0) + 1)
  return { doubles }
}

test('connections are replaced before they are closed: none missing, all of the old before the new, doubles only without dedupe', async () => {
  const peer = await broadcaster()
  const feed = await follow(peer.url, { reconnectEvery: 400, overlap: '150ms', expect: '{json:seq}' })
  await until(() => peer.closes.length >= 4, 'four replacements')
  await feed.stop()
  const { doubles } = checkComplete(feed.got)
  expect(doubles).toBeGreaterThan(0)
  expect(peer.closes.every((code) => code === 1000)).toBe(true)
  expect(feed.told.gaps).toEqual([])
  expect(feed.told.logs.filter(({ message }) => /possible duplicates/.test(message)).length).toBeGreaterThanOrEqual(4)
})

test.each([
  ['servers in step', () => 0],
  ['a new server that lags', (index: number) => index * 40],
  ['an old server that lags', (index: number) => Math.max(0, 120 - index * 60)],
])(
  'with dedupe each record is there once and in order: %s',
  async (_name, lag) => {
    const peer = await broadcaster({ lag })
    const feed = await follow(peer.url, {
      reconnectEvery: 600,
      overlap: '250ms',
      dedupe: '{json:seq}',
      expect: '{json:seq}',
    })
    await until(() => peer.closes.length >= 3, 'three replacements')
    await feed.stop()
    const numbers = feed.numbers()
    expect(numbers).toEqual(range(numbers[0] ?? 0, numbers.at(-1) ?? 0).map(Number))
    expect(feed.told.gaps).toEqual([])
    expect(feed.told.gauges.get('duplicates-dropped')).toBeGreaterThan(0)
  },
  20_000,
)

test('numbers beyond 2^53 are told apart, and records without the member always pass', async () => {
  const peer = await startPeer({
    connected: (socket, index) => {
      const send = (): void => {
        for (const text of ['{"seq":9007199254740993}', '{"seq":9007199254740992}', 'heartbeat', '{"other":1}'])
          socket.send(text)
      }
      if (index === 0) setTimeout(send, 350)
      else {
        send()
        socket.send('{"seq":9007199254740994}')
      }
    },
  })
  kept(peer)
  const feed = await follow(peer.url, { reconnectEvery: 300, overlap: '250ms', dedupe: '{json:seq}' })
  await until(() => feed.got.some(({ value }) => value.endsWith('994}')), 'the new connection')
  await feed.stop()
  const first = ['{"seq":9007199254740993}', '{"seq":9007199254740992}', 'heartbeat', '{"other":1}']
  expect(feed.got.filter(({ epoch }) => epoch === 1).map(({ value }) => value)).toEqual(first)
  expect(feed.got.filter(({ epoch }) => epoch === 2).map(({ value }) => value)).toEqual([
    'heartbeat',
    '{"other":1}',
    '{"seq":9007199254740994}',
  ])
})

test('a refused replacement leaves the old connection in service and is tried again', async () => {
  const peer = await broadcaster({
    refuse: (index) => (index === 1 ? { status: 503 } : index === 2 ? { status: 403 } : undefined),
  })
  const feed = await follow(peer.url, { reconnectEvery: 300, overlap: '100ms', dedupe: '{json:seq}' })
  await until(() => peer.closes.length >= 1, 'a replacement', 15_000)
  await sleep(200)
  await feed.stop()
  expect(peer.requests.length).toBeGreaterThanOrEqual(4)
  const numbers = feed.numbers()
  expect(numbers).toEqual(range(numbers[0] ?? 0, numbers.at(-1) ?? 0).map(Number))
  expect(feed.told.gaps).toEqual([])
  const warnings = feed.told.logs.filter(({ level }) => level === 'warn').map(({ message }) => message)
  expect(warnings[0]).toMatch(/could not be replaced: the server answered 503 .*the old one stays in service/)
  expect(warnings[1]).toMatch(/403/)
}, 20_000)

test('a new connection that breaks within the overlap is let go, and the old one serves on', async () => {
  const peer = await broadcaster({
    connected: (socket, index) => {
      if (index === 1)
        setTimeout(() => {
          socket.terminate()
        }, 50)
    },
  })
  const feed = await follow(peer.url, { reconnectEvery: 300, overlap: '200ms', dedupe: '{json:seq}' })
  await until(() => peer.closes.includes(1000), 'a replacement', 15_000)
  await sleep(100)
  await feed.stop()
  const numbers = feed.numbers()
  expect(numbers).toEqual(range(numbers[0] ?? 0, numbers.at(-1) ?? 0).map(Number))
  expect(feed.told.gaps).toEqual([])
  expect(new Set(feed.got.map(({ epoch }) => epoch))).toEqual(new Set([1, 3]))
}, 20_000)

test('an old connection that breaks within the overlap is no gap: the new one is there', async () => {
  const peer = await broadcaster({
    connected: (_socket, index) => {
      if (index === 1)
        setTimeout(() => {
          peer.sockets[0]?.terminate()
        }, 60)
    },
  })
  const feed = await follow(peer.url, { reconnectEvery: 300, overlap: '250ms', dedupe: '{json:seq}' })
  await until(() => feed.got.some(({ epoch }) => epoch === 2), 'the new connection')
  await feed.stop()
  const numbers = feed.numbers()
  expect(numbers).toEqual(range(numbers[0] ?? 0, numbers.at(-1) ?? 0).map(Number))
  expect(feed.told.gaps).toEqual([])
})

test('an old connection that turns out to be dead is a gap from when it was last heard of', async () => {
  const peer = await startRaw((socket, index) => {
    void accept(socket).then(() => {
      socket.write(frame(1, Buffer.from(`hello ${index}`)))
      socket.resume()
    })
  })
  kept(peer)
  const started = Date.now()
  const feed = await follow(peer.url, { reconnectEvery: 400, overlap: '100ms', pingEvery: 0 })
  await until(() => feed.told.gaps.length > 0, 'the gap', 12_000)
  await feed.stop()
  expect(feed.told.gaps).toMatchObject([{ partition: 'feed', why: 'the closing handshake was not completed' }])
  expect(Date.parse(feed.told.gaps[0]?.from ?? '') - started).toBeLessThan(350)
  expect(Date.parse(feed.told.gaps[0]?.to ?? '') - started).toBeGreaterThan(350)
}, 20_000)

test('an overlap ends early when the new connection brings more than may wait', async () => {
  const large = Buffer.alloc(1024 * 1024, 'x')
  const peer = await startPeer({
    connected: (socket, index) => {
      if (index > 0) for (let i = 0; i < 40; i++) socket.send(large)
    },
  })
  kept(peer)
  const feed = await follow(peer.url, { reconnectEvery: 200, overlap: '60s' })
  await until(() => feed.got.length >= 40, 'the new connection', 10_000)
  await feed.stop()
  expect(feed.got.slice(0, 40).every(({ epoch, value }) => epoch === 2 && value.length === large.length)).toBe(true)
}, 20_000)

test('closing in the middle of a replacement lets both connections go', async () => {
  const peer = await broadcaster()
  const feed = await follow(peer.url, { reconnectEvery: 200, overlap: '30s' })
  await until(() => peer.sockets.length === 2, 'the overlap')
  await feed.stop()
  await feed.source.close()
  await until(() => peer.closes.length === 2, 'both closed')
})

test('a server that goes away while the replacement is being made is a disconnect with a gap', async () => {
  const peer = await broadcaster({ refuse: (index) => (index === 1 ? { status: 503 } : undefined) })
  const source = kept(await makeSource(peer.url, { reconnectEvery: 200, overlap: '50ms' }))
  const { ctx, told } = makeSourceContext()
  await source.open(ctx)
  setTimeout(() => {
    peer.sockets[0]?.terminate()
  }, 400)
  await takeUntilThrow(source)
  await source.close()
  await source.open(ctx)
  expect(told.gaps).toHaveLength(1)
})

test('expect reports holes with their numbers, within a connection and across', async () => {
  const sends = [['1', '2', '5', '5', '6'], ['10', '11'], ['3', '4'], ['7']]
  const peer = await startPeer({
    connected: (socket, index) => {
      for (const seq of sends[index] ?? []) socket.send(`{"data":{"seq":${seq}}}`)
      socket.send('no number')
      socket.close(1000)
    },
  })
  kept(peer)
  const source = kept(await makeSource(peer.url, { expect: '{json:data.seq}' }))
  const { ctx, told } = makeSourceContext()
  for (let i = 0; i < sends.length; i++) {
    await source.open(ctx)
    await takeUntilThrow(source)
    await source.close()
  }
  expect(
    told.gaps.filter(({ records }) => records !== undefined).map(({ from, to, records }) => [from, to, records]),
  ).toEqual([
    ['3', '4', 2],
    ['7', '9', 3],
    ['5', '6', 2],
  ])
  expect(told.gauges.get('unnumbered')).toBe(4)
})
