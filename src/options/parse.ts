/**
 * Checks the raw options of one endpoint against its declaration. Every fault is found, and no message repeats a
 * secret.
 */
import { nearest } from '../kit/nearest'
import type { AnyEndpoint, OptionsOf, Role, Spec } from './define'
import { findOption, hasRole, kebab, optionNames, quoted, specOf } from './names'
import { redactUri } from './redact-uri'
import type { RawOption } from './split'
import { asTyped, fill, isFixed, templateOf, type Placeholder, type Template } from './template'

export interface RawValue {
  readonly template: Template
  readonly from: 'query' | 'word'
  /** The part after the dot, for a map option. */
  readonly mapKey?: string
}
/** The given values by key of the declaration, in the given order. */
export type RawValues = Readonly<Record<string, readonly RawValue[]>>

export function wordOf(word: string): RawOption {
  const equals = word.indexOf('=')
  return equals === -1
    ? { name: word, value: ['true'], from: 'word', bare: true }
    : { name: word.slice(0, equals), value: templateOf(word.slice(equals + 1)), from: 'word', bare: false }
}

export interface OptionContext {
  readonly endpoint: AnyEndpoint
  readonly scheme: string
  readonly role: Role
}

/** @param exists tells whether a word is an existing path, which a shell may have made of a glob */
export function collectOptions(
  context: OptionContext,
  given: readonly RawOption[],
  exists: (path: string) => boolean,
): { readonly rawValues: RawValues; readonly faults: readonly string[] } {
  const { endpoint, scheme, role } = context
  const spec = specOf(endpoint)
  const rawValues: Record<string, RawValue[]> = {}
  const faults: string[] = []
  const files: string[] = []
  const twice = new Set<string>()
  let previous: RawOption | undefined
  for (const raw of given) {
    const found = findOption(spec, raw.name, role)
    const before = previous
    previous = raw
    if (found === undefined) {
      const typed = raw.bare ? raw.name : `${raw.name}=${asTyped(raw.value)}`
      if (raw.from === 'word' && exists(typed)) files.push(typed)
      else faults.push(unknownFault(context, raw, before))
      continue
    }
    const { key, option, mapKey } = found
    const name = kebab(key)
    if (!hasRole(option, role)) {
      faults.push(`option '${name}' of ${scheme} is for ${role === 'sink' ? 'sources (--from)' : 'sinks (--to)'} only`)
      continue
    }
    if (option.kind === 'map' && (mapKey === undefined || mapKey === '')) {
      faults.push(`option '${name}' of ${scheme} needs a name after a dot: ${name}.NAME=VALUE`)
      continue
    }
    const earlier = rawValues[key]
    if (earlier !== undefined && option.kind !== 'list' && option.kind !== 'map') {
      if (!twice.has(key))
        faults.push(
          `option '${name}' of ${scheme} is given twice${earlier[0]?.from === raw.from ? '' : ': in the query and as a word'}`,
        )
      twice.add(key)
      continue
    }
    const text: RawValue = { template: raw.value, from: raw.from, ...(mapKey === undefined ? {} : { mapKey }) }
    rawValues[key] = [...(earlier ?? []), text]
  }
  if (files.length > 0) faults.push(expandedGlobFault(context, files))
  for (const [key, option] of Object.entries(spec)) {
    if (option.required === true && hasRole(option, role) && rawValues[key] === undefined)
      faults.push(`${scheme} as a ${role} needs option '${kebab(key)}': ${kebab(key)}=${option.argument ?? 'VALUE'}`)
  }
  return { rawValues, faults }
}

function unknownFault(
  { endpoint, scheme, role }: OptionContext,
  raw: RawOption,
  before: RawOption | undefined,
): string {
  if (raw.bare && raw.from === 'word') {
    if (raw.name === '-')
      return `'-' stands for stdin or stdout right after --from or --to, not among the options of ${scheme}`
    // In `region us-east-1` this word is the value of the word before. The message does not repeat it, because it may
    // be a secret.
    const owner = before?.bare === true ? findOption(specOf(endpoint), before.name) : undefined
    if (
      owner !== undefined &&
      owner.option.kind !== 'flag' &&
      nearest(raw.name, optionNames(specOf(endpoint))) === undefined
    )
      return `option '${kebab(owner.key)}' of ${scheme} and its value are one word: ${kebab(owner.key)}=VALUE`
  }
  if (raw.name === '') return `a word of ${scheme} begins with '=': options are written name=value`
  const meant =
    nearest(dotless(raw.name), optionNames(specOf(endpoint), role)) ??
    nearest(dotless(raw.name), optionNames(specOf(endpoint)))
  const shownName = /:\/\//.test(raw.name) ? redactUri(raw.name) : raw.name
  return `unknown option ${quoted(shownName)} for ${scheme}; ${meant === undefined ? `'manifold help ${scheme}' lists what there is` : `did you mean '${meant}'?`}`
}

function dotless(name: string): string {
  return name.split('.', 1)[0] ?? name
}

function expandedGlobFault({ scheme, role }: OptionContext, files: readonly string[]): string {
  const others = files.length - 1
  const areFiles = others === 0 ? ' is a file' : ` and ${others} other ${others === 1 ? 'word' : 'words'} are files`
  return `${quoted(files[0] ?? '')}${areFiles}, not an option of ${scheme}: quote the glob, as in --${role === 'source' ? 'from' : 'to'} 'file:*.log', so that the shell leaves it alone`
}

/**
 * Returns the values of the options.
 * @param value returns the value of a placeholder; if it is absent, options with placeholders are left out
 */
export function optionValues(
  context: OptionContext,
  rawValues: RawValues,
  value?: (placeholder: Placeholder) => string,
): { readonly options: OptionsOf<Spec>; readonly faults: readonly string[] } {
  const spec = specOf(context.endpoint)
  const options: Record<string, unknown> = {}
  const faults: string[] = []
  for (const [key, option] of Object.entries(spec)) {
    const given = rawValues[key]
    options[key] = option.default
    if (given === undefined) continue
    const values: unknown[] = []
    for (const { template, mapKey } of given) {
      if (value === undefined && !isFixed(template)) continue
      const text = value === undefined ? asTyped(template) : fill(template, value)
      try {
        const parsed: unknown = option.parse(text)
        if (option.kind === 'map')
          values.push(...(parsed as [string, string][]).map(([, inner]) => [mapKey ?? '', inner]))
        else if (option.kind === 'list') values.push(...(parsed as unknown[]))
        else values.push(parsed)
      } catch (error) {
        faults.push(valueFault(context, key, text, option.secret === true || !isFixed(template), error, option.values))
      }
    }
    if (option.kind === 'map' || option.kind === 'list') options[key] = values
    else if (values.length > 0) options[key] = values[0]
  }
  return { options, faults }
}

function valueFault(
  { scheme }: OptionContext,
  key: string,
  text: string,
  hidden: boolean,
  error: unknown,
  values: readonly string[] | undefined,
): string {
  const why = error instanceof Error ? error.message : String(error)
  const subject = `option '${kebab(key)}' of ${scheme}`
  if (hidden)
    return `${subject}: its value is not valid${text.trim() !== '' && why.includes(text.trim()) ? '' : `: ${why}`}`
  const meant = values === undefined ? undefined : nearest(text, values)
  return `${subject}: ${quoted(redactUri(text))} is not valid: ${why}${meant === undefined ? '' : `; did you mean '${meant}'?`}`
}
