/**
 * Reads WebSocket feeds, and writes to WebSocket servers.
 *
 * - Each message is one record and each record one message, byte for byte, text or binary. One newline at the end of a
 *   message is the terminator of the line.
 * - Messages that a feed sends while nobody is connected are lost. Each such time is reported as a gap. It begins when
 *   all that the server had sent was last known to have arrived (`receive-watermark.ts`), and ends when a connection is
 *   open again. After a restart it begins where the durable records end.
 * - Messages that have arrived are returned before the end of their connection is reported.
 * - A connection is replaced make-before-break (`replacement.ts`): first come all records of the old one, then all of
 *   the new one. Records that both received are there twice unless `dedupe` names the member that identifies a record.
 * - Only a replacement is retried here, while the old connection stays in service. The core handles all other failures.
 *   Timers only pace pings, deadlines and replacements.
 * - Times are of the monotonic clock, and become dates where they are reported.
 * - Pings are answered here, and only the latest of several, so no limit of the library ends a connection. A gap says
 *   who ended the connection, and why.
 * - Memory is bounded: a connection is paused when 8 MiB are unread, and a message is at most twice `max-record`.
 * - No header, query value, password or text of a message is in any error or log line.
 * - `client.ts` is the connection, `feed-connection.ts` and `message-buffer.ts` hold what it received, `source.ts` and
 *   `sink.ts` are the endpoints.
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
