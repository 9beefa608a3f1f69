/** Names of options as people type them. */
import type { AnyEndpoint, Option, Role, Spec } from './define'

/** Options of any endpoint, as declarations. */
export function specOf(endpoint: AnyEndpoint | undefined): Spec {
  return (endpoint?.options ?? {}) as Spec
}

/** `commitFileSize` as it is typed: `commit-file-size`. */
export function kebab(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

/** Case, `-` and `_` do not count up to the first dot; what follows it is as typed. */
export function splitName(name: string): { readonly base: string; readonly rest?: string } {
  const dot = name.indexOf('.')
  const base = (dot === -1 ? name : name.slice(0, dot)).toLowerCase().replace(/[-_]/g, '')
  return dot === -1 ? { base } : { base, rest: name.slice(dot + 1) }
}

export interface FoundOption {
  readonly key: string
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- any option of a spec
  readonly option: Option<any>
  /** Of a map option: what follows the dot. */
  readonly mapKey?: string
}

/**
 * The option of that name or alias; where two share an alias, the one for this role. The dots of an alias (`group.id`)
 * are part of it.
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

/** Names as they are to be typed, for suggestions. */
export function optionNames(spec: Spec, role?: Role): string[] {
  return Object.entries(spec)
    .filter(([, option]) => role === undefined || hasRole(option, role))
    .map(([key]) => kebab(key))
}

/**
 * Names that mostly carry credentials, wherever nobody declared what they are (the query of a feed, an unknown option).
 */
export function looksSecret(name: string): boolean {
  return /key|token|secret|sign|passw|pwd|auth|credential|jwt|bearer|session|\bsig\b|cookie/i.test(name)
}

/** Parameters of feeds that say what is asked for, never who asks: a peer's query is secret but for these. */
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
/** Whether a parameter of a peer's query may be shown with its value. */
export function isHarmless(name: string): boolean {
  return HARMLESS.has(splitName(name).base.replace(/\[\]$/, ''))
}

/** A private key is secret in whatever option it stands, its own text in the place of a file's name. */
export function holdsPrivateKey(text: string): boolean {
  return /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----/.test(text)
}

/** A piece of the command line for a message: one line, in quotes, of bearable length. */
export function quoted(text: string): string {
  const plain = text.replace(
    // eslint-disable-next-line no-control-regex -- control characters are what is being escaped
    /[\u0000-\u001f\u007f-\u009f]/g,
    (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`,
  )
  return `'${plain.length > 80 ? `${plain.slice(0, 77)}...` : plain}'`
}
