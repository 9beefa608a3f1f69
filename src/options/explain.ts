/** Renders declarations as plain text for `manifold help` and as Markdown for reference pages. */
import { formatDuration } from '../kit/durations'
import { formatSize } from '../kit/sizes'
import type { AnyEndpoint, Option, Role, Spec } from './define'
import { hasRole, kebab, specOf } from './names'

export interface OptionHelp {
  /** Shows how the option is typed: `commit-file-size=SIZE`. */
  readonly usage: string
  readonly name: string
  /** The sentences of the declaration, followed by those about unit, repetition and identity. */
  readonly text: string
  /** It is absent if there is no default. */
  readonly default?: string
  readonly aliases: readonly string[]
  readonly required: boolean
}

const ARGUMENTS = {
  string: 'TEXT',
  integer: 'N',
  number: 'NUMBER',
  flag: 'true|false',
  size: 'SIZE',
  duration: 'DURATION',
  choice: '',
  list: 'TEXT',
  map: 'TEXT',
} as const

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- any option of a spec
type AnyOption = Option<any>

export function optionHelp(key: string, option: AnyOption): OptionHelp {
  const name = kebab(key)
  const argument =
    option.argument ?? (option.kind === 'choice' ? (option.values ?? []).join('|') : ARGUMENTS[option.kind])
  const notes = [
    option.doc,
    ...(option.bare === undefined ? [] : [`A number without unit counts ${option.bare}.`]),
    ...(option.kind === 'list' ? ['May be given several times.'] : []),
    ...(option.required === true ? ['Required.'] : []),
    ...(option.identity === true ? ['Another value makes another flow.'] : []),
  ]
  const shown = defaultOf(option)
  return {
    name,
    text: notes.join(' '),
    aliases: option.aliases ?? [],
    required: option.required === true,
    usage: option.kind === 'flag' ? name : option.kind === 'map' ? `${name}.NAME=${argument}` : `${name}=${argument}`,
    ...(shown === undefined ? {} : { default: shown }),
  }
}

function defaultOf(option: AnyOption): string | undefined {
  if (option.defaultText !== undefined) return option.defaultText
  const value: unknown = option.default
  if (value === undefined || value === '' || (Array.isArray(value) && value.length === 0)) return undefined
  if (typeof value === 'number' && option.kind === 'size') return value === 0 ? '0' : formatSize(value)
  if (typeof value === 'number' && option.kind === 'duration') return value === 0 ? '0' : formatDuration(value)
  return typeof value === 'string' ? value : JSON.stringify(value)
}

export interface OptionGroup {
  readonly title: string
  readonly options: readonly OptionHelp[]
}

/**
 * Groups the options into those for both roles, for sources and for sinks. Empty groups are left out. An endpoint with
 * one role has one group.
 */
export function groupsOf(endpoint: AnyEndpoint): readonly OptionGroup[] {
  const roles = rolesOf(endpoint)
  const all = Object.entries(specOf(endpoint)).filter(([, option]) => roles.some((role) => hasRole(option, role)))
  const of = (title: string, keep: (option: AnyOption) => boolean): OptionGroup => ({
    title,
    options: all.filter(([, option]) => keep(option)).map(([key, option]) => optionHelp(key, option)),
  })
  if (roles.length < 2) return [of('Options', () => true)].filter(({ options }) => options.length > 0)
  const only = (role: Role) => (option: AnyOption) => option.roles?.length === 1 && option.roles[0] === role
  return [
    of('Options, source and sink', (option) => option.roles === undefined || option.roles.length > 1),
    of('Options as a source (--from)', only('source')),
    of('Options as a sink (--to)', only('sink')),
  ].filter(({ options }) => options.length > 0)
}

export function rolesOf(endpoint: AnyEndpoint): readonly Role[] {
  return (['source', 'sink'] as const).filter((role) => endpoint[role] !== undefined)
}
function rolesText(endpoint: AnyEndpoint): string {
  const roles = rolesOf(endpoint)
  return roles.length === 2
    ? 'source (--from) and sink (--to)'
    : roles[0] === 'source'
      ? 'source (--from)'
      : 'sink (--to)'
}

/** Renders `manifold help SCHEME`. */
export function helpText(endpoint: AnyEndpoint, width = 100): string {
  const lines = [
    `${endpoint.schemes.join(', ')}: ${endpoint.summary}; ${rolesText(endpoint)}`,
    '',
    ...endpoint.forms.map((form) => `  ${form}`),
  ]
  for (const { title, options } of groupsOf(endpoint))
    lines.push('', `${title}:`, ...options.flatMap((option) => paragraphs(option, '', width)))
  lines.push(
    '',
    'Examples:',
    ...endpoint.examples.map((example) => `  ${example}`),
    '',
    ...wrapped(SYNTAX_NOTE, '', width),
  )
  return `${lines.join('\n')}\n`
}

const SYNTAX_NOTE =
  'Options are words after the URI, name=value; a name alone means name=true. Case, - and _ in names do not count. SIZE: 512KiB, 64MiB, 1G (1024 each). DURATION: 500ms, 30s, 5m, 12h, 7d; 0 switches off. ' +
  '{env:NAME}, {file:PATH} and {exec:COMMAND} in a value are replaced at every opening.'

function paragraphs({ usage, text, default: standard, aliases }: OptionHelp, dashes: string, width: number): string[] {
  const also = aliases.length === 0 ? '' : ` Also ${aliases.join(', ')}.`
  return [
    `  ${dashes}${usage}`,
    ...wrapped(`${text}${standard === undefined ? '' : ` Default: ${standard}.`}${also}`, '      ', width),
  ]
}

function wrapped(text: string, indent: string, width: number): string[] {
  const lines: string[] = []
  let line = indent
  for (const word of text.split(' ')) {
    if (line.length > indent.length && line.length + 1 + word.length > width) {
      lines.push(line)
      line = indent
    }
    line += line.length > indent.length ? ` ${word}` : word
  }
  return [...lines, line]
}

/** Renders `manifold endpoints`. */
export function endpointsTable(registry: readonly AnyEndpoint[]): string {
  const rows = registry.map(
    (endpoint) =>
      [
        endpoint.forms.join('  '),
        `${endpoint.source === undefined ? '    ' : 'from'} ${endpoint.sink === undefined ? '  ' : 'to'}`,
        endpoint.summary,
      ] as const,
  )
  const widest = Math.max(0, ...rows.map(([forms]) => forms.length))
  return rows.map(([forms, roles, summary]) => `${forms.padEnd(widest)}  ${roles}  ${summary}\n`).join('')
}

/** Renders the flags for help. */
export function flagsHelp(spec: Spec, width = 100): string {
  return Object.entries(spec)
    .flatMap(([key, option]) => paragraphs(flagOf(key, option), '--', width))
    .map((line) => `${line}\n`)
    .join('')
}

function flagOf(key: string, option: AnyOption): OptionHelp {
  const explained = optionHelp(key, option)
  const short = (option as { readonly short?: string }).short
  const { default: standard, ...rest } = explained
  // The default of a switch is left out: it is always off.
  return {
    ...rest,
    ...(standard === undefined || option.kind === 'flag' ? {} : { default: standard }),
    usage: `${explained.usage.replace('=', ' ')}${short === undefined ? '' : `, -${short}`}`,
  }
}

/** A pipe would end a cell of a Markdown table, and a placeholder in angle brackets would be HTML. */
function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;').replaceAll('\n', ' ')
}
function code(text: string): string {
  return text === '' ? '' : `\`${text.replaceAll('|', '\\|')}\``
}

function table(options: readonly OptionHelp[], dashes = ''): string {
  const rows = options.map(
    ({ usage, text, default: standard, aliases }) =>
      `| ${code(`${dashes}${usage}`)} | ${cell(text)}${aliases.length === 0 ? '' : ` Also ${aliases.map(code).join(', ')}.`} | ${standard === undefined ? '' : cell(standard)} |`,
  )
  return ['| option | what it does | default |', '|---|---|---|', ...rows].join('\n')
}

/** Renders a page of docs/reference. */
export function referencePage(endpoint: AnyEndpoint): string {
  const blocks = [
    `# ${endpoint.schemes.join(', ')}`,
    `${endpoint.summary}. It can be a ${rolesText(endpoint)}.`,
    endpoint.forms.map((form) => `    ${form}`).join('\n'),
    ...groupsOf(endpoint).flatMap(({ title, options }) => [`## ${title}`, table(options)]),
    '## Examples',
    ['```sh', ...endpoint.examples, '```'].join('\n'),
    SYNTAX_NOTE,
  ]
  return `${blocks.join('\n\n')}\n`
}

/** Renders the reference page of the flags. */
export function flagsPage(flagSpec: Spec): string {
  const rows = Object.entries(flagSpec).map(([key, option]) => flagOf(key, option))
  return `# Flags\n\nFlags are for the whole run; an endpoint's options are words after its URI.\n\n${table(rows, '--')}\n`
}

/** Renders the list of endpoints in README, each with a link to its page. */
export function endpointLinks(registry: readonly AnyEndpoint[]): string {
  const rows = registry.map(
    ({ schemes, forms, summary }) =>
      `| [${schemes[0] ?? ''}](docs/reference/${schemes[0] ?? ''}.md) | ${forms.map(code).join('<br>')} | ${summary} |`,
  )
  return ['| endpoint | how it is written | what it is |', '|---|---|---|', ...rows].join('\n')
}
