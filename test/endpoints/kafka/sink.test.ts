/** The sink on a real broker, read back by another client. */
import type { Entry } from '../../../src/core/contract'
import { Disconnected } from '../../../src/core/errors'
import { NOT_ENOUGH_REPLICAS_AFTER_APPEND } from '../../../src/endpoints/kafka/protocol/error-codes'
import { murmur2 } from '../../../src/endpoints/kafka/produce/partitioner'
import { describeWith } from '../../services/describe-with'
import { get, type KafkaServer, makeTopic, runKcat, startKafka } from '../../services/kafka'
import { entries, lines, openSink, type OpenedSink } from '../../support/kafka'

const PATIENT = 90_000
const NOTHING = { retry: [], rejected: [] }
const text = (values: readonly { readonly value: Buffer | null }[]): readonly (string | null)[] =>
  values.map(({ value }) => (value === null ? null : value.toString()))
const numbers = (count: number, prefix = 'record '): readonly string[] =>
  Array.from({ length: count }, (_, i) => `${prefix}${i}`)

describeWith('kafka', 'records into topics', () => {
  let server: KafkaServer
  const open: OpenedSink[] = []
  beforeAll(async () => {
    server = await startKafka()
  }, PATIENT)
  afterAll(async () => {
    await server?.stop()
  })
  afterEach(async () => {
    for (const { sink } of open.splice(0)) await sink.close()
  })
  async function into(topic: string, given: Readonly<Record<string, unknown>> = {}): Promise<OpenedSink> {
    const opened = await openSink(`kafka://${server.bootstrap}/${topic}`, given)
    open.push(opened)
    return opened
  }

  it('lines are records, in order, byte for byte', async () => {
    const topic = await makeTopic(server)
    const { deliver } = await into(topic)
    const records = [
      'a',
      '',
      '\r',
      'nul \0 within',
      Buffer.from([0xff, 0xfe]),
      'ä€😀',
      'x'.repeat(100_000),
      ...numbers(5000),
    ]
    expect(await deliver([lines(records)])).toEqual([NOTHING])
    const got = await get(server, topic)
    expect(got.map(({ value }) => value)).toEqual(records.map((each) => Buffer.from(each)))
    expect(got.every(({ key, timestamp }) => key === null && Math.abs(timestamp - Date.now()) < 60_000)).toBe(true)
  })

  it('keys, headers, timestamps and tombstones stay what they are', async () => {
    const topic = await makeTopic(server)
    const { deliver } = await into(topic)
    const records: Entry[] = [
      {
        value: Buffer.from('v'),
        key: Buffer.from('k'),
        timestamp: 1_700_000_000_123,
        headers: [
          ['a', Buffer.from('1')],
          ['a', Buffer.from('2')],
          ['n', 7],
        ],
      },
      { value: null, key: Buffer.from('k') },
      { value: Buffer.alloc(0), key: Buffer.alloc(0) },
      { value: Buffer.from('two\nlines') },
    ]
    expect(await deliver([entries(records)])).toEqual([NOTHING])
    const got = await get(server, topic)
    expect(got.map(({ key, value }) => [key?.toString(), value?.toString()])).toEqual([
      ['k', 'v'],
      ['k', undefined],
      ['', ''],
      [undefined, 'two\nlines'],
    ])
    expect(got[0]).toMatchObject({
      timestamp: 1_700_000_000_123,
      headers: [
        ['a', '1'],
        ['a', '2'],
        ['n', '7'],
      ],
    })
  })

  it('many writes under way at once keep the order of each partition', async () => {
    const topic = await makeTopic(server, { partitions: 3 })
    const { deliver } = await into(topic, { batchSize: '4KiB' })
    const keyed = (from: number): Entry[] =>
      Array.from({ length: 500 }, (_, i) => ({ key: Buffer.from(`key ${i % 10}`), value: Buffer.from(`${from + i}`) }))
    const outcomes = await deliver(Array.from({ length: 12 }, (_, i) => entries(keyed(i * 500))))
    expect(outcomes).toEqual(outcomes.map(() => NOTHING))
    const got = await get(server, topic)
    expect(got).toHaveLength(6000)
    for (let key = 0; key < 10; key++) {
      const mine = got.filter((each) => each.key?.toString() === `key ${key}`)
      expect(mine.map(({ value }) => Number(value))).toEqual(Array.from({ length: 600 }, (_, i) => i * 10 + key))
      expect(new Set(mine.map(({ partition }) => partition))).toEqual(
        new Set([(murmur2(Buffer.from(`key ${key}`)) & 0x7fffffff) % 3]),
      )
    }
  })

  it('records without a key fill batches of one partition, then of another', async () => {
    const topic = await makeTopic(server, { partitions: 3 })
    const { deliver } = await into(topic, { batchSize: '8KiB' })
    await deliver([lines(numbers(10_000))])
    const got = await get(server, topic)
    expect(
      text(got)
        .map((each) => Number(each?.slice(7)))
        .sort((a, b) => a - b),
    ).toEqual(Array.from({ length: 10_000 }, (_, i) => i))
    expect(new Set(got.map(({ partition }) => partition)).size).toBe(3)
  })

  it.each(['gzip', 'snappy', 'lz4', 'zstd'])('compresses with %s', async (compression) => {
    const topic = await makeTopic(server)
    const { deliver } = await into(topic, { compression })
    expect(await deliver([lines(numbers(3000))])).toEqual([NOTHING])
    expect(text(await get(server, topic))).toEqual(numbers(3000))
  })

  it('a write that comes again after a lost answer is there once', async () => {
    const topic = await makeTopic(server, { partitions: 2 })
    const { tryWrite, deliver, reopen } = await into(topic)
    const first = lines(numbers(1000))
    const second = lines(numbers(1000, 'second '))
    const cut = new AbortController()
    const lost = tryWrite(first, 'w1', cut.signal)
    // The broker has it for sure once it is there to be read; who wrote it may not know yet.
    const known = lost.then(
      () => true,
      () => false,
    )
    cut.abort(new Error('the answer is lost'))
    await known
    await reopen()
    expect(await deliver([first, second])).toEqual([NOTHING, NOTHING])
    await reopen()
    expect(await deliver([lines(['end'])])).toEqual([NOTHING])
    expect([...text(await get(server, topic))].sort()).toEqual(
      [...numbers(1000), ...numbers(1000, 'second '), 'end'].sort(),
    )
  })

  describe('keys from records', () => {
    it('from a path, the same for all, or before a separator', async () => {
      const topic = await makeTopic(server)
      const path = await into(topic, { key: '{json:user.id}' })
      expect(
        await path.deliver([lines(['{"user":{"id":"ann"},"n":1}', '{"user":{"id":17}}', 'no json', '{"user":{}}'])]),
      ).toEqual([
        {
          retry: [],
          rejected: [
            { index: 2, why: 'no key: the record is not JSON with something at user.id' },
            { index: 3, why: 'no key: the record is not JSON with something at user.id' },
          ],
        },
      ])
      const same = await into(topic, { key: 'all' })
      await same.deliver([lines(['x'])])
      const separated = await into(topic, { keySeparator: '::' })
      await separated.deliver([lines(['k::v::w', 'none', '::v'])])
      expect((await get(server, topic)).map(({ key, value }) => [key?.toString(), value?.toString()])).toEqual([
        ['ann', '{"user":{"id":"ann"},"n":1}'],
        ['17', '{"user":{"id":17}}'],
        ['all', 'x'],
        ['k', 'v::w'],
        [undefined, 'none'],
        ['', 'v'],
      ])
    })
  })

  describe('topics from records', () => {
    it('go where allow-topic lets them; the others are rejected', async () => {
      const [one, two] = [await makeTopic(server, { prefix: 'allowed-' }), await makeTopic(server)]
      const opened = await openSink(`kafka://${server.bootstrap}`, {
        topic: '{json:type}',
        allowTopic: ['~allowed-.*', 'absent'],
      })
      open.push(opened)
      const records = [`{"type":"${one}"}`, `{"type":"${two}"}`, '{"type":"absent"}', '{"type":"../x"}', '{}']
      const [{ rejected } = NOTHING] = await opened.deliver([lines(records)])
      expect(rejected.map(({ index }) => index)).toEqual([1, 2, 3, 4])
      expect(rejected.map(({ why }) => why)).toEqual([
        `allow-topic does not name the topic '${two}'`,
        'topic absent: there is no such topic',
        "allow-topic does not name the topic '../x'",
        'no topic: the record is not JSON with something at type',
      ])
      expect(text(await get(server, one))).toEqual(records.slice(0, 1))
    })
  })

  describe('what the broker refuses', () => {
    it('a batch over its limit is split; a single record over it is rejected', async () => {
      const topic = await makeTopic(server, { configs: { 'max.message.bytes': 20_000 } })
      const { deliver } = await into(topic)
      const records = [...numbers(3000), 'x'.repeat(30_000), ...numbers(3000, 'later ')]
      const later = numbers(100, 'next ')
      const [first, second] = await deliver([lines(records), lines(later)])
      expect(first).toEqual({
        retry: [],
        rejected: [{ index: 3000, why: expect.stringContaining('MESSAGE_TOO_LARGE') as string }],
      })
      expect(second).toEqual(NOTHING)
      expect(text(await get(server, topic))).toEqual([...numbers(3000), ...numbers(3000, 'later '), ...later])
    })
    it('a record without a key is rejected where the topic is compacted, the others go', async () => {
      const topic = await makeTopic(server, { configs: { 'cleanup.policy': 'compact' } })
      const { deliver } = await into(topic)
      const keyed = (value: string): Entry => ({ key: Buffer.from(value), value: Buffer.from(value) })
      const [outcome] = await deliver([entries([keyed('a'), { value: Buffer.from('keyless') }, keyed('b')])])
      expect(outcome?.rejected).toEqual([{ index: 1, why: expect.stringContaining('key') as string }])
      expect(await deliver([entries([keyed('c')])])).toEqual([NOTHING])
      expect(text(await get(server, topic))).toEqual(['a', 'b', 'c'])
    })
    it('a topic that is not there is refused when it opens, and never made', async () => {
      await expect(into('not-there')).rejects.toMatchObject({
        name: 'Refused',
        message: expect.stringContaining('there is no such topic') as string,
      })
      await expect(into('not-there')).rejects.toMatchObject({ name: 'Refused' })
    })
  })

  it('a producer that the broker has forgotten goes on as a new one, loudly', async () => {
    const topic = await makeTopic(server)
    const { tryWrite, deliver, told, sink } = await into(topic)
    await deliver([lines(['one'])])
    // As after records that were confirmed are gone: a number that the broker does not expect.
    const { producer } = sink as unknown as { producer: { sequences: Map<string, { next: number }> } }
    for (const sequence of producer.sequences.values()) sequence.next += 10
    await expect(tryWrite(lines(['two']), 'w2')).rejects.toMatchObject({ name: 'Throttled' })
    expect(await deliver([lines(['two'])])).toEqual([NOTHING])
    expect(told.logs.filter(({ level }) => level === 'warn').map(({ message }) => message)).toEqual([
      expect.stringContaining('goes on as a new one'),
    ])
    expect(text(await get(server, topic))).toEqual(['one', 'two'])
  })

  it('what had no answer and goes again as of another producer is counted as doubtful', async () => {
    const topic = await makeTopic(server)
    const { tryWrite, reopen, sink } = await into(topic)
    const cut = new AbortController()
    const answer = tryWrite(lines(['one', 'two']), 'w1', cut.signal)
    await sent(sink)
    cut.abort(new Disconnected('cut'))
    await expect(answer).rejects.toMatchObject({ name: 'Disconnected' })
    await reopen()
    const { producer } = sink as unknown as { producer: { clearIdentity(): void } }
    producer.clearIdentity()
    expect(await tryWrite(lines(['one', 'two']), 'w1')).toEqual({ ...NOTHING, doubtful: 2 })
    expect(await tryWrite(lines(['three']), 'w2')).toEqual(NOTHING)
    expect(text(await get(server, topic)).slice(-3)).toEqual(['one', 'two', 'three'])
  })

  it('so is what was appended and then answered with a fault', async () => {
    const topic = await makeTopic(server)
    const { tryWrite, sink } = await into(topic)
    const { cluster, producer } = sink as unknown as {
      cluster: { produce(...args: unknown[]): Promise<readonly { error: number }[]> }
      producer: { clearIdentity(): void }
    }
    const produce = cluster.produce.bind(cluster)
    // As of a partition whose followers fall behind right then.
    cluster.produce = async (...args) => {
      cluster.produce = produce
      return (await produce(...args)).map((each) => ({ ...each, error: NOT_ENOUGH_REPLICAS_AFTER_APPEND }))
    }
    await expect(tryWrite(lines(['one', 'two']), 'w1')).rejects.toMatchObject({ name: 'Throttled' })
    producer.clearIdentity()
    expect(await tryWrite(lines(['one', 'two']), 'w1')).toEqual({ ...NOTHING, doubtful: 2 })
    expect(text(await get(server, topic))).toEqual(['one', 'two', 'one', 'two'])
  })
})

/** A write of it is under way. */
async function sent(sink: unknown): Promise<void> {
  const { requestSlots } = sink as { readonly requestSlots: { readonly free: number } }
  for (const deadline = Date.now() + 5000; requestSlots.free === 5 && Date.now() < deadline; )
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
}

describeWith('kcat', 'keys lie where other clients put them', () => {
  let server: KafkaServer
  beforeAll(async () => {
    server = await startKafka()
  }, PATIENT)
  afterAll(async () => {
    await server?.stop()
  })
  const records = Array.from({ length: 500 }, (_, i) => `key-${i * 7919}ä:value ${i}`)
  const input = records.map((each) => `${each}\n`).join('')

  it.each<[string, (topic: string) => Promise<unknown>]>([
    [
      'the Java client',
      (topic) =>
        server.tool(
          'org.apache.kafka.tools.ConsoleProducer',
          [
            '--bootstrap-server',
            '{bootstrap}',
            '--topic',
            topic,
            '--reader-property',
            'parse.key=true',
            '--reader-property',
            'key.separator=:',
          ],
          { input },
        ),
    ],
    [
      'kcat, with murmur2',
      (topic) =>
        runKcat(
          ['-P', '-b', server.bootstrap, '-t', topic, '-K', ':', '-X', 'topic.partitioner=murmur2_random'],
          input,
        ),
    ],
  ])(
    'as %s',
    async (_, produce) => {
      const [theirs, ours] = [await makeTopic(server, { partitions: 7 }), await makeTopic(server, { partitions: 7 })]
      await produce(theirs)
      const { sink, deliver } = await openSink(`kafka://${server.bootstrap}/${ours}`, { keySeparator: ':' })
      try {
        expect(await deliver([lines(records)])).toEqual([NOTHING])
      } finally {
        await sink.close()
      }
      const places = async (topic: string) =>
        (await get(server, topic)).map(({ key, partition }) => `${String(key)} ${partition}`).sort()
      const found = await places(ours)
      expect(found).toHaveLength(500)
      expect(found).toEqual(await places(theirs))
    },
    PATIENT,
  )
})
