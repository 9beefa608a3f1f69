import { opt } from '../../options/define'
import { tlsOptions } from '../../options/tls'
import { framedSource } from '../../options/shared'
import { parseDuration } from '../../kit/durations'
import { parseJsonPath } from './expect'

const NANOSECOND_MS = 1e-6

export interface SendEvery {
  readonly ms: number
  readonly text: string
}
/** Parses `20s:TEXT`. */
export function parseSendEvery(raw: string): SendEvery {
  const colon = raw.indexOf(':')
  if (colon === -1) throw new Error('a duration and the text are expected, such as 20s:ping')
  const ms = parseDuration(raw.slice(0, colon))
  if (ms < 1) throw new Error('the duration must be at least 1ms')
  return { ms, text: raw.slice(colon + 1) }
}

export const options = {
  header: opt.map({ doc: 'Adds a header to the request that opens the connection: header.NAME=VALUE.', secret: true }),
  protocol: opt.list({
    doc: 'Names a sub-protocol to request. Several are requested in the order of preference.',
    identity: true,
  }),
  send: opt.list({
    doc: 'Sends this text message each time a connection opens, such as a subscription. Several are sent in the given order.',
    identity: true,
  }),
  sendEvery: {
    ...opt.list({
      doc: 'Sends a text message again and again while a connection is open: 20s:TEXT.',
      argument: 'DURATION:TEXT',
    }),
    parse: (raw: string): readonly string[] => {
      parseSendEvery(raw)
      return [raw]
    },
  },
  pingEvery: opt.duration({ doc: 'Sets how often a ping is sent. 0 sends none.', default: 20_000, defaultText: '20s' }),
  pongTimeout: opt.duration({
    doc: 'Reconnects when nothing has arrived for this long after a ping. 0 never does.',
    default: 10_000,
    defaultText: '10s',
  }),
  silence: opt.duration({
    doc: 'Reconnects when no message has arrived for this long, even if pings are answered. 0 never does.',
    default: 0,
    defaultText: '0',
    roles: ['source'],
  }),
  ...tlsOptions('server', { certKey: ['key'] }),
  proxy: opt.string({
    doc: 'Names the HTTP proxy to connect through: http://HOST:PORT or https://HOST:PORT. none: no proxy, whatever the environment says.',
    defaultText: 'HTTP_PROXY for ws, HTTPS_PROXY for wss, ALL_PROXY, less NO_PROXY',
    secret: true,
  }),
  handshakeTimeout: opt.duration({
    doc: 'Sets the longest time for name resolution, TCP, proxy, TLS and upgrade together.',
    default: 30_000,
    defaultText: '30s',
    min: 1,
  }),
  compression: opt.flag({
    doc: 'Offers compression of messages to the server (permessage-deflate).',
    default: false,
    defaultText: 'false',
  }),
  maxRecord: opt.size({
    doc: 'Sets the largest message size. A message up to twice this size becomes a dead letter. An even larger one closes the connection with code 1009, and a gap is reported.',
    default: 16 * 1024 * 1024,
    defaultText: '16MiB',
    min: 1,
    max: 512 * 1024 * 1024,
    roles: ['source'],
  }),
  framing: opt.oneOf(['lines', 'envelope'], {
    doc: "Says what a message holds. lines: the message is the record. envelope: it is a JSON envelope that keeps the record's key, headers and timestamp.",
    default: framedSource.framing.default,
  }),
  reconnectEvery: opt.duration({
    doc: 'Replaces a connection at this age, before a server that limits the age closes it. The new connection opens before the old one closes. 0 never replaces it.',
    default: 0,
    defaultText: '0',
    bareMs: NANOSECOND_MS,
    bare: 'nanoseconds',
    roles: ['source'],
  }),
  overlap: opt.duration({
    doc: "Sets how long both connections stay open when one replaces the other. All records of both are read, the old connection's first. Records that both received are read twice unless dedupe= is given.",
    default: 2000,
    defaultText: '2s',
    roles: ['source'],
  }),
  dedupe: {
    ...opt.string({
      doc: 'Names the member that identifies a record, as {json:PATH}. When one connection replaces another (reconnect-every=), records that both received are then read once.',
      roles: ['source'],
      argument: '{json:PATH}',
    }),
    parse: (raw: string): string => {
      parseJsonPath(raw)
      return raw
    },
  },
  expect: {
    ...opt.string({
      doc: 'Names the member that numbers the records one by one, as {json:PATH}. Missing numbers are reported as gaps.',
      roles: ['source'],
      argument: '{json:PATH}',
    }),
    parse: (raw: string): string => {
      parseJsonPath(raw)
      return raw
    },
  },
  type: opt.oneOf(['text', 'binary'], {
    doc: 'Sets the type of the messages. With text, a record that is not UTF-8 is sent as binary.',
    default: 'text',
    roles: ['sink'],
  }),
  barrier: opt.flag({
    doc: "Counts records as delivered when the server has answered a ping sent after them. Without it they count once this machine's kernel has taken them.",
    default: false,
    defaultText: 'false',
    roles: ['sink'],
  }),
}
export type WsOptions = typeof options
