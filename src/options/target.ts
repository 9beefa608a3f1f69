/**
 * Parses one endpoint of the command line, and makes the Target that a factory gets. Each `resolve` replaces the
 * placeholders. Their values are never parsed for separators or placeholders. The redactor learns a secret before
 * anything else sees it.
 */
import { lineOf, Refused, UsageError } from '../core/errors'
import type { AnyEndpoint, AnyGiven, AnyTarget, Role, Spec, Uri } from './define'
import { holdsPrivateKey, isHarmless, isPrivateKey, kebab, looksSecret, specOf } from './names'
import { collectOptions, optionValues, wordOf, type OptionContext, type RawValues } from './parse'
import { valueOf, type Environment } from './placeholders'
import { labelOf, redactUri } from './redact-uri'
import type { Redactor } from './redactor'
import { buildUri, findEndpoint, schemeOf, splitUri, uriPlaceholders, type SplitUri, type UriTemplate } from './split'
import { asTyped, isFixed, placeholdersOf, type Placeholder } from './template'

export interface ParsedEndpoint {
  readonly endpoint: AnyEndpoint
  readonly role: Role
  /** Placeholders stand as typed here. */
  readonly uri: Uri
  readonly rawValues: RawValues
  /** Holds the keys of the options that were given. */
  readonly given: ReadonlySet<string>
  /** Messages use this name. It contains no secret. */
  readonly label: string
  /** Each line recommends a better way to write something. */
  readonly warnings: readonly string[]
  /**
   * Replaces placeholders, parses the values that depend on them and checks everything.
   * @throws UsageError with every fault
   */
  target(): Promise<AnyTarget>
}
export interface ParseContext {
  /** The variables are read at each resolve, so this has to be process.env itself. */
  readonly env: Environment
  readonly redactor: Redactor
  exists(path: string): boolean
}

/** @throws UsageError with every fault that can be found without opening anything */
export function parseEndpoint(
  text: string,
  words: readonly string[],
  role: Role,
  registry: readonly AnyEndpoint[],
  context: ParseContext,
): ParsedEndpoint {
  const { endpoint, parts, query } = splitOrFault(text, words, role, registry, context)
  const optionContext: OptionContext = { endpoint, scheme: parts.scheme, role }
  if (endpoint[role] === undefined)
    throw new UsageError([`${parts.scheme} can only be a ${role === 'source' ? 'sink (--to)' : 'source (--from)'}`])
  const { rawValues, faults: nameFaults } = collectOptions(optionContext, [...query, ...words.map(wordOf)], (path) =>
    context.exists(path),
  )
  const { options, faults: valueFaults } = optionValues(optionContext, rawValues)
  const uri = buildUri(parts)
  const faults = [...nameFaults, ...valueFaults]
  const uses = placeholderUses(optionContext, parts, rawValues)
  if (faults.length === 0 && uses.length === 0) faults.push(...checkFaults(optionContext, { options, uri }))
  if (faults.length > 0) throw new UsageError(faults)

  const label = endpoint.labels?.[role] ?? labelOf(uri)
  learnTypedSecrets(optionContext, parts, rawValues, context.redactor)
  const resolve = async (): Promise<AnyGiven> => {
    if (uses.length === 0) return { options, uri }
    const { values, faults: missing } = await resolvePlaceholders(uses, context)
    if (missing.length > 0) throw new UsageError(missing)
    const value = ({ text: typed }: Placeholder): string => values.get(typed) ?? ''
    const found = optionValues(optionContext, rawValues, value)
    const all = [...found.faults]
    const whole = attempt(() => buildUri(parts, value), all)
    if (whole !== undefined && all.length === 0)
      all.push(...checkFaults(optionContext, { options: found.options, uri: whole }))
    if (whole === undefined || all.length > 0) throw new UsageError(all)
    return { options: found.options, uri: whole }
  }
  return {
    endpoint,
    role,
    uri,
    rawValues,
    label,
    given: new Set(Object.keys(rawValues)),
    warnings: warningsOf(optionContext, parts, rawValues, label),
    target: async () => {
      const first = await resolve()
      return {
        ...first,
        label,
        resolve: async () => {
          // At a reopening the command line is not to blame: a token file may be in the middle of its rotation.
          try {
            return await resolve()
          } catch (error) {
            if (error instanceof UsageError) throw new Refused(`${label}: ${error.faults.join('; ')}`, { cause: error })
            throw error
          }
        },
      }
    },
  }
}

/** If the URI cannot be split but its scheme is known, the faults of the words after it are reported as well. */
function splitOrFault(
  text: string,
  words: readonly string[],
  role: Role,
  registry: readonly AnyEndpoint[],
  context: ParseContext,
): SplitUri {
  try {
    return splitUri(text, registry)
  } catch (error) {
    const scheme = schemeOf(text, registry).scheme
    const endpoint = findEndpoint(registry, scheme)
    if (!(error instanceof UsageError) || endpoint === undefined) throw error
    const optionContext: OptionContext = { endpoint, scheme, role }
    const { rawValues, faults } = collectOptions(optionContext, words.map(wordOf), (path) => context.exists(path))
    throw new UsageError([
      ...error.faults,
      ...faults.filter((fault) => !fault.includes(' needs option ')),
      ...optionValues(optionContext, rawValues).faults,
    ])
  }
}

interface PlaceholderUse {
  readonly placeholder: Placeholder
  readonly where: string
  readonly secret: boolean
}

function placeholderUses(
  { endpoint, scheme }: OptionContext,
  parts: UriTemplate,
  rawValues: RawValues,
): readonly PlaceholderUse[] {
  const spec = specOf(endpoint)
  const inUri = uriPlaceholders(parts).map(({ placeholder, where }) => ({
    placeholder,
    where: `the ${where === 'address' ? 'address' : where} of ${scheme}`,
    secret: where === 'password' || where === 'query' || namesSecret(placeholder),
  }))
  const inOptions = Object.entries(rawValues).flatMap(([key, given]) =>
    given.flatMap(({ template, mapKey }) =>
      placeholdersOf(template).map((placeholder) => ({
        placeholder,
        where: `option '${kebab(key)}${mapKey === undefined ? '' : `.${mapKey}`}' of ${scheme}`,
        // Headers and messages may contain credentials within other text.
        secret:
          spec[key]?.secret === true ||
          spec[key]?.privateKey === true ||
          spec[key]?.kind === 'map' ||
          spec[key]?.kind === 'list' ||
          namesSecret(placeholder),
      })),
    ),
  )
  return [...inUri, ...inOptions]
}

function namesSecret({ kind, argument }: Placeholder): boolean {
  return kind === 'file' ? argument.startsWith('%d/') || looksSecret(argument) : kind === 'env' && looksSecret(argument)
}

/**
 * Returns the values by placeholder as typed. Each placeholder is read once. Faults name option and placeholder, never
 * a value.
 */
async function resolvePlaceholders(
  uses: readonly PlaceholderUse[],
  { env, redactor }: Pick<ParseContext, 'env' | 'redactor'>,
): Promise<{ readonly values: ReadonlyMap<string, string>; readonly faults: readonly string[] }> {
  const values = new Map<string, string>()
  const faults: string[] = []
  const different = [...new Map(uses.map(({ placeholder }) => [placeholder.text, placeholder])).values()]
  const outcomes = await Promise.allSettled(different.map((placeholder) => valueOf(placeholder, env)))
  different.forEach(({ text }, index) => {
    const outcome = outcomes[index]
    const usesOfText = uses.filter(({ placeholder }) => placeholder.text === text)
    if (outcome?.status === 'fulfilled') {
      if (usesOfText.some(({ secret }) => secret) || holdsPrivateKey(outcome.value)) redactor.learn(outcome.value)
      values.set(text, outcome.value)
    } else faults.push(...usesOfText.map(({ where }) => `${where}: ${lineOf(outcome?.reason)}`))
  })
  return { values, faults }
}

function checkFaults({ endpoint, scheme, role }: OptionContext, given: AnyGiven): readonly string[] {
  return (endpoint.check?.(given, role) ?? []).map((fault) =>
    fault.startsWith(scheme) ? fault : `${scheme}: ${fault}`,
  )
}

function attempt<T>(run: () => T, faults: string[]): T | undefined {
  try {
    return run()
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    faults.push(...error.faults)
    return undefined
  }
}

const JSON_MEMBER = /"([^"\\]+)"\s*:\s*"((?:[^"\\{]|\\.)+)"/g

/** Makes the redactor learn secrets that are typed on the command line. */
function learnTypedSecrets(
  { endpoint }: OptionContext,
  parts: UriTemplate,
  rawValues: RawValues,
  redactor: Redactor,
): void {
  const spec = specOf(endpoint)
  const learn = (text: string): void => {
    redactor.learn(text)
  }
  for (const part of parts.password ?? []) if (typeof part === 'string') learn(part)
  for (const { name, value } of queryPairs(parts))
    if (!isHarmless(name) && isFixed(value)) {
      learn(asTyped(value))
      learn(decodedOr(asTyped(value)))
    }
  for (const [key, given] of Object.entries(rawValues)) {
    for (const { template } of given) learn(/:\/\/[^/@:]*:([^@]+)@/.exec(asTyped(template))?.[1] ?? '')
    for (const { template } of given) {
      const text = asTyped(template)
      // A login in JSON names its secrets.
      for (const [, name = '', value = ''] of text.matchAll(JSON_MEMBER)) if (looksSecret(name)) learn(value)
      const secret = spec[key]?.privateKey === true ? isPrivateKey(text) : isSecretOption(key, spec)
      if (!secret && !holdsPrivateKey(text)) continue
      for (const part of template) if (typeof part === 'string') learn(part)
    }
  }
}

/** Headers are always secret. */
export function isSecretOption(key: string, spec: Spec): boolean {
  return spec[key]?.secret === true || (key === 'header' && spec[key]?.kind === 'map')
}

function queryPairs(parts: UriTemplate): readonly { readonly name: string; readonly value: UriTemplate['path'] }[] {
  const sections = parts.query ?? []
  return sections.flatMap((section, index) => {
    const before = sections[index - 1]
    const name = before === undefined ? '' : asTyped(before.template)
    return name.endsWith('=') ? [{ name: name.slice(0, -1), value: section.template }] : []
  })
}

function decodedOr(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function warningsOf(
  { endpoint, scheme }: OptionContext,
  parts: UriTemplate,
  rawValues: RawValues,
  label: string,
): readonly string[] {
  const spec = specOf(endpoint)
  const warnings: string[] = []
  if (parts.password !== undefined && parts.password.some((part) => typeof part === 'string'))
    warnings.push(
      `the password of ${label} stands on the command line, where others on this machine can read it: write {env:NAME} or {file:PATH} in its place`,
    )
  for (const [key, given] of Object.entries(rawValues)) {
    const isTypedSecret = (text: string): boolean =>
      spec[key]?.privateKey === true ? isPrivateKey(text) : spec[key]?.secret === true && !hasNoPassword(text)
    if (
      spec[key]?.kind !== 'map' &&
      given.some(({ template }) => isFixed(template) && isTypedSecret(asTyped(template)))
    )
      warnings.push(
        `${kebab(key)} of ${scheme} stands on the command line, where others on this machine can read it: write ${kebab(key)}={env:NAME} or {file:PATH}`,
      )
  }
  return warnings
}

/** A secret option may take a URI (of a proxy). It is secret only if it contains a password. */
function hasNoPassword(text: string): boolean {
  return text.includes('://') && redactUri(text) === text
}
