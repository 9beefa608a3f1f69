/** Serves WebSocket on loopback and keeps the messages it is sent. */
import type { AddressInfo } from 'node:net'
import { WebSocketServer } from 'ws'

export interface Collector {
  readonly port: number
  readonly messages: readonly string[]
  close(): void
}

export async function collector(): Promise<Collector> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await new Promise((resolve) => {
    server.once('listening', resolve)
  })
  const messages: string[] = []
  server.on('connection', (socket) => {
    socket.on('message', (data: Buffer) => {
      messages.push(data.toString())
    })
  })
  return {
    port: (server.address() as AddressInfo).port,
    messages,
    close: () => {
      server.close()
    },
  }
}
