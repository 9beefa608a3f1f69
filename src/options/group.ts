/**
 * Groups the words of a command line before they are parsed. An endpoint is a URI and the words after it, up to the
 * next flag; a common parser of flags would not keep them together.
 *
 * - A lone `-` is never a flag.
 * - The value of a flag is the next word, unless that is a flag itself. A value may begin with a dash (`--until -1h`).
 * - MANIFOLD_ARGS stands before argv. `--from`, `--to`, `--dead-letter` and single flags of argv replace those in it;
 *   repeatable ones add to it.
 */
import { UsageError } from '../core/errors'
import { shellWords } from '../kit/shell-words'
import type { Spec } from './define'
import { FLAG_WORDS, flags as globalFlags } from './flags'
import { kebab, splitName } from './names'
import type { Environment } from './placeholders'

export interface EndpointWords {
  readonly uri: string
  readonly words: readonly string[]
}
export interface FlagWords {
  /** The name as typed, without dashes and value. */
  readonly name: string
  /** The key of the declaration. It is absent if there is no such flag. */
  readonly key?: string
  /** It is absent if no value was given. */
  readonly value?: string
  /** The words after the value, such as `idle=30s count=10` after `--until`. */
  readonly words: readonly string[]
}
export interface Grouped {
  readonly from: readonly EndpointWords[]
  readonly to: readonly EndpointWords[]
  readonly deadLetter?: EndpointWords
  readonly given: readonly FlagWords[]
  /** Words before the first flag, or after a flag that takes none. They are commands or mistakes. */
  readonly unattached: readonly string[]
  /** All words except endpoints, in order, for a parser of commands. */
  readonly flags: readonly string[]
  readonly faults: readonly string[]
}

export function groupArgv(argv: readonly string[], env: Environment, table: Spec = globalFlags): Grouped {
  const own = groupWords(argv, table, 'the command line')
  let before: Grouped
  try {
    before = groupWords(shellWords(env.MANIFOLD_ARGS ?? ''), table, 'MANIFOLD_ARGS')
  } catch (error) {
    if (!(error instanceof Error) || error instanceof UsageError) throw error
    return { ...own, faults: [`MANIFOLD_ARGS cannot be split into words: ${error.message}`, ...own.faults] }
  }
  const replaced = new Set(
    own.given.map(({ key }) => key).filter((key) => key !== undefined && table[key]?.kind !== 'list'),
  )
  const opposite: Readonly<Record<string, string>> = { spool: 'noSpool', noSpool: 'spool' }
  const kept = before.given.filter(
    ({ key }) => key === undefined || !(replaced.has(key) || replaced.has(opposite[key] ?? '')),
  )
  const deadLetter = own.deadLetter ?? before.deadLetter
  return {
    from: own.from.length > 0 ? own.from : before.from,
    to: own.to.length > 0 ? own.to : before.to,
    ...(deadLetter === undefined ? {} : { deadLetter }),
    given: [...kept, ...own.given],
    unattached: [...before.unattached, ...own.unattached],
    faults: [...before.faults, ...own.faults],
    flags: [...kept.flatMap(asArgv), ...before.unattached, ...own.flags],
  }
}

function asArgv({ name, value, words }: FlagWords): readonly string[] {
  return [`--${name}`, ...(value === undefined ? [] : [value]), ...words]
}

function groupWords(argv: readonly string[], table: Spec, where: string): Grouped {
  const from: EndpointWords[] = []
  const to: EndpointWords[] = []
  const letters: EndpointWords[] = []
  const given: FlagWords[] = []
  const loose: string[] = []
  const rest: string[] = []
  const faults: string[] = []
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? ''
    if (!isFlag(word)) {
      loose.push(word)
      rest.push(word)
      continue
    }
    if (word === '--') {
      loose.push(...argv.slice(i + 1))
      rest.push(...argv.slice(i))
      break
    }
    const equals = word.startsWith('--') ? word.indexOf('=') : -1
    const name = (equals === -1 ? word : word.slice(0, equals)).replace(/^-{1,2}/, '')
    const key = flagKey(word, name, table)
    const endpoints = key === 'from' ? from : key === 'to' ? to : key === 'deadLetter' ? letters : undefined
    const takesValue = endpoints !== undefined || (key !== undefined && table[key]?.kind !== 'flag')
    let value = equals === -1 ? undefined : word.slice(equals + 1)
    const start = i
    if (equals === -1 && takesValue && i + 1 < argv.length && !isKnownFlag(argv[i + 1] ?? '', table)) {
      i++
      value = argv[i]
    }
    const words: string[] = []
    // Words after an unknown flag may be its value, so they are not reported as well.
    const takesWord = (next: string): boolean =>
      endpoints !== undefined ||
      key === undefined ||
      (FLAG_WORDS[key]?.includes(splitName(next.split('=', 1)[0] ?? '').base) ?? false)
    while (i + 1 < argv.length && !isFlag(argv[i + 1] ?? '') && takesWord(argv[i + 1] ?? '')) {
      i++
      words.push(argv[i] ?? '')
    }
    if (endpoints === undefined) {
      given.push({ name, words, ...(key === undefined ? {} : { key }), ...(value === undefined ? {} : { value }) })
      rest.push(...argv.slice(start, i + 1))
    } else if (value === undefined || value === '')
      faults.push(`--${kebab(key ?? name)} needs a URI${where === 'MANIFOLD_ARGS' ? ' (in MANIFOLD_ARGS)' : ''}`)
    else endpoints.push({ uri: value, words })
  }
  if (letters.length > 1) faults.push('--dead-letter is given twice')
  return {
    from,
    to,
    given,
    unattached: loose,
    flags: rest,
    faults,
    ...(letters[0] === undefined ? {} : { deadLetter: letters[0] }),
  }
}

function isFlag(word: string): boolean {
  return word.length > 1 && word.startsWith('-')
}

/**
 * A known flag cannot be a value: in `--name --from …` the value is missing. Any other word with a dash may be a value.
 */
function isKnownFlag(word: string, table: Spec): boolean {
  return word.startsWith('--') || (/^-[A-Za-z]$/.test(word) && flagKey(word, word.slice(1), table) !== undefined)
}

function flagKey(word: string, name: string, table: Spec): string | undefined {
  if (!word.startsWith('--'))
    return Object.entries(table).find(([, option]) => (option as { short?: string }).short === name)?.[0]
  const base = name.includes('.') ? name : splitName(name).base
  if (base === 'from' || base === 'to') return base
  return Object.keys(table).find((key) => key.toLowerCase() === base)
}
