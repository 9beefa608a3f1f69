/** Queues of one RabbitMQ node, each harness behind a link of its own. */
import { Broker } from '../../endpoints/amqp/broker'
import { available } from '../../services/rabbitmq'
import { makeTarget } from '../../support/context'
import { Link } from '../../support/link'
import { lazily, missing, type Carried, type Harness } from '../harness'

/** Above the node's limit for one message. */
const TOO_LARGE = 300_000
const node = lazily(
  () => Broker.start({ conf: [`max_message_size = ${TOO_LARGE - 50_000}`] }),
  (broker) => broker.stop(),
)
const noRabbitmq = missing(available().length > 0, 'RabbitMQ', 'rabbitmq')

interface Made {
  readonly broker: Broker
  readonly queue: string
  readonly link: Link
  readonly uri: string
}
async function makeQueue(type: 'classic' | 'quorum'): Promise<Made> {
  const broker = await node()
  const queue = await broker.declare(`contract-${Math.random().toString(36).slice(2)}`, {
    arguments: { 'x-queue-type': type },
  })
  const link = await Link.to(broker.port)
  return { broker, queue, link, uri: `amqp://127.0.0.1:${link.port}` }
}

function queues(type: 'classic' | 'quorum'): Harness {
  return {
    source: {
      can: ['ends', 'upstream', 'shared', 'carries', 'outage'],
      start:
        noRabbitmq ??
        (async (endpoint, records) => {
          const { broker, queue, link, uri } = await makeQueue(type)
          await broker.put(queue, records, { headers: { colour: 'blue', 'manifold-key': Buffer.from('k') } })
          return {
            target: makeTarget(endpoint, uri, { queue }),
            expected: records,
            carried: { key: Buffer.from('k'), headers: [['colour', 'blue']] },
            outage: link,
            more: (values) => broker.put(queue, values),
            stop: () => link.close(),
          }
        }),
    },
    sink: {
      can: ['carries', 'outage', 'answers', 'refuses'],
      start:
        noRabbitmq ??
        (async (endpoint) => {
          const { broker, queue, link, uri } = await makeQueue(type)
          const collected: string[] = []
          return {
            target: makeTarget(endpoint, uri, { queue }),
            outage: link,
            answers: link,
            tooLarge: TOO_LARGE,
            stop: () => link.close(),
            stored: async (count) => {
              // What is collected leaves the queue.
              if (count > collected.length)
                for (const { content } of await broker.collect(queue, count - collected.length))
                  collected.push(content.toString())
              return collected
            },
            storedCarried: async (count) =>
              (await broker.collect(queue, count)).map(({ properties }): Carried => {
                const { 'manifold-key': key, ...headers } = (properties.headers ?? {}) as Record<string, Buffer>
                return { ...(key === undefined ? {} : { key: Buffer.from(key) }), headers: Object.entries(headers) }
              }),
          }
        }),
    },
  }
}

export const amqp: Readonly<Record<string, Harness>> = { amqp: queues('classic'), 'amqp quorum': queues('quorum') }
