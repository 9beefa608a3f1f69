import { setTimeout as sleep } from 'node:timers/promises'
import type { WebSocket } from 'ws'
import { EntryBatch, LineBatch } from '../../src/core/batch'
import type { Batch, Sink, Write } from '../../src/core/contract'
import { Disconnected, Refused } from '../../src/core/errors'
import { makeEndpointContext } from '../support/context'
import { accept, makeSink, makeSource, range, startPeer, startRaw, take, until, type Peer } from './ws/peer'
import { makeSourceContext } from '../support/context'

const open: { close(): Promise<void> }[] = []
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})
function kept<T extends { close(): Promise<void> }>(thing: T): T {
  open.push(thing)
  return thing
}
async function opened(url: string, given: Record<string, unknown> = {}): Promise<Sink> {
  const sink = kept(await makeSink(url, given))
  await sink.open(makeEndpointContext().ctx)
  return sink
}
interface Heard {
  readonly text: string[]
  readonly binary: boolean[]
}
async function listener(options: Parameters<typeof startPeer>[0] = {}): Promise<Peer & { heard: Heard[] }> {
  const heard: Heard[] = []
  const peer = kept(
    await startPeer({
      ...options,
      connected: (socket, index, request) => {
        const one: Heard = { text: [], binary: [] }
        heard.push(one)
        socket.on('message', (data, binary) => {
          one.text.push((data as Buffer).toString('latin1'))
          one.binary.push(binary)
        })
        options.connected?.(socket, index, request)
      },
    }),
  )
  return { ...peer, heard }
}
let serial = 0
function writeOf(payload: Batch, attempt = 1): Write {
  return {
    id: `w${++serial}`,
    attempt,
    payload,
    origin: (index) => ({ source: 'test', partition: 'p', position: String(index), receivedAt: 0 }),
  }
}
function lines(...values: string[]): Batch {
  return new LineBatch([Buffer.from(values.map((value) => `${value}\n`).join(''), 'latin1')], values.length)
}
const signal = AbortSignal.timeout(60_000)
async function failure(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise
  } catch (error) {
    return error as Error
  }
  throw new Error('it did not fail')
}

test('each record is one message without terminator, in order; text unless it is not UTF-8', async () => {
  const peer = await listener()
  const sink = await opened(peer.url)
  expect(sink.limits).toMatchObject({ confirms: 'none', ordered: true })
  await sink.write(writeOf(lines('one', '', 'two\r', 'nul\0', '\xff\xfe')), signal)
  await sink.write(writeOf(new EntryBatch([{ value: Buffer.from('a\nb'), key: Buffer.from('dropped') }], 10)), signal)
  await until(() => peer.heard[0]?.text.length === 6, 'six messages')
  expect(peer.heard[0]).toEqual({
    text: ['one', '', 'two\r', 'nul\0', '\xff\xfe', 'a\nb'],
    binary: [false, false, false, false, true, false],
  })
})

test('type=binary sends all as binary', async () => {
  const peer = await listener()
  const sink = await opened(peer.url, { type: 'binary' })
  await sink.write(writeOf(lines('one')), signal)
  await until(() => peer.heard[0]?.text.length === 1, 'a message')
  expect(peer.heard[0]?.binary).toEqual([true])
})

test('framing=envelope carries key, headers and tombstones; without it a null value is rejected', async () => {
  const peer = await listener()
  const batch = new EntryBatch([{ value: Buffer.from('v'), key: Buffer.from('k') }, { value: null }], 10)
  const plain = await opened(peer.url)
  const outcome = await plain.write(writeOf(batch), signal)
  expect(outcome.rejected.map(({ index }) => index)).toEqual([1])
  expect(outcome.rejected[0]?.why).toMatch(/null value/)
  const enveloped = await opened(peer.url, { framing: 'envelope' })
  expect(enveloped.wants).toBe('entries')
  expect(await enveloped.write(writeOf(batch), signal)).toEqual({ retry: [], rejected: [] })
  await until(() => peer.heard[1]?.text.length === 2, 'two envelopes')
  expect(JSON.parse(peer.heard[1]?.text[0] ?? '')).toMatchObject({
    value: 'v',
    key: 'k',
    source: 'test',
    position: '0',
  })
  expect(JSON.parse(peer.heard[1]?.text[1] ?? '')).toMatchObject({ value: null })
})

test('with barrier a write is confirmed by the pong to a ping after it, not before', async () => {
  const sockets: WebSocket[] = []
  const pings: Buffer[] = []
  const peer = await listener({
    autoPong: false,
    connected: (socket) => {
      sockets.push(socket)
      socket.on('ping', (data) => {
        pings.push(data)
      })
    },
  })
  const sink = await opened(peer.url, { barrier: true })
  expect(sink.limits).toMatchObject({ confirms: 'each', inFlight: 4 })
  let confirmed = 0
  const writes = [
    sink.write(writeOf(lines('a')), signal),
    sink.write(writeOf(lines('b')), signal),
    sink.write(writeOf(lines('c')), signal),
  ]
  for (const write of writes)
    void write.then(() => {
      confirmed++
    })
  await until(() => pings.length === 3, 'three pings')
  expect(peer.heard[0]?.text).toEqual(['a', 'b', 'c'])
  sockets[0]?.pong('unasked')
  await sleep(100)
  expect(confirmed).toBe(0)
  // A server may answer the latest ping alone.
  sockets[0]?.pong(pings[1] ?? '')
  await Promise.all(writes.slice(0, 2))
  await sleep(50)
  expect(confirmed).toBe(2)
  sockets[0]?.pong(pings[2] ?? '')
  await Promise.all(writes)
})

test('a server that closes in the middle leaves the outcome unknown, and the next opening serves', async () => {
  const peer = await listener({
    autoPong: false,
    connected: (socket, index) => {
      if (index === 0)
        socket.on('ping', () => {
          socket.close(1012, 'restart')
        })
      else
        socket.on('ping', (data) => {
          socket.pong(data)
        })
    },
  })
  const sink = await opened(peer.url, { barrier: true })
  const write = writeOf(lines(...range(1, 100)))
  const error = await failure(sink.write(write, signal))
  expect(error).toBeInstanceOf(Disconnected)
  expect(error.message).toBe('closed by the server with 1012 (service restart): restart')
  expect(await failure(sink.write(write, signal))).toBeInstanceOf(Disconnected)
  await sink.close()
  await sink.open(makeEndpointContext().ctx)
  expect(await sink.write({ ...write, attempt: 2 }, signal)).toEqual({ retry: [], rejected: [] })
  expect(peer.heard[1]?.text).toEqual(range(1, 100))
})

test('a connection that was closed between writes is told at the next', async () => {
  const peer = await listener()
  const sink = await opened(peer.url)
  await sink.write(writeOf(lines('a')), signal)
  peer.sockets[0]?.terminate()
  // Until the end has come through, the kernel takes what is written.
  let error: unknown
  while (error === undefined)
    error = await sink.write(writeOf(lines('b')), signal).then(
      () => undefined,
      (reason: unknown) => reason,
    )
  expect(error).toBeInstanceOf(Disconnected)
})

test('a message too big for the server is rejected after it has closed with 1009, the others get through', async () => {
  const peer = await listener({ maxPayload: 1000 })
  const sink = await opened(peer.url, { barrier: true })
  const write = writeOf(lines('small', 'x'.repeat(5000), 'also small', 'y'.repeat(2000)))
  // Once for each message that is too big: the largest is known to be one.
  for (const attempt of [1, 2]) {
    const error = await failure(sink.write({ ...write, attempt }, signal))
    expect(error).toBeInstanceOf(Disconnected)
    expect(error.message).toMatch(/1009/)
    await sink.close()
    await sink.open(makeEndpointContext().ctx)
  }
  const outcome = await sink.write({ ...write, attempt: 3 }, signal)
  expect(outcome.rejected.map(({ index }) => index)).toEqual([1, 3])
  expect(peer.heard.at(-1)?.text).toEqual(['small', 'also small'])
})

test('a slow server is backpressure: a write waits for the kernel, and no deadline fires while it does', async () => {
  const peer = await startRaw((socket) => {
    void accept(socket).then(() => {
      socket.pause()
    })
  })
  kept(peer)
  const sink = await opened(peer.url, { pingEvery: '10s' })
  const block = lines(...Array.from({ length: 1000 }, () => 'z'.repeat(1000)))
  let written = 0
  const writing = (async () => {
    for (;;) {
      await sink.write(writeOf(block), signal)
      written++
    }
  })().catch((error: unknown) => error)
  let before = -1
  for (let i = 0; i < 50 && before !== written; i++) {
    before = written
    await sleep(200)
  }
  expect(written).toBe(before)
  expect(written).toBeLessThan(40)
  peer.sockets[0]?.resume()
  await until(() => written > before + 5, 'it to go on')
  peer.sockets[0]?.destroy()
  expect(await writing).toBeInstanceOf(Disconnected)
})

test('closing waits until the server has read all', async () => {
  const total = 20_000
  const peer = await listener()
  const sink = await opened(peer.url)
  for (let from = 1; from <= total; from += 1000) await sink.write(writeOf(lines(...range(from, from + 999))), signal)
  const codes: number[] = []
  peer.sockets[0]?.on('close', (code) => codes.push(code))
  await sink.close()
  expect(peer.heard[0]?.text).toEqual(range(1, total))
  expect(codes).toEqual([1000])
})

test('a half-open server is noticed while nothing is written', async () => {
  let left: () => void = () => undefined
  const gone = new Promise<void>((resolve) => {
    left = resolve
  })
  const peer = kept(
    await startRaw((socket) => {
      socket.on('close', left)
      void accept(socket).then(() => {
        socket.resume()
      })
    }),
  )
  const sink = await opened(peer.url, { pingEvery: '50ms', pongTimeout: '100ms' })
  await gone
  expect((await failure(sink.write(writeOf(lines('a')), signal))).message).toMatch(/pong-timeout/)
})

test('a refused upgrade is classified as for the source', async () => {
  const peer = kept(await startPeer({ refuse: () => ({ status: 401 }) }))
  expect(await failure(opened(peer.url))).toBeInstanceOf(Refused)
})

test('an aborted write rejects at once', async () => {
  const peer = await listener({ autoPong: false })
  const sink = await opened(peer.url, { barrier: true })
  const controller = new AbortController()
  const writing = failure(sink.write(writeOf(lines('a')), controller.signal))
  const reason = new Error('stop')
  controller.abort(reason)
  expect(await writing).toBe(reason)
})

test('what the sink sends, the source receives: bytes and order', async () => {
  const values = Array.from({ length: 5000 }, (_, i) => `${i}-${'\xfe'.repeat(i % 3)}${'w'.repeat(i % 300)}`)
  const relay = kept(
    await startPeer({
      connected: (socket, index) => {
        if (index === 1)
          socket.on('message', (data, binary) => {
            relay.sockets[0]?.send(data as Buffer, { binary })
          })
      },
    }),
  )
  const source = kept(await makeSource(relay.url))
  await source.open(makeSourceContext().ctx)
  await until(() => relay.sockets.length === 1, 'the source')
  const sink = await opened(relay.url)
  await sink.write(writeOf(lines(...values)), signal)
  expect(await take(source, values.length)).toEqual(values)
})
