/** As whom to speak to AWS: what options say, then the original's environment variables, then the SDK's own chain. */
import type { fromIni } from '@aws-sdk/credential-providers'
import type { OptionsOf } from '../options/define'
import type { RequestHandler } from './handler'
import type { loginOptions } from './options'

/** Environment variables of the original. */
export interface Environment {
  readonly MANIFOLD_AWS_REGION?: string
  readonly MANIFOLD_AWS_ACCESS_KEY?: string
  readonly MANIFOLD_AWS_SECRET_KEY?: string
}
export type LoginOptions = OptionsOf<typeof loginOptions>
/** As a client of the SDK takes them: fixed, or to be asked for whenever they are about to expire. */
export type Credentials =
  | { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken?: string }
  | ReturnType<typeof fromIni>

/** Finds faults before anything is opened, and returns a line for each. */
export function awsFaults({
  accessKeyId,
  secretAccessKey,
  sessionToken,
  roleArn,
  externalId,
  endpoint,
  region,
}: LoginOptions & { readonly endpoint?: string | undefined; readonly region?: string | undefined }): readonly string[] {
  const faults: string[] = []
  if ((accessKeyId === undefined) !== (secretAccessKey === undefined))
    faults.push('access-key-id and secret-access-key go together')
  if (sessionToken !== undefined && accessKeyId === undefined)
    faults.push('session-token goes with access-key-id and secret-access-key')
  if (externalId !== undefined && roleArn === undefined) faults.push('external-id goes with role-arn')
  // A placeholder is resolved at opening; a URL that is wrong then is refused there.
  if (endpoint !== undefined && !endpoint.includes('{') && !/^https?:\/\/[^/]/i.test(endpoint))
    faults.push('endpoint is a URL: http://HOST:PORT or https://HOST')
  if (region !== undefined && !region.includes('{') && !/^[a-z0-9]+(?:-[a-z0-9]+)*$/i.test(region))
    faults.push(`region=${region} is none: eu-west-1 is such a name`)
  return faults
}

/**
 * @returns undefined: what the SDK finds by itself. @param region of the STS that assumes a role @param requestHandler
 *   by which STS is asked
 */
export async function credentialsOf(
  login: LoginOptions,
  environment: Environment,
  region: string | undefined,
  requestHandler: RequestHandler,
): Promise<Credentials | undefined> {
  const { accessKeyId, secretAccessKey, sessionToken, profile, roleArn, externalId } = login
  const { MANIFOLD_AWS_ACCESS_KEY: key, MANIFOLD_AWS_SECRET_KEY: secret } = environment
  if (profile === undefined && roleArn === undefined && accessKeyId === undefined)
    return key && secret ? { accessKeyId: key, secretAccessKey: secret } : undefined
  const given =
    accessKeyId !== undefined && secretAccessKey !== undefined
      ? { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) }
      : undefined
  if (given !== undefined && roleArn === undefined) return given
  const { fromIni, fromTemporaryCredentials } = await import('@aws-sdk/credential-providers')
  // The files are read anew at each opening: whoever rotates them need not restart anything.
  const base =
    given ??
    (profile !== undefined
      ? fromIni({
          profile,
          ignoreCache: true,
          parentClientConfig: { requestHandler, ...(region === undefined ? {} : { region }) },
        })
      : key && secret
        ? { accessKeyId: key, secretAccessKey: secret }
        : undefined)
  if (roleArn === undefined) return base
  return fromTemporaryCredentials({
    ...(base === undefined ? {} : { masterCredentials: base }),
    clientConfig: { requestHandler, ...(region === undefined ? {} : { region }) },
    params: {
      RoleArn: roleArn,
      RoleSessionName: 'manifold',
      ...(externalId === undefined ? {} : { ExternalId: externalId }),
    },
  })
}

/** The region as options and the original's variable say it; a profile brings its own. */
export function regionOf(
  { region, profile }: { readonly region?: string | undefined; readonly profile?: string | undefined },
  environment: Environment,
): string | undefined {
  return region ?? (profile === undefined ? environment.MANIFOLD_AWS_REGION : undefined)
}
