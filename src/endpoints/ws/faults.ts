/** Classifies network errors for the core. Text from the peer is redacted before it becomes part of a message. */
import { STATUS_CODES, type IncomingHttpHeaders } from 'node:http'
import { Disconnected, Fatal, Refused, Throttled, lineOf, type ManifoldError } from '../../core/errors'
import { retryAfterMs } from '../../kit/retry-after'
import { tlsFault } from '../../options/tls'

/** Hints in messages need these facts of the connection. */
export interface Peer {
  readonly secure: boolean
  readonly host: string
  readonly port: number
  readonly redact: (text: string) => string
}

/** The close codes are those of RFC 6455, 7.4.1, and of its registry. */
const CLOSE_CODES: Readonly<Record<number, string>> = {
  1000: 'normal closure',
  1001: 'going away',
  1002: 'protocol error',
  1003: 'unsupported data',
  1005: 'no status',
  1007: 'invalid data',
  1008: 'policy violation',
  1009: 'message too big',
  1010: 'extension missing',
  1011: 'internal error',
  1012: 'service restart',
  1013: 'try again later',
  1014: 'bad gateway',
}

/** Classifies an error of name resolution, TCP, TLS, HTTP or the upgrade. */
export function networkFault(error: unknown, peer: Peer): ManifoldError {
  const { code = '', name } = error as Partial<NodeJS.ErrnoException>
  const text = peer.redact(lineOf(error))
  const facts = { cause: error }
  const at = `${peer.host}:${peer.port}`
  const handshake = tlsFault(code, at, { secure: 'wss', plain: 'ws' }, error)
  if (handshake !== undefined) return handshake
  if (code === 'HPE_HEADER_OVERFLOW') return new Refused(`${at} answered with more headers than are accepted`, facts)
  if (code.startsWith('HPE_'))
    return new Refused(
      `${at} does not answer in HTTP (${code})${peer.secure ? '' : ': is wss:// meant instead of ws://?'}`,
      facts,
    )
  if (code === 'ERR_INVALID_CHAR' || code === 'ERR_UNESCAPED_CHARACTERS')
    return new Refused(`a header or the address holds a character that HTTP cannot: ${text}`, facts)
  if (/subprotocol/i.test(text))
    return new Refused(`no agreement on a sub-protocol (${text}): protocol= names what the server speaks`, facts)
  if (/^Invalid (Upgrade|Sec-WebSocket|Connection)|Sec-WebSocket-Extensions|an extension/.test(text))
    return new Refused(`${at} does not speak WebSocket as it should (${text})`, facts)
  if (name === 'SyntaxError') return new Fatal(`the address is not one of a WebSocket: ${text}`, facts)
  return new Disconnected(text, facts)
}

/**
 * Classifies an answer to the upgrade that is not 101.
 * @param who names what answered if it is not the server: `the proxy HOST:PORT`
 */
export function statusFault(status: number, headers: IncomingHttpHeaders, now: number, who?: string): ManifoldError {
  const text = `${who === undefined ? 'the server' : who} answered ${status} ${STATUS_CODES[status] ?? ''}`.trimEnd()
  const afterMs = retryAfterMs(headers['retry-after'], now)
  if (status === 429 || (status === 503 && afterMs !== undefined))
    return new Throttled(text, afterMs === undefined ? {} : { afterMs })
  if (status >= 500 || status === 408 || status === 425) return new Disconnected(text)
  if (status === 407) return new Refused(`${text}: proxy=http://USER:PASSWORD@HOST:PORT logs in`)
  if (who !== undefined) return new Refused(`${text}: it does not let this connection through`)
  if (status === 401)
    return new Refused(
      `${text}: it wants credentials, such as header.Authorization=, USER:PASSWORD@ in the address, or others`,
    )
  if (status === 403) return new Refused(`${text}: these credentials, or this machine's address, are not allowed there`)
  if (status === 404 || status === 410) return new Refused(`${text}: there is no feed at this path`)
  if (status >= 300 && status < 400)
    return new Refused(`${text}: it points elsewhere${hostOf(headers.location)}; give that address`)
  return new Refused(`${text}: it does not open a WebSocket here`)
}

/** Only scheme and host are shown, because the rest of the location may repeat a token. */
function hostOf(location: string | undefined): string {
  if (location === undefined || !URL.canParse(location)) return ''
  const { protocol, host } = new URL(location)
  return `, to ${protocol}//${host}`
}

/** Describes how an open connection ended. */
export function closeText(code: number, reason: Buffer, redact: (text: string) => string, leftByPeer: boolean): string {
  if (code === 1006)
    return leftByPeer
      ? 'the server ended the connection without a closing handshake'
      : 'the connection broke without a closing handshake'
  const said = lineOf(redact(reason.toString('utf8')))
  const name = CLOSE_CODES[code]
  return `closed by the server with ${code}${name === undefined ? '' : ` (${name})`}${said === '' ? '' : `: ${said}`}`
}
