/**
 * WebSocket: feeds as sources, servers as sinks.
 *
 * - Each message is one record and each record one message, byte for byte, text or binary; one newline at a message's
 *   end is the line's terminator.
 * - What a feed sends while nobody is connected is lost and cannot be asked for again: every such time is reported as a
 *   gap, from when all that the server had sent was last known to be here (`receive-watermark.ts`) to when a connection
 *   was open again. After a restart it begins where what is durable is complete.
 * - What has arrived is handed on before the end of its connection is told, whoever ended it.
 * - A connection is replaced make-before-break (`replacement.ts`): all of the old one's records, then all of the new
 *   one's. Nothing is lost; what both brought is there twice unless `dedupe` says what identifies a record.
 * - Nothing is retried here but a replacement while the old connection serves; all else is told to the core. Timers
 *   only pace: pings, deadlines, replacements.
 * - Moments are of the monotonic clock; dates are made of them where they are told.
 * - Pings are answered here, the latest of several alone: no limit of the library ends a connection. A gap says who
 *   ended it, and why.
 * - Memory is bounded: 8 MiB wait unread per connection, then it is paused; a message is at most twice `max-record`.
 * - No header, query value, password or message text is in any error or log line.
 */
import { defineEndpoint } from '../../options/define'
import { faultsOf } from './check'
import { canonicalForm } from './canonical-form'
import { options } from './options'

export default defineEndpoint({
  schemes: ['ws', 'wss'],
  summary: 'WebSocket feeds and servers',
  forms: ['ws://HOST:PORT/PATH?QUERY', 'wss://HOST:PORT/PATH?QUERY'],
  examples: [
    "manifold --from 'wss://feed.example/v1?streams=btc' header.APIKEY={env:KEY} reconnect-every=12h --to s3://lake/trades",
    'manifold --from wss://feed.example/v1 send=\'{"op":"subscribe","channel":"trades"}\' expect={json:seq} silence=1m --to -',
    'tail -f events.ndjson | manifold --from - --to wss://collector.example/in barrier',
  ],
  form: 'hierarchical',
  query: 'peer',
  options,
  check: faultsOf,
  canonicalForm: canonicalForm,
  source: { position: 'none', live: true, load: async () => (await import('./source.js')).create },
  sink: { load: async () => (await import('./sink.js')).create },
})
