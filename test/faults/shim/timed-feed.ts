/**
 * A feed that goes on whether anybody listens or not, and knows when it sent what: missing records are compared with
 * the gaps that were told.
 */
import type { AddressInfo } from 'node:net'
import { WebSocketServer, type WebSocket } from 'ws'

export interface TimedFeed {
  readonly url: string
  /** When record i + 1 was sent, in milliseconds of the wall clock, to whoever was connected then. */
  readonly sent: readonly number[]
  stop(): Promise<void>
}

/** 2,000 records a second in bursts of ten, from the moment somebody has connected first. */
export async function startTimedFeed(text: (n: number) => string): Promise<TimedFeed> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false })
  const open = new Set<WebSocket>()
  const sent: number[] = []
  let timer: NodeJS.Timeout | undefined
  const burst = (): void => {
    const now = Date.now()
    for (let i = 0; i < 10; i++) {
      sent.push(now)
      for (const socket of open) socket.send(text(sent.length))
    }
  }
  server.on('connection', (socket) => {
    open.add(socket)
    const gone = (): void => {
      open.delete(socket)
    }
    socket.on('close', gone)
    socket.on('error', gone)
    timer ??= setInterval(burst, 5)
  })
  await new Promise((resolve) => {
    server.once('listening', resolve)
  })
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}/feed`,
    sent,
    async stop() {
      clearInterval(timer)
      for (const socket of open) socket.terminate()
      await new Promise((resolve) => {
        server.close(resolve)
      })
    },
  }
}
