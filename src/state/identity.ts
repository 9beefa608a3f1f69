/**
 * Which stored endpoint is meant by one of the line. It keeps the identity that it is stored under, for cursors,
 * positions and the frames of its spool are all named by that; what tells it apart (`what`, `members`) is stored beside
 * it.
 */
import { createHash } from 'node:crypto'
import type { EndpointMeaning } from '../core/flow/flow-state'

export interface EndpointIdentity {
  /** Equal where the endpoint is the same one; no secrets in it. */
  readonly id: string
  /** As people know it: its URI without secrets. */
  readonly label: string
  /** The first scheme of its endpoint, by which the names of flows call it. */
  readonly system?: string
  /**
   * As it was called at first: what its records are rendered with, for an object that was sealed has to come out the
   * same again. Absent: as `label`.
   */
  readonly spelled?: string
  /** Absent: stored before it was known, or nobody asks. */
  readonly meaning?: EndpointMeaning
  /** Earlier states may have stored it under this. */
  readonly former?: string
}
export interface FlowIdentity {
  readonly sources: readonly EndpointIdentity[]
  readonly sinks: readonly EndpointIdentity[]
}

/** A list that is not known tells nothing against it. */
export function isSame(stored: EndpointIdentity, given: EndpointIdentity): boolean {
  if (stored.id === given.id || stored.id === given.former) return true
  if (stored.meaning === undefined || stored.meaning.what !== given.meaning?.what) return false
  const [ours, theirs] = [given.meaning.members, stored.meaning.members]
  return ours.length === 0 || theirs.length === 0 || ours.some((member) => theirs.includes(member))
}

/** Each of the line with its stored one, which no other of the line is; equal identities go first. */
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

/** The line's endpoints under the identities that they are stored under, and with all members that were ever named. */
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
/** The newest list comes first: of brokers that went long ago the oldest are forgotten. */
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
 * The name under which an unnamed line's flow is stored, where its endpoints were spelled otherwise or stood in another
 * order; undefined: it is not known.
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
