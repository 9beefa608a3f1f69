/** Brokers in racks of their own: a source that says where it is reads from the replica there. */
import type { Source } from '../../../../src/core/contract'
import { BrokerConnection } from '../../../../src/endpoints/kafka/protocol/connection'
import { create } from '../../../../src/endpoints/kafka/source'
import { describeWith } from '../../../services/describe-with'
import { type KafkaCluster, leaders, makeTopic, put, startKafkaCluster } from '../../../services/kafka'
import { makeSourceContext } from '../../../support/context'
import { kafkaTarget } from '../../../support/kafka-target'

const RACKS = ['a', 'b']
/** Without it a follower may be behind what is asked of it, and says so. */
const COUNT = 2000

describeWith('kafka', 'brokers in racks', () => {
  let cluster: KafkaCluster
  let source: Source | undefined
  beforeAll(async () => {
    cluster = await startKafkaCluster({
      brokers: 2,
      racks: RACKS,
      properties: { 'replica.selector.class': 'org.apache.kafka.common.replica.RackAwareReplicaSelector' },
    })
  }, 120_000)
  afterAll(async () => {
    await cluster.stop()
  })
  afterEach(async () => {
    jest.restoreAllMocks()
    await source?.close()
  })

  /** Bytes of records by the broker that sent them. */
  async function readFrom(rack: string | undefined, topic: string): Promise<ReadonlyMap<string, number>> {
    const bytes = new Map<string, number>()
    const original = BrokerConnection.prototype.call
    jest.spyOn(BrokerConnection.prototype, 'call').mockImplementation(async function (
      this: BrokerConnection,
      ...args: Parameters<BrokerConnection['call']>
    ) {
      const answer = (await original.apply(this, args)) as {
        readonly partitions?: readonly { readonly records?: Buffer }[]
      }
      const sum = (answer.partitions ?? []).reduce((total, { records }) => total + (records?.length ?? 0), 0)
      if (sum > 0) bytes.set(this.peer.address, (bytes.get(this.peer.address) ?? 0) + sum)
      return answer
    })
    source = create(
      kafkaTarget(`kafka://${cluster.bootstrap}/${topic}`, {
        fetchWait: 100,
        partitionMaxBytes: 32 * 1024,
        ...(rack === undefined ? {} : { rack }),
      }),
    )
    await source.open(makeSourceContext().ctx)
    let seen = 0
    while (seen < COUNT) seen += (await source.read(AbortSignal.timeout(30_000)))?.batch.count ?? 0
    expect(seen).toBe(COUNT)
    return bytes
  }

  it('each reads from its own rack, and from the leader without one', async () => {
    const topic = await makeTopic(cluster, { replicas: 2 })
    await put(
      cluster,
      topic,
      Array.from({ length: COUNT }, (_, n) => ({ value: `${n} ${'x'.repeat(500)}` })),
    )
    const { leader } = (await leaders(cluster, topic))[0]!
    const at = (id: number): string => `127.0.0.1:${cluster.brokers[id - 1]!.port}`
    const [leading, following] = [leader, 3 - leader]
    for (const [rack, id] of [
      [undefined, leading],
      [RACKS[leading - 1], leading],
      [RACKS[following - 1], following],
    ] as const) {
      expect({ rack, from: [...(await readFrom(rack, topic)).keys()] }).toEqual({ rack, from: [at(id)] })
      await source?.close()
      jest.restoreAllMocks()
    }
  }, 90_000)

  it('when the replica of its rack is gone it reads on from the leader', async () => {
    const topic = await makeTopic(cluster, { replicas: 2 })
    await put(
      cluster,
      topic,
      Array.from({ length: COUNT }, (_, n) => ({ value: `${n} ${'x'.repeat(500)}` })),
    )
    const { leader } = (await leaders(cluster, topic))[0]!
    const follower = cluster.brokers[2 - leader]!
    source = create(
      kafkaTarget(`kafka://${cluster.bootstrap}/${topic}`, {
        fetchWait: 100,
        partitionMaxBytes: 32 * 1024,
        fetchMaxBytes: 64 * 1024,
        rack: RACKS[2 - leader]!,
      }),
    )
    const { ctx } = makeSourceContext()
    await source.open(ctx)
    let seen = (await source.read(AbortSignal.timeout(30_000)))?.batch.count ?? 0
    while (seen === 0) seen = (await source.read(AbortSignal.timeout(30_000)))?.batch.count ?? 0
    await follower.kill()
    try {
      while (seen < COUNT) {
        // As the core: after a fault that passes it is opened again, and goes on after what it has returned.
        const delivery = await source.read(AbortSignal.timeout(30_000))
        seen += delivery?.batch.count ?? 0
      }
      expect(seen).toBe(COUNT)
    } finally {
      await follower.restart()
    }
  }, 90_000)
})
