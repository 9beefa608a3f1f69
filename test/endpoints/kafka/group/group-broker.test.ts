/** Membership on a real broker: among ourselves, beside Java's consumers, over kills of members and of the broker. */
import { openCluster } from '../../../../src/endpoints/kafka/client'
import { keyOf, type TopicPartition } from '../../../../src/endpoints/kafka/group/consumer-protocol'
import { GroupMember } from '../../../../src/endpoints/kafka/group/member'
import type { GroupSettings } from '../../../../src/endpoints/kafka/group/member-context'
import type { Cluster } from '../../../../src/endpoints/kafka/protocol/cluster'
import { systemClock } from '../../../../src/kit/clock'
import { Notifier } from '../../../../src/kit/signal'
import { describeWith } from '../../../services/describe-with'
import { committed, groupName, makeTopic, put, startKafka, type KafkaServer } from '../../../services/kafka'
import { kafkaTarget } from '../../../support/kafka-target'

const SETTINGS = {
  sessionTimeoutMs: 3000,
  rebalanceTimeoutMs: 20_000,
  heartbeatMs: 200,
  assignor: 'cooperative-sticky',
  metadataMs: 500,
} as const
const all = (count: number): string[] => Array.from({ length: count }, (_, partition) => String(partition))

describeWith('kafka', 'a group on a real broker', () => {
  let server: KafkaServer
  const readers: Reader[] = []
  beforeAll(async () => {
    server = await startKafka({ own: true, properties: { 'group.min.session.timeout.ms': 1000 } })
  }, 90_000)
  afterAll(async () => {
    await server.stop()
  })
  afterEach(async () => {
    for (const reader of readers.splice(0)) await reader.end()
  })

  class Reader {
    readonly told: string[] = []
    readonly holds = new Map<number, number>()
    readonly failures: unknown[] = []
    /** What a drain does; at once where there is nothing to do. */
    drain: (partitions: readonly number[]) => Promise<void> = () => Promise.resolve()
    readonly member: GroupMember
    private cluster: Cluster | undefined
    private readonly abort = new AbortController()
    private readonly changed = new Notifier()

    constructor(
      readonly topic: string,
      readonly group: string,
      settings: Partial<GroupSettings> = {},
    ) {
      this.member = new GroupMember({ ...SETTINGS, group, ...settings })
      readers.push(this)
    }

    async start(): Promise<this> {
      const { signal } = this.abort
      const cluster = (this.cluster = await openCluster(
        kafkaTarget(`kafka://${server.bootstrap}/${this.topic}`),
        signal,
      ))
      const tell = (what: string, partitions: readonly TopicPartition[]): void => {
        this.told.push(
          `${what} ${partitions
            .map(({ partition }) => partition)
            .sort()
            .join()}`,
        )
        this.changed.notify()
      }
      const drop = (partitions: readonly TopicPartition[]): void => {
        for (const { partition } of partitions) this.holds.delete(partition)
      }
      await this.member.start(
        {
          coordinator: cluster,
          clock: systemClock,
          log: { debug: () => undefined, info: () => undefined, warn: () => undefined },
          topics: () => [this.topic],
          partitionsOf: async (topics, during) =>
            new Map(
              (await cluster.metadata(topics, during)).topics.map(({ name, partitions }) => [name, partitions.length]),
            ),
          listener: {
            assigned: (partitions, epoch) => {
              for (const { partition } of partitions) this.holds.set(partition, epoch)
              tell('assigned', partitions)
            },
            revoked: async (partitions) => {
              await this.drain(partitions.map(({ partition }) => partition))
              drop(partitions)
              tell('revoked', partitions)
            },
            lost: (partitions) => {
              drop(partitions)
              tell('lost', partitions)
            },
            failed: (error) => {
              this.failures.push(error)
              this.changed.notify()
            },
          },
        },
        signal,
      )
      return this
    }

    get held(): string[] {
      return [...this.holds.keys()].sort((a, b) => a - b).map(String)
    }
    async until(holds: (reader: this) => boolean): Promise<void> {
      while (!holds(this)) await this.changed.wait()
    }
    /** No join is under way: what was given up is told before the join that hands it on. */
    async settled(): Promise<void> {
      while (!this.member.isAssigned)
        await new Promise((resolve) => {
          setTimeout(resolve, 10)
        })
    }
    commit(partition: number, offset: number, epoch = this.holds.get(partition) ?? -1): Promise<void> {
      return this.member.commit([{ topic: this.topic, partition, offset, leaderEpoch: -1 }], epoch)
    }

    async offset(partition: number): Promise<number | undefined> {
      return (await this.member.committed([{ topic: this.topic, partition }], this.abort.signal)).get(
        keyOf({ topic: this.topic, partition }),
      )?.offset
    }

    /** The connections go; nobody is told. */
    async cut(): Promise<void> {
      await this.member.suspend()
      await this.cluster?.close()
    }

    async end(): Promise<void> {
      await this.member.leave()
      await this.cluster?.close()
      this.abort.abort(new Error('ended'))
    }
  }

  /**
   * Kafka's own console consumer, of the group; what it reads by line, once that are `max` records. It gives up where
   * none comes for half a minute.
   */
  async function java(topic: string, group: string, strategy: string, max: number): Promise<string[]> {
    const out = await server.tool('org.apache.kafka.tools.consumer.ConsoleConsumer', [
      '--bootstrap-server',
      '{bootstrap}',
      '--topic',
      topic,
      '--group',
      group,
      '--from-beginning',
      '--max-messages',
      String(max),
      '--timeout-ms',
      '30000',
      ...Object.entries({
        'partition.assignment.strategy': strategy,
        'session.timeout.ms': '6000',
        'heartbeat.interval.ms': '200',
      }).flatMap(([name, value]) => ['--command-property', `${name}=${value}`]),
    ])
    return out.split('\n').filter((line) => line !== '')
  }
  const COOPERATIVE = 'org.apache.kafka.clients.consumer.CooperativeStickyAssignor'

  test('three members share twelve partitions; one that is cut off has its partitions taken over, and the others keep theirs', async () => {
    const topic = await makeTopic(server, { partitions: 12 })
    const group = groupName()
    const [a, b, c] = [new Reader(topic, group), new Reader(topic, group), new Reader(topic, group)]
    await a.start()
    await a.until(() => a.held.length === 12)
    a.drain = async (partitions) => {
      for (const partition of partitions) await a.commit(partition, 100 + partition)
    }
    await Promise.all([b.start(), c.start()])
    await Promise.all([a, b, c].map((reader) => reader.until(() => reader.held.length === 4)))
    expect(
      [...a.held, ...b.held, ...c.held]
        .map(Number)
        .sort((x, y) => x - y)
        .map(String),
    ).toEqual(all(12))
    // What was committed in the drain is what the new owner begins at.
    for (const partition of b.held) expect(await b.offset(Number(partition))).toBe(100 + Number(partition))
    const before = [...b.holds]
    await c.cut()
    await Promise.all([a, b].map((reader) => reader.until(() => reader.held.length === 6)))
    expect([...b.holds].slice(0, 4)).toEqual(before)
    expect([...a.told, ...b.told].filter((line) => line.startsWith('lost'))).toEqual([])
  })

  test('a commit under an old epoch never reaches the broker', async () => {
    const topic = await makeTopic(server, { partitions: 2 })
    const group = groupName()
    const a = await new Reader(topic, group).start()
    await a.until(() => a.held.length === 2)
    const old = new Map(a.holds)
    const b = await new Reader(topic, group).start()
    await b.until(() => b.held.length === 1)
    const moved = Number(b.held[0])
    await b.commit(moved, 50)
    await a.commit(moved, 7, old.get(moved))
    expect(await b.offset(moved)).toBe(50)
  })

  test("a group that Java's consumer joins and leaves: it reads its half, and its commits are where we go on", async () => {
    const topic = await makeTopic(server, { partitions: 4 })
    const group = groupName()
    const a = await new Reader(topic, group).start()
    await a.until(() => a.held.length === 4)
    a.drain = async (partitions) => {
      for (const partition of partitions) await a.commit(partition, 0)
    }
    const consumer = java(topic, group, COOPERATIVE, 20)
    await a.until(() => a.held.length === 2)
    await put(
      server,
      topic,
      Array.from({ length: 40 }, (_, index) => ({ value: `record ${index}`, partition: index % 4 })),
    )
    const read = await consumer
    const theirs = a.told
      .find((line) => line.startsWith('revoked'))!
      .slice(8)
      .split(',')
    expect(read.sort()).toEqual(
      Array.from({ length: 40 }, (_, index) => index)
        .filter((index) => theirs.includes(String(index % 4)))
        .map((index) => `record ${index}`)
        .sort(),
    )
    await a.until(() => a.held.length === 4)
    for (const partition of theirs) expect(await a.offset(Number(partition))).toBe(10)
    expect(a.told.filter((line) => line.startsWith('lost'))).toEqual([])
  }, 60_000)

  test("a group that Java's consumer leads takes us in, and hands its partitions over in two phases", async () => {
    const topic = await makeTopic(server, { partitions: 4 })
    const group = groupName()
    const consumer = java(topic, group, COOPERATIVE, 25)
    await put(
      server,
      topic,
      Array.from({ length: 20 }, (_, index) => ({ value: `first ${index}`, partition: index % 4 })),
    )
    // It has read, and therefore joined, once it has committed.
    while ((await committed(server, group)).reduce((sum, { offset }) => sum + Math.max(0, offset), 0) < 20)
      await new Promise((resolve) => {
        setTimeout(resolve, 100)
      })
    const a = await new Reader(topic, group).start()
    await a.until(() => a.held.length === 2)
    for (const partition of a.held) expect(await a.offset(Number(partition))).toBe(5)
    await put(
      server,
      topic,
      Array.from({ length: 20 }, (_, index) => ({ value: `second ${index}`, partition: index % 4 })),
    )
    const theirs = all(4).filter((partition) => !a.held.includes(partition))
    const read = await consumer
    expect(read.slice(0, 20).sort()).toEqual(Array.from({ length: 20 }, (_, index) => `first ${index}`).sort())
    for (const line of read.slice(20)) expect(theirs).toContain(String(Number(line.slice(7)) % 4))
  }, 60_000)

  test("Java's default consumer, which gives everything up before each rebalance, shares a group with us", async () => {
    const topic = await makeTopic(server, { partitions: 4 })
    const group = groupName()
    const a = await new Reader(topic, group).start()
    await a.until(() => a.held.length === 4)
    const consumer = java(topic, group, `org.apache.kafka.clients.consumer.RangeAssignor,${COOPERATIVE}`, 10)
    await a.until(() => a.held.length === 2)
    await put(
      server,
      topic,
      Array.from({ length: 20 }, (_, index) => ({ value: `record ${index}`, partition: index % 4 })),
    )
    expect(await consumer).toHaveLength(10)
    await a.until(() => a.held.length === 4)
  }, 60_000)

  test('a group whose members use another assignor is said as such; with that assignor it is joined', async () => {
    const topic = await makeTopic(server, { partitions: 4 })
    const group = groupName()
    const a = await new Reader(topic, group, { assignor: 'range' }).start()
    await a.until(() => a.held.length === 4)
    await expect(new Reader(topic, group).start()).rejects.toThrow(
      /its members use another assignor than cooperative-sticky/,
    )
    const consumer = java(topic, group, 'org.apache.kafka.clients.consumer.RangeAssignor', 10)
    await a.until(() => a.held.length === 2)
    await put(
      server,
      topic,
      Array.from({ length: 20 }, (_, index) => ({ value: `record ${index}`, partition: index % 4 })),
    )
    expect(await consumer).toHaveLength(10)
    await a.until(() => a.held.length === 4)
  }, 60_000)

  test('a static member is back within its session with the same partitions, and the other keeps its own', async () => {
    const topic = await makeTopic(server, { partitions: 6 })
    const group = groupName()
    const a = await new Reader(topic, group, { instanceId: 'a' }).start()
    const b = await new Reader(topic, group, { instanceId: 'b' }).start()
    await Promise.all([a, b].map((reader) => reader.until(() => reader.held.length === 3)))
    const { held } = a
    const told = b.told.length
    await a.end()
    const again = await new Reader(topic, group, { instanceId: 'a' }).start()
    await again.until(() => again.held.length === 3)
    expect(again.held).toEqual(held)
    await again.commit(Number(held[0]), 9)
    // A heartbeat or two later nothing has moved.
    await new Promise((resolve) => {
      setTimeout(resolve, 1000)
    })
    expect(b.told).toHaveLength(told)
    expect(again.told).toHaveLength(1)
  })

  test('a second process of the same instance ends the first', async () => {
    const topic = await makeTopic(server, { partitions: 2 })
    const group = groupName()
    const a = await new Reader(topic, group, { instanceId: 'a' }).start()
    await a.until(() => a.held.length === 2)
    const b = await new Reader(topic, group, { instanceId: 'a' }).start()
    await b.until(() => b.held.length === 2)
    await a.until(() => a.failures.length > 0)
    expect(String(a.failures[0])).toMatch(/another process runs as instance a/)
    expect(a.held).toEqual([])
  })

  test('partitions that are added are shared out', async () => {
    const topic = await makeTopic(server, { partitions: 2 })
    const a = await new Reader(topic, groupName()).start()
    await a.until(() => a.held.length === 2)
    await server.addPartitions(topic, 5)
    await a.until(() => a.held.length === 5)
    expect(a.told[0]).toBe('assigned 0,1')
  })

  test('the broker is killed and comes back: the session lives on, the epochs hold, what was in flight is committed', async () => {
    const topic = await makeTopic(server, { partitions: 4 })
    const group = groupName()
    const settings = { sessionTimeoutMs: 20_000 }
    const [a, b] = [await new Reader(topic, group, settings).start(), await new Reader(topic, group, settings).start()]
    await Promise.all([a, b].map((reader) => reader.until(() => reader.held.length === 2)))
    await Promise.all([a, b].map((reader) => reader.settled()))
    const epochs = [...a.holds]
    const mine = Number(a.held[0])
    await server.kill()
    await expect(a.commit(mine, 5)).rejects.toThrow()
    await server.restart()
    // The core sends a commit again each second.
    for (const end = Date.now() + 20_000; ; ) {
      try {
        await a.commit(mine, 5)
        break
      } catch (error) {
        if (Date.now() > end) throw error
      }
      await new Promise((resolve) => {
        setTimeout(resolve, 100)
      })
    }
    expect(await a.offset(mine)).toBe(5)
    expect([...a.holds]).toEqual(epochs)
    expect([...a.failures, ...b.failures]).toEqual([])
    expect([...a.told, ...b.told].filter((line) => line.startsWith('lost'))).toEqual([])
  }, 60_000)

  test('a source that is opened again over new connections is the same member, with the same epochs', async () => {
    const topic = await makeTopic(server, { partitions: 4 })
    const group = groupName()
    const a = await new Reader(topic, group).start()
    await a.until(() => a.held.length === 4)
    const epochs = [...a.holds]
    await a.cut()
    await a.start()
    expect([...a.holds]).toEqual(epochs)
    expect(a.told).toEqual(['assigned 0,1,2,3', 'assigned 0,1,2,3'])
    await a.commit(0, 3)
    expect(await a.offset(0)).toBe(3)
  })
})
