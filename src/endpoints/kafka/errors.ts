/**
 * Classifies failed connections, lost answers and error codes for the core. The shape of the library's errors is known
 * here, the library is not imported.
 */
import { tlsFault } from '../../options/tls'
import { Disconnected, Fatal, lineOf, ManifoldError, Refused, Throttled } from '../../core/errors'
import {
  CLUSTER_AUTHORIZATION_FAILED,
  GROUP_AUTHORIZATION_FAILED,
  ILLEGAL_SASL_STATE,
  INVALID_TOPIC_EXCEPTION,
  nameOfCode,
  NOT_ENOUGH_REPLICAS,
  NOT_ENOUGH_REPLICAS_AFTER_APPEND,
  POLICY_VIOLATION,
  SASL_AUTHENTICATION_FAILED,
  THROTTLING_QUOTA_EXCEEDED,
  TOPIC_AUTHORIZATION_FAILED,
  UNKNOWN_TOPIC_ID,
  UNKNOWN_TOPIC_OR_PARTITION,
  UNSUPPORTED_COMPRESSION_TYPE,
  UNSUPPORTED_SASL_MECHANISM,
  UNSUPPORTED_VERSION,
} from './protocol/error-codes'

/** The connection that failed, for messages. */
export interface Peer {
  /** `host:port`. */
  readonly address: string
  readonly tls: boolean
  /** As in `sasl=`. */
  readonly mechanism: string
  readonly user?: string
}

/** An error of the library: ours are its `cause` and `errors`. */
interface ErrorShape {
  readonly code?: unknown
  readonly apiCode?: unknown
  readonly serverErrorMessage?: unknown
  readonly cause?: unknown
  readonly errors?: unknown
}

/** The error, what caused it, and what it is made of. */
function causesOf(error: unknown): readonly unknown[] {
  const found: unknown[] = []
  const queue: unknown[] = [error]
  for (let next = queue.shift(); next !== undefined && found.length < 20; next = queue.shift()) {
    if (next === null || typeof next !== 'object') continue
    found.push(next)
    const { cause, errors } = next as ErrorShape
    if (cause !== undefined) queue.push(cause)
    if (Array.isArray(errors)) queue.push(...(errors as unknown[]))
  }
  return found
}

const NETWORK =
  /^(ECONNREFUSED|ECONNRESET|ECONNABORTED|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EAI_FAIL|EAI_NODATA|EHOSTUNREACH|EHOSTDOWN|ENETUNREACH|ENETDOWN|ENETRESET|EADDRNOTAVAIL|EMFILE|ENFILE|ERR_SOCKET_CLOSED|ERR_STREAM_DESTROYED)$/

const HUNG_UP = 'the connection was closed'
/** The peer ended the connection, and said nothing. */
export function isHangUp({ message }: Error): boolean {
  return message.endsWith(HUNG_UP) || message.endsWith('ECONNRESET')
}

/** @param doing what was asked for: `find out about topics` */
export function classify(error: unknown, doing: string, peer: Peer): unknown {
  if (error instanceof ManifoldError || !(error instanceof Error)) return error
  const options = { cause: error }
  const { address } = peer
  const chain = causesOf(error)
  for (const each of chain) if (each instanceof ManifoldError) return each
  const codes = chain.map((each) => (each as ErrorShape).code).filter((code) => typeof code === 'string')
  const texts = chain.map((each) => (each instanceof Error ? each.message : '')).filter((text) => text !== '')
  const api = chain.find((each) => typeof (each as ErrorShape).apiCode === 'number') as ErrorShape | undefined
  if (api !== undefined) {
    const refused = loginFault(
      api.apiCode as number,
      typeof api.serverErrorMessage === 'string' ? api.serverErrorMessage : '',
      peer,
    )
    if (refused !== undefined) return new Refused(refused, options)
  }
  if (codes.includes('PLT_KFK_AUTHENTICATION'))
    return new Refused(
      `${address} and this program do not agree on the login (${peer.mechanism}): ${lineOf(texts.at(-1) ?? error)}`,
      options,
    )
  for (const code of codes) {
    const handshake = tlsFault(code, address, { secure: 'kafka+tls', plain: 'kafka' }, error)
    if (handshake !== undefined) return handshake
  }
  if (texts.some((text) => text.startsWith('TLS handshake failed') || text.includes('before secure TLS connection')))
    return new Refused(
      `${address} does not speak TLS: is kafka:// meant instead of kafka+tls://, or another port?`,
      options,
    )
  if (texts.includes('Broker requires TLS.')) return new Refused(`${address} speaks TLS: write kafka+tls://`, options)
  const network = codes.find((code) => NETWORK.test(code))
  const why = texts.some((text) => /timed out/i.test(text))
    ? 'no answer in time'
    : texts.includes('Connection closed')
      ? HUNG_UP
      : network !== undefined
        ? lineOf(chain.find((each) => (each as ErrorShape).code === network))
        : lineOf(texts.at(-1) ?? error).replace(/\.$/, '')
  if (network !== undefined || codes.some((code) => code.startsWith('PLT_KFK') || code === 'OUT_OF_BOUNDS'))
    return new Disconnected(`${address} could not ${doing}: ${why}`, options)
  return error
}

function credentialsOf(mechanism: Peer['mechanism']): string {
  if (mechanism === 'oauthbearer') return 'token='
  return mechanism === 'aws-msk-iam' ? 'the AWS credentials' : 'user and password'
}

function loginFault(code: number, serverMessage: string, { address, mechanism, user }: Peer): string | undefined {
  const who = user === undefined ? '' : ` of user ${user}`
  switch (code) {
    case SASL_AUTHENTICATION_FAILED:
      return `${address} refuses the login${who} (${mechanism})${serverMessage === '' ? '' : `: ${lineOf(serverMessage)}`}: correct ${credentialsOf(mechanism)}`
    case UNSUPPORTED_SASL_MECHANISM:
      return `${address} does not offer the login ${mechanism}: choose another with sasl=`
    case ILLEGAL_SASL_STATE:
      return `${address} takes no login on this port: leave user, password and sasl= out, or name the port that does`
    default:
      return undefined
  }
}

export type Kind = 'topic' | 'group' | 'cluster'
/**
 * Returns the error for a code of which nothing more is known. @param doing begins the message: `writing to topic
 * orders` @param what the topic or group
 */
export function protocolFault(
  code: number,
  doing: string,
  what: string,
  access: 'READ' | 'WRITE' | 'DESCRIBE',
  serverMessage?: string,
): ManifoldError {
  const why =
    serverMessage === undefined || serverMessage === ''
      ? nameOfCode(code)
      : `${nameOfCode(code)}: ${lineOf(serverMessage)}`
  switch (code) {
    case UNKNOWN_TOPIC_OR_PARTITION:
    case UNKNOWN_TOPIC_ID:
      return new Refused(
        `${doing}: there is no such topic: create it, correct its name, or let the principal DESCRIBE it`,
      )
    case INVALID_TOPIC_EXCEPTION:
      return new Refused(`${doing}: ${what} cannot be the name of a topic`)
    case TOPIC_AUTHORIZATION_FAILED:
      return new Refused(`${doing}: no permission: the principal needs ${access} on topic ${what}`)
    case GROUP_AUTHORIZATION_FAILED:
      return new Refused(`${doing}: no permission: the principal needs READ on group ${what}`)
    case CLUSTER_AUTHORIZATION_FAILED:
      return new Refused(`${doing}: no permission: the principal needs IDEMPOTENT_WRITE on the cluster`)
    case POLICY_VIOLATION:
      return new Refused(`${doing}: the broker's policy forbids it (${why})`)
    case UNSUPPORTED_COMPRESSION_TYPE:
      return new Refused(`${doing}: the broker does not know this compression: choose another with compression=`)
    case UNSUPPORTED_VERSION:
      return new Fatal(`${doing}: the broker is too old or too new for this request (${why})`)
    case NOT_ENOUGH_REPLICAS:
    case NOT_ENOUGH_REPLICAS_AFTER_APPEND:
      return new Throttled(`${doing}: fewer replicas are in sync than the topic's min.insync.replicas (${why})`, {
        afterMs: 1000,
      })
    case THROTTLING_QUOTA_EXCEEDED:
      return new Throttled(`${doing}: the quota is used up (${why})`, { afterMs: 1000 })
    default:
      return new Disconnected(`${doing}: ${why}`)
  }
}
