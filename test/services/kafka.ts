/** Kafka for tests: a node, topics of its own for each test, records put in and read back without manifold. */
import { execFile } from 'node:child_process'
import { type KafkaServer, kcat as kcatFile } from '../../scripts/services/kafka'

export { type KafkaBroker, type KafkaCluster, startKafkaCluster } from '../../scripts/services/kafka-cluster'
export {
  available,
  type KafkaServer,
  kcat,
  type Right,
  type SecureKafkaServer,
  startKafka,
} from '../../scripts/services/kafka'

export interface Put {
  readonly value: Buffer | string | null
  readonly key?: Buffer | string
  readonly headers?: readonly (readonly [string, string])[]
  readonly partition?: number
  readonly timestamp?: number
}
export interface Got {
  readonly partition: number
  readonly offset: number
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers: readonly (readonly [string, string])[]
  readonly timestamp: number
}

function name(prefix: string): string {
  return `${prefix}${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`
}

/** A topic that nobody else uses. `prefix`: what rights of a user ask for. */
export async function makeTopic(
  server: Pick<KafkaServer, 'createTopics'>,
  options: {
    readonly partitions?: number
    readonly replicas?: number
    readonly prefix?: string
    readonly configs?: Readonly<Record<string, string | number>>
  } = {},
): Promise<string> {
  const topic = name(options.prefix ?? 'topic-')
  await server.createTopics(
    [{ name: topic, partitions: options.partitions ?? 1, replicas: options.replicas ?? 1 }],
    options.configs,
  )
  return topic
}
export function groupName(prefix = 'group-'): string {
  return name(prefix)
}

function bytes(value: Buffer | string): Buffer {
  return typeof value === 'string' ? Buffer.from(value) : value
}

/** Sent one batch after the other in the order given; partition 0 where none is given. `compression` by name. */
export async function put(
  server: Pick<KafkaServer, 'bootstrap'>,
  topic: string,
  records: readonly Put[],
  compression: 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd' = 'none',
): Promise<void> {
  const { Producer } = await import('@platformatic/kafka')
  const producer = new Producer({
    clientId: 'test',
    bootstrapBrokers: server.bootstrap.split(','),
    idempotent: true,
    acks: -1,
    compression,
  })
  try {
    for (let from = 0; from < records.length; from += 1000) {
      await producer.send({
        messages: records.slice(from, from + 1000).map(({ value, key, headers, partition, timestamp }) => ({
          topic,
          partition: partition ?? 0,
          // Without a value it is a tombstone.
          ...(value === null ? {} : { value: bytes(value) }),
          ...(key === undefined ? {} : { key: bytes(key) }),
          ...(timestamp === undefined ? {} : { timestamp: BigInt(timestamp) }),
          ...(headers === undefined
            ? {}
            : { headers: new Map(headers.map(([header, text]) => [Buffer.from(header), Buffer.from(text)])) }),
        })),
      })
    }
  } finally {
    await producer.close()
  }
}

/** Who leads each partition, -1: nobody, and how many replicas are in sync with it. */
export async function leaders(
  server: Pick<KafkaServer, 'bootstrap'>,
  topic: string,
): Promise<readonly { readonly leader: number; readonly inSync: number }[]> {
  const { Admin } = await import('@platformatic/kafka')
  const admin = new Admin({
    clientId: 'test',
    bootstrapBrokers: server.bootstrap.split(','),
    retries: 0,
    timeout: 5000,
  })
  try {
    const found = (await admin.metadata({ topics: [topic], forceUpdate: true })).topics.get(topic)
    return (found?.partitions ?? []).map(({ leader, isr }) => ({ leader, inSync: isr.length }))
  } finally {
    await admin.close()
  }
}

/** One past the last offset of each partition. */
export async function ends(server: Pick<KafkaServer, 'bootstrap'>, topic: string): Promise<readonly number[]> {
  const { Admin } = await import('@platformatic/kafka')
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: server.bootstrap.split(',') })
  try {
    const partitions =
      (await admin.metadata({ topics: [topic], forceUpdate: true })).topics.get(topic)?.partitions.length ?? 0
    const [found] = await admin.listOffsets({
      topics: [
        {
          name: topic,
          partitions: Array.from({ length: partitions }, (_, partitionIndex) => ({ partitionIndex, timestamp: -1n })),
        },
      ],
    })
    return [...found!.partitions]
      .sort((a, b) => a.partitionIndex - b.partitionIndex)
      .map(({ offset }) => Number(offset))
  } finally {
    await admin.close()
  }
}

/**
 * The first `count` records, or all there are at the moment where no count is given (never those of a topic with
 * transactions: their markers have offsets of their own). In the order of each partition.
 */
export async function get(
  server: Pick<KafkaServer, 'bootstrap'>,
  topic: string,
  count?: number,
): Promise<readonly Got[]> {
  const { Consumer } = await import('@platformatic/kafka')
  const wanted = count ?? (await ends(server, topic)).reduce((sum, end) => sum + end, 0)
  const got: Got[] = []
  if (wanted === 0) return got
  const consumer = new Consumer({
    clientId: 'test',
    groupId: name('reader-'),
    bootstrapBrokers: server.bootstrap.split(','),
  })
  try {
    const stream = await consumer.consume({ topics: [topic], mode: 'earliest', autocommit: false, maxWaitTime: 100 })
    for await (const { partition, offset, key, value, headers, timestamp } of stream) {
      got.push({
        partition,
        offset: Number(offset),
        key: key ?? null,
        value: value ?? null,
        headers: [...headers].map(([header, text]) => [String(header), String(text)] as const),
        timestamp: Number(timestamp),
      })
      if (got.length === wanted) break
    }
  } finally {
    await consumer.close(true)
  }
  return got
}

/** What `group` has committed. */
export async function committed(
  server: KafkaServer,
  group: string,
): Promise<readonly { readonly topic: string; readonly partition: number; readonly offset: number }[]> {
  const { Admin } = await import('@platformatic/kafka')
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: server.bootstrap.split(',') })
  try {
    const groups = await admin.listConsumerGroupOffsets({ groups: [group] })
    return groups.flatMap(({ topics }) =>
      topics.flatMap(({ name: topic, partitions }) =>
        partitions.map(({ partitionIndex, committedOffset }) => ({
          topic,
          partition: partitionIndex,
          offset: Number(committedOffset),
        })),
      ),
    )
  } finally {
    await admin.close()
  }
}

/** Runs kcat; `input` goes to its stdin. */
export function runKcat(args: readonly string[], input: Buffer | string = ''): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const file = kcatFile()
    if (file === undefined) {
      reject(new Error('there is no kcat here: node scripts/services.js install --need kcat'))
      return
    }
    const child = execFile(file, [...args], { maxBuffer: 1 << 28, encoding: 'buffer' }, (error, stdout, stderr) => {
      if (error) reject(new Error(`kcat ${args.join(' ')} failed: ${stderr.toString().trim().slice(-500)}`))
      else resolve(stdout)
    })
    child.stdin!.on('error', () => undefined)
    child.stdin!.end(input)
  })
}
