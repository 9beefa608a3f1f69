/**
 * Makes the identity that earlier states were stored under: the URI nearly as typed. It must stay equal to the byte, so
 * that such a state is still found. Nothing new is stored under it.
 */
import { createHash } from 'node:crypto'
import { resolve } from 'node:path'
import { kebab, specOf } from './names'
import type { ParsedEndpoint } from './target'
import { asTyped, isFixed, maskBraces } from './template'

type Parsed = Pick<ParsedEndpoint, 'endpoint' | 'uri' | 'rawValues' | 'role'>

/** Returns a SHA-256 in hex. */
export function formerIdentity(parsed: Parsed, cwd: string | undefined): string {
  const { uri } = parsed
  const hosts = uri.hosts
    .map(
      ({ host, port }) =>
        `${maskBraces(host).includes(':') ? `[${host}]` : host.toLowerCase()}${port === undefined ? '' : `:${port}`}`,
    )
    .sort()
  const authority =
    hosts.length === 0 ? '' : `//${uri.user === undefined ? '' : `${encodeURIComponent(uri.user)}@`}${hosts.join(',')}`
  const query = uri.query === undefined || uri.query === '' ? '' : `?${sha256(uri.query).slice(0, 16)}`
  return sha256([`${uri.scheme}:${authority}${pathOf(parsed, cwd)}${query}`, ...optionsOf(parsed)].join(' '))
}

function pathOf({ endpoint, uri }: Parsed, cwd: string | undefined): string {
  if (endpoint.form === 'path')
    return /^\{(env|file|exec):/.test(uri.path) ? uri.path : resolve(...(cwd === undefined ? [] : [cwd]), uri.path)
  return uri.hosts.length === 0 ? uri.path : uri.path.replace(/\/+$/, '')
}

function optionsOf({ endpoint, rawValues, role }: Parsed): readonly string[] {
  return Object.entries(specOf(endpoint))
    .filter(([, option]) => option.identity === true && (option.roles === undefined || option.roles.includes(role)))
    .map(([key, option]) => {
      const given = rawValues[key]
      if (given === undefined)
        return option.default === undefined || (Array.isArray(option.default) && option.default.length === 0)
          ? ''
          : `${kebab(key)}=${JSON.stringify(option.default)}`
      const text = given
        .map(
          ({ template, mapKey }) =>
            `${mapKey === undefined ? '' : `${mapKey}:`}${isFixed(template) ? JSON.stringify(option.parse(asTyped(template))) : asTyped(template)}`,
        )
        .join(',')
      return `${kebab(key)}=${option.secret === true || option.kind === 'list' || option.kind === 'map' ? sha256(text).slice(0, 16) : text}`
    })
    .filter((text) => text !== '')
    .sort()
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
