/**
 * Every endpoint keeps the promises of `src/core/contract.ts`. The registry drives the suite: an endpoint without a
 * harness fails, and a case that does not apply is skipped with its reason in the title.
 */
import { registry } from '../../src/endpoints/registry'
import { runCase, type Case } from './cases'
import { ABILITIES, type Ability } from './harness'
import { harnesses } from './harnesses'
import { sinkCases } from './sink-cases'
import { sourceCases } from './source-cases'
import { abilitiesOf, endpointOf, sinkSubject, sourceSubject } from './subjects'

describe.each(registry.map((endpoint) => [endpoint.schemes[0] ?? '', endpoint] as const))(
  'the endpoint %s',
  (scheme, endpoint) => {
    test.each((['source', 'sink'] as const).filter((role) => endpoint[role] !== undefined))(
      'has a harness for its %s',
      (role) => {
        const known = Object.entries(harnesses).filter(([name]) => name.split(' ')[0] === scheme)
        expect(known.filter(([, harness]) => harness[role] !== undefined)).not.toEqual([])
      },
    )
  },
)

function eachCase<S>(
  cases: readonly Case<S>[],
  lacking: (one: Case<S>) => string | undefined,
  run: (one: Case<S>) => Promise<void>,
): void {
  for (const one of cases) {
    const why = lacking(one)
    if (why === undefined) test(one.title, () => run(one), 90_000)
    else test.skip(`${one.title} (skipped: ${why})`, () => undefined)
  }
}
function reason(can: ReadonlySet<Ability>): (one: { readonly needs?: Ability }) => string | undefined {
  return ({ needs }) => (needs === undefined || can.has(needs) ? undefined : ABILITIES[needs])
}

describe.each(Object.entries(harnesses))('%s', (name, { source, sink }) => {
  const endpoint = endpointOf(name)
  if (source !== undefined)
    describe('as a source', () => {
      const { start } = source
      if (typeof start === 'string') test.skip(`reads (skipped: ${start})`, () => undefined)
      else
        eachCase(sourceCases, reason(abilitiesOf(endpoint, source)), async (one) =>
          runCase(one, await sourceSubject(endpoint, start)),
        )
    })
  if (sink !== undefined)
    describe('as a sink', () => {
      const { start } = sink
      if (typeof start === 'string') test.skip(`writes (skipped: ${start})`, () => undefined)
      else
        eachCase(sinkCases, reason(abilitiesOf(endpoint, sink)), async (one) =>
          runCase(one, await sinkSubject(endpoint, start)),
        )
    })
})
