/** Handles names of options as people type them. */
import type { AnyEndpoint, Option, Role, Spec } from './define'

/** Returns the declared options of any endpoint. */
export function specOf(endpoint: AnyEndpoint | undefined): Spec {
  return (endpoint?.options ?? {}) as Spec
}

/** Turns `commitFileSize` into `commit-file-size`, as it is typed. */
export function kebab(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

/** Up to the first dot, case, `-` and `_` do not count. The rest stays as typed. */
export function splitName(name: string): { readonly base: string; readonly rest?: string } {
  const dot = name.indexOf('.')
  const base = (dot === -1 ? name : name.slice(0, dot)).toLowerCase().replace(/[-_]/g, '')
  return dot === -1 ? { base } : { base, rest: name.slice(dot + 1) }
}

export interface FoundOption {
  readonly key: string
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- any option of a spec
  readonly option: Option<any>
  /** The part after the dot, for a map option. */
  readonly mapKey?: string
}

/**
 * Finds the option with this name or alias. If two options share an alias, the role decides. A dot in an alias
 * (`group.id`) is part of the alias.
 */
export function findOption(spec: Spec, name: string, role?: Role): FoundOption | undefined {
  const { base, rest } = splitName(name)
  let other: FoundOption | undefined
  for (const [key, option] of Object.entries(spec)) {
    const dotted =
      rest !== undefined &&
      option.aliases?.some((known) => known.includes('.') && known.toLowerCase() === name.toLowerCase()) === true
    if (rest !== undefined && option.kind !== 'map' && !dotted) continue
    if (
      !dotted &&
      ![key, ...(option.aliases ?? [])].some((known) => !known.includes('.') && splitName(known).base === base)
    )
      continue
    const found: FoundOption = rest === undefined || dotted ? { key, option } : { key, option, mapKey: rest }
    if (role === undefined || hasRole(option, role)) return found
    other ??= found
  }
  return other
}

export function hasRole(option: { readonly roles?: readonly Role[] }, role: Role): boolean {
  return option.roles === undefined || option.roles.includes(role)
}

/** Returns the names as they are typed, for suggestions. */
export function optionNames(spec: Spec, role?: Role): string[] {
  return Object.entries(spec)
    .filter(([, option]) => role === undefined || hasRole(option, role))
    .map(([key]) => kebab(key))
}

/**
 * Tells whether a name usually carries credentials. It decides where nothing is declared: in the query of a feed, and
 * for unknown options.
 */
export function looksSecret(name: string): boolean {
  return /key|token|secret|sign|passw|pwd|auth|credential|jwt|bearer|session|\bsig\b|cookie/i.test(name)
}

/**
 * These parameters of feeds say what is requested, never who requests it. All other parameters of a peer's query count
 * as secret.
 */
const HARMLESS = new Set([
  'stream',
  'streams',
  'symbol',
  'symbols',
  'channel',
  'channels',
  'topic',
  'topics',
  'pair',
  'pairs',
  'market',
  'markets',
  'product',
  'products',
  'productid',
  'productids',
  'instrument',
  'instruments',
  'exchange',
  'book',
  'level',
  'depth',
  'interval',
  'collection',
  'collections',
  'wantedcollections',
  'wanteddids',
  'type',
  'types',
  'event',
  'events',
  'kind',
  'feed',
  'subscribe',
  'subscription',
  'limit',
  'count',
  'offset',
  'from',
  'to',
  'since',
  'until',
  'start',
  'end',
  'time',
  'timeunit',
  'cursor',
  'version',
  'v',
  'vsn',
  'format',
  'encoding',
  'compress',
  'compression',
  'lang',
  'locale',
  'region',
  'transport',
  'eio',
  'protocol',
  'heartbeat',
  'ping',
  'reconnectevery',
])
/** Tells whether a parameter of a peer's query may be shown with its value. */
export function isHarmless(name: string): boolean {
  return HARMLESS.has(splitName(name).base.replace(/\[\]$/, ''))
}

/** A private key may be given instead of the name of its file. It is secret in any option. */
export function holdsPrivateKey(text: string): boolean {
  return /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----/.test(text)
}

/**
 * Tells whether the value of an option for a private key is the key itself, with or without the lines around it. The
 * name of a file has neither several lines nor 60 characters of base64 in a row.
 */
export function isPrivateKey(text: string): boolean {
  return holdsPrivateKey(text) || /[\r\n]|[A-Za-z0-9+/=]{60}/.test(text)
}

/** Quotes a part of the command line for a message: in one line, and shortened if it is long. */
export function quoted(text: string): string {
  const plain = text.replace(
    // eslint-disable-next-line no-control-regex -- control characters are what is being escaped
    /[\u0000-\u001f\u007f-\u009f]/g,
    (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`,
  )
  return `'${plain.length > 80 ? `${plain.slice(0, 77)}...` : plain}'`
}
