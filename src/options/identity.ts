/**
 * What an endpoint is called in state: two lines with the same identity are the same source or sink, however they are
 * spelled.
 *
 * - It is made of what the endpoint means, as its declaration says (`meaning`): which servers, which things there, and
 *   the options declared `identity`.
 * - Credentials and all options that only say how are left out; placeholders stand as typed, so a rotated token changes
 *   nothing.
 * - A cluster is not its list of servers: brokers come and go, and any of them leads to all. The list is therefore kept
 *   beside the identity (`members`), and an endpoint whose line shares one server with the list of a stored one is that
 *   one. Lists without a common server are two clusters: reading one with the positions of the other would skip
 *   records, beginning afresh repeats some at worst.
 */
import { createHash } from 'node:crypto'
import { resolve } from 'node:path'
import type { AnyGiven, CanonicalForm } from './define'
import { formerIdentity } from './former-identity'
import { hashedQuery } from './canonical-form'
import { kebab, specOf } from './names'
import type { ParsedEndpoint } from './target'
import { asTyped, isFixed, maskBraces } from './template'

export interface Identity {
  /** Readable, and free of secrets: a peer's query stands in it as a hash. */
  readonly canonical: string
  /** sha256 of it, hex. */
  readonly hash: string
  /** sha256 of all but the servers: with `members` it tells whether a stored endpoint is this one. */
  readonly resourceHash: string
  /** Servers of one cluster, of which one in common is enough; empty where there are none to compare. */
  readonly servers: readonly string[]
  /** What is read or written there, in the words of its endpoint. */
  readonly resources: readonly string[]
  readonly scheme: string
  /** The hash that earlier states were stored under. */
  readonly former: string
}

type Parsed = Pick<ParsedEndpoint, 'endpoint' | 'uri' | 'rawValues' | 'role'>

export function identityOf(parsed: Parsed, cwd?: string): Identity {
  const { endpoint, uri, role } = parsed
  const form: CanonicalForm = endpoint.canonicalForm?.(asTypedGiven(parsed), role) ?? {}
  const { servers = [], resources = [`${authorityOf(parsed)}${pathOf(parsed, cwd)}`], options = {} } = form
  const named = [...new Set(resources)].sort().join(',')
  const countedOptions = optionsOf(parsed, options)
  const authority =
    servers.length === 0 ? '' : `//${servers.join(',')}${named === '' || named.startsWith('/') ? '' : '/'}`
  const canonical = [`${uri.scheme}:${authority}${named}`, ...countedOptions].join(' ')
  return {
    canonical,
    hash: sha256(canonical),
    resourceHash: sha256([`${uri.scheme}:${named}`, ...countedOptions].join(' ')),
    servers,
    resources: [...new Set(resources)].sort(),
    scheme: uri.scheme,
    former: formerIdentity(parsed, cwd),
  }
}

/** For certain: the same thing, on a server that both name. Two ends of one line that are so may feed each other. */
export function isSameResource(one: Identity, other: Identity): boolean {
  const placed =
    one.servers.length === 0 && other.servers.length === 0
      ? true
      : one.servers.some((server) => other.servers.includes(server))
  return (
    one.scheme === other.scheme &&
    placed &&
    one.resources.some((thing) => thing !== '' && other.resources.includes(thing))
  )
}

/** The same endpoint, as two of one line can be told apart. */
export function isEqual(one: Identity, other: Identity): boolean {
  return (
    one.canonical === other.canonical ||
    (one.resourceHash === other.resourceHash && one.servers.some((server) => other.servers.includes(server)))
  )
}

/** Options that wait for a placeholder's value stand in it as typed. */
function asTypedGiven({ endpoint, uri, rawValues }: Parsed): AnyGiven {
  const options = Object.fromEntries(
    Object.entries(specOf(endpoint)).map(([key, option]) => {
      const given = rawValues[key]
      if (given === undefined) return [key, option.default as unknown]
      const values: readonly unknown[] = given.map(({ template }) =>
        isFixed(template) ? (option.parse(asTyped(template)) as unknown) : asTyped(template),
      )
      return [key, option.kind === 'list' || option.kind === 'map' ? values.flat() : values[0]]
    }),
  )
  return { options, uri }
}

function authorityOf({ uri }: Parsed): string {
  const hosts = uri.hosts
    .map(
      ({ host, port, openPort }) =>
        `${maskBraces(host).includes(':') ? `[${host}]` : host.toLowerCase()}${openPort === undefined && port === undefined ? '' : `:${openPort ?? port}`}`,
    )
    .sort()
  return hosts.length === 0
    ? ''
    : `//${uri.user === undefined ? '' : `${encodeURIComponent(uri.user)}@`}${hosts.join(',')}`
}

function pathOf({ uri }: Parsed, cwd: string | undefined): string {
  // A path that begins with a placeholder may be absolute or not: it stands as typed.
  if (uri.scheme === 'file')
    return /^\{(env|file|exec):/.test(uri.path) ? uri.path : resolve(...(cwd === undefined ? [] : [cwd]), uri.path)
  return `${uri.hosts.length === 0 ? uri.path : uri.path.replace(/\/+$/, '')}${hashedQuery(uri.query)}`
}

/** @param canonical what an option means where its endpoint says so; undefined: it is said elsewhere */
function optionsOf(
  { endpoint, rawValues, role }: Parsed,
  canonical: Readonly<Record<string, string | undefined>>,
): readonly string[] {
  const declared = Object.entries(specOf(endpoint))
    .filter(
      ([key, option]) =>
        option.identity === true && !(key in canonical) && (option.roles === undefined || option.roles.includes(role)),
    )
    .map(([key, option]) => {
      const given = rawValues[key]
      if (given === undefined)
        return option.default === undefined || (Array.isArray(option.default) && option.default.length === 0)
          ? ''
          : `${kebab(key)}=${JSON.stringify(option.default)}`
      // The parsed value: `Gzip` and `gzip`, `1h` and `60m` are the same thing.
      const text = given
        .map(
          ({ template, mapKey }) =>
            `${mapKey === undefined ? '' : `${mapKey}:`}${isFixed(template) ? JSON.stringify(option.parse(asTyped(template))) : asTyped(template)}`,
        )
        .join(',')
      // What is sent to a feed, or stands in its headers, may hold credentials.
      return `${kebab(key)}=${option.secret === true || option.kind === 'list' || option.kind === 'map' ? sha256(text).slice(0, 16) : text}`
    })
  const meant = Object.entries(canonical).map(([key, value]) =>
    value === undefined ? '' : `${kebab(key)}=${JSON.stringify(value)}`,
  )
  return [...declared, ...meant].filter((text) => text !== '').sort()
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
