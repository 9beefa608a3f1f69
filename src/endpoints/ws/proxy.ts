/** A TCP connection through an HTTP proxy (CONNECT, RFC 9110, 9.3.6). */
import * as http from 'node:http'
import * as https from 'node:https'
import type { Socket } from 'node:net'
import { Fatal, Refused, lineOf, type ManifoldError } from '../../core/errors'
import { networkFault, statusFault } from './faults'
import type { Settings } from './settings'

/** The proxy that leads to the server; undefined: none. */
export async function proxyFor(settings: Settings): Promise<URL | undefined> {
  const { proxy, secure, host, port } = settings
  if (proxy === 'none') return undefined
  const named = proxy ?? await fromEnvironment(`${secure ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${port}/`)
  if (named === '') return undefined
  const what = proxy === undefined ? 'the proxy that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY)' : 'proxy='
  if (!URL.canParse(named)) throw new Refused(`${what} is not a URL`)
  const url = new URL(named)
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw new Fatal(`${what} is ${url.protocol}//, which is not spoken here: http:// and https:// are; proxy=none goes without`)
  return url
}

async function fromEnvironment(url: string): Promise<string> {
  const { getProxyForUrl } = await import('proxy-from-env')
  const named = getProxyForUrl(url)
  // The package gives a proxy without scheme that of the URL; to curl, Go and people `HTTPS_PROXY=host:3128` is a plain HTTP proxy.
  const typed = ['https_proxy', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY'].some((name) => process.env[name]?.startsWith('https://') === true)
  return named.startsWith('https://') && !typed ? named.replace('https://', 'http://') : named
}

/** Rejects with a classified error, or the signal's reason. The socket is the caller's. */
export function tunnel(proxy: URL, settings: Settings, now: () => number, signal: AbortSignal): Promise<Socket> {
  const secure = proxy.protocol === 'https:'
  const host = proxy.hostname.replace(/^\[|\]$/g, '')
  const port = proxy.port === '' ? (secure ? 443 : 80) : Number(proxy.port)
  const authority = `${settings.host.includes(':') ? `[${settings.host}]` : settings.host}:${settings.port}`
  const login = proxy.username === '' && proxy.password === '' ? undefined : Buffer.from(`${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`).toString('base64')
  const scrub = (text: string): string => settings.scrub(login === undefined ? text : text.replaceAll(login, '***'))
  return new Promise((resolve, reject) => {
    const request = (secure ? https : http).request({
      host, port, method: 'CONNECT', path: authority, agent: false,
      headers: { Host: authority, ...(login === undefined ? {} : { 'Proxy-Authorization': `Basic ${login}` }) },
    })
    const aborted = (): void => { request.destroy(); reject(signal.reason as Error) }
    if (signal.aborted) { request.on('error', () => undefined); aborted(); return }
    signal.addEventListener('abort', aborted, { once: true })
    const done = (): void => { signal.removeEventListener('abort', aborted) }
    request.on('connect', (response, socket, head) => {
      done()
      const status = response.statusCode ?? 0
      if (status >= 200 && status < 300) {
        if (head.length > 0) socket.unshift(head)
        resolve(socket)
        return
      }
      socket.destroy()
      reject(statusFault(status, response.headers, now(), `the proxy ${host}:${port}`))
    })
    request.on('error', (error) => {
      done()
      const fault = networkFault(error, { secure, host, port, scrub })
      reject(rephrased(fault, `the proxy ${host}:${port}: ${lineOf(fault)}`))
    })
    request.end()
  })
}

/** The same class of error in other words. */
function rephrased(fault: ManifoldError, text: string): ManifoldError {
  const Same = fault.constructor as new (message: string, facts: { cause: unknown }) => ManifoldError
  return new Same(text, { cause: fault.cause })
}
