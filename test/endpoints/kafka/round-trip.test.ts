/**
 * From Kafka's console producer through the built program into another topic, and out by Kafka's console consumer:
 * 200,000 records with keys, headers and NUL bytes.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeWith } from '../../services/describe-with'
import { makeTopic, startKafka, type KafkaServer } from '../../services/kafka'
import { manifold } from '../../support/manifold'

const RECORDS = 200_000

describeWith('kafka', 'topic to topic', () => {
  let server: KafkaServer
  const folder = mkdtempSync(join(tmpdir(), 'manifold-topics-'))
  beforeAll(async () => {
    server = await startKafka({ own: true, jvm: ['-Xms256m', '-Xmx512m', '-XX:+UseSerialGC'] })
  }, 90_000)
  afterAll(async () => {
    await server.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  it('every record arrives once, with its key, its headers and every byte', async () => {
    const [from, to] = [await makeTopic(server, { partitions: 4 }), await makeTopic(server, { partitions: 4 })]
    // What the console consumer prints is what the console producer reads: headers, key, value.
    const lines = Array.from(
      { length: RECORDS },
      (_, index) =>
        `n:${index},h:\u0000ü${index % 7}\tkey\u0000${index % 1000}\t${index}\u0000${'ä\u0000b'.repeat(index % 20)}`,
    )
    await server.tool(
      'org.apache.kafka.tools.ConsoleProducer',
      [
        '--bootstrap-server',
        '{bootstrap}',
        '--topic',
        from,
        '--reader-property',
        'parse.key=true',
        '--reader-property',
        'parse.headers=true',
        '--compression-codec',
        'lz4',
        '--batch-size',
        '65536',
      ],
      { input: lines.map((line) => `${line}\n`).join('') },
    )
    const { code, stderr } = await manifold([
      '--from',
      `kafka://${server.bootstrap}/${from}`,
      '--until',
      'end',
      '--to',
      `kafka://${server.bootstrap}/${to}`,
      'compression=zstd',
      '--state',
      folder,
    ])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const printed = await server.tool('org.apache.kafka.tools.consumer.ConsoleConsumer', [
      '--bootstrap-server',
      '{bootstrap}',
      '--topic',
      to,
      '--from-beginning',
      '--max-messages',
      String(RECORDS),
      '--timeout-ms',
      '30000',
      '--formatter-property',
      'print.key=true',
      '--formatter-property',
      'print.headers=true',
    ])
    const got = printed.split('\n').slice(0, -1)
    expect(got.length).toBe(RECORDS)
    // Of a key all records come in their order.
    const orders = new Map<string, number>()
    const outOfOrder = got.filter((line) => {
      const [headers = '', key = ''] = line.split('\t')
      const n = Number(/^n:(\d+)/.exec(headers)?.[1])
      const before = orders.get(key) ?? -1
      orders.set(key, n)
      return n <= before
    })
    expect(outOfOrder).toEqual([])
    expect(got.sort().join('\n') === lines.sort().join('\n')).toBe(true)
  }, 120_000)
})
