/** Streams of one shard, so that records have one order, in the emulators; each harness behind a link of its own. */
import type { KinesisClient } from '@aws-sdk/client-kinesis'
import type { AnyEndpoint, AnyTarget } from '../../../src/options/define'
import {
  available,
  type AwsServer,
  get,
  kinesisClient,
  makeStream,
  put,
  startDynamodb,
  startKinesis,
} from '../../services/kinesis'
import { makeTarget } from '../../support/context'
import { Link } from '../../support/link'
import { until } from '../../support/until'
import { lazily, missing, type Harness } from '../harness'

interface Emulator {
  readonly node: AwsServer
  readonly client: KinesisClient
}
const emulator = (kind: 'kinesalite' | 'kinesis-local'): (() => Promise<Emulator>) =>
  lazily(
    async () => {
      const node = await startKinesis({ kind })
      return { node, client: kinesisClient(node) }
    },
    async ({ node, client }) => {
      client.destroy()
      await node.stop()
    },
  )
const polled = emulator('kinesalite')
const pushed = emulator('kinesis-local')
const dynamodb = lazily(
  () => startDynamodb(),
  (node) => node.stop(),
)
const noKinesis = missing(available().includes('kinesalite'), 'Kinesis emulator', 'kinesis')
const noFanOut = missing(available().includes('kinesis-local'), 'kinesis-local', 'kinesis-fanout')
const noLeases = noKinesis ?? missing(available().includes('dynalite'), 'DynamoDB emulator', 'dynamodb')

interface Made extends Emulator {
  readonly stream: string
  readonly link: Link
  target(endpoint: AnyEndpoint, given: Readonly<Record<string, string>>): AnyTarget
}
async function makeStreamOf(start: () => Promise<Emulator>): Promise<Made> {
  const { node, client } = await start()
  const [stream, link] = [await makeStream(client), await Link.to(Number(new URL(node.endpoint).port))]
  return {
    node,
    client,
    stream,
    link,
    target: (endpoint, given) =>
      makeTarget(endpoint, `kinesis:${stream}`, {
        endpoint: `http://127.0.0.1:${link.port}`,
        region: node.region,
        accessKeyId: node.accessKey,
        secretAccessKey: node.secretKey,
        ...given,
      }),
  }
}

function sourceOf(
  start: () => Promise<Emulator>,
  given: (stream: string) => Promise<Readonly<Record<string, string>>> | Readonly<Record<string, string>>,
): NonNullable<Harness['source']>['start'] {
  return async (endpoint, records) => {
    const { client, stream, link, target } = await makeStreamOf(start)
    await put(
      client,
      stream,
      records.map((data) => ({ key: 'k', data })),
    )
    return {
      target: target(endpoint, await given(stream)),
      expected: records,
      carried: { key: Buffer.from('k') },
      outage: link,
      more: (more) =>
        put(
          client,
          stream,
          more.map((data) => ({ key: 'k', data })),
        ),
      stop: () => link.close(),
    }
  }
}

export const kinesis: Readonly<Record<string, Harness>> = {
  kinesis: {
    source: { can: ['ends', 'here', 'carries', 'outage'], start: noKinesis ?? sourceOf(polled, () => ({})) },
    sink: {
      can: ['outage', 'answers', 'refuses'],
      start:
        noKinesis ??
        (async (endpoint) => {
          const { client, stream, link, target } = await makeStreamOf(polled)
          const stored = async (count: number): ReturnType<typeof get> => {
            let found: Awaited<ReturnType<typeof get>> = []
            await until(
              async () => {
                found = await get(client, stream)
                return found.length >= count
              },
              `${count} records in the stream`,
              { seen: () => found.length },
            )
            return found
          }
          return {
            // One key for all keeps them in order, and leaves none to be looked at.
            target: target(endpoint, { partitionKey: 'k', order: 'key' }),
            outage: link,
            answers: link,
            tooLarge: 11 << 20,
            stop: () => link.close(),
            stored: async (count) => (await stored(count)).map(({ data }) => data.toString()),
          }
        }),
    },
  },
  'kinesis fan-out': {
    source: {
      can: ['ends', 'here', 'carries', 'outage'],
      // The emulator removes the first consumer of a name in any stream.
      start: noFanOut ?? sourceOf(pushed, (stream) => ({ consumerName: `contract-${stream}` })),
    },
    sink: { start: 'sinks have no consumers' },
  },
  'kinesis leases': {
    source: {
      can: ['ends', 'upstream', 'carries', 'outage'],
      start:
        noLeases ??
        sourceOf(polled, async (stream) => ({
          leases: `dynamodb:${stream}`,
          leasesEndpoint: (await dynamodb()).endpoint,
          leaseDuration: '2s',
        })),
    },
    sink: { start: "leases are the source's" },
  },
}
