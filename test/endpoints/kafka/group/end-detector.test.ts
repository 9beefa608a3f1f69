/**
 * `--until end` for members of a group that hold nothing, on a real broker: others have all partitions, or theirs were
 * taken away.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Delivery, Source } from '../../../../src/core/contract'
import { create } from '../../../../src/endpoints/kafka/source'
import { describeWith } from '../../../services/describe-with'
import { groupName, makeTopic, put, startKafka, type KafkaServer } from '../../../services/kafka'
import { makeSourceContext, type Told } from '../../../support/context'
import { kafkaTarget } from '../../../support/kafka-target'
import { start, type Running } from '../../../support/manifold'

const records = (count: number, partition = 0) =>
  Array.from({ length: count }, (_, n) => ({ value: `{"n":${n}}`, partition }))

describeWith('kafka', '--until end in a group, with empty hands', () => {
  let server: KafkaServer
  let folder: string
  const open: Source[] = []
  const running: Running[] = []
  beforeAll(async () => {
    server = await startKafka({ properties: { 'group.min.session.timeout.ms': 1000 } })
    folder = mkdtempSync(join(tmpdir(), 'manifold-kafka-end-'))
  }, 90_000)
  afterAll(async () => {
    await server.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  afterEach(async () => {
    for (const source of open.splice(0)) await source.close()
    for (const one of running.splice(0)) {
      one.kill('SIGKILL')
      await one.done
    }
  })

  async function reader(
    topic: string,
    group: string,
    given: Record<string, unknown> = {},
  ): Promise<{ readonly source: Source; readonly told: Told }> {
    const source = create(
      kafkaTarget(`kafka://${server.bootstrap}/${topic}`, {
        group,
        fetchWait: 100,
        sessionTimeout: 6000,
        heartbeatEvery: 200,
        ...given,
      }),
    )
    open.push(source)
    const { ctx, told } = makeSourceContext()
    await source.open(ctx)
    return { source, told }
  }
  const next = (source: Source): Promise<Delivery | null> => source.read(AbortSignal.timeout(20_000))
  /** Of all partitions, up to so many records. */
  async function take(source: Source, count: number): Promise<Delivery[]> {
    const seen: Delivery[] = []
    for (let left = count; left > 0; ) {
      const delivery = await next(source)
      if (delivery === null) break
      seen.push(delivery)
      left -= delivery.batch.count
    }
    return seen
  }
  const until = async (condition: () => boolean): Promise<void> => {
    for (
      const end = Date.now() + 20_000;
      !condition();
      await new Promise((resolve) => {
        setTimeout(resolve, 20)
      })
    )
      if (Date.now() > end) throw new Error('not within 20 s')
  }

  it('two processes, one partition: the one that has none ends once the other has delivered what there was', async () => {
    const topic = await makeTopic(server)
    const group = groupName()
    await put(server, topic, records(1000))
    const from = [
      '--from',
      `kafka://${server.bootstrap}/${topic}`,
      `group=${group}`,
      'fetch-wait=100ms',
      'heartbeat-every=300ms',
    ]
    const [first, second] = [join(folder, 'first'), join(folder, 'second')]
    const owner = start([...from, '--to', `file:${first}`, '--state', join(folder, 'state-1')])
    running.push(owner)
    await until(() => existsSync(first) && readFileSync(first).length > 0)
    const other = start([...from, '--to', `file:${second}`, '--until', 'end', '--state', join(folder, 'state-2')])
    running.push(other)
    const { code, stderr } = await other.done
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(readFileSync(first, 'utf8').split('\n')).toHaveLength(1001)
    expect(existsSync(second) ? readFileSync(second, 'utf8') : '').toBe('')
    expect(owner.child.exitCode).toBeNull()
  }, 60_000)

  it('not before the group has committed what there was; what is empty needs no commit, and what came later none either', async () => {
    const topic = await makeTopic(server, { partitions: 1 })
    const bare = await makeTopic(server, { partitions: 1 })
    const group = groupName()
    await put(server, topic, records(10))
    const owner = await reader(topic, group)
    const [delivery] = (await take(owner.source, 10)).filter(({ batch }) => batch.count > 0)
    // The other topic's partition is a member's of its own that has not committed anything.
    const third = await reader(bare, group)
    await next(third.source)
    const other = await reader(`${topic},${bare}`, group)
    await other.source.ends!()
    await put(server, topic, records(7))
    let ended: boolean | undefined
    const reading = (async () => {
      for (let read = await next(other.source); read !== null; read = await next(other.source))
        await other.source.commit(read.partition, read.last)
      ended = true
    })()
    // Longer than it takes to look, twice.
    await new Promise((resolve) => {
      setTimeout(resolve, 2500)
    })
    expect(ended).toBeUndefined()
    await owner.source.commit(delivery!.partition, delivery!.last)
    await reading
    expect(third.told.lost).toEqual([])
  }, 60_000)

  it('a member that was put out before its end does not take that for the end', async () => {
    const topic = await makeTopic(server)
    const group = groupName()
    await put(server, topic, records(10))
    const { source, told } = await reader(topic, group)
    await source.ends!()
    await until(() => told.gauges.has(`lag ${topic}-0`))
    await putOut(server, group)
    await until(() => told.lost.length > 0)
    const seen = await take(source, Infinity)
    expect(seen.flatMap(({ batch }) => batch.entries().map(({ value }) => String(value)))).toEqual(
      records(10).map(({ value }) => value),
    )
  }, 60_000)
})

/** As a coordinator does with a member it has not heard of for too long. */
async function putOut(server: KafkaServer, group: string): Promise<void> {
  const { Admin } = await import('@platformatic/kafka')
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: server.bootstrap.split(',') })
  try {
    const members = [...((await admin.describeGroups({ groups: [group] })).get(group)?.members.keys() ?? [])]
    await admin.removeMembersFromConsumerGroup({ groupId: group, members: members.map((memberId) => ({ memberId })) })
  } finally {
    await admin.close()
  }
}
