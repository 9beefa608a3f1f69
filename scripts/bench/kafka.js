/**
 * Kafka against kcat (librdkafka), start-up included, in turn, with the same acknowledgements, idempotence, linger and
 * compression. Records have 215 bytes and six partitions.
 */
'use strict'
const { accept } = require('./accept')
const { data } = require('./data')
const { compare, counted, measure } = require('./measure')
const { available, kcat, startKafka } = require('../services/kafka')

const SIZE = 215
const PARTITIONS = 6
// The broker must not be the bottleneck, so it gets more memory than in tests.
const JVM = ['-Xms1g', '-Xmx1g', '-XX:+UseG1GC']

/** The rows and their names in the table. */
const ROWS = {
  'kafka-stdout': 'Kafka to stdout, with commits',
  'stdin-kafka': 'stdin to Kafka',
  'kafka-kafka': 'Kafka to Kafka',
  'kafka-accept': 'Kafka to S3 until accepted (peer: Kafka to stdout)',
}

async function run({ manifold, state, pairs, wants, records, results, left }) {
  const rows = Object.keys(ROWS).filter((row) => wants('kafka') || wants(row))
  if (rows.length === 0) return
  const peer = kcat()
  if (available().length === 0 || peer === undefined) {
    left.push('Kafka: needs Kafka and kcat (node scripts/services.js install --need kafka,kcat)')
    return
  }
  // The newline belongs to the framing, not to the record.
  const { file, lines } = data(records * (SIZE + 1), SIZE + 1)
  const server = await startKafka({ own: true, jvm: JVM })
  try {
    const { bootstrap } = server
    let made = 0
    /** Each run writes to a topic of its own, so that none grows and none is warm. */
    const into = async (script) => {
      const topic = `bench-out-${++made}`
      await server.createTopics([{ name: topic, partitions: PARTITIONS }])
      try {
        const done = await measure((wrap) => script(topic, wrap))
        const there = await server.recordCount(topic)
        if (there !== lines) throw new Error(`${there} records instead of ${lines} are in the topic`)
        return done
      } finally {
        await server.deleteTopics([topic])
      }
    }
    const produce = `'${peer}' -P -b ${bootstrap} -X acks=all -X enable.idempotence=true -X linger.ms=5 -X compression.codec=none`
    const consume = `'${peer}' -C -b ${bootstrap} -t bench-in -o beginning -e -q`
    const ours = (rest) => `'${manifold}' ${rest} --state '${state()}'`
    const fromGroup = () => `kafka://${bootstrap}/bench-in group=bench-${++made}`
    const toStdout = () => measure((wrap) => counted(wrap(ours(`--from ${fromGroup()} --to - --until end`)), lines))

    const row = async (name, peer, ours, goal) => {
      if (rows.includes(name)) results.push(await compare(ROWS[name], pairs, peer, ours, goal))
    }

    await server.createTopics([{ name: 'bench-in', partitions: PARTITIONS }])
    await measure(() => `cat '${file}' | ${produce} -t bench-in`)
    await row('kafka-stdout', () => measure(() => counted(consume, lines)), toStdout, 0.6)
    await row(
      'stdin-kafka',
      () => into((topic) => `cat '${file}' | ${produce} -t ${topic}`),
      () => into((topic, wrap) => `cat '${file}' | ${wrap(ours(`--from - --to kafka://${bootstrap}/${topic}`))}`),
      0.6,
    )
    await row(
      'kafka-kafka',
      () => into((topic) => `${consume} | ${produce} -t ${topic}`),
      () => into((topic, wrap) => wrap(ours(`--from ${fromGroup()} --to kafka://${bootstrap}/${topic} --until end`))),
      0.6,
    )
    await row(
      'kafka-accept',
      toStdout,
      () => accept({ manifold, from: fromGroup(), count: lines, state: state() }),
      0.5,
    )
  } finally {
    await server.stop()
  }
}

module.exports = { names: ['kafka', ...Object.keys(ROWS)], run }
