/**
 * What an endpoint is called in state: two lines with the same identity are the same source or sink. Credentials and all options that only say how are left
 * out; placeholders stand as typed, so a rotated token changes nothing.
 */
import { createHash } from 'node:crypto'
import { resolve } from 'node:path'
import { kebab, specOf } from './names'
import type { ParsedEndpoint } from './target'
import { asTyped, isFixed, masked } from './template'

export interface Identity {
  /** Readable, and free of secrets: a peer's query stands in it as a hash. */
  readonly canonical: string
  /** sha256 of it, hex. */
  readonly hash: string
}

export function identityOf(parsed: Pick<ParsedEndpoint, 'endpoint' | 'uri' | 'texts' | 'role'>, cwd?: string): Identity {
  const { uri } = parsed
  const hosts = uri.hosts.map(({ host, port }) => `${masked(host).includes(':') ? `[${host}]` : host.toLowerCase()}${port === undefined ? '' : `:${port}`}`).sort()
  const authority = hosts.length === 0 ? '' : `//${uri.user === undefined ? '' : `${encodeURIComponent(uri.user)}@`}${hosts.join(',')}`
  const query = uri.query === undefined || uri.query === '' ? '' : `?${sha256(uri.query).slice(0, 16)}`
  const canonical = [`${uri.scheme}:${authority}${pathOf(parsed, cwd)}${query}`, ...options(parsed)].join(' ')
  return { canonical, hash: sha256(canonical) }
}

function pathOf({ uri }: Pick<ParsedEndpoint, 'uri'>, cwd: string | undefined): string {
  // A path that begins with a placeholder may be absolute or not: it stands as typed.
  if (uri.scheme === 'file') return /^\{(env|file|exec):/.test(uri.path) ? uri.path : resolve(...(cwd === undefined ? [] : [cwd]), uri.path)
  return uri.hosts.length === 0 ? uri.path : uri.path.replace(/\/+$/, '')
}

function options({ endpoint, texts, role }: Pick<ParsedEndpoint, 'endpoint' | 'texts' | 'role'>): readonly string[] {
  const spec = specOf(endpoint)
  return Object.entries(spec).filter(([, option]) => option.identity === true && (option.roles === undefined || option.roles.includes(role))).map(([key, option]) => {
    const given = texts[key]
    if (given === undefined) return option.default === undefined || (Array.isArray(option.default) && option.default.length === 0) ? '' : `${kebab(key)}=${JSON.stringify(option.default)}`
    // The parsed value: `Gzip` and `gzip`, `1h` and `60m` are the same thing.
    const text = given.map(({ template, mapKey }) => `${mapKey === undefined ? '' : `${mapKey}:`}${isFixed(template) ? JSON.stringify(option.parse(asTyped(template))) : asTyped(template)}`).join(',')
    // What is sent to a feed, or stands in its headers, may hold credentials.
    return `${kebab(key)}=${option.secret === true || option.kind === 'list' || option.kind === 'map' ? sha256(text).slice(0, 16) : text}`
  }).filter((text) => text !== '').sort()
}

function sha256(text: string): string { return createHash('sha256').update(text).digest('hex') }
