/**
 * Makes URIs fit to be shown: passwords, and query values that look like credentials, become ***. It works on any text,
 * even if it is no valid URI.
 */
import { isHarmless } from './names'
import { asTyped, maskBraces, templateOf } from './template'
import type { Uri } from './define'

export const HIDDEN = '***'
/** Returns the text that replaces a secret value. */
export type Hide = (value: string) => string

/**
 * Hides a value unless it consists of `{env:…}` and `{file:…}`, which reveal nothing. A command may contain anything.
 */
export function hiddenValue(text: string): string {
  if (text === '') return ''
  const template = templateOf(text)
  return template.every((part) => typeof part !== 'string' && part.kind !== 'exec') ? asTyped(template) : HIDDEN
}

/** Decides for a query whose names are not declared. */
function mayBeSecret(name: string): boolean {
  return !isHarmless(name)
}

/** Decides whether a query parameter is secret. */
type IsSecret = (name: string, value: string) => boolean

export function redactUri(text: string, isSecret: IsSecret = mayBeSecret, hide: Hide = hiddenValue): string {
  const mask = maskBraces(text)
  const scheme = /^[A-Za-z][A-Za-z0-9+.-]*:\/\//.exec(mask)?.[0].length ?? 0
  const query = mask.indexOf('?', scheme)
  let head = query === -1 ? text : text.slice(0, query)
  let tail = query === -1 ? '' : `?${redactQuery(text.slice(query + 1), isSecret, hide)}`
  if (scheme > 0) {
    const slash = mask.indexOf('/', scheme)
    const end = Math.min(slash === -1 ? mask.length : slash, query === -1 ? mask.length : query)
    let at = mask.slice(0, end).lastIndexOf('@')
    // A password may contain an unencoded slash or question mark. The authority then seems to end within it, at
    // something that is no port.
    if (at === -1 && /:(?!\d*(,|$))/.test(mask.slice(scheme, end).replace(/\[[^\]]*\]/g, ''))) {
      at = mask.lastIndexOf('@')
      if (at > head.length) {
        head = text
        tail = ''
      }
    }
    const colon = mask.indexOf(':', scheme)
    if (at !== -1 && colon !== -1 && colon < at)
      head = `${head.slice(0, colon + 1)}${hide(text.slice(colon + 1, at))}${head.slice(at)}`
  }
  return head + tail
}

export function redactQuery(query: string, isSecret: IsSecret, hide: Hide = hiddenValue): string {
  const mask = maskBraces(query)
  let out = ''
  for (let from = 0; from <= query.length; ) {
    const next = mask.indexOf('&', from)
    const end = next === -1 ? query.length : next
    const equals = mask.slice(0, end).indexOf('=', from)
    if (equals === -1) out += query.slice(from, end)
    else {
      const value = query.slice(equals + 1, end)
      out += `${query.slice(from, equals + 1)}${isSecret(query.slice(from, equals), value) && value !== '' ? hide(value) : value}`
    }
    if (next !== -1) out += '&'
    from = end + 1
    if (next === -1) break
  }
  return out
}

/** Returns the name of an endpoint in messages. */
export function labelOf(uri: Uri): string {
  // Messages add a colon themselves: `discard: 3 read`.
  if (uri.hosts.length === 0) return uri.path === '' ? uri.scheme : `${uri.scheme}:${uri.path}`
  const login =
    uri.user === undefined && uri.password === undefined
      ? ''
      : `${uri.user ?? ''}${uri.password === undefined ? '' : `:${HIDDEN}`}@`
  const portOf = ({ port, openPort }: Uri['hosts'][number]): string =>
    port === undefined && openPort === undefined ? '' : `:${openPort ?? port}`
  const hosts = uri.hosts
    .map((host) => `${maskBraces(host.host).includes(':') ? `[${host.host}]` : host.host}${portOf(host)}`)
    .join(',')
  return `${uri.scheme}://${login}${hosts}${uri.path}${uri.query === undefined ? '' : `?${redactQuery(uri.query, mayBeSecret)}`}`
}
