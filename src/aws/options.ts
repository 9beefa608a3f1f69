/** Declares the options that all endpoints on AWS have: credentials and timeouts. */
import { opt } from '../options/define'

export const loginOptions = {
  profile: opt.string({ doc: 'Names the profile of the AWS configuration files.' }),
  roleArn: opt.string({ doc: 'Names the role to assume with the credentials that were found.' }),
  externalId: opt.string({ doc: 'Sets the external id for the role to assume (role-arn=).' }),
  accessKeyId: opt.string({
    doc: 'Sets the AWS access key. It needs its secret as well (secret-access-key=).',
    defaultText: "profile, then MANIFOLD_AWS_ACCESS_KEY, then the AWS SDK's chain",
    aliases: ['access-key'],
  }),
  secretAccessKey: opt.string({
    doc: 'Sets the secret of the AWS access key. Write it as {env:NAME}, {file:PATH} or {exec:COMMAND}.',
    secret: true,
    aliases: ['secret-key'],
  }),
  sessionToken: opt.string({ doc: 'Sets the session token of temporary AWS credentials.', secret: true }),
}

export const timeoutOption = opt.duration({
  doc: 'Sets the longest time without progress on a request. It is then sent again.',
  default: 60_000,
  defaultText: '60s',
  min: 100,
  bareMs: 1000,
  bare: 'seconds',
})
