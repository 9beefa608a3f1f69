import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'

/** Requests a page over a unix socket. It returns undefined if nobody answers yet. */
export function httpGet(
  socketPath: string,
  path: string,
): Promise<{ readonly code: number; readonly body: string } | undefined> {
  return new Promise((resolve) => {
    request({ socketPath, path }, (response) => {
      let body = ''
      response.on('data', (text: Buffer) => {
        body += text.toString()
      })
      response.on('end', () => {
        resolve({ code: response.statusCode ?? 0, body })
      })
    })
      .on('error', () => {
        resolve(undefined)
      })
      .end()
  })
}

export interface LocalServer {
  readonly endpoint: string
  /** Also where somebody is still connected. */
  stop(): Promise<void>
}

/** On a free port of loopback. */
export async function serveHttp(
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<LocalServer> {
  const sockets = new Set<Socket>()
  const server = createServer(handle)
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    // Of one that was cut off nobody hears any more.
    socket.on('error', () => undefined)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => {
        server.close(resolve)
      })
    },
  }
}
