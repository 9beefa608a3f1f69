/**
 * S3, Kinesis and DynamoDB through a proxy that the environment names, as whole processes: over TLS by CONNECT, else by
 * requests for whole URLs.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import * as net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as tls from 'node:tls'
import { makeAuthority, type Authority, type Issued } from '../endpoints/ws/authority'
import { describeWith } from '../services/describe-with'
import { kinesisClient, makeStream, put, startDynamodb, startKinesis, type AwsServer } from '../services/kinesis'
import { available, Bucket, startS3, type S3Server } from '../services/s3'
import { startProxy, type Proxy } from '../support/connect-proxy'
import { manifold, type Finished } from '../support/manifold'

let authority: Authority
let certificate: Issued
let folder: string
const open: { close(): Promise<void> }[] = []
beforeAll(async () => {
  authority = await makeAuthority()
  certificate = await authority.issue('server', 'DNS:localhost,IP:127.0.0.1')
  folder = mkdtempSync(join(tmpdir(), 'manifold-proxy-'))
})
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true })
  await authority.close()
})
function kept<T extends { close(): Promise<void> }>(thing: T): T {
  open.push(thing)
  return thing
}

/** TLS in front of a server; its URL. */
async function secured(endpoint: string): Promise<string> {
  const { hostname, port } = new URL(endpoint)
  const ends = new Set<net.Socket>()
  const front = tls.createServer({ cert: certificate.cert, key: certificate.key }, (socket) => {
    const far = net.connect(Number(port), hostname)
    for (const end of [socket, far]) {
      ends.add(end)
      end.on('error', () => {
        socket.destroy()
        far.destroy()
      })
    }
    socket.pipe(far).pipe(socket)
  })
  await new Promise<void>((resolve) => {
    front.listen(0, '127.0.0.1', resolve)
  })
  open.push({
    close: async () => {
      for (const end of ends) end.destroy()
      await new Promise((resolve) => {
        front.close(resolve)
      })
    },
  })
  return `https://127.0.0.1:${(front.address() as net.AddressInfo).port}`
}
const hostOf = (url: string): string => new URL(url).host
function run(args: readonly string[], env: NodeJS.ProcessEnv, input?: string): Promise<Finished> {
  return manifold([...args, '--state', join(folder, String(Math.random()))], {
    env: {
      NODE_EXTRA_CA_CERTS: authority.caFile,
      http_proxy: '',
      https_proxy: '',
      all_proxy: '',
      no_proxy: '',
      HTTP_PROXY: '',
      HTTPS_PROXY: '',
      ALL_PROXY: '',
      NO_PROXY: '',
      ...env,
    },
    ...(input === undefined ? {} : { input }),
  })
}
const told = ({ code, stderr }: Finished): string => `exit ${code ?? ''}\n${stderr}`

describeWith('s3', 'S3 through a proxy', () => {
  let server: S3Server
  let bucket: Bucket
  beforeAll(async () => {
    server = await startS3(available().find((kind) => kind !== 'moto'))
  })
  afterAll(async () => {
    await server.stop()
  })
  beforeEach(async () => {
    bucket = await Bucket.make(server)
  })
  afterEach(() => {
    bucket.close()
  })
  const toS3 = (endpoint: string, env: NodeJS.ProcessEnv): Promise<Finished> =>
    run(
      ['--from', '-', '--to', `s3://${bucket.name}/t`, `endpoint=${endpoint}`, 'region=us-east-1'],
      { AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey, ...env },
      'a\nb\n',
    )

  test('https by CONNECT, with the login', async () => {
    const endpoint = await secured(server.endpoint)
    const proxy = kept(await startProxy())
    const done = await toS3(endpoint, {
      HTTPS_PROXY: proxy.url.replace('http://', 'http://me:s%3Acret@'),
      HTTP_PROXY: 'http://127.0.0.1:9',
    })
    expect(told(done)).toBe('exit 0\n')
    expect((await bucket.all()).map(({ bytes }) => bytes.toString())).toEqual(['a\nb\n'])
    expect(new Set(proxy.asked.map(({ path }) => path))).toEqual(new Set([hostOf(endpoint)]))
    expect(proxy.asked[0]?.login).toBe(`Basic ${Buffer.from('me:s:cret').toString('base64')}`)
  })

  test('http by requests for whole URLs', async () => {
    const proxy = kept(await startProxy())
    expect(told(await toS3(server.endpoint, { http_proxy: proxy.url }))).toBe('exit 0\n')
    expect(proxy.asked.some(({ path }) => path.startsWith(`${server.endpoint}/${bucket.name}/t/`))).toBe(true)
    expect(await bucket.keys()).toHaveLength(1)
  })

  test('not where NO_PROXY exempts the host', async () => {
    expect(told(await toS3(server.endpoint, { HTTP_PROXY: 'http://127.0.0.1:9', NO_PROXY: '127.0.0.0/8' }))).toBe(
      'exit 0\n',
    )
  })

  test.each<[string, { answer?: number }, number, RegExp]>([
    [
      'wants a login',
      { answer: 407 },
      4,
      /the proxy 127\.0\.0\.1:\d+ answered 407 Proxy Authentication Required: HTTPS_PROXY=http:\/\/USER:PASSWORD@HOST:PORT logs in/,
    ],
    [
      'lets nobody through',
      { answer: 403 },
      4,
      /the proxy 127\.0\.0\.1:\d+ answered 403 Forbidden: it does not let this connection through/,
    ],
  ])('names a proxy that %s', async (_, given, code, message) => {
    const proxy = kept(await startProxy(given))
    const done = await toS3(await secured(server.endpoint), { HTTPS_PROXY: proxy.url })
    expect(told(done)).toMatch(message)
    expect(done.code).toBe(code)
  })

  test('a % in its password that encodes nothing is a usage error', async () => {
    const done = await toS3(server.endpoint, { HTTP_PROXY: 'http://me:canary%@127.0.0.1:9' })
    expect(told(done)).toMatch(/^exit 2\n.*has a % in its user or password that encodes nothing: write %25 for a %/s)
    expect(done.stderr).not.toMatch(/canary|bug/)
  })
})

describeWith('kinesis', 'Kinesis and DynamoDB through a proxy', () => {
  let kinesis: AwsServer
  let dynamodb: AwsServer | undefined
  beforeAll(async () => {
    kinesis = await startKinesis({ kind: 'kinesalite' })
    dynamodb = await startDynamodb().catch(() => undefined)
  })
  afterAll(async () => {
    await kinesis.stop()
    await dynamodb?.stop()
  })

  test('https by CONNECT: stream and leases', async () => {
    const client = kinesisClient(kinesis)
    const stream = await makeStream(client)
    await put(client, stream, [{ key: 'k', data: 'one' }])
    client.destroy()
    const proxy: Proxy = kept(await startProxy())
    const endpoint = await secured(kinesis.endpoint)
    const leases = dynamodb === undefined ? undefined : await secured(dynamodb.endpoint)
    const done = await run(
      [
        '--from',
        `kinesis:${stream}`,
        `endpoint=${endpoint}`,
        'region=us-east-1',
        ...(leases === undefined ? [] : ['leases=dynamodb:leases', `leases-endpoint=${leases}`]),
        '--to',
        '-',
        '--until',
        'end',
      ],
      { AWS_ACCESS_KEY_ID: kinesis.accessKey, AWS_SECRET_ACCESS_KEY: kinesis.secretKey, HTTPS_PROXY: proxy.url },
    )
    expect(told(done)).toBe('exit 0\n')
    expect(done.stdout.toString()).toBe('one\n')
    expect(new Set(proxy.asked.map(({ path }) => path))).toEqual(
      new Set([endpoint, ...(leases === undefined ? [] : [leases])].map(hostOf)),
    )
  })
})
