/** Through the built program, between real servers: what a message holds is the same at the far end, also by way of Kafka and of an envelope. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Options } from 'amqplib'
import { describeWith } from '../../services/describe-with'
import { get, makeTopic, put, startKafka, type KafkaServer } from '../../services/kafka'
import { manifold } from '../../support/manifold'
import { Broker } from './broker'

const PROPERTIES: Options.Publish = {
  contentType: 'application/json', contentEncoding: 'gzip', priority: 3, correlationId: 'c-1', replyTo: 'answers', expiration: '3600000', messageId: 'm-1', timestamp: 1_700_000_000, type: 'order', userId: 'guest', appId: 'shop', persistent: true,
  headers: {
    text: 'größe', bytes: Buffer.from([0xff, 0, 0xc3]), yes: true, no: false, nothing: null, list: [1, 'a', { deep: [true] }], table: { a: 1, b: { c: 'd' } },
    int8: { '!': 'int8', value: -5 }, int16: { '!': 'int16', value: -300 }, int32: { '!': 'int32', value: 70_000 }, int64: { '!': 'int64', value: 2n ** 53n - 1n }, uint8: { '!': 'uint8', value: 250 }, uint16: { '!': 'uint16', value: 65_000 }, uint32: { '!': 'uint32', value: 4_000_000_000 },
    float: { '!': 'float', value: 1.5 }, double: { '!': 'double', value: 1e300 }, time: { '!': 'timestamp', value: 1_700_000_000 }, decimal: { '!': 'decimal', value: { digits: 12_345, places: 2 } },
  },
}

describeWith('rabbitmq', 'bridges', () => {
  let broker: Broker
  const folder = mkdtempSync(join(tmpdir(), 'manifold-bridges-'))
  beforeAll(async () => { broker = await Broker.start() }, 90_000)
  afterAll(async () => {
    await broker.stop()
    rmSync(folder, { recursive: true, force: true })
  }, 30_000)
  let serial = 0
  const queue = (): Promise<string> => broker.declare(`bridge-${++serial}`)
  async function run(...args: readonly string[]): Promise<string> {
    const { code, stderr } = await manifold([...args, '--until', 'end', '--log-level', 'info', '--state', join(folder, `state-${++serial}`)])
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
    expect(plain!.properties.headers ?? {}).toEqual(timestamp === undefined || timestamp % 1000 === 0 ? {} : { timestamp_in_ms: timestamp })
    expect(plain!.properties.timestamp).toEqual(timestamp === undefined ? undefined : Math.floor(timestamp / 1000))
  }

  test('from queue to queue', async () => {
    const [from, to] = [await filled(), await queue()]
    const said = await run('--from', broker.uri(), `queue=${from}`, '--to', broker.uri(), `queue=${to}`)
    expect(said).toMatch(/the key of records is not sent on, for queue= is the routing key of all\n/)
    await expectFilled(to)
  })

  test('by way of a file of envelopes', async () => {
    const [from, to] = [await filled(), await queue()]
    await run('--from', broker.uri(), `queue=${from}`, '--to', `file:${folder}/envelopes.ndjson`, 'framing=envelope')
    await run('--from', `file:${folder}/envelopes.ndjson`, 'framing=envelope', '--to', broker.uri(), `queue=${to}`)
    await expectFilled(to)
  })

  describeWith('kafka', 'to and from Kafka', () => {
    let kafka: KafkaServer
    beforeAll(async () => { kafka = await startKafka() }, 90_000)
    afterAll(async () => { await kafka.stop() }, 30_000)

    test('a message is the same after Kafka, where its routing key is the key, and its properties and headers are text', async () => {
      const [from, to, topic] = [await filled(), await queue(), await makeTopic(kafka)]
      await run('--from', broker.uri(), `queue=${from}`, '--to', `kafka://${kafka.bootstrap}/${topic}`)
      const [full, plain] = await get(kafka, topic, 2)
      expect({ value: String(full!.value), key: String(full!.key), timestamp: full!.timestamp }).toEqual({ value: '{"n":1}', key: from, timestamp: 1_700_000_000_000 })
      expect(full!.headers).toEqual(expect.arrayContaining([['amqp.message-id', 'm-1'], ['amqp.content-type', 'application/json'], ['text', 'größe'], ['int64', '9007199254740991'], ['yes', 'true'], ['decimal', '2:12345']]))
      expect({ value: String(plain!.value), key: String(plain!.key) }).toEqual({ value: '', key: from })
      await run('--from', `kafka://${kafka.bootstrap}/${topic}`, '--to', broker.uri(), `queue=${to}`)
      // Kafka has given it a time.
      await expectFilled(to, { timestamp: plain!.timestamp })
    })

    test('a record is the same after a queue: key, headers, milliseconds and tombstones', async () => {
      const [name, from, to] = [await queue(), await makeTopic(kafka), await makeTopic(kafka)]
      const records = [
        { value: 'v', key: name, headers: [['h', 'ü'], ['empty', '']] as const, timestamp: 1_700_000_000_123 },
        { value: null, key: name, timestamp: 1_700_000_000_124 },
        { value: '', key: name, timestamp: 1_700_000_001_000 },
      ]
      await put(kafka, from, records)
      expect(await run('--from', `kafka://${kafka.bootstrap}/${from}`, '--to', broker.uri(), 'key={key}')).not.toMatch(/not sent on/)
      const said = await run('--from', broker.uri(), `queue=${name}`, '--to', `kafka://${kafka.bootstrap}/${to}`)
      expect(said).not.toMatch(/key/)
      const got = await get(kafka, to, 3)
      expect(got.map(({ value, key, timestamp }) => ({ value: value === null ? null : String(value), key: String(key), timestamp }))).toEqual(records.map(({ value, key, timestamp }) => ({ value, key, timestamp })))
      expect(got[0]!.headers).toEqual(expect.arrayContaining([['h', 'ü'], ['empty', '']]))
    })
  })
})
