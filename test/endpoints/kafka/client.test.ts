/** The cluster as the parts of the endpoint see it, on a real broker, and before peers that are none. */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { apisOf } from '../../../src/endpoints/kafka/protocol/apis'
import { openCluster } from '../../../src/endpoints/kafka/client'
import * as library from '../../../src/endpoints/kafka/client-library'
import { RecordWriter, stampBatch } from '../../../src/endpoints/kafka/produce/record-writer'
import type { Cluster } from '../../../src/endpoints/kafka/protocol/cluster'
import { describeWith } from '../../services/describe-with'
import { ends, groupName, type KafkaServer, makeTopic, put, startKafka } from '../../services/kafka'
import { kafkaTarget } from '../../support/kafka-target'

const PATIENT = 90_000
const forever = new AbortController().signal

test('every version of a request that is spoken is among what is taken of the library', () => {
  for (const { name, calls } of Object.values(apisOf(library)))
    for (const [version, call] of calls as ReadonlyMap<number, unknown>)
      expect([name, version, typeof call]).toEqual([name, version, 'function'])
})

describeWith('kafka', 'a cluster', () => {
  let server: KafkaServer
  let cluster: Cluster
  beforeAll(async () => {
    server = await startKafka()
  }, PATIENT)
  afterAll(async () => {
    await server?.stop()
  })
  beforeEach(async () => {
    cluster = await openCluster(kafkaTarget(`kafka://${server.bootstrap}/unused`), forever)
  })
  afterEach(async () => {
    await cluster.close()
  })

  async function led(
    topic: string,
  ): Promise<{ readonly id: string; readonly leader: number; readonly leaderEpoch: number }> {
    await ends(server, topic)
    const {
      topics: [facts],
    } = await cluster.metadata([topic], forever)
    return { id: facts!.id, leader: facts!.partitions[0]!.leader, leaderEpoch: facts!.partitions[0]!.leaderEpoch }
  }
  const waiting = { maxWaitMs: 30_000, minBytes: 1, maxBytes: 1 << 20, committedOnly: true, rack: '' }

  it('knows topics and what is not one', async () => {
    const topic = await makeTopic(server, { partitions: 3 })
    const { topics, brokers, clusterId } = await cluster.metadata([topic, 'not-there'], forever)
    expect(clusterId).not.toBe('')
    expect(brokers).toHaveLength(1)
    expect(topics.map(({ name, error, partitions }) => [name, error, partitions.length]).sort()).toEqual([
      ['not-there', 3, 0],
      [topic, 0, 3],
    ])
    expect((await cluster.metadata(undefined, forever)).topics.map(({ name }) => name)).toContain(topic)
    expect((await cluster.metadata([], forever)).topics).toEqual([])
  })

  it.each([
    ['by its id', true],
    ['by its name', false],
  ])('fetches a topic %s: the very batches', async (_, byId) => {
    const topic = await makeTopic(server)
    await put(
      server,
      topic,
      Array.from({ length: 3000 }, (_each, i) => ({ value: `${'x'.repeat(500)}${i}` })),
    )
    const { id, leader, leaderEpoch } = await led(topic)
    const [fetched] = await cluster.fetch(
      leader,
      [{ topic, topicId: byId ? id : '0'.repeat(32), partition: 0, leaderEpoch, offset: 0, maxBytes: 1 << 20 }],
      waiting,
      forever,
    )
    expect(fetched).toMatchObject({
      topic,
      partition: 0,
      error: 0,
      highWatermark: 3000,
      logStartOffset: 0,
      preferredReplica: -1,
    })
    expect(fetched!.records.length).toBeGreaterThan(1 << 19)
    expect(fetched!.records.readBigInt64BE(0)).toBe(0n)
    expect(fetched!.records.includes(`${'x'.repeat(500)}17`)).toBe(true)
  })

  it('an abort ends a long poll at once, and the next call has a connection of its own', async () => {
    const topic = await makeTopic(server)
    const { id, leader, leaderEpoch } = await led(topic)
    const ask = { topic, topicId: id, partition: 0, leaderEpoch, offset: 0, maxBytes: 1 << 20 }
    const stop = new AbortController()
    const reason = new Error('enough')
    const poll = cluster.fetch(leader, [ask], waiting, stop.signal)
    const before = performance.now()
    stop.abort(reason)
    await expect(poll).rejects.toBe(reason)
    expect(performance.now() - before).toBeLessThan(1000)
    const again = cluster.fetch(leader, [ask], waiting, forever)
    await put(server, topic, [{ value: 'late' }])
    expect((await again)[0]!.records.includes('late')).toBe(true)
  })

  it('a long poll holds up neither what is written nor what a group asks', async () => {
    const topic = await makeTopic(server)
    const { id, leader, leaderEpoch } = await led(topic)
    const stop = new AbortController()
    const poll = cluster.fetch(
      leader,
      [{ topic, topicId: id, partition: 0, leaderEpoch, offset: 5, maxBytes: 1 << 20 }],
      { ...waiting, minBytes: 1 << 19 },
      stop.signal,
    )
    poll.catch(() => undefined)
    // The coordinator's own topic is made when it is first asked for.
    const group = groupName()
    for (
      let tries = 0;
      tries < 200 &&
      [14, 15, 16].includes((await cluster.heartbeat({ group, generation: 1, memberId: 'x' }, forever)).error);
      tries++
    )
      await new Promise((resolve) => {
        setTimeout(resolve, 50)
      })
    expect(await cluster.heartbeat({ group, generation: 1, memberId: 'x' }, forever)).toEqual({ error: 25 })
    expect(await cluster.committed(group, [{ topic, partition: 0 }], forever)).toEqual([
      { topic, partition: 0, error: 0, offset: -1, leaderEpoch: -1 },
    ])
    const identity = await cluster.producerIdentity(forever)
    const writer = new RecordWriter(1024)
    writer.put(undefined, Buffer.from('v'), undefined, Date.now())
    const batch = await writer.seal('none')
    stampBatch(batch, identity, 0)
    expect(await cluster.produce(leader, [{ topic, partition: 0, batch }], 10_000, forever)).toMatchObject([
      { topic, partition: 0, error: 0, baseOffset: 0 },
    ])
    // The same again is recognised: it answers as the first did.
    expect(await cluster.produce(leader, [{ topic, partition: 0, batch }], 10_000, forever)).toMatchObject([
      { error: 0, baseOffset: 0 },
    ])
    expect(await ends(server, topic)).toEqual([1])
    stop.abort(new Error('enough'))
  })

  it('offsets by end and by time', async () => {
    const topic = await makeTopic(server)
    await put(
      server,
      topic,
      [1000, 2000, 3000].map((timestamp) => ({ value: 'v', timestamp })),
    )
    const { leader, leaderEpoch } = await led(topic)
    const at = async (when: number | 'earliest' | 'latest') =>
      (await cluster.offsets(leader, [{ topic, partition: 0, leaderEpoch, at: when }], true, forever)).map(
        ({ error, offset }) => [error, offset],
      )
    expect([await at('earliest'), await at('latest'), await at(1500), await at(9000)]).toEqual([
      [[0, 0]],
      [[0, 3]],
      [[0, 1]],
      [[0, -1]],
    ])
  })
})

describe('a peer that is no good broker', () => {
  let peer: Server | undefined
  const sockets: Socket[] = []
  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy()
    await new Promise<void>((resolve) => {
      if (peer === undefined) resolve()
      else
        peer.close(() => {
          resolve()
        })
    })
  })
  async function answering(answer: (request: Buffer, socket: Socket) => void): Promise<string> {
    peer = createServer((socket) => {
      sockets.push(socket)
      socket.on('error', () => undefined)
      socket.on('data', (request) => {
        answer(request, socket)
      })
    })
    await new Promise<void>((resolve) => {
      peer!.listen(0, '127.0.0.1', resolve)
    })
    return `kafka://127.0.0.1:${(peer.address() as AddressInfo).port}/t`
  }
  /** An answer to ApiVersions, version 2. */
  function versions(request: Buffer, keys: readonly (readonly [key: number, min: number, max: number])[]): Buffer {
    const answer = Buffer.alloc(4 + 4 + 2 + 4 + keys.length * 6 + 4)
    answer.writeInt32BE(answer.length - 4, 0)
    request.copy(answer, 4, 8, 12)
    answer.writeInt32BE(keys.length, 10)
    keys.forEach(([key, min, max], index) => {
      answer.writeInt16BE(key, 14 + index * 6)
      answer.writeInt16BE(min, 16 + index * 6)
      answer.writeInt16BE(max, 18 + index * 6)
    })
    return answer
  }

  it('an answer that says it is larger than any is not waited for', async () => {
    const uri = await answering((request, socket) => {
      if (request.readInt16BE(4) === 18) socket.write(versions(request, [[3, 0, 12]]))
      else socket.write(Buffer.from([0x7f, 0xff, 0xff, 0xff, 0, 0]))
    })
    await expect(openCluster(kafkaTarget(uri), forever)).rejects.toMatchObject({
      name: 'Disconnected',
      message: expect.stringMatching(/sent an answer of 2147483647 bytes, more than the \d+ that are taken/) as string,
    })
  })
  it('a broker that is too old, or too new, is told of with what it speaks', async () => {
    const uri = await answering((request, socket) => {
      socket.write(versions(request, [[3, 0, 1]]))
    })
    await expect(openCluster(kafkaTarget(uri), forever)).rejects.toMatchObject({
      name: 'Refused',
      message: expect.stringMatching(
        /speaks versions 0 to 1 of metadata, this program 5 to 12: Kafka 2\.1 to 4\.x are spoken to/,
      ) as string,
    })
  })
  it('one that says nothing is given up in time', async () => {
    const uri = await answering(() => undefined)
    await expect(openCluster(kafkaTarget(uri, { requestTimeout: '1s' }), forever)).rejects.toMatchObject({
      name: 'Disconnected',
      message: expect.stringContaining('no answer in time') as string,
    })
  })
  it('an abort ends the wait for it at once', async () => {
    const stop = new AbortController()
    const reason = new Error('enough')
    const uri = await answering(() => {
      stop.abort(reason)
    })
    await expect(openCluster(kafkaTarget(uri), stop.signal)).rejects.toBe(reason)
  })
})
