/** Tests the built program between real servers: a message arrives unchanged, even through Kafka or an envelope. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Options } from 'amqplib'
import { describeWith } from '../../services/describe-with'
import { get, makeTopic, put, startKafka, type KafkaServer } from '../../services/kafka'
import { manifold } from '../../support/manifold'
import { Broker } from './broker'

const PROPERTIES: Options.Publish = {
  contentType: 'application/json',
  contentEncoding: 'gzip',
  priority: 3,
  correlationId: 'c-1',
  replyTo: 'answers',
  expiration: '3600000',
  messageId: 'm-1',
  timestamp: 1_700_000_000,
  type: 'order',
  userId: 'guest',
  appId: 'shop',
  persistent: true,
  headers: {
    text: 'größe',
    bytes: Buffer.from([0xff, 0, 0xc3]),
    yes: true,
    no: false,
    nothing: null,
    list: [1, 'a', { deep: [true] }],
    table: { a: 1, b: { c: 'd' } },
    int8: { '!': 'int8', value: -5 },
    int16: { '!': 'int16', value: -300 },
    int32: { '!': 'int32', value: 70_000 },
    int64: { '!': 'int64', value: 2n ** 53n - 1n },
    uint8: { '!': 'uint8', value: 250 },
    uint16: { '!': 'uint16', value: 65_000 },
    uint32: { '!': 'uint32', value: 4_000_000_000 },
    float: { '!': 'float', value: 1.5 },
    double: { '!': 'double', value: 1e300 },
    time: { '!': 'timestamp', value: 1_700_000_000 },
    decimal: { '!': 'decimal', value: { digits: 12_345, places: 2 } },
  },
}

describeWith('rabbitmq', 'bridges', () => {
  let broker: Broker
  const folder = mkdtempSync(join(tmpdir(), 'manifold-bridges-'))
  beforeAll(async () => {
    broker = await Broker.start()
  }, 90_000)
  afterAll(async () => {
    await broker.stop()
    rmSync(folder, { recursive: true, force: true })
  }, 30_000)
  let serial = 0
  const queue = (): Promise<string> => broker.declare(`bridge-${++serial}`)
  async function run(...args: readonly string[]): Promise<string> {
    const { code, stderr } = await manifold([
      ...args,
      '--until',
      'end',
      '--log-level',
      'info',
      '--state',
      join(folder, `state-${++serial}`),
    ])
    expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
    return stderr
  }
  /** Two messages: with all there is, and with nothing. */
  async function filled(): Promise<string> {
    const from = await queue()
    await broker.put(from, ['{"n":1}', ''], (index) => (index === 0 ? PROPERTIES : {}))
    return from
  }
  async function expectFilled(name: string, given: { readonly timestamp?: number } = {}): Promise<void> {
    const [full, plain, ...more] = await broker.drain(name)
    expect(more).toEqual([])
    expect(full!.content.toString()).toBe('{"n":1}')
    expect(plain!.content.length).toBe(0)
    // As the library reads the same message where it was not sent on.
    const reference = await queue()
    await broker.put(reference, ['x'], PROPERTIES)
    const [sent] = await broker.drain(reference)
    expect(full!.properties).toEqual(sent!.properties)
    const { timestamp } = given
    expect(plain!.properties.headers ?? {}).toEqual(
      timestamp === undefined || timestamp % 1000 === 0 ? {} : { timestamp_in_ms: timestamp },
    )
    expect(plain!.properties.timestamp).toEqual(timestamp === undefined ? undefined : Math.floor(timestamp / 1000))
  }

  test('from queue to queue', async () => {
    const [from, to] = [await filled(), await queue()]
    const said = await run('--from', broker.uri(), `queue=${from}`, '--to', broker.uri(), `queue=${to}`)
    expect(said).toMatch(/the key of a record travels in the header manifold-key, for queue= is the routing key\n/)
    await expectFilled(to)
  })

  test('to the queue of the same name on another broker, where the line names none', async () => {
    const name = `twin-${++serial}`
    await broker.declare(name)
    await broker.put(name, ['a', 'b'])
    await run('--from', broker.uri(), `queue=${name}`, '--to', `file:${folder}/twin.ndjson`, 'framing=envelope')
    await run('--from', `file:${folder}/twin.ndjson`, 'framing=envelope', '--to', broker.uri(), 'key={key}')
    expect(
      (await broker.drain(name)).map(({ content, properties }) => [String(content), properties.headers ?? {}]),
    ).toEqual([
      ['a', {}],
      ['b', {}],
    ])
  })

  test('a routing key of an exchange goes along to a queue, and is the routing key again behind it', async () => {
    const [from, to, far] = [await queue(), await queue(), await queue()]
    const exchange = `events-${++serial}`
    const channel = await broker.channel()
    await channel.assertExchange(exchange, 'topic')
    await channel.bindQueue(from, exchange, 'trades.#')
    channel.publish(exchange, 'trades.btc', Buffer.from('x'))
    await channel.waitForConfirms()
    await run('--from', broker.uri(), `queue=${from}`, '--to', broker.uri(), `queue=${to}`)
    await channel.bindQueue(far, exchange, 'trades.btc')
    await run('--from', broker.uri(), `queue=${to}`, '--to', broker.uri(), `exchange=${exchange}`)
    await channel.close()
    const [one] = await broker.drain(far)
    expect({ key: one!.fields.routingKey, headers: one!.properties.headers ?? {} }).toEqual({
      key: 'trades.btc',
      headers: {},
    })
  })

  test('a key that a template leaves no place for, and an empty one, travel to an exchange too', async () => {
    const [name, exchange] = [await queue(), `typed-${++serial}`]
    const channel = await broker.channel()
    await channel.assertExchange(exchange, 'fanout')
    await channel.bindQueue(name, exchange, '')
    await channel.close()
    const records = [
      { value: '{"type":"a"}', key: 'mine' },
      { value: '{"type":"a"}', key: 'a' },
      { value: '{"type":""}', key: '' },
    ]
    writeFileSync(join(folder, 'typed.ndjson'), records.map((record) => `${JSON.stringify(record)}\n`).join(''))
    await run(
      '--from',
      `file:${folder}/typed.ndjson`,
      'framing=envelope',
      '--to',
      broker.uri(),
      `exchange=${exchange}`,
      'key={json:type}',
    )
    await run('--from', broker.uri(), `queue=${name}`, '--to', `file:${folder}/typed-back.ndjson`, 'framing=envelope')
    const back = readFileSync(join(folder, 'typed-back.ndjson'), 'utf8').trimEnd().split('\n')
    expect(back.map((line) => JSON.parse(line) as unknown)).toEqual(
      records.map((record) => expect.objectContaining(record) as unknown),
    )
  })

  test('by way of a file of envelopes', async () => {
    const [from, to] = [await filled(), await queue()]
    await run('--from', broker.uri(), `queue=${from}`, '--to', `file:${folder}/envelopes.ndjson`, 'framing=envelope')
    await run('--from', `file:${folder}/envelopes.ndjson`, 'framing=envelope', '--to', broker.uri(), `queue=${to}`)
    await expectFilled(to)
  })

  describeWith('kafka', 'to and from Kafka', () => {
    let kafka: KafkaServer
    beforeAll(async () => {
      kafka = await startKafka()
    }, 90_000)
    afterAll(async () => {
      await kafka.stop()
    }, 30_000)

    test("a message is the same after Kafka, where its queue's name is no key, and its properties and headers are text", async () => {
      const [from, to, topic] = [await filled(), await queue(), await makeTopic(kafka)]
      await run('--from', broker.uri(), `queue=${from}`, '--to', `kafka://${kafka.bootstrap}/${topic}`)
      const [full, plain] = await get(kafka, topic, 2)
      expect({ value: String(full!.value), key: full!.key, timestamp: full!.timestamp }).toEqual({
        value: '{"n":1}',
        key: null,
        timestamp: 1_700_000_000_000,
      })
      expect(full!.headers).toEqual(
        expect.arrayContaining([
          ['amqp.message-id', 'm-1'],
          ['amqp.content-type', 'application/json'],
          ['text', 'größe'],
          ['int64', '9007199254740991'],
          ['yes', 'true'],
          ['decimal', '2:12345'],
          ['amqp.routing-key', from],
        ]),
      )
      expect({ value: String(plain!.value), key: plain!.key }).toEqual({ value: '', key: null })
      await run('--from', `kafka://${kafka.bootstrap}/${topic}`, '--to', broker.uri(), `queue=${to}`)
      // Kafka has given it a time.
      await expectFilled(to, { timestamp: plain!.timestamp })
    })

    test('keys of records outlive a queue, which has one routing key for all, and a second one behind it', async () => {
      const [first, second, from, to] = [await queue(), await queue(), await makeTopic(kafka), await makeTopic(kafka)]
      const keys = ['user-1', 'größe', '', first, null, 'x'.repeat(300)]
      const binary = Buffer.from([0xff, 0, 0x80])
      await put(kafka, from, [
        ...keys.map((key, n) => ({ value: String(n), ...(key === null ? {} : { key }) })),
        { value: 'binary', key: binary },
      ])
      expect(await run('--from', `kafka://${kafka.bootstrap}/${from}`, '--to', broker.uri(), `queue=${first}`)).toMatch(
        /the key of a record travels in the header manifold-key/,
      )
      await run('--from', broker.uri(), `queue=${first}`, '--to', broker.uri(), `queue=${second}`)
      await run('--from', broker.uri(), `queue=${second}`, '--to', `kafka://${kafka.bootstrap}/${to}`)
      const got = await get(kafka, to, keys.length + 1)
      const keyed = (records: typeof got): unknown =>
        Object.fromEntries(records.map(({ value, key }) => [String(value), key]))
      expect(keyed(got)).toEqual(keyed(await get(kafka, from, keys.length + 1)))
      expect(keyed(got)).toMatchObject({ 0: Buffer.from('user-1'), 3: Buffer.from(first), 4: null, binary })
      expect(
        got.flatMap(({ headers }) => headers.map(([name]) => name)).filter((name) => name === 'manifold-key'),
      ).toEqual([])
    })

    test('a record is the same after a queue: key, headers, milliseconds and tombstones', async () => {
      const [name, from, to] = [await queue(), await makeTopic(kafka), await makeTopic(kafka)]
      const records = [
        {
          value: 'v',
          key: name,
          headers: [
            ['h', 'ü'],
            ['empty', ''],
          ] as const,
          timestamp: 1_700_000_000_123,
        },
        { value: null, key: name, timestamp: 1_700_000_000_124 },
        { value: '', key: name, timestamp: 1_700_000_001_000 },
      ]
      await put(kafka, from, records)
      expect(await run('--from', `kafka://${kafka.bootstrap}/${from}`, '--to', broker.uri(), 'key={key}')).not.toMatch(
        /manifold-key/,
      )
      const said = await run('--from', broker.uri(), `queue=${name}`, '--to', `kafka://${kafka.bootstrap}/${to}`)
      expect(said).not.toMatch(/key/)
      const got = await get(kafka, to, 3)
      expect(
        got.map(({ value, key, timestamp }) => ({
          value: value === null ? null : String(value),
          key: String(key),
          timestamp,
        })),
      ).toEqual(records.map(({ value, key, timestamp }) => ({ value, key, timestamp })))
      expect(got[0]!.headers).toEqual(
        expect.arrayContaining([
          ['h', 'ü'],
          ['empty', ''],
        ]),
      )
    })
  })
})
