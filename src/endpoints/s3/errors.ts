/** Classifies answers of S3, and their absence, for the core. It knows the shape of the SDK's errors alone. */
import { Disconnected, Fatal, lineOf, ManifoldError, Refused, Throttled } from '../../core/errors'
import { retryAfterMs } from '../../kit/retry-after'

/** Where a request went, for messages. */
export interface FaultContext {
  readonly bucket: string
  /** Empty: Amazon's own. */
  readonly endpoint: string
  readonly region: string
}

/** It was stored, and the answer tells of other bytes than were sent. */
export class AlteredObject extends Disconnected {}
/** The multipart upload is not there any more, or lacks parts it had: to be begun again. */
export class UploadGone extends Disconnected {}

interface ErrorAnswer {
  readonly name?: string
  readonly code?: unknown
  readonly message?: string
  readonly Region?: string
  readonly Endpoint?: string
  readonly $metadata?: { readonly httpStatusCode?: number }
  readonly $response?: { readonly statusCode?: number; readonly headers?: Readonly<Record<string, string>> }
}
/** Where a request is to go instead, as the answer says it. */
export interface Redirection {
  readonly location?: string
  readonly endpoint?: string
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
])
const BUSY = new Set([
  'SlowDown',
  'SlowDownRead',
  'SlowDownWrite',
  'ServiceUnavailable',
  'Throttling',
  'ThrottlingException',
  'ThrottledException',
  'RequestThrottled',
  'RequestThrottledException',
  'RequestLimitExceeded',
  'BandwidthLimitExceeded',
  'TooManyRequestsException',
  'OperationAborted',
  'ConditionalRequestConflict',
])
/** Bytes that changed on their way, or stopped coming. */
const DAMAGED = new Set([
  'BadDigest',
  'InvalidDigest',
  'IncompleteBody',
  'RequestTimeout',
  'XAmzContentSHA256Mismatch',
  'XAmzContentChecksumMismatch',
])
const TOO_LARGE = new Set(['EntityTooLarge', 'MaxMessageLengthExceeded', 'KeyTooLongError', 'MetadataTooLarge'])
// XAdminUserNotFound: what versitygw 1.8 answers (404) to an access key it does not know.
const UNKNOWN_KEY = new Set([
  'InvalidAccessKeyId',
  'XAdminUserNotFound',
  'UnrecognizedClientException',
  'InvalidClientTokenId',
])
const EXPIRED = new Set([
  'ExpiredToken',
  'ExpiredTokenException',
  'TokenRefreshRequired',
  'InvalidToken',
  'RequestExpired',
])
const DENIED = new Set(['AccessDenied', 'AccessDeniedException', 'Forbidden', 'AllAccessDisabled'])
const NO_CREDENTIALS = new Set(['CredentialsProviderError', 'TokenProviderError', 'ProviderError'])
const ELSEWHERE = new Set([
  'PermanentRedirect',
  'Redirect',
  'AuthorizationHeaderMalformed',
  'IllegalLocationConstraintException',
])

export function statusOf(error: unknown): number {
  const { $metadata, $response } = (error ?? {}) as ErrorAnswer
  return $metadata?.httpStatusCode ?? $response?.statusCode ?? 0
}
export function keyExists(error: unknown): boolean {
  return statusOf(error) === 412 || (error as ErrorAnswer | null)?.name === 'PreconditionFailed'
}
/** The server does not know a part of the request, mostly a header. */
export function isNotImplemented(error: unknown): boolean {
  return statusOf(error) === 501 || (error as ErrorAnswer | null)?.name === 'NotImplemented'
}
/** Signed correctly, but not allowed: other requests may be. */
export function isDenied(error: unknown): boolean {
  return DENIED.has((error as ErrorAnswer | null)?.name ?? '')
}

/** The bucket's region, where an answer names it. */
export function regionIn(error: unknown): string | undefined {
  const answer = error as ErrorAnswer
  return (
    answer.$response?.headers?.['x-amz-bucket-region'] ?? (ELSEWHERE.has(answer.name ?? '') ? answer.Region : undefined)
  )
}

/** undefined: it is to go where it went. */
export function redirectionIn(error: unknown): Redirection | undefined {
  if (statusOf(error) !== 307) return undefined
  const { Endpoint, $response } = error as ErrorAnswer
  const location = $response?.headers?.['location']
  return { ...(location === undefined ? {} : { location }), ...(Endpoint === undefined ? {} : { endpoint: Endpoint }) }
}

/** @param doing continues "S3 could not …" */
export function classify(error: unknown, doing: string, context: FaultContext): unknown {
  if (error instanceof ManifoldError || !(error instanceof Error)) return error
  const answer: ErrorAnswer = error
  const name = answer.name ?? ''
  const code = typeof answer.code === 'string' ? answer.code : ''
  const status = statusOf(error)
  const where = context.endpoint === '' ? '' : ` at ${context.endpoint}`
  const facts = { cause: error }
  const summary = `${name === '' || name === 'Error' || name === 'Unknown' ? `status ${status}` : name}${lineOf(error) === name || lineOf(error) === 'UnknownError' ? '' : `: ${lineOf(error)}`}`

  if (NO_CREDENTIALS.has(name)) {
    return new Refused(
      `no credentials for S3 (${lineOf(error)}): give access-key-id= and secret-access-key=, profile= or role-arn=, or set MANIFOLD_AWS_ACCESS_KEY and MANIFOLD_AWS_SECRET_KEY`,
      facts,
    )
  }
  if (code.startsWith('CERT_') || code.startsWith('ERR_TLS_') || /CERT|SELF_SIGNED|UNABLE_TO_/.test(code))
    return new Refused(
      `the certificate of S3${where} cannot be trusted (${code}): correct endpoint=, or name its authority in NODE_EXTRA_CA_CERTS`,
      facts,
    )
  if (code === 'EPROTO') return new Refused(`S3${where} does not speak TLS: correct the scheme of endpoint=`, facts)
  if (NETWORK.has(code) || code.startsWith('HPE_') || name === 'TimeoutError')
    return new Disconnected(
      `S3${where} could not ${doing}: ${lineOf(error)}${code === '' || error.message.includes(code) ? '' : ` (${code})`}`,
      facts,
    )
  if (name === 'NoSuchUpload' || name === 'InvalidPart' || name === 'InvalidPartOrder')
    return new UploadGone(`S3${where} could not ${doing}: ${summary}`, facts)
  // The SDK gives an error that came with status 200 the status 503.
  if (name === 'InternalError') return new Disconnected(`S3${where} could not ${doing}: ${summary}`, facts)
  if (BUSY.has(name) || status === 503 || status === 429 || (status === 409 && name === 'Unknown')) {
    const after = retryAfterMs(answer.$response?.headers?.['retry-after'], Date.now()) ?? 0
    return new Throttled(`S3${where} asks for patience (${summary})`, after > 0 ? { ...facts, afterMs: after } : facts)
  }
  if (DAMAGED.has(name))
    return new Disconnected(
      `S3${where} could not ${doing}: the bytes did not arrive as they were sent (${summary})`,
      facts,
    )
  if (status === 307)
    return new Disconnected(
      `S3${where} could not ${doing}: it points elsewhere (307)${redirectTarget(error)}, where it cannot be followed`,
      facts,
    )
  if (isNotImplemented(error))
    return new Refused(
      `S3${where} cannot ${doing}, it does not implement that (${summary}): leave out what it does not know (tag=, acl=, sse=, storage-class=)`,
      facts,
    )
  if (status >= 500) return new Disconnected(`S3${where} could not ${doing}: ${summary}`, facts)
  if (TOO_LARGE.has(name))
    return new Fatal(
      `S3${where} could not ${doing}: ${summary}; a smaller commit-file-size, folder or key makes later objects fit, this one stays in the spool`,
      facts,
    )
  const refusal = refusalOf(name, status, error, context, where, doing, summary)
  if (refusal !== undefined) return new Refused(refusal, facts)
  // An answer that cannot be read (a proxy's page, a cut body): the SDK's parser fails with an error of its own, which
  // holds the answer.
  if (status >= 200 || answer.$response !== undefined)
    return new Disconnected(`S3${where} could not ${doing}: its answer makes no sense (${summary})`, facts)
  return error
}

/** The rest of the address may hold more than is to be shown. */
function redirectTarget(error: unknown): string {
  const { location, endpoint } = redirectionIn(error) ?? {}
  const host = location !== undefined && URL.canParse(location) ? new URL(location).host : endpoint
  return host === undefined ? '' : ` to ${lineOf(host)}`
}

function refusalOf(
  name: string,
  status: number,
  error: unknown,
  context: FaultContext,
  where: string,
  doing: string,
  summary: string,
): string | undefined {
  const { bucket } = context
  if (UNKNOWN_KEY.has(name))
    return `S3${where} does not know the access key: correct access-key-id= (or profile=, MANIFOLD_AWS_ACCESS_KEY)`
  if (name === 'SignatureDoesNotMatch')
    return `S3${where} refuses the signature: the secret does not belong to the access key; correct secret-access-key= (or profile=, MANIFOLD_AWS_SECRET_KEY)`
  if (EXPIRED.has(name))
    return `S3${where} refuses the session token, it is expired or not valid (${name}): renew the credentials`
  if (name === 'RequestTimeTooSkewed')
    return `S3${where} refuses the time of the request: the clock of this machine is wrong, set it`
  const region = regionIn(error)
  if ((ELSEWHERE.has(name) || status === 301) && region === context.region)
    return `the bucket ${bucket} is elsewhere than${where === '' ? " at Amazon's own address" : where}, though in region ${region} (${summary}): correct endpoint=`
  if (ELSEWHERE.has(name) || status === 301 || (region !== undefined && region !== context.region))
    return `the bucket ${bucket} is not in region ${context.region}: give region=${region ?? 'the one it is in'}`
  if (name === 'NoSuchBucket' || (status === 404 && name === 'NotFound'))
    return `there is no bucket ${bucket}${where}: create it, or correct the URI`
  if (name === 'InvalidBucketName') return `${bucket} cannot be the name of a bucket: correct the URI`
  if (isDenied(error) || status === 403)
    return `S3${where} denies it to ${doing} (${summary}): the credentials need s3:PutObject, s3:GetObject, s3:AbortMultipartUpload and s3:ListBucketMultipartUploads on ${bucket}`
  if (status >= 400) return `S3${where} refuses to ${doing}: ${summary}`
  return undefined
}
