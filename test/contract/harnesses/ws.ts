/** A WebSocket server in this process, behind a link that can be cut. It sends all records to each new connection. */
import type { AddressInfo } from 'node:net'
import { WebSocketServer } from 'ws'
import { makeTarget } from '../../support/context'
import { Link } from '../../support/link'
import { until } from '../../support/until'
import type { Harness, Outage } from '../harness'

interface Server {
  readonly server: WebSocketServer
  readonly url: string
  readonly outage: Outage
  stop(): Promise<void>
}

async function startServer(): Promise<Server> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await new Promise((resolve) => {
    server.once('listening', resolve)
  })
  const link = await Link.to((server.address() as AddressInfo).port)
  return {
    server,
    url: `ws://127.0.0.1:${link.port}/`,
    outage: link,
    stop: async () => {
      await link.close()
      for (const client of server.clients) client.terminate()
      await new Promise((resolve) => {
        server.close(resolve)
      })
    },
  }
}

export const ws: Harness = {
  source: {
    can: ['outage'],
    start: async (endpoint, records) => {
      const { server, url, outage, stop } = await startServer()
      server.on('connection', (socket) => {
        for (const each of records) socket.send(each)
      })
      return { target: makeTarget(endpoint, url), expected: records, outage, stop }
    },
  },
  sink: {
    can: ['outage'],
    start: async (endpoint) => {
      const { server, url, outage, stop } = await startServer()
      const seen: string[] = []
      server.on('connection', (socket) => {
        socket.on('message', (data: Buffer) => {
          seen.push(data.toString())
        })
      })
      return {
        target: makeTarget(endpoint, url),
        outage,
        stop,
        stored: async (count) => {
          await until(() => seen.length >= count, `${count} messages at the server`, { seen: () => seen.length })
          return seen
        },
      }
    },
  },
}
