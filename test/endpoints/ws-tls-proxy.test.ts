import type * as https from 'node:https'
import { Disconnected, Fatal, Refused, UsageError } from '../../src/core/errors'
import { makeSourceContext } from '../support/context'
import { startProxy as start, type Proxy } from '../support/connect-proxy'
import { makeAuthority, type Authority, type Issued } from './ws/authority'
import { makeSource, startPeer, startRaw, take, takeUntilThrow, type Peer } from './ws/peer'

let authority: Authority
let server: Issued
let client: Issued
beforeAll(async () => {
  authority = await makeAuthority()
  server = await authority.issue('server', 'DNS:localhost,DNS:feed.example,IP:127.0.0.1')
  client = await authority.issue('client', 'DNS:client')
})
afterAll(() => authority.close())

const open: { close(): Promise<void> }[] = []
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})
function kept<T extends { close(): Promise<void> }>(thing: T): T {
  open.push(thing)
  return thing
}
const greeting = {
  connected: (socket: { send(text: string): void }): void => {
    socket.send('hello')
  },
}
async function attempt(
  url: string,
  given: Record<string, unknown> = {},
): Promise<{ error?: Error; got?: string[]; told: string }> {
  const source = kept(await makeSource(url, given))
  const { ctx, told } = makeSourceContext()
  try {
    await source.open(ctx)
    return { got: await take(source, 1), told: told.text() }
  } catch (error) {
    return { error: error as Error, told: told.text() }
  }
}

describe('TLS', () => {
  const tls = (given: Issued, more: https.ServerOptions = {}): Promise<Peer> =>
    startPeer({ tls: { cert: given.cert, key: given.key, ...more }, ...greeting }).then(kept)

  test('ca= is a file or its content', async () => {
    const peer = await tls(server)
    expect((await attempt(peer.url, { ca: authority.caFile })).got).toEqual(['hello'])
    expect((await attempt(peer.url, { ca: authority.ca })).got).toEqual(['hello'])
  })

  test('an unknown authority is refused, and the message says what to do', async () => {
    const { error } = await attempt((await tls(server)).url)
    expect(error).toBeInstanceOf(Refused)
    expect(error?.message).toMatch(
      /certificate of 127\.0\.0\.1:\d+ is not trusted \(.+\): name the authority that signed it with ca=FILE/,
    )
  })

  test('another authority than the one that signed is refused', async () => {
    const other = kept(await makeAuthority())
    const { error } = await attempt((await tls(server)).url, { ca: other.caFile })
    expect(error).toBeInstanceOf(Refused)
    expect(error?.message).toMatch(/not trusted/)
  })

  test('a certificate for another name is refused, and server-name= chooses the name to ask for and find', async () => {
    const elsewhere = await authority.issue('elsewhere', 'DNS:feed.example')
    const asked: string[] = []
    const peer = await tls(elsewhere, {
      SNICallback: (name, done) => {
        asked.push(name)
        done(null)
      },
    })
    const { error } = await attempt(peer.url, { ca: authority.caFile })
    expect(error).toBeInstanceOf(Refused)
    expect(error?.message).toMatch(/for another name: .*server-name=/)
    expect((await attempt(peer.url, { ca: authority.caFile, serverName: 'feed.example' })).got).toEqual(['hello'])
    expect(asked).toEqual(['feed.example'])
  })

  test('a certificate out of its time is refused', async () => {
    const old = await authority.issue('old', 'IP:127.0.0.1', -1)
    const { error } = await attempt((await tls(old)).url, { ca: authority.caFile })
    expect(error).toBeInstanceOf(Refused)
    expect(error?.message).toMatch(/out of its time/)
  })

  test('tls-insecure takes any certificate, loudly', async () => {
    const { got, told } = await attempt((await tls(server)).url, { tlsInsecure: true })
    expect(got).toEqual(['hello'])
    expect(told).toMatch(/"warn".*certificate is not checked/)
  })

  test('a client certificate is shown where the server wants one; without it the hint names cert= and cert-key=', async () => {
    const peer = await tls(server, { requestCert: true, rejectUnauthorized: true, ca: authority.ca })
    expect(
      (await attempt(peer.url, { ca: authority.caFile, cert: client.certFile, certKey: client.keyFile })).got,
    ).toEqual(['hello'])
    const { error } = await attempt(peer.url, { ca: authority.caFile })
    expect(error).toBeInstanceOf(Refused)
    expect(error?.message).toMatch(/cert= and cert-key=/)
  })

  test('files that are missing or hold no PEM are refused by the name of their option', async () => {
    const peer = await tls(server)
    expect((await attempt(peer.url, { ca: '/nothing/here.pem' })).error?.message).toMatch(
      /ca= cannot be read: .*ENOENT/,
    )
    const { error } = await attempt(peer.url, { ca: authority.caFile, cert: client.certFile, certKey: server.keyFile })
    expect(error).toBeInstanceOf(Refused)
    expect(error?.message).toMatch(/cert= or cert-key= is not usable/)
  })

  test('wss to a server without TLS, and ws to one with it, are refused with the other scheme', async () => {
    const plain = kept(await startPeer(greeting))
    const one = await attempt(plain.url.replace('ws:', 'wss:'))
    expect(one.error).toBeInstanceOf(Refused)
    expect(one.error?.message).toMatch(/is ws:\/\/ meant/)
    const other = await attempt((await tls(server)).url.replace('wss:', 'ws:'))
    expect(other.error).toBeInstanceOf(Error)
    expect(['Refused', 'Disconnected']).toContain(other.error?.name)
  })
})

const startProxy = async (given: Parameters<typeof start>[0] = {}): Promise<Proxy> => kept(await start(given))

describe('proxies', () => {
  const NAMES = [
    'http_proxy',
    'https_proxy',
    'all_proxy',
    'no_proxy',
    'HTTP_PROXY',
    'HTTPS_PROXY',
    'ALL_PROXY',
    'NO_PROXY',
  ]
  const before = Object.fromEntries(NAMES.map((name) => [name, process.env[name]]))
  const clear = (): void => {
    for (const name of NAMES) Reflect.deleteProperty(process.env, name)
  }
  beforeEach(clear)
  afterAll(() => {
    clear()
    for (const [name, value] of Object.entries(before)) if (value !== undefined) process.env[name] = value
  })

  test('proxy= tunnels ws and wss, with its login', async () => {
    const plain = kept(await startPeer(greeting))
    const secure = kept(await startPeer({ tls: { cert: server.cert, key: server.key }, ...greeting }))
    const proxy = await startProxy()
    const withLogin = proxy.url.replace('http://', 'http://me:s%3Acret@')
    expect((await attempt(plain.url, { proxy: withLogin })).got).toEqual(['hello'])
    expect((await attempt(secure.url, { proxy: proxy.url, ca: authority.caFile })).got).toEqual(['hello'])
    expect(proxy.asked).toEqual([
      { path: `127.0.0.1:${plain.port}`, login: `Basic ${Buffer.from('me:s:cret').toString('base64')}` },
      { path: `127.0.0.1:${secure.port}`, login: undefined },
    ])
  })

  test('the environment names proxies for ws and wss, NO_PROXY exempts, proxy=none overrules', async () => {
    const plain = kept(await startPeer(greeting))
    const secure = kept(await startPeer({ tls: { cert: server.cert, key: server.key }, ...greeting }))
    const one = await startProxy()
    const other = await startProxy()
    process.env['HTTP_PROXY'] = one.url
    // Without a scheme it is a plain proxy too, as for curl.
    process.env['HTTPS_PROXY'] = other.url.replace('http://', '')
    expect((await attempt(plain.url)).got).toEqual(['hello'])
    expect((await attempt(secure.url, { ca: authority.caFile })).got).toEqual(['hello'])
    expect([one.asked.length, other.asked.length]).toEqual([1, 1])
    expect((await attempt(plain.url, { proxy: 'none' })).got).toEqual(['hello'])
    process.env['NO_PROXY'] = '127.0.0.1'
    expect((await attempt(plain.url)).got).toEqual(['hello'])
    expect([one.asked.length, other.asked.length]).toEqual([1, 1])
  })

  test.each([
    [407, Refused, /the proxy 127\.0\.0\.1:\d+ answered 407 .*USER:PASSWORD/],
    [403, Refused, /does not let this connection through/],
    [502, Disconnected, /the proxy .* answered 502/],
  ])('a proxy that answers %i is named', async (answer, type, message) => {
    const proxy = await startProxy({ answer })
    const { error } = await attempt('ws://127.0.0.1:9/', {
      proxy: proxy.url.replace('http://', 'http://me:canary-proxy-password@'),
    })
    expect(error).toBeInstanceOf(type)
    expect(error?.message).toMatch(message)
    expect(error?.message).not.toContain('canary')
  })

  test('a proxy that is not there, or hangs, is a disconnect', async () => {
    const gone = await startProxy()
    await gone.close()
    const { error } = await attempt('ws://127.0.0.1:9/', { proxy: gone.url })
    expect(error).toBeInstanceOf(Disconnected)
    expect(error?.message).toMatch(/^the proxy 127\.0\.0\.1:\d+: /)
    const hanging = await startProxy({ hang: true })
    const late = await attempt('ws://127.0.0.1:9/', { proxy: hanging.url, handshakeTimeout: '200ms' })
    expect(late.error?.message).toMatch(/handshake-timeout/)
  })

  test('a kind of proxy that is not spoken is fatal', async () => {
    process.env['ALL_PROXY'] = 'socks5://127.0.0.1:1080'
    const { error } = await attempt('ws://127.0.0.1:9/')
    expect(error).toBeInstanceOf(Fatal)
    expect(error?.message).toMatch(/socks5:\/\/, which is not spoken/)
  })

  test('NO_PROXY knows addresses of IPv6, blocks of addresses and ports', async () => {
    const plain = kept(await startPeer(greeting))
    const proxy = await startProxy()
    process.env['HTTP_PROXY'] = proxy.url
    for (const list of ['127.0.0.0/8', `10.0.0.1, 127.0.0.1:${plain.port}`, '*']) {
      process.env['NO_PROXY'] = list
      expect((await attempt(plain.url)).got).toEqual(['hello'])
    }
    expect(proxy.asked).toEqual([])
    process.env['NO_PROXY'] = '::1,127.0.0.1:1'
    expect((await attempt(plain.url)).got).toEqual(['hello'])
    expect(proxy.asked).toHaveLength(1)
    expect((await attempt('ws://[::1]:9/')).error?.message).not.toMatch(/proxy/)
  })

  test('a % in the password of a proxy that encodes nothing is a usage error', async () => {
    process.env['HTTP_PROXY'] = 'http://me:50%25canary%@127.0.0.1:9'
    const { error } = await attempt('ws://127.0.0.1:9/')
    expect(error).toBeInstanceOf(UsageError)
    expect(error?.message).toBe(
      'the proxy that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) has a % in its user or password that encodes nothing: write %25 for a %',
    )
  })

  test('what breaks in the tunnel is a disconnect', async () => {
    const peer = kept(
      await startRaw((socket) => {
        socket.once('data', () => {
          socket.destroy()
        })
      }),
    )
    const proxy = await startProxy()
    const { error } = await attempt(peer.url, { proxy: proxy.url })
    expect(error).toBeInstanceOf(Disconnected)
  })

  test('a connection through a proxy ends like any other', async () => {
    const peer = kept(
      await startPeer({
        connected: (socket) => {
          socket.send('a')
          socket.close(1012)
        },
      }),
    )
    const proxy = await startProxy()
    const source = kept(await makeSource(peer.url, { proxy: proxy.url }))
    await source.open(makeSourceContext().ctx)
    const got: string[] = []
    const error = await takeUntilThrow(source, got)
    expect(got).toEqual(['a'])
    expect(error.message).toMatch(/1012 \(service restart\)/)
  })
})
