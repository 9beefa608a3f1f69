/**
 * Tokens for Amazon MSK: a presigned request, as the AWS's aws-msk-iam-sasl-signer libraries make it ("IAM access
 * control", Amazon MSK Developer Guide).
 */
import { createHash, createHmac } from 'node:crypto'
import { Refused } from '../../../core/errors'
import type { AwsSettings } from '../settings'

export interface AwsCredentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
}

const SERVICE = 'kafka-cluster'
/** Seconds in which the token has to be used; the session lasts as long as the credentials. */
const EXPIRES = 900

/** @param host of the broker, whose name holds the region (`b-1.x.kafka.eu-west-1.amazonaws.com`) */
export async function iamToken(
  aws: AwsSettings,
  host: string,
  credentialsOf: (aws: AwsSettings) => Promise<AwsCredentials>,
  now = new Date(),
): Promise<string> {
  const region =
    aws.region ??
    /\.kafka(?:-serverless)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?$/.exec(host)?.[1] ??
    process.env.AWS_REGION ??
    process.env.AWS_DEFAULT_REGION
  if (region === undefined) throw new Refused('sasl=aws-msk-iam needs the region: give region=')
  return signedToken(region, await credentialsOf({ ...aws, region }), now)
}

/** Signature Version 4 in the query ("Create a signed AWS API request", AWS IAM User Guide), base64url. */
export function signedToken(
  region: string,
  { accessKeyId, secretAccessKey, sessionToken }: AwsCredentials,
  now: Date,
): string {
  const time = now.toISOString().replace(/[-:]|\.\d+/g, '')
  const day = time.slice(0, 8)
  const scope = `${day}/${region}/${SERVICE}/aws4_request`
  const host = `kafka.${region}.amazonaws.com`
  const query = Object.entries({
    Action: 'kafka-cluster:Connect',
    'X-Amz-Algorithm': 'AWS4-HMAC-SHA256',
    'X-Amz-Credential': `${accessKeyId}/${scope}`,
    'X-Amz-Date': time,
    'X-Amz-Expires': String(EXPIRES),
    ...(sessionToken === undefined ? {} : { 'X-Amz-Security-Token': sessionToken }),
    'X-Amz-SignedHeaders': 'host',
  })
    .map(([name, value]) => `${encode(name)}=${encode(value)}`)
    .sort()
    .join('&')
  const request = ['GET', '/', query, `host:${host}\n`, 'host', sha256('')].join('\n')
  const text = ['AWS4-HMAC-SHA256', time, scope, sha256(request)].join('\n')
  const key = [day, region, SERVICE, 'aws4_request'].reduce<Buffer | string>(
    (secret, part) => hmac(secret, part),
    `AWS4${secretAccessKey}`,
  )
  const url = `https://${host}/?${query}&X-Amz-Signature=${hmac(key, text).toString('hex')}&User-Agent=manifold`
  return Buffer.from(url).toString('base64url')
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
}
function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
function hmac(key: Buffer | string, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}
