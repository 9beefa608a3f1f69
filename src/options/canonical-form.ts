/**
 * Helps endpoints to give one canonical form to spellings that mean the same. Text with a placeholder stays as typed,
 * because its value is not known yet.
 */
import { createHash } from 'node:crypto'
import type { Uri } from './define'

/**
 * Returns HOST:PORT of each server, sorted.
 * @param defaultPort the port of a server that is given without one
 */
export function canonicalServers(uri: Uri, defaultPort: number): readonly string[] {
  return [
    ...new Set(uri.hosts.map(({ host, port, openPort }) => `${hostOf(host)}:${openPort ?? port ?? defaultPort}`)),
  ].sort()
}

/**
 * Two URLs name the same server if they differ only in the case of scheme or host, the default port, a final slash or a
 * login.
 */
export function canonicalUrl(text: string | undefined): string | undefined {
  if (text === undefined || text.includes('{') || !URL.canParse(text)) return text
  const { protocol, host, pathname, search } = new URL(text)
  return `${protocol}//${host}${pathname.replace(/\/+$/, '')}${search}`
}

/** The query of a feed may hold credentials, so only its hash is kept. The query is hashed as typed. */
export function hashedQuery(query: string | undefined): string {
  return query === undefined || query === '' ? '' : `?${createHash('sha256').update(query).digest('hex').slice(0, 16)}`
}

/** Joins the name of a resource with the place where that name is unique, such as `orders region=eu-west-1`. */
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
