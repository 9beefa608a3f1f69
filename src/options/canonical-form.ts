/**
 * Spellings that mean the same, for endpoints to say what they mean. Text with a placeholder in it stands as typed:
 * nobody knows yet what it will say.
 */
import { createHash } from 'node:crypto'
import type { Uri } from './define'

/** Host and port of each server, in an order of its own. @param defaultPort by scheme */
export function canonicalServers(uri: Uri, defaultPort: number): readonly string[] {
  return [
    ...new Set(uri.hosts.map(({ host, port, openPort }) => `${hostOf(host)}:${openPort ?? port ?? defaultPort}`)),
  ].sort()
}

/** Case of scheme and host, the scheme's own port, a final slash and a login make no other server. */
export function canonicalUrl(text: string | undefined): string | undefined {
  if (text === undefined || text.includes('{') || !URL.canParse(text)) return text
  const { protocol, host, pathname, search } = new URL(text)
  return `${protocol}//${host}${pathname.replace(/\/+$/, '')}${search}`
}

/** A feed's query may hold credentials. It counts as typed. */
export function hashedQuery(query: string | undefined): string {
  return query === undefined || query === '' ? '' : `?${createHash('sha256').update(query).digest('hex').slice(0, 16)}`
}

/** What it is called, and where that name is known: `orders region=eu-west-1`. */
export function resourceName(name: string, where: Readonly<Record<string, string | undefined>>): string {
  return [
    name,
    ...Object.entries(where).flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${value}`])),
  ].join(' ')
}

function hostOf(host: string): string {
  if (host.includes('{')) return host
  return host.includes(':')
    ? URL.canParse(`http://[${host}]`)
      ? new URL(`http://[${host}]`).hostname
      : `[${host.toLowerCase()}]`
    : host.toLowerCase()
}
