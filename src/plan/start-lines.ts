/** Makes the lines that a run says before its first record: surprises of position, release, framing and disk. */
import { formatDuration } from '../kit/durations'
import type { CommandLine } from '../options/command-line'
import type { StoredFlow } from '../state/flows'
import type { OwnedState, SinkEnd, SourceEnd } from './ends'

export interface StartFacts {
  readonly line: CommandLine
  readonly sources: readonly SourceEnd[]
  readonly sinks: readonly SinkEnd[]
  readonly state: OwnedState | undefined
  readonly spooled: boolean
  /** Flows that hold records and that nobody runs. */
  readonly others: readonly StoredFlow[]
  readonly deadLetterPolicy: 'keep' | 'drop' | 'stop'
}

export function startLines({
  sources,
  sinks,
  state,
  spooled,
  others,
  deadLetterPolicy,
}: StartFacts): readonly string[] {
  const lines: string[] = []
  if (state !== undefined) {
    lines.push(
      `flow ${state.name}${state.instance === 0 ? '' : ` (instance ${state.instance})`}${spooled ? `, spool in ${state.spoolDirectory}: what lies there and is not yet delivered dies with this disk` : ''}`,
    )
  }
  for (const { parsed, id, label, position } of sources) {
    const known = Object.keys(state?.stored?.sources[id]?.positions ?? {}).length
    if (position === 'here' && state === undefined)
      lines.push(`${label}: begins anew each time; --name keeps its position`)
    else if (position === 'here' && known > 0)
      lines.push(
        `${label}: resumes after ${known} stored position${known === 1 ? '' : 's'}${parsed.given.has('start') ? ', which win over start=; what is new since then begins at its oldest' : ''}; manifold forget ${state?.name ?? ''} begins anew`,
      )
    else if (position === 'here') lines.push(`${label}: begins at its start option; its position is kept from here on`)
    else if (position === 'upstream')
      lines.push(`${label}: released ${releasedWhen(spooled, parsed.endpoint.source?.commitOnceSpooled === true)}`)
  }
  const keyed = sources.some(hasKeys)
  for (const { label, sink, parsed, target } of sinks) {
    if (sink.limits.confirms === 'none' && parsed.endpoint.sink?.ephemeral !== true)
      lines.push(`${label}: cannot confirm; what was written counts as delivered`)
    if (sink.wants === 'lines' && sources.some(({ position }) => position === 'upstream'))
      lines.push(`${label}: framing=lines drops keys, headers and timestamps; framing=envelope keeps them`)
    const dropped = keyed ? parsed.endpoint.sink?.drops?.(target) : undefined
    if (dropped !== undefined) lines.push(`${label}: ${dropped}`)
    const policy = sink.segments
    if (policy !== undefined)
      lines.push(
        `${label}: an object each ${[policy.sealBytes > 0 ? `${Math.round((policy.sealBytes / 1048576) * 10) / 10} MiB` : '', policy.sealAge > 0 ? formatDuration(policy.sealAge) : ''].filter((part) => part !== '').join(' or ') || 'run'}`,
      )
  }
  if (deadLetterPolicy === 'drop') lines.push('records that cannot be delivered are dropped, and counted')
  for (const flow of others) lines.push(waiting(flow))
  return lines
}

function releasedWhen(spooled: boolean, atAccept: boolean): string {
  if (!spooled) return 'once the sink has confirmed'
  return atAccept ? 'once it is in the spool' : 'once every sink has confirmed'
}

function waiting({ name, instance, state }: StoredFlow): string {
  const which = instance === 0 ? '' : ` (instance ${instance})`
  const drain = `manifold spool drain ${name}${instance === 0 ? '' : ` --instance ${instance}`} delivers them`
  const how =
    state?.command === undefined
      ? 'its line, which was not stored for a secret in it, delivers them when it is run again'
      : drain
  return `the flow ${name}${which} holds undelivered records and is not running: ${how}`
}

/** Lines, and messages of feeds, have no keys. */
function hasKeys({ parsed, position, target }: SourceEnd): boolean {
  const { framing } = target.options as { readonly framing?: string }
  return framing === undefined
    ? position !== 'none' && parsed.endpoint.source?.keyless !== true
    : framing === 'envelope'
}
