/** Confirms every record and keeps none. It serves to measure sources, and to drop dead letters. */
import { defineEndpoint } from '../../options/define'
import { options } from './options'

export default defineEndpoint({
  schemes: ['discard'],
  summary: 'Counts records and drops them',
  forms: ['discard:'],
  examples: ['manifold --from generate: count=1000000 --to discard:'],
  form: 'opaque',
  options,
  check: ({ uri }) =>
    uri.path === '' ? [] : [`discard: takes nothing after the colon, but there is ${JSON.stringify(uri.path)}`],
  sink: { ephemeral: true, discards: true, load: async () => (await import('./sink.js')).create },
})
