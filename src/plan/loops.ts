/** Finds flows that read what they write, and would go on for ever. It says so only where it is certain. */
import { UsageError } from '../core/errors'
import type { CommandLine, Targets } from '../options/command-line'
import type { AnyGiven, Files, Role } from '../options/define'
import { identityOf, isSameResource } from '../options/identity'
import type { ParsedEndpoint } from '../options/target'

export interface End {
  readonly parsed: ParsedEndpoint
  readonly given: AnyGiven
}

export function endsOf(
  line: CommandLine,
  targets: Targets,
): { readonly sources: readonly End[]; readonly sinks: readonly End[] } {
  const ends = (parsed: readonly ParsedEndpoint[], given: readonly AnyGiven[]): readonly End[] =>
    parsed.flatMap((each, index) => {
      const one = given[index]
      return one === undefined ? [] : [{ parsed: each, given: one }]
    })
  const letters =
    line.deadLetter === undefined || targets.deadLetter === undefined
      ? []
      : [{ parsed: line.deadLetter, given: targets.deadLetter }]
  return { sources: ends(line.from, targets.from), sinks: [...ends(line.to, targets.to), ...letters] }
}

/** @throws UsageError with a line for each two ends that are one */
export async function refuseLoops({
  sources,
  sinks,
}: {
  readonly sources: readonly End[]
  readonly sinks: readonly End[]
}): Promise<void> {
  const reads = await Promise.all(sources.map(async (end) => ({ end, files: await filesOf(end, 'source') })))
  const writes = await Promise.all(sinks.map(async (end) => ({ end, files: await filesOf(end, 'sink') })))
  const faults = reads.flatMap((read) => writes.flatMap((written) => faultOf(read, written)))
  if (faults.length > 0) throw new UsageError([...new Set(faults)])
}

interface Looked {
  readonly end: End
  readonly files: Files
}

function faultOf(read: Looked, written: Looked): readonly string[] {
  const isFile = isSameFile(read.files, written.files)
  if (!isFile && !isSamePlace(read.end, written.end)) return []
  const [from, to] = [read.end.parsed.label, written.end.parsed.label]
  return [
    `${to} is written${from === to ? ' and read' : `, and read as ${from}`}: the flow would feed itself; write to ${isFile ? 'a file that' : 'what'} it does not read`,
  ]
}

/** Servers, and what lies there, are compared as their identities have them. */
function isSamePlace(read: End, written: End): boolean {
  const { endpoint } = read.parsed
  if (endpoint !== written.parsed.endpoint || endpoint.loops === undefined) return false
  const [from, to] = [identityOf(read.parsed), identityOf(written.parsed)]
  const isShared = from.servers.length === 0 || from.servers.some((server) => to.servers.includes(server))
  return isShared && endpoint.loops(read.given, written.given, isSameResource(from, to))
}

function isSameFile(read: Files, written: Files): boolean {
  return (
    written.keys.some((key) => read.keys.includes(key)) || written.paths.some((path) => read.matches?.(path) === true)
  )
}

async function filesOf({ parsed, given }: End, role: Role): Promise<Files> {
  return (await parsed.endpoint.files?.(given, role)) ?? { keys: [], paths: [] }
}
