/**
 * Makes the identity under which an endpoint is stored in state. Two lines with the same identity are the same source
 * or sink, however they are spelled.
 *
 * - It consists of the endpoint's canonical form (servers and resources) and of the options declared `identity`.
 * - Credentials, and options that only say how to work, are left out. Placeholders stand as typed, so a rotated token
 *   changes nothing.
 * - A cluster is more than its list of servers: brokers come and go, and any of them leads to all. So `servers` are
 *   kept beside the identity, and an endpoint is a stored one if they have one server in common.
 * - Two lists without a common server are two clusters. To read one with the positions of the other would skip records;
 *   to begin again only repeats some.
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
  /** The readable form. It holds no secret: the query for a peer is hashed. */
  readonly canonical: string
  /** The SHA-256 of `canonical`, in hex. */
  readonly hash: string
  /**
   * The SHA-256 of everything except the servers. Together with `servers` it tells whether a stored endpoint is this
   * one.
   */
  readonly resourceHash: string
  /** The servers of the cluster, of which one in common is enough. The list is empty if there are none to compare. */
  readonly servers: readonly string[]
  /** The resources that are read or written, as the endpoint names them. */
  readonly resources: readonly string[]
  readonly scheme: string
  /** Earlier states were stored under this hash. */
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

/**
 * Tells whether both certainly name the same resource, on a server that both name. A source and a sink that do may form
 * a loop.
 */
export function isSameResource(one: Identity, other: Identity): boolean {
  const isSameCluster =
    one.servers.length === 0 && other.servers.length === 0
      ? true
      : one.servers.some((server) => other.servers.includes(server))
  return (
    one.scheme === other.scheme &&
    isSameCluster &&
    one.resources.some((resource) => resource !== '' && other.resources.includes(resource))
  )
}

/** Tells whether two endpoints of one line are the same. */
export function isEqual(one: Identity, other: Identity): boolean {
  return (
    one.canonical === other.canonical ||
    (one.resourceHash === other.resourceHash && one.servers.some((server) => other.servers.includes(server)))
  )
}

/** An option that contains a placeholder stands as typed. */
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

function pathOf({ endpoint, uri }: Parsed, cwd: string | undefined): string {
  // A path that begins with a placeholder may be absolute or relative, so it stays as typed.
  if (endpoint.form === 'path')
    return /^\{(env|file|exec):/.test(uri.path) ? uri.path : resolve(...(cwd === undefined ? [] : [cwd]), uri.path)
  return `${uri.hosts.length === 0 ? uri.path : uri.path.replace(/\/+$/, '')}${hashedQuery(uri.query)}`
}

/** @param canonical the canonical values of options; undefined means that an option does not count */
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
      // The parsed value counts, because `Gzip` and `gzip`, or `1h` and `60m`, mean the same.
      const text = given
        .map(
          ({ template, mapKey }) =>
            `${mapKey === undefined ? '' : `${mapKey}:`}${isFixed(template) ? JSON.stringify(option.parse(asTyped(template))) : asTyped(template)}`,
        )
        .join(',')
      // Messages and headers for a feed may contain credentials.
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
