/** Kafka through the built program: times that Kafka cannot keep, and offsets that are not there. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Receipt } from '../../../../src/core/accounting/receipt'
import { describeWith } from '../../../services/describe-with'
import { get, type KafkaServer, makeTopic, put, startKafka } from '../../../services/kafka'
import { manifold } from '../../../support/manifold'

describeWith('kafka', 'what is no time, and where nothing is', () => {
  let server: KafkaServer
  const folder = mkdtempSync(join(tmpdir(), 'manifold-kafka-'))
  beforeAll(async () => {
    server = await startKafka()
  }, 90_000)
  afterAll(async () => {
    await server?.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  const uri = (topic: string): string => `kafka://${server.bootstrap}/${topic}`

  it('a record whose time Kafka cannot keep is a dead letter, and what is behind it goes on', async () => {
    const topic = await makeTopic(server)
    const times = [
      '9223372036854775808',
      '1e300',
      '1e999',
      '-9223372036854775809',
      '1700000000000',
      '-1',
      '-86400000',
      '0.5',
    ]
    const file = join(folder, 'times.ndjson')
    writeFileSync(file, times.map((time, index) => `{"value":"${index}","timestamp":${time}}\n`).join(''))
    const [receipt, dead] = [join(folder, 'receipt'), join(folder, 'dead.ndjson')]
    const flags = [
      '--dead-letter',
      `file:${dead}`,
      '--receipt',
      receipt,
      '--name',
      'times',
      '--state',
      join(folder, 'times'),
    ]
    const { code, stderr } = await manifold([
      '--from',
      `file:${file}`,
      'framing=envelope',
      '--to',
      uri(topic),
      ...flags,
    ])
    expect(stderr).not.toContain('a bug')
    expect(code).toBe(5)
    const letters = readFileSync(dead, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { value: string; why: string })
    expect(letters.map(({ value }) => value)).toEqual(['0', '1', '2', '3'])
    for (const { why } of letters) expect(why).toMatch(/timestamp/)
    const [sink] = (JSON.parse(readFileSync(receipt, 'utf8')) as Receipt).sinks
    expect(sink).toMatchObject({ delivered: 4, rejected: 4 })
    const there = await get(server, topic, 4)
    expect(there.map(({ value }) => String(value))).toEqual(['4', '5', '6', '7'])
  }, 60_000)

  it('an offset beyond the end that partition= names is refused, however the run would end', async () => {
    const topic = await makeTopic(server)
    await put(server, topic, [{ value: 'a' }, { value: 'b' }])
    for (const until of [['--until', 'end'], ['--count', '1'], []]) {
      const { code, stdout, stderr } = await manifold([
        '--from',
        uri(topic),
        'partition=0:100000',
        '--to',
        '-',
        ...until,
      ])
      expect([code, stdout.toString()]).toEqual([3, ''])
      expect(stderr).toMatch(new RegExp(`partition=0:100000 lies beyond the end of ${topic}-0, which is 2`))
    }
    // The end itself is where the next record will be.
    expect(await manifold(['--from', uri(topic), 'partition=0:2', '--to', '-', '--until', 'end'])).toMatchObject({
      code: 0,
    })
  }, 60_000)

  it('a start beyond the end begins at the end, and says so', async () => {
    const topic = await makeTopic(server)
    await put(server, topic, [{ value: 'a' }, { value: 'b' }])
    const line = ['--from', uri(topic), 'start=100000', '--to', '-', '--until', 'end', '--log-level', 'info']
    const { code, stdout, stderr } = await manifold(line)
    expect([code, stdout.toString()]).toEqual([0, ''])
    expect(stderr).toMatch(new RegExp(`start=100000 lies beyond the end of ${topic}-0, which is 2: it begins there`))
  }, 60_000)
})
