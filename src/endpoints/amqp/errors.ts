/**
 * Classifies errors for the core. It knows the texts and codes of RabbitMQ and of amqplib 2.3, but does not use the
 * library.
 */
import { Disconnected, ManifoldError, Refused, lineOf } from '../../core/errors'
import { tlsFault } from '../../options/tls'

/** Error messages need these facts for their hints. */
export interface FaultContext {
  readonly secure: boolean
  readonly vhost: string
  readonly user: string
  readonly redact: (text: string) => string
}

/**
 * Retries alone do not help with these reply codes of AMQP 0-9-1 (1.2): not found, refused, locked, declared with other
 * arguments, not allowed, not implemented.
 */
const REFUSALS = new Set([403, 404, 405, 406, 530, 540])
/** amqplib reports bytes that are no frames with these messages. */
const NOT_AMQP =
  /^Frame size \d+ exceeds|^Invalid frame|^Unknown frame type|^Frame on channel != 0|^Expected (?!ConnectionOpenOk)|below the protocol minimum|Unexpected type tag/

/** The broker closed the channel because a message was larger than it accepts. */
export class MessageTooLarge extends Disconnected {
  constructor(
    message: string,
    readonly limit: number,
  ) {
    super(message)
  }
}

/**
 * Classifies an error of name resolution, TCP, TLS or login.
 * @param at HOST:PORT
 */
export function openingFault(error: unknown, at: string, context: FaultContext): ManifoldError {
  if (error instanceof ManifoldError) return error
  const code = (error as NodeJS.ErrnoException).code ?? ''
  const text = context.redact(lineOf(error))
  const facts = { cause: error }
  const handshake = tlsFault(code, at, { secure: 'amqps', plain: 'amqp' }, error)
  if (handshake !== undefined) return handshake
  if (/ACCESS_REFUSED - Login was refused|403 \(ACCESS-REFUSED\)/.test(text)) {
    return new Refused(
      context.user === ''
        ? `${at} refuses the login by client certificate: no user there has the name that stands in it`
        : `${at} refuses the login of ${context.user}: the password is wrong, or there is no such user${context.user === 'guest' ? "; guest is let in from the broker's own machine only" : ''}`,
      facts,
    )
  }
  if (/SASL mechanism (\S+) is not provided/.test(text))
    return new Refused(
      `${at} has no ${/SASL mechanism (\S+)/.exec(text)?.[1] ?? ''} login: auth-mechanism= says how to log in`,
      facts,
    )
  if (isVhostClosed(error))
    return new Refused(
      `${at} does not let ${context.user === '' ? 'this user' : context.user} into the vhost ${context.vhost}: there is none of that name, it is not open to this user, or it is down or full`,
      facts,
    )
  if (/Handshake terminated by server: (.*)/.test(text))
    return new Disconnected(`${at} ended the login: ${text.replace(/^.*Handshake terminated by server: /, '')}`, facts)
  if (NOT_AMQP.test(text))
    return new Refused(
      `${at} does not speak AMQP 0-9-1${context.secure ? '' : ': is it another port, or amqps:// that is meant?'}`,
      facts,
    )
  if (/Socket closed abruptly|(read|write) (ECONNRESET|EPIPE)/.test(text))
    return new Disconnected(
      `${at} closed the connection before the login was over: it is stopping, or does not speak AMQP 0-9-1${context.secure ? '' : ' without TLS'}`,
      facts,
    )
  return new Disconnected(`no connection to ${at}: ${text}`, facts)
}

/** The library does not tell why the broker refused to open the vhost, which is the last step (see `vhost.ts`). */
export function isVhostClosed(error: unknown): boolean {
  return /^Expected ConnectionOpenOk; got <ConnectionClose/.test(lineOf(error))
}

/** Classifies the broker's reason. A vhost that is down may come back, and too many connections may become fewer. */
export function vhostFault(
  { code, text }: { readonly code: number; readonly text: string },
  at: string,
  { user, vhost, redact }: FaultContext,
): ManifoldError {
  const said = redact(text).replace(/^[A-Z_]+ - /, '')
  const message = `${at} does not let ${user === '' ? 'this user' : user} into the vhost ${vhost}: ${said}`
  if (!REFUSALS.has(code) || /connection limit/.test(said)) return new Disconnected(message)
  return new Refused(
    /refused for user/.test(said) ? `${message} (a right that rabbitmqctl set_permissions -p VHOST gives)` : message,
  )
}

/**
 * Classifies an error of an open channel or connection.
 * @param activity what the connection was doing: "reading queue 'jobs'"
 */
export function runningFault(error: unknown, activity: string, context: Pick<FaultContext, 'redact'>): ManifoldError {
  if (error instanceof ManifoldError) return error
  const code = (error as { readonly code?: unknown }).code
  const text = context.redact(lineOf(error))
  const facts = { cause: error }
  // An example is: Channel closed by server: 404 (NOT-FOUND) with message "NOT_FOUND - no queue 'x' in vhost '/'"
  const said = /with message "(?:[A-Z_]+ - )?(.*)"$/s.exec(text)?.[1] ?? text
  const large = /message size (\d+) is larger than configured max size (\d+)/.exec(said)
  if (large !== null) return new MessageTooLarge(`the broker closed the channel: ${said}`, Number(large[2]))
  if (/delivery acknowledgement on channel \d+ timed out/.test(said))
    return new Disconnected(
      `the broker took the messages back, for they were not acknowledged within its consumer_timeout: ${said}`,
      facts,
    )
  if (/unknown delivery tag/.test(said)) return new Disconnected(`the broker closed the channel: ${said}`, facts)
  if (typeof code === 'number' && REFUSALS.has(code)) return new Refused(`${activity}: ${said}`, facts)
  if (code === 320) return new Disconnected(`the broker closed the connection: ${said}`, facts)
  return new Disconnected(`${activity}: ${said}`, facts)
}
