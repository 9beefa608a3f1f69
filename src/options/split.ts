/**
 * Splits a URI into its parts. `new URL` knows neither several hosts nor relative paths nor globs.
 *
 * - A word without scheme is a path (`file:`), and `-` is `stdio:`.
 * - A hierarchical URI is `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]…]/PATH?QUERY`, an opaque one is
 *   `SCHEME:PATH?QUERY`.
 * - In `file:` a `?` begins a query only before a declared `name=`, because names of files and globs contain question
 *   marks.
 * - User, password and query values are percent-decoded once. Path and hosts stay as typed.
 * - The query of `query: 'peer'` is sent unchanged, except `reconnect_every`.
 * - Text within braces is never split.
 * - No message repeats any part of user or password.
 */
import { UsageError } from '../core/errors'
import { nearest } from '../kit/nearest'
import type { AnyEndpoint, Uri } from './define'
import { findOption, quoted, specOf } from './names'
import { asTyped, fill, isFixed, maskBraces, templateOf, type Placeholder, type Template } from './template'

export interface RawOption {
  /** The name as typed, after percent-decoding. */
  readonly name: string
  readonly value: Template
  readonly from: 'query' | 'word'
  /** The name was given alone, which means `name=true`. */
  readonly bare: boolean
}
/** A section of the URI as typed, with the encoding that a placeholder's value needs there. */
interface UriSection {
  readonly template: Template
  readonly encode: (value: string) => string
}
export interface UriTemplate {
  readonly scheme: string
  readonly user?: Template
  readonly password?: Template
  readonly hosts: readonly { readonly host: Template; readonly port?: Template }[]
  readonly path: Template
  readonly query?: readonly UriSection[]
  readonly text: readonly UriSection[]
}
export interface SplitUri {
  readonly endpoint: AnyEndpoint
  readonly parts: UriTemplate
  readonly query: readonly RawOption[]
}

/** The original program took this argument in the query of the feed's URL. */
const OWN_QUERY_OPTION = 'reconnect_every'

export function findEndpoint(registry: readonly AnyEndpoint[], scheme: string): AnyEndpoint | undefined {
  return registry.find((endpoint) => endpoint.schemes.includes(scheme))
}

/** @throws UsageError with one fault */
export function splitUri(text: string, registry: readonly AnyEndpoint[]): SplitUri {
  const { scheme, rest } = schemeOf(text, registry)
  const endpoint = findEndpoint(registry, scheme)
  // The name of a scheme was hardly meant to be a file. A file of that name can be given as a path.
  if (endpoint?.form === 'path' && isOtherScheme(text, endpoint, registry))
    throw fault(
      `${quoted(text)} is the name of an endpoint: write ${text.toLowerCase()}: for it, or ./${text} for a file of that name`,
    )
  if (endpoint === undefined) {
    const schemes = registry.flatMap((known) => known.schemes)
    const meant = nearest(scheme, schemes)
    throw fault(
      `unknown scheme ${quoted(scheme)}; ${meant === undefined ? `there are ${schemes.join(', ')}` : `did you mean '${meant}'?`}${rest.startsWith('//') ? '' : `; a file with a colon in its name is written ./NAME`}`,
    )
  }
  return endpoint.form === 'hierarchical' ? hierarchical(endpoint, scheme, rest) : opaque(endpoint, scheme, rest)
}

/** `discard` was probably meant to be `discard:`. `file` itself is a file of that name. */
function isOtherScheme(text: string, endpoint: AnyEndpoint, registry: readonly AnyEndpoint[]): boolean {
  return !endpoint.schemes.includes(text) && findEndpoint(registry, text.toLowerCase()) !== undefined
}

/** Returns the scheme in lower case, and the text after it. Text without a scheme is a path. */
export function schemeOf(
  text: string,
  registry: readonly AnyEndpoint[],
): { readonly scheme: string; readonly rest: string } {
  const short = registry.find(({ shorthand }) => shorthand === text)
  if (short !== undefined) return { scheme: short.schemes[0] ?? '', rest: '' }
  const match = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(text)
  return match === null
    ? { scheme: registry.find(({ form }) => form === 'path')?.schemes[0] ?? '', rest: text }
    : { scheme: (match[1] ?? '').toLowerCase(), rest: text.slice(match[0].length) }
}

function opaque(endpoint: AnyEndpoint, scheme: string, typed: string): SplitUri {
  let rest = typed
  const { form } = endpoint
  if (form === 'path') {
    if (/^\/\/(?!\/)/.test(rest))
      throw fault(`${scheme}: takes a path and no host: ${scheme}:PATH or ${scheme}:///PATH`)
    if (rest.startsWith('///')) rest = rest.slice(2)
  } else if (rest.startsWith('//')) rest = rest.slice(2)
  const mask = maskBraces(rest)
  const mark = form === 'path' ? declaredQuery(endpoint, mask) : mask.indexOf('?')
  const path = mark === -1 ? rest : rest.slice(0, mark)
  const query = mark === -1 ? [] : optionsOf(splitOutsideBraces(rest.slice(mark + 1), '&'), scheme)
  const plain = templateOf(path)
  return {
    endpoint,
    query,
    parts: { scheme, hosts: [], path: plain, text: [verbatim(`${scheme}:`), { template: plain, encode: unchanged }] },
  }
}

/** Returns the index of a `?` that is followed by the name of an option and `=`. */
function declaredQuery(endpoint: AnyEndpoint, mask: string): number {
  for (let mark = mask.indexOf('?'); mark !== -1; mark = mask.indexOf('?', mark + 1)) {
    const name = /^([A-Za-z][A-Za-z0-9_-]*(?:\.[^=&?]*)?)=/.exec(mask.slice(mark + 1))?.[1]
    if (name !== undefined && findOption(specOf(endpoint), name) !== undefined) return mark
  }
  return -1
}

function hierarchical(endpoint: AnyEndpoint, scheme: string, typed: string): SplitUri {
  if (!typed.startsWith('//') && (typed !== '' || endpoint.hostOptional !== true))
    throw fault(`${scheme} is written ${endpoint.forms.join(' or ')}`)
  const rest = typed.slice(2)
  const mask = maskBraces(rest)
  const authorityEnd = firstOf(mask, '/?', 0)
  const mark = mask.indexOf('?', authorityEnd)
  const path = templateOf(rest.slice(authorityEnd, mark === -1 ? undefined : mark))
  const pairs = mark === -1 ? [] : splitOutsideBraces(rest.slice(mark + 1), '&')
  const { user, password, hosts, text } = authorityOf(rest.slice(0, authorityEnd), scheme, endpoint)
  const whole = [verbatim(`${scheme}://`), ...text, { template: path, encode: encodePath }]
  const parts = {
    scheme,
    hosts,
    path,
    ...(user === undefined ? {} : { user }),
    ...(password === undefined ? {} : { password }),
  }
  if (endpoint.query !== 'peer') return { endpoint, query: optionsOf(pairs, scheme), parts: { ...parts, text: whole } }

  const isOurs = (pair: string): boolean =>
    pair.split('=', 1)[0] === OWN_QUERY_OPTION && findOption(specOf(endpoint), OWN_QUERY_OPTION) !== undefined
  const ours = pairs.filter(isOurs)
  const theirs = pairs.filter((pair) => !isOurs(pair))
  const query = mark === -1 || (theirs.length === 0 && ours.length > 0) ? undefined : peerQuery(theirs)
  return {
    endpoint,
    query: optionsOf(ours, scheme),
    parts: {
      ...parts,
      ...(query === undefined ? {} : { query }),
      text: query === undefined ? whole : [...whole, verbatim('?'), ...query],
    },
  }
}

function authorityOf(
  authority: string,
  scheme: string,
  endpoint: AnyEndpoint,
): Pick<UriTemplate, 'user' | 'password' | 'hosts'> & { readonly text: readonly UriSection[] } {
  // The last @ counts: an unencoded password may contain others, a host cannot.
  const at = maskBraces(authority).lastIndexOf('@')
  const login = at === -1 ? undefined : authority.slice(0, at)
  const hostList = authority.slice(at + 1)
  if (authority === '' && endpoint.hostOptional === true) return { hosts: [], text: [] }
  if (hostList === '') throw fault(`${scheme} needs a host: ${endpoint.forms.join(' or ')}`)
  const hosts = splitOutsideBraces(hostList, ',').map((hostText) => hostOf(hostText, scheme))
  const text: UriSection[] = [{ template: templateOf(hostList), encode: unchanged }]
  if (login === undefined) return { hosts, text }
  const colon = maskBraces(login).indexOf(':')
  const decoded = (part: string): Template =>
    templateOf(part, (literal) => decode(literal, `the user or password of the ${scheme} URI`))
  const user = decoded(colon === -1 ? login : login.slice(0, colon))
  return {
    hosts,
    text: [{ template: templateOf(login), encode: encodeURIComponent }, verbatim('@'), ...text],
    ...(user.length === 0 ? {} : { user }),
    ...(colon === -1 ? {} : { password: decoded(login.slice(colon + 1)) }),
  }
}

function hostOf(hostText: string, scheme: string): { readonly host: Template; readonly port?: Template } {
  const mask = maskBraces(hostText)
  const bracket = mask.startsWith('[') ? mask.indexOf(']') : -1
  if (mask.startsWith('[') && bracket === -1)
    throw fault(`the ${scheme} URI has a '[' without its ']': an IPv6 address is written [::1]:PORT`)
  const colon = mask.indexOf(':', bracket + 1)
  if (colon !== -1 && bracket === -1 && mask.indexOf(':', colon + 1) !== -1)
    throw fault(
      `a host of the ${scheme} URI has more than one ':': an IPv6 address is written [::1]:PORT, a ':' in a password needs its USER:PASSWORD@`,
    )
  const name = colon === -1 ? hostText : hostText.slice(0, colon)
  if (name === '')
    throw fault(`the ${scheme} URI names no host between ${colon === -1 ? 'its commas' : 'a separator and a port'}`)
  const host = templateOf(bracket === -1 ? name : name.slice(1, -1))
  if (bracket !== -1 && mask.slice(bracket + 1, colon === -1 ? undefined : colon) !== '')
    throw fault(`the ${scheme} URI has something after a ']' that is no port`)
  if (colon === -1) return { host }
  const port = templateOf(hostText.slice(colon + 1))
  if (isFixed(port)) portNumber(asTyped(port), scheme)
  return { host, port }
}

function portNumber(text: string, scheme: string): number {
  // The message does not repeat the text, because a password with a slash in it ends up here.
  if (!/^\d{1,5}$/.test(text) || Number(text) < 1 || Number(text) > 65_535)
    throw fault(
      `the port in the ${scheme} URI is no number from 1 to 65535; in a password write '/' as %2F and '?' as %3F`,
    )
  return Number(text)
}

/**
 * A placeholder after `name=` is encoded, so that its value stays one value. A placeholder for a whole parameter is
 * sent as it is.
 */
function peerQuery(pairs: readonly string[]): readonly UriSection[] {
  return pairs.flatMap((pair, index): UriSection[] => {
    const lead = index === 0 ? [] : [verbatim('&')]
    const equals = maskBraces(pair).indexOf('=')
    if (equals === -1) return [...lead, { template: templateOf(pair), encode: unchanged }]
    return [
      ...lead,
      { template: templateOf(pair.slice(0, equals + 1)), encode: unchanged },
      { template: templateOf(pair.slice(equals + 1)), encode: encodeURIComponent },
    ]
  })
}

function optionOf(pair: string, scheme: string): RawOption {
  const equals = maskBraces(pair).indexOf('=')
  const name = decode(equals === -1 ? pair : pair.slice(0, equals), `the query of the ${scheme} URI`)
  if (equals === -1) return { name, value: ['true'], from: 'query', bare: true }
  return {
    name,
    value: templateOf(pair.slice(equals + 1), (literal) =>
      decode(literal, `option ${quoted(name)} in the query of the ${scheme} URI`),
    ),
    from: 'query',
    bare: false,
  }
}

/**
 * Returns the URI with its placeholders replaced.
 * @param value returns the value of a placeholder; if it is absent, placeholders stay as typed
 */
export function buildUri(parts: UriTemplate, value?: (placeholder: Placeholder) => string): Uri {
  const text = (template: Template): string => fill(template, value ?? ((placeholder) => placeholder.text))
  const sections = (list: readonly UriSection[]): string =>
    list
      .map(({ template, encode }) => fill(template, (p) => (value === undefined ? p.text : encode(value(p)))))
      .join('')
  return {
    scheme: parts.scheme,
    ...(parts.user === undefined ? {} : { user: text(parts.user) }),
    ...(parts.password === undefined ? {} : { password: text(parts.password) }),
    hosts: parts.hosts.map(({ host, port }) => ({
      host: text(host),
      ...(port === undefined
        ? {}
        : value === undefined && !isFixed(port)
          ? { openPort: text(port) }
          : { port: portNumber(text(port), parts.scheme) }),
    })),
    path: text(parts.path),
    ...(parts.query === undefined ? {} : { query: sections(parts.query) }),
    text: sections(parts.text),
  }
}

/** Returns the placeholders of a URI, each with its place. */
export function uriPlaceholders(
  parts: UriTemplate,
): readonly { readonly placeholder: Placeholder; readonly where: 'user' | 'password' | 'query' | 'address' }[] {
  const of = (
    where: 'user' | 'password' | 'query' | 'address',
    templates: readonly (Template | undefined)[],
  ): { placeholder: Placeholder; where: typeof where }[] =>
    templates
      .flatMap((template) => template ?? [])
      .filter((part) => typeof part !== 'string')
      .map((placeholder) => ({ placeholder, where }))
  return [
    ...of('user', [parts.user]),
    ...of('password', [parts.password]),
    ...of(
      'query',
      (parts.query ?? []).map((section) => section.template),
    ),
    ...of('address', [...parts.hosts.flatMap(({ host, port }) => [host, port]), parts.path]),
  ]
}

function optionsOf(pairs: readonly string[], scheme: string): readonly RawOption[] {
  return pairs.filter((pair) => pair !== '').map((pair) => optionOf(pair, scheme))
}

/** Splits the text at separators that are outside braces. */
export function splitOutsideBraces(text: string, separator: string): readonly string[] {
  const mask = maskBraces(text)
  const parts: string[] = []
  let from = 0
  for (let at = mask.indexOf(separator); at !== -1; at = mask.indexOf(separator, from)) {
    parts.push(text.slice(from, at))
    from = at + 1
  }
  return [...parts, text.slice(from)]
}

function firstOf(text: string, characters: string, from: number): number {
  for (let i = from; i < text.length; i++) if (characters.includes(text.charAt(i))) return i
  return text.length
}

function decode(literal: string, where: string): string {
  try {
    return decodeURIComponent(literal)
  } catch {
    throw fault(`${where} has a '%' that is no percent-encoding: write %25, or give the option as a word`)
  }
}

function encodePath(value: string): string {
  return encodeURI(value).replace(/[?#]/g, encodeURIComponent)
}
function unchanged(value: string): string {
  return value
}
function verbatim(text: string): UriSection {
  return { template: [text], encode: unchanged }
}
function fault(text: string): UsageError {
  return new UsageError([text])
}
