/**
 * The source in a group, on a real broker: where it begins, what it commits, and what becomes of what was read when
 * membership is lost.
 */
import type { Source, SourceContext } from '../../../src/core/contract'
import { Disconnected } from '../../../src/core/errors'
import { decodePosition } from '../../../src/endpoints/kafka/consume/position'
import { create } from '../../../src/endpoints/kafka/source'
import { describeWith } from '../../services/describe-with'
import { committed, groupName, makeTopic, put, startKafka, type KafkaServer } from '../../services/kafka'
import { makeSourceContext, type ContextOptions, type Told } from '../../support/context'
import { kafkaTarget } from '../../support/kafka-target'

const forever = new AbortController().signal

describeWith('kafka', 'topics read in a group', () => {
  let server: KafkaServer
  const open: Source[] = []
  beforeAll(async () => {
    server = await startKafka({ properties: { 'group.min.session.timeout.ms': 1000 } })
  }, 90_000)
  afterAll(async () => {
    await server.stop()
  })
  afterEach(async () => {
    for (const source of open.splice(0)) await source.close()
  })

  interface Reader {
    readonly source: Source
    readonly told: Told
    take(count: number): Promise<string[]> /** Commits what was read of every partition. */
    commit(): Promise<void>
    position(partition: string): number | undefined
  }
  async function reader(
    topic: string,
    group: string,
    given: Record<string, unknown> = {},
    context: ContextOptions = {},
    before?: (source: Source) => Promise<unknown>,
  ): Promise<Reader> {
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
    const { ctx, told }: { readonly ctx: SourceContext; readonly told: Told } = makeSourceContext(context)
    /** As the core does after a fault that passes, such as a partition that has no leader yet. */
    const opened = async (): Promise<void> => {
      for (let tries = 1; ; tries++) {
        try {
          await source.open(ctx)
          return
        } catch (error) {
          if (!(error instanceof Disconnected) || tries > 20) throw error
          await source.close()
          await ctx.clock.sleep(100, forever)
        }
      }
    }
    await opened()
    await before?.(source)
    const last = new Map<string, { readonly epoch: number; readonly position: string }>()
    return {
      source,
      told,
      take: async (count) => {
        const seen: string[] = []
        while (seen.length < count) {
          const delivery = await source.read(AbortSignal.timeout(20_000)).catch(async (error: unknown) => {
            if (!(error instanceof Disconnected)) throw error
            await source.close()
            return opened()
          })
          if (delivery === null) break
          if (delivery === undefined) continue
          last.set(delivery.partition.name, { epoch: delivery.partition.epoch, position: delivery.last })
          seen.push(...delivery.batch.entries().map(({ value }) => String(value)))
        }
        return seen
      },
      commit: async () => {
        for (const [name, { epoch, position }] of last) await source.commit({ name, epoch }, position)
      },
      position: (partition) => {
        const at = last.get(partition)
        return at === undefined ? undefined : decodePosition(at.position)?.offset
      },
    }
  }
  const numbered = (from: number, count: number, partition = 0) =>
    Array.from({ length: count }, (_, index) => ({ value: `record ${from + index}`, partition }))
  const texts = (from: number, count: number): string[] =>
    Array.from({ length: count }, (_, index) => `record ${from + index}`)
  const offsets = async (group: string) =>
    (await committed(server, group)).map(({ partition, offset }) => [partition, offset]).sort()

  it('what was committed is not read again, what was read and not committed is', async () => {
    const topic = await makeTopic(server, { partitions: 2 })
    const group = groupName()
    await put(server, topic, [...numbered(0, 100, 0), ...numbered(100, 100, 1)])
    const first = await reader(topic, group)
    expect((await first.take(200)).sort()).toEqual(texts(0, 200).sort())
    await first.commit()
    expect(await offsets(group)).toEqual([
      [0, 100],
      [1, 100],
    ])
    await put(server, topic, numbered(200, 10, 0))
    expect(await first.take(10)).toEqual(texts(200, 10))
    await first.source.close()
    const second = await reader(topic, group)
    expect(await second.take(10)).toEqual(texts(200, 10))
    expect(
      second.told.committed.map(({ partition, upTo }) => [partition, decodePosition(upTo)?.offset]).sort(),
    ).toEqual([
      [`${topic}-0`, 100],
      [`${topic}-1`, 100],
    ])
  })

  it('a member that was put out goes on after what it has read, and commits it with what it reads next', async () => {
    const topic = await makeTopic(server)
    const group = groupName()
    await put(server, topic, numbered(0, 100))
    const read = await reader(topic, group)
    expect(await read.take(100)).toEqual(texts(0, 100))
    await putOut(server, group)
    await until(() => read.told.lost.length > 0)
    const next = read.take(10)
    await put(server, topic, numbered(100, 10))
    expect(await next).toEqual(texts(100, 10))
    expect(read.told.lost).toMatchObject([{ name: `${topic}-0` }])
    await read.commit()
    expect(await offsets(group)).toEqual([[0, 110]])
  })

  it('where nothing comes after it, what was read before is committed all the same', async () => {
    const topic = await makeTopic(server)
    const group = groupName()
    await put(server, topic, numbered(0, 100))
    const read = await reader(topic, group)
    await read.take(100)
    await putOut(server, group)
    // The empty delivery under the new epoch.
    const delivery = await read.source.read(AbortSignal.timeout(10_000))
    expect([delivery?.batch.count, decodePosition(delivery?.last ?? '')?.offset]).toEqual([0, 100])
    await read.source.commit(delivery!.partition, delivery!.last)
    expect(await offsets(group)).toEqual([[0, 100]])
  })

  it('opened again after a fault it goes on where it was', async () => {
    const topic = await makeTopic(server)
    const group = groupName()
    await put(server, topic, numbered(0, 100))
    const read = await reader(topic, group)
    await read.take(100)
    await read.source.close()
    await read.source.open(makeSourceContext().ctx)
    await put(server, topic, numbered(100, 5))
    expect(await read.take(5)).toEqual(texts(100, 5))
  })

  it("a position kept in a spool is none to go on at: the group's counts", async () => {
    const topic = await makeTopic(server)
    await put(server, topic, numbered(0, 10))
    const read = await reader(topic, groupName(), {}, { positions: { [`${topic}-0`]: '7' } })
    expect(await read.take(10)).toEqual(texts(0, 10))
  })

  it('start counts where nothing was ever committed; it is committed at once, so that nothing is passed over later', async () => {
    const topic = await makeTopic(server)
    const group = groupName()
    await put(server, topic, numbered(0, 10))
    const read = await reader(topic, group, { start: '-3' })
    const begun = await read.source.read(AbortSignal.timeout(10_000))
    expect([begun?.batch.count, decodePosition(begun?.last ?? '')?.offset]).toEqual([0, 7])
    expect(await read.take(3)).toEqual(texts(7, 3))
  })

  it('a partition added later is read from its oldest record, whatever start says', async () => {
    const topic = await makeTopic(server)
    const group = groupName()
    const read = await reader(topic, group, { start: 'latest', metadataEvery: 1000 })
    await read.source
      .read(AbortSignal.timeout(10_000))
      .then((delivery) => read.source.commit(delivery!.partition, delivery!.last))
    await server.addPartitions(topic, 2)
    await put(server, topic, numbered(0, 10, 1))
    expect(await read.take(10)).toEqual(texts(0, 10))
  })

  it('~REGEX takes in topics that appear later, from their oldest record', async () => {
    const prefix = `${groupName('seen-')}-`
    const first = await makeTopic(server, { prefix })
    const group = groupName()
    await put(server, first, numbered(0, 5))
    const read = await reader(`~${prefix}.*`, group, { start: 'latest', metadataEvery: 1000 })
    await read.source
      .read(AbortSignal.timeout(10_000))
      .then((delivery) => read.source.commit(delivery!.partition, delivery!.last))
    const second = await makeTopic(server, { prefix })
    await put(server, second, numbered(100, 5))
    expect(await read.take(5)).toEqual(texts(100, 5))
    await read.commit()
    expect((await committed(server, group)).map(({ topic, offset }) => [topic, offset]).sort()).toEqual(
      [
        [first, 5],
        [second, 5],
      ].sort(),
    )
  })

  it('--until end stops at what each partition held when it was assigned', async () => {
    const topic = await makeTopic(server, { partitions: 3 })
    await put(server, topic, [...numbered(0, 10, 0), ...numbered(10, 5, 2)])
    const read = await reader(topic, groupName(), {}, {}, (source) => source.ends!())
    expect((await read.take(Infinity)).sort()).toEqual(texts(0, 15).sort())
  })

  it('two share the partitions; what one gives up is drained before the other has it', async () => {
    const topic = await makeTopic(server, { partitions: 4 })
    const group = groupName()
    for (let partition = 0; partition < 4; partition++)
      await put(server, topic, numbered(partition * 10, 10, partition))
    const revoked: string[] = []
    let commit: () => Promise<void> = () => Promise.resolve()
    const first = await reader(
      topic,
      group,
      {},
      {
        revoke: async ({ name }) => {
          await commit()
          revoked.push(name)
        },
      },
    )
    commit = () => first.commit()
    expect(await first.take(40)).toHaveLength(40)
    const second = await reader(topic, group)
    await until(() => revoked.length === 2)
    expect(revoked).toHaveLength(2)
    expect(await offsets(group)).toEqual([
      [0, 10],
      [1, 10],
      [2, 10],
      [3, 10],
    ])
    for (let partition = 0; partition < 4; partition++)
      await put(server, topic, numbered(100 + partition * 10, 10, partition))
    const [ours, theirs] = await Promise.all([first.take(20), second.take(20)])
    expect([...ours, ...theirs].sort()).toEqual(texts(100, 40).sort())
  })

  it('commits of others are told while recovered records wait for them', async () => {
    const topic = await makeTopic(server, { partitions: 1 })
    const group = groupName()
    await put(server, topic, numbered(0, 10))
    const owner = await reader(topic, group)
    await owner.take(10)
    // One partition, two members: the other one has none.
    const idle = await reader(topic, group, {}, { held: [`${topic}-0`] })
    await owner.commit()
    await until(() => idle.told.committed.some(({ upTo }) => decodePosition(upTo)?.offset === 10))
    expect(idle.told.committed.at(-1)?.partition).toBe(`${topic}-0`)
    expect(decodePosition(idle.told.committed.at(-1)?.upTo ?? '')?.offset).toBe(10)
  })
})

async function until(condition: () => boolean): Promise<void> {
  for (
    const end = Date.now() + 15_000;
    !condition();
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
  )
    if (Date.now() > end) throw new Error('not within 15 s')
}

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
