/** Finds the HTTP proxy for a host in the environment, with the same rules for every client. */
import { BlockList, isIP } from 'node:net'

export type ProxyEnvironment = Readonly<Record<string, string | undefined>>
/** The host has no brackets. */
export interface Destination {
  readonly secure: boolean
  readonly host: string
  readonly port: number
}

/** Messages name the variables with this text. */
export const PROXY_VARIABLES = 'the proxy that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY)'

/**
 * Returns the proxy, or undefined if there is none or NO_PROXY exempts the host. A variable in lower case wins, as with
 * curl.
 * @throws an Error that says what is wrong with the variable
 */
export function proxyFromEnvironment(
  { secure, host, port }: Destination,
  environment: ProxyEnvironment,
): URL | undefined {
  const named = (name: string): string => environment[name] || environment[name.toUpperCase()] || ''
  const typed = named(secure ? 'https_proxy' : 'http_proxy') || named('all_proxy')
  if (typed === '' || isExempt(host, port, named('no_proxy'))) return undefined
  // `HTTPS_PROXY=host:3128` means a plain HTTP proxy, as in curl and Go.
  return proxyUrl(typed.includes('://') ? typed : `http://${typed}`, PROXY_VARIABLES)
}

/** @throws an Error whose message begins with `what` */
export function proxyUrl(text: string, what: string): URL {
  if (!URL.canParse(text)) throw new Error(`${what} is not a URL`)
  const url = new URL(text)
  for (const part of [url.username, url.password]) {
    try {
      decodeURIComponent(part)
    } catch {
      throw new Error(`${what} has a % in its user or password that encodes nothing: write %25 for a %`)
    }
  }
  return url
}

export function isHttpProxy({ protocol }: URL): boolean {
  return protocol === 'http:' || protocol === 'https:'
}

/** Returns the address of a proxy, for messages. */
export function proxyAddress({ protocol, hostname, port }: URL): {
  readonly secure: boolean
  readonly host: string
  readonly port: number
} {
  const secure = protocol === 'https:'
  return { secure, host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? (secure ? 443 : 80) : Number(port) }
}

/** Returns USER:PASSWORD as a proxy takes it (Basic), or undefined if there is no login. */
export function proxyLogin({ username, password }: URL): string | undefined {
  if (username === '' && password === '') return undefined
  return Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')
}

/**
 * @param list has entries between commas or spaces: `*`, a name (with its subdomains), `.suffix`, `*.suffix`, an
 * address, a CIDR block or a range, each with or without `:PORT`
 */
export function isExempt(host: string, port: number, list: string): boolean {
  const name = host.toLowerCase().replace(/\.$/, '')
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .some((entry) => entry !== '' && matchesEntry(entry, name, port))
}

function matchesEntry(entry: string, host: string, port: number): boolean {
  if (entry === '*') return true
  // An IPv6 address contains colons, so its port stands behind brackets.
  const [, named = entry, only] = /^(\[[^\]]*\](?:\/\d+)?|[^:]*)(?::(\d+))?$/.exec(entry) ?? []
  if (only !== undefined && Number(only) !== port) return false
  const name = named.replace(/[[\]]/g, '')
  if (isIP(host) !== 0) return matchesAddress(name, host)
  if (name.startsWith('*')) return host.endsWith(name.slice(1))
  const domain = name.replace(/^\./, '')
  return domain !== '' && (host === domain || host.endsWith(`.${domain}`))
}

function matchesAddress(entry: string, host: string): boolean {
  const block = new BlockList()
  const [from = '', to] = entry.split('-')
  const [address = '', bits] = from.split('/')
  const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
  try {
    if (to !== undefined) block.addRange(from, to, family)
    else if (bits !== undefined) block.addSubnet(address, Number(bits), family)
    else block.addAddress(address, family)
  } catch {
    return false
  }
  return block.check(host, isIP(host) === 6 ? 'ipv6' : 'ipv4')
}
