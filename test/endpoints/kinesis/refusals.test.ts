/**
 * What a person mistypes, and what an account does not allow, through the real command line: one line that says what to
 * do, and the exit code.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeWith } from '../../services/describe-with'
import { type AwsServer, kinesisClient, makeStream, startKinesis } from '../../services/kinesis'
import { KinesisProxy } from '../../support/kinesis-proxy'
import { manifold, type Finished } from '../../support/manifold'

const SECRET = 'canary-7b1e55'
const ARN = 'arn:aws:kinesis:eu-west-1:123456789012:stream/clicks'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-kinesis-refusals-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true })
})

const LOGIN = { AWS_ACCESS_KEY_ID: 'AKIDTEST', AWS_SECRET_ACCESS_KEY: SECRET }
/** The AWS files and addresses of this machine are out of sight. */
function alone(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return {
    AWS_EC2_METADATA_DISABLED: 'true',
    AWS_CONFIG_FILE: join(folder, 'none'),
    AWS_SHARED_CREDENTIALS_FILE: join(folder, 'none'),
    ...env,
  }
}
function read(
  words: readonly string[],
  env: NodeJS.ProcessEnv = LOGIN,
  flags: readonly string[] = [],
): Promise<Finished> {
  return manifold(['--from', ...words, '--to', '-', '--until', 'end', '--state', join(folder, 'state'), ...flags], {
    env: alone(env),
  })
}
function write(
  words: readonly string[],
  env: NodeJS.ProcessEnv = LOGIN,
  flags: readonly string[] = [],
): Promise<Finished> {
  return manifold(['--from', '-', '--to', ...words, ...flags], { input: 'a record\n', env: alone(env) })
}
/** It ended by itself and at once, with one error, on one line, that says why and holds no secret. */
function expectRefused({ code, stdout, stderr, ms }: Finished, expected: number, why: RegExp): void {
  const errors = stderr.split('\n').filter((line) => line.includes('error: '))
  expect({ code, stdout: stdout.toString(), errors, stderr }).toEqual({
    code: expected,
    stdout: '',
    errors: [expect.stringMatching(why)],
    stderr: expect.not.stringContaining(SECRET) as string,
  })
  expect(ms).toBeLessThan(20_000)
}

describe('options that contradict each other: all faults at once, before anything is opened', () => {
  test.each<[readonly string[], readonly RegExp[]]>([
    [['kinesis:'], [/no stream is named: kinesis:NAME/]],
    [['kinesis:clicks', 'stream-name=views'], [/several streams are named: clicks and views/]],
    [
      ['kinesis:clicks', `stream-arn=${ARN.replace('clicks', 'views')}`],
      [/several streams are named: clicks and views/],
    ],
    [
      [`kinesis:${ARN}`, `stream-arn=${ARN.replace('123456789012', '210987654321')}`],
      [/several streams are named: arn:.*123456789012.* and arn:.*210987654321/],
    ],
    [
      [`kinesis:${ARN}`, 'region=us-east-1', 'stream-name=views'],
      [/several streams are named: clicks and views/, /region=us-east-1 is not that of the ARN, eu-west-1/],
    ],
    [['kinesis:clicks', 'stream-arn=clicks'], [/stream-arn= is an ARN/]],
    [['kinesis:clicks', 'region=Ireland!'], [/region=Ireland! is none: eu-west-1 is such a name/]],
    [['kinesis:clicks', 'endpoint=localhost:4567'], [/endpoint is a URL: http:\/\/HOST:PORT/]],
    [['kinesis:clicks', 'access-key-id=AKID'], [/access-key-id and secret-access-key go together/]],
    [['kinesis:clicks', 'shard=3', 'leases=dynamodb:clicks'], [/shard= and leases= exclude each other/]],
    [['kinesis:clicks', 'shard=shard/3'], [/a shard is expected, such as shardId-000000000003 or 3/]],
    [
      ['kinesis:clicks', 'start=49590338271490256608559692538361571095921575989136588898'],
      [/one shard: name it with shard=/],
    ],
    [['kinesis:clicks', 'leases=clicks'], [/dynamodb:TABLE is expected/]],
    [['kinesis:clicks', 'worker-id=a'], [/worker-id= is for leases=dynamodb:TABLE, which is missing/]],
  ])('%j', async (words, whys) => {
    const { code, stdout, stderr } = await read(words)
    expect({ code, stdout: stdout.toString(), lines: stderr.trim().split('\n') }).toEqual({
      code: 2,
      stdout: '',
      lines: whys.map((why) => expect.stringMatching(why) as string),
    })
  })
  test("a sink's", async () => {
    const { code, stderr } = await write(['kinesis:clicks', 'order=key', 'partition-key=random'])
    expect({ code, lines: stderr.trim().split('\n') }).toEqual({
      code: 2,
      lines: [
        expect.stringMatching(
          /order=key keeps the order of each key, and partition-key=random gives every record another/,
        ),
      ],
    })
  })
})

describe('without a region, or in one that is none', () => {
  test('no region', async () => {
    expectRefused(
      await read(['kinesis:clicks']),
      3,
      /no region is known for Kinesis: give region=, or set MANIFOLD_AWS_REGION/,
    )
  })
  test.each([
    ['read', 3],
    ['written to', 4],
  ] as const)('a region without Kinesis, %s', async (how, code) => {
    // What a name server says, whichever is asked here, and whether one can be.
    writeFileSync(
      join(folder, 'names.cjs'),
      'require("node:dns").lookup = (host, _, done) => { process.nextTick(done, Object.assign(new Error(`getaddrinfo ENOTFOUND ${host}`), { code: "ENOTFOUND", syscall: "getaddrinfo" })) }',
    )
    const env = { ...LOGIN, NODE_OPTIONS: `--require=${join(folder, 'names.cjs')}` }
    expectRefused(
      await (how === 'read' ? read : write)(['kinesis:clicks', 'region=eu-west-9'], env),
      code,
      /there is no Kinesis in region eu-west-9 \(getaddrinfo ENOTFOUND kinesis\.eu-west-9\.amazonaws\.com\): correct region=$/,
    )
  })
})

describe('without credentials', () => {
  const NONE =
    /no credentials for Kinesis \(.*\): give access-key-id= and secret-access-key=, profile= or role-arn=, or set MANIFOLD_AWS_ACCESS_KEY and MANIFOLD_AWS_SECRET_KEY$/
  test.each([
    ['read', 3],
    ['written to', 4],
  ] as const)('%s', async (how, code) => {
    const run = how === 'read' ? read : write
    expectRefused(await run(['kinesis:clicks', 'region=eu-west-1', 'endpoint=http://127.0.0.1:1'], {}), code, NONE)
    expectRefused(
      await run(['kinesis:clicks', 'region=eu-west-1', 'endpoint=http://127.0.0.1:1', 'profile=nobody'], LOGIN),
      code,
      NONE,
    )
  })
})

describe('where something else listens', () => {
  const servers: Server[] = []
  const port = async (server: Server): Promise<number> => {
    servers.push(server)
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve)
    })
    return (server.address() as AddressInfo).port
  }
  afterEach(() => {
    for (const server of servers.splice(0)) server.close()
  })
  const page = (status: number, body: string): Server =>
    createHttpServer((request, response) => {
      request.resume().on('end', () => {
        response.writeHead(status, { connection: 'close' }).end(body)
      })
    })
  const talker = (text: string): Server =>
    createServer((socket) => {
      socket
        .on('error', () => undefined)
        .once('data', () => {
          socket.end(text)
        })
    })
  const IS_NOT = /what answers at http:\/\/127\.0\.0\.1:\d+ is not Kinesis \(.*\): correct endpoint=$/

  test.each<[string, () => Server, RegExp]>([
    ['a web server', () => page(200, '<!DOCTYPE html><p>Welcome'), IS_NOT],
    ['a web server that knows no such page', () => page(404, '<html>Not Found</html>'), IS_NOT],
    ['a web server that takes no POST', () => page(501, '<html>Unsupported method</html>'), IS_NOT],
    ['a service with answers of its own', () => page(200, '{"status":"up"}'), IS_NOT],
    ['a service that sends elsewhere', () => page(302, ''), /refuses to look at the stream: status 302/],
    ['S3', () => page(403, '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'), IS_NOT],
    ['what speaks no HTTP', () => talker('SSH-2.0-OpenSSH_9.2\r\n'), IS_NOT],
    ['a port of TLS', () => talker('\x15\x03\x03\x00\x02\x02\x46'), IS_NOT],
  ])('%s', async (_, serve, why) => {
    const words = ['kinesis:clicks', 'region=eu-west-1', `endpoint=http://127.0.0.1:${await port(serve())}`]
    const [reads, writes] = await Promise.all([read(words), write(words)])
    expectRefused(reads, 3, why)
    expectRefused(writes, 4, why)
  })
  test('a port without TLS, spoken to in TLS', async () => {
    expectRefused(
      await read(['kinesis:clicks', 'region=eu-west-1', `endpoint=https://127.0.0.1:${await port(page(200, ''))}`]),
      3,
      /Kinesis at https:\/\/127\.0\.0\.1:\d+ does not speak TLS: correct the scheme of endpoint=/,
    )
  })
  test('a gateway whose server is away, and nobody: both are waited for, as long as was asked', async () => {
    const gateway = await read(
      [
        'kinesis:clicks',
        'region=eu-west-1',
        `endpoint=http://127.0.0.1:${await port(page(502, '<html>Bad Gateway</html>'))}`,
      ],
      LOGIN,
      ['--give-up-after', '1s'],
    )
    expectRefused(gateway, 3, /could not look at the stream: status 502: .*<html>Bad/)
    expect(gateway.stderr).toMatch(/trying again/)
    expectRefused(
      await read(['kinesis:clicks', 'region=eu-west-1', 'endpoint=http://127.0.0.1:1'], LOGIN, [
        '--give-up-after',
        'first',
      ]),
      3,
      /Kinesis at http:\/\/127\.0\.0\.1:1 could not look at the stream: .*ECONNREFUSED/,
    )
  })
})

describeWith('kinesis', 'a service that refuses', () => {
  let server: AwsServer
  let client: ReturnType<typeof kinesisClient>
  let proxy: KinesisProxy
  let stream: string
  let words: readonly string[]
  beforeAll(async () => {
    server = await startKinesis({ kind: 'kinesalite' })
    client = kinesisClient(server)
    stream = await makeStream(client, 2)
    proxy = await KinesisProxy.start(server.endpoint)
    words = [`endpoint=${proxy.endpoint}`, 'region=eu-west-1']
  }, 60_000)
  afterEach(() => {
    proxy.fault = () => undefined
  })
  afterAll(async () => {
    client.destroy()
    await proxy.stop()
    await server.stop()
  })
  const says = (operation: string, code: string, message: string): void => {
    proxy.fault = (asked) => (asked === operation ? { kind: 'error', status: 400, code, message } : undefined)
  }
  const run = { read, 'written to': write }
  const denied = (action: string): string =>
    `User: arn:aws:iam::123456789012:user/alice is not authorized to perform: kinesis:${action} on resource: ${ARN} because no identity-based policy allows the kinesis:${action} action`

  describe.each([
    ['read', 3],
    ['written to', 4],
  ] as const)('when it is %s', (how, code) => {
    test('no such stream, which is also what the wrong region says', async () => {
      expectRefused(
        await run[how](['kinesis:clicks', ...words]),
        code,
        /there is no stream clicks in region eu-west-1 at \S+: create it, or correct its name or region=/,
      )
      // In Amazon's words, and of a stream named by its ARN, which the emulator does not take.
      says('DescribeStreamSummary', 'ResourceNotFoundException', 'Stream clicks under account 123456789012 not found.')
      expectRefused(
        await run[how]([`kinesis:${ARN}`, ...words]),
        code,
        /there is no stream arn:aws:kinesis:eu-west-1:\S+clicks in region eu-west-1/,
      )
    })
    test('an endpoint of another region', async () => {
      says(
        'DescribeStreamSummary',
        'InvalidSignatureException',
        "Credential should be scoped to a valid region, not 'eu-west-1'. ",
      )
      expectRefused(
        await run[how]([`kinesis:${stream}`, ...words]),
        code,
        /is not of region eu-west-1 \(Credential should be scoped to a valid region, not 'eu-west-1'\. ?\): correct region=/,
      )
    })
    test('an access key that nobody knows, a secret of another, a token that has expired', async () => {
      says(
        'DescribeStreamSummary',
        'UnrecognizedClientException',
        'The security token included in the request is invalid.',
      )
      expectRefused(
        await run[how]([`kinesis:${stream}`, ...words]),
        code,
        /does not know the access key: correct access-key-id=/,
      )
      says(
        'DescribeStreamSummary',
        'InvalidSignatureException',
        'The request signature we calculated does not match the signature you provided.',
      )
      expectRefused(
        await run[how]([`kinesis:${stream}`, ...words]),
        code,
        /refuses the signature .*correct secret-access-key=/,
      )
      says('DescribeStreamSummary', 'ExpiredTokenException', 'The security token included in the request is expired')
      expectRefused(
        await run[how]([`kinesis:${stream}`, ...words]),
        code,
        /refuses the session token.*renew the credentials/,
      )
    })
  })

  test.each(['DescribeStreamSummary', 'ListShards', 'GetShardIterator', 'GetRecords'])(
    'no permission to %s: the action is named',
    async (action) => {
      says(action, 'AccessDeniedException', denied(action))
      expectRefused(
        await read([`kinesis:${stream}`, ...words]),
        3,
        new RegExp(`denies it to .*not authorized.*: the credentials need kinesis:${action} on ${stream}$`),
      )
    },
  )
  test('no permission to write: the action is named; that to look at the stream is not needed for writing', async () => {
    says('PutRecords', 'AccessDeniedException', denied('PutRecords'))
    expectRefused(
      await write([`kinesis:${stream}`, ...words]),
      4,
      new RegExp(`denies it to write .*not authorized.*: the credentials need kinesis:PutRecords on ${stream}$`),
    )
    says('DescribeStreamSummary', 'AccessDeniedException', denied('DescribeStreamSummary'))
    expect(await write([`kinesis:${stream}`, ...words])).toMatchObject({ code: 0, stderr: '' })
  })
  test('a shard that there is not', async () => {
    expectRefused(
      await read([`kinesis:${stream}`, 'shard=7', ...words]),
      3,
      new RegExp(`stream ${stream} has no shardId-000000000007: shardId-000000000000, shardId-000000000001 are there$`),
    )
  })
  test('leases: a table that may not be used, and something else where DynamoDB should be', async () => {
    says('DescribeTable', 'AccessDeniedException', 'User: alice is not authorized to perform: dynamodb:DescribeTable')
    expectRefused(
      await read([`kinesis:${stream}`, 'leases=dynamodb:clicks', `leases-endpoint=${proxy.endpoint}`, ...words]),
      3,
      /denies it to look at the table .*: the credentials need dynamodb:DescribeTable, Scan, .* on the table clicks/,
    )
    const page = createHttpServer((_, response) => {
      response.writeHead(404).end('<html>Not Found</html>')
    })
    await new Promise<void>((resolve) => {
      page.listen(0, '127.0.0.1', resolve)
    })
    expectRefused(
      await read([
        `kinesis:${stream}`,
        'leases=dynamodb:clicks',
        `leases-endpoint=http://127.0.0.1:${(page.address() as AddressInfo).port}`,
        ...words,
      ]),
      3,
      /what answers at \S+ is not DynamoDB \(.*\): correct leases-endpoint=/,
    )
    page.closeAllConnections()
    page.close()
  })
})
