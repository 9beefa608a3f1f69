/**
 * Generates numbered JSON records: `{"seq":1,"pad":"…"}`, `{"seq":2,…`.
 *
 * - Record N is the same in every run with the same seed and size, whatever the rate and the size of deliveries.
 * - The position is the number of the last record. A flow with state goes on with the next one, and generates again the
 *   records that its spool has lost.
 */
import { defineEndpoint } from '../../options/define'
import { options } from './options'

export default defineEndpoint({
  schemes: ['generate'],
  summary: 'Numbered records for tests and measurements',
  forms: ['generate:'],
  examples: [
    'manifold --from generate: count=5 size=60 --to -',
    'manifold --from generate: rate=1000 --to s3://lake/test',
  ],
  form: 'opaque',
  options,
  check: ({ uri }) =>
    uri.path === '' ? [] : [`generate: takes nothing after the colon, but there is ${JSON.stringify(uri.path)}`],
  source: {
    position: 'here',
    bounded: ({ options: { count } }) => count !== undefined && count > 0,
    keyless: true,
    load: async () => (await import('./source.js')).create,
  },
})
