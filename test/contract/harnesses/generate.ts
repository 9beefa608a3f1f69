/** Generated records: the same in every run, so a first run says what the others have to return. */
import { makeSourceContext, makeTarget } from '../../support/context'
import type { Harness } from '../harness'

export const generate: Harness = {
  source: {
    start: async (endpoint) => {
      const target = makeTarget(endpoint, 'generate:', { count: '1000', size: '64' })
      const source = (await endpoint.source!.load())(target)
      const expected: string[] = []
      await source.open(makeSourceContext().ctx)
      try {
        const { signal } = new AbortController()
        for (let delivery = await source.read(signal); delivery !== null; delivery = await source.read(signal))
          expected.push(...delivery.batch.entries().map((entry) => String(entry.value)))
      } finally {
        await source.close()
      }
      return { target, expected, stop: () => Promise.resolve() }
    },
  },
}
