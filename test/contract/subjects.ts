/** Makes the subjects of the cases from an endpoint's declaration and one of its harnesses. */
import type { Sink, Source } from '../../src/core/contract'
import { registry } from '../../src/endpoints/registry'
import type { AnyEndpoint } from '../../src/options/define'
import type { Subject } from './cases'
import type { Ability, Harness, SinkHarness, SourceHarness } from './harness'

type Makes<T, H> = Omit<Subject<T, H>, 'create' | 'limitMs'> & { make(): Promise<T> }
const values = Array.from({ length: 1000 }, (_, index) => `{"seq":${index + 1}}`)

/** Finds the endpoint that a harness is for: its name begins with the first scheme. */
export function endpointOf(name: string): AnyEndpoint {
  const found = registry.find(({ schemes }) => schemes[0] === name.split(' ')[0])
  if (found === undefined) throw new Error(`the harness ${name} is for no endpoint`)
  return found
}

/** The abilities of a harness, with those that the endpoint's own declaration tells. */
export function abilitiesOf(endpoint: AnyEndpoint, role: { readonly can?: readonly Ability[] }): ReadonlySet<Ability> {
  const declared: readonly (Ability | false)[] = [
    endpoint.source?.bounded !== undefined && 'end',
    endpoint.source?.position === 'here' && 'here',
  ]
  return new Set([...(role.can ?? []), ...declared.filter((ability) => ability !== false)])
}

export async function sourceSubject(
  endpoint: AnyEndpoint,
  start: Exclude<NonNullable<Harness['source']>['start'], string>,
): Promise<Makes<Source, SourceHarness>> {
  const harness = await start(endpoint, values)
  const { makeSource, target } = harness
  return { harness, make: async () => makeSource?.() ?? (await endpoint.source!.load())(target) }
}

export async function sinkSubject(
  endpoint: AnyEndpoint,
  start: Exclude<NonNullable<Harness['sink']>['start'], string>,
): Promise<Makes<Sink, SinkHarness>> {
  const harness = await start(endpoint)
  return { harness, make: async () => (await endpoint.sink!.load())(harness.target) }
}
