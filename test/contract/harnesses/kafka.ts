/**
 * Topics of one Kafka node. Clients go to the address that the node advertises, so no link can stand before it: outages
 * and late answers of brokers are tried in test/faults/kafka-*.test.ts.
 */
import { available, ends, get, groupName, type KafkaServer, makeTopic, put, startKafka } from '../../services/kafka'
import { makeTarget } from '../../support/context'
import { openSink } from '../../support/kafka'
import { lazily, missing, type Carried, type Harness } from '../harness'

/** Above the topic's limit for a batch. */
const TOO_LARGE = 300_000
/** A node that has just started knows no producers yet, so one has written to it already. */
const node = lazily(
  async () => {
    const started = await startKafka()
    const { sink } = await openSink(`kafka://${started.bootstrap}/${await makeTopic(started)}`)
    await sink.close()
    return started
  },
  (started) => started.stop(),
)
const noKafka = missing(available().length > 0 || process.env['MANIFOLD_TEST_KAFKA'] !== undefined, 'Kafka', 'kafka')

async function makeTopicOf(): Promise<{ readonly server: KafkaServer; readonly topic: string }> {
  const server = await node()
  const topic = await makeTopic(server, { configs: { 'max.message.bytes': TOO_LARGE - 50_000 } })
  // Its leader answers.
  await ends(server, topic)
  return { server, topic }
}

function topics(group: boolean): Harness {
  return {
    source: {
      can: ['ends', 'carries', group ? 'upstream' : 'here'],
      start:
        noKafka ??
        (async (endpoint, records) => {
          const { server, topic } = await makeTopicOf()
          await put(
            server,
            topic,
            records.map((value) => ({ value, key: 'k', headers: [['colour', 'blue']] })),
          )
          return {
            target: makeTarget(endpoint, `kafka://${server.bootstrap}/${topic}`, group ? { group: groupName() } : {}),
            expected: records,
            carried: { key: Buffer.from('k'), headers: [['colour', Buffer.from('blue')]] },
            more: (values) =>
              put(
                server,
                topic,
                values.map((value) => ({ value })),
              ),
            stop: () => Promise.resolve(),
          }
        }),
    },
    sink: {
      can: ['carries', 'refuses'],
      start: group
        ? 'sinks have no groups'
        : (noKafka ??
          (async (endpoint) => {
            const { server, topic } = await makeTopicOf()
            return {
              target: makeTarget(endpoint, `kafka://${server.bootstrap}/${topic}`),
              tooLarge: TOO_LARGE,
              stop: () => Promise.resolve(),
              stored: async (count) => (await get(server, topic, count)).map(({ value }) => String(value)),
              storedCarried: async (count) =>
                (await get(server, topic, count)).map(({ key, headers }): Carried => {
                  return { ...(key === null ? {} : { key }), headers }
                }),
            }
          })),
    },
  }
}

export const kafka: Readonly<Record<string, Harness>> = { kafka: topics(false), 'kafka group': topics(true) }
