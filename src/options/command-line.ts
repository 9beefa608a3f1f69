/**
 * Parses the whole command line, from words to endpoints and flags. Nothing is opened and no placeholder is read; the
 * only look at the disk is whether a word is a file. One UsageError holds every fault.
 */
import { existsSync } from 'node:fs'
import { lineOf, UsageError } from '../core/errors'
import { nearest } from '../kit/nearest'
import type { AnyEndpoint, AnyTarget, Role, Spec } from './define'
import { flags as table, parseAppend, type Append, type Flags, type UntilPoint } from './flags'
import { groupArgv, type EndpointWords, type FlagWords } from './group'
import { identityOf, isEqual, type Identity } from './identity'
import { kebab, quoted, splitName } from './names'
import { valueOf, type Environment } from './placeholders'
import { redactUri } from './redact-uri'
import { Redactor } from './redactor'
import { parseEndpoint, type ParsedEndpoint, type ParseContext } from './target'
import { fill, placeholdersOf, displayPlaceholder, templateOf, type Placeholder } from './template'

export interface Until {
  readonly point?: UntilPoint
  /** The run stops after this many milliseconds without a record. */
  readonly idle?: number
  readonly count?: number
}
export interface CommandLine {
  readonly from: readonly ParsedEndpoint[]
  readonly to: readonly ParsedEndpoint[]
  readonly deadLetter?: ParsedEndpoint
  /** Placeholders stand as typed here. `targetsOf` replaces them. */
  readonly appends: readonly Append[]
  readonly flags: Flags
  /** Holds the keys of the flags that were given. */
  readonly given: ReadonlySet<string>
  /** Combines `--until`, `--idle` and `--count`. It is absent if none of them was given. */
  readonly until?: Until
  /** These are logged once at the start. */
  readonly warnings: readonly string[]
  /** The redactor knows the secrets of this line. Every text for people passes through it. */
  readonly redactor: Redactor
  readonly env: Environment
}
export interface Targets {
  readonly from: readonly AnyTarget[]
  readonly to: readonly AnyTarget[]
  readonly deadLetter?: AnyTarget
  readonly appends: readonly Append[]
}
export interface ParseSettings {
  readonly redactor?: Redactor
  exists?(path: string): boolean
}

/**
 * @param argv the words after the program's name
 * @throws UsageError with every fault
 */
export function parseCommandLine(
  argv: readonly string[],
  env: Environment,
  registry: readonly AnyEndpoint[],
  settings: ParseSettings = {},
): CommandLine {
  const redactor = settings.redactor ?? new Redactor()
  const context: ParseContext = { env, redactor, exists: (path) => (settings.exists ?? existsSync)(path) }
  const grouped = groupArgv(argv, env)
  const faults = [...grouped.faults]
  for (const word of grouped.unattached)
    faults.push(
      `${quoted(redactUri(word))} belongs to nothing: an endpoint is --from URI or --to URI, its options are the words after it`,
    )

  const endpoints = (role: Role, list: readonly EndpointWords[]): readonly ParsedEndpoint[] =>
    list.flatMap(({ uri, words }) =>
      collectFaults(() => [parseEndpoint(uri, words, role, registry, context)], [], faults),
    )
  const from = endpoints('source', grouped.from)
  const to = endpoints('sink', grouped.to)
  const deadLetter = grouped.deadLetter === undefined ? undefined : endpoints('sink', [grouped.deadLetter])[0]
  const complained = (flag: string): boolean => faults.some((fault) => fault.startsWith(`${flag} needs a URI`))
  if (grouped.from.length === 0 && !complained('--from')) faults.push('--from is missing: where records come from')
  if (grouped.to.length === 0 && !complained('--to')) faults.push('--to is missing: where records go')
  faults.push(...duplicateFaults(from, '--from'), ...duplicateFaults(to, '--to'))

  const flagged = parseFlags(grouped.given)
  faults.push(...flagged.faults)
  const names = flagged.flags.append.map(({ name }) => name)
  for (const name of new Set(names.filter((each, index) => names.indexOf(each) !== index)))
    faults.push(`--append names ${quoted(name)} twice`)
  if (faults.length > 0) throw new UsageError([...new Set(faults)])
  return {
    from,
    to,
    ...(deadLetter === undefined ? {} : { deadLetter }),
    appends: flagged.flags.append,
    flags: flagged.flags,
    given: flagged.given,
    ...(flagged.until === undefined ? {} : { until: flagged.until }),
    redactor,
    env,
    warnings: [...from, ...to, ...(deadLetter === undefined ? [] : [deadLetter])].flatMap(({ warnings }) => warnings),
  }
}

/**
 * Replaces the placeholders of all targets at once.
 * @throws UsageError with the faults of all targets
 */
export async function targetsOf(line: CommandLine): Promise<Targets> {
  const faults: string[] = []
  // All are started before one is awaited, so that commands that take seconds run in parallel.
  const started = [line.from, line.to, line.deadLetter === undefined ? [] : [line.deadLetter]].map((list) =>
    Promise.allSettled(list.map((each) => each.target())),
  )
  const filled = Promise.allSettled(line.appends.map((append) => resolveAppend(append, line)))
  const [from = [], to = [], letters = []] = (await Promise.all(started)).map((outcomes) => fulfilled(outcomes, faults))
  const appends = fulfilled(await filled, faults)
  if (faults.length > 0) throw new UsageError(faults)
  const deadLetter = letters[0]
  return { from, to, appends, ...(deadLetter === undefined ? {} : { deadLetter }) }
}

function fulfilled<T>(outcomes: readonly PromiseSettledResult<T>[], faults: string[]): readonly T[] {
  const values: T[] = []
  for (const outcome of outcomes) {
    if (outcome.status === 'fulfilled') values.push(outcome.value)
    else if (outcome.reason instanceof UsageError) faults.push(...outcome.reason.faults)
    else throw outcome.reason
  }
  return values
}

async function resolveAppend(append: Append, { env }: CommandLine): Promise<Append> {
  const template = templateOf(append.value)
  const placeholders = placeholdersOf(template)
  if (placeholders.length === 0) return append
  const values = new Map<Placeholder, string>()
  for (const placeholder of placeholders) {
    try {
      values.set(placeholder, await valueOf(placeholder, env))
    } catch (error) {
      throw new UsageError([`--append ${quoted(append.name)}: ${lineOf(error)}`])
    }
  }
  const value = fill(template, (placeholder) => values.get(placeholder) ?? '')
  if (append.kind === 'text') return { ...append, value }
  // The value of a placeholder may be secret and may be the reason why this is no JSON. So the message names the
  // placeholder and does not show the value.
  try {
    return parseAppend(`${append.name}:=${value}`)
  } catch {
    throw new UsageError([
      `--append ${quoted(append.name)}: with ${placeholders.map(displayPlaceholder).join(' and ')} in it, it is no JSON`,
    ])
  }
}

function parseFlags(given: readonly FlagWords[]): {
  readonly flags: Flags
  readonly given: ReadonlySet<string>
  readonly until?: Until
  readonly faults: readonly string[]
} {
  const spec: Spec = table
  const values: Record<string, unknown> = Object.fromEntries(
    Object.entries(spec).map(([key, option]) => [key, option.default]),
  )
  const faults: string[] = []
  const seen = new Set<string>()
  const give = (key: string, raw: string, as: string): void => {
    const option = spec[key]
    if (option === undefined) return
    if (seen.has(key) && option.kind !== 'list') {
      faults.push(`${as} is given twice`)
      return
    }
    seen.add(key)
    try {
      const parsed: unknown = option.parse(raw)
      values[key] = option.kind === 'list' ? [...(values[key] as unknown[]), ...(parsed as unknown[])] : parsed
    } catch (error) {
      const meant = option.values === undefined ? undefined : nearest(raw, option.values)
      // Only the name of an appended member is shown, because its value may be a secret.
      faults.push(
        `${as} ${quoted(key === 'append' ? (raw.split('=', 1)[0] ?? '') : redactUri(raw))} is not valid: ${(error as Error).message}${meant === undefined ? '' : `; did you mean '${meant}'?`}`,
      )
    }
  }
  for (const { key, name, value, words } of given) {
    const option = key === undefined ? undefined : spec[key]
    if (key === undefined || option === undefined) {
      const meant = nearest(name, ['from', 'to', ...Object.keys(spec).map(kebab)])
      faults.push(
        `unknown flag ${quoted(name.length === 1 ? `-${name}` : `--${name}`)}; ${meant === undefined ? "'manifold --help' lists what there is" : `did you mean '--${meant}'?`}`,
      )
      continue
    }
    const as = `--${kebab(key)}`
    // In `--until idle=30s` the value is already one of the words.
    const asWord = key === 'until' && value !== undefined && /^(idle|count)=/i.test(value)
    if (value !== undefined && !asWord) give(key, value, as)
    else if (option.kind === 'flag') give(key, 'true', as)
    else if (value === undefined && words.length === 0)
      faults.push(`${as} needs a value: ${as} ${option.argument ?? option.kind.toUpperCase()}`)
    for (const word of asWord ? [value, ...words] : words) {
      const equal = word.indexOf('=')
      const inner = splitName(equal === -1 ? word : word.slice(0, equal)).base
      if (equal === -1) faults.push(`${inner} after ${as} needs a value: ${inner}=${inner === 'idle' ? '30s' : '1000'}`)
      else give(inner, word.slice(equal + 1), `${as} ${inner}`)
    }
  }
  const result = values as unknown as Flags
  if (seen.has('spool') && result.noSpool) faults.push('--spool and --no-spool exclude each other')
  const until: Until = {
    ...(result.until === undefined ? {} : { point: result.until }),
    ...(result.idle === undefined ? {} : { idle: result.idle }),
    ...(result.count === undefined ? {} : { count: result.count }),
  }
  return { flags: result, given: seen, faults, ...(Object.keys(until).length === 0 ? {} : { until }) }
}

/** Positions are stored by source and cursors by sink, so two equal endpoints would share them. */
function duplicateFaults(endpoints: readonly ParsedEndpoint[], flag: string): readonly string[] {
  const seen: Identity[] = []
  const faults = new Set<string>()
  for (const endpoint of endpoints) {
    const identity = identityOf(endpoint)
    if (seen.some((other) => isEqual(identity, other))) faults.add(`${flag} ${endpoint.label} is given twice`)
    seen.push(identity)
  }
  return [...faults]
}

function collectFaults<T>(run: () => T, otherwise: T, faults: string[]): T {
  try {
    return run()
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    faults.push(...error.faults)
    return otherwise
  }
}
