/**
 * A cluster of several Kafka brokers: a controller that no test kills, and brokers beside it that may be killed and
 * started again.
 */
'use strict'
const fs = require('fs')
const net = require('net')
const path = require('path')
const { SMALL, available, clientsOf, home, id, java, ready } = require('./kafka')
const { base } = require('./kafka-config')
const { startProcess } = require('./process')

const CONTROLLER = 100

/** Resolves to true where somebody listens on the port. */
function listens(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1')
    const done = (value) => {
      socket.destroy()
      resolve(value)
    }
    socket.on('connect', () => done(true))
    socket.on('error', () => done(false))
  })
}

function startNode({ node, cluster, properties, isReady }) {
  return startProcess({
    name: 'kafka',
    ready: isReady,
    graceMs: 10_000,
    waitMs: 90_000,
    command: (port, dir) => {
      const data = path.join(dir, 'data')
      if (!fs.existsSync(data)) {
        fs.cpSync(path.join(home, 'formatted'), data, { recursive: true })
        fs.writeFileSync(
          path.join(data, 'meta.properties'),
          `version=1\nnode.id=${node}\ncluster.id=${cluster}\ndirectory.id=${id()}\n`,
        )
      }
      const all = Object.assign({}, base, { 'node.id': node, 'log.dirs': data }, properties(port))
      const file = path.join(dir, 'server.properties')
      fs.writeFileSync(
        file,
        Object.entries(all)
          .map(([name, value]) => `${name}=${value}\n`)
          .join(''),
        { mode: 0o600 },
      )
      return {
        file: 'java',
        args: [...java(home, 'server', SMALL), 'kafka.Kafka', file],
        env: { KAFKA_OPTS: '', JAVA_TOOL_OPTIONS: '' },
      }
    },
  })
}

/** @param {{ brokers?: number, racks?: string[], properties?: Record<string, string | number | boolean> }} [options] */
async function startKafkaCluster({ brokers = 3, racks = [], properties = {} } = {}) {
  if (available().length === 0) throw new Error('there is no Kafka here: node scripts/services.js install --need kafka')
  const cluster = id()
  const quorum = (port) => `${CONTROLLER}@127.0.0.1:${port}`
  const replicated = Object.fromEntries(
    ['offsets.topic', 'transaction.state.log', 'share.coordinator.state.topic'].map((topic) => [
      `${topic}.replication.factor`,
      brokers,
    ]),
  )
  const started = []
  const stop = async () => {
    await Promise.all(started.map((each) => each.stop()))
  }
  try {
    const controller = await startNode({
      node: CONTROLLER,
      cluster,
      isReady: listens,
      properties: (port) =>
        Object.assign(
          {
            'process.roles': 'controller',
            listeners: `CONTROLLER://127.0.0.1:${port}`,
            'controller.quorum.voters': quorum(port),
          },
          properties,
        ),
    })
    started.push(controller)
    const nodes = await Promise.all(
      Array.from({ length: brokers }, async (_, index) => {
        const node = await startNode({
          node: index + 1,
          cluster,
          isReady: ready,
          properties: (port) =>
            Object.assign(
              {
                'process.roles': 'broker',
                listeners: `PLAIN://127.0.0.1:${port}`,
                'advertised.listeners': `PLAIN://127.0.0.1:${port}`,
                'controller.quorum.voters': quorum(controller.port),
              },
              replicated,
              racks[index] === undefined ? {} : { 'broker.rack': racks[index] },
              properties,
            ),
        })
        started.push(node)
        return Object.defineProperties(
          {},
          Object.assign(Object.getOwnPropertyDescriptors(node), Object.getOwnPropertyDescriptors({ id: index + 1 })),
        )
      }),
    )
    const bootstrap = nodes.map(({ port }) => `127.0.0.1:${port}`).join(',')
    return Object.assign({ kind: 'kafka', bootstrap, brokers: nodes, stop }, clientsOf(bootstrap))
  } catch (error) {
    await stop()
    throw error
  }
}

module.exports = { startKafkaCluster }
