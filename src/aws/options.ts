/** Options that endpoints on AWS have in common: where, and as whom. */
import { opt } from '../options/define'

export const loginOptions = {
  profile: opt.string({ doc: 'Profile of the AWS configuration files.' }),
  roleArn: opt.string({ doc: 'Role to assume, with the credentials found otherwise.' }),
  externalId: opt.string({ doc: 'External id for role-arn.' }),
  accessKeyId: opt.string({
    doc: 'Access key; goes with secret-access-key.',
    defaultText: "profile, then MANIFOLD_AWS_ACCESS_KEY, then the AWS SDK's chain",
    aliases: ['access-key'],
  }),
  secretAccessKey: opt.string({
    doc: 'Secret of the access key: give it as {env:NAME}, {file:PATH} or {exec:COMMAND}.',
    secret: true,
    aliases: ['secret-key'],
  }),
  sessionToken: opt.string({ doc: 'Session token of temporary credentials.', secret: true }),
}

export const timeoutOption = opt.duration({
  doc: 'A request on which nothing moves for this long is given up and tried again.',
  default: 60_000,
  defaultText: '60s',
  min: 100,
  bareMs: 1000,
  bare: 'seconds',
})
