/**
 * The peer, a bare loop over amqplib. `put URI QUEUE [mandatory]` publishes the lines of stdin, persistent, and ends
 * when all are confirmed. `get URI QUEUE COUNT` writes messages to stdout and acknowledges them.
 */
'use strict'
const { connect } = require('amqplib')

const [what, uri, queue, more] = process.argv.slice(2)

async function put(channel, mandatory) {
  let rest = Buffer.alloc(0)
  for await (const chunk of process.stdin) {
    const block = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let from = 0
    for (let end; (end = block.indexOf(10, from)) !== -1; from = end + 1) {
      if (!channel.sendToQueue(queue, block.subarray(from, end), { persistent: true, mandatory }))
        await new Promise((resolve) => {
          channel.once('drain', resolve)
        })
    }
    rest = block.subarray(from)
  }
  await channel.waitForConfirms()
}

async function get(channel, wanted) {
  await channel.prefetch(2000)
  let seen = 0
  let lines = []
  await new Promise((resolve) => {
    channel.consume(queue, (message) => {
      seen++
      lines.push(message.content, Buffer.from('\n'))
      if (seen % 500 !== 0 && seen !== wanted) return
      process.stdout.write(Buffer.concat(lines))
      lines = []
      channel.ack(message, true)
      if (seen === wanted) resolve()
    })
  })
}

async function main() {
  const connection = await connect(uri, { noDelay: true })
  const channel = await connection.createConfirmChannel()
  await (what === 'put' ? put(channel, more === 'mandatory') : get(channel, Number(more)))
  await channel.close()
  await connection.close()
}
main().catch((error) => {
  console.error(error.message)
  process.exitCode = 1
})
