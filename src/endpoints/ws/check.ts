/** Finds faults of a line before anything is opened. */
import { lineOf } from '../../core/errors'
import { proxyUrl } from '../../kit/proxy'
import { tlsOptionFaults } from '../../options/tls'
import type { Given, Role } from '../../options/define'
import type { WsOptions } from './options'

/**
 * The opening handshake sets these headers itself (RFC 6455, 4.1). permessage-deflate and sub-protocols have options.
 */
const OURS = new Set([
  'connection',
  'upgrade',
  'sec-websocket-key',
  'sec-websocket-version',
  'sec-websocket-extensions',
  'sec-websocket-protocol',
])
/** Names of headers and sub-protocols consist of these characters (RFC 9110, 5.6.2; RFC 6455, 4.1). */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const NOT_IN_VALUES = /[^\t\x20-\x7e\x80-\xff]/

/** Returns faults of several options together, one line each and without secrets. */
export function faultsOf(given: Given<WsOptions>, role: Role): readonly string[] {
  const { uri, options } = given
  const faults: string[] = []
  if (uri.hosts.length > 1) faults.push(`${uri.scheme} takes one host: several feeds are several --from`)
  if (uri.path.includes('#') || uri.query?.includes('#') === true)
    faults.push(`a '#' in a WebSocket address is written %23`)
  for (const [name, value] of options.header) {
    if (OURS.has(name.toLowerCase()))
      faults.push(
        `header.${name} is part of the WebSocket handshake${name.toLowerCase() === 'sec-websocket-protocol' ? ': use protocol=' : ' and cannot be set'}`,
      )
    else if (!TOKEN.test(name) || NOT_IN_VALUES.test(value))
      faults.push(`header.${name.replace(/[^\x21-\x7e]/g, '?')} has a character that headers cannot hold`)
  }
  for (const protocol of options.protocol)
    if (!TOKEN.test(protocol)) faults.push('protocol= takes one name at a time, without spaces or commas')
  if (new Set(options.protocol).size < options.protocol.length) faults.push('the same protocol= is given twice')
  faults.push(...tlsOptionFaults(options, uri.scheme === 'ws' ? { scheme: 'ws', instead: 'wss' } : undefined))
  faults.push(...proxyFaults(options.proxy))
  if (role === 'source') {
    if (options.dedupe !== undefined && options.reconnectEvery === 0)
      faults.push('dedupe works inside the overlap of reconnect-every, which is not given')
    if (options.reconnectEvery > 0 && options.reconnectEvery <= options.overlap)
      faults.push('reconnect-every must be longer than overlap')
  }
  return faults
}

/** A placeholder stands as typed here. Its value is checked at the opening. */
function proxyFaults(proxy: string | undefined): readonly string[] {
  if (proxy === undefined || proxy === 'none' || proxy.includes('{')) return []
  if (!/^https?:\/\/[^/]/i.test(proxy)) return ['proxy= takes http://HOST:PORT, https://HOST:PORT or none']
  try {
    proxyUrl(proxy, 'proxy=')
  } catch (error) {
    return [lineOf(error)]
  }
  return []
}
