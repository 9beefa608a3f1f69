/** Connects to a server through an HTTP proxy, and classifies errors of the proxy. */
import type { Socket } from 'node:net'
import { Fatal, UsageError, lineOf, type ManifoldError } from '../../core/errors'
import { isHttpProxy, PROXY_VARIABLES, proxyAddress, proxyFromEnvironment, proxyLogin, proxyUrl } from '../../kit/proxy'
import { openTunnel, TunnelRefused } from '../../kit/tunnel'
import { networkFault, statusFault } from './faults'
import type { Settings } from './settings'

/** Returns the proxy to the server, or undefined if there is none. */
export function proxyFor(settings: Settings, environment: NodeJS.ProcessEnv = process.env): URL | undefined {
  const { proxy, secure, host, port } = settings
  if (proxy === 'none' || proxy === '') return undefined
  let url: URL | undefined
  try {
    url = proxy === undefined ? proxyFromEnvironment({ secure, host, port }, environment) : proxyUrl(proxy, 'proxy=')
  } catch (error) {
    throw new UsageError([lineOf(error)])
  }
  if (url === undefined || isHttpProxy(url)) return url
  throw new Fatal(
    `${proxy === undefined ? PROXY_VARIABLES : 'proxy='} is ${url.protocol}//, which is not spoken here: http:// and https:// are; proxy=none goes without`,
  )
}

/**
 * Resolves with a socket that the caller has to close. It rejects with a classified error or with the signal's reason.
 */
export async function tunnel(proxy: URL, settings: Settings, now: () => number, signal: AbortSignal): Promise<Socket> {
  try {
    return await openTunnel(proxy, settings.host, settings.port, signal)
  } catch (error) {
    if (signal.aborted) throw signal.reason
    if (error instanceof TunnelRefused)
      throw statusFault(error.status, error.headers, now(), `the proxy ${error.proxy}`)
    const login = proxyLogin(proxy)
    const { secure, host, port } = proxyAddress(proxy)
    const redact = (text: string): string => settings.redact(login === undefined ? text : text.replaceAll(login, '***'))
    const fault = networkFault(error, { secure, host, port, redact })
    throw withMessage(fault, `the proxy ${host}:${port}: ${lineOf(fault)}`)
  }
}

/** Returns an error of the same class with another message. */
function withMessage(fault: ManifoldError, text: string): ManifoldError {
  const Same = fault.constructor as new (message: string, facts: { cause: unknown }) => ManifoldError
  return new Same(text, { cause: fault.cause })
}
