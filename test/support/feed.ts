/**
 * A feed of numbered records as exist only once: it goes on whether anybody listens or not, and a record is sent to
 * whoever is connected at that moment. It knows what was sent on which connection: that is what the oracle compares
 * with.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { WebSocketServer, type WebSocket } from 'ws'

export interface FeedConnection {
  readonly first: number
  last: number
  closed: boolean
}
export interface Feed {
  readonly url: string
  readonly connections: readonly FeedConnection[]
  /** The number of the next record. */
  readonly next: number
  /** Cuts all connections without a closing handshake. */
  cut(): void
  stop(): Promise<void>
}

/** Deterministic, so that bytes can be compared: about `size` bytes of JSON. */
export function record(n: number, size = 200): string {
  const head = `{"n":${n},"price":${((n * 7919) % 100_000) / 100},"pad":"`
  return `${head}${'x'.repeat(Math.max(0, size - head.length - 2))}"}`
}

export async function startFeed(options: { readonly perSecond: number; readonly size?: number }): Promise<Feed> {
  const http = createServer()
  const server = new WebSocketServer({ server: http, perMessageDeflate: false })
  const connections: FeedConnection[] = []
  const open = new Map<WebSocket, FeedConnection>()
  let next = 1
  let paused = 0
  server.on('connection', (socket) => {
    const connection: FeedConnection = { first: next, last: next - 1, closed: false }
    connections.push(connection)
    open.set(socket, connection)
    const gone = (): void => {
      connection.closed = true
      open.delete(socket)
    }
    socket.on('close', gone)
    socket.on('error', gone)
  })
  await new Promise<void>((resolve) => {
    http.listen(0, '127.0.0.1', resolve)
  })
  const started = performance.now()
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - started) / 1000) * options.perSecond) - paused
    const last = Math.min(due, next + options.perSecond / 10)
    // A stalled event loop is not made up for in one burst.
    if (due > last) paused += due - last
    for (const socket of open.keys()) (socket as unknown as { _socket?: { cork(): void } })._socket?.cork()
    for (; next <= last; next++) {
      const text = record(next, options.size)
      for (const [socket, connection] of open) {
        socket.send(text)
        connection.last = next
      }
    }
    for (const socket of open.keys()) (socket as unknown as { _socket?: { uncork(): void } })._socket?.uncork()
  }, 5)
  return {
    url: `ws://127.0.0.1:${(http.address() as AddressInfo).port}/feed`,
    connections,
    get next() {
      return next
    },
    cut() {
      for (const socket of open.keys()) socket.terminate()
    },
    async stop() {
      clearInterval(timer)
      for (const socket of open.keys()) socket.terminate()
      await new Promise((resolve) => {
        server.close(resolve)
      })
      await new Promise((resolve) => {
        http.close(resolve)
      })
    },
  }
}
