/**
 * Starts servers for the tests of ws: the real one of the `ws` package, and a raw one that does what no library would.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import * as http from 'node:http'
import * as https from 'node:https'
import * as net from 'node:net'
import { WebSocketServer, type ServerOptions, type WebSocket } from 'ws'
import type { Delivery, Source } from '../../../src/core/contract'
import ws from '../../../src/endpoints/ws'
import { makeTarget } from '../../support/context'
import type { CreateSink, CreateSource, Target } from '../../../src/options/define'
import type { WsOptions } from '../../../src/endpoints/ws/options'

export interface Peer {
  readonly url: string
  readonly port: number
  /** Sockets of all connections so far, in the order of their upgrades. */
  readonly sockets: WebSocket[]
  readonly requests: http.IncomingMessage[]
  close(): Promise<void>
}
export interface PeerOptions extends ServerOptions {
  readonly tls?: https.ServerOptions
  connected?(socket: WebSocket, index: number, request: http.IncomingMessage): void
  /** Answers the upgrade itself by returning a status; undefined lets it through. */
  refuse?(index: number): { readonly status: number; readonly headers?: http.OutgoingHttpHeaders } | undefined
  readonly port?: number
}

export async function startPeer({ tls, connected, refuse, port = 0, ...options }: PeerOptions = {}): Promise<Peer> {
  const server = tls === undefined ? http.createServer() : https.createServer(tls)
  const wss = new WebSocketServer({ noServer: true, perMessageDeflate: false, ...options })
  const sockets: WebSocket[] = []
  const requests: http.IncomingMessage[] = []
  let upgrades = 0
  server.on('upgrade', (request, socket, head) => {
    requests.push(request)
    socket.on('error', () => undefined)
    const refused = refuse?.(upgrades++)
    if (refused !== undefined) {
      const headers = Object.entries(refused.headers ?? {})
        .map(([name, value]) => `${name}: ${String(value)}\r\n`)
        .join('')
      socket.end(
        `HTTP/1.1 ${refused.status} ${http.STATUS_CODES[refused.status] ?? 'x'}\r\nConnection: close\r\nContent-Length: 0\r\n${headers}\r\n`,
      )
      return
    }
    wss.handleUpgrade(request, socket, head, (client) => {
      client.on('error', () => undefined)
      const index = sockets.push(client) - 1
      connected?.(client, index, request)
    })
  })
  server.on('tlsClientError', () => undefined)
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const at = (server.address() as net.AddressInfo).port
  return {
    url: `${tls === undefined ? 'ws' : 'wss'}://127.0.0.1:${at}`,
    port: at,
    sockets,
    requests,
    close: async () => {
      for (const socket of sockets) socket.terminate()
      server.closeAllConnections()
      await new Promise((resolve) => {
        server.close(resolve)
      })
    },
  }
}

export interface RawPeer {
  readonly url: string
  readonly port: number
  readonly sockets: net.Socket[]
  close(): Promise<void>
}

/**
 * A TCP server. @param upgraded called with sockets that asked for an upgrade and got it; absent: `connected` does all
 */
export async function startRaw(connected: (socket: net.Socket, index: number) => void): Promise<RawPeer> {
  const sockets: net.Socket[] = []
  const server = net.createServer((socket) => {
    socket.on('error', () => undefined)
    connected(socket, sockets.push(socket) - 1)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  return {
    url: `ws://127.0.0.1:${port}`,
    port,
    sockets,
    close: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => {
        server.close(resolve)
      })
    },
  }
}

/** Answers an opening request by the book; resolves when it has. */
export async function accept(socket: net.Socket): Promise<void> {
  let text = ''
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    text += (chunk as Buffer).toString('latin1')
    if (text.includes('\r\n\r\n')) break
  }
  const key = /sec-websocket-key: (\S+)/i.exec(text)?.[1] ?? ''
  const digest = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${digest}\r\n\r\n`,
  )
}

/** A server's frame, unmasked. */
export function frame(opcode: number, payload: Buffer, fin = true): Buffer {
  const { length } = payload
  const head =
    length < 126
      ? Buffer.from([0, length])
      : length < 65_536
        ? Buffer.from([0, 126, length >> 8, length & 255])
        : Buffer.alloc(10)
  if (length >= 65_536) {
    head[1] = 127
    head.writeBigUInt64BE(BigInt(length), 2)
  }
  head[0] = (fin ? 0x80 : 0) | opcode
  return Buffer.concat([head, payload])
}

export async function makeSource(uri: string, given: Readonly<Record<string, unknown>> = {}): Promise<Source> {
  const create = (await ws.source?.load()) as CreateSource<WsOptions>
  return create(makeTarget(ws, uri, given) as Target<WsOptions>)
}

export async function makeSink(
  uri: string,
  given: Readonly<Record<string, unknown>> = {},
): Promise<ReturnType<CreateSink<WsOptions>>> {
  const create = (await ws.sink?.load()) as CreateSink<WsOptions>
  return create(makeTarget(ws, uri, given) as Target<WsOptions>)
}

/** Records until there are so many, in order; throws what `read` throws, with the records so far in `got`. */
export async function take(
  source: Source,
  count: number,
  got: string[] = [],
  signal: AbortSignal = AbortSignal.timeout(20_000),
): Promise<string[]> {
  while (got.length < count) {
    const delivery = await source.read(signal)
    if (delivery === null) break
    got.push(...valuesOf(delivery))
  }
  return got
}

export function valuesOf(delivery: Delivery): string[] {
  return delivery.batch.entries().map(({ value }) => (value ?? Buffer.alloc(0)).toString('latin1'))
}

/** Reads until it throws, and returns what it threw. */
export async function takeUntilThrow(source: Source, got: string[] = []): Promise<Error> {
  try {
    await take(source, Infinity, got)
  } catch (error) {
    return error as Error
  }
  throw new Error('the source ended')
}

export function range(from: number, to: number): string[] {
  return Array.from({ length: to - from + 1 }, (_, i) => String(from + i))
}

/** Resolves when the other side has handled everything that was sent before: pings are answered in their turn. */
export async function handled(socket: WebSocket | undefined): Promise<void> {
  if (socket === undefined) throw new Error('there is no such connection')
  socket.ping()
  await once(socket, 'pong')
}

/** Polls for a condition that no event reports. */
export async function until(condition: () => boolean, what: string, ms = 10_000): Promise<void> {
  const end = Date.now() + ms
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`)
    await new Promise((resolve) => {
      setTimeout(resolve, 5)
    })
  }
}
