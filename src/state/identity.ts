/**
 * Finds the stored endpoint that an endpoint of the line means. It keeps the identity under which it is stored, because
 * cursors, positions and frames of the spool are named by that. Its meaning (`what`, `members`) is stored beside it.
 */
import { createHash } from 'node:crypto'
import type { EndpointMeaning } from '../core/flow/flow-state'

export interface EndpointIdentity {
  /** The identity, which is equal for the same endpoint and has no secret. */
  readonly id: string
  /** The name for people: the URI without secrets. */
  readonly label: string
  /** The first scheme of its endpoint, by which the names of flows call it. */
  readonly system?: string
  /**
   * The first label of the endpoint, if it had another one. Records are rendered with it, because a sealed object has
   * to come out the same again.
   */
  readonly spelled?: string
  /** It is absent if the state was stored before there was one, or if nobody asks. */
  readonly meaning?: EndpointMeaning
  /** Earlier states may have stored it under this. */
  readonly former?: string
}
export interface FlowIdentity {
  readonly sources: readonly EndpointIdentity[]
  readonly sinks: readonly EndpointIdentity[]
}

/** Tells whether both are the same endpoint. An unknown list of servers says nothing against it. */
export function isSame(stored: EndpointIdentity, given: EndpointIdentity): boolean {
  if (stored.id === given.id || stored.id === given.former) return true
  if (stored.meaning === undefined || stored.meaning.what !== given.meaning?.what) return false
  const [ours, theirs] = [given.meaning.members, stored.meaning.members]
  return ours.length === 0 || theirs.length === 0 || ours.some((member) => theirs.includes(member))
}

/** Pairs each endpoint of the line with its stored one, which no other endpoint gets. Equal identities go first. */
export function pairs(
  stored: readonly EndpointIdentity[],
  given: readonly EndpointIdentity[],
): ReadonlyMap<EndpointIdentity, EndpointIdentity> {
  const found = new Map<EndpointIdentity, EndpointIdentity>()
  const free = new Set(stored)
  for (const fits of [(one: EndpointIdentity, other: EndpointIdentity) => one.id === other.id, isSame]) {
    for (const one of given) {
      const known = found.has(one) ? undefined : [...free].find((each) => fits(each, one))
      if (known === undefined) continue
      free.delete(known)
      found.set(one, known)
    }
  }
  return found
}

/** Returns the line's endpoints with their stored identities, and with all servers that were ever named. */
export function asStored(
  stored: readonly EndpointIdentity[],
  given: readonly EndpointIdentity[],
): readonly EndpointIdentity[] {
  const known = pairs(stored, given)
  return given.map((one) => {
    const match = known.get(one)
    if (match === undefined) return one
    const members = [...new Set([...(one.meaning?.members ?? []), ...(match.meaning?.members ?? [])])].slice(
      0,
      MOST_MEMBERS,
    )
    return {
      ...one,
      id: match.id,
      spelled: match.label,
      ...(one.meaning === undefined ? {} : { meaning: { ...one.meaning, members } }),
    }
  })
}
/** Joins the lists of servers, the newest first, so that the oldest of brokers that are gone are forgotten. */
const MOST_MEMBERS = 64

export function endpointsOf(
  stored: Readonly<Record<string, { readonly label: string; readonly meaning?: EndpointMeaning }>> | undefined,
): readonly EndpointIdentity[] {
  return Object.entries(stored ?? {}).map(([id, { label, meaning }]) => ({
    id,
    label,
    ...(meaning === undefined ? {} : { meaning }),
  }))
}

/**
 * Names an unnamed flow: `ws-feed.example-to-s3-lake-3fa9c1d2`. The hash decides, the rest is for people. The order of
 * endpoints does not matter.
 */
export function flowName(identity: FlowIdentity): string {
  return `${readable(identity.sources)}-to-${readable(identity.sinks)}-${suffixOf(identity)}`
}

function suffixOf({ sources, sinks }: FlowIdentity): string {
  return createHash('sha256')
    .update(JSON.stringify([sources, sinks].map((endpoints) => endpoints.map(({ id }) => id).sort())))
    .digest('hex')
    .slice(0, 8)
}

/**
 * Returns the name under which an unnamed line's flow is stored, even if its endpoints were spelled otherwise or stood
 * in another order; undefined if the flow is not known.
 */
export function knownName(
  flows: readonly ({ readonly name: string } & FlowIdentity)[],
  identity: FlowIdentity,
): string | undefined {
  const equal = (theirs: readonly EndpointIdentity[], ours: readonly EndpointIdentity[]): boolean =>
    theirs.length === ours.length && pairs(theirs, ours).size === ours.length
  return flows.find(
    (flow) =>
      flow.name.endsWith(`-${suffixOf(flow)}`) &&
      equal(flow.sources, identity.sources) &&
      equal(flow.sinks, identity.sinks),
  )?.name
}

function readable(endpoints: readonly EndpointIdentity[]): string {
  // The same endpoint is chosen for every order of them. One with an address tells most.
  const [{ label, system } = { label: 'none', system: undefined }] = endpoints.toSorted(
    (a, b) => Number(b.label.includes('://')) - Number(a.label.includes('://')) || (a.label < b.label ? -1 : 1),
  )
  const match = /^([a-z][a-z0-9+.-]*):(?:\/\/(?:[^/?#]*@)?([^/?#,]*))?([^?#]*)/i.exec(label)
  const scheme = system ?? match?.[1]?.toLowerCase() ?? label
  // The authority names it best, or without one the last part of the path (a file, a stream of an ARN).
  const place =
    match?.[2] ??
    match?.[3]
      ?.split(/[/:]/)
      .filter((part) => part !== '')
      .at(-1) ??
    ''
  const clean = `${scheme}-${place.replace(/:\d+$/, '')}`
    .replace(/[^A-Za-z0-9._]+/g, '-')
    .replace(/-\.+/g, '-')
    .slice(0, 32)
    .replace(/[-.]+$/, '')
  return endpoints.length > 1 ? `${clean}-and-${endpoints.length - 1}` : clean
}
