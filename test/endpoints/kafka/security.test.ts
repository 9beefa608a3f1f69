/**
 * Logins, certificates and rights on a real broker, through the built program: what works, and the one line that says
 * why something does not.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeWith } from '../../services/describe-with'
import { get, groupName, makeTopic, put, type SecureKafkaServer, startKafka } from '../../services/kafka'
import { manifold, type StartOptions } from '../../support/manifold'

const PATIENT = 90_000
const SECRET = 'canary-0f3a9c'

describeWith('kafka', 'a secure broker', () => {
  let server: SecureKafkaServer
  let topic: string
  beforeAll(async () => {
    server = await startKafka({ secure: true })
    topic = await makeTopic(server)
  }, PATIENT)
  afterAll(async () => {
    await server?.stop()
  })

  const env = (): NodeJS.ProcessEnv => ({
    ALICE: server.users.alice,
    CAROL: server.users.carol,
    WRONG: SECRET,
    TOKEN: server.token({ sub: 'alice' }),
    EXPIRED: server.token({ sub: 'alice', seconds: -3600 }),
  })
  const write = (uri: string, words: readonly string[] = [], options: StartOptions = {}) =>
    manifold(['--give-up-after', '5s', '--from', '-', '--to', uri, ...words], {
      input: 'a record\n',
      env: env(),
      ...options,
    })
  const read = (uri: string, words: readonly string[] = []) =>
    manifold(['--give-up-after', '5s', '--until', 'end', '--from', uri, ...words, '--to', '-'], { env: env() })
  const errors = (stderr: string): readonly string[] => stderr.split('\n').filter((line) => line.includes('error: '))

  it.each<[string, 'sasl' | 'saslTls' | 'tls' | 'mutualTls', (s: SecureKafkaServer) => readonly string[]]>([
    ['a password (PLAIN)', 'sasl', () => ['user=alice', 'password={env:ALICE}']],
    [
      'a password over TLS (SCRAM-SHA-256)',
      'saslTls',
      (s) => ['user=alice', 'password={env:ALICE}', 'sasl=scram-sha-256', `ca=${s.certificates.ca}`],
    ],
    [
      'a password over TLS (SCRAM-SHA-512)',
      'saslTls',
      (s) => ['user=alice', 'password={env:ALICE}', 'sasl=scram-sha-512', `ca=${s.certificates.ca}`],
    ],
    [
      'properties under their Java names',
      'saslTls',
      (s) => [
        'sasl.mechanism=SCRAM-SHA-512',
        'sasl.username=alice',
        'sasl.password={env:ALICE}',
        `ssl.ca.location=${s.certificates.ca}`,
      ],
    ],
    ['a token', 'saslTls', (s) => ['token={env:TOKEN}', `ca=${s.certificates.ca}`]],
    ['TLS', 'tls', (s) => [`ca=${s.certificates.ca}`]],
    [
      'a client certificate',
      'mutualTls',
      (s) => [
        `ca=${s.certificates.ca}`,
        `cert=${s.certificates.clients.alice.cert}`,
        `cert-key=${s.certificates.clients.alice.key}`,
      ],
    ],
    ['any certificate, when asked to', 'tls', () => ['tls-insecure']],
  ])(
    'writes and reads with %s',
    async (_, listener, wordsOf) => {
      const own = await makeTopic(server)
      const uri = `${listener === 'sasl' ? 'kafka' : 'kafka+tls'}://${server.listeners[listener]}/${own}`
      const words = wordsOf(server)
      const written = await write(uri, words)
      expect([written.code, errors(written.stderr)]).toEqual([0, []])
      expect((await get(server, own)).map(({ value }) => String(value))).toEqual(['a record'])
      const back = await read(uri, words)
      expect([back.code, back.stdout.toString(), errors(back.stderr)]).toEqual([0, 'a record\n', []])
    },
    PATIENT,
  )

  describe.each([
    ['written to', 4],
    ['read', 3],
  ] as const)('when it is %s', (how, code) => {
    const run = (uri: string, words: readonly string[] = []) => (how === 'read' ? read(uri, words) : write(uri, words))
    it.each<[string, (s: SecureKafkaServer) => readonly [string, ...string[]], RegExp]>([
      [
        'a wrong password',
        (s) => [`kafka://${s.listeners.sasl}/T`, 'user=alice', 'password={env:WRONG}'],
        /refuses the login of user alice \(plain\).*: correct user and password$/,
      ],
      [
        'a wrong password (SCRAM)',
        (s) => [
          `kafka+tls://${s.listeners.saslTls}/T`,
          'user=alice',
          'password={env:WRONG}',
          'sasl=scram-sha-512',
          `ca=${s.certificates.ca}`,
        ],
        /refuses the login of user alice \(scram-sha-512\).*: correct user and password$/,
      ],
      [
        'a token that has expired',
        (s) => [`kafka+tls://${s.listeners.saslTls}/T`, 'token={env:EXPIRED}', `ca=${s.certificates.ca}`],
        /refuses the token|refuses the login/,
      ],
      [
        'AWS credentials where the broker asks no AWS',
        (s) => [
          `kafka+tls://${s.listeners.saslTls}/T`,
          'sasl.mechanism=AWS_MSK_IAM',
          'region=eu-west-1',
          'access-key-id=AKIDEXAMPLE',
          'secret-access-key={env:WRONG}',
          `ca=${s.certificates.ca}`,
        ],
        /refuses the token|refuses the login/,
      ],
      [
        'AWS credentials without a region',
        (s) => [
          `kafka+tls://${s.listeners.saslTls}/T`,
          'sasl=aws-msk-iam',
          'access-key-id=AKIDEXAMPLE',
          'secret-access-key={env:WRONG}',
          `ca=${s.certificates.ca}`,
        ],
        /sasl=aws-msk-iam needs the region: give region=$/,
      ],
      [
        'no login where one is wanted',
        (s) => [`kafka://${s.listeners.sasl}/T`],
        /may want a login \(user=, password=, sasl=\)$/,
      ],
      [
        'a login where none is taken',
        (s) => [`kafka+tls://${s.listeners.tls}/T`, 'user=alice', 'password={env:ALICE}', `ca=${s.certificates.ca}`],
        /takes no login on this port/,
      ],
      [
        'an authority it does not know',
        (s) => [`kafka+tls://${s.listeners.tls}/T`],
        /the certificate of \S+ is not trusted \(\w+\): name the authority that signed it with ca=/,
      ],
      [
        'a wrong authority',
        (s) => [`kafka+tls://${s.listeners.tls}/T`, `ca=${s.certificates.stranger.cert}`],
        /the certificate of \S+ is not trusted \(\w+\): name the authority that signed it with ca=/,
      ],
      [
        'a wrong name',
        (s) => [`kafka+tls://${s.listeners.tls}/T`, `ca=${s.certificates.ca}`, 'server-name=other.example'],
        /is for another name: .*server-name=/,
      ],
      [
        'no client certificate where one is wanted',
        (s) => [`kafka+tls://${s.listeners.mutualTls}/T`, `ca=${s.certificates.ca}`],
        /may want a client certificate, cert= and cert-key=, or another one/,
      ],
      [
        'a client certificate of a stranger',
        (s) => [
          `kafka+tls://${s.listeners.mutualTls}/T`,
          `ca=${s.certificates.ca}`,
          `cert=${s.certificates.stranger.cert}`,
          `cert-key=${s.certificates.stranger.key}`,
        ],
        /may want a client certificate, cert= and cert-key=, or another one/,
      ],
      ['plaintext to a TLS port', (s) => [`kafka://${s.listeners.tls}/T`], /speaks TLS: write kafka\+tls:\/\/$/],
      [
        'TLS to a plaintext port',
        (s) => [`kafka+tls://${s.listeners.plain}/T`],
        /does not speak TLS: is kafka:\/\/ meant/,
      ],
      ['a topic that is not there', (s) => [`kafka://${s.listeners.plain}/not-there`], /there is no (such )?topic/],
      [
        'a topic it has no right to',
        (s) => [`kafka://${s.listeners.sasl}/T`, 'user=carol', 'password={env:CAROL}'],
        /no permission|there is no such topic|let the principal DESCRIBE it/,
      ],
    ])(
      '%s is one clear line',
      async (_, wordsOf, line) => {
        const [uri, ...words] = wordsOf(server)
        const { code: exit, stderr, stdout } = await run(uri.replace(/\/T$/, `/${topic}`), words)
        expect(errors(stderr)).toEqual([expect.stringMatching(line) as string])
        expect(exit).toBe(code)
        expect(stdout.toString()).toBe('')
        expect(stderr).not.toContain(SECRET)
      },
      PATIENT,
    )
  })

  it(
    'a right to look at a topic is none to write to it, nor to read it',
    async () => {
      const [readable, writable] = [
        await makeTopic(server, { prefix: 'readable' }),
        await makeTopic(server, { prefix: 'writable' }),
      ]
      for (const each of [readable, writable]) await put(server, each, [{ value: 'x' }])
      const carol = ['user=carol', 'password={env:CAROL}']
      const written = await write(`kafka://${server.listeners.sasl}/${readable}`, carol)
      expect([written.code, errors(written.stderr)]).toEqual([
        4,
        [expect.stringMatching(/no permission: the principal needs WRITE on topic readable/) as string],
      ])
      const back = await read(`kafka://${server.listeners.sasl}/${writable}`, carol)
      expect([back.code, errors(back.stderr)]).toEqual([
        3,
        [
          expect.stringMatching(
            /no permission: the principal needs READ on topic writable|there is no topic writable/,
          ) as string,
        ],
      ])
      const grouped = await read(`kafka://${server.listeners.sasl}/${readable}`, [
        ...carol,
        `group=${groupName('not-hers')}`,
      ])
      expect([grouped.code, errors(grouped.stderr)]).toEqual([
        3,
        [expect.stringMatching(/no permission.*READ on group not-hers/) as string],
      ])
    },
    PATIENT,
  )

  it(
    'a topic that a record names and that it must not be written to makes the record a dead letter, and the others go on',
    async () => {
      const [readable, writable] = [
        await makeTopic(server, { prefix: 'readable' }),
        await makeTopic(server, { prefix: 'writable' }),
      ]
      const folder = mkdtempSync(join(tmpdir(), 'manifold-rights-'))
      try {
        const dead = join(folder, 'dead.ndjson')
        const to = [
          `kafka://${server.listeners.sasl}/`,
          'topic={json:t}',
          'allow-topic=~(readable|writable).*',
          'user=carol',
          'password={env:CAROL}',
        ]
        const { code, stderr } = await manifold(['--from', '-', '--to', ...to, '--dead-letter', `file:${dead}`], {
          input: [writable, readable, writable, topic].map((t, n) => `${JSON.stringify({ t, n })}\n`).join(''),
          env: env(),
        })
        expect([code, errors(stderr)]).toEqual([
          5,
          [
            expect.stringMatching(/2 records could not be delivered$/) as string,
            expect.stringContaining('2 rejected records lie in') as string,
          ],
        ])
        expect(
          (await get(server, writable)).map(({ value }) => (JSON.parse(String(value)) as { n: number }).n),
        ).toEqual([0, 2])
        const letters = readFileSync(dead, 'utf8')
          .trimEnd()
          .split('\n')
          .map((line) => JSON.parse(line) as { readonly why: string })
        expect(letters.map(({ why }) => why).sort()).toEqual([
          expect.stringMatching(`allow-topic does not name the topic '${topic}'`),
          expect.stringMatching(new RegExp(`topic ${readable}: (no permission|TOPIC_AUTHORIZATION_FAILED)`)),
        ])
      } finally {
        rmSync(folder, { recursive: true })
      }
    },
    PATIENT,
  )

  it(
    'what is no broker is called that',
    async () => {
      const web = createServer((_, response) => {
        response.end('x')
      })
      await new Promise<void>((resolve) => {
        web.listen(0, '127.0.0.1', resolve)
      })
      try {
        const { code, stderr } = await write(`kafka://127.0.0.1:${(web.address() as AddressInfo).port}/t`)
        expect([code, errors(stderr)]).toEqual([
          4,
          [expect.stringMatching(/is no Kafka broker: it answers 'HTTP\/1.1 400 Bad Request'$/) as string],
        ])
      } finally {
        web.close()
      }
    },
    PATIENT,
  )
})
