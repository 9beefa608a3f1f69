/** Makes the texts of `manifold help`, `endpoints` and `completions` from the declarations. */
import { UsageError } from '../core/errors'
import { endpointFor, registry } from '../endpoints/registry'
import { nearest } from '../kit/nearest'
import { completionScript, SHELLS } from '../options/completions'
import { endpointsTable, flagsHelp, helpText } from '../options/explain'
import { flags } from '../options/flags'

/** The commands in the order of the overview, each with its arguments and its purpose. */
export const COMMANDS = {
  help: ['[scheme]', 'what an endpoint or a command does; alone, this'],
  endpoints: ['', 'what there is to read from and write to'],
  ls: ['', 'flows known here: where they are, what they hold'],
  forget: ['NAME [SINK] [--force]', 'removes a flow, or one sink of it; what was not delivered only with --force'],
  spool: ['drain NAME', 'delivers what a flow that is not running still holds'],
  check: ['LINE', 'reads the command line that follows, resolves its placeholders and opens nothing'],
  unit: ['NAME -- LINE', 'a systemd unit for the command line after --'],
  completions: ['SHELL', 'a completion script for bash, zsh or fish'],
} as const satisfies Readonly<Record<string, readonly [words: string, doc: string]>>
export type CommandName = keyof typeof COMMANDS

export const SUMMARY = 'Moves streams of records between Kinesis, S3, RabbitMQ, Kafka, WebSocket, files and stdio.'
export const USAGE = '--from URI [name=value ...] --to URI [name=value ...] [flags]'

export async function overviewText(): Promise<string> {
  const rows = Object.entries(COMMANDS).map(
    ([name, [words, doc]]) => [words === '' ? name : `${name} ${words}`, doc] as const,
  )
  const width = Math.max(...rows.map(([left]) => left.length))
  return `Usage: manifold ${USAGE}\n\n${SUMMARY}\n\nCommands:\n${rows.map(([left, doc]) => `  ${left.padEnd(width)}  ${doc}\n`).join('')}\n${await flagsText()}`
}

/** Returns every text that depends on no other words, by the words that ask for it. */
export async function texts(): Promise<Readonly<Record<string, string>>> {
  const schemes = registry.flatMap((endpoint) => endpoint.schemes)
  return Object.fromEntries([
    ['help', await overviewText()],
    ['endpoints', await endpointsText()],
    ...(await Promise.all(schemes.map(async (scheme) => [`help ${scheme}`, await schemeText(scheme)] as const))),
    ...(await Promise.all(SHELLS.map(async (shell) => [`completions ${shell}`, await completions(shell)] as const))),
  ])
}

export async function endpointsText(): Promise<string> {
  return `${endpointsTable(registry)}\n'manifold help SCHEME' has the options of each.\n`
}

export async function flagsText(): Promise<string> {
  return `Endpoints:\n${endpointsTable(registry).replace(/^/gm, '  ').trimEnd()}\n\nFlags:\n  --from URI [name=value ...]\n      Where records come from; several are merged.\n  --to URI [name=value ...]\n      Where records go; each of several gets every record.\n${flagsHelp(flags)}`
}

/**
 * @param scheme in lower case, without its colon
 * @throws UsageError if there is no such scheme
 */
export async function schemeText(scheme: string): Promise<string> {
  const endpoint = endpointFor(scheme)
  if (endpoint !== undefined) return helpText(endpoint)
  const schemes = registry.flatMap((each) => each.schemes)
  const meant = nearest(scheme, [...schemes, ...Object.keys(COMMANDS)])
  throw new UsageError([
    `there is no endpoint or command '${scheme.slice(0, 40)}'; ${meant === undefined ? `endpoints are ${schemes.join(', ')}` : `did you mean '${meant}'?`}`,
  ])
}

export async function completions(shell: string): Promise<string> {
  const known = SHELLS.find((each) => each === shell.toLowerCase())
  if (known === undefined) throw new UsageError([`completions are made for ${SHELLS.join(', ')}`])
  return completionScript(known, registry, flags, Object.keys(COMMANDS))
}
