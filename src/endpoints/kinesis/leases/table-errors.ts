/** Classifies answers of DynamoDB, and their absence, for the core. It knows the shape of the SDK's errors alone. */
import type { TableDescription } from '@aws-sdk/client-dynamodb'
import { errorFacts, commonFault, isDenied } from '../../../aws/errors'
import { Disconnected, ManifoldError, Refused, Throttled } from '../../../core/errors'

/** Where a request went, for messages. */
export interface TableFaultContext {
  readonly table: string
  /** Empty: Amazon's own. */
  readonly endpoint: string
  readonly region: string
}

const BUSY = new Set([
  'ProvisionedThroughputExceededException',
  'ProvisionedThroughputExceeded',
  'ThrottlingException',
  'Throttling',
  'RequestLimitExceeded',
  'LimitExceededException',
  'TooManyRequestsException',
  'ServiceUnavailable',
  'ReplicatedWriteConflictException',
  'TransactionConflictException',
])

/** @param doing continues "DynamoDB could not …" */
export function classify(error: unknown, doing: string, { table, endpoint, region }: TableFaultContext): unknown {
  if (error instanceof ManifoldError || !(error instanceof Error)) return error
  const answer = errorFacts(error)
  const common = commonFault(error, answer, doing, {
    service: 'DynamoDB',
    endpointOption: 'leases-endpoint',
    endpoint,
    region,
  })
  if (common !== undefined) return common
  const { name, status, summary, answered } = answer
  const where = endpoint === '' ? '' : ` at ${endpoint}`
  const facts = { cause: error }
  if (BUSY.has(name) || status === 503 || status === 429)
    return new Throttled(`DynamoDB${where} asks for patience with the table ${table} (${summary})`, facts)
  if (status >= 500) return new Disconnected(`DynamoDB${where} could not ${doing}: ${summary}`, facts)
  if (name === 'ResourceNotFoundException')
    return new Refused(
      `the table of leases ${table} is not in region ${region}${where} any more: when the source is opened again it is made anew, and shards begin at start=`,
      facts,
    )
  if (isDenied(answer) || status === 403) {
    return new Refused(
      `DynamoDB${where} denies it to ${doing} (${summary}): the credentials need dynamodb:DescribeTable, Scan, GetItem, PutItem, UpdateItem and DeleteItem on the table ${table}, and CreateTable where there is none`,
      facts,
    )
  }
  // A redirection is none of theirs, either.
  if (status >= 300) return new Refused(`DynamoDB${where} refuses to ${doing}: ${summary}`, facts)
  // An answer that cannot be read (a proxy's page, a cut body): the SDK's parser fails with an error of its own, which
  // holds the answer.
  if (answered || error instanceof SyntaxError)
    return new Disconnected(`DynamoDB${where} could not ${doing}: its answer makes no sense (${summary})`, facts)
  return error
}

/** Says why a table cannot have leases. */
export function layoutFault(
  { KeySchema: keys = [], AttributeDefinitions: attributes = [] }: TableDescription,
  { table, region }: TableFaultContext,
): string | undefined {
  const type = attributes.find(({ AttributeName }) => AttributeName === 'leaseKey')?.AttributeType
  if (keys.length === 1 && keys[0]?.AttributeName === 'leaseKey' && keys[0].KeyType === 'HASH' && type === 'S')
    return undefined
  const has = keys.map(({ AttributeName = '', KeyType = '' }) => `${AttributeName} (${KeyType})`).join(', ')
  return `the table ${table} in ${region} is not one of leases: its key is ${has}, that of the Kinesis Client Library is leaseKey (HASH, a string); name another in leases=, which is made where there is none`
}
