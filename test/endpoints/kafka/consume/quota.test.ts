/**
 * A broker that throttles a client by quota: it answers late and reads nothing of that connection meanwhile. What is
 * read and written stays whole.
 */
import { describeWith } from '../../../services/describe-with'
import { type KafkaServer, makeTopic, startKafka } from '../../../services/kafka'
import { manifold } from '../../../support/manifold'

const COUNT = 20_000
const RECORD = 'x'.repeat(200)
const BYTES = COUNT * RECORD.length
/**
 * Of a second: the whole takes about three, for a broker lets a client run ahead of its quota for its window (11 s by
 * default, here 2).
 */
const RATE = 1024 * 1024
/** A broker that has just started has no producer ids for a moment. */
const isFault = (line: string): boolean =>
  line.includes('trying again') && !line.includes('COORDINATOR_LOAD_IN_PROGRESS')

describeWith('kafka', 'quotas', () => {
  let server: KafkaServer
  beforeAll(async () => {
    server = await startKafka({ properties: { 'quota.window.num': 2, 'quota.window.size.seconds': 1 } })
    await server.tool('kafka.admin.ConfigCommand', [
      '--bootstrap-server',
      '{bootstrap}',
      '--alter',
      '--add-config',
      `producer_byte_rate=${RATE},consumer_byte_rate=${RATE}`,
      '--entity-type',
      'clients',
      '--entity-name',
      'slow',
    ])
  }, 120_000)
  afterAll(async () => {
    await server.stop()
  })

  it('what is written and read under one arrives once and whole, only later', async () => {
    const topic = await makeTopic(server, { partitions: 3 })
    const uri = `kafka://${server.bootstrap}/${topic}`
    const input = Array.from({ length: COUNT }, (_, n) => `${String(n).padStart(8, '0')}${RECORD.slice(8)}\n`).join('')
    const written = await manifold(
      ['--from', '-', '--to', uri, 'client-id=slow', 'batch-size=64KiB', '--memory', '1MiB', '--log-level', 'info'],
      { input },
    )
    expect({ code: written.code, faults: written.stderr.split('\n').filter(isFault) }).toEqual({ code: 0, faults: [] })
    const read = await manifold([
      '--from',
      uri,
      'client-id=slow',
      'partition-max-bytes=64KiB',
      '--to',
      '-',
      '--until',
      'end',
      '--log-level',
      'info',
    ])
    expect({ code: read.code, faults: read.stderr.split('\n').filter(isFault) }).toEqual({ code: 0, faults: [] })
    expect(read.stdout.toString().split('\n').sort().join('\n')).toBe(`\n${input.trimEnd()}`)
    const full = (BYTES / RATE) * 1000
    // It was throttled: else this test would show nothing.
    expect(written.ms).toBeGreaterThan(full / 3)
    expect(read.ms).toBeGreaterThan(full / 3)
  }, 120_000)
})
