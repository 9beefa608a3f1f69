/** Tokens for Amazon MSK, held against the signer of the AWS SDK. */
import { createHash, createHmac } from 'node:crypto'
import { SignatureV4 } from '@smithy/signature-v4'
import { iamToken, signedToken } from '../../../../src/endpoints/kafka/protocol/msk-iam'

class Sha256 {
  private readonly sum: { update(data: Uint8Array): unknown; digest(): Buffer }
  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.sum = secret === undefined ? createHash('sha256') : createHmac('sha256', Buffer.from(secret as Uint8Array))
  }
  update(data: Uint8Array): void {
    this.sum.update(data)
  }
  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.sum.digest())
  }
}
const now = new Date('2026-01-31T12:34:56Z')

test.each([
  ['keys', { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY' }],
  ['temporary keys', { accessKeyId: 'ASIAEXAMPLE', secretAccessKey: 'secret', sessionToken: "a/b+c==(d)'*!" }],
])('a token of %s is the request that the SDK signs', async (_, credentials) => {
  const url = new URL(Buffer.from(signedToken('eu-west-1', credentials, now), 'base64url').toString())
  expect(url.searchParams.get('User-Agent')).toBe('manifold')
  url.searchParams.delete('User-Agent')
  const signer = new SignatureV4({
    credentials,
    region: 'eu-west-1',
    service: 'kafka-cluster',
    sha256: Sha256,
    applyChecksum: false,
  })
  const { query, hostname } = await signer.presign(
    {
      method: 'GET',
      protocol: 'https:',
      hostname: 'kafka.eu-west-1.amazonaws.com',
      path: '/',
      headers: { host: 'kafka.eu-west-1.amazonaws.com' },
      query: { Action: 'kafka-cluster:Connect' },
    },
    { expiresIn: 900, signingDate: now },
  )
  expect(url.hostname).toBe(hostname)
  expect(Object.fromEntries(url.searchParams)).toEqual(query)
})

test('the region is that of the option, or the one in the name of the broker', async () => {
  const credentials = (): Promise<{ accessKeyId: string; secretAccessKey: string }> =>
    Promise.resolve({ accessKeyId: 'a', secretAccessKey: 'b' })
  const host = async (region: string | undefined, broker: string) =>
    new URL(
      Buffer.from(
        await iamToken(region === undefined ? {} : { region }, broker, credentials, now),
        'base64url',
      ).toString(),
    ).hostname
  expect(await host(undefined, 'b-1.demo.abc.c2.kafka.ap-southeast-2.amazonaws.com')).toBe(
    'kafka.ap-southeast-2.amazonaws.com',
  )
  expect(await host(undefined, 'boot-x.c1.kafka-serverless.us-east-1.amazonaws.com')).toBe(
    'kafka.us-east-1.amazonaws.com',
  )
  expect(await host('eu-west-1', 'b-1.demo.abc.c2.kafka.ap-southeast-2.amazonaws.com')).toBe(
    'kafka.eu-west-1.amazonaws.com',
  )
})
