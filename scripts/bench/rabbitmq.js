/**
 * RabbitMQ against a bare loop of the same client library, with confirms on the way in and acknowledgements on the way
 * out.
 */
'use strict'
const path = require('path')
const { data } = require('./data')
const { compare, counted, measure } = require('./measure')
const { available, startRabbitmq } = require('../services/rabbitmq')

async function run({ manifold, folder, state, pairs, wants, records, results, left }) {
  if (!wants('amqp')) return
  if (available().length === 0) {
    left.push('RabbitMQ: needs RabbitMQ (node scripts/services.js install --need rabbitmq)')
    return
  }
  const { file, lines } = data(Math.ceil(records / 7) * 220)
  // With the 1 GB of the tests about every second run took a third longer, peer's and ours, and the queue was then
  // found with a fraction of the memory; with this none does.
  const server = await startRabbitmq({ own: true, conf: ['vm_memory_high_watermark.absolute = 4GB'] })
  const { connect } = require('amqplib')
  const connection = await connect(server.uri)
  connection.on('error', () => undefined)
  try {
    const channel = await connection.createChannel()
    // Each run gets a new queue, so that none begins with what the run before has left in the queue's memory.
    const fresh = async () => {
      await channel.deleteQueue('bench')
      await channel.assertQueue('bench', { durable: true })
    }
    const loop = (what, more = '') =>
      `'${process.execPath}' '${path.join(__dirname, 'amqp-loop.js')}' ${what} ${server.uri} bench ${more}`
    const ours = (rest) => `'${manifold}' ${rest} --state '${state()}'`
    const put = async (script) => {
      await fresh()
      const done = await measure(script)
      const { messageCount } = await channel.checkQueue('bench')
      if (messageCount !== lines) throw new Error(`${messageCount} messages instead of ${lines} are in the queue`)
      return done
    }
    const get = async (script) => {
      await fresh()
      await measure(() => `cat '${file}' | ${loop('put')}`)
      return measure(script)
    }
    // Messages that no queue takes come back only where the publisher asks for it, which costs the broker a twentieth.
    // Both sides ask for it.
    for (const [name, flag, option] of [
      ['confirmed', '', 'mandatory=false'],
      ['confirmed, or returned', 'mandatory', ''],
    ]) {
      results.push(
        await compare(
          `stdin to RabbitMQ, ${name}`,
          pairs,
          () => put(() => `cat '${file}' | ${loop('put', flag)}`),
          () => put((wrap) => `cat '${file}' | ${wrap(ours(`--from - --to ${server.uri} queue=bench ${option}`))}`),
          0.95,
        ),
      )
    }
    const out = path.join(folder, 'out')
    const filed = (command) => `rm -f '${out}'; ${command} && ${counted(`cat '${out}'`, lines)}`
    results.push(
      await compare(
        'RabbitMQ to a file, acknowledged',
        pairs,
        () => get(() => filed(`${loop('get', lines)} > '${out}'`)),
        () => get((wrap) => filed(wrap(ours(`--from ${server.uri} queue=bench --to 'file:${out}' --until end`)))),
        0.95,
      ),
    )
    results.push(
      await compare(
        'RabbitMQ to stdout, acknowledged',
        pairs,
        () => get(() => counted(loop('get', lines), lines)),
        () => get((wrap) => counted(wrap(ours(`--from ${server.uri} queue=bench --to - --until end`)), lines)),
        0.95,
      ),
    )
  } finally {
    await connection.close().catch(() => undefined)
    await server.stop()
  }
}

module.exports = { names: ['amqp'], run }
