/**
 * Tests one connection: the parts of its URI, a host that freezes or goes away, and the behaviour of the library that
 * we rely on.
 */
import { once, type EventEmitter } from 'node:events'
import { readFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { connect, type ChannelModel } from 'amqplib'
import { Disconnected } from '../../../src/core/errors'
import { describeWith } from '../../services/describe-with'
import type { SecureRabbitmqServer } from '../../services/rabbitmq'
import { makeEndpointContext, makeSourceContext } from '../../support/context'
import { start } from '../../support/manifold'
import { Broker } from './broker'
import { forever, makeSink, makeSource, openSource, take, until, writeOf } from './support'

const bodies = (n: number, from = 1): string[] => Array.from({ length: n }, (_, i) => `{"n":${from + i}}`)
const values = ({ entries }: Awaited<ReturnType<typeof take>>): string[] => entries.map(({ value }) => String(value))

describeWith('rabbitmq', 'connections', () => {
  let broker: Broker<SecureRabbitmqServer>
  let other: Broker
  beforeAll(async () => {
    ;[broker, other] = await Promise.all([Broker.startSecure(), Broker.start()])
  }, 90_000)
  afterAll(async () => {
    await Promise.all([broker.stop(), other.stop()])
  }, 60_000)

  describe('a URI as the ecosystem writes it', () => {
    const query = (parameters: Readonly<Record<string, string | number>>): string =>
      Object.entries(parameters)
        .map(([key, value]) => `${key}=${encodeURIComponent(value)}`)
        .join('&')
    const FIELDS = [
      'user',
      'vhost',
      'ssl',
      'auth_mechanism',
      'timeout',
      'channel_max',
      'frame_max',
      'client_properties',
    ] as const
    const NAMED =
      'lists:any(fun([{client_properties, L}]) -> lists:any(fun({_, _, V}) -> V =:= <<"manifold">>; (_) -> false end, L) end, rabbit_networking:connection_info_all([client_properties])).'
    /** Returns the broker's view of the program's connection, and ends it. */
    async function connected(
      uri: string,
      ...words: readonly string[]
    ): Promise<Readonly<Record<(typeof FIELDS)[number], string>>> {
      const running = start(['--from', uri, ...words, '--to', 'discard:', '--log-level', 'info'])
      let found: readonly string[] | undefined
      let over = ''
      void running.done.then(({ stderr }) => {
        over = `it ended: ${stderr}`
      })
      await until(async () => {
        if (over !== '') throw new Error(over)
        // rabbitmqctl costs a second of processor time, so the node is asked first.
        // It fails while a connection is just being opened or closed.
        const named = await broker.server.evaluate(NAMED).catch(() => 'not now')
        if (!named.includes('true')) return false
        found = (await broker.ctl('list_connections', ...FIELDS))
          .split('\n')
          .find((line) => line.includes('"manifold"'))
          ?.split('\t')
        return found !== undefined
      })
      running.kill('SIGTERM')
      expect((await running.done).code).toBe(0)
      return Object.fromEntries(FIELDS.map((name, index) => [name, found?.[index] ?? ''])) as Record<
        (typeof FIELDS)[number],
        string
      >
    }

    test("query parameters of RabbitMQ's clients: each is what the broker then sees", async () => {
      await broker.ctl('add_vhost', 'a b/c')
      await broker.ctl('set_permissions', '-p', 'a b/c', 'alice', '.*', '.*', '.*')
      const {
        ca,
        clients: { alice },
      } = broker.server.certificates
      const uri = `${broker.server.tlsUri}/a%20b%2Fc?${query({
        cacertfile: ca,
        certfile: alice.cert,
        keyfile: alice.key,
        verify: 'verify_peer',
        fail_if_no_peer_cert: 'true',
        server_name_indication: 'localhost',
        auth_mechanism: 'external',
        heartbeat: 7,
        connection_timeout: 5000,
        channel_max: 11,
        frame_max: 8192,
        connection_name: 'my & own',
        queue: 'q',
        declare: 'true',
      })}`
      const { client_properties: properties, ...seen } = await connected(uri)
      expect(seen).toEqual({
        user: 'alice',
        vhost: 'a b/c',
        ssl: 'true',
        auth_mechanism: 'EXTERNAL',
        timeout: '7',
        channel_max: '11',
        frame_max: '8192',
      })
      expect(properties).toMatch(/"connection_name","my & own"/)
      const words = ['queue=q', 'declare', 'heartbeat=3s', 'channelMax=12', 'frameMax=16KiB']
      expect(
        await connected(`amqp://ali%63e:alice%2Dsecret@127.0.0.1:${broker.port}/a%20b%2Fc`, ...words),
      ).toMatchObject({
        user: 'alice',
        vhost: 'a b/c',
        ssl: 'false',
        auth_mechanism: 'PLAIN',
        timeout: '3',
        channel_max: '12',
        frame_max: '16384',
      })
    }, 30_000)

    test('a name that is not in the certificate is refused, verify_none takes it and says so', async () => {
      const given = { queue: 'tls', declare: 'true', ca: broker.server.certificates.ca, serverName: 'elsewhere' }
      await expect(openSource(broker.server.tlsUri, given)).rejects.toThrow(
        /the certificate of localhost:\d+ is for another name: .*server-name=/,
      )
      const { source, told } = await openSource(broker.server.tlsUri, { ...given, verify: 'verify_none' })
      expect(told.text()).toMatch(/tls-insecure/)
      await source.close()
    })
  })

  test('a broker that freezes is given up after two heartbeats; reading that is held up for longer is none', async () => {
    const queue = await other.declare('frozen')
    await other.put(
      queue,
      Array.from({ length: 200 }, () => Buffer.alloc(100_000, 'x')),
    )
    const { source } = await openSource(other.uri(), { queue, heartbeat: '1s', prefetchBytes: 100_000 })
    let read = 0
    const more = async (): Promise<void> => {
      const delivery = await source.read(forever)
      read += delivery!.batch.count
      await source.commit(delivery!.partition, delivery!.last)
    }
    await more()
    // More waits than is taken into memory: the socket is not read. Nothing can be awaited that is to show that nothing
    // happens.
    await new Promise((resolve) => {
      setTimeout(resolve, 4000)
    })
    while (read < 200) await more()
    const reading = expect(source.read(forever)).rejects.toThrow(/[Hh]eartbeat timeout/)
    other.server.freeze()
    try {
      await reading
    } finally {
      other.server.thaw()
    }
    await source.close()
    expect(await other.count(queue)).toBe(0)
  })

  test('of several hosts the other one is taken when one goes away, by source and sink, and back again', async () => {
    const [first, second] = [await Broker.start(), other]
    try {
      for (const each of [first, second]) await each.declare('both')
      const uri = `amqp://127.0.0.1:${first.port},127.0.0.1:${second.port}`
      const [source, sink] = [await makeSource(uri, { queue: 'both' }), await makeSink(uri, { queue: 'both' })]
      const open = async (): Promise<string> => {
        const [from, to] = [makeSourceContext(), makeEndpointContext()]
        await source.open(from.ctx)
        await sink.open(to.ctx)
        return from.told.text() + to.told.text()
      }
      const passed = new Set<string>()
      const pass = async (n: number): Promise<void> => {
        expect(await sink.write(writeOf(bodies(1, n)), forever)).toEqual({ retry: [], rejected: [] })
        // A node that is killed forgets acknowledgements that it has not yet written: those messages come again.
        const fresh: string[] = []
        while (fresh.length === 0) {
          const taken = await take(source, 1)
          fresh.push(...values(taken).filter((value) => !passed.has(value)))
          for (const { partition, last } of taken.deliveries) await source.commit(partition, last)
        }
        expect(fresh).toEqual(bodies(1, n))
        passed.add(fresh[0]!)
      }
      expect(await open()).not.toMatch(/instead/)
      await pass(1)
      for (const [gone, there] of [
        [first, second],
        [second, first],
      ] as const) {
        await gone.kill()
        await expect(source.read(forever)).rejects.toThrow(Disconnected)
        await expect(sink.write(writeOf(bodies(1)), forever)).rejects.toThrow(Disconnected)
        await Promise.all([source.close(), sink.close()])
        const said = await open()
        expect(
          said.split(`connected to 127.0.0.1:${there.port} instead: no connection to 127.0.0.1:${gone.port}`),
        ).toHaveLength(3)
        await pass(there.port)
        await gone.restart()
      }
      await Promise.all([source.close(), sink.close()])
    } finally {
      await first.stop()
    }
  }, 90_000)

  describe('what is relied on of amqplib beyond its public face: before another version is taken, src/endpoints/amqp/client.ts has to be looked through', () => {
    interface Inner {
      rest: Buffer
      recvSinceLastCheck: boolean
      sentSinceLastCheck: boolean
      frameMax: number
      stream: Socket
      expectSocketClose: boolean
      heartbeater: { sendTimer: NodeJS.Timeout; recvTimer: NodeJS.Timeout } | null
      recvFrame(): unknown
      sendBytes(bytes: Buffer): void
      accept(frame: unknown): void
    }
    let model: ChannelModel
    let inner: Inner
    beforeEach(async () => {
      model = await connect(`amqp://127.0.0.1:${other.port}`)
      model.on('error', () => undefined)
      inner = model.connection as unknown as Inner
    })
    afterEach(() => {
      inner.stream.destroy(new Error('over'))
    })

    test('its version is the one that was looked through', () => {
      expect(JSON.parse(readFileSync(join(dirname(require.resolve('amqplib')), 'package.json'), 'utf8'))).toMatchObject(
        { version: '2.3.1' },
      )
    })

    test('a connection has its socket, the bytes that are not yet taken, the size of frames and marks of life', () => {
      expect(inner.stream).toBeInstanceOf(Socket)
      expect(Buffer.isBuffer(inner.rest)).toBe(true)
      expect({
        frameMax: inner.frameMax,
        received: typeof inner.recvSinceLastCheck,
        sent: typeof inner.sentSinceLastCheck,
      }).toEqual({ frameMax: 131_072, received: 'boolean', sent: 'boolean' })
    })

    test('frames are asked for through recvFrame until it says false, and again at each `readable`; bytes taken out of `rest` are taken', async () => {
      const channel = await model.createConfirmChannel()
      const { queue } = await channel.assertQueue('', { exclusive: true })
      const receive = inner.recvFrame.bind(inner)
      let [held, calls] = [true, 0]
      inner.recvFrame = () => {
        calls++
        return held ? false : receive()
      }
      const asked = channel.checkQueue(queue)
      await until(() => inner.stream.readableLength > 0)
      expect(inner.rest).toHaveLength(0)
      const before = calls
      held = false
      inner.stream.emit('readable')
      expect(calls).toBeGreaterThan(before)
      expect(await asked).toMatchObject({ queue })
      // A heartbeat that is not there is taken off the front: the library goes on behind it.
      inner.recvFrame = () => {
        if (inner.rest.length === 0) {
          const bytes = inner.stream.read() as Buffer | null
          if (bytes !== null) inner.rest = bytes
        }
        while (inner.rest[0] === 8) inner.rest = inner.rest.subarray(8)
        return receive()
      }
      inner.stream.unshift(Buffer.from([8, 0, 0, 0, 0, 0, 0, 0xce]))
      expect(await channel.checkQueue(queue)).toMatchObject({ queue })
    })

    test('sendBytes writes what it is given at once, which is a sign of life', async () => {
      const written: Buffer[] = []
      inner.stream.write = (bytes: Buffer) => {
        written.push(bytes)
        return true
      }
      inner.sentSinceLastCheck = false
      inner.sendBytes(Buffer.from('bytes'))
      expect({ written: written.map(String), sent: inner.sentSinceLastCheck }).toEqual({
        written: ['bytes'],
        sent: true,
      })
    })

    test('a channel has its number, and tells of confirms by events whose own listeners can be taken off; they name tag and multiple', async () => {
      const channel = await model.createConfirmChannel()
      expect((channel as unknown as { ch: number }).ch).toBe(1)
      expect(((await model.createChannel()) as unknown as { ch: number }).ch).toBe(2)
      for (const event of ['ack', 'nack']) {
        expect(channel.listenerCount(event)).toBe(1)
        channel.removeAllListeners(event)
      }
      const { queue } = await channel.assertQueue('', { exclusive: true })
      const acked = once(channel, 'ack')
      channel.sendToQueue(queue, Buffer.from('x'))
      expect(((await acked) as readonly unknown[])[0]).toMatchObject({ deliveryTag: 1, multiple: false })
      const returned = once(channel, 'return')
      channel.publish('', 'nowhere', Buffer.from('y'), { mandatory: true, messageId: 'id' })
      expect(((await returned) as readonly unknown[])[0]).toMatchObject({
        content: Buffer.from('y'),
        fields: { replyText: 'NO_ROUTE', exchange: '', routingKey: 'nowhere' },
        properties: { messageId: 'id' },
      })
    })

    test('acknowledgements ask for no more of a message than its tag', async () => {
      const channel = await model.createChannel()
      const { queue } = await channel.assertQueue('', { exclusive: true })
      for (const each of ['1', '2', '3']) channel.sendToQueue(queue, Buffer.from(each))
      await channel.consume(queue, () => undefined)
      await until(async () => (await channel.checkQueue(queue)).messageCount === 0)
      channel.ack({ fields: { deliveryTag: 2 } } as never, true)
      channel.nack({ fields: { deliveryTag: 3 } } as never, true, false)
      // A wrong one would have closed the channel.
      expect(await channel.checkQueue(queue)).toMatchObject({ messageCount: 0 })
    })

    test('a socket that is destroyed with an error ends the heartbeat and is told of as `error` and `close`, channels first', async () => {
      const channel = await model.createChannel()
      const told: string[] = []
      for (const [name, emitter] of [
        ['channel', channel],
        ['connection', model],
      ] as const)
        for (const event of ['error', 'close'])
          (emitter as EventEmitter).on(event, () => {
            told.push(`${name} ${event}`)
          })
      const ended = new Promise((resolve) => {
        model.on('close', resolve)
      })
      inner.stream.destroy(new Error('over'))
      await ended
      expect(told).toEqual(['connection error', 'channel close', 'connection close'])
      expect((inner.heartbeater?.recvTimer as unknown as { _destroyed: boolean } | undefined)?._destroyed).toBe(true)
    })

    test('a broker that closes a connection by force is told of as `close` with code and text, without `error`', async () => {
      const told: unknown[] = []
      model.on('error', (error) => {
        told.push(error)
      })
      const closed = once(model, 'close')
      await other.ctl('close_all_connections', 'a test')
      expect(((await closed) as readonly unknown[])[0]).toMatchObject({
        code: 320,
        message: 'Connection closed: 320 (CONNECTION-FORCED) with message "CONNECTION_FORCED - a test"',
      })
      expect(told).toEqual([])
    })

    test('a channel that the broker closes is told of as `error` with code and text', async () => {
      const channel = await model.createChannel()
      const failed = once(channel, 'error').then(
        ([error]: readonly unknown[]) => error,
        (error: unknown) => error,
      )
      channel.on('error', () => undefined)
      await expect(channel.checkQueue('nowhere')).rejects.toMatchObject({ code: 404 })
      expect(await failed).toMatchObject({
        code: 404,
        message:
          "Channel closed by server: 404 (NOT-FOUND) with message \"NOT_FOUND - no queue 'nowhere' in vhost '/'\"",
      })
    })

    test("an opening ends with its socket's signal, and says of a vhost that it was closed", async () => {
      const given = new AbortController()
      const opening = connect(`amqp://127.0.0.1:${other.port}`, { signal: given.signal } as object)
      given.abort(new Error('given up'))
      await expect(opening).rejects.toThrow()
      await expect(connect(`amqp://127.0.0.1:${other.port}/nowhere`)).rejects.toThrow(
        'Expected ConnectionOpenOk; got <ConnectionClose channel:0>',
      )
      await expect(connect(`amqp://guest:wrong@127.0.0.1:${other.port}`)).rejects.toThrow(
        /Handshake terminated by server: 403 \(ACCESS-REFUSED\) with message "ACCESS_REFUSED - Login was refused/,
      )
    })
  })
})
