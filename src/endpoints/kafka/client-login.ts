/** Logins of the client library: SASL options, and credentials of the AWS SDK for `sasl=aws-msk-iam`. */
import { createRequestHandler } from '../../aws/handler'
import { lineOf, Refused } from '../../core/errors'
import { iamToken } from './protocol/msk-iam'
import type { SaslOptions } from './protocol/library'
import type { Login } from './settings'

const MIB = 1024 * 1024
/** Longest time to connect to a service that gives credentials. */
const CREDENTIALS_TIMEOUT_MS = 10_000

export function saslOf(login: Login | undefined, host: string): SaslOptions | undefined {
  if (login === undefined) return undefined
  switch (login.mechanism) {
    case 'oauthbearer':
      return {
        mechanism: 'OAUTHBEARER',
        token: login.token,
        oauthBearerExtensions: { ...login.extensions },
        authBytesValidator: checkTokenAnswer,
      }
    case 'aws-msk-iam':
      return {
        mechanism: 'OAUTHBEARER',
        token: () => iamToken(login.aws, host, awsCredentials),
        authBytesValidator: checkTokenAnswer,
      }
    default:
      return { mechanism: login.mechanism.toUpperCase() as 'PLAIN', username: login.user, password: login.password }
  }
}

/** A broker that takes a token answers with nothing; else with a JSON object that says why not (RFC 7628, 3.2.3). */
function checkTokenAnswer(answer: Buffer, callback: (error: Error | null, answer?: Buffer) => void): void {
  if (answer.length === 0) {
    callback(null, answer)
    return
  }
  callback(new Refused(`the broker refuses the token: ${lineOf(answer.toString('utf8').slice(0, 200))}`))
}

async function awsCredentials({
  profile,
  roleArn,
  keys,
  region,
}: Extract<Login, { mechanism: 'aws-msk-iam' }>['aws']): Promise<{
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
}> {
  const { fromNodeProviderChain, fromTemporaryCredentials } = await import('@aws-sdk/credential-providers')
  const requestHandler = await createRequestHandler({ connectMs: CREDENTIALS_TIMEOUT_MS, maxSockets: 4, maxBytes: MIB })
  const clientConfig = { requestHandler, ...(region === undefined ? {} : { region }) }
  const base =
    keys === undefined
      ? fromNodeProviderChain({ parentClientConfig: clientConfig, ...(profile === undefined ? {} : { profile }) })
      : () => Promise.resolve(keys)
  const chain =
    roleArn === undefined
      ? base
      : fromTemporaryCredentials({
          masterCredentials: base,
          params: { RoleArn: roleArn, RoleSessionName: 'manifold' },
          clientConfig,
        })
  try {
    return await chain()
  } catch (error) {
    throw new Refused(
      `no AWS credentials for sasl=aws-msk-iam (${lineOf(error)}): give access-key-id= and secret-access-key=, profile= or role-arn=`,
      { cause: error },
    )
  }
}
