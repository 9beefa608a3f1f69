/**
 * Makes a command line fit to be shown in process title, unit files, receipts and status. It works on faulty lines as
 * well.
 */
import type { AnyEndpoint, Role } from './define'
import { findOption, holdsPrivateKey, isHarmless, isPrivateKey, looksSecret, splitName, specOf } from './names'
import { hiddenValue, redactUri as redactAny, type Hide } from './redact-uri'
import { findEndpoint, schemeOf } from './split'
import { isSecretOption } from './target'
import { maskBraces } from './template'

/**
 * Replaces passwords, and query values that are or may be credentials. With a registry the declarations say what is
 * secret, without one the names decide.
 * @param hide returns the replacement of a secret
 */
export function redactUri(text: string, registry: readonly AnyEndpoint[] = [], hide: Hide = hiddenValue): string {
  const endpoint = endpointOf(text, registry)
  // The names in a peer's query have nothing to do with our options.
  return redactAny(
    text,
    (name, value) =>
      endpoint === undefined || endpoint.query === 'peer' ? !isHarmless(name) : isSecret(name, value, endpoint),
    hide,
  )
}

function endpointOf(text: string, registry: readonly AnyEndpoint[]): AnyEndpoint | undefined {
  return findEndpoint(registry, schemeOf(text, registry).scheme)
}

/** Tells whether a value is secret: by the declaration of its option, or by the name if there is no declaration. */
function isSecret(name: string, value: string, endpoint: AnyEndpoint | undefined, role?: Role): boolean {
  if (splitName(name).base === 'header') return true
  const spec = specOf(endpoint)
  const found = findOption(spec, name, role)
  if (found === undefined) return looksSecret(name)
  return found.option.privateKey === true ? isPrivateKey(value) : isSecretOption(found.key, spec)
}

/** Returns each word of argv as it may be shown. */
export function redactArgv(
  argv: readonly string[],
  registry: readonly AnyEndpoint[],
  hide: Hide = hiddenValue,
): string[] {
  let role: Role | undefined
  let endpoint: AnyEndpoint | undefined
  let uriNext = false
  /** The name of an option whose value stands in the next word. */
  let hideNext: string | undefined
  return argv.map((word) => {
    const flag = /^--([A-Za-z][\w-]*)(=[^]*)?$/.exec(word)
    if (flag !== null) {
      const base = splitName(flag[1] ?? '').base
      hideNext = undefined
      role = base === 'from' ? 'source' : base === 'to' || base === 'deadletter' ? 'sink' : undefined
      endpoint = undefined
      uriNext = role !== undefined && flag[2] === undefined
      if (flag[2] === undefined) return word
      const value = flag[2].slice(1)
      if (role !== undefined) endpoint = endpointOf(value, registry)
      return `--${flag[1] ?? ''}=${role === undefined ? shownWord(value, undefined, undefined, hide) : redactUri(value, registry, hide)}`
    }
    if (uriNext) {
      uriNext = false
      endpoint = endpointOf(word, registry)
      return redactUri(word, registry, hide)
    }
    if (hideNext !== undefined) {
      const hidden = isSecret(hideNext, word, endpoint, role)
      hideNext = undefined
      if (hidden) return hide(word)
    }
    // `secret-access-key VALUE` is a mistake, but VALUE is a secret all the same.
    hideNext =
      endpoint !== undefined && !word.includes('=') && findOption(specOf(endpoint), word, role)?.option.kind !== 'flag'
        ? word
        : undefined
    return shownWord(word, endpoint, role, hide)
  })
}

function shownWord(word: string, endpoint: AnyEndpoint | undefined, role: Role | undefined, hide: Hide): string {
  if (/^[A-Za-z][A-Za-z0-9+.-]*:\/\//.test(word)) return redactAny(word, undefined, hide)
  const equals = maskBraces(word).indexOf('=')
  if (equals === -1) return word
  const name = word.slice(0, equals)
  const value = word.slice(equals + 1)
  if (isSecret(name.replace(/:$/, ''), value, endpoint, role) || holdsPrivateKey(value)) return `${name}=${hide(value)}`
  return /:\/\//.test(value) ? `${name}=${redactAny(value, undefined, hide)}` : word
}
