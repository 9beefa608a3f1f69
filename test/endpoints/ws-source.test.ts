import { setTimeout as sleep } from 'node:timers/promises'
import type { Source } from '../../src/core/contract'
import { Disconnected, Fatal, Refused, Throttled } from '../../src/core/errors'
import { makeSourceContext } from '../support/context'
import {
  accept,
  frame,
  handled,
  makeSource,
  range,
  startPeer,
  startRaw,
  take,
  takeUntilThrow,
  until,
  valuesOf,
  type Peer,
  type RawPeer,
} from './ws/peer'

const open: { close(): Promise<void> }[] = []
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})
function kept<T extends { close(): Promise<void> }>(thing: T): T {
  open.push(thing)
  return thing
}
async function sourceOf(url: string, given: Record<string, unknown> = {}): Promise<Source> {
  return kept(await makeSource(url, given))
}
async function peerOf(...args: Parameters<typeof startPeer>): Promise<Peer> {
  return kept(await startPeer(...args))
}
async function rawOf(...args: Parameters<typeof startRaw>): Promise<RawPeer> {
  return kept(await startRaw(...args))
}
async function failure(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise
  } catch (error) {
    return error as Error
  }
  throw new Error('it did not fail')
}

describe('messages', () => {
  test('text and binary become records byte for byte: NUL, invalid UTF-8, CR, empty', async () => {
    const messages = [
      Buffer.from('plain'),
      Buffer.from([0, 1, 2, 0]),
      Buffer.from([0xff, 0xfe, 0x41]),
      Buffer.from('a\r'),
      Buffer.alloc(0),
      Buffer.from('ü€'),
    ]
    const peer = await peerOf({
      connected: (socket) => {
        messages.forEach((message, i) => {
          socket.send(message, { binary: i % 2 === 0 })
        })
      },
    })
    const source = await sourceOf(peer.url)
    await source.open(makeSourceContext().ctx)
    const got = await take(source, messages.length)
    expect(got).toEqual(messages.map((message) => message.toString('latin1')))
  })

  test('a newline at the end is the terminator; one inside makes entries of the delivery and splits nothing', async () => {
    const peer = await peerOf({
      connected: (socket) => {
        for (const text of ['a\n', 'b', 'c\nd', '\n', 'e\n\n', 'f']) socket.send(text)
      },
    })
    const source = await sourceOf(peer.url)
    await source.open(makeSourceContext().ctx)
    const got = await take(source, 6)
    expect(got).toEqual(['a', 'b', 'c\nd', '', 'e\n\n', 'f'])
  })

  test('without a newline inside a delivery is lines, terminated, and says where each record stands', async () => {
    const peer = await peerOf({
      connected: (socket) => {
        for (const text of ['a\n', 'b', 'c']) socket.send(text)
      },
    })
    const source = await sourceOf(peer.url)
    await source.open(makeSourceContext().ctx)
    await until(() => peer.sockets.length === 1, 'the connection')
    await handled(peer.sockets[0])
    const delivery = await source.read(AbortSignal.timeout(5000))
    if (delivery === null) throw new Error('ended')
    expect(delivery.batch.form).toBe('lines')
    expect(Buffer.concat([...delivery.batch.lines().chunks]).toString()).toBe('a\nb\nc\n')
    expect([delivery.at(0), delivery.at(2), delivery.last]).toEqual(['1', '3', '3'])
    expect(delivery.partition).toEqual({ name: 'feed', epoch: 1 })
    expect(Math.abs((delivery.receivedAt ?? 0) - Date.now())).toBeLessThan(5000)
  })

  test('fragments of one message, with a ping between them, are one record', async () => {
    const peer = await rawOf((socket) => {
      void accept(socket).then(() => {
        socket.write(
          Buffer.concat([
            frame(1, Buffer.from('one '), false),
            frame(9, Buffer.from('p')),
            frame(0, Buffer.from('rec'), false),
            frame(0, Buffer.from('ord')),
            frame(2, Buffer.from('next')),
          ]),
        )
      })
    })
    const source = await sourceOf(peer.url)
    await source.open(makeSourceContext().ctx)
    expect(await take(source, 2)).toEqual(['one record', 'next'])
  })

  test('a message over max-record is a dead letter with its head, and the connection goes on', async () => {
    const large = Buffer.alloc(150_000, 'x')
    const peer = await peerOf({
      connected: (socket) => {
        for (const message of [Buffer.from('before'), large, Buffer.from('after')]) socket.send(message)
      },
    })
    const source = await sourceOf(peer.url, { maxRecord: 100_000 })
    await source.open(makeSourceContext().ctx)
    const seen: { values: string[]; unfit: number[]; last: string }[] = []
    while (seen.flatMap((one) => one.values).length < 2) {
      const delivery = await source.read(AbortSignal.timeout(5000))
      if (delivery === null) break
      seen.push({
        values: valuesOf(delivery),
        unfit: (delivery.invalid ?? []).map((unfit) => unfit.length),
        last: delivery.last,
      })
      for (const unfit of delivery.invalid ?? []) {
        expect(unfit.head.length).toBe(64 * 1024)
        expect(unfit.position).toBe('2')
        expect(unfit.why).toMatch(/larger than max-record/)
      }
    }
    expect(seen.flatMap((one) => one.values)).toEqual(['before', 'after'])
    expect(seen.flatMap((one) => one.unfit)).toEqual([150_000])
    expect(peer.sockets).toHaveLength(1)
  })

  test('a message beyond twice max-record ends the connection with 1009, and three in a row as the first message are a refusal', async () => {
    const codes: number[] = []
    const peer = await peerOf({
      connected: (socket) => {
        socket.on('close', (code) => codes.push(code))
        socket.send(Buffer.alloc(10_000))
      },
    })
    const source = await sourceOf(peer.url, { maxRecord: 1000 })
    const { ctx, told } = makeSourceContext()
    const errors: Error[] = []
    for (let i = 0; i < 3; i++) {
      await source.open(ctx)
      errors.push(await takeUntilThrow(source))
      await source.close()
    }
    expect(errors.map((error) => error.name)).toEqual(['Disconnected', 'Disconnected', 'Refused'])
    expect(errors[2]?.message).toMatch(/max-record/)
    await until(() => codes.length === 3, 'the close frames')
    expect(codes).toEqual([1009, 1009, 1009])
    expect(told.gaps).toHaveLength(2)
  })

  test('permessage-deflate is offered only when asked for', async () => {
    const peer = await peerOf({
      perMessageDeflate: { threshold: 0 },
      connected: (socket) => {
        socket.send(`${socket.extensions}|${'z'.repeat(5000)}`)
      },
    })
    for (const compression of [false, true]) {
      const source = await sourceOf(peer.url, { compression })
      await source.open(makeSourceContext().ctx)
      expect(await take(source, 1)).toEqual([`${compression ? 'permessage-deflate' : ''}|${'z'.repeat(5000)}`])
    }
  })

  test('framing=envelope unpacks each message, and what is no envelope is a dead letter in its place', async () => {
    const peer = await peerOf({
      connected: (socket) => {
        for (const text of ['{"value":"a","key":"k"}', 'nonsense', '{"value_base64":"AAE="}']) socket.send(text)
      },
    })
    const source = await sourceOf(peer.url, { framing: 'envelope' })
    await source.open(makeSourceContext().ctx)
    const got: string[] = []
    while (got.length < 3) {
      const delivery = await source.read(AbortSignal.timeout(5000))
      if (delivery === null) break
      got.push(
        ...delivery.batch.entries().map(({ key, value }) => `${key?.toString() ?? ''}=${value?.toString('hex') ?? ''}`),
        ...(delivery.invalid ?? []).map((unfit) => unfit.why),
      )
    }
    expect(got).toEqual(['k=61', 'not an envelope: it is not JSON', '=0001'])
  })
})

describe('the opening request', () => {
  test('headers, login, sub-protocol and query go out as given', async () => {
    const peer = await peerOf({ handleProtocols: (offered) => [...offered].at(-1) ?? false })
    const source = await sourceOf(`${peer.url.replace('ws://', 'ws://user:p%40ss@')}/a/../b?x='q'&y=%7B&z={1}`, {
      header: [
        ['X-Key', 'v1'],
        ['X-Multi', 'a'],
        ['x-multi', 'b'],
      ],
      protocol: ['one', 'two'],
    })
    await source.open(makeSourceContext().ctx)
    const request = peer.requests[0]
    expect(request?.url).toBe(`/a/../b?x='q'&y=%7B&z={1}`)
    expect(request?.headers['x-key']).toBe('v1')
    expect(request?.headers['x-multi']).toBe('a, b')
    expect(request?.headers.authorization).toBe(`Basic ${Buffer.from('user:p@ss').toString('base64')}`)
    expect(request?.headers['sec-websocket-protocol']).toBe('one,two')
    expect(request?.headers['sec-websocket-extensions']).toBeUndefined()
  })

  test('send goes out at every opening, send-every again and again', async () => {
    const heard: string[][] = [[], []]
    const peer = await peerOf({
      connected: (socket, index) => {
        socket.on('message', (data) => {
          heard[index]?.push((data as Buffer).toString())
        })
      },
    })
    const source = await sourceOf(peer.url, {
      send: ['{"op":"login"}', '{"op":"subscribe"}'],
      sendEvery: ['20ms:beat'],
    })
    const { ctx } = makeSourceContext()
    await source.open(ctx)
    await until(() => (heard[0] ?? []).filter((text) => text === 'beat').length >= 3, 'beats')
    expect(heard[0]?.slice(0, 2)).toEqual(['{"op":"login"}', '{"op":"subscribe"}'])
    await source.close()
    await source.open(ctx)
    await until(() => (heard[1] ?? []).length >= 2, 'the second subscription')
    expect(heard[1]?.slice(0, 2)).toEqual(['{"op":"login"}', '{"op":"subscribe"}'])
  })
})

describe('the end of a connection', () => {
  test('all that arrived is read before the end is told, and reopening reports the gap', async () => {
    const peer = await peerOf({
      connected: (socket, index) => {
        for (const text of range(index * 100 + 1, index * 100 + 50)) socket.send(text)
        if (index === 0) socket.close(1001, 'maintenance')
      },
    })
    const source = await sourceOf(peer.url)
    const { ctx, told } = makeSourceContext()
    await source.open(ctx)
    const got: string[] = []
    const error = await takeUntilThrow(source, got)
    expect(got).toEqual(range(1, 50))
    expect(error).toBeInstanceOf(Disconnected)
    expect(error.message).toBe('closed by the server with 1001 (going away): maintenance')
    await source.close()
    const before = Date.now()
    await sleep(120)
    await source.open(ctx)
    expect(await take(source, 50)).toEqual(range(101, 150))
    expect(told.gaps).toHaveLength(1)
    const gap = told.gaps[0]
    expect(gap).toMatchObject({ partition: 'feed', why: error.message })
    expect(Date.parse(gap?.from ?? '')).toBeLessThanOrEqual(before)
    expect(Date.parse(gap?.to ?? '')).toBeGreaterThanOrEqual(before + 100)
    expect(gap?.seconds).toBeGreaterThanOrEqual(0.1)
  })

  test('a killed connection is a disconnect, with the records before it', async () => {
    const peer = await peerOf({
      connected: (socket) => {
        socket.send('last')
        void handled(socket).then(() => {
          socket.terminate()
        })
      },
    })
    const source = await sourceOf(peer.url)
    await source.open(makeSourceContext().ctx)
    const got: string[] = []
    const error = await takeUntilThrow(source, got)
    expect(got).toEqual(['last'])
    expect(error).toBeInstanceOf(Disconnected)
    expect(error.message).toMatch(/without a closing handshake|ECONNRESET/)
  })

  test('after a restart the gap begins at the newest durable record', async () => {
    const peer = await peerOf()
    const source = await sourceOf(peer.url)
    const lastReceivedAt = Date.now() - 60_000
    const { ctx, told } = makeSourceContext({ lastReceivedAt })
    await source.open(ctx)
    expect(told.gaps).toMatchObject([{ from: new Date(lastReceivedAt).toISOString(), why: 'restart' }])
    expect(told.gaps[0]?.seconds).toBeGreaterThanOrEqual(59)
  })

  test('a first start has no gap', async () => {
    const peer = await peerOf()
    const source = await sourceOf(peer.url)
    const { ctx, told } = makeSourceContext()
    await source.open(ctx)
    expect(told.gaps).toEqual([])
  })

  test('a peer that answers no ping is left after pong-timeout', async () => {
    const peer = await rawOf((socket) => {
      void accept(socket).then(() => {
        socket.write(frame(1, Buffer.from('hello')))
      })
    })
    const source = await sourceOf(peer.url, { pingEvery: '50ms', pongTimeout: '150ms' })
    const { ctx, told } = makeSourceContext()
    await source.open(ctx)
    const got: string[] = []
    const error = await takeUntilThrow(source, got)
    expect(got).toEqual(['hello'])
    expect(error.message).toBe('no pong within 150ms (pong-timeout=)')
    await source.close()
    await source.open(ctx)
    expect(told.gaps).toMatchObject([{ why: 'no pong within 150ms (pong-timeout=)' }])
  })

  test('a peer that answers pings stays, unless it is silent for longer than silence allows', async () => {
    const peer = await peerOf()
    const source = await sourceOf(peer.url, { pingEvery: '20ms', pongTimeout: '2s', silence: '400ms' })
    await source.open(makeSourceContext().ctx)
    const before = Date.now()
    const error = await takeUntilThrow(source)
    expect(error.message).toBe('no message for 400ms (silence=)')
    expect(Date.now() - before).toBeGreaterThanOrEqual(390)
  })

  test('a server that closes but never ends TCP is left after a few seconds', async () => {
    const peer = await rawOf((socket) => {
      void accept(socket).then(() => {
        socket.write(frame(8, Buffer.from([0x03, 0xe8])))
      })
    })
    const source = await sourceOf(peer.url, { pingEvery: '100ms' })
    await source.open(makeSourceContext().ctx)
    const error = await takeUntilThrow(source)
    expect(error).toBeInstanceOf(Disconnected)
  }, 15_000)

  test('a violation of the protocol ends the connection, with the records before it', async () => {
    const peer = await rawOf((socket) => {
      void accept(socket).then(() => {
        socket.write(Buffer.concat([frame(1, Buffer.from('good')), Buffer.from([0xf1, 0x00])]))
      })
    })
    const source = await sourceOf(peer.url)
    await source.open(makeSourceContext().ctx)
    const got: string[] = []
    const error = await takeUntilThrow(source, got)
    expect(got).toEqual(['good'])
    expect(error).toBeInstanceOf(Disconnected)
    expect(error.message).toMatch(/Invalid WebSocket frame/)
  })

  test('an aborted read rejects at once with the reason, and the next read has what arrived meanwhile', async () => {
    const peer = await peerOf()
    const source = await sourceOf(peer.url)
    await source.open(makeSourceContext().ctx)
    const controller = new AbortController()
    const reading = source.read(controller.signal)
    const reason = new Error('enough')
    controller.abort(reason)
    await expect(reading).rejects.toBe(reason)
    await until(() => peer.sockets.length === 1, 'the connection')
    peer.sockets[0]?.send('later')
    expect(await take(source, 1)).toEqual(['later'])
  })

  test('what was unread when the core closed the source comes first after reopening, and the gap follows it', async () => {
    const peer = await peerOf({
      connected: (socket, index) => {
        for (const text of range(index * 10 + 1, index * 10 + 3)) socket.send(text)
      },
    })
    const source = await sourceOf(peer.url)
    const { ctx, told } = makeSourceContext()
    await source.open(ctx)
    await take(source, 1)
    await until(() => peer.sockets.length === 1, 'the connection')
    peer.sockets[0]?.send('unread')
    await handled(peer.sockets[0])
    await source.close()
    await source.open(ctx)
    const first = await source.read(AbortSignal.timeout(5000))
    expect(first?.partition.epoch).toBe(1)
    expect(first === null ? [] : valuesOf(first)).toEqual(['unread'])
    expect(told.gaps).toEqual([])
    expect(await take(source, 3)).toEqual(range(11, 13))
    expect(told.gaps).toMatchObject([{ why: 'closed here' }])
  })
})

describe('connections that cannot be made', () => {
  const openAt = async (url: string, given: Record<string, unknown> = {}): Promise<Error> =>
    failure((await sourceOf(url, given)).open(makeSourceContext().ctx))

  test.each([
    [401, {}, Refused, /wants credentials/],
    [403, {}, Refused, /not allowed/],
    [404, {}, Refused, /no feed at this path/],
    [400, {}, Refused, /400 Bad Request/],
    [
      302,
      { location: 'https://elsewhere.example/x?token=abcd' },
      Refused,
      /to https:\/\/elsewhere\.example; give that address/,
    ],
    [500, {}, Disconnected, /500/],
    [502, {}, Disconnected, /502/],
    [503, {}, Disconnected, /503/],
    [429, {}, Throttled, /429/],
  ])('an answer of %i is classified', async (status, headers, type, message) => {
    const peer = await peerOf({ refuse: () => ({ status, headers }) })
    const error = await openAt(peer.url)
    expect(error).toBeInstanceOf(type)
    expect(error.message).toMatch(message)
  })

  test('Retry-After is passed on, in seconds or as a date', async () => {
    const peer = await peerOf({
      refuse: (index) => ({
        status: index === 0 ? 429 : 503,
        headers: { 'Retry-After': index === 0 ? '7' : new Date(Date.now() + 60_000).toUTCString() },
      }),
    })
    const first = await openAt(peer.url)
    const second = await openAt(peer.url)
    for (const error of [first, second]) if (!(error instanceof Throttled)) throw error
    expect(first).toMatchObject({ afterMs: 7000 })
    expect((second as { readonly afterMs?: number }).afterMs).toBeGreaterThan(50_000)
  })

  test('a refused port is a disconnect, a name that does not exist too', async () => {
    const peer = await startPeer()
    await peer.close()
    expect(await openAt(peer.url)).toBeInstanceOf(Disconnected)
    expect(await openAt('ws://nothing.invalid/x')).toBeInstanceOf(Disconnected)
  })

  test('a peer that hangs in the handshake, or drips its answer, is left after handshake-timeout', async () => {
    const silent = await rawOf((socket) => {
      socket.resume()
    })
    const dripping = await rawOf((socket) => {
      socket.resume()
      socket.write('HTTP/1.1 101 Switching Protocols\r\n')
      const timer = setInterval(() => {
        socket.write('X-A: b\r\n')
      }, 20)
      socket.on('close', () => {
        clearInterval(timer)
      })
    })
    for (const peer of [silent, dripping]) {
      const before = Date.now()
      const error = await openAt(peer.url, { handshakeTimeout: '300ms' })
      expect(error).toBeInstanceOf(Disconnected)
      expect(error.message).toBe('no connection within 300ms (handshake-timeout=)')
      expect(Date.now() - before).toBeLessThan(3000)
      await until(() => peer.sockets.every((socket) => socket.destroyed), 'the socket to be let go')
    }
  })

  test('endless headers are bounded', async () => {
    const peer = await rawOf((socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\n')
      for (let i = 0; i < 100; i++) socket.write(`X-${i}: ${'v'.repeat(1000)}\r\n`)
    })
    const error = await openAt(peer.url)
    expect(error).toBeInstanceOf(Refused)
    expect(error.message).toMatch(/more headers than are accepted/)
  })

  test('a server of another kind is named as such', async () => {
    const other = await rawOf((socket) => {
      socket.end('SSH-2.0-OpenSSH_9.2\r\n')
    })
    const error = await openAt(other.url)
    expect(error).toBeInstanceOf(Refused)
    expect(error.message).toMatch(/does not answer in HTTP/)
  })

  test('a sub-protocol that the server does not know is refused with a hint', async () => {
    const peer = await peerOf({ handleProtocols: () => false })
    const error = await openAt(peer.url, { protocol: ['v9'] })
    expect(error).toBeInstanceOf(Refused)
    expect(error.message).toMatch(/protocol=/)
  })

  test('an address that is none is fatal', async () => {
    expect(await openAt('ws://host name/x')).toBeInstanceOf(Fatal)
  })

  test('a run that is cut short while connecting ends at once', async () => {
    const peer = await rawOf(() => undefined)
    const controller = new AbortController()
    const source = await sourceOf(peer.url)
    const opening = source.open(makeSourceContext({ signal: controller.signal }).ctx)
    await until(() => peer.sockets.length === 1, 'the connection')
    const reason = new Error('stop')
    controller.abort(reason)
    await expect(opening).rejects.toBe(reason)
  })

  test('a source that is closed while it opens lets its connection go', async () => {
    const peer = await rawOf((socket) => {
      socket.resume()
    })
    const source = await sourceOf(peer.url)
    const opening = failure(source.open(makeSourceContext().ctx))
    await until(() => peer.sockets.length === 1, 'the connection')
    await source.close()
    expect(await opening).toBeInstanceOf(Error)
    await until(() => peer.sockets[0]?.destroyed === true, 'the socket to be let go')
  })
})

test('planted secrets are in no error, log, gauge or gap, whatever the server repeats', async () => {
  const canaries = ['canary-header-1', 'canary-query-2', 'canary-password-3', 'canary-send-4']
  const peer = await peerOf({
    refuse: (index) => (index === 0 ? { status: 403, headers: { location: 'http://x/?t=canary-query-2' } } : undefined),
    connected: (socket, index) => {
      if (index === 0) socket.close(1008, 'no: canary-header-1 canary-query-2')
      else socket.close(1008, 'no: canary-password-3 canary-send-4 canary-query-2')
    },
  })
  const { ctx, told } = makeSourceContext()
  const source = await sourceOf(`${peer.url.replace('ws://', 'ws://me:canary-password-3@')}/?token=canary-query-2`, {
    header: [['X-Key', 'Bearer canary-header-1']],
    send: ['canary-send-4'],
  })
  const errors = [await failure(source.open(ctx))]
  await source.close()
  for (let i = 0; i < 2; i++) {
    await source.open(ctx)
    errors.push(await takeUntilThrow(source))
    await source.close()
  }
  const text = told.text() + errors.map((error) => `${error.message} ${error.stack ?? ''}`).join('\n')
  for (const canary of canaries) expect(text).not.toContain(canary)
  expect(errors[1]?.message).toBe('closed by the server with 1008 (policy violation): no: *** ***')
})

describe('volume', () => {
  test('20,000 records a second for three seconds: none is missing, order and bytes are kept', async () => {
    const total = 60_000
    const peer = await peerOf({
      connected: (socket) => {
        let n = 0
        const timer = setInterval(() => {
          for (let i = 0; i < 400 && n < total; i++) socket.send(`{"seq":${++n},"pad":"${'p'.repeat(n % 200)}"}`)
          if (n >= total) {
            clearInterval(timer)
            socket.close(1000)
          }
        }, 20)
        socket.on('close', () => {
          clearInterval(timer)
        })
      },
    })
    const source = await sourceOf(peer.url, { expect: '{json:seq}' })
    const { ctx, told } = makeSourceContext()
    await source.open(ctx)
    const got: string[] = []
    await takeUntilThrow(source, got)
    expect(got).toHaveLength(total)
    got.forEach((text, i) => {
      if (text !== `{"seq":${i + 1},"pad":"${'p'.repeat((i + 1) % 200)}"}`)
        throw new Error(`record ${i + 1} is ${text}`)
    })
    expect(told.gaps).toEqual([])
  })

  test('unread records are bounded: the connection is paused, the server held up, nothing lost, and no deadline fires', async () => {
    const message = Buffer.alloc(10_000, 'x')
    let sent = 0
    let stop = false
    const peer = await peerOf({
      connected: (socket) => {
        const more = (): void => {
          if (stop) {
            socket.close(1000)
            return
          }
          message.write(String(++sent).padStart(10, '0'))
          socket.send(Buffer.from(message), () => {
            setImmediate(more)
          })
        }
        more()
      },
    })
    const source = await sourceOf(peer.url, { pingEvery: '50ms', pongTimeout: '100ms', silence: '200ms' })
    await source.open(makeSourceContext().ctx)
    let before = -1
    for (let i = 0; i < 50 && sent !== before; i++) {
      before = sent
      await sleep(300)
    }
    expect(sent).toBe(before)
    // Ours and the kernels' buffers; far from all that it would have sent.
    expect(sent * message.length).toBeGreaterThan(8 * 1024 * 1024)
    expect(sent * message.length).toBeLessThan(40 * 1024 * 1024)
    stop = true
    const got: string[] = []
    await takeUntilThrow(source, got)
    expect(got.length).toBe(sent)
    got.forEach((text, i) => {
      if (Number(text.slice(0, 10)) !== i + 1) throw new Error(`record ${i + 1} is ${text.slice(0, 10)}`)
    })
  })
})
