import fs from 'node:fs'
import { describeWith } from './describe-with'
import { committed, ends, get, groupName, makeTopic, put, runKcat, type SecureKafkaServer, startKafka } from './kafka'

/** A start takes a second on a machine that is idle. */
const PATIENT = 90_000

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

describeWith('kafka', 'a Kafka node of the tests', () => {
  it(
    'survives kill -9 with its records and its ports, and leaves neither process nor folder',
    async () => {
      const server = await startKafka({ own: true })
      const { bootstrap, pid, dir } = server
      try {
        const topic = await makeTopic(server, { partitions: 3 })
        const records = Array.from({ length: 30 }, (_, i) => ({
          value: `value ${i}`,
          key: `key ${i}`,
          headers: [['n', String(i)]] as const,
          partition: i % 3,
          timestamp: 1_700_000_000_000 + i,
        }))
        await put(server, topic, records)
        await server.kill()
        expect(alive(pid!)).toBe(false)
        await server.restart()
        expect(server.bootstrap).toBe(bootstrap)
        expect(await ends(server, topic)).toEqual([10, 10, 10])
        const got = await get(server, topic)
        expect(
          [...got]
            .sort((a, b) => a.timestamp - b.timestamp)
            .map(({ value, key, headers, partition, offset, timestamp }) => [
              String(value),
              String(key),
              headers,
              partition,
              offset,
              timestamp,
            ]),
        ).toEqual(
          records.map(({ value, key, headers, partition, timestamp }, i) => [
            value,
            key,
            headers,
            partition,
            Math.floor(i / 3),
            timestamp,
          ]),
        )
        server.freeze()
      } finally {
        await server.stop()
      }
      expect(alive(server.pid!)).toBe(false)
      expect(fs.existsSync(dir!)).toBe(false)
    },
    PATIENT,
  )
  it(
    'gives each node a cluster and ports of its own',
    async () => {
      const servers = await Promise.all([startKafka({ own: true }), startKafka({ own: true })])
      try {
        const [one, two] = await Promise.all(
          servers.map(async (server) =>
            (
              await server.tool('org.apache.kafka.tools.ClusterTool', [
                'cluster-id',
                '--bootstrap-server',
                '{bootstrap}',
              ])
            ).trim(),
          ),
        )
        expect(one).toMatch(/^Cluster ID: /)
        expect(one).not.toBe(two)
      } finally {
        await Promise.all(servers.map((server) => server.stop()))
      }
    },
    PATIENT,
  )
  it(
    'takes properties of the broker, and says why it does not start',
    async () => {
      await expect(startKafka({ properties: { 'num.io.threads': 'many' } })).rejects.toThrow(
        /kafka did not start on port \d+: .*many/,
      )
    },
    PATIENT,
  )
})

describeWith('kafka', 'a secure Kafka node of the tests', () => {
  let server: SecureKafkaServer
  beforeAll(async () => {
    server = await startKafka({ secure: true })
  }, PATIENT)
  afterAll(async () => {
    await server?.stop()
  })

  async function topicsSeenBy(options: object): Promise<readonly string[] | string> {
    const { Admin } = await import('@platformatic/kafka')
    const admin = new Admin({ clientId: 'test', retries: 0, timeout: 5000, ...options } as ConstructorParameters<
      typeof Admin
    >[0])
    try {
      return await admin.listTopics()
    } catch (error) {
      return (error as Error).name
    } finally {
      await admin.close().catch(() => undefined)
    }
  }
  const tls = (pem?: { readonly cert: string; readonly key: string }) => ({
    ca: fs.readFileSync(server.certificates.ca),
    ...(pem === undefined ? {} : { cert: fs.readFileSync(pem.cert), key: fs.readFileSync(pem.key) }),
  })

  it(
    'knows its users by password, token and certificate, and nobody else',
    async () => {
      const topic = await makeTopic(server)
      const { listeners, users, certificates, token } = server
      const alice = { username: 'alice', password: users.alice }
      for (const mechanism of ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']) {
        expect(await topicsSeenBy({ bootstrapBrokers: [listeners.sasl], sasl: { mechanism, ...alice } })).toContain(
          topic,
        )
        expect(
          await topicsSeenBy({ bootstrapBrokers: [listeners.saslTls], tls: tls(), sasl: { mechanism, ...alice } }),
        ).toContain(topic)
        expect(
          await topicsSeenBy({
            bootstrapBrokers: [listeners.sasl],
            sasl: { mechanism, username: 'alice', password: 'wrong' },
          }),
        ).toMatch(/Error$/)
      }
      expect(
        await topicsSeenBy({
          bootstrapBrokers: [listeners.sasl],
          sasl: { mechanism: 'OAUTHBEARER', token: token({ sub: 'alice', signed: false }) },
        }),
      ).toContain(topic)
      const signed = (ask: Parameters<typeof token>[0]) =>
        topicsSeenBy({
          bootstrapBrokers: [listeners.saslTls],
          tls: tls(),
          sasl: { mechanism: 'OAUTHBEARER', token: token(ask) },
        })
      expect(await signed({ sub: 'alice' })).toContain(topic)
      for (const refused of [
        { sub: 'alice', signed: false },
        { sub: 'alice', seconds: -120 },
        { sub: 'alice', claims: { aud: 'other' } },
      ])
        expect(await signed(refused)).toMatch(/Error$/)
      expect(await topicsSeenBy({ bootstrapBrokers: [listeners.tls], tls: tls() })).toContain(topic)
      expect(await topicsSeenBy({ bootstrapBrokers: [listeners.tls], tls: {} })).toMatch(/Error$/)
      expect(
        await topicsSeenBy({ bootstrapBrokers: [listeners.mutualTls], tls: tls(certificates.clients.alice) }),
      ).toContain(topic)
      for (const pem of [undefined, certificates.stranger])
        expect(await topicsSeenBy({ bootstrapBrokers: [listeners.mutualTls], tls: tls(pem) })).toMatch(/Error$/)
    },
    PATIENT,
  )
  it(
    'lets carol see what she was given and no more, also after a restart',
    async () => {
      const [hidden, readable] = [await makeTopic(server), await makeTopic(server, { prefix: 'readable-' })]
      await server.restart()
      const seen = await topicsSeenBy({
        bootstrapBrokers: [server.listeners.sasl],
        sasl: { mechanism: 'SCRAM-SHA-256', username: 'carol', password: server.users.carol },
      })
      expect(seen).toContain(readable)
      expect(seen).not.toContain(hidden)
    },
    PATIENT,
  )
})

describeWith('kcat', 'kcat beside a Kafka node of the tests', () => {
  it(
    'reads what was put and puts what is read, in a group as well',
    async () => {
      const server = await startKafka()
      try {
        const topic = await makeTopic(server)
        await put(server, topic, [{ value: 'one' }, { value: 'two', key: 'k' }], 'zstd')
        await runKcat(['-b', server.bootstrap, '-P', '-t', topic, '-K', ':'], 'k3:three\n')
        expect(String(await runKcat(['-b', server.bootstrap, '-C', '-t', topic, '-e', '-q', '-f', '%k=%s\n']))).toBe(
          '=one\nk=two\nk3=three\n',
        )
        expect((await get(server, topic)).map(({ value }) => String(value))).toEqual(['one', 'two', 'three'])
        const group = groupName()
        await runKcat(['-b', server.bootstrap, '-G', group, '-c', '3', '-q', '-X', 'auto.offset.reset=earliest', topic])
        expect(await committed(server, group)).toEqual([{ topic, partition: 0, offset: 3 }])
      } finally {
        await server.stop()
      }
    },
    PATIENT,
  )
})
