/** Whose credentials are used. MinIO refuses the wrong ones and has an STS of its own. */
import '../../support/node-errors'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { CONFIRMED } from '../../../src/core/contract'
import { Refused } from '../../../src/core/errors'
import { describeWith } from '../../services/describe-with'
import { Bucket, type S3Server, startS3 } from '../../services/s3'
import { S3Proxy } from '../../support/s3-proxy'
import { opened, type S3Options, segmentOf } from '../../support/s3-sink'

const NAMES = [
  'AWS_ACCESS_KEY_ID',
  'AWS_SECRET_ACCESS_KEY',
  'AWS_SESSION_TOKEN',
  'AWS_PROFILE',
  'AWS_REGION',
  'AWS_DEFAULT_REGION',
  'AWS_SHARED_CREDENTIALS_FILE',
  'AWS_CONFIG_FILE',
  'AWS_EC2_METADATA_DISABLED',
  'AWS_ENDPOINT_URL_STS',
  'MANIFOLD_AWS_ACCESS_KEY',
  'MANIFOLD_AWS_SECRET_KEY',
  'MANIFOLD_AWS_REGION',
]

describeWith('minio', 'the credentials of the S3 sink', () => {
  let server: S3Server
  let bucket: Bucket
  let folder: string
  const before = new Map<string, string | undefined>()
  beforeAll(async () => {
    server = await startS3('minio')
    bucket = await Bucket.make(server)
  })
  afterAll(async () => {
    bucket.close()
    await server.stop()
  })
  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-aws-'))
    for (const name of NAMES) {
      before.set(name, process.env[name])
      Reflect.deleteProperty(process.env, name)
    }
    environment({
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_SHARED_CREDENTIALS_FILE: path.join(folder, 'credentials'),
      AWS_CONFIG_FILE: path.join(folder, 'config'),
    })
    fs.writeFileSync(path.join(folder, 'credentials'), '')
    fs.writeFileSync(path.join(folder, 'config'), '')
  })
  afterEach(() => {
    for (const [name, value] of before)
      if (value === undefined) Reflect.deleteProperty(process.env, name)
      else process.env[name] = value
    fs.rmSync(folder, { recursive: true })
  })
  const environment = (variables: Record<string, string>): void => {
    Object.assign(process.env, variables)
  }
  const profile = (name: string, key: string, secret: string): void => {
    fs.appendFileSync(
      path.join(folder, 'credentials'),
      `[${name}]\naws_access_key_id=${key}\naws_secret_access_key=${secret}\n`,
    )
  }
  const own = (): { accessKeyId: string; secretAccessKey: string } => ({
    accessKeyId: server.accessKey,
    secretAccessKey: server.secretKey,
  })
  const stores = async (words: Partial<S3Options>): Promise<void> => {
    const { sink, write } = await opened({ endpoint: server.endpoint, ...words }, bucket.name)
    try {
      expect(await write(segmentOf(Buffer.from('x\n')))).toEqual(CONFIRMED)
    } finally {
      await sink.close()
    }
  }
  const refused = async (words: Partial<S3Options>): Promise<string> => {
    try {
      await stores(words)
    } catch (error) {
      expect(error).toBeInstanceOf(Refused)
      return (error as Error).message
    }
    throw new Error('it opened')
  }

  it('are those of the options before any others', async () => {
    profile('wrong', 'profile', 'profile')
    environment({
      MANIFOLD_AWS_ACCESS_KEY: 'wrong',
      MANIFOLD_AWS_SECRET_KEY: 'wrong',
      AWS_ACCESS_KEY_ID: 'wrong',
      AWS_SECRET_ACCESS_KEY: 'wrong',
    })
    await stores({ ...own(), profile: 'wrong' })
  })
  it('are those of the profile before the environment', async () => {
    profile('right', server.accessKey, server.secretKey)
    environment({
      MANIFOLD_AWS_ACCESS_KEY: 'wrong',
      MANIFOLD_AWS_SECRET_KEY: 'wrong',
      AWS_ACCESS_KEY_ID: 'wrong',
      AWS_SECRET_ACCESS_KEY: 'wrong',
    })
    await stores({ profile: 'right' })
  })
  it("are the original's variables before those of the AWS SDK", async () => {
    environment({
      MANIFOLD_AWS_ACCESS_KEY: server.accessKey,
      MANIFOLD_AWS_SECRET_KEY: server.secretKey,
      AWS_ACCESS_KEY_ID: 'wrong',
      AWS_SECRET_ACCESS_KEY: 'wrong',
    })
    await stores({})
    environment({
      MANIFOLD_AWS_ACCESS_KEY: 'wrong',
      AWS_ACCESS_KEY_ID: server.accessKey,
      AWS_SECRET_ACCESS_KEY: server.secretKey,
    })
    expect(await refused({})).toMatch(/does not know the access key/)
  })
  it("are those of the AWS SDK's chain where nothing else is given", async () => {
    environment({ AWS_ACCESS_KEY_ID: server.accessKey, AWS_SECRET_ACCESS_KEY: server.secretKey })
    await stores({})
  })
  it('are read anew at each opening', async () => {
    profile('rotating', server.accessKey, 'yesterday')
    expect(await refused({ profile: 'rotating' })).toMatch(/secret does not belong/)
    fs.writeFileSync(path.join(folder, 'credentials'), '')
    profile('rotating', server.accessKey, server.secretKey)
    await stores({ profile: 'rotating' })
  })
  it('may be those of a role, assumed with the ones given', async () => {
    environment({ AWS_ENDPOINT_URL_STS: server.endpoint })
    await stores({ ...own(), roleArn: 'arn:aws:iam::123456789012:role/archiver', externalId: 'e' })
    profile('right', server.accessKey, server.secretKey)
    await stores({ profile: 'right', roleArn: 'arn:aws:iam::123456789012:role/archiver' })
    expect(
      await refused({
        accessKeyId: server.accessKey,
        secretAccessKey: 'canary-secret',
        roleArn: 'arn:aws:iam::123456789012:role/archiver',
      }),
    ).not.toMatch(/canary-secret/)
  })
  it('are refused, where there are none, with the ways to give some', async () => {
    expect(await refused({})).toMatch(
      /no credentials for S3.*access-key-id=.*profile=.*role-arn=.*MANIFOLD_AWS_ACCESS_KEY/,
    )
    expect(await refused({ profile: 'nobody' })).toMatch(/no credentials for S3.*nobody/)
  })
  it("sign for the region of the options, of the original's variable, of the profile, in this order", async () => {
    const regions: (string | undefined)[] = []
    const proxy = await S3Proxy.start(server.endpoint)
    const regionUsed = async (words: Partial<S3Options>): Promise<void> => {
      const { sink } = await opened({ endpoint: proxy.endpoint, ...own(), ...words }, bucket.name)
      await sink.close()
      regions.push(/Credential=[^/]+\/\d+\/([^/]+)\//.exec(String(proxy.seen.at(-1)?.headers.authorization))?.[1])
    }
    try {
      // Before the first look: the SDK reads these files once for its settings.
      fs.writeFileSync(
        path.join(folder, 'config'),
        '[profile right]\nregion = eu-north-1\n[default]\nregion = eu-south-1\n',
      )
      profile('right', server.accessKey, server.secretKey)
      await regionUsed({})
      environment({ MANIFOLD_AWS_REGION: 'sa-east-1' })
      await regionUsed({})
      await regionUsed({ profile: 'right' })
      await regionUsed({ profile: 'right', region: 'eu-west-3' })
      expect(regions).toEqual(['eu-south-1', 'sa-east-1', 'eu-north-1', 'eu-west-3'])
    } finally {
      await proxy.stop()
    }
  })
})
