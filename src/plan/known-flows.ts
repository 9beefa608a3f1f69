/**
 * Compares stored flows with the line's endpoints by what they mean, also flows whose state was stored before the
 * meaning was kept.
 */
import type { EndpointMeaning, FlowCommand, FlowState } from '../core/flow/flow-state'
import { parseCommandLine } from '../options/command-line'
import { identityOf } from '../options/identity'
import { redactUri } from '../options/redact-uri'
import type { ParsedEndpoint } from '../options/target'
import { registry } from '../endpoints/registry'
import { asStored, endpointsOf, type EndpointIdentity, type FlowIdentity } from '../state/identity'
import { listFlows, type StoredFlow } from '../state/flows'

/** Returns an endpoint of the line as state knows it. */
export function endpointIdentity(parsed: ParsedEndpoint, cwd?: string): EndpointIdentity {
  const { hash, resourceHash: what, servers: members, former } = identityOf(parsed, cwd)
  return { id: hash, label: parsed.label, system: parsed.endpoint.schemes[0] ?? '', meaning: { what, members }, former }
}

/** Returns all flows under STATE, with the meaning of every endpoint that a stored line tells of. */
export async function knownFlows(root: string | undefined): Promise<readonly StoredFlow[]> {
  return (await listFlows(root)).map((flow) => {
    const state = flow.state === undefined ? undefined : understood(flow.state)
    return state === undefined
      ? flow
      : { ...flow, state, sources: endpointsOf(state.sources), sinks: endpointsOf(state.sinks) }
  })
}

/** Adds the meaning of endpoints to an earlier state, out of its stored line. */
export function understood(state: FlowState): FlowState {
  const lacks = [...Object.values(state.sources), ...Object.values(state.sinks)].some(
    ({ meaning }) => meaning === undefined,
  )
  if (!lacks || state.command === undefined) return state
  const line = lineOf(state.command)
  return { ...state, sources: withMeaning(state.sources, line.sources), sinks: withMeaning(state.sinks, line.sinks) }
}

function withMeaning<T extends { readonly label: string; readonly meaning?: EndpointMeaning }>(
  stored: Readonly<Record<string, T>>,
  line: readonly EndpointIdentity[],
): Readonly<Record<string, T>> {
  return Object.fromEntries(
    Object.entries(stored).map(([id, endpoint]) => {
      const meaning = endpoint.meaning ?? line.find((one) => one.former === id)?.meaning
      return [id, meaning === undefined ? endpoint : { ...endpoint, meaning }]
    }),
  )
}

/** Nothing where it cannot be parsed any more: what it stored is then found under the very same spelling alone. */
function lineOf({ argv, args, cwd }: FlowCommand): FlowIdentity {
  try {
    const { from, to } = parseCommandLine(argv, args === undefined ? {} : { MANIFOLD_ARGS: args }, registry)
    return {
      sources: from.map((parsed) => endpointIdentity(parsed, cwd)),
      sinks: to.map((parsed) => endpointIdentity(parsed, cwd)),
    }
  } catch {
    return { sources: [], sinks: [] }
  }
}

/** The line's ends under the identities that the flow's state has for them. */
export function underStored<T extends EndpointIdentity>(
  ends: readonly T[],
  stored: FlowState['sources'] | FlowState['sinks'] | undefined,
): readonly T[] {
  const known = asStored(endpointsOf(stored), ends)
  return ends.map((end, index) => {
    const one = { ...end, ...known[index] }
    // A label that an earlier version stored may show what is hidden today.
    return {
      ...one,
      spelled: one.spelled === undefined || redactUri(one.spelled) !== one.spelled ? end.label : one.spelled,
    }
  })
}
