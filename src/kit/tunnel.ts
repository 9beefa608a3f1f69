/** Opens a TCP connection through an HTTP proxy (CONNECT, RFC 9110, 9.3.6). */
import * as http from 'node:http'
import * as https from 'node:https'
import type { Socket } from 'node:net'
import { proxyAddress, proxyLogin } from './proxy'

/** The proxy refused the tunnel: its answer was not 2xx. */
export class TunnelRefused extends Error {
  constructor(
    readonly status: number,
    readonly headers: http.IncomingHttpHeaders,
    readonly proxy: string,
  ) {
    super(`the proxy ${proxy} answered ${status} ${http.STATUS_CODES[status] ?? ''}`.trimEnd())
  }
}

/**
 * Resolves with a socket that the caller has to close. It rejects with `TunnelRefused`, an error of the network, or the
 * signal's reason.
 * @param host has no brackets
 */
export function openTunnel(proxy: URL, host: string, port: number, signal: AbortSignal): Promise<Socket> {
  const at = proxyAddress(proxy)
  const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`
  const login = proxyLogin(proxy)
  return new Promise((resolve, reject) => {
    const request = (at.secure ? https : http).request({
      host: at.host,
      port: at.port,
      method: 'CONNECT',
      path: authority,
      agent: false,
      headers: { Host: authority, ...(login === undefined ? {} : { 'Proxy-Authorization': `Basic ${login}` }) },
    })
    const aborted = (): void => {
      request.destroy()
      reject(signal.reason as Error)
    }
    if (signal.aborted) {
      request.on('error', () => undefined)
      aborted()
      return
    }
    signal.addEventListener('abort', aborted, { once: true })
    const done = (): void => {
      signal.removeEventListener('abort', aborted)
    }
    request.on('connect', (response, socket, head) => {
      done()
      const status = response.statusCode ?? 0
      if (status >= 200 && status < 300) {
        if (head.length > 0) socket.unshift(head)
        resolve(socket)
        return
      }
      socket.destroy()
      reject(new TunnelRefused(status, response.headers, `${at.host}:${at.port}`))
    })
    request.on('error', (error) => {
      done()
      reject(error)
    })
    request.end()
  })
}
