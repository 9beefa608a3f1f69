/**
 * One endpoint of the command line: what was typed, and the Target that a factory gets. Placeholders are replaced at
 * every `resolve`, their values never parsed for separators or placeholders again. Values of secrets are told to the
 * redactor before anybody else sees them.
 */
import { lineOf, Refused, UsageError } from '../core/errors'
import type { AnyEndpoint, AnyGiven, AnyTarget, Role, Spec, Uri } from './define'
import { holdsPrivateKey, isHarmless, kebab, looksSecret, specOf } from './names'
import { collectOptions, optionValues, wordOf, type Place, type Texts } from './parse'
import { valueOf, type Environment } from './placeholders'
import { labelOf, redactUri } from './redact-uri'
import type { Redactor } from './redactor'
import { buildUri, lookup, schemeOf, splitUri, uriPlaceholders, type Split, type UriTemplate } from './split'
import { asTyped, isFixed, placeholdersOf, type Placeholder } from './template'

export interface ParsedEndpoint {
  readonly endpoint: AnyEndpoint
  readonly role: Role
  /** Placeholders as typed. */
  readonly uri: Uri
  readonly texts: Texts
  /** Keys of the options that were given. */
  readonly given: ReadonlySet<string>
  /** For messages: no secret in it. */
  readonly label: string
  /** What the command line says that is better said otherwise, one line each. */
  readonly warnings: readonly string[]
  /** Replaces placeholders, parses what depended on them and checks the whole. Throws UsageError with every fault. */
  target(): Promise<AnyTarget>
}
export interface Surroundings {
  /** Read anew at every resolve: give process.env itself. */
  readonly env: Environment
  readonly redactor: Redactor
  exists(path: string): boolean
}

/** Throws UsageError with every fault that can be seen without opening anything. */
export function parseEndpoint(
  text: string,
  words: readonly string[],
  role: Role,
  registry: readonly AnyEndpoint[],
  surroundings: Surroundings,
): ParsedEndpoint {
  const { endpoint, parts, query } = splitOrFault(text, words, role, registry, surroundings)
  const place: Place = { endpoint, scheme: parts.scheme, role }
  if (endpoint[role] === undefined)
    throw new UsageError([`${parts.scheme} can only be a ${role === 'source' ? 'sink (--to)' : 'source (--from)'}`])
  const { texts, faults: nameFaults } = collectOptions(place, [...query, ...words.map(wordOf)], (path) =>
    surroundings.exists(path),
  )
  const { options, faults: valueFaults } = optionValues(place, texts)
  const uri = buildUri(parts)
  const faults = [...nameFaults, ...valueFaults]
  const open = placeholders(place, parts, texts)
  if (faults.length === 0 && open.length === 0) faults.push(...checked(place, { options, uri }))
  if (faults.length > 0) throw new UsageError(faults)

  const label = labelOf(uri, role)
  learnTyped(place, parts, texts, surroundings.redactor)
  const resolve = async (): Promise<AnyGiven> => {
    if (open.length === 0) return { options, uri }
    const { values, faults: missing } = await resolved(open, surroundings)
    if (missing.length > 0) throw new UsageError(missing)
    const value = ({ text: typed }: Placeholder): string => values.get(typed) ?? ''
    const found = optionValues(place, texts, value)
    const all = [...found.faults]
    const whole = attempt(() => buildUri(parts, value), all)
    if (whole !== undefined && all.length === 0) all.push(...checked(place, { options: found.options, uri: whole }))
    if (whole === undefined || all.length > 0) throw new UsageError(all)
    return { options: found.options, uri: whole }
  }
  return {
    endpoint,
    role,
    uri,
    texts,
    label,
    given: new Set(Object.keys(texts)),
    warnings: warningsOf(place, parts, texts, label),
    target: async () => {
      const first = await resolve()
      return {
        ...first,
        label,
        resolve: async () => {
          // At a reopening it is the endpoint that is refused (a token file in the middle of its rotation), not the
          // command line that is wrong.
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

/**
 * A URI that cannot be split hides nothing: where its scheme is known, the faults of the words after it are told too.
 */
function splitOrFault(
  text: string,
  words: readonly string[],
  role: Role,
  registry: readonly AnyEndpoint[],
  surroundings: Surroundings,
): Split {
  try {
    return splitUri(text, registry)
  } catch (error) {
    const scheme = schemeOf(text).scheme
    const endpoint = lookup(registry, scheme)
    if (!(error instanceof UsageError) || endpoint === undefined) throw error
    const place: Place = { endpoint, scheme, role }
    const { texts, faults } = collectOptions(place, words.map(wordOf), (path) => surroundings.exists(path))
    throw new UsageError([
      ...error.faults,
      ...faults.filter((fault) => !fault.includes(' needs option ')),
      ...optionValues(place, texts).faults,
    ])
  }
}

interface Open {
  readonly placeholder: Placeholder
  readonly where: string
  readonly secret: boolean
}

function placeholders({ endpoint, scheme }: Place, parts: UriTemplate, texts: Texts): readonly Open[] {
  const spec = specOf(endpoint)
  const inUri = uriPlaceholders(parts).map(({ placeholder, where }) => ({
    placeholder,
    where: `the ${where === 'address' ? 'address' : where} of ${scheme}`,
    secret: where === 'password' || where === 'query' || namesSecret(placeholder),
  }))
  const inOptions = Object.entries(texts).flatMap(([key, given]) =>
    given.flatMap(({ template, mapKey }) =>
      placeholdersOf(template).map((placeholder) => ({
        placeholder,
        where: `option '${kebab(key)}${mapKey === undefined ? '' : `.${mapKey}`}' of ${scheme}`,
        // Headers and messages carry credentials in the middle of other text.
        secret:
          spec[key]?.secret === true ||
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

/** Values by placeholder as typed, each read once; faults name option and placeholder, never a value. */
async function resolved(
  open: readonly Open[],
  { env, redactor }: Pick<Surroundings, 'env' | 'redactor'>,
): Promise<{ readonly values: ReadonlyMap<string, string>; readonly faults: readonly string[] }> {
  const values = new Map<string, string>()
  const faults: string[] = []
  const different = [...new Map(open.map(({ placeholder }) => [placeholder.text, placeholder])).values()]
  const outcomes = await Promise.allSettled(different.map((placeholder) => valueOf(placeholder, env)))
  different.forEach(({ text }, index) => {
    const outcome = outcomes[index]
    const uses = open.filter(({ placeholder }) => placeholder.text === text)
    if (outcome?.status === 'fulfilled') {
      if (uses.some(({ secret }) => secret) || holdsPrivateKey(outcome.value)) redactor.learn(outcome.value)
      values.set(text, outcome.value)
    } else faults.push(...uses.map(({ where }) => `${where}: ${lineOf(outcome?.reason)}`))
  })
  return { values, faults }
}

function checked({ endpoint, scheme, role }: Place, given: AnyGiven): readonly string[] {
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

/** What stands on the command line in the clear. */
function learnTyped({ endpoint }: Place, parts: UriTemplate, texts: Texts, redactor: Redactor): void {
  const spec = specOf(endpoint)
  const learn = (text: string): void => {
    redactor.learn(text)
  }
  for (const piece of parts.password ?? []) if (typeof piece === 'string') learn(piece)
  for (const { name, value } of queryPairs(parts))
    if (!isHarmless(name) && isFixed(value)) {
      learn(asTyped(value))
      learn(decodedOr(asTyped(value)))
    }
  for (const [key, given] of Object.entries(texts)) {
    for (const { template } of given) learn(/:\/\/[^/@:]*:([^@]+)@/.exec(asTyped(template))?.[1] ?? '')
    for (const { template } of given) {
      const text = asTyped(template)
      // A login that is sent as JSON names its secrets.
      for (const [, name = '', value = ''] of text.matchAll(JSON_MEMBER)) if (looksSecret(name)) learn(value)
      if (!isSecretOption(key, spec) && !holdsPrivateKey(text)) continue
      for (const piece of template) if (typeof piece === 'string') learn(piece)
    }
  }
}

/** Headers are secret whatever their declaration says. */
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

function warningsOf({ endpoint, scheme }: Place, parts: UriTemplate, texts: Texts, label: string): readonly string[] {
  const spec = specOf(endpoint)
  const warnings: string[] = []
  if (parts.password !== undefined && parts.password.some((piece) => typeof piece === 'string'))
    warnings.push(
      `the password of ${label} stands on the command line, where others on this machine can read it: write {env:NAME} or {file:PATH} in its place`,
    )
  for (const [key, given] of Object.entries(texts)) {
    if (
      spec[key]?.secret === true &&
      spec[key]?.kind !== 'map' &&
      given.some(({ template }) => isFixed(template) && !isPlainUri(asTyped(template)))
    )
      warnings.push(
        `${kebab(key)} of ${scheme} stands on the command line, where others on this machine can read it: write ${kebab(key)}={env:NAME} or {file:PATH}`,
      )
  }
  return warnings
}

/** A secret option may take a URI (a proxy), which is only as secret as the password in it. */
function isPlainUri(text: string): boolean {
  return text.includes('://') && redactUri(text) === text
}
