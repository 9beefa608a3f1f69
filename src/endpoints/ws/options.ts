import { opt } from '../../options/define'
import { framedSource } from '../../options/shared'
import { parseDuration } from '../../kit/durations'
import { parseJsonPath } from './expect'

const NANOSECOND_MS = 1e-6

export interface SendEvery {
  readonly ms: number
  readonly text: string
}
/** `20s:TEXT`. */
export function parseSendEvery(raw: string): SendEvery {
  const colon = raw.indexOf(':')
  if (colon === -1) throw new Error('a duration and the text are expected, such as 20s:ping')
  const ms = parseDuration(raw.slice(0, colon))
  if (ms < 1) throw new Error('the duration must be at least 1ms')
  return { ms, text: raw.slice(colon + 1) }
}

export const options = {
  header: opt.map({ doc: 'Header of the opening request: header.NAME=VALUE.', secret: true }),
  protocol: opt.list({ doc: 'Sub-protocol to ask for; several in order of preference.', identity: true }),
  send: opt.list({
    doc: 'Text message sent whenever a connection opens, such as a subscription; several go out in the order given.',
    identity: true,
  }),
  sendEvery: {
    ...opt.list({
      doc: 'Text message sent again and again while a connection is open: 20s:TEXT.',
      argument: 'DURATION:TEXT',
    }),
    parse: (raw: string): readonly string[] => {
      parseSendEvery(raw)
      return [raw]
    },
  },
  pingEvery: opt.duration({ doc: 'How often a ping is sent; 0: never.', default: 20_000, defaultText: '20s' }),
  pongTimeout: opt.duration({
    doc: 'A connection on which nothing arrives for this long after a ping is dead and made anew; pings go unanswered unnoticed with 0.',
    default: 10_000,
    defaultText: '10s',
  }),
  silence: opt.duration({
    doc: 'A feed that answers pings but sends no message for this long is connected anew; 0: it may be silent.',
    default: 0,
    defaultText: '0',
    roles: ['source'],
  }),
  ca: opt.string({ doc: "Certificates to trust instead of the system's: a PEM file, or its content." }),
  cert: opt.string({ doc: 'Client certificate: a PEM file, or its content; goes with key.' }),
  key: opt.string({ doc: 'Private key of the client certificate: a PEM file, or its content.' }),
  serverName: opt.string({
    doc: "Name to ask for and to find in the server's certificate.",
    defaultText: 'the host of the URI',
  }),
  tlsInsecure: opt.flag({
    doc: 'Takes any server certificate: whoever sits between can read and change everything.',
    default: false,
    defaultText: 'false',
  }),
  proxy: opt.string({
    doc: 'Proxy to tunnel through, http://HOST:PORT or https://HOST:PORT; none: not even that of the environment.',
    defaultText: 'HTTP_PROXY for ws, HTTPS_PROXY for wss, ALL_PROXY, less NO_PROXY',
    secret: true,
  }),
  handshakeTimeout: opt.duration({
    doc: 'Longest time for name, TCP, proxy, TLS and upgrade together.',
    default: 30_000,
    defaultText: '30s',
    min: 1,
  }),
  compression: opt.flag({ doc: 'Offers permessage-deflate.', default: false, defaultText: 'false' }),
  maxRecord: opt.size({
    doc: 'Largest message; a larger one becomes a dead letter up to twice this size, beyond it the connection is closed with 1009 and made anew, with a gap.',
    default: 16 * 1024 * 1024,
    defaultText: '16MiB',
    min: 1,
    max: 512 * 1024 * 1024,
    roles: ['source'],
  }),
  framing: opt.oneOf(['lines', 'envelope'], {
    doc: 'What a message is: a record, or one JSON envelope that keeps key, headers and timestamp.',
    default: framedSource.framing.default,
  }),
  reconnectEvery: opt.duration({
    doc: 'Age at which a connection is replaced, before servers that cut at a fixed age do it: the new one is open before the old one is closed; 0: never.',
    default: 0,
    defaultText: '0',
    bareMs: NANOSECOND_MS,
    bare: 'nanoseconds',
    roles: ['source'],
  }),
  overlap: opt.duration({
    doc: 'How long both connections of a replacement are open. All of the old one goes on first, then all that the new one has brought since it opened: nothing is lost, and what both brought is there twice unless dedupe is given.',
    default: 2000,
    defaultText: '2s',
    roles: ['source'],
  }),
  dedupe: {
    ...opt.string({
      doc: "Member that identifies a record, {json:PATH}: within an overlap, the new connection's copies of what the old one brought are dropped.",
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
      doc: 'Member that counts the records up by one, {json:PATH}: missing numbers are reported as gaps, across connections too.',
      roles: ['source'],
      argument: '{json:PATH}',
    }),
    parse: (raw: string): string => {
      parseJsonPath(raw)
      return raw
    },
  },
  type: opt.oneOf(['text', 'binary'], {
    doc: 'Type of the messages; with text, a record that is not UTF-8 goes as a binary one.',
    default: 'text',
    roles: ['sink'],
  }),
  barrier: opt.flag({
    doc: "Records count as delivered when the server has answered a ping sent after them; without it, when this machine's kernel has them.",
    default: false,
    defaultText: 'false',
    roles: ['sink'],
  }),
}
export type WsOptions = typeof options
