/** Tests mistyped lines and refusals of a broker: one line says what to do. */
import { createServer, type AddressInfo, type Server } from 'node:net'
import { Disconnected, Refused } from '../../../src/core/errors'
import amqp from '../../../src/endpoints/amqp'
import { vhostOf } from '../../../src/endpoints/amqp/settings'
import { makeTarget } from '../../support/context'
import { manifold } from '../../support/manifold'
import { describeWith } from '../../services/describe-with'
import type { SecureRabbitmqServer } from '../../services/rabbitmq'
import { Broker } from './broker'
import { forever, openSink, openSource, take, until, writeOf } from './support'

describe('options that contradict each other are told of before anything is opened', () => {
  test.each([
    ['source', {}, 'amqp://h', /needs a queue/],
    ['sink', {}, 'amqp://h', /queue=NAME, or exchange=NAME/],
    ['sink', { queue: 'a', exchange: 'b' }, 'amqp://h', /give either queue= or exchange=/],
    ['sink', { queue: 'a', key: 'b' }, 'amqp://h', /give either queue= or key=/],
    ['source', { queue: 'a' }, 'amqp://h/a/b', /a '\/' is written %2F/],
    ['source', { queue: 'a' }, `amqp://h/${'%C3%BC'.repeat(128)}`, /the vhost is longer than the 255 bytes/],
    ['source', { queue: 'a' }, 'amqp://h/50%', /a '%' that is no percent-encoding/],
    ['source', { queue: 'a', bind: [':k'] }, 'amqp://h', /bind= needs an exchange/],
    ['source', { queue: 'a', start: 'latest' }, 'amqp://h', /start= is for streams/],
    ['source', { queue: 'a', stream: 'true', start: 'noon' }, 'amqp://h', /oldest, latest, an offset/],
    ['source', { queue: 'a', declare: 'quorum', durable: 'false' }, 'amqp://h', /always durable/],
    ['source', { queue: 'a', cert: 'x' }, 'amqps://h', /cert-key= is missing/],
    ['source', { queue: 'a', authMechanism: 'external' }, 'amqps://h', /logs in with a client certificate/],
    ['source', { queue: 'a', ca: 'x' }, 'amqp://h', /ca is for TLS: write amqps/],
  ] as const)('%s %j %s', (role, given, uri, fault) => {
    expect(amqp.check!(makeTarget(amqp, uri, given), role).join('\n')).toMatch(fault)
  })
  test('what is right has no faults', () => {
    expect(
      amqp.check!(
        makeTarget(amqp, 'amqps://u:p@a,b:1/%2Fx', {
          queue: 'a',
          declare: 'true',
          bind: ['events:a.#'],
          cert: 'c',
          certKey: 'k',
        }),
        'source',
      ),
    ).toEqual([])
    expect(amqp.check!(makeTarget(amqp, 'amqp://h', { exchange: 'e', key: 'a.{json:b.c}.{key}' }), 'sink')).toEqual([])
  })
  test.each(['{json:}', '{other}', 'a{', '{json:a..b}'])('a routing key %s is none', (key) => {
    expect(() => makeTarget(amqp, 'amqp://h', { key })).toThrow(/known|pair/)
  })
  test.each([
    ['', '/'],
    ['/', '/'],
    ['/%2F', '/'],
    ['/prod', 'prod'],
    ['/a%20b', 'a b'],
  ])('the path %j is the vhost %j', (path, vhost) => {
    expect(vhostOf(path)).toBe(vhost)
  })
})

describeWith('rabbitmq', 'a broker that refuses', () => {
  let broker: Broker<SecureRabbitmqServer>
  beforeAll(async () => {
    broker = await Broker.startSecure()
  }, 90_000)
  afterAll(async () => {
    await broker.stop()
  }, 30_000)
  const refusedAs = async (open: Promise<unknown>): Promise<string> => {
    const error: unknown = await open.then(
      () => undefined,
      (reason: unknown) => reason,
    )
    expect(error).toBeInstanceOf(Refused)
    const { message } = error as Refused
    expect(message).not.toMatch(/\n|not-the-password/)
    return message
  }

  test('a wrong password, vhost, queue, exchange: each is named', async () => {
    await broker.declare('there')
    expect(await refusedAs(openSource(broker.uri('', 'alice:not-the-password@'), { queue: 'there' }))).toMatch(
      /refuses the login of alice: the password is wrong, or there is no such user/,
    )
    expect(await refusedAs(openSource(broker.uri('/nowhere'), { queue: 'there' }))).toMatch(
      /does not let guest into the vhost nowhere/,
    )
    expect(await refusedAs(openSource(broker.uri(), { queue: 'missing' }))).toMatch(
      /reading queue 'missing': no queue 'missing' in vhost '\/'/,
    )
    expect(await refusedAs(openSink(broker.uri(), { queue: 'missing' }))).toMatch(
      /publishing to queue 'missing': no queue 'missing'/,
    )
    expect(await refusedAs(openSink(broker.uri(), { exchange: 'missing' }))).toMatch(
      /publishing to exchange 'missing': no exchange 'missing'/,
    )
  })

  test('what a user may not do', async () => {
    for (const queue of ['readable-1', 'writable-1', 'other']) await broker.declare(queue)
    const login = `carol:${broker.server.users.carol}@`
    expect(await refusedAs(openSource(broker.uri('', login), { queue: 'other' }))).toMatch(
      /access to queue 'other' in vhost '\/' refused for user 'carol'/,
    )
    expect(await refusedAs(openSource(broker.uri('', login), { queue: 'readable-2', declare: 'true' }))).toMatch(
      /refused for user 'carol'/,
    )
    const channel = await broker.channel()
    await channel.assertExchange('private', 'fanout')
    await channel.close()
    const { sink } = await openSink(broker.uri('', login), { exchange: 'private' })
    expect(await refusedAs(sink.write(writeOf(['x']), forever))).toMatch(
      /publishing to exchange 'private': access to exchange 'private'/,
    )
    await sink.close()
  })

  test('a queue that was declared otherwise, and one that is read exclusively', async () => {
    await broker.declare('classic')
    expect(await refusedAs(openSource(broker.uri(), { queue: 'classic', declare: 'quorum' }))).toMatch(
      /inequivalent arg 'x-queue-type'/,
    )
    const { source } = await openSource(broker.uri(), { queue: 'classic', exclusive: true })
    expect(await refusedAs(openSource(broker.uri(), { queue: 'classic' }))).toMatch(/exclusive/)
    await source.close()
  })

  test('a port that speaks something else, one that is silent, one where nobody is', async () => {
    const peers: Server[] = []
    const serve = async (answer: string | undefined): Promise<number> => {
      const server = createServer((socket) => {
        socket.on('error', () => undefined)
        socket.once('data', () => {
          if (answer !== undefined) socket.end(answer)
        })
      })
      peers.push(server)
      await new Promise<void>((resolve) => {
        server.listen(0, '127.0.0.1', resolve)
      })
      return (server.address() as AddressInfo).port
    }
    const http = await serve('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n')
    expect(await refusedAs(openSource(`amqp://127.0.0.1:${http}`, { queue: 'q' }))).toMatch(
      /does not speak AMQP 0-9-1: is it another port, or amqps/,
    )
    const silent = await serve(undefined)
    for (const scheme of ['amqp', 'amqps']) {
      await expect(
        openSource(`${scheme}://127.0.0.1:${silent}`, { queue: 'q', connectionTimeout: '200ms' }),
      ).rejects.toThrow(/did not let us in within 200ms/)
      // No socket is left, because retries for days would use up all of them.
      await until(
        async () =>
          await new Promise((resolve) => {
            peers.at(-1)?.getConnections((_, count) => {
              resolve(count === 0)
            })
          }),
      )
    }
    const tls = Number(new URL(broker.server.tlsUri.replace('amqps', 'http')).port)
    await expect(openSource(`amqp://127.0.0.1:${tls}`, { queue: 'q' })).rejects.toThrow(/does not speak AMQP 0-9-1/)
    expect(await refusedAs(openSource(`amqps://127.0.0.1:${broker.port}`, { queue: 'q' }))).toMatch(
      /does not speak TLS \(\w+\): is amqp:\/\/ meant/,
    )
    await expect(openSource('amqp://127.0.0.1:1', { queue: 'q' })).rejects.toThrow(Disconnected)
    for (const peer of peers) peer.close()
  })

  test('TLS: an authority that is not known is refused, the right one is taken, and a client certificate logs in', async () => {
    const { tlsUri, certificates } = broker.server
    await broker.declare('secret')
    await broker.put('secret', ['one'])
    expect(await refusedAs(openSource(tlsUri, { queue: 'secret' }))).toMatch(/is not trusted .*ca=FILE/)
    expect(await refusedAs(openSource(tlsUri, { queue: 'secret', ca: '/nowhere.pem' }))).toMatch(/ca= cannot be read/)
    const external = { queue: 'secret', ca: certificates.ca, authMechanism: 'external' }
    const { source } = await openSource(tlsUri, {
      ...external,
      cert: certificates.clients.alice.cert,
      certKey: certificates.clients.alice.key,
    })
    expect((await take(source, 1)).entries.map(({ value }) => String(value))).toEqual(['one'])
    const named = await broker.ctl('list_connections', 'user', 'ssl', 'auth_mechanism', 'client_properties')
    expect(named).toMatch(/alice\ttrue\tEXTERNAL\t.*connection_name.*manifold from secret/)
    await source.close()
    expect(
      await refusedAs(
        openSource(tlsUri, {
          ...external,
          cert: certificates.clients.carol.cert,
          certKey: certificates.clients.carol.key,
        }),
      ),
    ).toMatch(/access to queue 'secret'.*'carol'/)
    await expect(
      openSource(tlsUri, { ...external, cert: certificates.stranger.cert, certKey: certificates.stranger.key }),
    ).rejects.toThrow()
    const { source: careless, told } = await openSource(tlsUri, { queue: 'secret', tlsInsecure: true })
    expect(told.text()).toMatch(/tls-insecure/)
    await careless.close()
  })

  test('of several hosts the next one is taken where one is away, and told of', async () => {
    await broker.declare('failover')
    const { source, told } = await openSource(`amqp://127.0.0.1:1,127.0.0.1:${broker.port}`, { queue: 'failover' })
    expect(told.text()).toMatch(/connected to 127\.0\.0\.1:\d+ instead: no connection to 127\.0\.0\.1:1/)
    await source.close()
    await expect(openSource('amqp://127.0.0.1:1,127.0.0.1:2', { queue: 'failover' })).rejects.toThrow(
      /none of the hosts: .*127\.0\.0\.1:1.*; .*127\.0\.0\.1:2/,
    )
  })

  test('the program ends at once with one line and 3 for a source, 4 for a sink; no password is in it', async () => {
    await broker.declare('run')
    const lines: readonly (readonly [number, RegExp, readonly string[]])[] = [
      [
        3,
        /refuses the login of alice/,
        ['--from', broker.uri('', 'alice:not-the-password@'), 'queue=run', '--to', '-'],
      ],
      [3, /into the vhost nowhere/, ['--from', broker.uri('/nowhere'), 'queue=run', '--to', '-']],
      [3, /no queue 'missing'/, ['--from', broker.uri(), 'queue=missing', '--to', '-']],
      [4, /no exchange 'missing'/, ['--from', '-', '--to', broker.uri(), 'exchange=missing']],
      [
        4,
        /refused for user 'carol'/,
        ['--from', '-', '--to', broker.uri('', `carol:${broker.server.users.carol}@`), 'queue=run', 'declare'],
      ],
      [2, /needs a queue/, ['--from', broker.uri(), '--to', '-']],
    ]
    for (const [code, why, args] of lines) {
      const finished = await manifold(args, { input: 'record\n' })
      expect({ args, code: finished.code, stdout: finished.stdout.toString(), stderr: finished.stderr }).toEqual({
        args,
        code,
        stdout: '',
        stderr: expect.stringMatching(why) as string,
      })
      expect(finished.stderr).not.toMatch(/not-the-password|carol-secret/)
      expect(finished.ms).toBeLessThan(10_000)
    }
  }, 60_000)
})
