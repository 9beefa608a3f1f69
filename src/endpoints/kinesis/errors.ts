/**
 * Classifies answers of Kinesis, and their absence, for the core ("Common error types" and each action's errors, Amazon
 * Kinesis Data Streams API Reference).
 */
import { errorFacts, commonFault, isDenied } from '../../aws/errors'
import { Disconnected, lineOf, ManifoldError, Refused, Throttled } from '../../core/errors'
import { InUse, IteratorExpired } from './stream-client'

/** Where a request went, for messages. */
export interface FaultContext {
  /** As the stream was named: a name or an ARN. */
  readonly stream: string
  /** Empty: Amazon's own. */
  readonly endpoint: string
  readonly region: string
}
/** An action as IAM calls it, and what it is for: continues "Kinesis could not …". */
export interface Operation {
  readonly action: string
  readonly purpose: string
}

const BUSY = new Set([
  'ProvisionedThroughputExceededException',
  'LimitExceededException',
  'KMSThrottlingException',
  'ThrottlingException',
  'Throttling',
  'ThrottledException',
  'RequestLimitExceeded',
  'TooManyRequestsException',
  'ServiceUnavailable',
])
const KMS: Readonly<Record<string, string>> = {
  KMSAccessDeniedException:
    'denies it: the credentials need kms:Decrypt and kms:GenerateDataKey on the key of the stream',
  KMSDisabledException: 'has disabled the key of the stream: enable it',
  KMSInvalidStateException: 'has the key of the stream in a state in which it cannot be used',
  KMSNotFoundException: 'does not find the key of the stream',
  KMSOptInRequired: 'needs this account to subscribe to it',
}

export function isMissing(error: unknown): boolean {
  return (error as Error | null)?.name === 'ResourceNotFoundException'
}
export function isForbidden(error: unknown): boolean {
  return error instanceof Error && isDenied(errorFacts(error))
}
/** It is about a value in the request. */
export function isInvalid(error: unknown): boolean {
  return ['InvalidArgumentException', 'ValidationException'].includes((error as Error | null)?.name ?? '')
}

export function classify(error: unknown, { action, purpose: text }: Operation, context: FaultContext): unknown {
  if (error instanceof ManifoldError || !(error instanceof Error)) return error
  const answer = errorFacts(error)
  const common = commonFault(error, answer, text, { service: 'Kinesis', endpointOption: 'endpoint', ...context })
  if (common !== undefined) return common
  const { name, status, summary: says } = answer
  const { stream, region } = context
  const where = context.endpoint === '' ? '' : ` at ${context.endpoint}`
  const facts = { cause: error }
  if (name === 'ExpiredIteratorException') return new IteratorExpired(`Kinesis${where}: the iterator is too old`, facts)
  // A table without capacity refuses in the same way as one that is asked too often.
  if (
    name === 'LimitExceededException' &&
    action === 'RegisterStreamConsumer' &&
    !/\brate\b|creating|simultaneous/i.test(error.message)
  )
    return new Refused(
      `the stream ${stream} takes no more consumers (${lineOf(error)}): deregister one, or name one of them`,
      facts,
    )
  if (BUSY.has(name) || status === 503 || status === 429)
    return new Throttled(`Kinesis${where} asks for patience (${says})`, facts)
  if (name === 'ResourceInUseException') return new InUse(`Kinesis${where} cannot ${text} for now (${says})`, facts)
  // Among events a fault has a name and no status.
  if (name === 'ExpiredNextTokenException' || /^Internal/.test(name) || status >= 500)
    return new Disconnected(`Kinesis${where} could not ${text}: ${says}`, facts)
  const kms = KMS[name]
  if (kms !== undefined) return new Refused(`Kinesis${where} could not ${text}: KMS ${kms} (${lineOf(error)})`, facts)
  if (name === 'ResourceNotFoundException') {
    return new Refused(
      /shard|consumer/i.test(error.message) && !/^stream\b/i.test(error.message)
        ? `Kinesis${where} could not ${text}: ${lineOf(error)}`
        : `there is no stream ${stream} in region ${region}${where}: create it, or correct its name or region=; a stream of another account is named by its ARN`,
      facts,
    )
  }
  if (isDenied(answer) || status === 403)
    return new Refused(
      `Kinesis${where} denies it to ${text} (${says}): the credentials need kinesis:${action} on ${stream}`,
      facts,
    )
  // An answer that cannot be read (a proxy's page, a cut body): the SDK's parser fails with an error of its own, which
  // holds the answer. A redirection is none of theirs, either.
  if (status >= 300) return new Refused(`Kinesis${where} refuses to ${text}: ${says}`, facts)
  if (answer.answered || error instanceof SyntaxError)
    return new Disconnected(`Kinesis${where} could not ${text}: its answer makes no sense (${says})`, facts)
  return error
}
