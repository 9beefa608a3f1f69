/** Nothing is stored, so nothing can be looked at. */
import { makeTarget } from '../../support/context'
import type { Harness } from '../harness'

export const discard: Harness = {
  sink: {
    start: (endpoint) => Promise.resolve({ target: makeTarget(endpoint, 'discard:'), stop: () => Promise.resolve() }),
  },
}
