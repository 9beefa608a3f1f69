/** A place for each endpoint to be tried in: records for a source, a look at what a sink has stored. */
import type { KinesisClient } from '@aws-sdk/client-kinesis'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { WebSocketServer } from 'ws'
import { createFramer } from '../../src/codec/framing'
import { StdioSource } from '../../src/endpoints/stdio/source'
import type { AnyEndpoint, AnyTarget } from '../../src/options/define'
import { Broker } from '../endpoints/amqp/broker'
import {
  available as kafkaHere,
  ends,
  get,
  groupName,
  type KafkaServer,
  makeTopic,
  put,
  startKafka,
} from '../services/kafka'
import {
  available as kinesisHere,
  get as getAll,
  kinesisClient,
  makeStream,
  put as putInto,
  startDynamodb,
  startKinesis,
} from '../services/kinesis'
import { available as rabbitmqHere } from '../services/rabbitmq'
import { makeSourceContext, makeTarget } from '../support/context'
import { openSink } from '../support/kafka'

export interface SourceHarness {
  readonly target: AnyTarget
  readonly expected: readonly string[]
  stop(): Promise<void>
}
export interface SinkHarness {
  readonly target: AnyTarget
  /** What is there, once so many records are; absent where nothing can be looked at. */
  readonly stored?: (count: number) => Promise<readonly string[]>
  stop(): Promise<void>
}
interface Harness {
  /** Its position lives with us, where the endpoint's declaration leaves that to the options. */
  readonly here?: boolean
  /** Its position is kept upstream, and survives whoever reads. */
  readonly upstream?: boolean
  /** Text: why not here. */
  readonly source?: ((endpoint: AnyEndpoint, records: readonly string[]) => Promise<SourceHarness>) | string
  /** Text: why not here, and where instead. */
  readonly sink?: ((endpoint: AnyEndpoint) => Promise<SinkHarness>) | string
}

async function inFolder<T>(make: (folder: string, stop: () => Promise<void>) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'manifold-contract-'))
  return make(folder, () => {
    rmSync(folder, { recursive: true, force: true })
    return Promise.resolve()
  })
}

async function server(): Promise<{ readonly server: WebSocketServer; readonly url: string; stop(): Promise<void> }> {
  const made = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await new Promise((resolve) => {
    made.once('listening', resolve)
  })
  return {
    server: made,
    url: `ws://127.0.0.1:${(made.address() as AddressInfo).port}/`,
    stop: () =>
      new Promise((resolve) => {
        for (const client of made.clients) client.terminate()
        made.close(() => {
          resolve()
        })
      }),
  }
}

/** One node for all cases: a start takes seconds. */
function lazily<T>(start: () => Promise<T>, stop: (made: T) => Promise<void>): () => Promise<T> {
  let made: Promise<T> | undefined
  afterAll(async () => {
    if (made !== undefined) await stop(await made)
  }, 30_000)
  return () => (made ??= start())
}
const rabbitmq = lazily(
  () => Broker.start(),
  (broker) => broker.stop(),
)
const noRabbitmq =
  rabbitmqHere().length > 0 || process.env['MANIFOLD_REQUIRE_SERVICES'] === '1'
    ? undefined
    : 'no RabbitMQ here: node scripts/services.js install --need rabbitmq'

function queues(type: 'classic' | 'quorum'): Harness {
  const made = async (): Promise<{ readonly broker: Broker; readonly queue: string }> => {
    const broker = await rabbitmq()
    return {
      broker,
      queue: await broker.declare(`contract-${Math.random().toString(36).slice(2)}`, {
        arguments: { 'x-queue-type': type },
      }),
    }
  }
  return {
    upstream: true,
    source:
      noRabbitmq ??
      (async (endpoint, records) => {
        const { broker, queue } = await made()
        await broker.put(queue, records)
        return {
          target: makeTarget(endpoint, broker.uri(), { queue }),
          expected: records,
          stop: () => Promise.resolve(),
        }
      }),
    sink:
      noRabbitmq ??
      (async (endpoint) => {
        const { broker, queue } = await made()
        return {
          target: makeTarget(endpoint, broker.uri(), { queue }),
          stop: () => Promise.resolve(),
          stored: async (count) => (await broker.collect(queue, count)).map(({ content }) => content.toString()),
        }
      }),
  }
}

/** Warm: a node that has just started knows no producers yet. */
const kafka = lazily(
  async () => {
    const started = await startKafka()
    const { sink } = await openSink(`kafka://${started.bootstrap}/${await makeTopic(started)}`)
    await sink.close()
    return started
  },
  (started) => started.stop(),
)
const noKafka =
  kafkaHere().length > 0 ||
  process.env['MANIFOLD_TEST_KAFKA'] !== undefined ||
  process.env['MANIFOLD_REQUIRE_SERVICES'] === '1'
    ? undefined
    : 'no Kafka here: node scripts/services.js install --need kafka'

function topics(group: boolean): Harness {
  const made = async (): Promise<{ readonly node: KafkaServer; readonly topic: string }> => {
    const node = await kafka()
    const topic = await makeTopic(node)
    // Its leader answers.
    await ends(node, topic)
    return { node, topic }
  }
  return {
    here: !group,
    upstream: group,
    source:
      noKafka ??
      (async (endpoint, records) => {
        const { node, topic } = await made()
        await put(
          node,
          topic,
          records.map((value) => ({ value })),
        )
        return {
          target: makeTarget(endpoint, `kafka://${node.bootstrap}/${topic}`, group ? { group: groupName() } : {}),
          expected: records,
          stop: () => Promise.resolve(),
        }
      }),
    sink: group
      ? 'sinks have no groups'
      : (noKafka ??
        (async (endpoint) => {
          const { node, topic } = await made()
          return {
            target: makeTarget(endpoint, `kafka://${node.bootstrap}/${topic}`),
            stop: () => Promise.resolve(),
            stored: async (count) => (await get(node, topic, count)).map(({ value }) => String(value)),
          }
        })),
  }
}

const kinesis = lazily(
  async () => {
    const node = await startKinesis({ kind: 'kinesalite' })
    return { node, client: kinesisClient(node) }
  },
  async ({ node, client }) => {
    client.destroy()
    await node.stop()
  },
)
const noKinesis =
  kinesisHere().includes('kinesalite') || process.env['MANIFOLD_REQUIRE_SERVICES'] === '1'
    ? undefined
    : 'no Kinesis emulator here: node scripts/services.js install --need kinesis'

/** One shard: records are in their order. */
function streams(): Harness {
  const made = async (
    endpoint: AnyEndpoint,
    given: Readonly<Record<string, string>> = {},
  ): Promise<{ readonly client: KinesisClient; readonly stream: string; readonly target: AnyTarget }> => {
    const { node, client } = await kinesis()
    const stream = await makeStream(client)
    return {
      client,
      stream,
      target: makeTarget(endpoint, `kinesis:${stream}`, {
        endpoint: node.endpoint,
        region: node.region,
        accessKeyId: node.accessKey,
        secretAccessKey: node.secretKey,
        ...given,
      }),
    }
  }
  return {
    here: true,
    source:
      noKinesis ??
      (async (endpoint, records) => {
        const { client, stream, target } = await made(endpoint)
        await putInto(
          client,
          stream,
          records.map((data) => ({ key: 'k', data })),
        )
        return { target, expected: records, stop: () => Promise.resolve() }
      }),
    sink:
      noKinesis ??
      (async (endpoint) => {
        const { client, stream, target } = await made(endpoint, { partitionKey: 'k', order: 'key' })
        return {
          target,
          stop: () => Promise.resolve(),
          stored: async (count) => {
            for (;;) {
              const found = await getAll(client, stream)
              if (found.length >= count) return found.map(({ data }) => data.toString())
            }
          },
        }
      }),
  }
}

const pushing = lazily(
  async () => {
    const node = await startKinesis({ kind: 'kinesis-local' })
    return { node, client: kinesisClient(node) }
  },
  async ({ node, client }) => {
    client.destroy()
    await node.stop()
  },
)
const noPushing =
  kinesisHere().includes('kinesis-local') || process.env['MANIFOLD_REQUIRE_SERVICES'] === '1'
    ? undefined
    : 'no kinesis-local here: node scripts/services.js install --need kinesis-fanout'

/** One shard, pushed to a consumer that each source registers and takes away. */
function pushed(): Harness {
  return {
    here: true,
    source:
      noPushing ??
      (async (endpoint, records) => {
        const { node, client } = await pushing()
        const stream = await makeStream(client)
        await putInto(
          client,
          stream,
          records.map((data) => ({ key: 'k', data })),
        )
        return {
          target: makeTarget(endpoint, `kinesis:${stream}`, {
            endpoint: node.endpoint,
            region: node.region,
            accessKeyId: node.accessKey,
            secretAccessKey: node.secretKey,
            consumerName: 'contract',
          }),
          expected: records,
          stop: () => Promise.resolve(),
        }
      }),
    sink: 'sinks have no consumers',
  }
}

const dynamodb = lazily(
  () => startDynamodb(),
  (node) => node.stop(),
)
const noLeases =
  noKinesis ??
  (kinesisHere().includes('dynalite') || process.env['MANIFOLD_REQUIRE_SERVICES'] === '1'
    ? undefined
    : 'no DynamoDB emulator here: node scripts/services.js install --need dynamodb')

/** One process, whose positions are in a table. */
function leases(): Harness {
  return {
    upstream: true,
    source:
      noLeases ??
      (async (endpoint, records) => {
        const [{ node, client }, tables] = await Promise.all([kinesis(), dynamodb()])
        const stream = await makeStream(client)
        await putInto(
          client,
          stream,
          records.map((data) => ({ key: 'k', data })),
        )
        const login = {
          endpoint: node.endpoint,
          region: node.region,
          accessKeyId: node.accessKey,
          secretAccessKey: node.secretKey,
        }
        return {
          target: makeTarget(endpoint, `kinesis:${stream}`, {
            ...login,
            leases: `dynamodb:${stream}`,
            leasesEndpoint: tables.endpoint,
            leaseDuration: '2s',
          }),
          expected: records,
          stop: () => Promise.resolve(),
        }
      }),
    sink: "leases are the source's",
  }
}

/**
 * By scheme; what it has of several kinds behind a space. stdin and stdout are descriptors of this process: their
 * endpoints are tried over real pipes elsewhere.
 */
export const harnesses: Readonly<Record<string, Harness>> = {
  file: {
    source: (endpoint, records) =>
      inFolder((folder, stop) => {
        writeFileSync(join(folder, 'in.ndjson'), records.map((each) => `${each}\n`).join(''))
        return Promise.resolve({ target: makeTarget(endpoint, `file:${folder}/in.ndjson`), expected: records, stop })
      }),
    sink: (endpoint) =>
      inFolder((folder, stop) =>
        Promise.resolve({
          target: makeTarget(endpoint, `file:${folder}/out.ndjson`),
          stop,
          stored: () => Promise.resolve(readFileSync(join(folder, 'out.ndjson'), 'utf8').trim().split('\n')),
        }),
      ),
  },
  generate: {
    source: async (endpoint) => {
      const create = await endpoint.source?.load()
      const target = makeTarget(endpoint, 'generate:', { count: '1000', size: '64' })
      const source = create?.(target)
      await source?.open(makeSourceContext().ctx)
      const expected: string[] = []
      for (
        let delivery = await source?.read(new AbortController().signal);
        delivery !== null && delivery !== undefined;
        delivery = await source?.read(new AbortController().signal)
      )
        expected.push(...delivery.batch.entries().map((entry) => String(entry.value)))
      await source?.close()
      return { target, expected, stop: () => Promise.resolve() }
    },
  },
  discard: {
    sink: (endpoint) => Promise.resolve({ target: makeTarget(endpoint, 'discard:'), stop: () => Promise.resolve() }),
  },
  ws: {
    source: async (endpoint, records) => {
      const { server: made, url, stop } = await server()
      made.on('connection', (socket) => {
        for (const each of records) socket.send(each)
      })
      return { target: makeTarget(endpoint, url), expected: records, stop }
    },
    sink: async (endpoint) => {
      const { server: made, url, stop } = await server()
      const seen: string[] = []
      made.on('connection', (socket) => {
        socket.on('message', (data: Buffer) => {
          seen.push(data.toString())
        })
      })
      return {
        target: makeTarget(endpoint, url),
        stop,
        stored: async (count) => {
          while (seen.length < count)
            await new Promise((resolve) => {
              setTimeout(resolve, 5)
            })
          return seen
        },
      }
    },
  },
  kafka: topics(false),
  'kafka group': topics(true),
  kinesis: streams(),
  'kinesis fan-out': pushed(),
  'kinesis leases': leases(),
  amqp: queues('classic'),
  'amqp quorum': queues('quorum'),
  stdio: {
    source: (_, records) => {
      // The source of the endpoint reads descriptor 0; the same class reads any other.
      return inFolder((folder, stop) => {
        writeFileSync(join(folder, 'in'), records.map((each) => `${each}\n`).join(''))
        const fd = openSync(join(folder, 'in'), 'r')
        const target = {
          options: {},
          uri: { scheme: 'stdio', hosts: [], path: '', text: '-' },
          label: '-',
          resolve: () => Promise.reject(new Error('not asked')),
          source: new StdioSource(fd, createFramer('lines', { maxRecord: 1 << 20 })),
        } as unknown as AnyTarget
        return Promise.resolve({
          target,
          expected: records,
          stop: async () => {
            closeSync(fd)
            await stop()
          },
        })
      })
    },
    sink: 'stdout is a descriptor of the process: test/endpoints/stdio.test.ts tries it over real pipes',
  },
  s3: { sink: 'it writes sealed segments: test/endpoints/s3/sink.test.ts tries it on two real servers' },
}
