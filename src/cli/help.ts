/** Texts of `manifold help`, `endpoints` and `completions`: all from the declarations. */
import { UsageError } from '../core/errors'
import { endpointFor, registry } from '../endpoints/registry'
import { nearest } from '../kit/nearest'
import { completionScript, SHELLS } from '../options/completions'
import { endpointsTable, flagsHelp, helpText } from '../options/explain'
import { flags } from '../options/flags'

export const COMMANDS = ['check', 'completions', 'endpoints', 'forget', 'help', 'ls', 'spool', 'unit'] as const

export async function endpointsText(): Promise<string> { return `${endpointsTable(registry)}\n'manifold help SCHEME' has the options of each.\n` }

export async function flagsText(): Promise<string> {
  return `Endpoints:\n${endpointsTable(registry).replace(/^/gm, '  ').trimEnd()}\n\nFlags:\n  --from URI [name=value ...]\n      Where records come from; several are merged.\n  --to URI [name=value ...]\n      Where records go; each of several gets every record.\n${flagsHelp(flags)}`
}

/** By scheme, with or without its colon. Throws UsageError. */
export async function schemeText(topic: string): Promise<string> {
  const scheme = topic === '-' ? 'stdio' : topic.toLowerCase().replace(/:.*$/s, '')
  const endpoint = endpointFor(scheme)
  if (endpoint !== undefined) return helpText(endpoint)
  const schemes = registry.flatMap((each) => each.schemes)
  const meant = nearest(scheme, [...schemes, ...COMMANDS])
  throw new UsageError([`there is no endpoint or command '${scheme.slice(0, 40)}'; ${meant === undefined ? `endpoints are ${schemes.join(', ')}` : `did you mean '${meant}'?`}`])
}

export async function completions(shell: string): Promise<string> {
  const known = SHELLS.find((each) => each === shell.toLowerCase())
  if (known === undefined) throw new UsageError([`completions are made for ${SHELLS.join(', ')}`])
  return completionScript(known, registry, flags, COMMANDS)
}
