/**
 * Classifies what the answers of all AWS services have in common: credentials, signatures, certificates, networks. It
 * knows the shape of the SDK's errors, not the SDK.
 */
import { Disconnected, lineOf, type ManifoldError, Refused } from '../core/errors'

export interface ErrorFacts {
  readonly name: string
  /** Of the operating system or of Node. */
  readonly code: string
  /** HTTP; 0: none came. */
  readonly status: number
  /** Name and message as one. */
  readonly summary: string
  /** Something was answered, if only what nobody can read. */
  readonly answered: boolean
}
/** Who answered, for messages. */
export interface ServiceContext {
  /** `Kinesis`. */
  readonly service: string
  /** Empty: Amazon's own. */
  readonly endpoint: string
  /** Option that names the endpoint. */
  readonly endpointOption: string
  readonly region: string
}

const NETWORK = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EAI_FAIL',
  'EHOSTUNREACH',
  'EHOSTDOWN',
  'ENETUNREACH',
  'ENETDOWN',
  'EADDRNOTAVAIL',
  'ERR_STREAM_PREMATURE_CLOSE',
  'ABORT_ERR',
])
const UNKNOWN_KEY = new Set([
  'UnrecognizedClientException',
  'InvalidClientTokenId',
  'InvalidAccessKeyId',
  'MissingAuthenticationTokenException',
])
const EXPIRED = new Set([
  'ExpiredToken',
  'ExpiredTokenException',
  'TokenRefreshRequired',
  'InvalidToken',
  'RequestExpired',
])
const SIGNATURE = new Set([
  'SignatureDoesNotMatch',
  'InvalidSignatureException',
  'IncompleteSignatureException',
  'IncompleteSignature',
])
const NO_CREDENTIALS = new Set(['CredentialsProviderError', 'TokenProviderError', 'ProviderError'])
const DENIED = new Set([
  'AccessDenied',
  'AccessDeniedException',
  'NotAuthorized',
  'UnauthorizedOperation',
  'OptInRequired',
  'SubscriptionRequiredException',
])
/** HTTP/2 faults that the SDK makes errors of without a code (NodeHttp2Handler). */
const HTTP2 = /^HTTP\/2 stream|http2 request did not get a response|^Frame type id/

/** The SDK adds this where it could not read an answer. */
const SDK_HINT = /\s*Deserialization error: to see the raw response.*$/
/** Another page begins otherwise than JSON; one that was cut ends too soon. */
const NOT_JSON = /^Unexpected token/

export function errorFacts(error: Error): ErrorFacts {
  const { name, $metadata, $response } = error as {
    readonly name?: string
    readonly $metadata?: { readonly httpStatusCode?: number }
    readonly $response?: { readonly statusCode?: number }
  }
  const status = $metadata?.httpStatusCode ?? $response?.statusCode ?? 0
  const line = lineOf(error).replace(SDK_HINT, '')
  const named =
    name === undefined ||
    name === '' ||
    name === 'Error' ||
    name === 'Unknown' ||
    (name === 'SyntaxError' && status > 0)
      ? `status ${status}`
      : name
  return {
    name: name ?? '',
    code: codeOf(error),
    status,
    answered: status > 0 || $response !== undefined,
    summary: `${named}${line === name || line === 'UnknownError' || line === '' ? '' : `: ${line}`}`,
  }
}

export function isDenied(answer: ErrorFacts): boolean {
  return DENIED.has(answer.name)
}

/** undefined: it is the service's own matter. @param doing continues "Kinesis could not …" */
export function commonFault(
  error: Error,
  { name, code, status, summary: says }: ErrorFacts,
  doing: string,
  { service, endpoint, endpointOption, region }: ServiceContext,
): ManifoldError | undefined {
  const where = endpoint === '' ? '' : ` at ${endpoint}`
  const facts = { cause: error }
  if (NO_CREDENTIALS.has(name))
    return new Refused(
      `no credentials for ${service} (${lineOf(error)}): give access-key-id= and secret-access-key=, profile= or role-arn=, or set MANIFOLD_AWS_ACCESS_KEY and MANIFOLD_AWS_SECRET_KEY`,
      facts,
    )
  if (code.startsWith('ERR_TLS_') || /CERT|SELF_SIGNED|UNABLE_TO_/.test(code))
    return new Refused(
      `the certificate of ${service}${where} cannot be trusted (${code}): correct ${endpointOption}=, or name its authority in NODE_EXTRA_CA_CERTS`,
      facts,
    )
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_'))
    return new Refused(`${service}${where} does not speak TLS: correct the scheme of ${endpointOption}=`, facts)
  if (isOtherService(error, { name, code, status }))
    return new Refused(
      `what answers${where} is not ${service} (${code === '' ? says : `${code}: ${lineOf(error)}`}): correct ${endpointOption}=`,
      facts,
    )
  // Where a network is away, names are not found out (EAI_AGAIN); that there is none is an answer.
  if (code === 'ENOTFOUND' && endpoint === '')
    return new Refused(`there is no ${service} in region ${region} (${reasonOf(error)}): correct region=`, facts)
  if (
    NETWORK.has(code) ||
    code.startsWith('HPE_') ||
    code.startsWith('ERR_HTTP2_') ||
    isCancelled(error) ||
    name === 'TimeoutError' ||
    HTTP2.test(error.message)
  )
    return new Disconnected(
      `${service}${where} could not ${doing}: ${reasonOf(error)}${code === '' || error.message.includes(code) ? '' : ` (${code})`}`,
      facts,
    )
  if (UNKNOWN_KEY.has(name))
    return new Refused(
      `${service}${where} does not know the access key: correct access-key-id= (or profile=, MANIFOLD_AWS_ACCESS_KEY)`,
      facts,
    )
  if (SIGNATURE.has(name)) {
    if (/scoped to/i.test(error.message))
      return new Refused(`${service}${where} is not of region ${region} (${lineOf(error)}): correct region=`, facts)
    if (/not yet current|expired/i.test(error.message))
      return new Refused(
        `${service}${where} refuses the time of the request: the clock of this machine is wrong, set it`,
        facts,
      )
    return new Refused(
      `${service}${where} refuses the signature (${says}): the secret does not belong to the access key; correct secret-access-key= (or profile=, MANIFOLD_AWS_SECRET_KEY)`,
      facts,
    )
  }
  if (EXPIRED.has(name))
    return new Refused(
      `${service}${where} refuses the session token, it is expired or not valid (${name}): renew the credentials`,
      facts,
    )
  if (name === 'RequestTimeTooSkewed')
    return new Refused(
      `${service}${where} refuses the time of the request: the clock of this machine is wrong, set it`,
      facts,
    )
  return undefined
}

/**
 * Something else listens there: it speaks no HTTP, or answers with a page of its own. A gateway that only passes on
 * says so with its status.
 */
function isOtherService(error: Error, { name, code, status }: Pick<ErrorFacts, 'name' | 'code' | 'status'>): boolean {
  return (
    code === 'HPE_INVALID_CONSTANT' ||
    (name === 'SyntaxError' && (status < 500 || status === 501) && NOT_JSON.test(error.message))
  )
}

function isCancelled(error: object): boolean {
  return (error as { readonly code?: unknown }).code === 'ERR_HTTP2_STREAM_CANCEL'
}
/** Why, where the error itself says only that it ended. */
function reasonOf(error: Error): string {
  return isCancelled(error) && error.cause instanceof Error ? lineOf(error.cause) : lineOf(error)
}

/** A stream of HTTP/2 ends with an error of its own where its connection could not be made: why stands behind it. */
function codeOf({ code, cause }: { readonly code?: unknown; readonly cause?: unknown }): string {
  const behind = (cause as { readonly code?: unknown } | null | undefined)?.code
  if (isCancelled({ code }) && typeof behind === 'string') return behind
  return typeof code === 'string' ? code : ''
}
