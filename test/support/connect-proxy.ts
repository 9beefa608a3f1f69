/** Starts an HTTP proxy for a test. It serves CONNECT and requests whose target is a whole URL. */
import { once } from 'node:events'
import * as http from 'node:http'
import * as https from 'node:https'
import * as net from 'node:net'
import type { Duplex } from 'node:stream'

export interface Proxy {
  readonly url: string
  readonly asked: { readonly path: string; readonly login: string | undefined }[]
  close(): Promise<void>
}

/** @param answer a status instead of a tunnel @param hang never answers */
export async function startProxy({
  answer,
  tls,
  hang = false,
}: {
  answer?: number
  tls?: https.ServerOptions
  hang?: boolean
} = {}): Promise<Proxy> {
  const asked: Proxy['asked'] = []
  const ends = new Set<Duplex>()
  const proxy = tls === undefined ? http.createServer() : https.createServer(tls)
  const note = (request: http.IncomingMessage): void => {
    asked.push({ path: request.url ?? '', login: request.headers['proxy-authorization'] })
  }
  proxy.on('connection', (socket: net.Socket) => {
    ends.add(socket)
  })
  proxy.on('request', (request, response) => {
    note(request)
    const to = new URL(request.url ?? '')
    const onward = http.request(
      {
        host: to.hostname,
        port: to.port,
        method: request.method,
        path: `${to.pathname}${to.search}`,
        headers: request.headers,
        agent: false,
      },
      (found) => {
        response.writeHead(found.statusCode ?? 502, found.headers)
        found.pipe(response)
      },
    )
    onward.on('error', () => {
      request.socket.destroy()
    })
    request.pipe(onward)
  })
  proxy.on('connect', (request, socket, head) => {
    ends.add(socket)
    socket.on('error', () => undefined)
    note(request)
    if (hang) return
    if (answer !== undefined) {
      socket.end(`HTTP/1.1 ${answer} ${http.STATUS_CODES[answer] ?? 'x'}\r\nContent-Length: 0\r\n\r\n`)
      return
    }
    const [host, port] = (request.url ?? '').split(':')
    const far = net.connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 Connection Established\r\n\r\n')
      far.write(head)
      far.pipe(socket).pipe(far)
    })
    ends.add(far)
    far.on('error', () => {
      socket.destroy()
    })
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  const { port } = proxy.address() as net.AddressInfo
  return {
    url: `http${tls === undefined ? '' : 's'}://127.0.0.1:${port}`,
    asked,
    close: async () => {
      for (const end of ends) end.destroy()
      await new Promise((resolve) => {
        proxy.close(resolve)
      })
    },
  }
}
