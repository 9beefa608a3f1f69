/** Resolves options into the settings of connections. */
import type { Given, Target } from '../../options/define'
import { readTls } from '../../options/tls'
import { PORTS, type KafkaOptions, type MECHANISMS } from './options'

export interface BrokerAddress {
  readonly host: string
  readonly port: number
}
export interface TlsSettings {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly passphrase?: string
  readonly servername?: string
  readonly rejectUnauthorized: boolean
}
export type Mechanism = (typeof MECHANISMS)[number]
export type Login =
  | {
      readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'
      readonly user: string
      readonly password: string
    }
  /** `token` is asked for at every login. */
  | {
      readonly mechanism: 'oauthbearer'
      readonly token: () => Promise<string>
      readonly extensions: Readonly<Record<string, string>>
    }
  | { readonly mechanism: 'aws-msk-iam'; readonly aws: AwsSettings }
export interface AwsSettings {
  readonly region?: string
  readonly profile?: string
  readonly roleArn?: string
  readonly keys?: { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken?: string }
}
export interface Settings {
  readonly hosts: readonly BrokerAddress[]
  readonly clientId: string
  readonly tls?: TlsSettings
  readonly login?: Login
  /** Milliseconds for name, TCP, TLS and login together. */
  readonly connectMs: number
  readonly requestMs: number
}

/** Returns the login that the options ask for, or imply by a token or a user. */
export function mechanismOf({ options, uri }: Given<KafkaOptions>): Mechanism {
  return (
    options.sasl ??
    (options.token !== undefined ? 'oauthbearer' : (options.user ?? uri.user) !== undefined ? 'plain' : 'none')
  )
}

/**
 * Resolves placeholders and reads the files that options name, at every open: certificates and tokens are renewed.
 * Throws `Refused` where one cannot be read.
 */
export async function settingsOf(target: Target<KafkaOptions>): Promise<Settings> {
  const given = await target.resolve()
  const { options, uri } = given
  const secure = uri.scheme === 'kafka+tls'
  const login = loginOf(given, target)
  return {
    hosts: uri.hosts.map(({ host, port }) => ({ host, port: port ?? PORTS[secure ? 'kafka+tls' : 'kafka'] })),
    clientId: options.clientId,
    connectMs: options.connectTimeout,
    requestMs: options.requestTimeout,
    ...(login === undefined ? {} : { login }),
    ...(secure ? { tls: await readTls(options) } : {}),
  }
}

function loginOf(given: Given<KafkaOptions>, target: Target<KafkaOptions>): Login | undefined {
  const { options, uri } = given
  const mechanism = mechanismOf(given)
  switch (mechanism) {
    case 'none':
      return undefined
    case 'oauthbearer':
      return {
        mechanism,
        extensions: Object.fromEntries(options.tokenExtension),
        token: async () => (await target.resolve()).options.token ?? '',
      }
    case 'aws-msk-iam': {
      const { region, profile, roleArn, accessKeyId, secretAccessKey, sessionToken } = options
      const keys =
        accessKeyId === undefined || secretAccessKey === undefined
          ? undefined
          : { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) }
      return {
        mechanism,
        aws: {
          ...(region === undefined ? {} : { region }),
          ...(profile === undefined ? {} : { profile }),
          ...(roleArn === undefined ? {} : { roleArn }),
          ...(keys === undefined ? {} : { keys }),
        },
      }
    }
    default:
      return { mechanism, user: options.user ?? uri.user ?? '', password: options.password ?? uri.password ?? '' }
  }
}
